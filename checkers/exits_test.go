package checkers

import (
	"testing"

	"capsize/histories"
)

func TestANodeThatEndsBeforeTheClientsBeginSaysNothingOfTheSystem(t *testing.T) {
	run := &Run{History: []histories.Event{{Process: histories.Observer, Type: histories.Info, F: "exit", Node: "n3", Error: "exit status 1"}}}
	if result := (&Exits{}).Check(t.Context(), run); result.Verdict != Unknown {
		t.Errorf("%s (%s)", result.Verdict, result.Summary)
	}
}

func TestANodeThatEndsByItselfIsBrokenUnlessTheMachineMayBeAtFault(t *testing.T) {
	for name, c := range map[string]struct {
		words string
		want  Verdict
	}{
		"nothing ended":             {"", Valid},
		"a panic":                   {"n3's process ended by itself: exit status 2; its last log lines:\n    panic: index out of range", Invalid},
		"killed by a stranger":      {"n3's process ended by itself: killed by SIGKILL", Unknown},
		"stopped because of a disk": {"n3's process ended by itself: exit status 1; its last log lines:\n    write wal: no space left on device", Unknown},
	} {
		run := &Run{Nodes: []string{"n3"}, History: []histories.Event{{F: "read", Node: "n3"}}}
		if c.words != "" {
			run.History = append(run.History, histories.Event{Process: histories.Observer, Type: histories.Info, F: "exit", Node: "n3", Error: c.words})
		}
		if result := (&Exits{}).Check(t.Context(), run); result.Verdict != c.want {
			t.Errorf("%s: %s (%s)", name, result.Verdict, result.Summary)
		}
	}
}

func TestANodeMayEndWhileItsDiskFailsAndOnlyThen(t *testing.T) {
	fault := func(phase histories.Phase, mayEnd bool) histories.Event {
		return histories.Event{Process: histories.Nemesis, Fault: &histories.Fault{ID: 1, Name: "disk", Phase: phase, Nodes: []string{"n3"}, MayEnd: mayEnd}}
	}
	exit := func(node string) histories.Event {
		return histories.Event{Process: histories.Observer, F: "exit", Node: node, Error: node + "'s process ended by itself: exit status 1"}
	}
	served := histories.Event{F: "read", Node: "n3"}
	for name, c := range map[string]struct {
		events []histories.Event
		want   Verdict
	}{
		"while it fails":               {[]histories.Event{served, fault(histories.Inject, true), exit("n3"), fault(histories.Healed, true)}, Valid},
		"after it has healed":          {[]histories.Event{served, fault(histories.Inject, true), fault(histories.Healed, true), exit("n3")}, Invalid},
		"another node":                 {[]histories.Event{served, fault(histories.Inject, true), exit("n2"), fault(histories.Healed, true)}, Invalid},
		"a fault at which none may":    {[]histories.Event{served, fault(histories.Inject, false), exit("n3"), fault(histories.Healed, false)}, Invalid},
		"once while it fails, and not": {[]histories.Event{served, fault(histories.Inject, true), exit("n3"), fault(histories.Healed, true), exit("n3")}, Invalid},
	} {
		if result := (&Exits{}).Check(t.Context(), &Run{Nodes: []string{"n2", "n3"}, History: c.events}); result.Verdict != c.want {
			t.Errorf("%s: %s (%s)", name, result.Verdict, result.Summary)
		}
	}
}
