package disk

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// model says what a disk must hold, by redoing: what is durable, and on top of it what a
// program has done since. The layer undoes, so the two have nothing in common.
type model struct {
	strict  bool
	disk    names   // durable
	pending []entry // done to names since
	files   map[uint64]*fileModel
}

// names are directories by inode, and the root's is zero.
type names map[uint64]map[string]uint64

// entry is one change of names: to is set to node, from is emptied, or gets swap.
type entry struct {
	to, from placeModel
	node     uint64
	swap     uint64
	made     bool   // node is a new directory
	gone     uint64 // a directory that was at to
}

type placeModel struct {
	dir  uint64
	name string
}

// fileModel is the content of a file: durable, and what was done since.
type fileModel struct {
	disk    []byte
	pending []step
}

type step struct {
	off    int
	data   []byte // of a write
	resize bool   // or the new size, which is off
	lost   bool
}

func (s step) apply(b []byte) []byte {
	if s.resize {
		if s.off <= len(b) {
			return slices.Clone(b[:s.off])
		}
		return append(slices.Clone(b), make([]byte, s.off-len(b))...)
	}
	out := append(slices.Clone(b), make([]byte, max(0, s.off+len(s.data)-len(b)))...)
	copy(out[s.off:], s.data)
	return out
}

func (c *fileModel) visible() []byte {
	b := c.disk
	for _, s := range c.pending {
		b = s.apply(b)
	}
	return b
}

// saved is what the disk holds after an fsync, and what is visible stays visible.
func (c *fileModel) saved() []byte {
	b := c.disk
	for _, s := range c.pending {
		if !s.lost {
			b = s.apply(b)
		}
	}
	return b
}

// states are the contents that the disk went through, if every step came to it in turn.
func (c *fileModel) states() [][]byte {
	all := [][]byte{c.disk}
	for _, s := range c.pending {
		if !s.lost {
			all = append(all, s.apply(all[len(all)-1]))
		}
	}
	return all
}

// allows says whether a power failure may leave got.
func (c *fileModel) allows(mode string, got []byte) bool {
	states := c.states()
	switch mode {
	case PowerAll:
		return bytes.Equal(got, c.disk)
	case PowerPrefix:
		k := 0
		for _, s := range c.pending {
			if s.lost {
				continue
			}
			for end := sectorSize; !s.resize && end < s.off+len(s.data); end += sectorSize {
				if end > s.off && bytes.Equal(got, step{off: s.off, data: s.data[:end-s.off]}.apply(states[k])) {
					return true
				}
			}
			k++
		}
		return slices.ContainsFunc(states, func(s []byte) bool { return bytes.Equal(got, s) })
	}
	shortest, longest := len(states[0]), 0
	for _, s := range states {
		shortest, longest = min(shortest, len(s)), max(longest, len(s))
	}
	if len(got) < shortest || len(got) > longest {
		return false
	}
	for i, b := range got {
		if !slices.ContainsFunc(states, func(s []byte) bool { return i < len(s) && s[i] == b || i >= len(s) && b == 0 }) {
			return false
		}
	}
	return true
}

func (n names) clone() names {
	out := names{}
	for dir, entries := range n {
		out[dir] = maps.Clone(entries)
	}
	return out
}

func (n names) apply(e entry) {
	put := func(at placeModel, node uint64) {
		if n[at.dir] == nil { // what it has may be durable before it is itself
			n[at.dir] = map[string]uint64{}
		}
		if n[at.dir][at.name] = node; node == 0 {
			delete(n[at.dir], at.name)
		}
	}
	if e.made && n[e.node] == nil {
		n[e.node] = map[string]uint64{}
	}
	if e.from.name != "" {
		put(e.from, e.swap)
	}
	if e.to.name != "" {
		put(e.to, e.node)
	}
}

// paths are what a program sees, from the root.
func (n names) paths() map[string]uint64 {
	out := map[string]uint64{}
	var walk func(dir uint64, at string)
	walk = func(dir uint64, at string) {
		for name, node := range n[dir] {
			out[filepath.Join(at, name)] = node
			if n[node] != nil {
				walk(node, filepath.Join(at, name))
			}
		}
	}
	walk(0, "")
	return out
}

func (m *model) visible() names {
	n := m.disk.clone()
	for _, e := range m.pending {
		n.apply(e)
	}
	return n
}

