//go:build linux

package limits

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	patience     = 10 * time.Second
	roleVariable = "CAPSIZE_LIMITS_TEST_ROLE"
	leaveAtOnce  = "GORACE=atexit_sleep_ms=0" // the race detector waits a second otherwise
)

// TestMain lets the test binary be the other programs too.
func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "program":
		programMain()
	case "sleeper":
		time.Sleep(10 * time.Minute)
	case "limiter":
		limiterMain()
	case "guardian":
		guardianMain()
	default:
		os.Exit(m.Run())
	}
}

// programMain is what is limited. It does what each line of its input says, and answers with a
// line.
func programMain() {
	var open []*os.File
	var children []*exec.Cmd
	start := func() error {
		child := exec.Command("sleep", "600")
		if errors.Is(child.Err, exec.ErrNotFound) { // in a container with nothing else in it
			child = exec.Command(os.Args[0])
			child.Env = append(os.Environ(), roleVariable+"=sleeper")
		}
		child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
		err := child.Start()
		if err == nil {
			children = append(children, child)
		}
		return err
	}
	for scanner := bufio.NewScanner(os.Stdin); scanner.Scan(); {
		word, argument, _ := strings.Cut(scanner.Text(), " ")
		n, _ := strconv.Atoi(argument)
		var err error
		done := 0
		switch word {
		case "spin":
			go func() {
				for spins := 0; ; spins++ {
					runtime.KeepAlive(spins)
				}
			}()
		case "map":
			for ; done < n && err == nil; done++ {
				var page []byte
				if page, err = unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE); err == nil {
					for i := 0; i < len(page); i += 4096 {
						page[i] = 1
					}
				}
			}
		case "open":
			for ; done < n && err == nil; done++ {
				var file *os.File
				if file, err = os.Open("/dev/null"); err == nil {
					open = append(open, file)
				}
			}
		case "fork":
			for ; done < n && err == nil; done++ {
				err = start()
			}
		case "reap":
			for _, child := range children {
				_ = child.Process.Kill()
				_ = child.Wait()
			}
			children = nil
		case "write":
			err = writeSynced(argument)
		}
		if err != nil {
			fmt.Printf("after %d: %v\n", done-1, err)
		} else {
			fmt.Println("done")
		}
	}
	runtime.KeepAlive(open) // files that nothing refers to would be closed
}

// writeSynced writes two megabytes that reach the disk.
func writeSynced(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	for range 8 {
		_, writing := file.Write(make([]byte, 256<<10))
		err = errors.Join(err, writing, file.Sync())
	}
	return errors.Join(err, file.Close())
}

// program is one that runs.
type program struct {
	t       *testing.T
	command *exec.Cmd
	in      io.WriteCloser
	out     chan string
}

func newProgram(t *testing.T) *program {
	t.Helper()
	p := &program{t: t, command: exec.Command(os.Args[0]), out: make(chan string, 10)}
	p.command.Env = append(os.Environ(), roleVariable+"=program", leaveAtOnce)
	p.command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := p.command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	p.in = in
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(p.out)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			p.out <- scanner.Text()
		}
	}()
	t.Cleanup(func() {
		_ = p.in.Close()
		_ = unix.Kill(-p.pid(), unix.SIGKILL)
		<-read
		_ = p.command.Wait() // it was killed
	})
	p.must("ready?")
	return p
}

func (p *program) pid() int { return p.command.Process.Pid }

// do has the program do something, and returns its answer; nothing if it ended instead.
func (p *program) do(what string) string {
	p.t.Helper()
	_, _ = io.WriteString(p.in, what+"\n")
	select {
	case line := <-p.out:
		return line
	case <-time.After(patience):
		p.t.Fatalf("no answer to %s", what)
		return ""
	}
}

func (p *program) must(what string) {
	p.t.Helper()
	if answer := p.do(what); answer != "done" {
		p.t.Fatalf("%s: %q", what, answer)
	}
}

// cores measures how much CPU the program uses.
func (p *program) cores(over time.Duration) float64 {
	p.t.Helper()
	at := time.Now()
	before, err := cpuTime(p.pid())
	if err != nil {
		p.t.Fatal(err)
	}
	time.Sleep(over) // it is what is measured
	after, err := cpuTime(p.pid())
	if err != nil {
		p.t.Fatal(err)
	}
	return float64(after-before) / float64(time.Since(at))
}

