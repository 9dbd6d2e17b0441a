package checkers

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"capsize/histories"
)

// coveredRun has two partitions, of which one leaves the leader in a minority, and a kill of
// the leader.
func coveredRun() []histories.Event {
	at := func(seconds int) time.Duration { return time.Duration(seconds) * time.Second }
	fault := func(t int, id int, name string, phase histories.Phase, side string, nodes ...string) histories.Event {
		return histories.Event{Time: at(t), Process: histories.Nemesis, Type: histories.Info, Fault: &histories.Fault{
			ID: id, Name: name, Phase: phase, Nodes: nodes, Leader: "n1", Side: side, Proof: []string{"seen"}, Params: map[string]string{"kind": "halves"},
		}}
	}
	op := func(t, process int, what histories.Type) histories.Event {
		return histories.Event{Time: at(t), Process: process, Type: what, F: "read"}
	}
	return []histories.Event{
		op(0, 0, histories.Invoke), op(0, 1, histories.Invoke),
		fault(1, 1, "partition", histories.Landed, "minority", "n1", "n2"),
		op(2, 0, histories.OK), op(2, 0, histories.Invoke),
		fault(4, 1, "partition", histories.Heal, "minority", "n1", "n2"),
		op(5, 0, histories.OK), op(5, 1, histories.Info),
		fault(6, 2, "partition", histories.Landed, "majority", "n4"),
		fault(8, 2, "partition", histories.Heal, "majority", "n4"),
		fault(9, 3, "kill", histories.Landed, "", "n1"),
		fault(9, 3, "kill", histories.Heal, "", "n1"),
	}
}

func TestWhatARunCoveredIsMeasured(t *testing.T) {
	got := (&Coverage{}).Check(context.Background(), &Run{History: coveredRun()})
	want := []FaultCoverage{
		{Name: "partition", Landed: 2, OnLeader: 1, LeaderInMinority: 1, LeaderInMajority: 1, InForce: 5 * time.Second, InFlight: 2, During: 3},
		{Name: "kill", Landed: 1, OnLeader: 1},
	}
	if got.Verdict != Valid || !cmp.Equal(got.Coverage.Faults, want) {
		t.Errorf("%+v: %s", got, cmp.Diff(want, got.Coverage.Faults))
	}
	const line = "partition 2× (1 on the leader, 5.0 s in all, 3 operations in flight, 1 with the leader in a minority), kill 1× (1 on the leader, 0.0 s in all, 0 operations in flight)"
	if got.Summary != line {
		t.Errorf("summary %q", got.Summary)
	}
}

func TestADemandThatIsNotMetMakesTheRunUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		demand Demand
		want   string // what is said to be missing; empty where nothing is
	}{
		"any fault":                {Demand{Times: 3}, ""},
		"one more":                 {Demand{Times: 4}, "3 times of 4"},
		"a partition":              {Demand{Faults: []string{"partition"}}, ""},
		"a clock":                  {Demand{Faults: []string{"clock"}}, "0 times of 1"},
		"leader in the minority":   {Demand{Faults: []string{"partition"}, Leader: "minority"}, ""},
		"twice in the minority":    {Demand{Faults: []string{"partition"}, Leader: "minority", Times: 2}, "1 times of 2"},
		"the leader hit":           {Demand{Leader: "hit", Times: 2}, ""},
		"the leader hit more":      {Demand{Leader: "hit", Times: 3}, "2 times of 3"},
		"another kind":             {Demand{Params: map[string]string{"kind": "ring"}}, "0 times of 1"},
		"long enough":              {Demand{InForce: 5 * time.Second}, ""},
		"longer":                   {Demand{InForce: 6 * time.Second}, "in force for 5.0 s of 6.0 s"},
		"operations in flight":     {Demand{Operations: 2}, ""},
		"more operations":          {Demand{Operations: 3}, "2 operations in flight of 3"},
		"without proof it did not": {Demand{Faults: []string{"pause"}}, "0 times of 1"},
	} {
		events := append(coveredRun(), histories.Event{Process: histories.Nemesis, Fault: &histories.Fault{ID: 9, Name: "pause", Phase: histories.Landed}})
		c.demand.What = name
		got := (&Coverage{Demands: []Demand{c.demand}}).Check(context.Background(), &Run{History: events})
		if c.want == "" && got.Verdict != Valid || c.want != "" && (got.Verdict != Unknown || !strings.Contains(got.Summary, name+": "+c.want)) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestAFaultBeyondRaftIsTold(t *testing.T) {
	events := []histories.Event{{Process: histories.Nemesis, Fault: &histories.Fault{ID: 1, Name: "amnesia", Phase: histories.Landed, Proof: []string{"seen"}, Beyond: "memory is kept"}}}
	if got := (&Coverage{}).Check(context.Background(), &Run{History: events}); len(got.Coverage.Beyond) != 1 || got.Coverage.Beyond[0] != "amnesia: memory is kept" {
		t.Errorf("%+v", got.Coverage)
	}
}
