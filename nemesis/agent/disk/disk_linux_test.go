package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test program be the layer, too.
func TestMain(m *testing.M) {
	if text := os.Getenv("DISK_LAYER"); text != "" {
		var o Options
		err := json.Unmarshal([]byte(text), &o)
		if err == nil {
			err = Serve(context.Background(), os.Stdin, os.Stdout, o)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func covered(t testing.TB) (*Disk, string) {
	t.Helper()
	return coveredWith(t, Options{StrictNames: true})
}

// coveredWith covers a directory of its own, with that as backing unless o has another.
func coveredWith(t testing.TB, o Options) (*Disk, string) {
	t.Helper()
	if _, err := Supported(); err != nil {
		t.Skip(err)
	}
	if o.Mountpoint == "" {
		o.Mountpoint = filepath.Join(t.TempDir(), "data")
		if err := os.Mkdir(o.Mountpoint, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if o.Backing == "" {
		o.Backing = o.Mountpoint
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Mount(t.Context(), []string{"/usr/bin/env", "DISK_LAYER=" + string(text), os.Args[0]}, o.Mountpoint)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = d.in.Close()
		<-d.ended
	})
	return d, o.Mountpoint
}

func set(t testing.TB, d *Disk, s Setting) {
	t.Helper()
	if err := d.Set(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path, content string, sync bool) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
	if sync {
		if err := errors.Join(f.Sync(), syncDir(filepath.Dir(path))); err != nil {
			t.Fatal(err)
		}
	}
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func content(t testing.TB, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s holds %q, want %q", filepath.Base(path), got, want)
	}
}

func TestPowerFailureTakesOnlyWhatWasNotSynced(t *testing.T) {
	d, dir := covered(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("log"), "synced ", true)
	write(t, at("old"), "old", true)
	write(t, at("gone"), "gone", true)
	write(t, at("log"), "not synced", false)
	write(t, at("new"), "new", false)
	if err := errors.Join(os.Rename(at("new"), at("old")), os.Remove(at("gone")), os.Mkdir(at("sub"), 0o755)); err != nil {
		t.Fatal(err)
	}
	loss, err := d.PowerFail(t.Context(), PowerAll, 1)
	if err != nil {
		t.Fatal(err)
	}
	if loss.Names != 4 || loss.Kept != 0 || loss.Bytes != 13 {
		t.Errorf("loss %+v, want 4 names, 13 bytes", loss)
	}
	content(t, at("log"), "synced ")
	content(t, at("old"), "old")
	content(t, at("gone"), "gone")
	for _, name := range []string{"new", "sub"} {
		if _, err := os.Stat(at(name)); !os.IsNotExist(err) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
}

func TestErrorsAndCounts(t *testing.T) {
	d, dir := covered(t)
	p := filepath.Join(dir, "a.wal")
	write(t, p, "x", true)
	set := func(r Rule) {
		t.Helper()
		r.ID = "r"
		set(t, d, Setting{Seed: 7, Rules: []Rule{r}})
	}
	try := func(do func(f *os.File) error) error {
		f, err := os.OpenFile(p, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return errors.Join(do(f), f.Close())
	}
	writes := func(f *os.File) error { _, err := f.WriteAt(bytes.Repeat([]byte("y"), 2000), 0); return err }
	for _, c := range []struct {
		rule Rule
		do   func(*os.File) error
		want error
	}{
		{Rule{On: OnFsync, Effect: EffectError, Count: 1}, (*os.File).Sync, syscall.EIO},
		{Rule{On: OnFsync, Effect: EffectError, Files: "*.snap"}, (*os.File).Sync, nil},
		{Rule{On: OnFsync, Effect: EffectLose, Count: 1}, (*os.File).Sync, syscall.EIO},
		{Rule{On: OnWrite, Effect: EffectError, Errno: "ENOSPC", AfterBytes: 100}, writes, syscall.ENOSPC},
		{Rule{On: OnWrite, Effect: EffectTorn}, writes, syscall.EIO},
		{Rule{On: OnRead, Effect: EffectError}, func(f *os.File) error { _, err := f.Read(make([]byte, 1)); return err }, syscall.EIO},
	} {
		set(c.rule)
		if err := try(c.do); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v, want %v", c.rule, err, c.want)
		}
		s, err := d.Stats(t.Context())
		if err != nil || s.Rules["r"].Fired > 0 != (c.want != nil) {
			t.Errorf("%+v: stats %+v %v", c.rule, s, err)
		}
	}
	set(Rule{On: OnRead, Effect: EffectFlip})
	content := bytes.Repeat([]byte("z"), 600)
	backing := func() []byte { b, _ := os.ReadFile(p); return b }
	if err := d.Set(t.Context(), Setting{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, content, 0o644); err != nil {
		t.Fatal(err)
	}
	set(Rule{On: OnRead, Effect: EffectFlip})
	if bytes.Equal(backing(), content) {
		t.Error("no bit flipped on read")
	}
	if err := d.Set(t.Context(), Setting{}); err != nil || !bytes.Equal(backing(), content) {
		t.Errorf("after the heal the file is not whole: %v", err)
	}
}

func TestLostFsyncStaysLostThoughTheNextSucceeds(t *testing.T) {
	d, dir := covered(t)
	p := filepath.Join(dir, "wal")
	write(t, p, "one.", true)
	if err := d.Set(t.Context(), Setting{Rules: []Rule{{ID: "gate", On: OnFsync, Effect: EffectLose, Count: 1}}}); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("two."); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("first fsync: %v", err)
	}
	if _, err := f.WriteString("three."); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.PowerFail(t.Context(), PowerAll, 1); err != nil {
		t.Fatal(err)
	}
	content(t, p, "one.\x00\x00\x00\x00three.")
}

func TestWhatIsWrittenAgainAfterALostFsyncIsSaved(t *testing.T) {
	d, dir := covered(t)
	p := filepath.Join(dir, "wal")
	write(t, p, "..........", true)
	f, err := os.OpenFile(p, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	at := func(off int64, data string) {
		t.Helper()
		if _, err := f.WriteAt([]byte(data), off); err != nil {
			t.Fatal(err)
		}
	}
	set(t, d, Setting{Rules: []Rule{{ID: "gate", On: OnFsync, Effect: EffectLose, Count: 1}}})
	at(0, "lostlostlost")
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("first fsync: %v", err)
	}
	at(2, "ok")
	at(6, "ok")
	if err := errors.Join(f.Truncate(9), f.Sync(), f.Truncate(11), f.Sync()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.PowerFail(t.Context(), PowerAll, 1); err != nil {
		t.Fatal(err)
	}
	content(t, p, "..ok..ok.\x00\x00")
}

func TestTripStopsTheDiskUntilTheSettingChanges(t *testing.T) {
	d, dir := covered(t)
	p := filepath.Join(dir, "wal")
	write(t, p, "one.", true)
	if err := d.Set(t.Context(), Setting{Trip: &Trip{Fsyncs: 1}}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		write(t, p, "two.", true)
	}()
	select {
	case <-d.Tripped():
	case <-time.After(10 * time.Second):
		t.Fatal("no notice of the trip")
	}
	select {
	case <-done:
		t.Error("the fsync went through")
	default:
	}
	if err := d.Set(t.Context(), Setting{}); err != nil {
		t.Fatal(err)
	}
	<-done
}

func TestClosedPipeHealsAndUncovers(t *testing.T) {
	d, dir := covered(t)
	p := filepath.Join(dir, "wal")
	write(t, p, "kept", false)
	if err := d.Set(t.Context(), Setting{Rules: []Rule{{ID: "e", On: OnRead, Effect: EffectError}}}); err != nil {
		t.Fatal(err)
	}
	_ = d.in.Close()
	select {
	case <-d.ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the layer did not end")
	}
	content(t, p, "kept")
}

func TestBusyDiskStays(t *testing.T) {
	d, dir := covered(t)
	f, err := os.Create(filepath.Join(dir, "open"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(t.Context()); !errors.Is(err, ErrBusy) {
		t.Errorf("close while in use: %v", err)
	}
	if err := errors.Join(f.Close(), d.Close(t.Context())); err != nil {
		t.Error(err)
	}
}

func TestKilledLayerLosesNothing(t *testing.T) {
	d, dir := covered(t)
	write(t, filepath.Join(dir, "wal"), "kept", false)
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-d.ended
	if err := Recover(dir); err != nil {
		t.Fatal(err)
	}
	content(t, filepath.Join(dir, "wal"), "kept")
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add([]byte(`{"id":1,"do":"set","setting":{"rules":[{"id":"a","on":"write","effect":"torn"}]}}`))
	f.Add([]byte(`{"id":2,"do":"fail","mode":"pages","seed":3}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		q, err := decodeRequest(line)
		if err == nil && q.Do == doSet && q.Setting.Validate() != nil {
			t.Errorf("%s was taken, but is invalid", line)
		}
	})
}

// The layer reads with its own rights: it must not lend them to others.
func TestTheLayerLendsNobodyItsRights(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("it takes root to become another user")
	}
	_, dir := covered(t)
	secret := filepath.Join(dir, "secret")
	write(t, secret, "secret", true)
	if err := os.Chmod(secret, 0o600); err != nil {
		t.Fatal(err)
	}
	for at := dir; at != os.TempDir(); at = filepath.Dir(at) { // the way there is open
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	read := exec.Command("cat", secret)
	read.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := read.CombinedOutput(); err == nil || strings.Contains(string(out), "secret\n") || !strings.Contains(string(out), "Permission denied") {
		t.Errorf("another user read %q, %v", out, err)
	}
	content(t, secret, "secret")
}
