package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
)

// What Damage does to files.
const (
	DamageKeep     = "keep"     // copies them aside, for a swap; the process may run
	DamageFlip     = "flip"     // one bit of one file
	DamageTruncate = "truncate" // the end of one file is lost
	DamageWipe     = "wipe"     // nothing is left
	DamageSwap     = "swap"     // all are what they were at the keep of the same mark
	DamageRestore  = "restore"  // all are what they were before the damage of the same mark
)

// Damage changes the files in which a process keeps its data, or puts them back. For all kinds
// but keep it must not run.
type Damage struct {
	Process string `json:"process"`
	Dir     string `json:"dir"`
	Kind    string `json:"kind"`
	Mark    string `json:"mark"`            // whose copies are meant: one damage gives back only what it took
	Files   string `json:"files,omitempty"` // pattern (path.Match) of names or paths below Dir; empty is all
	Seed    uint64 `json:"seed,omitempty"`
	Bytes   int64  `json:"bytes,omitempty"` // of truncate: how many are lost
}

// DamageReply answers Damage.
type DamageReply struct {
	What string `json:"what"` // in words, as it was read back: "bit 3 of byte 512 of 000001.wal is 1 now"
}

func (d *Damage) validate() error {
	if err := validateName("process", d.Process); err != nil {
		return err
	}
	if err := validateName("mark", d.Mark); err != nil || !filepath.IsLocal(d.Mark) || filepath.Base(d.Mark) != d.Mark {
		return fmt.Errorf("damage: mark %q, want a plain name", d.Mark)
	}
	if kinds := []string{DamageKeep, DamageFlip, DamageTruncate, DamageWipe, DamageSwap, DamageRestore}; !slices.Contains(kinds, d.Kind) {
		return fmt.Errorf("damage %q, want one of %v", d.Kind, kinds)
	}
	if _, err := path.Match(d.Files, ""); err != nil {
		return fmt.Errorf("damage files %q: %w", d.Files, err)
	}
	if d.Kind == DamageTruncate && d.Bytes < 1 {
		return fmt.Errorf("damage: truncate by %d bytes, want at least 1", d.Bytes)
	}
	return nil
}

// dataFiles are the files of a process, below the directory of the run and never outside.
type dataFiles struct {
	root  *os.Root
	dir   string // below root
	files string // pattern
}

// damage carries out a request. It syncs what it writes: the process finds it for certain.
func damage(root string, d Damage) (what string, err error) {
	name, err := filepath.Rel(root, d.Dir)
	if err != nil || !filepath.IsLocal(name) || name == "." {
		return "", fmt.Errorf("damage %s: it does not lie in %s, the directory of this run", d.Dir, root)
	}
	run, err := os.OpenRoot(root)
	if err != nil {
		return "", fmt.Errorf("damage %s: %w", d.Dir, err)
	}
	defer func() { _ = run.Close() }() // what was written through it is synced
	f := dataFiles{run, filepath.ToSlash(name), d.Files}
	if err := f.carryOut(d, &what); err != nil {
		return "", fmt.Errorf("%s files of %s in %s: %w", d.Kind, d.Process, d.Dir, err)
	}
	return what, nil
}

func (f dataFiles) carryOut(d Damage, what *string) error {
	kept, original := f.dir+".kept-"+d.Mark, f.dir+".original-"+d.Mark
	switch d.Kind {
	case DamageKeep:
		return f.save(what, kept)
	case DamageRestore:
		if _, err := f.root.Stat(original); errors.Is(err, fs.ErrNotExist) {
			*what = "nothing was changed"
			return nil
		}
		return f.replace(what, original, f.dir)
	}
	var saved string
	if err := f.save(&saved, original); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(d.Seed, 0x66696c65))
	switch d.Kind {
	case DamageWipe:
		return f.wipe(saved, what)
	case DamageFlip:
		return f.flip(random, what)
	case DamageTruncate:
		return f.truncate(random, d.Bytes, what)
	default:
		return f.replace(what, kept, f.dir)
	}
}

// save makes a directory hold the matching files as they are now, and nothing else: all of them,
// or what it held before.
func (f dataFiles) save(what *string, to string) error {
	part := to + ".part"
	if err := f.root.RemoveAll(part); err != nil {
		return err
	}
	if err := f.replace(what, f.dir, part); err != nil {
		return err
	}
	return errors.Join(f.root.RemoveAll(to), f.root.Rename(part, to))
}

// list returns the regular files that match below a directory, by their paths below it. What
// vanishes meanwhile is left out: the process may run, and replace its files.
func (f dataFiles) list(dir string) ([]string, error) {
	var found []string
	err := fs.WalkDir(f.root.FS(), dir, func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && name != dir {
			return nil
		}
		if err != nil {
			return err
		}
		below, err := filepath.Rel(dir, name)
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		whole, _ := path.Match(f.files, below) // the pattern was validated
		last, _ := path.Match(f.files, path.Base(below))
		if f.files == "" || whole || last {
			found = append(found, below)
		}
		return nil
	})
	return found, err
}

