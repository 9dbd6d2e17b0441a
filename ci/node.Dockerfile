ARG BASE
FROM ${BASE}
ARG PACKAGES
# Does nothing where the base brings the packages already, as the one made without a registry does.
# The package makes host keys: they are removed in the same layer, so that none is in the image, for
# each cluster brings its own. The checker opens many sessions at once.
RUN { dpkg -s ${PACKAGES} >/dev/null 2>&1 \
      || { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ${PACKAGES} && rm -rf /var/lib/apt/lists/*; }; } \
 && rm -f /etc/ssh/ssh_host_* \
 && mkdir -p /run/sshd /root/.ssh && chmod 700 /root/.ssh \
 && printf '%s\n' 'UseDNS no' 'UsePAM no' 'MaxStartups 100:30:200' 'MaxSessions 100' \
      'PermitRootLogin prohibit-password' 'PasswordAuthentication no' \
      'HostKey /etc/ssh/ssh_host_ed25519_key' > /etc/ssh/sshd_config.d/capsize.conf
EXPOSE 22
CMD ["/usr/sbin/sshd", "-D", "-e"]
