package agent

import (
	"bytes"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// dataIn makes the data of a process in the directory of a run, and returns both.
func dataIn(t *testing.T) (root, data string) {
	t.Helper()
	root = t.TempDir()
	data = filepath.Join(root, "db", "data")
	if err := os.MkdirAll(filepath.Join(data, "log"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(data, "log", "1.wal"), append(bytes.Repeat([]byte("entry "), 100), make([]byte, 4096)...))
	write(t, filepath.Join(data, "vote"), []byte("n1"))
	return root, data
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o640); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestDamageDoesWhatItSaysAndIsUndone(t *testing.T) {
	root, data := dataIn(t)
	wal, vote := filepath.Join(data, "log", "1.wal"), filepath.Join(data, "vote")
	before := read(t, wal)
	do := func(d Damage) string {
		t.Helper()
		d.Process, d.Dir, d.Mark = "db", data, "7"
		what, err := damage(root, d)
		if err != nil {
			t.Fatal(err)
		}
		return what
	}

	what := do(Damage{Kind: DamageFlip, Files: "*.wal", Seed: 3})
	different := 0
	for i, b := range read(t, wal) {
		if different += bits.OnesCount8(b ^ before[i]); b != before[i] && i >= 600 {
			t.Errorf("byte %d was flipped, in the zeros at the end", i)
		}
	}
	if different != 1 || len(read(t, wal)) != len(before) {
		t.Errorf("%s: %d bits differ", what, different)
	}
	do(Damage{Kind: DamageRestore, Files: "*.wal"})
	if !bytes.Equal(read(t, wal), before) {
		t.Error("the flip was not undone")
	}

	if what := do(Damage{Kind: DamageTruncate, Files: "log/*", Bytes: 100}); what != "log/1.wal ends after 500 of 600 written bytes" || len(read(t, wal)) != 500 {
		t.Errorf("%s: %d bytes are left", what, len(read(t, wal)))
	}
	do(Damage{Kind: DamageRestore, Files: "log/*"})

	do(Damage{Kind: DamageKeep})
	write(t, vote, []byte("n2"))
	write(t, filepath.Join(data, "log", "2.wal"), []byte("newer"))
	do(Damage{Kind: DamageSwap})
	if _, err := os.Stat(filepath.Join(data, "log", "2.wal")); !os.IsNotExist(err) || string(read(t, vote)) != "n1" {
		t.Errorf("the older files are not back: vote %s, %v", read(t, vote), err)
	}
	do(Damage{Kind: DamageRestore})
	if string(read(t, vote)) != "n2" || string(read(t, filepath.Join(data, "log", "2.wal"))) != "newer" {
		t.Error("the newer files are not back")
	}
}

func TestDamageGivesBackOnlyWhatItTook(t *testing.T) {
	root, data := dataIn(t)
	for _, d := range []Damage{{Kind: DamageFlip, Mark: "1"}, {Kind: DamageRestore, Mark: "2"}} {
		d.Process, d.Dir = "db", data
		what, err := damage(root, d)
		if err != nil || d.Mark == "2" && what != "nothing was changed" {
			t.Errorf("%+v: %s, %v", d, what, err)
		}
	}
}

func TestDamageReachesNothingOutsideTheRunAndFindsNothingToDamageInNothing(t *testing.T) {
	root, data := dataIn(t)
	outside := filepath.Join(t.TempDir(), "other")
	write(t, outside, []byte("another's"))
	if err := os.Symlink(filepath.Dir(outside), filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(data, "link")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		d    Damage
		want string
	}{
		"outside":           {Damage{Kind: DamageFlip, Dir: filepath.Dir(outside)}, "does not lie in"},
		"the run itself":    {Damage{Kind: DamageFlip, Dir: root}, "does not lie in"},
		"through a link":    {Damage{Kind: DamageTruncate, Bytes: 1, Dir: filepath.Join(root, "link")}, "escapes"},
		"a link in it":      {Damage{Kind: DamageTruncate, Bytes: 1, Dir: data, Files: "link"}, `no file that matches "link"`},
		"no data":           {Damage{Kind: DamageFlip, Dir: filepath.Join(root, "db", "none")}, "no such file"},
		"nothing was kept":  {Damage{Kind: DamageSwap, Dir: data}, "no such file"},
		"only zeros in it":  {Damage{Kind: DamageFlip, Dir: data, Files: "zeros"}, "nothing to damage in the 1 files"},
		"no file like that": {Damage{Kind: DamageFlip, Dir: data, Files: "*.snap"}, `no file that matches "*.snap"`},
	} {
		if name == "only zeros in it" {
			write(t, filepath.Join(data, "zeros"), make([]byte, 100))
		}
		c.d.Process, c.d.Mark = "db", "1"
		if what, err := damage(root, c.d); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q, %v; want %q", name, what, err, c.want)
		}
	}
	if string(read(t, outside)) != "another's" {
		t.Error("a file outside was touched")
	}
}

// A running process replaces its files: a segment is removed, a temporary file gets its name.
func TestFilesAreKeptWhileTheirProcessReplacesThem(t *testing.T) {
	root, data := dataIn(t)
	over := make(chan struct{})
	var replacing sync.WaitGroup
	for writer := range 4 {
		replacing.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				dir := filepath.Join(data, fmt.Sprintf("snap-%d-%d", writer, i))
				_ = os.Mkdir(dir, 0o755)
				_ = os.WriteFile(filepath.Join(dir, "part"), []byte("snapshot"), 0o640)
				_ = os.RemoveAll(dir)
			}
		})
	}
	defer replacing.Wait()
	defer close(over)
	for range 50 {
		if _, err := damage(root, Damage{Process: "db", Dir: data, Mark: "7", Kind: DamageKeep}); err != nil {
			t.Fatal(err)
		}
	}
	if kept := read(t, filepath.Join(root, "db", "data.kept-7", "vote")); string(kept) != "n1" {
		t.Errorf("kept %q", kept)
	}
}
