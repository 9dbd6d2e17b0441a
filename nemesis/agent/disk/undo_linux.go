package disk

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// The bounds of the undo log. Before it would exceed one all is synced for real, and the log
// starts anew; where that fails, so does the operation that asked for room.
const (
	undoBytesMost   = 64 << 20
	undoChangesMost = 100_000
	undoFilesMost   = 1000 // files and directories with something to undo: each takes a descriptor
)

// undoLog is what a power failure would take back: of each file what was done to its content,
// and what was done to names, each in the order in which it was done. Changes and their
// records are made under one lock, so that the order is the true one.
type undoLog struct {
	root   int // descriptor of the backing directory
	trash  trash
	noSync bool
	strict bool

	mu       sync.Mutex
	off      bool // nothing is recorded any more
	next     uint64
	files    map[inode]*file
	dirs     map[inode]*directory
	names    []*nameChange
	changes  int   // of names and content
	held     int64 // bytes of old content
	unsynced int64 // bytes that were changed
	forced   int64
}

type inode struct{ device, number uint64 }

// file is a file whose content has changes that are not synced.
type file struct {
	key     inode
	fd      int       // own descriptor: it survives rename and removal
	changes []*change // oldest first
	sealed  bool      // an fsync has begun since the last change
	lost    int       // of the changes
	disk    int64     // its size on the disk, known while lost is above zero
}

// change is one step in a file's content.
type change struct {
	seq    uint64
	off, n int64
	old    []byte // what was at off; shorter than n where the file ended
	size   int64  // of the file before
	resize bool   // a change of the size to, which is undone as a whole
	to     int64
	lost   bool // never to be made durable: its fsync failed
}

type span struct{ from, to int64 }

func newUndoLog(root int, o Options) (*undoLog, error) {
	t, err := makeTrash(root)
	if err != nil {
		return nil, err
	}
	return &undoLog{root: root, trash: t, noSync: o.NoSync, strict: o.StrictNames, files: map[inode]*file{}, dirs: map[inode]*directory{}}, nil
}

func inodeOf(fd int) (inode, int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return inode{}, 0, err
	}
	return inode{st.Dev, st.Ino}, st.Size, nil
}

// write runs do, which changes n bytes of a file at off. fd must be open for reading too.
func (l *undoLog) write(fd int, off, n int64, do func() (int, error)) (int, error) {
	return l.record(fd, func(int64) change { return change{off: off, n: n} }, do)
}

// resize runs do, which sets the size of a file.
func (l *undoLog) resize(fd int, to int64, do func() error) error {
	_, err := l.record(fd, func(size int64) change {
		return change{off: min(to, size), n: max(0, size-to), resize: true, to: to}
	}, func() (int, error) { return -1, do() })
	return err
}

// record runs do and records what it changes. do returns how many bytes it has changed, or
// less than zero for all.
func (l *undoLog) record(fd int, shape func(size int64) change, do func() (int, error)) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.off {
		return do()
	}
	key, size, err := inodeOf(fd)
	if err != nil {
		return 0, err
	}
	c := shape(size)
	c.size = size
	destroyed := max(0, min(c.n, size-c.off))
	if destroyed > undoBytesMost {
		// Too much to remember: it becomes durable now.
		done, err := do()
		if err == nil {
			err = l.force()
		}
		return done, err
	}
	if err := l.room(destroyed); err != nil {
		return 0, err
	}
	f, err := l.open(fd, key)
	if err != nil {
		return 0, err
	}
	defer l.release(f)
	if destroyed > 0 {
		c.old = make([]byte, destroyed)
		if _, err := unix.Pread(fd, c.old, c.off); err != nil {
			return 0, err
		}
	}
	done, err := do()
	if err != nil {
		return done, err
	}
	if done >= 0 {
		c.n = min(c.n, int64(done))
		c.old = c.old[:min(int64(len(c.old)), c.n)]
	}
	if c.n > 0 || c.resize && c.to != size {
		l.add(f, &c)
	}
	return done, nil
}

func (l *undoLog) add(f *file, c *change) {
	l.unsynced += c.n
	if n := len(f.changes); n > 0 && !f.sealed && !c.resize && c.old == nil {
		// One run of appends is one change.
		if last := f.changes[n-1]; !last.resize && !last.lost && last.old == nil && last.off+last.n == c.off {
			last.n += c.n
			return
		}
	}
	l.next++
	c.seq = l.next
	f.changes = append(f.changes, c)
	f.sealed = false
	l.changes++
	l.held += int64(len(c.old))
}

// room makes sure that one more change, with so many bytes of old content, can be recorded.
func (l *undoLog) room(bytes int64) error {
	// A rename takes descriptors of two directories.
	if l.held+bytes <= undoBytesMost && l.changes < undoChangesMost && len(l.files)+len(l.dirs)+2 <= undoFilesMost {
		return nil
	}
	return l.force()
}