// replace makes the matching files below to the same as those below from.
func (f dataFiles) replace(what *string, from, to string) error {
	files, err := f.list(from)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("%s holds no file that matches %q", from, f.files)
	}
	old, err := f.list(to)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range old {
		if err := f.root.Remove(path.Join(to, name)); err != nil {
			return err
		}
	}
	var size int64
	copied := 0
	for _, name := range files {
		n, err := f.copy(path.Join(from, name), path.Join(to, name))
		if errors.Is(err, errVanished) {
			continue
		}
		if err != nil {
			return err
		}
		size, copied = size+n, copied+1
	}
	*what = fmt.Sprintf("%d files (%d bytes) of %s are in %s", copied, size, path.Base(from), path.Base(to))
	return nil
}

// errVanished: a file was removed between the listing and the copying.
var errVanished = errors.New("it was removed meanwhile")

func (f dataFiles) copy(from, to string) (int64, error) {
	if err := f.root.MkdirAll(path.Dir(to), 0o755); err != nil {
		return 0, err
	}
	in, err := f.root.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, errVanished
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }() // only read
	info, err := in.Stat()
	if err != nil {
		return 0, err
	}
	out, err := f.root.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, in)
	return n, errors.Join(err, out.Sync(), out.Close())
}

// choose returns a matching file at random, by how much is written in it, and how much that is:
// what follows are zeros, as in a file that was made large beforehand.
func (f dataFiles) choose(random *rand.Rand) (name string, written int64, err error) {
	files, err := f.list(f.dir)
	if err != nil {
		return "", 0, err
	}
	ends := make([]int64, len(files))
	var total int64
	for i, file := range files {
		if ends[i], err = f.written(path.Join(f.dir, file)); err != nil {
			return "", 0, err
		}
		total += ends[i]
	}
	if total == 0 {
		return "", 0, fmt.Errorf("there is nothing to damage in the %d files that match %q", len(files), f.files)
	}
	at := random.Int64N(total)
	for i, end := range ends {
		if at < end {
			return files[i], end, nil
		}
		at -= end
	}
	panic("a number below the sum lies in one of its parts")
}

// written returns where the last byte of a file that is not zero ends.
func (f dataFiles) written(name string) (end int64, err error) {
	file, err := f.root.Open(name)
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }() // only read
	block := make([]byte, 1<<20)
	for at := int64(0); ; {
		n, err := io.ReadFull(file, block)
		if content := bytes.TrimRight(block[:n], "\x00"); len(content) > 0 {
			end = at + int64(len(content))
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return end, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func (f dataFiles) flip(random *rand.Rand, what *string) error {
	name, written, err := f.choose(random)
	if err != nil {
		return err
	}
	at, bit := random.Int64N(written), random.IntN(8)
	return f.change(name, func(file *os.File) error {
		one := make([]byte, 1)
		if _, err := file.ReadAt(one, at); err != nil {
			return err
		}
		flipped := one[0] ^ 1<<bit
		if _, err := file.WriteAt([]byte{flipped}, at); err != nil {
			return err
		}
		if _, err := file.ReadAt(one, at); err != nil || one[0] != flipped {
			return errors.Join(err, fmt.Errorf("byte %d of %s is %#x after it was made %#x", at, name, one[0], flipped))
		}
		*what = fmt.Sprintf("bit %d of byte %d of %s is %d now", bit, at, name, one[0]>>bit&1)
		return nil
	})
}

func (f dataFiles) truncate(random *rand.Rand, lost int64, what *string) error {
	name, written, err := f.choose(random)
	if err != nil {
		return err
	}
	left := max(0, written-lost)
	return f.change(name, func(file *os.File) error {
		if err := file.Truncate(left); err != nil {
			return err
		}
		info, err := file.Stat()
		if err != nil || info.Size() != left {
			return errors.Join(err, fmt.Errorf("%s was not cut at %d bytes", name, left))
		}
		*what = fmt.Sprintf("%s ends after %d of %d written bytes", name, left, written)
		return nil
	})
}

// wipe removes everything below the directory, whatever the pattern.
func (f dataFiles) wipe(saved string, what *string) error {
	entries, err := fs.ReadDir(f.root.FS(), f.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := f.root.RemoveAll(path.Join(f.dir, entry.Name())); err != nil {
			return err
		}
	}
	*what = path.Base(f.dir) + " is empty: " + saved
	return nil
}

func (f dataFiles) change(name string, do func(*os.File) error) error {
	file, err := f.root.OpenFile(path.Join(f.dir, name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(do(file), file.Sync(), file.Close())
}
