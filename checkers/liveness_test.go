package checkers

import (
	"context"
	"strings"
	"testing"
	"time"

	"capsize/histories"
)

// timeline makes a history whose events are given times of their own.
type timeline struct {
	log
	next int
}

func (l *timeline) at(seconds float64, e histories.Event) {
	index := l.add(e)
	l.events[index].Time = time.Duration(seconds * float64(time.Second))
}

// asks lets a fresh process read on a node, from one second to another.
func (l *timeline) asks(node string, from, to float64, ends histories.Type, final bool) {
	e := histories.Event{Process: l.next, F: "read", Key: "k", Node: node, Final: final}
	l.next++
	l.at(from, e)
	e.Type = ends
	l.at(to, e)
}

func (l *timeline) fault(seconds float64, id int, phase histories.Phase, nodes ...string) {
	e := histories.Event{
		Process: histories.Nemesis, Type: histories.Info, F: "pause",
		Fault: &histories.Fault{ID: id, Name: "pause", Phase: phase, Target: "one", Nodes: nodes},
	}
	switch phase {
	case histories.Landed, histories.Healed:
		e.Fault.Proof = []string{"state T in /proc"}
	case histories.Missed, histories.Stuck:
		e.Error = "no such process"
	}
	l.at(seconds, e)
}

