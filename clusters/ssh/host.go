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
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

const (
	fileLimit   = time.Minute      // for one file
	callLimit   = 10 * time.Second // for anything else
	removeLimit = 30 * time.Second // for the run's directory, which may hold much
)

// host is one machine: a connection that files and the agent share.
type host struct {
	machine Machine
	dir     string
	ip      string
	client  *connection // nil until connected
	files   *sftp.Client
	made    bool          // we made dir
	quit    chan struct{} // closed when the keepalive is to end
	gone    chan struct{} // closed when the connection has ended

	mu       sync.Mutex
	closed   bool
	lost     error                 // why the keepalive closed the connection
	attached int                   // how many sessions there were
	sessions map[*session]struct{} // that are not closed
	work     sync.WaitGroup        // every goroutine that uses the connection
}

func newHost(machine Machine, dir string) *host {
	return &host{machine: machine, dir: dir, quit: make(chan struct{}), gone: make(chan struct{}), sessions: make(map[*session]struct{})}
}

// connect connects and makes the run's directory. After an error the host is to be
// disconnected all the same.
func (h *host) connect(ctx context.Context, key ssh.Signer, patience time.Duration) error {
	client, err := dialPatiently(ctx, h.machine, key, patience)
	if err != nil {
		return fmt.Errorf("connect to %s (%s): %w", h.machine.Node, h.machine.endpoint(), err)
	}
	h.client = client
	if h.ip, _, err = net.SplitHostPort(client.RemoteAddr().String()); err != nil {
		return fmt.Errorf("connect to %s: %w", h.machine.Node, err)
	}
	h.work.Go(h.keepalive)
	h.work.Go(func() { _ = client.Wait(); close(h.gone) }) // why it ended, its users learn
	h.files, err = bounded(ctx, h, callLimit, func(context.Context) (*sftp.Client, error) { return h.openFiles() })
	if err == nil {
		// Not cut short when ctx ends: we would not know whether the directory is ours to remove.
		h.made, err = bounded(context.WithoutCancel(ctx), h, callLimit, func(context.Context) (bool, error) { return h.makeDir() })
	}
	if err != nil {
		return fmt.Errorf("prepare %s on %s: %w", h.dir, h.machine.Node, err)
	}
	return nil
}

// openFiles opens the host's file service.
func (h *host) openFiles() (*sftp.Client, error) {
	session, err := h.newSession()
	if err != nil {
		return nil, err
	}
	in, err := session.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := session.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := session.RequestSubsystem("sftp"); err != nil {
		return nil, err
	}
	return sftp.NewClientPipe(out, in, sftp.UseConcurrentWrites(true))
}

// newSession opens a session, unless the connection ends. The library cannot be waited for
// alone: a channel that is asked for at the moment in which the connection breaks is
// sometimes forgotten, and its asker then waits for ever. Such a one is left behind.
func (h *host) newSession() (*ssh.Session, error) {
	type result struct {
		session *ssh.Session
		err     error
	}
	opened := make(chan result, 1)
	go func() {
		session, err := h.client.NewSession()
		opened <- result{session, err}
	}()
	select {
	case r := <-opened:
		return r.session, r.err
	case <-h.gone:
		return nil, errLost
	}
}

// makeDir makes the run's directory, and reports whether it did so.
func (h *host) makeDir() (bool, error) {
	if err := h.files.MkdirAll(path.Dir(h.dir)); err != nil {
		return false, err
	}
	if _, err := h.files.Lstat(h.dir); err == nil {
		return false, errors.New("it exists already, so it belongs to another run")
	}
	err := h.files.Mkdir(h.dir)
	return err == nil, err
}

var (
	errDisconnected = errors.New("not connected")
	errLost         = errors.New("the connection was lost")
)

// track runs something that uses the connection in a goroutine that disconnect waits for.
func (h *host) track(do func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.client == nil {
		return false
	}
	h.work.Go(do)
	return true
}

// because adds why the connection was lost, if it was.
func (h *host) because(err error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lost == nil || err == nil {
		return err
	}
	return fmt.Errorf("%w: %w", h.lost, err)
}