// touches are the directories that an entry is in.
func (e entry) touches() []uint64 {
	var dirs []uint64
	if e.to.name != "" {
		dirs = append(dirs, e.to.dir)
	}
	if e.from.name != "" && !slices.Contains(dirs, e.from.dir) {
		dirs = append(dirs, e.from.dir)
	}
	if e.gone != 0 {
		dirs = append(dirs, e.gone)
	}
	return dirs
}

// syncNames makes names durable by an fsync of dir: those in it, and what they need, until
// nothing more is needed.
func (m *model) syncNames(dir uint64) {
	upTo := map[uint64]int{dir: len(m.pending)} // of which directory which entries are durable
	there := map[uint64]bool{}                  // directories that must be there themselves
	saved := map[int]bool{}
	for grown := true; grown; {
		grown = false
		for i, e := range m.pending {
			dirs := e.touches()
			needed := e.made && there[e.node]
			if saved[i] && !needed || !m.strict {
				saved[i] = true
				continue
			}
			if !needed && !slices.ContainsFunc(dirs, func(d uint64) bool { return i < upTo[d] }) {
				continue
			}
			grown = grown || !saved[i]
			saved[i] = true
			if !needed && len(dirs) < 2 {
				continue
			}
			for _, d := range dirs {
				grown = grown || upTo[d] < i+1 || !there[d]
				upTo[d], there[d] = max(upTo[d], i+1), true
			}
		}
	}
	var left []entry
	for i, e := range m.pending {
		if saved[i] {
			m.disk.apply(e)
		} else {
			left = append(left, e)
		}
	}
	m.pending = left
}

// crashed finds which names survived, and takes what is there as durable.
func (m *model) crashed(mode string, got map[string]uint64) error {
	n := m.disk.clone()
	for i := 0; ; i++ {
		if maps.Equal(n.paths(), got) {
			m.disk, m.pending = n, nil
			return nil
		}
		if i == len(m.pending) || mode == PowerAll {
			return fmt.Errorf("after the failure are there %v; durable was %v, visible %v", got, m.disk.paths(), m.visible().paths())
		}
		n.apply(m.pending[i])
	}
}

// run drives a program on the disk, and the model beside it.
type run struct {
	*rapid.T
	d     *Disk
	root  string
	model *model
	count int
}

func (r *run) ok(err error) {
	if err != nil {
		r.Fatal(err)
	}
}

func (r *run) inode(path string) uint64 {
	var st unix.Stat_t
	r.ok(unix.Lstat(filepath.Join(r.root, path), &st))
	return st.Ino
}

// pick draws a path that is there, of a file or a directory; "" is the root, or none.
func (r *run) pick(dirs bool) string {
	n := r.model.visible()
	var paths []string
	for path, node := range n.paths() {
		if (n[node] != nil) == dirs {
			paths = append(paths, path)
		}
	}
	if dirs {
		paths = append(paths, "")
	}
	if len(paths) == 0 {
		return ""
	}
	slices.Sort(paths)
	return rapid.SampledFrom(paths).Draw(r.T, "path")
}

func (r *run) place() (placeModel, string) {
	dir := r.pick(true)
	name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r.T, "name")
	return placeModel{r.node(dir), name}, filepath.Join(dir, name)
}

func (r *run) node(path string) uint64 { return r.model.visible().paths()[path] }

func (r *run) at(path string) string { return filepath.Join(r.root, path) }

func (r *run) entry(e entry) { r.model.pending = append(r.model.pending, e) }

