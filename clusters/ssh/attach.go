package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	leaveLimit = 5 * time.Second // for a program whose input has ended
	killLimit  = time.Second     // for one that was killed
	tailMost   = 2 << 10         // bytes of a program's standard error that are kept
)

// Attach starts a program in a session of its own on the host's connection, in the run's
// directory.
func (h *host) Attach(ctx context.Context, argv []string) (io.ReadWriteCloser, error) {
	s, err := bounded(ctx, h, callLimit, func(ctx context.Context) (*session, error) {
		s, err := h.attach(argv)
		if err == nil && ctx.Err() != nil { // nobody waits for it any more
			return nil, errors.Join(context.Cause(ctx), s.Close())
		}
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("attach %s on %s: %w", strings.Join(argv, " "), h.machine.Node, err)
	}
	return s, nil
}

func (h *host) attach(argv []string) (*session, error) {
	if len(argv) == 0 {
		return nil, errors.New("no program is named")
	}
	inner, err := h.newSession()
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.attached++
	s := &session{host: h, session: inner, program: argv[0], pid: fmt.Sprintf("%s/.attached-%d", h.dir, h.attached), over: make(chan struct{})}
	h.mu.Unlock()
	inner.Stderr = &s.stderr
	if s.in, err = inner.StdinPipe(); err == nil {
		s.out, err = inner.StdoutPipe()
	}
	if err == nil {
		words := make([]string, len(argv))
		for i, word := range argv {
			words[i] = quote(word)
		}
		err = inner.Start("cd " + quote(h.dir) + " && { echo $$ > " + quote(s.pid) + "; exec " + strings.Join(words, " ") + "; }")
	}
	if err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	if !h.track(func() { s.wait() }) {
		return nil, errors.Join(errDisconnected, inner.Close())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sessions[s] = struct{}{}
	return s, nil
}

// detach closes the sessions that nobody closed.
func (h *host) detach() error {
	h.mu.Lock()
	var open []*session
	for s := range h.sessions {
		open = append(open, s)
	}
	h.mu.Unlock()
	var problems []error
	for _, s := range open {
		problems = append(problems, s.Close())
	}
	return errors.Join(problems...)
}

// session is a program on a host and its standard streams.
type session struct {
	host    *host
	session *ssh.Session
	program string
	pid     string // the file on the host that has the program's process id
	in      io.WriteCloser
	out     io.Reader
	stderr  tail
	over    chan struct{} // closed when the program has ended and all it said has come
	status  error         // how it ended, once over is closed
	once    sync.Once
	ended   error
}

func (s *session) wait() {
	s.status = s.session.Wait()
	close(s.over)
}

func (s *session) Write(b []byte) (int, error) { return s.in.Write(b) }

// Read returns what the program prints. When it has ended, the error quotes the last
// that it said on its standard error.
func (s *session) Read(b []byte) (int, error) {
	n, err := s.out.Read(b)
	if err == nil || n > 0 {
		return n, err
	}
	select {
	case <-s.over: // standard error is complete
	case <-time.After(killLimit): // it closed its output, and goes on
	}
	return n, s.quoting(s.host.because(err))
}

// Close ends the program's input, which makes an agent heal and leave, and waits for it;
// one that does not leave is killed. The program's exit status is no error: one that
// failed has said so.
func (s *session) Close() error {
	s.once.Do(func() {
		s.ended = s.leave()
		s.host.mu.Lock()
		defer s.host.mu.Unlock()
		delete(s.host.sessions, s)
	})
	return s.ended
}

func (s *session) leave() error {
	_ = s.in.Close()                                           // closed already when the program has ended
	s.host.track(func() { _, _ = io.Copy(io.Discard, s.out) }) // a program that cannot write does not leave
	select {
	case <-s.over:
		if exit := (*ssh.ExitError)(nil); s.status == nil || errors.As(s.status, &exit) {
			return nil
		}
		return fmt.Errorf("the session of %s on %s broke off: %w", s.program, s.host.machine.Node, s.host.because(s.status))
	case <-time.After(leaveLimit):
	}
	late := s.quoting(fmt.Errorf("%s on %s did not leave within %s of the end of its input: it is killed", s.program, s.host.machine.Node, leaveLimit))
	if err := s.kill(); err != nil {
		late = errors.Join(late, err)
	}
	select {
	case <-s.over:
	case <-time.After(killLimit): // a descendant holds its output, or the host is frozen
		_ = s.session.Close()
	}
	return late
}

// kill ends the program and its process group, which is a session's own. It is done by a
// command: OpenSSH takes no request for a signal where the user is root.
func (s *session) kill() error {
	err := s.host.run(context.Background(), callLimit, "kill -s KILL -- -$(cat "+quote(s.pid)+")")
	if err != nil {
		return fmt.Errorf("kill %s on %s: %w", s.program, s.host.machine.Node, err)
	}
	return nil
}

// quoting adds the end of what the program said on its standard error.
func (s *session) quoting(err error) error {
	if said := s.stderr.String(); said != "" {
		return fmt.Errorf("%w; it said: %s", err, said)
	}
	return err
}

// tail keeps the last bytes written to it.
type tail struct {
	mu  sync.Mutex
	end []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, b...)
	if len(t.end) > tailMost {
		t.end = bytes.Clone(t.end[len(t.end)-tailMost:])
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.end))
}