// bounded does something over the host's connection until it is done, limit is over or ctx
// ends. What it then leaves behind ends with its context or with the connection, which the
// keepalive closes when the host is silent.
func bounded[T any](ctx context.Context, h *host, limit time.Duration, do func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done := make(chan result, 1)
	tracked := h.track(func() {
		value, err := do(ctx)
		done <- result{value, err}
	})
	if !tracked {
		return none, errDisconnected
	}
	select {
	case r := <-done:
		return r.value, h.because(r.err)
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// disconnect closes the connection and waits for whatever uses it. The connection goes
// first: closing a subsystem on a frozen host would wait for its answer for ever.
func (h *host) disconnect() error {
	h.mu.Lock()
	if h.closed || h.client == nil {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	h.mu.Unlock()
	close(h.quit)
	err := h.client.Close()
	if h.files != nil {
		_ = h.files.Close() // the connection's end is what counts
	}
	h.work.Wait()
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
	err := checkName(name)
	if err == nil {
		_, err = bounded(ctx, h, fileLimit, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, h.put(ctx, local, path.Join(h.dir, name), mode)
		})
	}
	if err != nil {
		return fmt.Errorf("put %s on %s: %w", name, h.machine.Node, err)
	}
	return nil
}

func (h *host) put(ctx context.Context, local, remote string, mode os.FileMode) error {
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
	_, err = out.ReadFrom(untilDone{ctx, in})
	if err = errors.Join(err, out.Close()); err == nil {
		err = h.verify(fresh, info.Size())
	}
	if err == nil {
		err = h.files.Chmod(fresh, mode)
	}
	if err == nil {
		err = h.files.PosixRename(fresh, remote)
	}
	if err != nil {
		_ = h.files.Remove(fresh) // fails too when the connection is why
	}
	return err
}

func (h *host) verify(remote string, want int64) error {
	info, err := h.files.Stat(remote)
	if err != nil {
		return err
	}
	if info.Size() != want {
		return fmt.Errorf("%d of %d bytes arrived", info.Size(), want)
	}
	return nil
}

func (h *host) Get(ctx context.Context, name, local string) error {
	err := checkName(name)
	if err == nil {
		_, err = bounded(ctx, h, fileLimit, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, h.get(ctx, path.Join(h.dir, name), local)
		})
	}
	if err != nil {
		return fmt.Errorf("get %s from %s: %w", name, h.machine.Node, err)
	}
	return nil
}

func (h *host) get(ctx context.Context, remote, local string) error {
	in, err := h.files.Open(remote)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(local), 0o755); err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(local), filepath.Base(local)+".new*")
	if err != nil {
		return err
	}
	size, err := in.WriteTo(untilDoneWriter{ctx, out})
	if err == nil && size < info.Size() { // a log may have grown meanwhile
		err = fmt.Errorf("only %d of %d bytes arrived", size, info.Size())
	}
	if err = errors.Join(err, out.Chmod(0o644), out.Close()); err == nil {
		err = os.Rename(out.Name(), local)
	}
	if err != nil {
		return errors.Join(err, os.Remove(out.Name()))
	}
	return nil
}

// checkName refuses a name that leads out of the run's directory.
func checkName(name string) error {
	if filepath.IsLocal(name) {
		return nil
	}
	return errors.New("the name leads out of the run's directory")
}

// untilDone is a file that is read until ctx ends. It keeps Stat, from which the transfer
// learns how much it may send at once.
type untilDone struct {
	ctx context.Context
	*os.File
}

func (r untilDone) Read(b []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.File.Read(b)
}

type untilDoneWriter struct {
	ctx context.Context
	out io.Writer
}

func (w untilDoneWriter) Write(b []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	return w.out.Write(b)
}

// removeDir removes the run's directory if we made it.
func (h *host) removeDir(ctx context.Context) error {
	if !h.made {
		return nil
	}
	err := h.run(ctx, removeLimit, "rm -rf -- "+quote(h.dir))
	if err != nil {
		return fmt.Errorf("remove %s on %s: %w; remove it by hand", h.dir, h.machine.Node, err)
	}
	return nil
}

// run runs a short command of ours to its end.
func (h *host) run(ctx context.Context, limit time.Duration, command string) error {
	_, err := bounded(ctx, h, limit, func(context.Context) (struct{}, error) {
		session, err := h.newSession()
		if err != nil {
			return struct{}{}, err
		}
		defer func() { _ = session.Close() }() // ended by then
		said, err := session.CombinedOutput(command)
		if text := strings.TrimSpace(string(said)); err != nil && text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return struct{}{}, err
	})
	return err
}

// quote makes a word that a shell takes as it is.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