func (r *run) create(dir bool) {
	to, path := r.place()
	if r.node(path) != 0 {
		return
	}
	if dir {
		r.ok(os.Mkdir(r.at(path), 0o755))
		r.entry(entry{to: to, node: r.fresh(path), made: true})
		return
	}
	f, err := os.OpenFile(r.at(path), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	r.ok(err)
	r.ok(f.Close())
	node := r.fresh(path)
	r.model.files[node] = &fileModel{}
	r.entry(entry{to: to, node: node})
}

// fresh is the inode of what was made just now. Its number may have been that of another.
func (r *run) fresh(path string) uint64 {
	node := r.inode(path)
	delete(r.model.disk, node)
	delete(r.model.files, node)
	return node
}

func (r *run) link() {
	from := r.pick(false)
	to, path := r.place()
	if from == "" || r.node(path) != 0 {
		return
	}
	r.ok(os.Link(r.at(from), r.at(path)))
	r.entry(entry{to: to, node: r.node(from)})
}

func (r *run) remove(dir bool) {
	path := r.pick(dir)
	if path == "" {
		return
	}
	node, n := r.node(path), r.model.visible()
	from := placeModel{r.node(parent(path)), filepath.Base(path)}
	if dir && len(n[node]) > 0 {
		if err := unix.Rmdir(r.at(path)); !errors.Is(err, unix.ENOTEMPTY) {
			r.Fatalf("rmdir %s, which is not empty: %v", path, err)
		}
		return
	}
	r.ok(os.Remove(r.at(path)))
	e := entry{from: from}
	if dir {
		e.gone = node
	}
	r.entry(e)
}

func parent(path string) string {
	if dir := filepath.Dir(path); dir != "." {
		return dir
	}
	return ""
}

func (r *run) rename(dirs bool, swap bool) {
	path := r.pick(dirs)
	to, target := r.place()
	n := r.model.visible()
	node, there := r.node(path), r.node(target)
	if path == "" || node == there || swap != (there != 0) && swap || len(target) > len(path) && target[:len(path)+1] == path+"/" {
		return
	}
	if swap && len(path) > len(target) && path[:len(target)+1] == target+"/" {
		return
	}
	e := entry{to: to, from: placeModel{r.node(parent(path)), filepath.Base(path)}, node: node}
	if swap {
		e.swap = there
		r.ok(unix.Renameat2(unix.AT_FDCWD, r.at(path), unix.AT_FDCWD, r.at(target), unix.RENAME_EXCHANGE))
		r.entry(e)
		return
	}
	if there != 0 && (n[there] != nil) != dirs {
		return
	}
	if there != 0 && dirs {
		e.gone = there
		if len(n[there]) > 0 {
			if err := unix.Rename(r.at(path), r.at(target)); !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EINVAL) {
				r.Fatalf("rename %s over %s, which is not empty: %v", path, target, err)
			}
			return
		}
	}
	r.ok(unix.Rename(r.at(path), r.at(target)))
	r.entry(e)
}

// change changes the content of a file.
func (r *run) change(kind string) {
	path := r.pick(false)
	if path == "" {
		return
	}
	c := r.model.files[r.node(path)]
	f, err := os.OpenFile(r.at(path), os.O_RDWR, 0)
	r.ok(err)
	defer func() { r.ok(f.Close()) }()
	size := len(c.visible())
	off := rapid.IntRange(0, 9000).Draw(r.T, "offset")
	n := rapid.IntRange(1, 5000).Draw(r.T, "bytes")
	r.count++
	data := bytes.Repeat([]byte(strconv.Itoa(1000+r.count)), n/4+1)[:n]
	s := step{off: off, data: data}
	switch kind {
	case "append":
		s.off = size
		_, err = f.WriteAt(data, int64(size))
	case "write":
		_, err = f.WriteAt(data, int64(off))
	case "truncate":
		s = step{off: off, resize: true}
		err = f.Truncate(int64(off))
	case "allocate":
		s = step{off: max(size, off+n), resize: true}
		err = unix.Fallocate(int(f.Fd()), 0, int64(off), int64(n))
	case "punch":
		if n = min(n, size-off); n <= 0 {
			return
		}
		s = step{off: off, data: make([]byte, n)}
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(n))
	case "zero":
		s.data = make([]byte, n)
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE, int64(off), int64(n))
	}
	r.ok(err)
	if !s.resize || s.off != size {
		c.pending = append(c.pending, s)
	}
}

func (r *run) fsync(lost bool) {
	path := r.pick(false)
	if path == "" {
		return
	}
	if lost {
		r.ok(r.d.Set(r.Context(), Setting{Rules: []Rule{{ID: "lose", On: OnFsync, Effect: EffectLose}}}))
	}
	err := syncPath(r.at(path))
	c := r.model.files[r.node(path)]
	if lost {
		r.ok(r.d.Set(r.Context(), Setting{}))
		if !errors.Is(err, syscall.EIO) {
			r.Fatalf("a lost fsync: %v", err)
		}
		for i := range c.pending {
			c.pending[i].lost = c.pending[i].lost || !c.pending[i].resize
		}
		return
	}
	r.ok(err)
	visible := c.visible()
	c.disk, c.pending = c.saved(), nil
	if !bytes.Equal(visible, c.disk) { // what is lost stays visible, and is never saved
		c.pending = append(c.pending, step{off: len(visible), resize: true, lost: true}, step{data: visible, lost: true})
	}
	if !r.model.strict {
		r.model.syncNames(0)
	}
}

