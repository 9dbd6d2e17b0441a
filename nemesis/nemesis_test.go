//go:build linux

package nemesis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"capsize/histories"
	"capsize/nemesis/agent"
)

const (
	short  = 250 * time.Millisecond
	window = 80 * time.Millisecond // for what must not happen
)

func TestEveryKindOfPartitionLandsAndHealsWithProof(t *testing.T) {
	f := newFixture(t, 5)
	proven := len(allPairs(f.nodes))
	for _, kind := range (partition{}).About().Params[0].Allowed {
		step := Step{Duration: time.Minute, Fault: "partition", Params: kindOf(kind)}
		if kind == someLinks {
			step.Params["pairs"] = "n1>n2,n3-n4"
		}
		n := f.nemesis(step)
		planned, err := n.config.Schedule.Plan(1, View{Nodes: f.nodes, Leader: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		if kind == fromClients { // from then on their ways are proven too
			proven += 2 * len(f.nodes)
		}
		f.during(step, func() {})
		landed, cut := f.recorded.phase(t, 1, histories.Landed), len(planned.Pairs)
		want := fmt.Sprintf("probes: %d of %d open pairs arrived, 0 of %d cut pairs", proven-cut, proven-cut, cut)
		if landed.Fault.Proof[0] != want || !strings.Contains(landed.Fault.Proof[1], arrow(planned.Pairs[0])) {
			t.Errorf("%s landed with the proof %q, want %q and what was held back", kind, landed.Fault.Proof, want)
		}
		healed := f.recorded.phase(t, 1, histories.Healed)
		if whole := fmt.Sprintf("probes: %d of %d open pairs arrived, 0 of 0 cut pairs", proven, proven); !strings.HasPrefix(healed.Fault.Proof[0], "held back while in force: ") || healed.Fault.Proof[1] != whole {
			t.Errorf("%s healed with the proof %q", kind, healed.Fault.Proof)
		}
		if landed.Fault.Took <= 0 || landed.F != "partition" || landed.Process != histories.Nemesis || landed.Type != histories.Info {
			t.Errorf("event %+v", landed)
		}
		if err := n.HealAll(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// One way means one way: for what a stream carries there and back, not for probes only.
func TestAOneWayPartitionIsOneWayForAStream(t *testing.T) {
	f := newFixture(t, 2)
	for _, c := range []struct {
		direction     string
		arrives, back bool
	}{
		{"in", true, false}, // n1 sends and hears nothing
		{"out", false, false},
	} {
		t.Run(c.direction, func(t *testing.T) {
			stream, err := net.Dial("tcp", f.Dial("n1", "n2", "peer"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = stream.Close() }()
			lines := bufio.NewReader(stream)
			say := func(text string) { _, _ = io.WriteString(stream, text+"\n") }
			hears := func(text string, within time.Duration) bool {
				_ = stream.SetReadDeadline(time.Now().Add(within))
				line, err := lines.ReadString('\n')
				return err == nil && line == text+"\n"
			}
			received := func(text string) bool { return strings.Contains(f.log("n2"), "received "+text+"\n") }
			say("open " + c.direction)
			if !hears("open "+c.direction, patience) {
				t.Fatal("the open link does not answer")
			}
			n := f.nemesis(Step{Fault: "partition", Target: "n1", Duration: time.Minute, Params: map[string]string{"kind": "one-way", "direction": c.direction}})
			ctx, stop := context.WithCancel(t.Context())
			over := make(chan error, 1)
			go func() { over <- n.Run(ctx) }()
			defer stop()
			eventually(t, patience, "the partition is in force", func() bool { return slices.Contains(f.recorded.phases(1), histories.Landed) })
			say("cut " + c.direction)
			if c.arrives {
				eventually(t, patience, "what n1 sends arrives", func() bool { return received("cut " + c.direction) })
			}
			if hears("cut "+c.direction, window) {
				t.Error("the answer came back")
			}
			if received("cut "+c.direction) != c.arrives {
				t.Errorf("what n1 sends arrived: %v", !c.arrives)
			}
			stop()
			if err := <-over; err != nil {
				t.Fatal(err)
			}
			if !hears("cut "+c.direction, patience) {
				t.Error("what was held did not come after the heal")
			}
			f.recorded.events = nil
		})
	}
}

func TestOverlappingPartitionsAddUp(t *testing.T) {
	f := newFixture(t, 3)
	n := f.nemesis(
		Step{At: 0, Duration: 2 * short, Fault: "partition", Target: "n1", Params: kindOf(isolate)},
		Step{At: short, Duration: 2 * short, Fault: "partition", Target: "n2", Params: kindOf(isolate)},
	)
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, landedAndHealed...)
	expectPhases(t, f.recorded, 2, landedAndHealed...)
	for _, c := range []struct {
		id    int
		phase histories.Phase
		want  string
	}{
		{1, histories.Landed, "0 of 4 cut pairs"},
		{2, histories.Landed, "0 of 6 cut pairs"}, // all, with what the first cut
		{1, histories.Healed, "0 of 4 cut pairs"}, // what the second cut stays so
		{2, histories.Healed, "0 of 0 cut pairs"},
	} {
		if proof := strings.Join(f.recorded.phase(t, c.id, c.phase).Fault.Proof, "; "); !strings.Contains(proof, c.want) {
			t.Errorf("step %d %s: proof %q, want %q", c.id, c.phase, proof, c.want)
		}
	}
}

// An agent that says yes and does nothing: only the probes can tell.
func TestAPartitionThatDoesNotLandIsMissed(t *testing.T) {
	f := newFixture(t, 3, func(c *testCluster) { c.roles["n2"] = "deaf agent" })
	n := f.nemesis(Step{Duration: short, Fault: "partition", Target: "n2", Params: kindOf(isolate)})
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, histories.Inject, histories.Missed)
	if why := f.recorded.phase(t, 1, histories.Missed).Error; why != "probes arrived over what is cut: n1->n2, n3->n2" {
		t.Errorf("missed: %s", why)
	}
	if err := n.HealAll(t.Context()); err != nil || len(n.InForce()) != 0 {
		t.Errorf("%v, in force %v", err, n.InForce())
	}
}

func TestAPauseStopsAndResumesTheLeader(t *testing.T) {
	f := newFixture(t, 3)
	pid := f.pid("n1")
	n := f.nemesis(Step{Duration: short, Fault: "pause", Target: Leader})
	over := make(chan error, 1)
	go func() { over <- n.Run(t.Context()) }()
	eventually(t, patience, "the leader stands still", func() bool { return state(pid) == 'T' })
	eventually(t, patience, "it is in force", func() bool { return slices.Equal(n.InForce(), []string{"pause n1"}) })
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, landedAndHealed...)
	if state(pid) == 'T' || len(n.InForce()) != 0 {
		t.Errorf("state %c, in force %v", state(pid), n.InForce())
	}
	landed, healed := f.recorded.phase(t, 1, histories.Landed).Fault, f.recorded.phase(t, 1, histories.Healed).Fault
	if !strings.Contains(landed.Proof[0], fmt.Sprintf("n1: pid %d stopped, ", pid)) || !strings.Contains(healed.Proof[0], "running, none of") {
		t.Errorf("proofs %q, %q", landed.Proof, healed.Proof)
	}
	if landed.Target != Leader || !slices.Equal(landed.Nodes, []string{"n1"}) {
		t.Errorf("fault %+v", landed)
	}
}

func TestAKilledNodeIsStartedAgainAndServes(t *testing.T) {
	f := newFixture(t, 3)
	before := f.pid("n2")
	n := f.nemesis(Step{Duration: short, Fault: "kill", Target: "n2,n3"})
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, landedAndHealed...)
	if proof := f.recorded.phase(t, 1, histories.Landed).Fault.Proof; len(proof) != 2 || proof[0] != fmt.Sprintf("n2: pid %d killed by SIGKILL", before) {
		t.Errorf("proof %q", proof)
	}
	if after := f.pid("n2"); after == before || !gone(before) {
		t.Errorf("pid %d before, %d after", before, after)
	}
	select {
	case e := <-f.exits:
		t.Errorf("a kill was reported as an unexpected exit: %s", e)
	default:
	}
}

func TestFaultsThatMeetOnOneNodeDoNotUndoEachOther(t *testing.T) {
	f := newFixture(t, 2)
	t.Run("a pause of a killed node is missed, and one of all hits the others", func(t *testing.T) {
		n := f.nemesis(
			Step{Duration: 4 * short, Fault: "kill", Target: "n1"},
			Step{At: short, Duration: short, Fault: "pause", Target: "n1"},
			Step{At: 2 * short, Duration: short, Fault: "pause", Target: "all"},
		)
		if err := n.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		expectPhases(t, f.recorded, 1, landedAndHealed...)
		expectPhases(t, f.recorded, 2, histories.Inject, histories.Missed)
		if why := f.recorded.phase(t, 2, histories.Missed).Error; why != "n1 is down: step 1 killed it" {
			t.Errorf("missed: %s", why)
		}
		expectPhases(t, f.recorded, 3, landedAndHealed...)
		if proof := f.recorded.phase(t, 3, histories.Landed).Fault.Proof; len(proof) != 2 || !strings.HasPrefix(proof[0], "n2: pid ") || proof[1] != "n1: nothing to do, it is down by another step" {
			t.Errorf("landed with %q", proof)
		}
		f.recorded.events = nil
	})
	t.Run("who is killed twice stays down until both kills have ended", func(t *testing.T) {
		n := f.nemesis(
			Step{Duration: 2 * short, Fault: "kill", Target: "n1"},
			Step{At: short, Duration: 3 * short, Fault: "kill", Target: "all"},
		)
		over := make(chan error, 1)
		go func() { over <- n.Run(t.Context()) }()
		eventually(t, patience, "the first is healed", func() bool { return slices.Contains(f.recorded.phases(1), histories.Healed) })
		if proof := f.recorded.phase(t, 1, histories.Healed).Fault.Proof; proof[0] != "n1: stays down, by step 2" {
			t.Errorf("healed with %q", proof)
		}
		if _, err := f.controller.Signal(t.Context(), "n1", "db", "cont"); !errors.Is(err, ErrEnded) {
			t.Errorf("it runs, although the second kill is in force: %v", err)
		}
		if err := <-over; err != nil {
			t.Fatal(err)
		}
		expectPhases(t, f.recorded, 2, landedAndHealed...)
		if proof := f.recorded.phase(t, 2, histories.Landed).Fault.Proof; proof[0] != "n1: is down already, by step 1" {
			t.Errorf("landed with %q", proof)
		}
		if err := f.serves(t.Context(), "n1"); err != nil {
			t.Error(err)
		}
		f.recorded.events = nil
	})
	t.Run("two pauses end with the second", func(t *testing.T) {
		pid := f.pid("n1")
		n := f.nemesis(
			Step{Duration: 2 * short, Fault: "pause", Target: "n1"},
			Step{At: short, Duration: 3 * short, Fault: "pause", Target: "n1"},
		)
		over := make(chan error, 1)
		go func() { over <- n.Run(t.Context()) }()
		eventually(t, patience, "the first is healed", func() bool { return slices.Contains(f.recorded.phases(1), histories.Healed) })
		if state(pid) != 'T' {
			t.Error("the heal of one pause undid the other")
		}
		if err := <-over; err != nil {
			t.Fatal(err)
		}
		expectPhases(t, f.recorded, 2, landedAndHealed...)
		if state(pid) == 'T' {
			t.Error("the process is still stopped")
		}
		f.recorded.events = nil
	})
	t.Run("a kill ends a pause", func(t *testing.T) {
		n := f.nemesis(
			Step{Duration: 3 * short, Fault: "pause", Target: "n1"},
			Step{At: short, Duration: short, Fault: "kill", Target: "n1"},
		)
		if err := n.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		expectPhases(t, f.recorded, 1, landedAndHealed...)
		expectPhases(t, f.recorded, 2, landedAndHealed...)
		if proof := f.recorded.phase(t, 1, histories.Healed).Fault.Proof; !strings.Contains(proof[0], "killed meanwhile") {
			t.Errorf("proof %q", proof)
		}
		if err := n.HealAll(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestAFaultOnAProcessThatEndedByItselfIsMissed(t *testing.T) {
	f := newFixture(t, 2)
	if err := syscall.Kill(f.pid("n2"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-f.exits:
		if e != "n2: killed by SIGKILL" {
			t.Errorf("exit %q", e)
		}
	case <-time.After(patience):
		t.Fatal("nobody told that the process ended")
	}
	n := f.nemesis(
		Step{Duration: short, Fault: "pause", Target: "n2"},
		Step{Duration: short, Fault: "kill", Target: "n2"},
	)
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for id := 1; id <= 2; id++ {
		expectPhases(t, f.recorded, id, histories.Inject, histories.Missed)
		if why := f.recorded.phase(t, id, histories.Missed).Error; !strings.Contains(why, "it has ended before: killed by SIGKILL") {
			t.Errorf("missed: %s", why)
		}
	}
	if err := n.HealAll(t.Context()); err != nil {
		t.Errorf("what ended by itself is not for the nemesis to heal: %v", err)
	}
}

func TestWhenTheRunEndsEarlyWhatIsInForceIsHealed(t *testing.T) {
	f := newFixture(t, 3)
	pid := f.pid("n3")
	n := f.nemesis(
		Step{Duration: time.Hour, Fault: "partition"},
		Step{Duration: time.Hour, Fault: "pause", Target: "n3"},
		Step{Duration: time.Hour, Fault: "kill", Target: "n2"},
		Step{At: time.Minute, Duration: time.Hour, Fault: "kill", Target: "n1"},
	)
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- n.Run(ctx) }()
	eventually(t, patience, "three faults are in force", func() bool {
		for id := 1; id <= 3; id++ {
			if !slices.Contains(f.recorded.phases(id), histories.Landed) {
				return false
			}
		}
		return len(n.InForce()) == 3
	})
	stop()
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	for id := 1; id <= 3; id++ {
		expectPhases(t, f.recorded, id, landedAndHealed...)
	}
	expectPhases(t, f.recorded, 4)
	if state(pid) == 'T' {
		t.Error("the process is still stopped")
	}
}

func TestWhatCannotBeHealedIsNamedAndTriedAgain(t *testing.T) {
	f := newFixture(t, 2)
	n := f.nemesis(Step{Duration: short, Fault: "kill", Target: "n2"})
	n.effects.readyLimit = short
	n.effects.ready = func(ctx context.Context, _ string) error {
		<-ctx.Done()
		return errors.New("still recovering")
	}
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, histories.Inject, histories.Landed, histories.Heal, histories.Stuck)
	if err := n.HealAll(t.Context()); err == nil || !strings.Contains(err.Error(), "kill n2, is stuck: n2 does not answer") || !strings.Contains(err.Error(), "still recovering") {
		t.Errorf("HealAll: %v", err)
	}
	n.effects.ready = f.serves
	n.effects.readyLimit = patience
	if err := n.HealAll(t.Context()); err != nil || len(n.InForce()) != 0 {
		t.Errorf("HealAll: %v, in force %v", err, n.InForce())
	}
}

func TestAnUnknownLeaderIsWaitedForAndThenMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &recorded{}
		began := time.Now()
		elected := began.Add(time.Hour)
		config := Config{
			Schedule: Schedule{Steps: []Step{{Duration: time.Second, Fault: "pause", Target: Leader}}}, Nodes: []string{"n1", "n2", "n3"},
			Leader: func(context.Context) (string, bool) { return "n2", !time.Now().Before(elected) }, Log: log,
		}
		if err := New(config).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		expectPhases(t, log, 1, histories.Missed)
		if e := log.phase(t, 1, histories.Missed); e.Error != "no leader is known, for 2s" {
			t.Errorf("missed: %s", e.Error)
		}
		if took := time.Since(began); took < leaderLimit || took > leaderLimit+100*time.Millisecond {
			t.Errorf("gave up after %s", took)
		}
		elected = time.Now().Add(leaderLimit / 2)
		planned, err := New(config).plan(t.Context(), 1)
		if err != nil || !slices.Equal(planned.Nodes, []string{"n2"}) {
			t.Errorf("a leader that is elected in time: %+v, %v", planned, err)
		}
	})
}

func TestALostAgentIsReportedByName(t *testing.T) {
	f := newFixture(t, 2)
	pid := f.pid("n2")
	if err := f.agents["n2"].Process.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case lost := <-f.lost:
		if !strings.HasPrefix(lost, "n2: ") {
			t.Errorf("lost %q", lost)
		}
	case <-time.After(patience):
		t.Fatal("nobody told of the lost agent")
	}
	if _, err := f.controller.Signal(t.Context(), "n2", "db", "stop"); err == nil || !strings.Contains(err.Error(), "agent on n2") {
		t.Errorf("a signal through a lost agent: %v", err)
	}
	eventually(t, patience, "its process ends with it", func() bool { return gone(pid) })
	if _, err := f.controller.Block(t.Context(), []agent.Pair{{From: "n1", To: "n2"}}); err == nil || !strings.Contains(err.Error(), "n2") {
		t.Errorf("a block without an agent: %v", err)
	}
}

func TestAnAgentThatStandsStillIsLost(t *testing.T) {
	f := newFixture(t, 1)
	s := f.controller.sessions["n1"]
	process := f.agents["n1"].Process
	s.ping(10*time.Millisecond, 100*time.Millisecond, func(err error) { f.lost <- err.Error() })
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	select {
	case lost := <-f.lost:
		if !strings.Contains(lost, "did not answer for 100ms") {
			t.Errorf("lost %q", lost)
		}
	case <-time.After(patience):
		t.Error("a silent agent was not noticed")
	}
	if err := process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

func TestConnectFailsAsAWhole(t *testing.T) {
	cluster, err := newTestCluster(t.TempDir(), 3)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Connect(t.Context(), cluster, ConnectOptions{Argv: func(node string) []string {
		if node == "n2" {
			return []string{"/bin/true"}
		}
		return []string{os.Args[0]}
	}})
	if err == nil || !strings.Contains(err.Error(), "attach the agent on n2") {
		t.Fatalf("got %v", err)
	}
	for _, command := range cluster.agents {
		_ = command.Wait()
	}
}

// controllerMain is a controller that is going to die: it puts faults in force, says which
// processes there are, and waits.
func controllerMain() {
	cluster, err := newTestCluster(os.Getenv(listenAt), 3)
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	c, err := Connect(ctx, cluster, ConnectOptions{Argv: func(string) []string { return []string{os.Args[0]} }, Lease: time.Second, Ping: 200 * time.Millisecond})
	if err != nil {
		panic(err)
	}
	for _, node := range cluster.nodes {
		if err := c.Start(ctx, node, cluster.process(node)); err != nil {
			panic(err)
		}
		signal := "cont"
		if node == "n1" {
			signal = "stop"
		}
		reply, err := c.Signal(ctx, node, "db", signal)
		if err != nil {
			panic(err)
		}
		fmt.Println(reply.Pid)
		fmt.Println(cluster.agents[node].Process.Pid)
	}
	if _, err := c.Block(ctx, allPairs(cluster.nodes)); err != nil {
		panic(err)
	}
	fmt.Println("done")
	select {}
}

// A checker that is killed, or freezes, leaves nothing behind: no paused process, no cut
// link, no agent.
func TestAControllerThatVanishesLeavesNothingBehind(t *testing.T) {
	for name, vanish := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "frozen": syscall.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			command := exec.Command(os.Args[0])
			command.Env = append(os.Environ(), roleVariable+"=controller", listenAt+"="+t.TempDir())
			out, err := command.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = command.Process.Kill()
				_ = command.Wait()
			}()
			var pids []int
			scanner := bufio.NewScanner(out)
			for scanner.Scan() && scanner.Text() != "done" {
				pid, err := strconv.Atoi(scanner.Text())
				if err != nil {
					t.Fatal(err)
				}
				pids = append(pids, pid)
			}
			if len(pids) != 6 || state(pids[0]) != 'T' {
				t.Fatalf("processes %v", pids)
			}
			if err := command.Process.Signal(vanish); err != nil {
				t.Fatal(err)
			}
			for _, pid := range pids {
				eventually(t, 2*time.Second, "lease and a second later all is gone", func() bool { return gone(pid) })
			}
		})
	}
}