// limiter takes a program. Without cgroups it has only what needs no privilege.
func limiter(t *testing.T, p *program, cgroups bool) *Limiter {
	t.Helper()
	l, err := New(p.pid(), fmt.Sprintf("test-%d-%d", os.Getpid(), p.pid()), t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !cgroups {
		l.hierarchies = hierarchies{}
	}
	t.Cleanup(func() {
		if err := l.Clear(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func apply(t *testing.T, l *Limiter, limit Limit) {
	t.Helper()
	if err := l.Apply(limit); err != nil {
		t.Fatal(err)
	}
}

func clearLimits(t *testing.T, l *Limiter) {
	t.Helper()
	if err := l.Clear(); err != nil {
		t.Fatal(err)
	}
	for _, group := range l.undo.Cgroups {
		t.Errorf("%s is left", group.Dir)
	}
}

func seen(t *testing.T, l *Limiter) Seen {
	t.Helper()
	s, err := l.Seen()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func needCgroup(t *testing.T, resource Resource) {
	t.Helper()
	for _, a := range Survey("") {
		if a.Resource == resource && !strings.Contains(a.How, "cgroup") {
			t.Skipf("%s: no cgroup can be made here: %s %s", resource, a.How, a.Why)
		}
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

func TestASpinnerIsSlowedAndGoesOn(t *testing.T) {
	for name, cgroups := range map[string]bool{"cgroup": true, "stopping and continuing": false} {
		t.Run(name, func(t *testing.T) {
			if cgroups {
				needCgroup(t, CPU)
			}
			p := newProgram(t)
			p.must("spin")
			l := limiter(t, p, cgroups)
			apply(t, l, Limit{CPU: 0.1})
			slow := p.cores(time.Second)
			if slow > 0.2 {
				t.Errorf("it uses %.2f cores, want about 0.1", slow)
			}
			if s := seen(t, l); s.Throttled == 0 || s.How[CPU] == "" {
				t.Errorf("nothing was seen of it: %+v", s)
			}
			clearLimits(t, l)
			if fast := p.cores(time.Second); fast < 2*slow {
				t.Errorf("healed, it uses %.2f cores, limited it was %.2f", fast, slow)
			}
		})
	}
}

func TestAProgramThatIsHeldIsLeftAlone(t *testing.T) {
	p := newProgram(t)
	p.must("spin")
	l := limiter(t, p, false)
	apply(t, l, Limit{CPU: 0.05})
	eventually(t, "it is held while it is stopped for the limit", func() bool {
		l.Hold()
		l.duty.mu.Lock()
		stopped := l.duty.stopped
		l.duty.mu.Unlock()
		if !stopped {
			l.Unhold()
		}
		return stopped
	})
	if err := unix.Kill(-p.pid(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it stands still", func() bool { return strings.HasPrefix(status(p.pid(), "State"), "T") })
	if used := p.cores(300 * time.Millisecond); used > 0.001 {
		t.Errorf("paused, it uses %.3f cores", used)
	}
	if err := unix.Kill(-p.pid(), unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	l.Unhold()
	before := seen(t, l).Throttled
	eventually(t, "it is slowed again", func() bool { return seen(t, l).Throttled > before+2 })
}

func TestFilesRunOutAndComeBack(t *testing.T) {
	p := newProgram(t)
	p.must("open 5")
	l := limiter(t, p, true)
	apply(t, l, Limit{Files: 7})
	if got := p.do("open 20"); !strings.Contains(got, "after 7: ") || !strings.Contains(got, "too many open files") {
		t.Errorf("opening 20 files with room for 7: %q", got)
	}
	apply(t, l, Limit{Files: 7, CPU: 1}) // another limit is no new room
	if got := p.do("open 1"); !strings.Contains(got, "after 0: ") {
		t.Errorf("opening one more: %q", got)
	}
	clearLimits(t, l)
	p.must("open 20")
}

func TestMemoryIsRefusedAndComesBack(t *testing.T) {
	p := newProgram(t)
	l := limiter(t, p, true)
	apply(t, l, Limit{Memory: 64 << 20, Refuse: true})
	if got := p.do("map 100"); !strings.Contains(got, "cannot allocate memory") {
		t.Errorf("taking 100 MiB of 64: %q", got)
	}
	if s := seen(t, l); !strings.Contains(s.How[Memory], "RLIMIT_DATA") {
		t.Errorf("%+v", s)
	}
	clearLimits(t, l)
	p.must("map 100")
}

func TestTasksRunOutAndComeBack(t *testing.T) {
	able := Survey("")[3]
	p := newProgram(t)
	p.must("fork 1") // what it takes to fork is there
	p.must("reap")
	l := limiter(t, p, true)
	err := l.Apply(Limit{Processes: 8})
	if able.How == "" {
		if err == nil || !strings.Contains(err.Error(), "root") {
			t.Errorf("%v, though %s", err, able.Why)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := p.do("fork 30"); !strings.Contains(got, "resource temporarily unavailable") {
		t.Errorf("forking 30 with room for 8: %q", got)
	}
	if s := seen(t, l); strings.Contains(s.How[Processes], "cgroup") && s.ForksFail == 0 {
		t.Errorf("the kernel counts none: %+v", s)
	}
	p.must("reap")
	clearLimits(t, l)
	p.must("fork 30")
	p.must("reap")
}

func TestRootIsToldThatNprocDoesNotHold(t *testing.T) {
	for status, want := range map[[2]string]string{
		{"0\t0\t0\t0", "0000000000000000"}:                 "does not hold for root",
		{"65534\t65534\t65534\t65534", "0000000001000000"}: "CAP_SYS_RESOURCE",
		{"65534\t65534\t65534\t65534", "0000000000000000"}: "",
	} {
		if got := exempt(status[0], status[1]); !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%v: %q", status, got)
		}
	}
}

func TestWritesAreSlowedAndComeBack(t *testing.T) {
	needCgroup(t, IO)
	file := filepath.Join(t.TempDir(), "data")
	if _, err := deviceOf(file); err != nil {
		t.Skip(err)
	}
	p := newProgram(t)
	l := limiter(t, p, true)
	apply(t, l, Limit{WriteRate: 1 << 20})
	began := time.Now()
	p.must("write " + file)
	slow := time.Since(began)
	if slow < time.Second {
		t.Errorf("2 MiB at 1 MiB a second took %s", slow)
	}
	if s := seen(t, l); s.IOBytes < 1<<20 {
		t.Errorf("the throttle counted %d bytes", s.IOBytes)
	}
	clearLimits(t, l)
	began = time.Now()
	p.must("write " + file)
	if fast := time.Since(began); fast > slow/2 {
		t.Errorf("healed it took %s, slowed %s", fast, slow)
	}
}

func TestAFrozenProgramStandsStillAndGoesOn(t *testing.T) {
	needCgroup(t, Freeze)
	p := newProgram(t)
	p.must("spin")
	l := limiter(t, p, true)
	apply(t, l, Limit{Frozen: true})
	if used := p.cores(200 * time.Millisecond); used > 0.001 {
		t.Errorf("frozen, it uses %.3f cores", used)
	}
	if s := seen(t, l); !s.Frozen {
		t.Errorf("%+v", s)
	}
	apply(t, l, Limit{Frozen: true, CPU: 0.5}) // it changes cgroups while it is frozen
	if s := seen(t, l); !s.Frozen || s.How[CPU] == "" {
		t.Errorf("%+v", s)
	}
	clearLimits(t, l)
	p.must("still there?")
}

func TestWhatIsForkedMeanwhileIsLimitedAndHealedToo(t *testing.T) {
	p := newProgram(t)
	was := limitOf(p.pid(), unix.RLIMIT_NOFILE)
	l := limiter(t, p, true)
	apply(t, l, Limit{Files: 50})
	p.must("fork 1")
	members, err := family(l.leader)
	if err != nil || len(members) != 2 {
		t.Fatalf("%v, %v", members, err)
	}
	child := members[1].Pid
	if limitOf(child, unix.RLIMIT_NOFILE) != limitOf(p.pid(), unix.RLIMIT_NOFILE) {
		t.Error("the child did not inherit the limit")
	}
	clearLimits(t, l)
	if got := limitOf(child, unix.RLIMIT_NOFILE); got != was {
		t.Errorf("the child's limit became %s, its parent's was %s", got, was)
	}
	p.must("reap")
}

func TestAnotherProcessWithThePidIsLeftAlone(t *testing.T) {
	p := newProgram(t)
	life, err := lifeOf(p.pid())
	if err != nil {
		t.Fatal(err)
	}
	was := limitOf(p.pid(), unix.RLIMIT_NOFILE)
	cur, _ := strconv.ParseUint(was, 10, 64)
	other := Life{life.Pid, life.Start - 1}
	undo := Undo{Leader: other, Stopped: true, Rlimits: []Previous{{Life: other, Resource: unix.RLIMIT_NOFILE, Was: 3, Ours: cur}}}
	if err := Revert(undo); err != nil {
		t.Error(err)
	}
	if now := limitOf(p.pid(), unix.RLIMIT_NOFILE); now != was {
		t.Errorf("its limit became %s, was %s", now, was)
	}
	if err := Revert(Undo{Leader: life, Cgroups: []Cgroup{{Dir: t.TempDir(), Parent: "/"}}}); err == nil || !strings.Contains(err.Error(), "no cgroup of ours") {
		t.Errorf("a directory that is not ours: %v", err)
	}
}

// order is what a limiter in a process of its own is told.
type order struct {
	Pid     int
	Name    string
	Cgroups bool
	Limit   Limit
}

func limiterMain() {
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	l, err := New(o.Pid, o.Name, "", func(u Undo) error { return json.NewEncoder(os.Stdout).Encode(u) })
	if err == nil {
		if !o.Cgroups {
			l.hierarchies = hierarchies{}
		}
		err = l.Apply(o.Limit)
	}
	fmt.Println("end", err)
	select {} // until it is killed
}

func guardianMain() {
	var u Undo
	err := json.NewDecoder(os.Stdin).Decode(&u)
	for range 2 { // the second time there is nothing to undo
		err = errors.Join(err, Revert(u))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func TestAnotherProcessUndoesWhatAKilledOneDid(t *testing.T) {
	for name, o := range map[string]order{
		"cgroup": {Cgroups: true, Limit: Limit{CPU: 0.05, Files: 10, Processes: 50, Frozen: true}},
		"rlimit": {Limit: Limit{CPU: 0.05, Files: 10, Memory: 1 << 20}},
	} {
		t.Run(name, func(t *testing.T) {
			if o.Cgroups {
				needCgroup(t, Freeze)
			}
			p := newProgram(t)
			o.Pid, o.Name = p.pid(), fmt.Sprintf("guarded-%d-%d", os.Getpid(), p.pid())
			p.must("spin")
			undo := limitAndDie(t, o)
			guardian := exec.Command(os.Args[0])
			guardian.Env = append(os.Environ(), roleVariable+"=guardian", leaveAtOnce)
			guardian.Stdin = strings.NewReader(undo)
			if out, err := guardian.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if used := p.cores(500 * time.Millisecond); used < 0.15 {
				t.Errorf("it uses %.2f cores after all was undone", used)
			}
			p.must("open 30")
			p.must("map 2")
			if left, _ := filepath.Glob("/sys/fs/cgroup/*/" + prefix + o.Name); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// limitAndDie has a process limit another, kills it while the other is stopped or frozen, and
// returns what it noted last.
func limitAndDie(t *testing.T, o order) string {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), roleVariable+"=limiter", leaveAtOnce)
	line, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	command.Stdin = strings.NewReader(string(line))
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	undo := ""
	for scanner := bufio.NewScanner(out); scanner.Scan(); {
		if end, over := strings.CutPrefix(scanner.Text(), "end "); over {
			if end != "<nil>" {
				t.Errorf("apply: %s", end)
			}
			break
		}
		undo = scanner.Text()
	}
	if !o.Limit.Frozen {
		eventually(t, "it is stopped", func() bool { return strings.HasPrefix(status(o.Pid, "State"), "T") })
	}
	_ = command.Process.Kill()
	_ = command.Wait()
	return undo
}

// TestWithoutPrivilege runs all of these as another user.
func TestWithoutPrivilege(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("this is the run without privilege, or the user has none to give up")
	}
	dir, err := os.MkdirTemp("", "capsize-limits-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "limits.test")
	if err := errors.Join(os.Chmod(dir, 0o777), os.WriteFile(copied, program, 0o755)); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(copied, "-test.v", "-test.timeout=60s")
	// The engine is root's: whether there must be one does not concern this user.
	command.Env, command.Dir = append(os.Environ(), "TMPDIR="+dir, "CAPSIZE_REQUIRE_DOCKER=", leaveAtOnce), dir
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"TestASpinnerIsSlowedAndGoesOn", "TestFilesRunOutAndComeBack", "TestMemoryIsRefusedAndComesBack", "TestTasksRunOutAndComeBack", "TestAnotherProcessUndoesWhatAKilledOneDid"} {
		if !strings.Contains(string(out), "--- PASS: "+name) {
			t.Errorf("%s did not pass:\n%s", name, out)
		}
	}
}

func TestASurveyOnlyLooks(t *testing.T) {
	began := time.Now()
	abilities := Survey(t.TempDir())
	if took := time.Since(began); took > 100*time.Millisecond {
		t.Errorf("it took %s", took)
	}
	for _, a := range abilities {
		t.Logf("%s: %s%s", a.Resource, a.How, a.Why)
		if (a.How == "") == (a.Why == "") {
			t.Errorf("%+v", a)
		}
	}
}
