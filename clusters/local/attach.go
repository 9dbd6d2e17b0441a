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
	killLimit  = time.Second     // for one that was killed
	tailMost   = 2 << 10         // bytes of its standard error that an error quotes
)

// Attach runs a program as a child with pipes. It is in a process group of its own: a
// Ctrl-C in the terminal is for the checker, which then tells the agents what to do. Its
// standard error goes to a file in the host's directory.
func (h *host) Attach(ctx context.Context, argv []string) (io.ReadWriteCloser, error) {
	s, err := h.attach(ctx, argv)
	if err != nil {
		return nil, fmt.Errorf("attach %s on %s: %w", strings.Join(argv, " "), h.name, err)
	}
	return s, nil
}

func (h *host) attach(ctx context.Context, argv []string) (*session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(argv) == 0 {
		return nil, errors.New("no program is named")
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = h.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stderr, err := os.OpenFile(filepath.Join(h.dir, filepath.Base(argv[0])+".stderr"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() { _ = stderr.Close() }() // the child has its own
	info, err := stderr.Stat()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &session{host: h, cmd: cmd, in: in, out: out, stderr: stderr.Name(), saidBefore: info.Size()}
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

// session is a child program and its pipes.
type session struct {
	host       *host
	cmd        *exec.Cmd
	in         io.WriteCloser
	out        io.ReadCloser
	stderr     string
	saidBefore int64 // bytes in that file that earlier sessions wrote
	once       sync.Once
	ended      error
}

func (s *session) Write(b []byte) (int, error) { return s.in.Write(b) }

// Read returns what the program prints. When it has ended, the error quotes the last
// that it said on its standard error.
func (s *session) Read(b []byte) (int, error) {
	n, err := s.out.Read(b)
	if err == nil || n > 0 {
		return n, err
	}
	return n, s.quoting(err)
}

// Close ends the program's input, which makes an agent heal and leave, and waits for it;
// one that does not leave is killed, with its process group. The program's exit status is
// no error: one that failed has said so.
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
	_ = s.in.Close() // closed already when the program has ended
	left := make(chan error, 1)
	go func() { // ends with the program, which is killed below if need be
		_, _ = io.Copy(io.Discard, s.out) // Wait must not close the pipe before it is read
		left <- s.cmd.Wait()
	}()
	var late, err error
	select {
	case err = <-left:
	case <-time.After(leaveLimit):
		late = s.quoting(fmt.Errorf("%s did not leave within %s of the end of its input and was killed", s.cmd.Path, leaveLimit))
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // it left at this very moment
		select {
		case err = <-left:
		case <-time.After(killLimit): // a descendant in another group holds the pipe
			_ = s.out.Close() // ends the reading
			err = <-left
		}
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = nil
	}
	return errors.Join(late, err)
}

// quoting adds the end of what the program said on its standard error.
func (s *session) quoting(err error) error {
	if said := tail(s.stderr, s.saidBefore); said != "" {
		return fmt.Errorf("%w; it said: %s", err, said)
	}
	return err
}

// tail returns the end of a file, of what stands at offset from or later.
func tail(path string, from int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // only read
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	from = max(from, size-tailMost)
	data, err := io.ReadAll(io.NewSectionReader(f, from, size-from))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