func TestLiveness(t *testing.T) {
	const bound = 10 * time.Second
	for name, test := range map[string]struct {
		history func(l *timeline)
		want    Verdict
		says    string
	}{
		"every node answers": {func(l *timeline) {
			l.fault(1, 1, histories.Inject, "n1")
			l.fault(5, 1, histories.Healed, "n1")
			l.asks("n1", 6, 7, histories.OK, true)
			l.asks("n2", 7, 8, histories.OK, true)
			l.asks("n3", 8, 9, histories.OK, true)
		}, Valid, "every node answered within 4.0 s"},
		"an operation of the timed part is an answer too": {func(l *timeline) {
			l.fault(1, 1, histories.Inject, "n1")
			l.fault(5, 1, histories.Healed, "n1")
			l.asks("n1", 6, 7, histories.OK, false)
			l.asks("n2", 7, 8, histories.OK, false)
			l.asks("n3", 8, 9, histories.OK, false)
		}, Valid, ""},
		"one never answers": {func(l *timeline) {
			l.asks("n3", 0, 1, histories.OK, false)
			l.fault(1, 1, histories.Inject, "n1")
			l.fault(5, 1, histories.Healed, "n1")
			l.asks("n1", 5, 6, histories.OK, true)
			l.asks("n2", 6, 7, histories.OK, true)
			for at := 7.0; at < 17; at += 2 {
				l.asks("n3", at, at+2, histories.Info, true)
			}
		}, Invalid, "n3 did not answer within 10s of the last heal"},
		"one refuses all the time": {func(l *timeline) {
			l.asks("n1", 5, 6, histories.OK, true)
			l.asks("n2", 6, 7, histories.OK, true)
			for at := 7.0; at < 17; at++ {
				l.asks("n3", at, at+1, histories.Fail, true)
			}
		}, Invalid, "n3 did not answer"},
		"one answers too late": {func(l *timeline) {
			l.asks("n1", 5, 6, histories.OK, true)
			l.asks("n2", 6, 7, histories.OK, true)
			l.asks("n3", 7, 18, histories.OK, true)
		}, Invalid, "n3 answered only 13.0 s after the last heal; the bound is 10s"},
		"one is asked late and answers": {func(l *timeline) {
			l.asks("n1", 5, 6, histories.OK, true)
			l.asks("n2", 6, 7, histories.OK, true)
			l.asks("n3", 20, 21, histories.OK, true)
		}, Valid, ""},
		"one is asked again only late": {func(l *timeline) {
			l.asks("n1", 5, 6, histories.OK, true)
			l.asks("n2", 6, 7, histories.OK, true)
			l.asks("n3", 7, 8, histories.Fail, true)
			l.asks("n3", 30, 31, histories.OK, true)
		}, Unknown, "n3 answered 26.0 s after the last heal, but was not asked all the while"},
		"the run ends early": {func(l *timeline) {
			l.asks("n1", 5, 6, histories.OK, true)
			l.asks("n2", 6, 7, histories.OK, true)
			l.asks("n3", 7, 9, histories.Info, true)
		}, Unknown, "n3 was asked for 2.0 s only"},
		"a node is not asked": {func(l *timeline) {
			l.asks("n1", 5, 6, histories.OK, true)
			l.asks("n2", 6, 7, histories.OK, true)
		}, Unknown, "n3 was not asked"},
		"only questions from before the heal": {func(l *timeline) {
			e := histories.Event{Process: 0, F: "read", Key: "k", Node: "n3"}
			l.next = 1
			l.at(1, e)
			l.fault(2, 1, histories.Inject, "n3")
			l.fault(5, 1, histories.Healed, "n3")
			l.asks("n1", 5, 6, histories.OK, true)
			l.asks("n2", 6, 7, histories.OK, true)
			e.Type = histories.Info
			l.at(30, e)
		}, Unknown, "n3 was not asked"},
		"nothing happens after the heal": {func(l *timeline) {
			l.asks("n1", 0, 1, histories.OK, false)
			l.fault(1, 1, histories.Inject, "n1")
			l.fault(5, 1, histories.Healed, "n1")
		}, Unknown, "n1 was not asked, n2 was not asked"},
		"no faults and no last reads": {func(l *timeline) {
			l.asks("n1", 0, 1, histories.OK, false)
		}, Unknown, "not asked after the end"},
		"a fault in force at the end": {func(l *timeline) {
			l.fault(1, 1, histories.Inject, "n1")
			l.fault(1, 1, histories.Landed, "n1")
			l.asks("n1", 5, 6, histories.OK, true)
		}, Unknown, "fault 1 (pause) was still in force"},
		"a fault that missed needs no heal": {func(l *timeline) {
			l.fault(1, 1, histories.Inject, "n1")
			l.fault(2, 1, histories.Missed, "n1")
			l.asks("n1", 5, 6, histories.OK, true)
			l.asks("n2", 5, 6, histories.OK, true)
			l.asks("n3", 5, 6, histories.OK, true)
		}, Valid, ""},
		"silent, but stuck": {func(l *timeline) {
			l.fault(1, 1, histories.Inject, "n3")
			l.fault(5, 1, histories.Stuck, "n3")
			l.asks("n1", 5, 6, histories.OK, true)
			l.asks("n2", 6, 7, histories.OK, true)
			l.asks("n3", 7, 20, histories.Info, true)
		}, Unknown, "pause of n3"},
		"silent, since a stranger killed it": {func(l *timeline) {
			l.at(1, histories.Event{Process: histories.Observer, Type: histories.Info, F: "exit", Node: "n3", Error: "killed by SIGKILL"})
			l.asks("n1", 5, 6, histories.OK, true)
			l.asks("n2", 6, 7, histories.OK, true)
			l.asks("n3", 7, 20, histories.Info, true)
		}, Unknown, "n3 was ended from outside"},
		"silent, since it ended by itself": {func(l *timeline) {
			l.at(1, histories.Event{Process: histories.Observer, Type: histories.Info, F: "exit", Node: "n3", Error: "exit status 2"})
			l.asks("n1", 5, 6, histories.OK, true)
			l.asks("n2", 6, 7, histories.OK, true)
			l.asks("n3", 7, 20, histories.Info, true)
		}, Invalid, "n3 did not answer"},
		"stuck at first, healed later, silent": {func(l *timeline) {
			l.fault(1, 1, histories.Inject, "n3")
			l.fault(4, 1, histories.Stuck, "n3")
			l.fault(5, 1, histories.Healed, "n3")
			l.asks("n1", 5, 6, histories.OK, true)
			l.asks("n2", 6, 7, histories.OK, true)
			l.asks("n3", 7, 20, histories.Info, true)
		}, Invalid, "n3 did not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			var l timeline
			test.history(&l)
			run := &Run{Nodes: []string{"n1", "n2", "n3"}, History: l.events}
			result := (&Liveness{Bound: bound}).Check(context.Background(), run)
			if result.Verdict != test.want || !strings.Contains(result.Summary, test.says) {
				t.Errorf("%s: %s; want %s: %s", result.Verdict, result.Summary, test.want, test.says)
			}
		})
	}
}

// log makes events with consecutive indices, a millisecond apart.
type log struct{ events []histories.Event }

func (l *log) add(e histories.Event) int {
	e.Index, e.Time = len(l.events), time.Duration(len(l.events))*time.Millisecond
	l.events = append(l.events, e)
	return e.Index
}

func judged(t testing.TB, checker Checker, events []histories.Event) Result {
	t.Helper()
	if err := histories.Validate(events); err != nil {
		t.Fatalf("the test's history is wrong: %v", err)
	}
	return checker.Check(context.Background(), &Run{Nodes: []string{"n1", "n2", "n3"}, History: events})
}
