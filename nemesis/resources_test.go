//go:build linux

package nemesis

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capsize/histories"
	"capsize/nemesis/agent"
	"capsize/nemesis/agent/limits"
)

// needAbility skips where the machine does not let a process be limited so.
func (f *fixture) needAbility(name string) {
	f.t.Helper()
	abilities, err := f.controller.Survey(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	for _, a := range abilities[f.nodes[0]] {
		if a.Name == name && a.How != "" {
			return
		}
		if a.Name == name {
			f.t.Skipf("%s: %s", name, a.Why)
		}
	}
	f.t.Fatalf("nobody surveys %s: %+v", name, abilities)
}

// begin runs a schedule, and waits until all steps have landed. The function that it returns
// waits for the end.
func (f *fixture) begin(steps ...Step) (end func()) {
	f.t.Helper()
	n := f.nemesis(steps...)
	over := make(chan error, 1)
	go func() { over <- n.Run(f.t.Context()) }()
	for id := range steps {
		eventually(f.t, patience, fmt.Sprintf("step %d lands", id+1), func() bool { return len(f.recorded.phases(id+1)) > 1 })
	}
	return func() {
		f.t.Helper()
		if err := <-over; err != nil {
			f.t.Fatal(err)
		}
		for id := range steps {
			expectPhases(f.t, f.recorded, id+1, landedAndHealed...)
		}
	}
}

func (f *fixture) tell(node, line string) {
	f.t.Helper()
	conn, err := net.DialTimeout("tcp", f.ports[node], patience)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		f.t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 100)); err != nil {
		f.t.Fatalf("%d, %v", n, err)
	}
}

// cpuTime is what a process has used, in ticks of a hundredth of a second (proc_pid_stat(5)).
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// cores measures how much CPU a process uses.
func cores(t *testing.T, pid int) float64 {
	t.Helper()
	began, before := time.Now(), cpuTime(t, pid)
	time.Sleep(600 * time.Millisecond) // it is what is measured
	return float64(cpuTime(t, pid)-before) / float64(time.Since(began))
}

func openFiles(t *testing.T, pid int) uint64 {
	t.Helper()
	var now unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &now); err != nil {
		t.Fatal(err)
	}
	return now.Cur
}

const while = 3 * time.Second // for which faults that are looked at meanwhile are in force

func TestAStarvedProcessIsSlowAndTheTightestLimitHolds(t *testing.T) {
	f := newFixture(t, 2)
	f.tell("n1", "spin")
	pid := f.pid("n1")
	end := f.begin(
		Step{Duration: while, Fault: "cpu", Target: "n1", Params: map[string]string{"cores": "0.3"}},
		Step{Duration: while / 3, Fault: "cpu", Target: "n1", Params: map[string]string{"cores": "0.05"}},
	)
	tight := cores(t, pid)
	if tight > 0.15 {
		t.Errorf("it uses %.2f cores under 0.3 and 0.05", tight)
	}
	eventually(t, patience, "the tighter is healed", func() bool { return slices.Contains(f.recorded.phases(2), histories.Healed) })
	if loose := cores(t, pid); loose > 0.45 || loose < 1.5*tight {
		t.Errorf("it uses %.2f cores under 0.3, and used %.2f under both", loose, tight)
	}
	end()
	if free := cores(t, pid); free < 0.45 {
		t.Errorf("healed, it uses %.2f cores", free)
	}
	if proof := f.recorded.phase(t, 1, histories.Healed).Fault.Proof; !strings.Contains(proof[0], "times held back") {
		t.Errorf("it met no limit: %q", proof)
	}
}

func TestAStarvedProcessThatIsKilledIsStarvedAgain(t *testing.T) {
	f := newFixture(t, 1)
	before := openFiles(t, f.pid("n1"))
	n := f.nemesis(
		Step{Duration: while, Fault: "cpu", Target: "n1"},
		Step{Duration: while, Fault: "files", Target: "n1"},
		Step{At: short, Duration: short, Fault: "kill", Target: "n1"},
	)
	over := make(chan error, 1)
	go func() { over <- n.Run(t.Context()) }()
	eventually(t, patience, "it runs again", func() bool { return slices.Contains(f.recorded.phases(3), histories.Healed) })
	f.tell("n1", "spin")
	pid := f.pid("n1")
	if used := cores(t, pid); used > 0.3 {
		t.Errorf("its next life uses %.2f cores, want 0.1", used)
	}
	if now := openFiles(t, pid); now != before {
		t.Errorf("its next life may open %d files, want %d as before: it holds none yet", now, before)
	}
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	for id := range 3 {
		expectPhases(t, f.recorded, id+1, landedAndHealed...)
	}
	if free := cores(t, pid); free < 0.3 {
		t.Errorf("healed, it uses %.2f cores", free)
	}
}

func TestAPauseAndALimitOfCPUDoNotUndoEachOther(t *testing.T) {
	f := newFixture(t, 1)
	f.tell("n1", "spin")
	pid := f.pid("n1")
	end := f.begin(
		Step{Duration: while, Fault: "cpu", Target: "n1"},
		Step{Duration: while / 3, Fault: "pause", Target: "n1"},
	)
	if used := cores(t, pid); used > 0.02 {
		t.Errorf("paused, it uses %.2f cores", used)
	}
	eventually(t, patience, "the pause is healed", func() bool { return slices.Contains(f.recorded.phases(2), histories.Healed) })
	if used := cores(t, pid); used > 0.3 || used == 0 {
		t.Errorf("resumed, it uses %.2f cores, want 0.1", used)
	}
	end()
}

