//go:build amd64 || arm64

package clock

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func set(t *testing.T, c *Clock, change Change) {
	t.Helper()
	if err := c.Set(change); err != nil {
		t.Fatal(err)
	}
}

func TestAGoProgramReadsEachClassAsItIsChangedAndSettled(t *testing.T) {
	for how, viaSyscall := range map[string]bool{howVDSO: false, howSyscall: true} {
		t.Run(how, func(t *testing.T) {
			p := goProgram(t)
			c := p.run(native(), viaSyscall)
			if c.How() != how {
				t.Fatalf("hooked by %q", c.How())
			}
			p.reads(0, 0)
			set(t, c, Change{Realtime: Adjust{Jump: time.Hour}})
			p.reads(time.Hour, 0)
			set(t, c, Change{Realtime: Adjust{Jump: -49 * time.Hour}, Monotonic: Adjust{Jump: time.Minute}})
			p.reads(-48*time.Hour, time.Minute)
			reading, err := c.Read()
			if err != nil || reading.Realtime.Offset() != -48*time.Hour || reading.Monotonic.Offset() != time.Minute {
				t.Fatalf("read back %+v, %v", reading, err)
			}

			set(t, c, Change{Realtime: Adjust{Rate: new(0.0)}, Monotonic: Adjust{Rate: new(0.5)}})
			r1, m1 := p.ask("read")
			before := kernel(unix.CLOCK_MONOTONIC)
			awaitKernel(before, 300*time.Millisecond)
			r2, m2 := p.ask("read")
			passed := time.Duration(kernel(unix.CLOCK_MONOTONIC) - before)
			if lost := r1 - r2; lost < 300*time.Millisecond || lost > passed+50*time.Millisecond {
				t.Errorf("frozen, REALTIME fell back by %v in %v", lost, passed)
			}
			if lost := m1 - m2; lost < 150*time.Millisecond || lost > passed/2+50*time.Millisecond {
				t.Errorf("at half the rate, MONOTONIC fell back by %v in %v", lost, passed)
			}

			if err := c.Settle(); err != nil {
				t.Fatal(err)
			}
			r3, m3 := p.ask("read")
			awaitKernel(kernel(unix.CLOCK_MONOTONIC), 200*time.Millisecond)
			p.reads(r3, m3)
			if err := c.Reset(); err != nil {
				t.Fatal(err)
			}
			p.reads(0, m3)
		})
	}
}

// awaitKernel lets time pass, which is what the test is about.
func awaitKernel(since int64, d time.Duration) {
	for kernel(unix.CLOCK_MONOTONIC)-since < int64(d) {
		time.Sleep(5 * time.Millisecond)
	}
}

func TestTimersOfAGoProgramFollowItsMonotonicClock(t *testing.T) {
	p := goProgram(t)
	c := p.run(native(), false)
	set(t, c, Change{Monotonic: Adjust{Rate: new(0.5)}})
	if took, _ := p.ask("sleep 200ms"); took < 390*time.Millisecond || took > 700*time.Millisecond {
		t.Errorf("at half the rate, 200ms took %v", took)
	}
	set(t, c, Change{Monotonic: Adjust{Rate: new(4.0)}})
	if poking, err := c.Poking(); !poking {
		t.Errorf("a Go program's threads are not interrupted: %v", err)
	}
	if took, _ := p.ask("sleep 2s"); took < 490*time.Millisecond || took > time.Second {
		t.Errorf("at four times the rate, 2s took %v", took)
	}
	if err := c.Settle(); err != nil {
		t.Fatal(err)
	}
	if poking, _ := c.Poking(); poking {
		t.Error("still interrupted when settled")
	}
	if _, err := fmt.Fprintln(p.in, "sleep 30s"); err != nil {
		t.Fatal(err)
	}
	awaitKernel(kernel(unix.CLOCK_MONOTONIC), 100*time.Millisecond) // so that it most likely sleeps
	set(t, c, Change{Monotonic: Adjust{Jump: time.Minute}})
	var took time.Duration
	var zero int
	if _, err := fmt.Fscan(p.out, &took, &zero); err != nil || took > 5*time.Second {
		t.Errorf("30s took %v over a jump of a minute, %v", took, err)
	}
}