// How fast faults land and heal on loopback; ci/bench/faults measures containers beside the naive way.
func BenchmarkFaultsOnLoopback(b *testing.B) {
	f := newFixture(b, 5)
	n := f.nemesis(
		Step{Duration: time.Second, Fault: "partition", Params: kindOf(halves)},
		Step{Duration: time.Second, Fault: "partition", Params: kindOf(majoritiesRing)},
		Step{Duration: time.Second, Fault: "pause", Target: All},
	)
	for id := range n.config.Schedule.Steps {
		planned, err := n.config.Schedule.Plan(id+1, View{Nodes: f.nodes, Leader: "n1"})
		if err != nil {
			b.Fatal(err)
		}
		fault, _ := faultByName(planned.Fault)
		b.Run(strings.ReplaceAll(planned.Fault+" "+planned.Params["kind"], " ", "-"), func(b *testing.B) {
			var inject, heal []time.Duration
			for b.Loop() {
				proof, err := fault.Inject(b.Context(), n.effects, planned)
				if err != nil {
					b.Fatal(err)
				}
				inject = append(inject, proof.Took)
				if proof, err = fault.Heal(b.Context(), n.effects, planned); err != nil {
					b.Fatal(err)
				}
				heal = append(heal, proof.Took)
			}
			for name, times := range map[string][]time.Duration{"landed": inject, "healed": heal} {
				slices.Sort(times)
				b.ReportMetric(float64(times[len(times)/2].Microseconds()), name+"-p50-us")
				b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), name+"-p99-us")
			}
		})
	}
}