func (r *run) crash() {
	mode := rapid.SampledFrom([]string{PowerAll, PowerAll, PowerPrefix, PowerPages}).Draw(r.T, "mode")
	loss, err := r.d.PowerFail(r.Context(), mode, rapid.Uint64().Draw(r.T, "seed"))
	r.ok(err)
	if loss.Kept != 0 {
		r.Fatalf("%d changes were not undone", loss.Kept)
	}
	got := r.look()
	r.ok(r.model.crashed(mode, got))
	for path, node := range got {
		c := r.model.files[node]
		if c == nil {
			continue
		}
		after, err := os.ReadFile(r.at(path))
		r.ok(err)
		if !c.allows(mode, after) {
			r.Fatalf("after mode %s %s holds %s, durable was %s, visible %s", mode, path, short(after), short(c.disk), short(c.visible()))
		}
	}
	for node, c := range r.model.files {
		for path, n := range got {
			if n == node {
				c.disk, err = os.ReadFile(r.at(path))
				r.ok(err)
				c.pending = nil
			}
		}
	}
}

// short shows a content by its runs.
func short(b []byte) string {
	out := fmt.Sprintf("%d bytes:", len(b))
	for i := 0; i < len(b); {
		j := i
		for j < len(b) && j-i < 16 && b[j] == b[i] {
			j++
		}
		for ; j < len(b) && j%sectorSize != 0; j++ {
		}
		out += fmt.Sprintf(" %d:%q", i, b[i:min(i+4, j)])
		i = j
	}
	return out
}

func (r *run) look() map[string]uint64 {
	got := map[string]uint64{}
	r.ok(filepath.WalkDir(r.root, func(path string, _ os.DirEntry, err error) error {
		if err != nil || path == r.root {
			return err
		}
		below, err := filepath.Rel(r.root, path)
		got[below] = r.inode(below)
		return err
	}))
	return got
}

// compare holds the disk against the model before any failure.
func (r *run) compare() {
	want := r.model.visible().paths()
	if got := r.look(); !maps.Equal(got, want) {
		r.Fatalf("there are %v, want %v", got, want)
	}
	for path, node := range want {
		if c := r.model.files[node]; c != nil {
			got, err := os.ReadFile(r.at(path))
			r.ok(err)
			if !bytes.Equal(got, c.visible()) {
				r.Fatalf("%s holds %s, want %s", path, short(got), short(c.visible()))
			}
		}
	}
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (r *run) step() {
	kind := rapid.SampledFrom([]string{
		"create", "create", "mkdir", "link", "unlink", "rmdir", "rename", "rename directory", "swap", "swap directories",
		"write", "write", "append", "append", "truncate", "allocate", "punch", "zero",
		"fsync", "fsync directory", "lose", "crash", "compare",
	}).Draw(r.T, "step")
	switch kind {
	case "create", "mkdir":
		r.create(kind == "mkdir")
	case "link":
		r.link()
	case "unlink", "rmdir":
		r.remove(kind == "rmdir")
	case "rename", "rename directory":
		r.rename(kind != "rename", false)
	case "swap", "swap directories":
		r.rename(kind != "swap", true)
	case "fsync", "lose":
		r.fsync(kind == "lose")
	case "fsync directory":
		path := r.pick(true)
		r.ok(syncPath(r.at(path)))
		r.model.syncNames(r.node(path))
	case "crash":
		r.crash()
	case "compare":
		r.compare()
	default:
		r.change(kind)
	}
}

func TestTheDiskHoldsWhatTheModelSays(t *testing.T) {
	for _, strict := range []bool{true, false} {
		t.Run(fmt.Sprintf("strict=%v", strict), func(t *testing.T) {
			d, dir := coveredWith(t, Options{StrictNames: strict, NoSync: true})
			runs := 0
			rapid.Check(t, func(rt *rapid.T) {
				runs++
				root := filepath.Join(dir, strconv.Itoa(runs))
				if _, err := d.PowerFail(t.Context(), PowerAll, 0); err != nil { // of the run before
					rt.Fatal(err)
				}
				if err := errors.Join(os.Mkdir(root, 0o755), syncDir(dir)); err != nil {
					rt.Fatal(err)
				}
				r := &run{T: rt, d: d, root: root, model: &model{strict: strict, disk: names{0: {}}, files: map[uint64]*fileModel{}}}
				for range rapid.IntRange(1, 40).Draw(rt, "steps") {
					r.step()
				}
				r.compare()
				r.crash()
			})
		})
	}
}
