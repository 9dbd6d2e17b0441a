package disk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"capsize/raftnode/files"
	"capsize/raftnode/wal"
)

// What lies below is a mount too, and not the layer's to unmount.
func TestOverAMountItEndsAndLeavesThatThere(t *testing.T) {
	point := t.TempDir()
	if err := unix.Mount("tmpfs", point, "tmpfs", 0, ""); err != nil {
		t.Skipf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(point, 0) })
	write(t, filepath.Join(point, "below"), "below", true)
	before, err := deviceOf(point)
	if err != nil {
		t.Fatal(err)
	}
	d, _ := coveredWith(t, Options{Mountpoint: point, StrictNames: true})
	if err := os.Remove(filepath.Join(point, "below")); err != nil {
		t.Fatal(err)
	}
	if loss, err := d.PowerFail(t.Context(), PowerAll, 1); err != nil || loss.Names != 1 || loss.Kept != 0 {
		t.Errorf("%+v, %v: want the name back", loss, err)
	}
	_ = d.in.Close()
	eventually(t, "the layer ends", func() bool {
		select {
		case <-d.ended:
			return true
		default:
			return false
		}
	})
	if after, err := deviceOf(point); err != nil || after != before {
		t.Errorf("device %d, %v: want that of the mount below, %d", after, err, before)
	}
	content(t, filepath.Join(point, "below"), "below")
	if entries, err := os.ReadDir(point); err != nil || len(entries) != 1 {
		t.Errorf("it left %v, %v", entries, err)
	}
}

func TestAfterItsPipeEndedItRecordsNothing(t *testing.T) {
	d, dir := covered(t)
	held, err := os.Create(filepath.Join(dir, "held"))
	if err != nil {
		t.Fatal(err)
	}
	open := func() int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	many := func(prefix string) {
		for i := range 50 {
			write(t, filepath.Join(dir, fmt.Sprint(prefix, i)), "x", false)
		}
	}
	before := open()
	many("a")
	if n := open(); n < before+50 {
		t.Errorf("%d descriptors for 50 files that are not synced, and %d before", n, before)
	}
	_ = d.in.Close()
	eventually(t, "it heals", func() bool { return open() < before+50 })
	many("b")
	if n := open(); n >= before+50 {
		t.Errorf("%d descriptors: it still records", n)
	}
	if err := held.Close(); err != nil {
		t.Error(err)
	}
}

func TestTheUndoLogHasABound(t *testing.T) {
	d, dir := coveredWith(t, Options{NoSync: true})
	for i := range undoFilesMost + 10 {
		write(t, filepath.Join(dir, fmt.Sprint(i)), "x", false)
	}
	s, err := d.Stats(t.Context())
	if err != nil || s.Forced == 0 || s.Unsynced > undoFilesMost {
		t.Errorf("%+v, %v: want that all was synced once", s, err)
	}
}

func TestSupportedLeavesNothingBehind(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Supported(); err != nil {
		t.Skip(err)
	}
	after, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Count(string(after), "capsize") > strings.Count(string(before), "capsize") {
		t.Errorf("it left a mount: %v", err)
	}
	if entries, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(entries) != 0 {
		t.Errorf("it left %v, %v", entries, err)
	}
}

