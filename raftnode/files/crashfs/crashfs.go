// Package crashfs is a file system in memory that crashes as real ones may: what was not
// synced is lost, kept, or torn at sector boundaries, in any mixture, and of names that
// were created, removed or renamed without a sync of their directory any may be there.
//
// A test counts the operations of a run, then repeats the run once per operation with
// [FS.CrashAt], calls [FS.Restart], and looks at what is left.
package crashfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"

	"capsize/raftnode/files"
)

// ErrCrashed is what every operation returns between the crash and [FS.Restart].
var ErrCrashed = errors.New("the machine has crashed")

const sector = 512

// FS is the file system. It is safe for concurrent use.
type FS struct {
	mu      sync.Mutex
	rng     *rand.Rand
	names   map[string]*inode // as the running programs see them
	durable map[string]*inode // as of each directory's last sync
	ops     int
	crashAt int
	syncErr error
	crashed bool
	boot    int // handles of an earlier boot are dead
}

type inode struct {
	data   []byte
	synced []byte
}

var _ files.FS = (*FS)(nil)

// New returns an empty file system whose crashes are drawn from the seed.
func New(seed uint64) *FS {
	return &FS{rng: rand.New(rand.NewPCG(seed, 0)), names: map[string]*inode{}, durable: map[string]*inode{}}
}

// CrashAt makes the machine crash in the middle of operation n, counted from 1 since New:
// writes, truncations, syncs, creations, renamings and removals count. 0 means never.
func (c *FS) CrashAt(n int) { c.locked(func() { c.crashAt = n }) }

// FailSync makes every file sync return err, and the data that was to be synced count as
// clean though it is not on the disk, as Linux does after an I/O error.
func (c *FS) FailSync(err error) { c.locked(func() { c.syncErr = err }) }

// Operations returns how many operations were counted.
func (c *FS) Operations() (n int) { c.locked(func() { n = c.ops }); return n }

// Crashed reports whether the planned crash has come.
func (c *FS) Crashed() (yes bool) { c.locked(func() { yes = c.crashed }); return yes }

func (c *FS) locked(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// Restart ends the crash, or makes one at once: un-synced data is torn, un-synced
// directory entries are kept or lost, and open files are dead.
func (c *FS) Restart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := map[string]*inode{}
	for _, name := range c.paths() {
		now, then := c.names[name], c.durable[name]
		if survivor := c.pick(now, then); survivor != nil {
			names[name] = survivor
		}
	}
	for _, file := range names {
		c.tear(file)
	}
	c.names, c.durable = names, map[string]*inode{}
	for name, file := range names {
		c.durable[name] = file
	}
	c.crashed, c.crashAt, c.syncErr = false, 0, nil
	c.boot++
}

// paths returns every path in a fixed order, so that a seed gives the same crash again.
func (c *FS) paths() []string {
	var paths []string
	for name := range c.names {
		paths = append(paths, name)
	}
	for name := range c.durable {
		if c.names[name] == nil {
			paths = append(paths, name)
		}
	}
	slices.Sort(paths)
	return paths
}

func (c *FS) pick(now, then *inode) *inode {
	if now == then || c.rng.IntN(2) == 0 {
		return now
	}
	return then
}

// tear decides sector by sector what the disk holds of the data after the last sync.
func (c *FS) tear(file *inode) {
	longest := max(len(file.data), len(file.synced))
	shortest := min(len(file.data), len(file.synced))
	size := shortest + c.rng.IntN(longest-shortest+1)
	left := make([]byte, size)
	copy(left, file.synced)
	for start := 0; start < size; start += sector {
		end := min(start+sector, size)
		if c.rng.IntN(2) == 0 && start < len(file.data) {
			copy(left[start:end], file.data[start:min(end, len(file.data))])
		}
	}
	file.data, file.synced = left, slices.Clone(left)
}

// begin counts an operation and reports whether the crash comes in the middle of it.
func (c *FS) begin() (crashing bool, err error) {
	if c.crashed {
		return false, ErrCrashed
	}
	c.ops++
	if c.ops == c.crashAt {
		c.crashed = true
		return true, ErrCrashed
	}
	return false, nil
}