func TestThreadsThatSpinNeverSeeTheClockStepBack(t *testing.T) {
	p := goProgram(t)
	c := p.run(native(), false)
	p.ask("spin")
	for i := range 100 {
		set(t, c, Change{Realtime: Adjust{Rate: new(float64(i%20) / 5)}, Monotonic: Adjust{Rate: new(float64(i%20) / 5)}})
	}
	if back, _ := p.ask("back"); back != 0 {
		t.Errorf("%d steps back", back)
	}
	set(t, c, Change{Monotonic: Adjust{Jump: -time.Second, Rate: new(1.0)}})
	for deadline := time.Now().Add(10 * time.Second); ; { // until a spinning thread gets its turn
		if back, _ := p.ask("back"); back > 0 {
			break
		} else if time.Now().After(deadline) {
			t.Fatal("a jump back was not seen: the target does not look")
		}
	}
}

func TestACProgramReadsAllItsClocksChanged(t *testing.T) {
	p := newProgram(t, compileC(t))
	c := p.run(native(), false)
	set(t, c, Change{Realtime: Adjust{Jump: time.Hour}, Monotonic: Adjust{Jump: 10 * time.Second}})
	for ids, want := range map[string][2]time.Duration{
		"read 0 1":  {time.Hour, 10 * time.Second},
		"read 5 6":  {time.Hour, 10 * time.Second},
		"read 11 4": {time.Hour, 10 * time.Second},
		"read 2 7":  {0, 10 * time.Second},
		"read 3 1":  {0, 10 * time.Second},
		"old":       {time.Hour, time.Hour},
	} {
		a, b := p.ask(ids)
		if (a-want[0]).Abs() > 50*time.Millisecond || (b-want[1]).Abs() > time.Second {
			t.Errorf("%s: ahead by %v and %v, want %v", ids, a, b, want)
		}
	}
	set(t, c, Change{Monotonic: Adjust{Rate: new(2.0)}})
	if poking, err := c.Poking(); poking || err == nil {
		t.Error("a program that does not handle SIGURG is said to be interrupted")
	}
}

func TestAPythonProgramAndItsForkReadItsClockChanged(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3")
	}
	real, err := exec.Command(python, "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		t.Skip("python3 does not run")
	}
	p := newProgram(t, string(bytes.TrimSpace(real)), "-c", programPython)
	c := p.run(native(), false)
	set(t, c, Change{Realtime: Adjust{Jump: -time.Hour}, Monotonic: Adjust{Jump: time.Hour}})
	for _, line := range []string{"read", "fork"} {
		realtime, monotonic := p.ask(line)
		realtime -= time.Duration(kernel(unix.CLOCK_REALTIME))
		monotonic -= time.Duration(kernel(unix.CLOCK_MONOTONIC))
		if (realtime+time.Hour).Abs() > time.Second || (monotonic-time.Hour).Abs() > time.Second {
			t.Errorf("%s: ahead by %v and %v", line, realtime, monotonic)
		}
	}
}

func TestAnExecutedProgramHasTheKernelsClock(t *testing.T) {
	p := goProgram(t)
	c := p.run(native(), false)
	set(t, c, Change{Realtime: Adjust{Jump: time.Hour}})
	if a, _ := p.ask("child"); a.Abs() > 50*time.Millisecond {
		t.Errorf("its child is ahead by %v", a)
	}
	p.reads(time.Hour, 0)
}

