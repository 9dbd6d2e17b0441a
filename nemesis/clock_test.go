//go:build linux

package nemesis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"capsize/histories"
	"capsize/nemesis/agent"
	"capsize/nemesis/agent/clock"
)

// withClocks makes the nodes' clocks ready, and skips where they cannot be changed.
func withClocks(t *testing.T) func(*testCluster) {
	t.Helper()
	if _, err := clock.Supported(); err != nil {
		t.Skipf("no clock can be changed here: %v", err)
	}
	return func(c *testCluster) { c.clocks = true }
}

// says asks a node itself for its wall clock, and for how long it runs by its own measure.
func (f *fixture) says(node string) (wall time.Time, uptime time.Duration) {
	f.t.Helper()
	conn, err := net.Dial("tcp", f.ports[node])
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, "time?\n")
	line, err := bufio.NewReader(conn).ReadString('\n')
	var nanos, up int64
	if _, scanErr := fmt.Sscan(line, &nanos, &up); err != nil || scanErr != nil {
		f.t.Fatalf("%q: %v %v", line, err, scanErr)
	}
	return time.Unix(0, nanos), time.Duration(up)
}

func (f *fixture) clockStep(params ...string) Step {
	step := Step{Fault: "clock", Target: "n1", Duration: 2 * short, Params: map[string]string{}}
	for i := 0; i < len(params); i += 2 {
		step.Params[params[i]] = params[i+1]
	}
	return step
}

func TestAJumpIsSeenByTheTargetAloneAndTakenBack(t *testing.T) {
	f := newFixture(t, 2, withClocks(t))
	n := f.nemesis(f.clockStep("kind", "jump", "by", "1h"))
	n.effects.clock = func(_ context.Context, node string) (time.Time, error) {
		wall, _ := f.says(node)
		return wall, nil
	}
	over := make(chan error, 1)
	go func() { over <- n.Run(context.Background()) }()
	eventually(t, patience, "it landed", func() bool { return len(f.recorded.phases(1)) >= 2 })
	ahead, _ := f.says("n1")
	other, _ := f.says("n2")
	if off := time.Until(ahead) - time.Hour; off.Abs() > time.Minute || time.Until(other).Abs() > time.Minute {
		t.Errorf("n1 says %s, n2 %s", ahead, other)
	}
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, landedAndHealed...)
	if proof := f.recorded.phase(t, 1, histories.Landed).Fault.Proof[0]; !strings.Contains(proof, "REALTIME +1h0m0s at rate 1, MONOTONIC +0s at rate 1") || !strings.Contains(proof, "it says itself that it moved by +") {
		t.Errorf("proof %q", proof)
	}
	if back, _ := f.says("n1"); time.Until(back).Abs() > time.Minute {
		t.Errorf("after the heal n1 says %s", back)
	}
}

func TestAFrozenClockStandsStillForTheTargetAndGoesOn(t *testing.T) {
	f := newFixture(t, 1, withClocks(t))
	n := f.nemesis(f.clockStep("kind", "freeze", "clock", "both"))
	over := make(chan error, 1)
	go func() { over <- n.Run(context.Background()) }()
	eventually(t, patience, "it landed", func() bool { return len(f.recorded.phases(1)) >= 2 })
	wall, up := f.says("n1")
	time.Sleep(20 * time.Millisecond) // of real time, in which the frozen clock must not move
	if again, upAgain := f.says("n1"); !again.Equal(wall) || upAgain != up {
		t.Errorf("the clocks went on: %s, %s", again.Sub(wall), upAgain-up)
	}
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, landedAndHealed...)
	later, upLater := f.says("n1")
	if time.Until(later).Abs() > time.Minute || upLater < up {
		t.Errorf("after the heal: %s, up %s after %s", later, upLater, up)
	}
	eventually(t, patience, "the clock goes on", func() bool { _, now := f.says("n1"); return now > upLater })
}

func TestAStrobeJumpsThereAndBack(t *testing.T) {
	for _, which := range []string{realtime, monotonic, bothClocks} {
		t.Run(which, func(t *testing.T) {
			f := newFixture(t, 1, withClocks(t))
			n := f.nemesis(f.clockStep("kind", "strobe", "clock", which, "by", "3s", "period", "40ms"))
			if err := n.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			expectPhases(t, f.recorded, 1, landedAndHealed...)
			proof := f.recorded.phase(t, 1, histories.Healed).Fault.Proof
			jumps, _ := strconv.Atoi(strings.Fields(proof[0])[0])
			if jumps < 4 {
				t.Errorf("proof %q", proof)
			}
		})
	}
}

// The clock of a machine outlives the process: a new one has it from its start.
func TestAClockIsWrongForTheNextLifeTooAndOverlapsAddUp(t *testing.T) {
	f := newFixture(t, 1, withClocks(t))
	first, second := f.clockStep("by", "1h"), f.clockStep("by", "2h")
	first.Duration, second.Duration = 8*short, 12*short
	second.At = short
	n := f.nemesis(first, second, Step{At: 2 * short, Fault: "kill", Target: "n1", Duration: short})
	over := make(chan error, 1)
	go func() { over <- n.Run(context.Background()) }()
	eventually(t, patience, "the kill is healed", func() bool { return len(f.recorded.phases(3)) == 4 })
	if wall, _ := f.says("n1"); (time.Until(wall) - 3*time.Hour).Abs() > time.Minute {
		t.Errorf("with 1h and 2h in force the new process says %s", wall)
	}
	eventually(t, patience, "the first is healed", func() bool { return len(f.recorded.phases(1)) == 4 })
	if wall, _ := f.says("n1"); (time.Until(wall) - 2*time.Hour).Abs() > time.Minute {
		t.Errorf("with 2h in force it says %s", wall)
	}
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	for id := 1; id <= 3; id++ {
		expectPhases(t, f.recorded, id, landedAndHealed...)
	}
}

func TestAClockThatDidNotMoveIsAMissedFault(t *testing.T) {
	moved := func(by time.Duration, rate float64) agent.ClockReply {
		return agent.ClockReply{Pid: 1, Realtime: agent.ClockShown{Offset: by, Rate: rate}, Monotonic: agent.ClockShown{Rate: 1}}
	}
	jumped := clockLayerOf("1", realtime, agent.ClockShift{Jump: time.Hour, Rate: 1})
	for name, c := range map[string]struct {
		layer agent.ClockLayer
		reply agent.ClockReply
		want  string
	}{
		"it jumped":        {jumped, moved(time.Hour, 1), ""},
		"it did not":       {jumped, moved(0, 1), "REALTIME moved by 0s, not by 1h0m0s"},
		"it was not slow":  {clockLayerOf("1", monotonic, agent.ClockShift{Rate: 0.5}), moved(0, 1), "MONOTONIC runs at 1, not at 0.5"},
		"it was not still": {clockLayerOf("1", realtime, agent.ClockShift{Rate: 0}), moved(0, 1), "REALTIME runs at 1, not at 0"},
	} {
		err := clockLanded(c.layer, c.reply, true)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f := newFixture(t, 1, withClocks(t))
	n := f.nemesis(f.clockStep("by", "1h"))
	n.effects.clock = func(context.Context, string) (time.Time, error) { return time.Now(), nil } // whatever is done
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, histories.Inject, histories.Missed)
	n.effects.clock = func(context.Context, string) (time.Time, error) { return time.Time{}, errors.New("cut off") }
	if wall, _ := f.says("n1"); time.Until(wall).Abs() > time.Minute {
		t.Errorf("what missed was not undone: %s", wall)
	}
}
