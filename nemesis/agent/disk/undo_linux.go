package disk

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// The bounds of the undo log. At either all is synced for real, and the log is dropped.
const (
	undoBytesMost   = 64 << 20
	undoChangesMost = 100_000
)

// undoLog is what a power failure would take back, in the order in which it was done.
// Changes and their records are made under one lock, so that the order is the true one.
type undoLog struct {
	root   int    // descriptor of the backing directory
	trash  string // directory beside the backing one: files that were removed, but not for sure
	strict bool

	mu      sync.Mutex
	next    uint64
	files   map[inode]*file
	changes []*change
	held    int64 // bytes of old content
	forced  int64
	saved   int // names for files in the trash
}

type inode struct{ device, number uint64 }

// file is a file with changes that are not synced.
type file struct {
	key    inode
	fd     int // own descriptor: it survives rename and removal
	count  int // changes in the log
	sealed bool
}

// change is one step of the log: of a file's content where file is set, else of a name.
type change struct {
	seq    uint64
	file   *file
	off, n int64
	old    []byte // what was at off; shorter than n where the file ended
	size   int64  // of the file before
	shrink bool   // a truncation, which is undone as a whole

	lost    bool   // never to be made durable: its fsync failed
	durable []span // of a lost one: ranges that later, synced writes have overwritten

	dir    inode // of a name: the directory an fsync of which makes it durable
	revert func() error
	forget func()
}

type span struct{ from, to int64 }

func newUndoLog(root int, trash string, strict bool) *undoLog {
	return &undoLog{root: root, trash: trash, strict: strict, files: map[inode]*file{}}
}

func inodeOf(fd int) (inode, int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return inode{}, 0, err
	}
	return inode{st.Dev, st.Ino}, st.Size, nil
}

// write changes a file under the log: do is called with the record of what it will destroy
// already made. fd must be open for reading too.
func (l *undoLog) write(fd int, off, n int64, do func() (int, error)) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, size, err := l.open(fd)
	if err != nil {
		return 0, err
	}
	c := &change{file: f, off: off, n: n, size: size}
	if keep := min(n, size-off); keep > 0 {
		c.old = make([]byte, keep)
		read, err := unix.Pread(f.fd, c.old, off)
		if err != nil {
			return 0, err
		}
		c.old = c.old[:read]
	}
	done, err := do()
	if err != nil {
		l.release(f)
		return done, err
	}
	if done >= 0 {
		c.n = min(c.n, int64(done))
		c.old = c.old[:min(int64(len(c.old)), c.n)]
	}
	if last := l.last(f); last != nil && c.old == nil && last.old == nil && !last.shrink && last.off+last.n == off {
		last.n += c.n // one run of appends is one change
		return done, nil
	}
	l.add(c)
	return done, nil
}

// truncate changes the size of a file under the log.
func (l *undoLog) truncate(fd int, to int64, do func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, size, err := l.open(fd)
	if err != nil {
		return err
	}
	c := &change{file: f, off: to, size: size, shrink: true}
	if size-to > undoBytesMost {
		// Too much to remember: it becomes durable now.
		defer l.release(f)
		if err := do(); err != nil {
			return err
		}
		return l.force()
	}
	if size > to {
		c.n, c.old = size-to, make([]byte, size-to)
		if _, err := unix.Pread(f.fd, c.old, to); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		l.release(f)
		return err
	}
	l.add(c)
	return nil
}

// name changes a name under the log.
func (l *undoLog) name(dir inode, do func() error, revert func() error, forget func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := do(); err != nil {
		return err
	}
	l.add(&change{dir: dir, revert: revert, forget: forget})
	return nil
}

// last is the newest change, where it is one of f and no fsync has begun since.
func (l *undoLog) last(f *file) *change {
	if len(l.changes) == 0 || f.sealed {
		return nil
	}
	if c := l.changes[len(l.changes)-1]; c.file == f && !c.lost {
		return c
	}
	return nil
}

func (l *undoLog) add(c *change) {
	l.next++
	c.seq = l.next
	l.changes = append(l.changes, c)
	l.held += int64(len(c.old))
	if c.file != nil {
		c.file.count++
		c.file.sealed = false
	}
	if l.held > undoBytesMost || len(l.changes) > undoChangesMost {
		// An error leaves the log as it is; the next change tries again.
		_ = l.force()
	}
}

