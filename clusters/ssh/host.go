package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/melbahja/goph"
	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

const (
	dialLimit      = 5 * time.Second // for the connection and the handshake together
	keepaliveEvery = time.Second
	keepaliveLimit = 5 * time.Second // without an answer to a keepalive a connection is dead
	fileLimit      = time.Minute     // for one file
	leaveLimit     = 5 * time.Second // for a program whose input has ended
)

// host is one machine: a connection that files and the agent share.
type host struct {
	machine Machine
	dir     string
	client  *goph.Client
	files   *sftp.Client
	quit    chan struct{}
	once    sync.Once
	alive   sync.WaitGroup // the keepalive's goroutine
}

func connect(ctx context.Context, machine Machine, key ssh.Signer, dir string) (*host, error) {
	h := &host{machine: machine, dir: dir, quit: make(chan struct{})}
	client, err := dial(ctx, machine, key)
	if err != nil {
		return nil, fmt.Errorf("connect to %s (%s): %w", machine.Node, machine.Address, explain(err))
	}
	h.client = client
	h.alive.Go(h.keepalive)
	if h.files, err = sftp.NewClient(client.Client, sftp.UseConcurrentWrites(true)); err == nil {
		err = h.files.MkdirAll(dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare %s on %s: %w", dir, machine.Node, err), h.disconnect())
	}
	return h, nil
}

// dial bounds the connection and the handshake: a frozen host accepts the one and never
// begins the other.
func dial(ctx context.Context, m Machine, key ssh.Signer) (*goph.Client, error) {
	config := &goph.Config{User: m.User, Addr: m.Address, Port: m.Port, Auth: goph.Auth{ssh.PublicKeys(key)}, Timeout: dialLimit, Callback: m.HostKey}
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	address := net.JoinHostPort(m.Address, strconv.Itoa(int(m.Port)))
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	inner, channels, requests, err := ssh.NewClientConn(conn, address, &ssh.ClientConfig{User: m.User, Auth: config.Auth, HostKeyCallback: m.HostKey})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &goph.Client{Client: ssh.NewClient(inner, channels, requests), Config: config}, nil
}

// explain says what to do about a host key that is not the expected one.
func explain(err error) error {
	var wrong *knownhosts.KeyError
	if !errors.As(err, &wrong) {
		return err
	}
	if len(wrong.Want) == 0 {
		return fmt.Errorf("%w: the known_hosts file has no key for this host; add it, for example with ssh-keyscan over a trusted network", err)
	}
	var want []string
	for _, k := range wrong.Want {
		want = append(want, ssh.FingerprintSHA256(k.Key))
	}
	return fmt.Errorf("%w: the host shows another key than the expected %s; if it was installed anew, replace its line in the known_hosts file", err, strings.Join(want, " or "))
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
		answered := make(chan error, 1)
		go func() { // ends with its answer, or with the connection
			_, _, err := h.client.SendRequest("keepalive@openssh.com", true, nil)
			answered <- err
		}()
		select {
		case <-h.quit:
			return
		case err := <-answered:
			if err != nil {
				return
			}
		case <-time.After(keepaliveLimit):
			_ = h.client.Client.Close() // dead: there is nobody to tell
			return
		}
	}
}

func (h *host) disconnect() error {
	var err error
	h.once.Do(func() {
		close(h.quit)
		if h.files != nil {
			_ = h.files.Close() // the connection's end is what counts
		}
		err = h.client.Client.Close()
		h.alive.Wait()
	})
	if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (h *host) Name() string { return h.machine.Node }
func (h *host) Dir() string  { return h.dir }

// Put copies a file, under another name first, so that a program that runs from it is
// never half a file.
func (h *host) Put(ctx context.Context, local, name string, mode os.FileMode) error {
	err := h.bounded(ctx, func() error { return h.put(local, path.Join(h.dir, name), mode) })
	if err != nil {
		return fmt.Errorf("put %s on %s: %w", name, h.machine.Node, err)
	}
	return nil
}

func (h *host) put(local, remote string, mode os.FileMode) error {
	in, err := os.Open(local)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := h.files.MkdirAll(path.Dir(remote)); err != nil {
		return err
	}
	fresh := remote + ".new"
	out, err := h.files.Create(fresh)
	if err != nil {
		return err
	}
	size, err := out.ReadFrom(in)
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	if size != info.Size() {
		return fmt.Errorf("only %d of %d bytes arrived", size, info.Size())
	}
	if err := h.files.Chmod(fresh, mode); err != nil {
		return err
	}
	return h.files.PosixRename(fresh, remote)
}

func (h *host) Get(ctx context.Context, name, local string) error {
	err := h.bounded(ctx, func() error { return h.get(path.Join(h.dir, name), local) })
	if err != nil {
		return fmt.Errorf("get %s from %s: %w", name, h.machine.Node, err)
	}
	return nil
}

func (h *host) get(remote, local string) error {
	in, err := h.files.Open(remote)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	if err := os.MkdirAll(filepath.Dir(local), 0o755); err != nil {
		return err
	}
	out, err := os.Create(local)
	if err != nil {
		return err
	}
	_, err = in.WriteTo(out)
	return errors.Join(err, out.Close())
}

// bounded runs a file operation until ctx ends or its time is over. The operation itself
// ends with the connection at the latest.
func (h *host) bounded(ctx context.Context, do func() error) error {
	ctx, cancel := context.WithTimeout(ctx, fileLimit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// removeDir removes the run's directory, which lies below root.
func (h *host) removeDir(ctx context.Context) error {
	if !strings.HasPrefix(h.dir, root+"/") || path.Clean(h.dir) != h.dir {
		return fmt.Errorf("remove %s on %s: it is not below %s", h.dir, h.machine.Node, root)
	}
	err := h.bounded(ctx, func() error {
		session, err := h.client.NewSession()
		if err != nil {
			return err
		}
		defer func() { _ = session.Close() }() // ended by then
		return session.Run("rm -rf -- " + quote(h.dir))
	})
	if err != nil {
		return fmt.Errorf("remove %s on %s: %w", h.dir, h.machine.Node, err)
	}
	return nil
}

// quote makes a word that a shell takes as it is.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
