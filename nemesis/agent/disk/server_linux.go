package disk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
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
// It must be the main thing of its process: it makes that deaf to the signals of a terminal.
func Serve(ctx context.Context, in io.Reader, out io.Writer, o Options) error {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGPIPE)
	s := &server{out: out, point: o.Mountpoint}
	fused, err := s.mount(o)
	if err != nil {
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
	s.heal()
	for !s.uncovered() {
		if err := unix.Unmount(o.Mountpoint, 0); err != nil && !errors.Is(err, unix.EBUSY) {
			break // detached by somebody else
		}
		time.Sleep(unmountEvery)
	}
	fused.Wait()
	return os.RemoveAll(s.layer.log.trash)
}

type server struct {
	layer *layer
	point string

	mu   sync.Mutex
	out  io.Writer
	gone bool // unmounted at request
}

func (s *server) mount(o Options) (*fuse.Server, error) {
	root, err := unix.Open(o.Backing, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", o.Backing, err)
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(root, &st); err != nil {
		return nil, err
	}
	trash := filepath.Join(filepath.Dir(o.Backing), "."+filepath.Base(o.Backing)+".undo")
	// The descriptor leads below a mount over the same directory.
	s.layer = &layer{root: fmt.Sprintf("/proc/self/fd/%d", root), noSync: o.NoSync, log: newUndoLog(root, trash, o.StrictNames)}
	s.layer.rules = newRules(func() { s.send(answer{Event: eventTripped}) })
	if err := s.layer.log.emptyTrash(); err != nil {
		return nil, err
	}
	data := &fs.LoopbackRoot{Path: s.layer.root, Dev: st.Dev}
	top := &node{LoopbackNode: fs.LoopbackNode{RootData: data}, l: s.layer}
	data.RootNode = top
	var never time.Duration // the kernel caches no names: a power failure changes them behind it
	return fs.Mount(o.Mountpoint, top, &fs.Options{
		AttrTimeout: &never, EntryTimeout: &never,
		MountOptions: fuse.MountOptions{AllowOther: true, Options: []string{"default_permissions"}, DirectMountStrict: true, FsName: "capsize", Name: "capsize", MaxWrite: 1 << 20},
	})
}

// heal makes the disk a healthy one.
func (s *server) heal() {
	s.layer.rules.replace(Setting{})
	s.layer.log.forgetAll()
}

func (s *server) uncovered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone
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
			a.Error = err.Error()
		}
		s.send(a)
		if s.uncovered() {
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
		s.heal()
		if err := unix.Unmount(s.point, 0); err != nil {
			return fmt.Errorf("unmount %s: %w", s.point, err)
		}
		s.mu.Lock()
		s.gone = true
		s.mu.Unlock()
	}
	return nil
}