// do does an operation of which a crash in its middle may leave anything: as if it were done,
// for Restart then draws what is left of it. mu is held.
func (c *FS) do(f func()) error {
	crashing, err := c.begin()
	if err == nil || crashing {
		f()
	}
	return err
}

// MkdirAll implements files.FS: directories exist.
func (c *FS) MkdirAll(string) error { return nil }

// List implements files.FS.
func (c *FS) List(dir string) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crashed {
		return nil, ErrCrashed
	}
	var names []string
	for path := range c.names {
		if filepath.Dir(path) == dir {
			names = append(names, filepath.Base(path))
		}
	}
	return names, nil
}

// ReadFile implements files.FS.
func (c *FS) ReadFile(path string) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crashed {
		return nil, ErrCrashed
	}
	file, ok := c.names[path]
	if !ok {
		return nil, fmt.Errorf("read %s: %w", path, fs.ErrNotExist)
	}
	return slices.Clone(file.data), nil
}

// WriteFile replaces a file durably: a test damages a file with it.
func (c *FS) WriteFile(path string, data []byte) {
	c.locked(func() {
		file := &inode{data: slices.Clone(data), synced: slices.Clone(data)}
		c.names[path], c.durable[path] = file, file
	})
}

// Create implements files.FS.
func (c *FS) Create(path string) (files.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.names[path] != nil && !c.crashed {
		return nil, fmt.Errorf("create %s: %w", path, fs.ErrExist)
	}
	err := c.do(func() { c.names[path] = &inode{} })
	return &handle{fs: c, file: c.names[path], boot: c.boot}, err
}

// Open implements files.FS.
func (c *FS) Open(path string) (io.ReadCloser, error) {
	data, err := c.ReadFile(path)
	return io.NopCloser(bytes.NewReader(data)), err
}

// OpenFile implements files.FS.
func (c *FS) OpenFile(path string) (files.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crashed {
		return nil, ErrCrashed
	}
	file, ok := c.names[path]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", path, fs.ErrNotExist)
	}
	return &handle{fs: c, file: file, boot: c.boot}, nil
}

// Remove implements files.FS.
func (c *FS) Remove(path string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.do(func() { delete(c.names, path) })
}

// Rename implements files.FS. In a crash before the directory is synced each of the two
// names is found as it was or as it became, whatever became of the other: harsher than
// most file systems are.
func (c *FS) Rename(from, to string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.names[from] == nil && !c.crashed {
		return fmt.Errorf("rename %s: %w", from, fs.ErrNotExist)
	}
	return c.do(func() {
		c.names[to] = c.names[from]
		delete(c.names, from)
	})
}

// SyncDir implements files.FS.
func (c *FS) SyncDir(dir string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.begin(); err != nil {
		return err
	}
	for _, path := range c.paths() {
		if filepath.Dir(path) != dir {
			continue
		}
		if file := c.names[path]; file != nil {
			c.durable[path] = file
		} else {
			delete(c.durable, path)
		}
	}
	return nil
}

type handle struct {
	fs   *FS
	file *inode
	boot int
}

func (h *handle) do(f func()) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.boot != h.fs.boot {
		return ErrCrashed
	}
	return h.fs.do(f)
}

// WriteAt writes, beyond the end too. When the crash comes in its middle, any part of it
// may reach the disk.
func (h *handle) WriteAt(p []byte, offset int64) (int, error) {
	err := h.do(func() {
		h.file.resize(max(int64(len(h.file.data)), offset+int64(len(p))))
		copy(h.file.data[offset:], p)
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (h *handle) Truncate(size int64) error {
	return h.do(func() { h.file.resize(size) })
}

func (f *inode) resize(size int64) {
	if short := size - int64(len(f.data)); short > 0 {
		f.data = append(f.data, make([]byte, short)...)
		return
	}
	f.data = f.data[:size:size]
}

func (h *handle) Sync() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.boot != h.fs.boot {
		return ErrCrashed
	}
	if _, err := h.fs.begin(); err != nil {
		return err // the crash tears what is not synced, which is any part of it
	}
	if h.fs.syncErr != nil {
		return h.fs.syncErr
	}
	h.file.synced = slices.Clone(h.file.data)
	return nil
}

func (h *handle) Close() error { return nil }
