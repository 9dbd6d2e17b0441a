package disk

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func met(t testing.TB, d *Disk, rule string) Met {
	t.Helper()
	s, err := d.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.Rules[rule]
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for until := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within 10s: %s", what)
		}
	}
}

// Programs in Go get SIGURG all the time.
func TestASignalDoesNotEndAStall(t *testing.T) {
	d, dir := covered(t)
	f, err := os.Create(filepath.Join(dir, "wal"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	fd := int(f.Fd())
	set(t, d, Setting{Rules: []Rule{{ID: "stall", On: OnWrite, Effect: EffectStall}}})
	thread, done := make(chan int, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		thread <- unix.Gettid()
		_, err := unix.Write(fd, []byte("x")) // os.File would try again
		done <- err
	}()
	tid := <-thread
	eventually(t, "the write stalls", func() bool { return met(t, d, "stall").Fired == 1 })
	for range 3 {
		if err := unix.Tgkill(os.Getpid(), tid, unix.SIGURG); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			t.Fatalf("the signal ended the write: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
	set(t, d, Setting{Rules: []Rule{{ID: "stall", On: OnWrite, Effect: EffectStall}, {ID: "more", On: OnRead, Effect: EffectError}}})
	if m := met(t, d, "stall"); m.Matched != 1 || m.Fired != 1 {
		t.Errorf("a stall that stays has met the write again: %+v", m)
	}
	set(t, d, Setting{})
	if err := <-done; err != nil {
		t.Errorf("after the heal: %v", err)
	}
}

func TestAKillEndsWhatWaits(t *testing.T) {
	for name, s := range map[string]Setting{
		"stall": {Rules: []Rule{{ID: "r", On: OnWrite, Effect: EffectStall}}},
		"delay": {Rules: []Rule{{ID: "r", On: OnWrite, Effect: EffectDelay, Delay: delayMost}}},
		"trip":  {Trip: &Trip{Bytes: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			d, dir := covered(t)
			p := filepath.Join(dir, "wal")
			write(t, p, "kept", true)
			set(t, d, s)
			program := exec.Command("sh", "-c", "echo x >> "+p)
			if err := program.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it waits", func() bool {
				st, err := d.Stats(t.Context())
				return err == nil && (st.Tripped || st.Rules["r"].Fired == 1)
			})
			for _, signal := range []os.Signal{syscall.SIGSTOP, syscall.SIGCONT, syscall.SIGKILL} {
				if err := program.Process.Signal(signal); err != nil {
					t.Fatal(err)
				}
			}
			ended := make(chan error, 1)
			go func() { ended <- program.Wait() }()
			select {
			case err := <-ended:
				if err == nil {
					t.Error("it ended as if it had not been killed")
				}
			case <-time.After(10 * time.Second):
				t.Fatal("it was killed, and waits on")
			}
			if _, err := d.PowerFail(t.Context(), PowerAll, 1); err != nil {
				t.Fatal(err)
			}
			set(t, d, Setting{})
			content(t, p, "kept")
		})
	}
}

func TestAnEqualTripKeepsItsState(t *testing.T) {
	d, dir := covered(t)
	p := filepath.Join(dir, "wal")
	write(t, p, "", true)
	set(t, d, Setting{Trip: &Trip{Bytes: 4}})
	write(t, p, "abc", false)
	set(t, d, Setting{Trip: &Trip{Bytes: 4}, Rules: []Rule{{ID: "r", On: OnRead, Effect: EffectError}}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		write(t, p, "d", false)
	}()
	select {
	case <-d.Tripped(): // the three bytes before are not forgotten
	case <-time.After(10 * time.Second):
		t.Fatal("no notice of the trip")
	}
	set(t, d, Setting{Trip: &Trip{Bytes: 4}})
	if s, err := d.Stats(t.Context()); err != nil || !s.Tripped {
		t.Errorf("the same trip again has released the disk: %+v, %v", s, err)
	}
	set(t, d, Setting{Trip: &Trip{Bytes: 5}}) // another one begins anew
	<-done
	if s, err := d.Stats(t.Context()); err != nil || s.Tripped {
		t.Errorf("another trip has not: %+v, %v", s, err)
	}
}

func TestARuleHasFiredOnlyWhereItHadSomethingToSpoil(t *testing.T) {
	d, dir := covered(t)
	p := filepath.Join(dir, "f")
	write(t, p, strings.Repeat("a", 2000), true)
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	writes := func(off int64, n int) func() error {
		return func() error { _, err := f.WriteAt(make([]byte, n), off); return err }
	}
	for _, c := range []struct {
		name, on, effect string
		do               func() error
		fired            int64
		want             error
	}{
		{"torn inside a sector", OnWrite, EffectTorn, writes(10, 100), 0, nil},
		{"torn whole sector", OnWrite, EffectTorn, writes(512, 512), 0, nil},
		{"torn over the end of a sector", OnWrite, EffectTorn, writes(500, 100), 1, syscall.EIO},
		{"torn truncation", OnWrite, EffectTorn, func() error { return f.Truncate(1500) }, 0, nil},
		{"torn allocation", OnWrite, EffectTorn, func() error { return unix.Fallocate(int(f.Fd()), 0, 0, 4000) }, 0, nil},
		{"short byte", OnWrite, EffectShort, writes(0, 1), 0, nil},
		{"short truncation", OnWrite, EffectShort, func() error { return f.Truncate(1000) }, 0, nil},
		{"flip at the end", OnRead, EffectFlip, func() error { _, err := unix.Pread(int(f.Fd()), make([]byte, 9), 50000); return err }, 0, nil},
	} {
		set(t, d, Setting{Rules: []Rule{{ID: c.name, On: c.on, Effect: c.effect}}})
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if m := met(t, d, c.name); m.Fired != c.fired {
			t.Errorf("%s: fired %d, want %d", c.name, m.Fired, c.fired)
		}
	}
}

func TestAShortWriteSaysHowMuchItTook(t *testing.T) {
	d, dir := covered(t)
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	set(t, d, Setting{Seed: 3, Rules: []Rule{{ID: "r", On: OnWrite, Effect: EffectShort, Count: 1}}})
	n, err := unix.Pwrite(int(f.Fd()), make([]byte, 1000), 0)
	info, statErr := f.Stat()
	if err = errors.Join(err, statErr); err != nil || n < 1 || n >= 1000 || info.Size() != int64(n) {
		t.Errorf("wrote %d of 1000, %v; the file has %v", n, err, info.Size())
	}
}

func TestProbabilityAfterAndCount(t *testing.T) {
	d, dir := covered(t)
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	failures := func(r Rule) (n int, first int) {
		first = -1
		r.ID, r.On, r.Effect = "r", OnWrite, EffectError
		set(t, d, Setting{})
		set(t, d, Setting{Seed: 5, Rules: []Rule{r}})
		for i := range 200 {
			if _, err := f.WriteAt([]byte("x"), 0); err != nil {
				if n++; first < 0 {
					first = i
				}
			}
		}
		return n, first
	}
	if n, first := failures(Rule{After: 7, Count: 3}); n != 3 || first != 7 {
		t.Errorf("after 7, 3 times: %d, the first is %d", n, first)
	}
	if n, _ := failures(Rule{Probability: 0.5}); n < 60 || n > 140 {
		t.Errorf("one in two: %d of 200", n)
	}
	if n, _ := failures(Rule{}); n != 200 {
		t.Errorf("always: %d of 200", n)
	}
}

func TestADelayTakesItsTime(t *testing.T) {
	d, dir := covered(t)
	p := filepath.Join(dir, "wal")
	set(t, d, Setting{Rules: []Rule{{ID: "r", On: OnFsync, Effect: EffectDelay, Delay: 200 * time.Millisecond, Count: 1}}})
	begin := time.Now()
	write(t, p, "x", true)
	if took := time.Since(begin); took < 200*time.Millisecond || met(t, d, "r").Fired != 1 {
		t.Errorf("the fsync took %v", took)
	}
}

func TestRulesOnFsyncReachSynchronousWrites(t *testing.T) {
	d, dir := covered(t)
	set(t, d, Setting{Rules: []Rule{{ID: "r", On: OnFsync, Effect: EffectError}}})
	for _, flag := range []int{0, unix.O_DSYNC, unix.O_SYNC} {
		f, err := os.OpenFile(filepath.Join(dir, "f"), os.O_CREATE|os.O_WRONLY|flag, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString("x")
		if errors.Is(err, syscall.EIO) != (flag != 0) {
			t.Errorf("write with flag %#x: %v", flag, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAKillIsSeenInTheStatusOfAThread(t *testing.T) {
	for status, want := range map[string]bool{
		"Name:\tx\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n": true,
		"Name:\tx\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n": true,
		"Name:\tx\nSigPnd:\t0000000000400000\nShdPnd:\t0000000000000000\n": false,
		"SigBlk:\t0000000000000100\n":                                      false,
		"":                                                                 false,
	} {
		if got := killPending([]byte(status)); got != want {
			t.Errorf("%q: %v, want %v", status, got, want)
		}
	}
}

func TestRulesGoByTheNameThatAFileHas(t *testing.T) {
	d, dir := covered(t)
	set(t, d, Setting{Rules: []Rule{{ID: "w", On: OnWrite, Files: "*.wal", Effect: EffectError}}})
	f, err := os.Create(filepath.Join(dir, "new.wal"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteString("x"); !errors.Is(err, unix.EIO) {
		t.Errorf("through the descriptor that made it: %v", err)
	}
	if got := met(t, d, "w"); got.Path != "new.wal" {
		t.Errorf("met %+v", got)
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("x"); err != nil {
		t.Errorf("under its new name, which no rule is for: %v", err)
	}
}
