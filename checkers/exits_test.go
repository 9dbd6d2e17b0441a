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
