package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
	"golang.org/x/crypto/ssh"
)

// node is one container.
type node struct {
	name      string // n1
	container string // capsize-<run>-n1
	address   string
	hostKey   ssh.PublicKey
}

// createNode creates and starts one container, with the keys that let the checker in and
// let it know where it is.
func (c *Cluster) createNode(ctx context.Context, n *node, authorized []byte) error {
	private, signer, err := newKey()
	if err != nil {
		return err
	}
	n.hostKey = signer.PublicKey()
	keys, err := keyFiles(private, n.hostKey, authorized)
	if err != nil {
		return fmt.Errorf("keys of %s: %w", n.name, err)
	}
	extras := extras{sysctls: c.sysctls(), disks: c.options.Disks}
	for {
		err := c.launch(ctx, n, keys, extras)
		if err == nil {
			break
		}
		// The engine may be another machine's, which lacks what this one has.
		switch {
		case extras.sysctls != nil && strings.Contains(err.Error(), path.Base(file(c.sysctl))):
			extras.sysctls = nil
		case extras.disks && strings.Contains(err.Error(), fuseDevice):
			extras.disks = false
		default:
			return err
		}
		if err := c.discard(ctx, n); err != nil {
			return err
		}
	}
	return c.findAddress(ctx, n)
}

// extras are what a container gets where its engine has it.
type extras struct {
	sysctls map[string]string
	disks   bool
}

const fuseDevice = "/dev/fuse"

// host is how a container is bound to its machine.
func (c *Cluster) host(with extras) *container.HostConfig {
	init := true
	host := &container.HostConfig{
		Init:        &init,
		NetworkMode: container.NetworkMode(c.network),
		CapAdd:      []string{"NET_ADMIN"}, // for the agent's packet filter, inside the container's own network
		Sysctls:     with.sysctls,
	}
	if with.disks {
		host.CapAdd = append(host.CapAdd, "SYS_ADMIN") // to mount, inside the container's own mount namespace
		host.Devices = []container.DeviceMapping{{PathOnHost: fuseDevice, PathInContainer: fuseDevice, CgroupPermissions: "rwm"}}
		host.SecurityOpt = []string{"apparmor=unconfined"} // Docker's profile forbids every mount
	}
	return host
}

// launch creates and starts a node's container. It goes no further when ctx ends, but
// comes to the end of what it has begun.
func (c *Cluster) launch(ctx context.Context, n *node, keys []byte, with extras) error {
	var id string
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"create container", func(ctx context.Context) error {
			made, err := c.engine.ContainerCreate(ctx,
				&container.Config{Image: c.options.Image, Hostname: n.name, Labels: c.labels()},
				c.host(with), nil, nil, n.container)
			id = made.ID
			if err != nil {
				return explain(err)
			}
			return nil
		}},
		{"copy keys into", func(ctx context.Context) error {
			return c.engine.CopyToContainer(ctx, id, "/", bytes.NewReader(keys), container.CopyToContainerOptions{})
		}},
		{"start", func(ctx context.Context) error {
			return c.engine.ContainerStart(ctx, id, container.StartOptions{})
		}},
	}
	for _, step := range steps {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		uncut, cancel := uncut(ctx)
		err := step.do(uncut)
		cancel()
		if err != nil {
			return fmt.Errorf("%s %s: %w", step.what, n.container, err)
		}
	}
	return nil
}

// discard removes a container of this cluster that could not be started.
func (c *Cluster) discard(ctx context.Context, n *node) error {
	ctx, cancel := uncut(ctx)
	defer cancel()
	err := c.engine.ContainerRemove(ctx, n.container, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove container %s: %w", n.container, err)
	}
	return nil
}

func (c *Cluster) findAddress(ctx context.Context, n *node) error {
	ctx, cancel := context.WithTimeout(ctx, engineLimit)
	defer cancel()
	info, err := c.engine.ContainerInspect(ctx, n.container)
	if err != nil {
		return fmt.Errorf("inspect %s: %w", n.container, err)
	}
	for _, endpoint := range info.NetworkSettings.Networks {
		n.address = endpoint.IPAddress
	}
	if n.address == "" {
		return fmt.Errorf("%s has no address; it is %s%s", n.container, info.State.Status, c.lastWords(ctx, n))
	}
	return nil
}

// ended waits until a node's container ends by itself, and says how. It returns nil when
// ctx ends first.
func (c *Cluster) ended(ctx context.Context, n *node) error {
	exits, failures := c.engine.ContainerWait(ctx, n.container, container.WaitConditionNotRunning)
	select {
	case exit := <-exits:
		return fmt.Errorf("%s ended by itself with status %d%s", n.container, exit.StatusCode, c.lastWords(ctx, n))
	case err := <-failures:
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("watch %s: %w", n.container, err)
	}
}

// lastWords returns the end of a container's log, as the end of a sentence.
func (c *Cluster) lastWords(ctx context.Context, n *node) string {
	ctx, cancel := context.WithTimeout(ctx, engineLimit)
	defer cancel()
	log, err := c.engine.ContainerLogs(ctx, n.container, container.LogsOptions{ShowStdout: true, ShowStderr: true, Tail: "5"})
	if err != nil {
		return ", and its log cannot be read: " + err.Error()
	}
	defer func() { _ = log.Close() }() // only read
	var said bytes.Buffer
	if _, err := stdcopy.StdCopy(&said, &said, log); err != nil {
		return ", and its log cannot be read: " + err.Error()
	}
	if said.Len() == 0 {
		return ", and logged nothing"
	}
	return "; it logged: " + strings.TrimSpace(said.String())
}

// sysctls bounds TCP's back-off in the containers where the kernel can (Linux 6.15 on):
// without that a connection that outlived a partition stays silent for seconds after the
// heal. This machine's kernel is asked, since a refusal costs a second start.
func (c *Cluster) sysctls() map[string]string {
	if _, err := os.Stat(file(retransmitMost)); err != nil {
		return nil
	}
	return map[string]string{c.sysctl: "1000"}
}

func file(sysctl string) string { return "/proc/sys/" + strings.ReplaceAll(sysctl, ".", "/") }

func newKey() (ed25519.PrivateKey, ssh.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	return key, signer, nil
}

func newID() string { return strings.ToLower(rand.Text()) }

// keyFiles returns the archive of the files that let the checker in, and let it know
// where it is.
func keyFiles(hostKey ed25519.PrivateKey, public ssh.PublicKey, authorized []byte) ([]byte, error) {
	block, err := ssh.MarshalPrivateKey(hostKey, "")
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, file := range []struct {
		name string
		mode int64
		data []byte
	}{
		{"root/.ssh/authorized_keys", 0o600, authorized},
		{"etc/ssh/ssh_host_ed25519_key", 0o600, pem.EncodeToMemory(block)},
		{"etc/ssh/ssh_host_ed25519_key.pub", 0o644, ssh.MarshalAuthorizedKey(public)},
	} {
		if err := w.WriteHeader(&tar.Header{Name: file.name, Mode: file.mode, Size: int64(len(file.data))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(file.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil { // writes the end
		return nil, err
	}
	return archive.Bytes(), nil
}
