package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/melbahja/goph"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

const (
	dialLimit      = 5 * time.Second // for the connection and the handshake together
	dialAgain      = 50 * time.Millisecond
	keepaliveEvery = time.Second
	keepaliveLimit = 5 * time.Second // of silence, with a keepalive not answered: the connection is dead
)

// readKnownHosts reads a file in OpenSSH's format (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).
func readKnownHosts(path string) (ssh.HostKeyCallback, error) {
	if path == "" {
		return nil, errors.New("none is named; host keys are always checked")
	}
	return knownhosts.New(path)
}

// Pinned accepts one host key and no other.
func Pinned(key ssh.PublicKey) ssh.HostKeyCallback {
	return func(_ string, _ net.Addr, got ssh.PublicKey) error {
		if slices.Equal(got.Marshal(), key.Marshal()) {
			return nil
		}
		return &knownhosts.KeyError{Want: []knownhosts.KnownKey{{Key: key}}}
	}
}

// algorithms returns those of the keys that are known of a machine. The known_hosts file
// cannot be asked directly; but it tells what it wants instead of a key that is nobody's.
func algorithms(known ssh.HostKeyCallback, m Machine) []string {
	var wrong *knownhosts.KeyError
	if !errors.As(known(m.endpoint(), &net.TCPAddr{IP: net.IPv4zero}, nobodysKey{}), &wrong) {
		return nil
	}
	var names []string
	for _, k := range wrong.Want {
		switch name := k.Key.Type(); name {
		case ssh.KeyAlgoRSA: // a key of this type signs with either hash (RFC 8332)
			names = append(names, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		default:
			names = append(names, name)
		}
	}
	return names
}

// nobodysKey is the key of no host.
type nobodysKey struct{}

func (nobodysKey) Type() string    { return "none" }
func (nobodysKey) Marshal() []byte { return []byte("none") }
func (nobodysKey) Verify([]byte, *ssh.Signature) error {
	return errors.New("this key verifies nothing")
}

func (m Machine) endpoint() string {
	return net.JoinHostPort(m.Address, strconv.Itoa(int(m.Port)))
}

// refusal is why a host's key was not accepted: trying again does not help.
type refusal struct{ why error }

func (r *refusal) Error() string { return r.why.Error() }
func (r *refusal) Unwrap() error { return r.why }

// checkKey is a machine's HostKey, with errors that tell what to do.
func (m Machine) checkKey(hostname string, remote net.Addr, got ssh.PublicKey) error {
	err := m.HostKey(hostname, remote, got)
	if err == nil {
		return nil
	}
	shown := fmt.Sprintf("%s shows the host key %s (%s)", m.Address, ssh.FingerprintSHA256(got), got.Type())
	var wrong *knownhosts.KeyError
	switch {
	case !errors.As(err, &wrong):
		return &refusal{fmt.Errorf("%s: %w", shown, err)}
	case len(wrong.Want) == 0:
		return &refusal{fmt.Errorf("%s, and the known_hosts file has none for it: if that is its key, add it, for example with ssh-keyscan over a trusted network", shown)}
	}
	var want []string
	for _, k := range wrong.Want {
		one := fmt.Sprintf("%s (%s)", ssh.FingerprintSHA256(k.Key), k.Key.Type())
		if k.Filename != "" {
			one += fmt.Sprintf(" of %s line %d", k.Filename, k.Line)
		}
		want = append(want, one)
	}
	return &refusal{fmt.Errorf("%s, not the expected %s: somebody else may be answering; if the host was installed anew, replace its expected key", shown, strings.Join(want, " or "))}
}

// dialPatiently tries until the machine's sshd answers, it shows a wrong key, or patience
// or ctx ends.
func dialPatiently(ctx context.Context, m Machine, key ssh.Signer, patience time.Duration) (*connection, error) {
	deadline := time.Now().Add(patience)
	for {
		client, err := dial(ctx, m, key)
		if err == nil {
			return client, nil
		}
		if errors.As(err, new(*refusal)) || !time.Now().Before(deadline) {
			return nil, err
		}
		select {
		case <-time.After(dialAgain):
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), err)
		}
	}
}

// dial bounds the connection and the handshake: a frozen host accepts the one and never
// begins the other.
func dial(ctx context.Context, m Machine, key ssh.Signer) (*connection, error) {
	limited, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	plain, err := (&net.Dialer{}).DialContext(limited, "tcp", m.endpoint())
	if err != nil {
		return nil, err
	}
	conn := &listened{Conn: plain, began: time.Now()}
	stop := context.AfterFunc(limited, func() { _ = conn.SetDeadline(time.Now()) }) // wakes the handshake
	auth := goph.Auth{ssh.PublicKeys(key)}
	inner, channels, requests, err := ssh.NewClientConn(conn, m.endpoint(), &ssh.ClientConfig{
		User: m.User, Auth: auth, HostKeyCallback: m.checkKey, HostKeyAlgorithms: m.KeyAlgorithms,
	})
	if !stop() { // the deadline is set, or about to be: of no use even if the handshake succeeded
		_ = conn.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("it accepts connections, but no SSH handshake came about within %s: is it frozen?", dialLimit)
	}
	if err != nil {
		_ = conn.Close() // of the two errors, the handshake's tells more
		return nil, err
	}
	config := &goph.Config{User: m.User, Addr: m.Address, Port: m.Port, Auth: auth, Timeout: dialLimit, Callback: m.checkKey}
	return &connection{Client: &goph.Client{Client: ssh.NewClient(inner, channels, requests), Config: config}, listened: conn}, nil
}

// connection is a client that knows for how long its host has been silent.
type connection struct {
	*goph.Client
	listened *listened
}

// listened is a network connection that notes when something came from the host.
type listened struct {
	net.Conn
	began time.Time    // the machine's clock may be set meanwhile: only differences count
	heard atomic.Int64 // nanoseconds after that
}

func (l *listened) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if n > 0 {
		l.heard.Store(int64(time.Since(l.began)))
	}
	return n, err
}

func (l *listened) silence() time.Duration {
	return time.Since(l.began) - time.Duration(l.heard.Load())
}

// keepalive closes a connection that no longer answers, so that whoever waits on it gets
// an error instead of waiting for ever.
func (h *host) keepalive() {
	ticker := time.NewTicker(keepaliveEvery)
	defer ticker.Stop()
	for {
		select {
		case <-h.quit:
			return
		case <-ticker.C:
		}
		if !h.checkAlive() {
			return
		}
	}
}

// checkAlive makes one round trip and reports whether the connection lives. The answer may
// wait behind a file that is being copied: a host that says anything at all is not frozen.
func (h *host) checkAlive() bool {
	answered := make(chan pong, 1)
	go func() { answered <- pong{h.ping()} }() // waited for here, or ends with the connection
	for wait := keepaliveLimit; wait > 0; wait = keepaliveLimit - h.client.listened.silence() {
		select {
		case <-h.quit:
			<-answered // whoever closed quit closes the connection
			return false
		case got := <-answered:
			return got.err == nil
		case <-time.After(wait):
		}
	}
	h.mu.Lock()
	h.lost = fmt.Errorf("the host was silent for %s, so its connection was closed", keepaliveLimit)
	h.mu.Unlock()
	_ = h.client.Close() // there is nobody to tell
	<-answered
	return false
}

// pong is the answer to a keepalive, or why none came.
type pong struct{ err error }

// ping makes one round trip.
func (h *host) ping() error {
	_, _, err := h.client.SendRequest("keepalive@openssh.com", true, nil)
	return err
}