func TestAttachHooksARunningProgramAndOpensTheHookThatItHas(t *testing.T) {
	p := goProgram(t)
	p.runUnhooked()
	c, err := Attach(p.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	set(t, c, Change{Realtime: Adjust{Jump: time.Hour}})
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	again, err := Attach(p.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if reading, err := again.Read(); err != nil || reading.Realtime.Offset() != time.Hour || again.base != c.base {
		t.Errorf("opened again: %+v, %v", reading, err)
	}
	set(t, again, Change{Realtime: Adjust{Jump: time.Hour}})
	p.reads(2*time.Hour, 0)
	if err := c.Set(Change{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed clock was set: %v", err)
	}
}

func TestAttachLeavesAStoppedProgramStopped(t *testing.T) {
	p := goProgram(t)
	p.runUnhooked()
	if err := p.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	c, err := Attach(p.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	set(t, c, Change{Realtime: Adjust{Jump: time.Hour}})
	for deadline := time.Now().Add(5 * time.Second); ; {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		if state := statusField(status, "State"); state[0] == 'T' {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("it is in state %s", state)
		}
	}
	if err := p.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	p.reads(time.Hour, 0)
}

// programsFew is how many programs are hooked where tests are to be short.
const programsFew = 50

func TestAThousandProgramsSurviveToBeHookedUnderLoad(t *testing.T) {
	binary, count := compileC(t), 1000
	if testing.Short() {
		count = programsFew
	}
	for range count {
		p := newProgram(t, binary, "spin", "spin", "spin")
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		realtime, monotonic := p.survives(func() (*Clock, error) {
			p.ask("read 0 1") // all spin
			return Attach(p.Process.Pid)
		}, Change{Realtime: Adjust{Jump: time.Hour}, Monotonic: Adjust{Jump: time.Second}})
		if (realtime-time.Hour).Abs() > readSlack || (monotonic-time.Second).Abs() > readSlack {
			t.Fatalf("its REALTIME is ahead by %v, MONOTONIC by %v; want 1h and 1s", realtime, monotonic)
		}
	}
}

func TestNoProgramThatIsHookedAtItsStartSeesTheClockStepBack(t *testing.T) {
	binary, count := compileC(t), 200
	if testing.Short() {
		count = programsFew
	}
	for range count {
		p := newProgram(t, binary, "spin", "spin", "spin")
		// A slow clock is what a running program may see step back: a thread that was
		// in the kernel's code when it was hooked comes out of it with the kernel's time.
		_, monotonic := p.survives(func() (*Clock, error) { return Start(p.Cmd) }, Change{Monotonic: Adjust{Rate: new(0.1)}})
		if monotonic >= 0 {
			t.Fatalf("its MONOTONIC is ahead by %v, and should run slow", monotonic)
		}
	}
}

// survives hooks a program whose threads read MONOTONIC all the time, and abort where it
// steps back. It changes the clock, ends the program, and returns how far ahead it read its clocks.
func (p *program) survives(hook func() (*Clock, error), change Change) (realtime, monotonic time.Duration) {
	p.t.Helper()
	c, err := hook()
	defer func() {
		_ = p.Process.Kill()
		_ = p.Wait()
	}()
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	p.ask("read 0 1")
	set(p.t, c, change)
	p.ask("read 0 1") // which a program that has crashed would not answer
	return p.ask("read 0 1")
}

func TestAProgramOfSpinningThreadsDiesOfAStepBack(t *testing.T) {
	p := newProgram(t, compileC(t), "spin")
	c := p.run(native(), false)
	p.ask("read 0 1")
	set(t, c, Change{Monotonic: Adjust{Jump: -time.Hour}})
	defer time.AfterFunc(10*time.Second, func() { _ = p.Process.Kill() }).Stop()
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGABRT {
		t.Errorf("it ended by %v", err)
	}
}

func TestStartLeavesAProgramThatCannotBeHookedUntouched(t *testing.T) {
	full := native()
	full.hook = append(bytes.Repeat([]byte{1}, 1<<14), full.hook...)
	for name, fail := range map[string]struct {
		machine machine
		want    error
	}{
		"no room":              {full, ErrNoRoom},
		"another architecture": {other(), ErrArchitecture},
		"none known":           {machine{}, ErrArchitecture},
		"no function":          {machine{elf: native().elf, hook: native().hook, functions: [3]string{"absent"}}, ErrNoVDSO},
	} {
		t.Run(name, func(t *testing.T) {
			p := goProgram(t)
			c, err := start(p.Cmd, fail.machine, false, 0)
			p.endWithTest()
			if c != nil || !errors.Is(err, fail.want) {
				t.Fatalf("%v, want %v", err, fail.want)
			}
			p.reads(0, 0)
		})
	}
	if _, err := Start(exec.Command("/nonexistent/program")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that is not there: %v", err)
	}
}

func other() machine {
	if runtime.GOARCH == "amd64" {
		return machines["arm64"]
	}
	return machines["amd64"]
}

func TestAPrologueThatCannotBeMovedIsReplacedByTheSystemCall(t *testing.T) {
	m := native()
	m.relocate = func([]byte, int, uint64, uint64) ([]byte, int, error) { return nil, 0, errRelative }
	p := goProgram(t)
	c := p.run(m, false)
	if c.How() != howSyscall {
		t.Fatalf("hooked by %q", c.How())
	}
	set(t, c, Change{Realtime: Adjust{Jump: time.Hour}})
	p.reads(time.Hour, 0)
}

func TestAnEndedProgramIsGone(t *testing.T) {
	p := goProgram(t)
	c := p.run(native(), false)
	pid := p.Process.Pid
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Set(Change{}); !errors.Is(err, ErrGone) {
		t.Errorf("set the clock of a zombie: %v", err)
	}
	if _, err := Attach(pid); !errors.Is(err, ErrGone) {
		t.Errorf("attach to a zombie: %v", err)
	}
	if err := p.Wait(); err == nil || p.ProcessState.Exited() {
		t.Errorf("its end is lost: %v", err)
	}
	if _, err := Attach(pid); !errors.Is(err, ErrGone) {
		t.Errorf("attach to nothing: %v", err)
	}
	p.Process = nil
}

func TestAnEndDuringAnAttachIsStillSeenByTheParent(t *testing.T) {
	for i := range 100 {
		p := exec.Command("/proc/self/exe")
		p.Env = []string{targetEnv + "=1"}
		in, err := p.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		killed := make(chan error)
		go func() {
			awaitKernel(kernel(unix.CLOCK_MONOTONIC), time.Duration(i%20)*50*time.Microsecond)
			killed <- p.Process.Kill()
		}()
		if c, err := Attach(p.Process.Pid); err == nil {
			_ = c.Close()
		}
		err = errors.Join(<-killed, in.Close())
		_ = p.Wait() // says that it was killed
		if p.ProcessState == nil || err != nil {
			t.Fatalf("its end is lost: %v", err)
		}
	}
}

func TestChangesOutOfRangeAreRefusedAndChangeNothing(t *testing.T) {
	p := goProgram(t)
	c := p.run(native(), false)
	for _, change := range []Change{
		{Realtime: Adjust{Jump: jumpMost + 1}}, {Realtime: Adjust{Rate: new(-1.0)}},
		{Realtime: Adjust{Jump: time.Hour}, Monotonic: Adjust{Rate: new(rateMost + 1)}},
		{Realtime: Adjust{Jump: time.Hour}, Monotonic: Adjust{Jump: -time.Duration(kernel(unix.CLOCK_MONOTONIC)) - time.Hour}},
	} {
		if err := c.Set(change); !errors.Is(err, ErrRange) {
			t.Errorf("%+v: %v", change, err)
		}
	}
	p.reads(0, 0)
}

// minimal32 is a 32-bit program for x86 that waits: eb fe, a jump to itself.
func minimal32(t *testing.T) string {
	t.Helper()
	const base, header = 0x08048000, 52 + 32
	b := make([]byte, header+2)
	copy(b, "\x7fELF\x01\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(b[16:], 2) // ET_EXEC
	le.PutUint16(b[18:], 3) // EM_386
	le.PutUint32(b[20:], 1)
	le.PutUint32(b[24:], base+header) // entry
	le.PutUint32(b[28:], 52)          // program headers
	le.PutUint16(b[40:], 52)
	le.PutUint16(b[42:], 32)
	le.PutUint16(b[44:], 1)
	for i, v := range []uint32{1, 0, base, base, header + 2, header + 2, 5, 0x1000} {
		le.PutUint32(b[52+4*i:], v)
	}
	copy(b[header:], "\xeb\xfe")
	path := filepath.Join(t.TempDir(), "minimal32")
	if err := os.WriteFile(path, b, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestA32BitProgramIsRefusedAndRuns(t *testing.T) {
	p := newProgram(t, minimal32(t))
	c, err := Start(p.Cmd)
	p.endWithTest()
	if p.Process == nil {
		t.Skipf("this kernel runs no 32-bit programs: %v", err)
	}
	if c != nil || !errors.Is(err, Err32Bit) {
		t.Fatalf("not refused: %v", err)
	}
	if err := unix.Kill(p.Process.Pid, 0); err != nil {
		t.Error(err)
	}
}

func TestInAnotherTimeNamespaceMonotonicJumpsButKeepsItsRate(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("unshare", "--time", "--monotonic", "1000", "true").Run(); err != nil {
		t.Skip("no time namespaces here, or no right to make one: ", err)
	}
	p := newProgram(t, "unshare", "--time", "--monotonic", "1000", self)
	p.runUnhooked()
	c, err := Attach(p.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if !c.foreign {
		t.Skip("the program is not in the new namespace: this kernel enters it at a fork only")
	}
	if err := c.Set(Change{Monotonic: Adjust{Rate: new(0.5)}}); !errors.Is(err, ErrTimeNamespace) {
		t.Errorf("its rate was set: %v", err)
	}
	set(t, c, Change{Realtime: Adjust{Jump: time.Hour}, Monotonic: Adjust{Jump: time.Minute}})
	p.reads(time.Hour, time.Minute)
	if err := c.Settle(); err != nil {
		t.Error(err)
	}
}

func TestSupportedSaysHow(t *testing.T) {
	began := time.Now()
	how, err := Supported()
	if err != nil || how != howVDSO {
		t.Fatalf("%q, %v", how, err)
	}
	t.Logf("in %v", time.Since(began))
}

func TestWithoutPrivilegeOnesOwnChildCanBeHookedAndRootsCannot(t *testing.T) {
	const inside = "CAPSIZE_CLOCK_UNPRIVILEGED"
	if pid := os.Getenv(inside); pid != "" {
		p := newProgram(t, os.Args[0])
		c := p.run(native(), false)
		set(t, c, Change{Realtime: Adjust{Jump: time.Hour}})
		p.reads(time.Hour, 0)
		var root int
		if _, err := fmt.Sscan(pid, &root); err != nil {
			t.Fatal(err)
		}
		if _, err := Attach(root); !errors.Is(err, ErrNotAllowed) {
			t.Errorf("attach to a process of root: %v", err)
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	p := goProgram(t)
	p.runUnhooked()
	self, err := os.ReadFile("/proc/self/exe") // the directory of this one may be root's
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "capsize-clock-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary := filepath.Join(dir, "clock.test")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(binary, self, 0o755)); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(binary, "-test.run=^"+t.Name()+"$")
	command.Dir = dir
	command.Env = []string{fmt.Sprintf("%s=%d", inside, p.Process.Pid), "PATH=" + os.Getenv("PATH")}
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
