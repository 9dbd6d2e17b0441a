// Package crashfs is a file system in memory that crashes as real ones may: what was not
// synced is lost, kept, or torn at sector boundaries, in any mixture.
//
// A test counts the operations of a run, then repeats the run once per operation with
// [FS.CrashAt], calls [FS.Restart], and looks at what is left.
package crashfs

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"

	"capsize/raftnode/wal"
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

var _ wal.FS = (*FS)(nil)

// New returns an empty file system whose crashes are drawn from the seed.
func New(seed uint64) *FS {
	return &FS{rng: rand.New(rand.NewPCG(seed, 0)), names: map[string]*inode{}, durable: map[string]*inode{}}
}

// CrashAt makes the machine crash in the middle of operation n, counted from 1 since New:
// writes, truncations, syncs, creations and removals count. 0 means never.
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

// MkdirAll implements wal.FS: directories exist.
func (c *FS) MkdirAll(string) error { return nil }

// List implements wal.FS.
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

// ReadFile implements wal.FS.
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

// Create implements wal.FS.
func (c *FS) Create(path string) (wal.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.names[path] != nil && !c.crashed {
		return nil, fmt.Errorf("create %s: %w", path, fs.ErrExist)
	}
	crashing, err := c.begin()
	if err == nil || crashing {
		c.names[path] = &inode{}
	}
	return &handle{fs: c, file: c.names[path], boot: c.boot}, err
}

// Append implements wal.FS.
func (c *FS) Append(path string) (wal.File, error) {
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

// Remove implements wal.FS.
func (c *FS) Remove(path string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	crashing, err := c.begin()
	if err == nil || crashing {
		delete(c.names, path)
	}
	return err
}

// SyncDir implements wal.FS.
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
	crashing, err := h.fs.begin()
	if err == nil || crashing {
		f()
	}
	return err
}

// Write appends. When the crash comes in its middle, any part of it may reach the disk.
func (h *handle) Write(p []byte) (int, error) {
	if err := h.do(func() { h.file.data = append(h.file.data, p...) }); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (h *handle) Truncate(size int64) error {
	return h.do(func() { h.file.data = h.file.data[:size:size] })
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
