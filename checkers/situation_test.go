package checkers

import (
	"slices"
	"testing"
	"time"

	"capsize/histories"
)

func TestASituationHasTheFaultsAndLeadersOfItsTime(t *testing.T) {
	const s = time.Second
	led := func(at time.Duration, node, role string, term uint64) histories.Event {
		return histories.Event{Time: at, Process: histories.Observer, Type: histories.Info, Node: node, Status: &histories.Status{Up: true, Role: role, Term: term}}
	}
	fault := func(at time.Duration, id int, name string, phase histories.Phase) histories.Event {
		return histories.Event{Time: at, Process: histories.Nemesis, Type: histories.Info, F: name, Fault: &histories.Fault{ID: id, Name: name, Phase: phase, Nodes: []string{"n1"}}}
	}
	run := &Run{History: []histories.Event{
		fault(1*s, 1, "kill", histories.Landed), led(1*s, "n1", "leader", 2), fault(2*s, 1, "kill", histories.Healed),
		led(3*s, "n1", "follower", 3), led(3*s, "n2", "leader", 3), fault(4*s, 2, "pause", histories.Landed),
		led(6*s, "n2", "follower", 4), led(6*s, "n3", "leader", 4), fault(7*s, 2, "pause", histories.Healed),
		fault(8*s, 3, "disk", histories.Landed), led(9*s, "n1", "leader", 5),
	}}
	for _, test := range []struct {
		from, to        time.Duration
		faults, leaders []string
	}{
		{5 * s, 7 * s, []string{"pause of n1 from 4.000 s to 7.000 s"}, []string{"n2 in term 3", "n3 in term 4 from 6.000 s"}},
		{4500 * time.Millisecond, 5 * s, []string{"pause of n1 from 4.000 s on"}, []string{"n2 in term 3"}},
		{0, 500 * time.Millisecond, nil, nil},
		{10 * s, 20 * s, []string{"disk of n1 from 8.000 s on"}, []string{"n1 in term 5", "n3 in term 4"}},
	} {
		got := SituationOf(run, test.from, test.to)
		if !slices.Equal(got.Faults, test.faults) || !slices.Equal(got.Leaders, test.leaders) {
			t.Errorf("from %s to %s: %q, %q", test.from, test.to, got.Faults, got.Leaders)
		}
	}
}
