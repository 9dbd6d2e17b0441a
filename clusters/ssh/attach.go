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

// Attach starts a program in a session of its own on the host's connection.
func (h *host) Attach(ctx context.Context, argv []string) (io.ReadWriteCloser, error) {
	var s *session
	err := h.bounded(ctx, func() (err error) {
		s, err = h.attach(argv)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("attach %s on %s: %w", argv[0], h.machine.Node, err)
	}
	return s, nil
}

func (h *host) attach(argv []string) (*session, error) {
	inner, err := h.client.NewSession()
	if err != nil {
		return nil, err
	}
	s := &session{session: inner, program: argv[0]}
	inner.Stderr = &s.stderr
	if s.in, err = inner.StdinPipe(); err == nil {
		s.out, err = inner.StdoutPipe()
	}
	if err == nil {
		words := make([]string, len(argv))
		for i, word := range argv {
			words[i] = quote(word)
		}
		err = inner.Start("exec " + strings.Join(words, " "))
	}
	if err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	return s, nil
}

// session is a program on a host and its standard streams.
type session struct {
	session *ssh.Session
	program string
	in      io.WriteCloser
	out     io.Reader
	stderr  tail
	once    sync.Once
	ended   error
}

func (s *session) Write(b []byte) (int, error) { return s.in.Write(b) }

// Read returns what the program prints. When it has ended, the error quotes the last
// that it said on its standard error.
func (s *session) Read(b []byte) (int, error) {
	n, err := s.out.Read(b)
	if err == nil || n > 0 {
		return n, err
	}
	if said := s.stderr.String(); said != "" {
		return n, fmt.Errorf("%w; it said: %s", err, said)
	}
	return n, err
}

// Close ends the program's input, which makes an agent heal and leave, and waits for it;
// the session of one that does not leave is ended.
func (s *session) Close() error {
	s.once.Do(func() {
		_ = s.in.Close() // closed already when the program has ended
		left := make(chan error, 1)
		go func() { left <- s.session.Wait() }()
		select {
		case err := <-left:
			if exit := (*ssh.ExitError)(nil); err != nil && !errors.As(err, &exit) {
				s.ended = err
			}
		case <-time.After(leaveLimit):
			s.ended = errors.Join(fmt.Errorf("%s did not leave within %s of the end of its input", s.program, leaveLimit), s.session.Close())
		}
	})
	return s.ended
}

// tailMost is how much of a program's standard error is kept, in bytes.
const tailMost = 2 << 10

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