// force makes all durable, for real.
func (l *undoLog) force() error {
	if err := unix.Syncfs(l.root); err != nil {
		return fmt.Errorf("sync the backing directory: %w", err)
	}
	l.forced++
	l.drop(func(*change) bool { return true })
	return nil
}

// open finds the record of a file, or makes one with a descriptor of its own.
func (l *undoLog) open(fd int) (*file, int64, error) {
	key, size, err := inodeOf(fd)
	if err != nil {
		return nil, 0, err
	}
	if f := l.files[key]; f != nil {
		return f, size, nil
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, 0, err
	}
	f := &file{key: key, fd: own}
	l.files[key] = f
	return f, size, nil
}

// release lets go of a file of which nothing is left to undo.
func (l *undoLog) release(f *file) {
	if f.count == 0 && l.files[f.key] == f {
		delete(l.files, f.key)
		_ = unix.Close(f.fd) // what was written through it has been answered for
	}
}

// drop forgets the changes that which picks, without undoing them.
func (l *undoLog) drop(which func(*change) bool) {
	kept := l.changes[:0]
	for _, c := range l.changes {
		if !which(c) {
			kept = append(kept, c)
			continue
		}
		l.held -= int64(len(c.old))
		if c.file != nil {
			c.file.count--
			l.release(c.file)
		}
		if c.forget != nil {
			c.forget()
		}
	}
	clear(l.changes[len(kept):])
	l.changes = kept
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
	for _, c := range l.changes {
		if c.file != nil && c.file.key == key && !c.lost && c.seq <= mark {
			l.overwrite(c)
		}
	}
	l.drop(func(c *change) bool {
		if c.seq > mark || c.lost {
			return false
		}
		if c.file != nil {
			return c.file.key == key
		}
		return !l.strict || c.dir == key
	})
}

// overwrite notes on the lost changes before c that its range is durable again.
func (l *undoLog) overwrite(c *change) {
	for _, lost := range l.changes {
		if lost.seq >= c.seq {
			return
		}
		if !lost.lost || lost.file != c.file {
			continue
		}
		if n := len(lost.durable); n > 0 && lost.durable[n-1].to == c.off {
			lost.durable[n-1].to += c.n
		} else {
			lost.durable = append(lost.durable, span{c.off, c.off + c.n})
		}
	}
}

// lose marks all that an fsync should have saved as never to be made durable.
func (l *undoLog) lose(mark uint64, key inode) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.changes {
		if c.file != nil && c.file.key == key && c.seq <= mark {
			c.lost = true
		}
	}
}

// forgetAll is what the healing does: as if all had been synced.
func (l *undoLog) forgetAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(func(*change) bool { return true })
}

func (l *undoLog) count(s *Stats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Forced = l.forced
	for _, c := range l.changes {
		s.Unsynced += c.n
	}
}

// save gives a file that is about to lose a name one in the trash, "" where that is not
// possible. Called under the lock, by the do of name.
func (l *undoLog) save(path string) string {
	l.saved++
	to := filepath.Join(l.trash, strconv.Itoa(l.saved))
	if unix.Linkat(unix.AT_FDCWD, path, unix.AT_FDCWD, to, 0) != nil {
		return ""
	}
	return to
}

// fail takes back what is not durable: newest first, so that each undo meets the state that
// its change has left.
func (l *undoLog) fail(mode string, seed uint64) Loss {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := powerFailure{mode: mode, random: rand.New(rand.NewPCG(seed, 0x706f7765)), survive: map[*file]int{}, pages: map[pageOf]bool{}, met: map[*file]bool{}}
	p.draw(l.changes)
	for _, c := range slices.Backward(l.changes) {
		p.undo(c)
	}
	// What survived is on the disk, as after a real power failure, and what was undone is gone.
	l.drop(func(*change) bool { return true })
	p.loss.Files = len(p.met)
	return p.loss
}

// emptyTrash makes the trash anew.
func (l *undoLog) emptyTrash() error {
	if err := os.RemoveAll(l.trash); err != nil {
		return err
	}
	return os.Mkdir(l.trash, 0o700)
}
