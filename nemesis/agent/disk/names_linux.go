package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// trashName is a directory in the backing one, which the layer hides. It holds what was
// removed or replaced, but not for sure: there it keeps its inode, and is on the same file
// system.
const trashName = ".capsize-undo"

// trash is that directory.
type trash struct {
	dir  string
	fd   int
	next int
}

func makeTrash(root int) (trash, error) {
	dir := fmt.Sprintf("/proc/self/fd/%d/%s", root, trashName)
	if err := os.RemoveAll(dir); err != nil { // of a layer that was killed
		return trash{}, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return trash{}, err
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return trash{dir: dir, fd: fd}, err
}

// fresh is a name that nothing in the trash has.
func (t *trash) fresh() string {
	t.next++
	return strconv.Itoa(t.next)
}

// remove takes one name away for good, and all below it.
func (t *trash) remove(name string) {
	if name != "" {
		_ = os.RemoveAll(filepath.Join(t.dir, name)) // what stays takes space, and nothing else
	}
}

func (t *trash) empty() {
	entries, _ := os.ReadDir(t.dir)
	for _, e := range entries {
		t.remove(e.Name())
	}
}

// directory is one in which names were changed that are not durable.
type directory struct {
	key  inode
	fd   int // own descriptor: it survives rename and removal
	uses int
}

// place is an entry of a directory.
type place struct {
	dir  *directory
	name string
}

// look tells what lies at the place.
func (p place) look() (inode, uint32, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(p.dir.fd, p.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return inode{}, 0, err
	}
	return inode{st.Dev, st.Ino}, st.Mode, nil
}

// empty says whether a directory lies at the place, and nothing in it.
func (p place) empty() (bool, error) {
	fd, err := unix.Openat(p.dir.fd, p.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	f := os.NewFile(uintptr(fd), p.name)
	defer func() { _ = f.Close() }()
	names, _ := f.Readdirnames(1)
	return len(names) == 0, nil
}

type nameKind int

const (
	nameMade    nameKind = iota // at got what
	nameRemoved                 // at lost gone, to the trash
	nameMoved                   // what went from from to at, and what was there to the trash
	nameSwapped                 // what went from from to at, and what was there to from
)

// nameChange is one step in the names.
type nameChange struct {
	seq   uint64
	kind  nameKind
	at    place
	from  place // of one that moved
	what  inode
	gone  inode  // what at had before; none where nothing
	isDir bool   // what is gone is a directory
	trash string // its name in the trash; empty where it is not there
}

// places runs do on entries of the directories at paths, under the lock. do returns the
// change it has made, or nil.
func (l *undoLog) places(do func(at []place) (*nameChange, error), paths ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.off {
		if err := l.room(0); err != nil {
			return err
		}
	}
	var at []place
	for _, p := range paths {
		dir, err := l.directory(filepath.Dir(p))
		if err != nil {
			return err
		}
		defer l.leave(dir)
		at = append(at, place{dir, filepath.Base(p)})
	}
	c, err := do(at)
	if err != nil || c == nil {
		return err
	}
	l.next++
	c.seq = l.next
	c.at.dir.uses++
	if c.from.dir != nil {
		c.from.dir.uses++
	}
	l.names = append(l.names, c)
	l.changes++
	return nil
}

// directory finds the record of a directory, or makes one. It is used until leave.
func (l *undoLog) directory(path string) (*directory, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	key, _, err := inodeOf(fd)
	d := l.dirs[key]
	if err != nil || d != nil {
		_ = unix.Close(fd) // a path, not a file
	} else {
		d = &directory{key: key, fd: fd}
		l.dirs[key] = d
	}
	if d != nil {
		d.uses++
	}
	return d, err
}

func (l *undoLog) leave(d *directory) {
	d.uses--
	if d.uses == 0 {
		delete(l.dirs, d.key)
		_ = unix.Close(d.fd) // a path, not a file
	}
}

// create makes an entry at path by make.
func (l *undoLog) create(path string, make func(dir int, name string) error) error {
	return l.places(func(at []place) (*nameChange, error) {
		if err := make(at[0].dir.fd, at[0].name); err != nil || l.off {
			return nil, err
		}
		what, _, err := at[0].look()
		return &nameChange{kind: nameMade, at: at[0], what: what}, err
	}, path)
}

// remove takes the entry at path away.
func (l *undoLog) remove(path string, isDir bool) error {
	flags := 0
	if isDir {
		flags = unix.AT_REMOVEDIR
	}
	return l.places(func(at []place) (*nameChange, error) {
		p := at[0]
		if l.off {
			return nil, unix.Unlinkat(p.dir.fd, p.name, flags)
		}
		what, mode, err := p.look()
		if err != nil {
			return nil, err
		}
		c := &nameChange{kind: nameRemoved, at: p, gone: what, isDir: isDir}
		if mode&unix.S_IFMT == unix.S_IFDIR == isDir {
			if empty, err := p.empty(); !isDir || err == nil && empty {
				c.trash = l.discard(p)
			}
		}
		if c.trash == "" { // and where that was not possible, this may be neither
			err = unix.Unlinkat(p.dir.fd, p.name, flags)
		}
		return c, err
	}, path)
}

// discard moves what lies at a place to the trash. It returns its name there, or "" where
// it could not be moved.
func (l *undoLog) discard(p place) string {
	name := l.trash.fresh()
	if unix.Renameat2(p.dir.fd, p.name, l.trash.fd, name, unix.RENAME_NOREPLACE) != nil {
		return ""
	}
	return name
}

// rename moves the entry at one path to another.
func (l *undoLog) rename(from, to string, flags uint32) error {
	return l.places(func(at []place) (*nameChange, error) {
		f, t := at[0], at[1]
		move := func(flags uint) error { return unix.Renameat2(f.dir.fd, f.name, t.dir.fd, t.name, flags) }
		what, _, err := f.look()
		if err != nil {
			return nil, err
		}
		gone, mode, missing := t.look()
		if l.off || missing == nil && gone == what {
			return nil, move(uint(flags))
		}
		c := &nameChange{kind: nameMoved, at: t, from: f, what: what}
		switch {
		case flags&unix.RENAME_EXCHANGE != 0:
			c.kind, c.gone = nameSwapped, gone
			return c, move(unix.RENAME_EXCHANGE)
		case flags != 0 || missing != nil:
			return c, move(uint(flags))
		}
		c.gone, c.isDir = gone, mode&unix.S_IFMT == unix.S_IFDIR
		if c.isDir {
			return c, l.replaceDirectory(c, move)
		}
		// A second name, so that the place is never empty.
		c.trash = l.trash.fresh()
		if unix.Linkat(t.dir.fd, t.name, l.trash.fd, c.trash, 0) != nil {
			c.trash = "" // no file system with links: what is replaced cannot come back
		}
		if err := move(0); err != nil {
			l.trash.remove(c.trash)
			return nil, err
		}
		return c, nil
	}, from, to)
}

// replaceDirectory moves a directory over an empty one, which goes to the trash.
func (l *undoLog) replaceDirectory(c *nameChange, move func(flags uint) error) error {
	if empty, err := c.at.empty(); err != nil {
		return err
	} else if !empty {
		return unix.ENOTEMPTY
	}
	if err := move(unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	c.trash = l.discard(c.from)
	if c.trash == "" {
		return unix.Unlinkat(c.from.dir.fd, c.from.name, unix.AT_REMOVEDIR)
	}
	return nil
}

// syncedNames is called after an fsync of a file or directory that succeeded.
func (l *undoLog) syncedNames(mark uint64, key inode) {
	if l.strict && l.dirs[key] == nil {
		return
	}
	s := saving{saved: map[inode]bool{key: true}, tied: map[inode]bool{}}
	var left []*nameChange
	for _, c := range slices.Backward(l.names) {
		if c.seq > mark || l.strict && !s.covers(c) {
			left = append(left, c)
		}
	}
	if len(left) < len(l.names) {
		slices.Reverse(left)
		l.keepNames(left)
	}
}

// saving finds what an fsync of one directory makes durable, newest change first. It is
// what the directory has, and what that is not whole without: a move between two
// directories, and the removal of one, saves all that was done before in both, and their
// own creation. Otherwise what lay in the one for sure might be in neither.
type saving struct {
	saved map[inode]bool // directories whose names are durable
	tied  map[inode]bool // those that are there for sure themselves
}

func (s saving) covers(c *nameChange) bool {
	touched := []inode{c.at.dir.key}
	if c.from.dir != nil && c.from.dir != c.at.dir {
		touched = append(touched, c.from.dir.key)
	}
	if c.isDir {
		touched = append(touched, c.gone)
	}
	made := c.kind == nameMade && s.tied[c.what]
	if !made && !slices.ContainsFunc(touched, func(d inode) bool { return s.saved[d] }) {
		return false
	}
	if made || len(touched) > 1 {
		for _, d := range touched {
			s.saved[d], s.tied[d] = true, true
		}
	}
	return true
}

// keepNames makes left all that remains of the changes of names.
func (l *undoLog) keepNames(left []*nameChange) {
	stay := map[*nameChange]bool{}
	for _, c := range left {
		stay[c] = true
	}
	for _, c := range l.names {
		if stay[c] {
			continue
		}
		l.trash.remove(c.trash)
		l.leave(c.at.dir)
		if c.from.dir != nil {
			l.leave(c.from.dir)
		}
	}
	l.changes += len(left) - len(l.names)
	l.names = left
}

var errKept = errors.New("something else lies there")

// revert undoes a change of names. What does not lie where the change has left it is not
// touched.
func (l *undoLog) revert(c *nameChange) error {
	if c.kind != nameRemoved {
		if what, _, err := c.at.look(); err != nil || what != c.what {
			return errKept
		}
	}
	switch c.kind {
	case nameMade:
		if l.discard(c.at) == "" {
			return errKept
		}
		return nil
	case nameSwapped:
		if gone, _, err := c.from.look(); err != nil || gone != c.gone {
			return errKept
		}
		return unix.Renameat2(c.at.dir.fd, c.at.name, c.from.dir.fd, c.from.name, unix.RENAME_EXCHANGE)
	case nameMoved:
		if err := unix.Renameat2(c.at.dir.fd, c.at.name, c.from.dir.fd, c.from.name, unix.RENAME_NOREPLACE); err != nil {
			return err
		}
	}
	if c.gone == (inode{}) {
		return nil
	}
	if c.trash == "" {
		return errKept
	}
	return unix.Renameat2(l.trash.fd, c.trash, c.at.dir.fd, c.at.name, unix.RENAME_NOREPLACE)
}