func TestEachResourceIsLimitedAndGivenBack(t *testing.T) {
	for fault, c := range map[string]struct {
		ability string
		params  map[string]string
		proof   string
	}{
		"memory":    {agent.LimitMemory, map[string]string{"room": "512MiB"}, "RLIMIT_DATA"},
		"files":     {agent.LimitFiles, map[string]string{"room": "50"}, "RLIMIT_NOFILE"},
		"processes": {agent.LimitProcesses, map[string]string{"room": "500"}, "processes: "},
		"io":        {agent.LimitIO, map[string]string{"of": "write"}, "262144"},
	} {
		t.Run(fault, func(t *testing.T) {
			f := newFixture(t, 1)
			f.needAbility(c.ability)
			before := rlimits(t, f.pid("n1"))
			f.begin(Step{Duration: short, Fault: fault, Target: "n1", Params: c.params})()
			if proof := f.recorded.phase(t, 1, histories.Landed).Fault.Proof; !strings.Contains(proof[0], c.proof) {
				t.Errorf("proof %q", proof)
			}
			if after := rlimits(t, f.pid("n1")); after != before {
				t.Errorf("its limits were\n%s\nand are\n%s", before, after)
			}
			noGroups(t, f.pid("n1"))
		})
	}
}

func rlimits(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/limits")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// noGroups checks that a process is in no cgroup of ours, and that none is left.
func noGroups(t *testing.T, pid int) {
	t.Helper()
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	left, err := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/capsize-test-*-%d", pid))
	if err != nil || len(left) > 0 || strings.Contains(string(text), "capsize-test") {
		t.Errorf("left: %v, %v, %s", left, err, text)
	}
}

func TestAFrozenNodeAnswersNothingUntilItIsHealed(t *testing.T) {
	f := newFixture(t, 2)
	f.needAbility(agent.Freezing)
	pid := f.pid("n1")
	end := f.begin(Step{Duration: 4 * short, Fault: "freeze", Target: "n1"})
	conn, err := net.Dial("tcp", f.ports["n1"]) // the kernel accepts it
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "hello\n")
	_ = conn.SetReadDeadline(time.Now().Add(short))
	if n, err := conn.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("frozen, it answered %d bytes, %v", n, err)
	}
	end()
	if err := f.serves(t.Context(), "n1"); err != nil {
		t.Error(err)
	}
	noGroups(t, pid)
}

func TestAFrozenNodeThatIsKilledRunsAgain(t *testing.T) {
	f := newFixture(t, 1)
	f.needAbility(agent.Freezing)
	n := f.nemesis(
		Step{Duration: 5 * short, Fault: "freeze", Target: "n1"},
		Step{At: short, Duration: short, Fault: "kill", Target: "n1"},
	)
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for id := range 2 {
		expectPhases(t, f.recorded, id+1, landedAndHealed...)
	}
}

func TestALimitThatDoesNotLandIsMissed(t *testing.T) {
	f := newFixture(t, 1, func(c *testCluster) { c.roles["n1"] = "deaf agent" })
	n := f.nemesis(Step{Duration: short, Fault: "cpu", Target: "n1"}, Step{Duration: short, Fault: "freeze", Target: "n1"})
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for id, want := range []string{"no limit of cpu", "no limit of freeze"} {
		if why := f.recorded.phase(t, id+1, histories.Missed).Error; !strings.Contains(why, want) {
			t.Errorf("missed: %s", why)
		}
	}
}

// The guardian thaws what its agent froze: else it would not even die.
func TestWhatAKilledAgentLimitedIsUndone(t *testing.T) {
	f := newFixture(t, 1, func(c *testCluster) { c.roles["n1"] = "guarded agent" })
	f.needAbility(agent.Freezing)
	pid := f.pid("n1")
	state := f.nemesis().effects
	plan := Planned{ID: 1, Fault: "freeze", Nodes: []string{"n1"}}
	if _, err := (freeze{}).Inject(t.Context(), state, plan); err != nil {
		t.Fatal(err)
	}
	f.killWorker("n1")
	eventually(t, patience, "the process dies with its agent", func() bool { return gone(pid) })
	eventually(t, patience, "its cgroup is gone", func() bool {
		left, _ := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/capsize-test-*-%d", pid))
		return len(left) == 0
	})
	select {
	case <-f.lost:
	case <-time.After(patience):
		t.Error("nobody told that the agent was lost")
	}
}

func TestMistakesInLimitsAreNamed(t *testing.T) {
	for fault, c := range map[string]struct{ name, value, allowed string }{
		"cpu":       {"cores", "0", "a number from 0.01 to 64"},
		"memory":    {"at-limit", "swap", "refuse"},
		"files":     {"room", "-1", "a whole number from 1"},
		"processes": {"room", "many", "a whole number from 1"},
		"io":        {"rate", "1", "a number of bytes"},
		"freeze":    {"room", "1", "no parameters"},
	} {
		err := Schedule{Steps: []Step{{Duration: short, Fault: fault, Target: "n1", Params: map[string]string{c.name: c.value}}}}.Validate([]string{"n1"}, time.Minute)
		var wrong *ScheduleError
		if !errors.As(err, &wrong) || wrong.Step != 1 || !strings.Contains(wrong.Key, "params") || !strings.Contains(wrong.Allowed, c.allowed) {
			t.Errorf("%s: %v", fault, err)
		}
	}
}

func TestTheTightestOfTwoLimitsHolds(t *testing.T) {
	a := limits.Limit{CPU: 0.1, Files: 7, Refuse: true}
	b := limits.Limit{CPU: 0.2, Files: 5, ReadRate: 9, Frozen: true}
	want := limits.Limit{CPU: 0.1, Files: 5, ReadRate: 9, Refuse: true, Frozen: true}
	if got, other := a.Tightest(b), b.Tightest(a); got != want || other != want {
		t.Errorf("%+v, %+v", got, other)
	}
}
