package disk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const unmountEvery = 200 * time.Millisecond

// Serve covers a directory, and serves the requests that come as lines of JSON on in, until
// in or the context ends. Then it heals the disk, and returns once nothing uses it any more.
// It must be the main thing of its process: it makes that deaf to the signals of a terminal,
// and clears its umask.
func Serve(ctx context.Context, in io.Reader, out io.Writer, o Options) error {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGPIPE)
	unix.Umask(0) // the kernel has applied the program's
	s := &server{out: out, point: o.Mountpoint, gone: make(chan struct{})}
	if err := s.mount(o); err != nil {
		return fmt.Errorf("cover %s: %w", o.Mountpoint, err)
	}
	s.send(answer{Event: eventMounted})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.requests(in)
	}()
	select {
	case <-ctx.Done():
	case <-ended:
	}
	s.heal(true)
	for s.unmount() != nil {
		select {
		case <-s.gone:
		case <-time.After(unmountEvery):
		}
	}
	<-s.gone
	return os.Remove(s.layer.log.trash.dir) // healed: it is empty
}

type server struct {
	layer  *layer
	point  string
	device uint64        // of the mount
	gone   chan struct{} // closed when nothing is mounted, and nothing uses it

	mu  sync.Mutex
	out io.Writer
}

func (s *server) mount(o Options) error {
	root, err := unix.Open(o.Backing, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", o.Backing, err)
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(root, &st); err != nil {
		return err
	}
	log, err := newUndoLog(root, o)
	if err != nil {
		return err
	}
	// The descriptor leads below a mount over the same directory.
	s.layer = &layer{root: fmt.Sprintf("/proc/self/fd/%d", root), noSync: o.NoSync, log: log}
	s.layer.rules = newRules(func() { s.send(answer{Event: eventTripped}) })
	data := &fs.LoopbackRoot{Path: s.layer.root, Dev: st.Dev}
	top := &node{LoopbackNode: fs.LoopbackNode{RootData: data}, l: s.layer}
	data.RootNode = top
	var never time.Duration // the kernel caches no names: a power failure changes them behind it
	fused, err := fs.Mount(o.Mountpoint, top, &fs.Options{
		AttrTimeout: &never, EntryTimeout: &never,
		MountOptions: fuse.MountOptions{AllowOther: true, Options: []string{"default_permissions"}, DirectMountStrict: true, FsName: "capsize", Name: "capsize", MaxWrite: 1 << 20},
	})
	if err != nil {
		_ = os.Remove(log.trash.dir) // it is empty
		return err
	}
	go func() {
		fused.Wait()
		close(s.gone)
	}()
	s.device, err = deviceOf(o.Mountpoint)
	return err
}

func deviceOf(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, err
	}
	return st.Dev, nil
}

// unmount uncovers the directory. What is there below may be a mount too, of somebody else,
// and something may have been mounted over ours: only what is ours is unmounted.
func (s *server) unmount() error {
	select {
	case <-s.gone:
		return nil
	default:
	}
	device, err := deviceOf(s.point)
	if err == nil && device != s.device {
		err = fmt.Errorf("another mount lies there: %w", unix.EBUSY)
	}
	if err == nil {
		err = unix.Unmount(s.point, 0)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", s.point, err)
	}
	return nil
}

// heal makes the disk a healthy one. With off, it records nothing any more.
func (s *server) heal(off bool) {
	s.layer.rules.replace(Setting{})
	s.layer.log.heal(off)
}

func (s *server) send(a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	line, err := encode(a)
	if err == nil {
		_, _ = s.out.Write(line) // a caller that is gone is seen by the end of its requests
	}
}

func (s *server) requests(in io.Reader) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, lineMost)
	for lines.Scan() {
		q, err := decodeRequest(lines.Bytes())
		a := answer{ID: q.ID}
		if err == nil {
			err = s.handle(q, &a)
		}
		if err != nil {
			a.Error, a.Busy = err.Error(), errors.Is(err, unix.EBUSY)
		}
		s.send(a)
		if q.Do == doClose && err == nil {
			return
		}
	}
}

func (s *server) handle(q request, a *answer) error {
	switch q.Do {
	case doSet:
		s.layer.rules.replace(*q.Setting)
	case doFail:
		loss := s.layer.log.fail(q.Mode, q.Seed)
		a.Loss = &loss
	case doStats:
		a.Stats = &Stats{Writes: s.layer.writes.Load(), Bytes: s.layer.bytes.Load(), Fsyncs: s.layer.fsyncs.Load()}
		s.layer.rules.count(a.Stats)
		s.layer.log.count(a.Stats)
	case doClose:
		s.heal(false)
		return s.unmount()
	}
	return nil
}
