package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUndoLeavesAloneWhatItDidNotPutThere(t *testing.T) {
	backing := t.TempDir()
	d, dir := coveredWith(t, Options{Backing: backing, StrictNames: true})
	write(t, filepath.Join(dir, "moved"), "moved", true)
	write(t, filepath.Join(dir, "made"), "made", false)
	if err := os.Rename(filepath.Join(dir, "moved"), filepath.Join(dir, "there")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"made", "there"} { // others put files there, behind the layer
		other := filepath.Join(backing, name+".other")
		if err := errors.Join(os.WriteFile(other, []byte("of others"), 0o600), os.Rename(other, filepath.Join(backing, name))); err != nil {
			t.Fatal(err)
		}
	}
	loss, err := d.PowerFail(t.Context(), PowerAll, 1)
	if err != nil || loss.Kept != 2 || loss.Names != 0 {
		t.Errorf("%+v, %v: want 2 kept", loss, err)
	}
	content(t, filepath.Join(dir, "made"), "of others")
	content(t, filepath.Join(dir, "there"), "of others")
}

// The undo of the move would put the file of before over the one that is durable.
func TestAMoveOutIsSavedWithTheDirectoryItLeft(t *testing.T) {
	d, dir := covered(t)
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := errors.Join(os.Mkdir(from, 0o755), os.Mkdir(to, 0o755), syncDir(dir)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(from, "wal"), "old", true)
	if err := os.Rename(filepath.Join(from, "wal"), filepath.Join(to, "wal")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(from, "wal"), "new", true)
	loss, err := d.PowerFail(t.Context(), PowerAll, 1)
	if err != nil || loss != (Loss{}) {
		t.Errorf("%+v, %v: want nothing lost", loss, err)
	}
	content(t, filepath.Join(from, "wal"), "new")
	content(t, filepath.Join(to, "wal"), "old")
}

// What was in a directory for sure is not lost with a new one.
func TestAMoveIntoANewDirectorySavesThat(t *testing.T) {
	d, dir := covered(t)
	write(t, filepath.Join(dir, "wal"), "durable", true)
	sub := filepath.Join(dir, "new", "sub")
	if err := errors.Join(os.MkdirAll(filepath.Join(sub, "deep"), 0o755), os.Rename(filepath.Join(dir, "wal"), filepath.Join(sub, "deep", "wal")), syncDir(filepath.Join(sub, "deep"))); err != nil {
		t.Fatal(err)
	}
	if loss, err := d.PowerFail(t.Context(), PowerAll, 1); err != nil || loss != (Loss{}) {
		t.Errorf("%+v, %v: want nothing lost", loss, err)
	}
	content(t, filepath.Join(sub, "deep", "wal"), "durable")
}

// A program that syncs what is in a new directory, and not the directory's own name.
func TestANewDirectoryIsLostWithAllInIt(t *testing.T) {
	for strict, want := range map[bool]bool{true: false, false: true} {
		d, dir := coveredWith(t, Options{StrictNames: strict})
		sub := filepath.Join(dir, "sub")
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(sub, "wal"), "synced", true)
		if loss, err := d.PowerFail(t.Context(), PowerAll, 1); err != nil || loss.Kept != 0 {
			t.Errorf("%+v, %v", loss, err)
		}
		if _, err := os.Stat(sub); (err == nil) != want {
			t.Errorf("strict names %v: %v", strict, err)
		}
	}
}

func TestEveryKindOfNameIsUndone(t *testing.T) {
	d, dir := covered(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("file"), "x", true)
	if err := errors.Join(os.Mkdir(at("gone"), 0o750), os.Mkdir(at("covered"), 0o755), os.Mkdir(at("over"), 0o755), syncDir(dir)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink("file", at("symlink")), os.Link(at("file"), at("link")), unix.Mkfifo(at("pipe"), 0o600),
		os.Remove(at("gone")), unix.Rename(at("over"), at("covered"))); err != nil {
		t.Fatal(err)
	}
	loss, err := d.PowerFail(t.Context(), PowerAll, 1)
	if err != nil || loss.Names != 5 || loss.Kept != 0 {
		t.Errorf("%+v, %v: want 5 names", loss, err)
	}
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := "[covered file gone over]"; err != nil || len(names) != 4 || want != "["+names[0]+" "+names[1]+" "+names[2]+" "+names[3]+"]" {
		t.Errorf("there are %v, %v", names, err)
	}
}

func TestTheTrashIsHidden(t *testing.T) {
	_, dir := covered(t)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("an empty directory lists %v, %v", entries, err)
	}
	hidden := filepath.Join(dir, trashName)
	if _, err := os.Stat(hidden); !os.IsNotExist(err) {
		t.Errorf("stat: %v", err)
	}
	if err := os.Mkdir(hidden, 0o755); err == nil {
		t.Error("a program could make one")
	}
}
