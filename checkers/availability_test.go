package checkers

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"capsize/histories"
)

// traffic is operations of 10 ms, one after the other, that succeed unless fails says otherwise, and
// are not made at all where rests does.
func traffic(fails, rests func(at time.Duration) bool) []histories.Event {
	const step = 10 * time.Millisecond
	var events []histories.Event
	for at := time.Duration(0); at < 10*time.Second; at += step {
		if rests(at) {
			continue
		}
		done := histories.OK
		if fails(at) {
			done = histories.Fail
		}
		node := fmt.Sprint("n", 1+(at/step)%2)
		events = append(events,
			histories.Event{Index: len(events), Time: at, F: "read", Node: node, Type: histories.Invoke},
			histories.Event{Index: len(events) + 1, Time: at + step, F: "read", Node: node, Type: done})
	}
	return events
}

func within(from, to time.Duration) func(time.Duration) bool {
	return func(at time.Duration) bool { return at >= from && at < to }
}

func never(time.Duration) bool { return false }

func TestOutagesAreMeasured(t *testing.T) {
	fault := func(at time.Duration, phase histories.Phase) histories.Event {
		return histories.Event{Time: at, Process: histories.Nemesis, Fault: &histories.Fault{ID: 1, Name: "kill", Phase: phase, Nodes: []string{"n1"}}}
	}
	events := traffic(within(3*time.Second, 5*time.Second), never)
	run := &Run{Nodes: []string{"n1", "n2"}, History: append([]histories.Event{}, events...)}
	run.History = append(run.History, fault(3*time.Second, histories.Landed), fault(4*time.Second, histories.Healed))
	r := (&Availability{}).Check(context.Background(), run)
	e := r.Availability
	if r.Verdict != Valid || len(e.Outages) != 1 || e.Outages[0].From != 3*time.Second || e.Outages[0].To != 5010*time.Millisecond || e.Share < 0.79 || e.Share > 0.81 {
		t.Fatalf("%s: %s: %+v", r.Verdict, r.Summary, e)
	}
	want := Recovery{ID: 1, Fault: "kill", Landed: 3 * time.Second, AfterHit: 2010 * time.Millisecond, Healed: 4 * time.Second, AfterAll: 1010 * time.Millisecond}
	if len(e.Recoveries) != 1 || e.Recoveries[0] != want {
		t.Errorf("%+v", e.Recoveries)
	}
	if e.Nodes["n1"] > 0.81 || e.Nodes["n2"] > 0.81 || !strings.Contains(r.Summary, "80.") && !strings.Contains(r.Summary, "79.") {
		t.Errorf("%v: %s", e.Nodes, r.Summary)
	}
}

func TestClientsThatRestMakeNoOutage(t *testing.T) {
	r := (&Availability{}).Check(context.Background(), &Run{History: traffic(never, within(3*time.Second, 5*time.Second))})
	if e := r.Availability; len(e.Outages) > 0 || e.Share != 1 {
		t.Errorf("%+v", e)
	}
}

func TestAnOutageThatNeverEndsIsOne(t *testing.T) {
	r := (&Availability{}).Check(context.Background(), &Run{History: traffic(within(8*time.Second, time.Minute), never)})
	if e := r.Availability; len(e.Outages) != 1 || e.Outages[0].To != 10*time.Second {
		t.Errorf("%+v", e)
	}
	for name, events := range map[string][]histories.Event{"nothing": nil, "only failures": traffic(within(0, time.Minute), never)} {
		if r := (&Availability{}).Check(context.Background(), &Run{History: events}); r.Verdict != Unknown {
			t.Errorf("%s: %s", name, r.Verdict)
		}
	}
}
