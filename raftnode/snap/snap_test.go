package snap_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"capsize/raftnode/files"
	"capsize/raftnode/files/crashfs"
	"capsize/raftnode/snap"
)

const owner = "node 1 of test"

func openDir(t *testing.T, fs files.FS, dir string) *snap.Dir {
	t.Helper()
	d, err := snap.OpenDir(fs, dir, owner)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func noise(size int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func save(d *snap.Dir, index uint64, meta string, content []byte) error {
	return d.Save(index, []byte(meta), func(w io.Writer) error {
		for len(content) > 0 {
			n := min(len(content), 1000)
			if _, err := w.Write(content[:n]); err != nil {
				return err
			}
			content = content[n:]
		}
		return nil
	})
}

func load(d *snap.Dir, index uint64) (meta string, content []byte, err error) {
	m, r, err := d.Open(index)
	if err != nil {
		return "", nil, err
	}
	content, err = io.ReadAll(r)
	return string(m), content, errors.Join(err, r.Close())
}

func TestASnapshotComesBackAsItWasSaved(t *testing.T) {
	d := openDir(t, files.OS{}, filepath.Join(t.TempDir(), "a", "snap"))
	for i, size := range []int{0, 1, 127 << 10, 128 << 10, 128<<10 + 1, 1<<20 + 17} {
		want := noise(size, uint64(i))
		if err := save(d, uint64(i)+5, "beside", want); err != nil {
			t.Fatal(err)
		}
		meta, got, err := load(d, uint64(i)+5)
		if err != nil || meta != "beside" || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: %d came back, meta %q, %v", size, len(got), meta, err)
		}
	}
	if err := d.Remove(6); err != nil {
		t.Fatal(err)
	}
	if list, err := d.List(); err != nil || !slices.Equal(list, []uint64{5, 7, 8, 9, 10}) {
		t.Errorf("listed %v, %v", list, err)
	}
	if _, _, err := load(d, 6); err == nil {
		t.Error("a removed snapshot opens")
	}
}

func TestASaveThatFailsLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, files.OS{}, dir)
	broken := errors.New("no content")
	if err := d.Save(3, nil, func(w io.Writer) error { _, _ = w.Write(noise(1<<20, 1)); return broken }); !errors.Is(err, broken) {
		t.Errorf("save says %v", err)
	}
	if names, err := (files.OS{}).List(dir); err != nil || len(names) > 0 {
		t.Errorf("left %q, %v", names, err)
	}
}

func TestAnotherOwnersSnapshotIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := save(openDir(t, files.OS{}, dir), 3, "", []byte("x")); err != nil {
		t.Fatal(err)
	}
	other, err := snap.OpenDir(files.OS{}, dir, "node 2 of test")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := load(other, 3); err == nil || !strings.Contains(err.Error(), "belongs to node 1 of test") {
		t.Errorf("got %v", err)
	}
}

func TestDamageToAnyByteOfASnapshotIsNoticed(t *testing.T) {
	fs := crashfs.New(1)
	d := openDir(t, fs, "snap")
	content := noise(3000, 9)
	if err := save(d, 7, "meta", content); err != nil {
		t.Fatal(err)
	}
	const path = "snap/0000000000000007.snap"
	whole, err := fs.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for offset := range whole {
		damaged := slices.Clone(whole)
		damaged[offset] ^= 0x04
		fs.WriteFile(path, damaged)
		if _, _, err := load(d, 7); err == nil || !strings.Contains(err.Error(), path) {
			t.Fatalf("byte %d: %v", offset, err)
		}
	}
	for size := range whole {
		fs.WriteFile(path, whole[:size])
		if _, _, err := load(d, 7); !errors.Is(err, snap.ErrCorrupt) {
			t.Fatalf("cut to %d bytes: %v", size, err)
		}
	}
	fs.WriteFile(path, append(slices.Clone(whole), 0))
	if _, _, err := load(d, 7); !errors.Is(err, snap.ErrCorrupt) {
		t.Errorf("with a byte behind it: %v", err)
	}
	fs.WriteFile(path, whole)
	if meta, got, err := load(d, 7); err != nil || meta != "meta" || !bytes.Equal(got, content) {
		t.Errorf("undamaged: %v", err)
	}
}

// Crash in the middle of every create, write, sync and rename: a snapshot under its name is
// one that was given to Save, and what Save called done is there.
func TestASnapshotIsWholeOrAbsentWhereverTheMachineCrashes(t *testing.T) {
	versions := [][]byte{noise(140<<10, 1), noise(10, 2), noise(3000, 3)}
	run := func(fs *crashfs.FS) (saved int) {
		d, err := snap.OpenDir(fs, "snap", owner)
		if err != nil {
			return 0
		}
		for i, content := range versions {
			if save(d, uint64(i/2), "", content) != nil { // the second replaces the first
				return saved
			}
			saved = i + 1
			if i == 2 && d.Remove(0) != nil {
				return saved
			}
		}
		return saved + 1
	}
	dry := crashfs.New(0)
	run(dry)
	if dry.Operations() < 15 {
		t.Fatalf("only %d operations to crash at", dry.Operations())
	}
	for at := 1; at <= dry.Operations(); at++ {
		for seed := range uint64(5) {
			fs := crashfs.New(seed)
			fs.CrashAt(at)
			saved := run(fs)
			fs.Restart()
			d := openDir(t, fs, "snap")
			list, err := d.List()
			if err != nil {
				t.Fatal(err)
			}
			for _, index := range list {
				_, got, err := load(d, index)
				if err != nil || !slices.ContainsFunc(versions, func(v []byte) bool { return bytes.Equal(v, got) }) {
					t.Fatalf("crash at %d, seed %d: snapshot %d has %d bytes, %v", at, seed, index, len(got), err)
				}
			}
			if saved == 1 || saved == 2 {
				if _, got, err := load(d, 0); err != nil || saved == 2 && bytes.Equal(got, versions[0]) {
					t.Fatalf("crash at %d, seed %d: after save %d snapshot 0 has %d bytes, %v", at, seed, saved, len(got), err)
				}
			}
			if saved >= 3 {
				if _, got, err := load(d, 1); err != nil || !bytes.Equal(got, versions[2]) {
					t.Fatalf("crash at %d, seed %d: the last snapshot: %d bytes, %v", at, seed, len(got), err)
				}
			}
			if names, _ := fs.List("snap"); slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, ".tmp") }) {
				t.Fatalf("crash at %d, seed %d: left %q", at, seed, names)
			}
			if err := save(d, 9, "", []byte("goes on")); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	fs := crashfs.New(1)
	d, err := snap.OpenDir(fs, "snap", owner)
	if err != nil {
		f.Fatal(err)
	}
	if err := save(d, 7, "meta", noise(300, 1)); err != nil {
		f.Fatal(err)
	}
	const path = "snap/0000000000000007.snap"
	valid, err := fs.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(valid)
	f.Add(valid[:60])
	f.Fuzz(func(t *testing.T, data []byte) {
		fs := crashfs.New(1)
		fs.WriteFile(path, data)
		d, err := snap.OpenDir(fs, "snap", owner)
		if err != nil {
			t.Fatal(err)
		}
		meta, content, err := load(d, 7)
		if err != nil {
			return
		}
		if err := save(d, 7, meta, content); err != nil {
			t.Fatal(err)
		}
		if again, err := fs.ReadFile(path); err != nil || len(again) != len(data) && len(content) < 128<<10 {
			t.Fatalf("%d bytes were read as a snapshot that takes %d, %v", len(data), len(again), err)
		}
	})
}