// force makes all durable, for real.
func (l *undoLog) force() error {
	if !l.noSync {
		if err := unix.Syncfs(l.root); err != nil {
			return fmt.Errorf("sync the backing directory: %w", err)
		}
	}
	l.forced++
	l.forget()
	return nil
}

// forget drops everything, without undoing it.
func (l *undoLog) forget() {
	for _, f := range l.files {
		l.keep(f, nil)
	}
	l.keepNames(nil)
}

// open finds the record of a file, or makes one with a descriptor of its own.
func (l *undoLog) open(fd int, key inode) (*file, error) {
	if f := l.files[key]; f != nil {
		return f, nil
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := &file{key: key, fd: own}
	l.files[key] = f
	return f, nil
}

// release lets go of a file of which nothing is left to undo.
func (l *undoLog) release(f *file) {
	if len(f.changes) == 0 && l.files[f.key] == f {
		delete(l.files, f.key)
		_ = unix.Close(f.fd) // what was written through it has been answered for
	}
}

// keep makes left all that remains of a file's changes.
func (l *undoLog) keep(f *file, left []*change) {
	l.changes += len(left) - len(f.changes)
	for _, c := range f.changes {
		l.held -= int64(len(c.old))
		l.unsynced -= c.n
	}
	f.lost = 0
	for _, c := range left {
		l.held += int64(len(c.old))
		l.unsynced += c.n
		if c.lost {
			f.lost++
		}
	}
	f.changes = left
	l.release(f)
}

// begin is called before an fsync: what comes after the mark it returns is not covered by it.
func (l *undoLog) begin(fd int) (uint64, inode, error) {
	key, _, err := inodeOf(fd)
	if err != nil {
		return 0, key, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.files[key]; f != nil {
		f.sealed = true
	}
	return l.next, key, nil
}

// synced is called after an fsync of a file or directory that succeeded.
func (l *undoLog) synced(mark uint64, key inode) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.files[key]; f != nil {
		var saved, left []*change
		for _, c := range f.changes {
			if c.seq > mark || c.lost {
				left = append(left, c)
			} else {
				saved = append(saved, c)
			}
		}
		l.keep(f, f.settle(left, saved))
	}
	l.syncedNames(mark, key)
}

// lose marks the content that an fsync should have saved as never to be made durable. Sizes
// and names are not lost: as in real kernels it is pages that are, and the next fsync that
// succeeds saves the rest.
func (l *undoLog) lose(mark uint64, key inode) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.files[key]
	if f == nil {
		return
	}
	if f.lost == 0 {
		f.disk = f.changes[0].size
	}
	for _, c := range f.changes {
		if c.seq <= mark && !c.lost && !c.resize {
			c.lost = true
			f.lost++
		}
	}
}

// settle is called for changes that are durable now, oldest first. It returns changes without
// what these have overwritten of the lost ones before them.
func (f *file) settle(changes, durable []*change) []*change {
	if f.lost == 0 || len(durable) == 0 {
		return changes
	}
	var written []span
	for _, c := range durable {
		if c.resize {
			f.disk = c.to
			continue
		}
		f.disk = max(f.disk, c.off+c.n)
		written = append(written, span{c.off, c.off + c.n})
	}
	written = merged(written)
	left := make([]*change, 0, len(changes))
	end, next := int64(math.MaxInt64), len(durable)-1 // the smallest size after the change that is looked at
	for _, c := range slices.Backward(changes) {
		if !c.lost {
			left = append(left, c)
			continue
		}
		for ; next >= 0 && durable[next].seq > c.seq; next-- {
			if durable[next].resize {
				end = min(end, durable[next].to)
			}
		}
		// Writes that are durable came after every lost one: an fsync loses all before it.
		left = append(left, c.without(written, end)...)
	}
	slices.Reverse(left)
	return left
}

// merged sorts spans, and joins those that touch.
func merged(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var out []span
	for _, s := range spans {
		if n := len(out); n > 0 && s.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, s.to)
		} else {
			out = append(out, s)
		}
	}
	return out
}

// without returns what is left of a change outside the spans and before end, last part first.
func (c *change) without(spans []span, end int64) []*change {
	var parts []*change
	part := func(from, to int64) {
		if from < to {
			parts = append(parts, c.part(from, to))
		}
	}
	from, stop := c.off, min(c.off+c.n, end)
	first, _ := slices.BinarySearchFunc(spans, from, func(s span, at int64) int { return cmp.Compare(s.to, at) })
	for _, s := range spans[first:] {
		if s.from >= stop {
			break
		}
		part(from, s.from)
		from = max(from, s.to)
	}
	part(from, stop)
	slices.Reverse(parts)
	return parts
}

// heal is as if all had been synced. With off, nothing is recorded from then on.
func (l *undoLog) heal(off bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.off = l.off || off
	l.forget()
}

func (l *undoLog) count(s *Stats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Forced, s.Unsynced = l.forced, l.unsynced
}
