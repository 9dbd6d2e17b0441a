package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	leaveLimit = 5 * time.Second // for a program whose input has ended
	tailMost   = 2 << 10         // bytes of its standard error that an error quotes
)

// Attach runs a program as a child with pipes. It is in a process group of its own: a
// Ctrl-C in the terminal is for the checker, which then tells the agents what to do.
func (h *host) Attach(_ context.Context, argv []string) (io.ReadWriteCloser, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = h.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stderr, err := os.OpenFile(filepath.Join(h.dir, filepath.Base(argv[0])+".stderr"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("attach %s on %s: %w", argv[0], h.name, err)
	}
	defer func() { _ = stderr.Close() }() // the child has its own
	cmd.Stderr = stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("attach %s on %s: %w", argv[0], h.name, err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("attach %s on %s: %w", argv[0], h.name, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("attach %s on %s: %w", argv[0], h.name, err)
	}
	return &session{cmd: cmd, in: in, out: out, stderr: stderr.Name()}, nil
}

// session is a child program and its pipes.
type session struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    io.ReadCloser
	stderr string
	once   sync.Once
	ended  error
}

func (s *session) Write(b []byte) (int, error) { return s.in.Write(b) }

// Read returns what the program prints. When it has ended, the error quotes the last
// that it said on its standard error.
func (s *session) Read(b []byte) (int, error) {
	n, err := s.out.Read(b)
	if err == nil || n > 0 {
		return n, err
	}
	if said := tail(s.stderr); said != "" {
		return n, fmt.Errorf("%w; it said: %s", err, said)
	}
	return n, err
}

// Close ends the program's input, which makes an agent heal and leave, and waits for it;
// one that does not leave is killed.
func (s *session) Close() error {
	s.once.Do(func() {
		_ = s.in.Close() // closed already when the program has ended
		killed := make(chan struct{})
		timer := time.AfterFunc(leaveLimit, func() {
			close(killed)
			_ = s.cmd.Process.Kill() // it ended at this very moment
		})
		_, _ = io.Copy(io.Discard, s.out) // Wait must not close the pipe before it is read
		err := s.cmd.Wait()
		timer.Stop()
		select {
		case <-killed:
			s.ended = fmt.Errorf("%s did not leave within %s of the end of its input and was killed", s.cmd.Path, leaveLimit)
		default:
			if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
				s.ended = err
			}
		}
	})
	return s.ended
}

func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data[max(0, len(data)-tailMost):]))
}