func TestTheEndOfStderrIsKept(t *testing.T) {
	var last tail
	for i := range 3000 {
		if _, err := fmt.Fprintf(&last, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	if len(last) != stderrMost || !strings.HasSuffix(string(last), "line 2999\n") {
		t.Errorf("%d bytes, ending in %q", len(last), last[len(last)-20:])
	}
}

// unsyncing is a file system whose user believes to have synced.
type unsyncing struct{ files.FS }

type unsyncedFile struct{ files.File }

func (f unsyncing) Create(path string) (files.File, error) {
	file, err := f.FS.Create(path)
	return unsyncedFile{file}, err
}

func (f unsyncing) OpenFile(path string) (files.File, error) {
	file, err := f.FS.OpenFile(path)
	return unsyncedFile{file}, err
}

func (unsyncedFile) Sync() error { return nil }

func TestALogThatSyncsSurvivesAndOneThatDoesNotIsCaught(t *testing.T) {
	survivors := func(t *testing.T, fs files.FS, mode string, seed uint64) (acknowledged, found int, err error) {
		d, dir := covered(t)
		o := wal.Options{FS: fs, Dir: filepath.Join(dir, "wal"), Identity: wal.Identity{Cluster: "c", Node: 1}, SegmentBytes: 20_000}
		log, _, err := wal.Open(o, func(uint64, []byte) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		for i := range 60 {
			if err := log.Append([]byte(strings.Repeat("r", 700+i))); err != nil {
				t.Fatal(err)
			}
			if i%5 == 0 {
				if err := log.Sync(); err != nil {
					t.Fatal(err)
				}
				acknowledged = i + 1
			}
		}
		if _, err := d.PowerFail(t.Context(), mode, seed); err != nil {
			t.Fatal(err)
		}
		again, _, err := wal.Open(o, func(uint64, []byte) error { found++; return nil })
		if err == nil {
			err = again.Close()
		}
		_ = log.Close() // its machine is gone
		return acknowledged, found, err
	}
	for _, mode := range []string{PowerAll, PowerPrefix, PowerPages} {
		caught := false
		for seed := range uint64(3) {
			if acknowledged, found, err := survivors(t, files.OS{}, mode, seed); err != nil || found < acknowledged {
				t.Errorf("%s: of %d records there are %d: %v", mode, acknowledged, found, err)
			}
			acknowledged, found, err := survivors(t, unsyncing{files.OS{}}, mode, seed)
			caught = caught || err != nil || found < acknowledged
		}
		if !caught {
			t.Errorf("%s: a log that does not sync lost nothing", mode)
		}
	}
}

func TestAProgramOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("it takes root to become another user")
	}
	d, dir := covered(t)
	for at := dir; at != os.TempDir(); at = filepath.Dir(at) { // the way there is open
		if err := os.Chmod(at, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	program := exec.Command("sh", "-c", "umask 027; echo kept > a && mkdir sub && sync a . && echo lost > b")
	program.Dir = dir
	program.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := program.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if loss, err := d.PowerFail(t.Context(), PowerAll, 1); err != nil || loss.Names != 1 || loss.Kept != 0 {
		t.Errorf("%+v, %v", loss, err)
	}
	for name, mode := range map[string]uint32{"a": 0o640, "sub": 0o750} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, name), &st); err != nil || st.Uid != 65534 || st.Gid != 65534 || st.Mode&0o777 != mode {
			t.Errorf("%s: owner %d:%d, mode %o, %v", name, st.Uid, st.Gid, st.Mode, err)
		}
	}
}

func TestWhatElsePOSIXPromises(t *testing.T) {
	d, dir := covered(t)
	p := filepath.Join(dir, "f")
	write(t, p, strings.Repeat("a", 8192), true)
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	fd := int(f.Fd())

	shared, err := unix.Mmap(fd, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	copy(shared[100:], "mapped")
	if err := errors.Join(unix.Msync(shared, unix.MS_SYNC), unix.Munmap(shared)); err != nil {
		t.Error(err)
	}
	direct, err := os.OpenFile(p, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := direct.WriteAt([]byte(strings.Repeat("d", 512)), 4096); err != nil {
		t.Errorf("direct: %v", err)
	}
	if err := errors.Join(direct.Sync(), direct.Close()); err != nil {
		t.Error(err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("flock: %v", err)
	}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Errorf("fcntl: %v", err)
	}
	if err := unix.Setxattr(p, "user.capsize", []byte("v"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Errorf("xattr: %v", err)
	}
	if err := os.Remove(p); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("unlinked"), 0); err != nil {
		t.Errorf("write to what was removed: %v", err)
	}
	if loss, err := d.PowerFail(t.Context(), PowerAll, 1); err != nil || loss.Names != 1 || loss.Bytes != 8 || loss.Kept != 0 {
		t.Errorf("%+v, %v", loss, err)
	}
	a := func(n int) string { return strings.Repeat("a", n) }
	content(t, p, a(100)+"mapped"+a(4096-106)+strings.Repeat("d", 512)+a(8192-4608))
}

// Writes in several pages come in several pieces.
func TestALargeWriteIsRecordedWhole(t *testing.T) {
	d, dir := covered(t)
	p := filepath.Join(dir, "f")
	write(t, p, "", true)
	write(t, p, strings.Repeat("x", 3<<20), false)
	if loss, err := d.PowerFail(t.Context(), PowerAll, 1); err != nil || loss.Bytes != 3<<20 {
		t.Errorf("%+v, %v", loss, err)
	}
	content(t, p, "")
}
