package checkers

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"capsize/histories"
)

// Exits checks that no node's process ended by itself: a node that nobody told to end,
// and that ends all the same, is broken. One that ends under a fault at which programs may end
// ([histories.Fault].MayEnd), a failing disk for one, did what it should. The harness records such an end as an observer's
// event with F "exit" and the log's last words in Error.
type Exits struct{}

// Name is "exits".
func (*Exits) Name() string { return "exits" }

// strangers are ends that another than the system may have caused: the kernel when memory
// is short, a full disk.
var strangers = []string{"killed by SIGKILL", "no space left on device", "cannot allocate memory"}

// Check looks for the first end of a process that nobody asked for.
func (*Exits) Check(_ context.Context, run *Run) Result {
	result := Result{Verdict: Valid, Summary: "no node's process ended by itself"}
	excused := 0
	served := false                            // a cluster that never served was not tested: that is the harness's to tell
	standing := make(map[int]*histories.Fault) // at which programs may end
	for i := range run.History {
		e := &run.History[i]
		served = served || e.Process >= 0
		noteMayEnd(standing, e)
		if e.Process != histories.Observer || e.F != "exit" {
			continue
		}
		verdict := Invalid
		if !served {
			verdict = Unknown
		}
		if mayEnd(standing, e.Node) {
			excused++
			continue
		}
		for _, sign := range strangers {
			if strings.Contains(e.Error, sign) {
				verdict = Unknown // the machine may be at fault
			}
		}
		if worse := Worse(verdict, result.Verdict); worse != result.Verdict {
			result.Verdict, result.Summary = verdict, fmt.Sprintf("at %s %s", clockOf(e), e.Error)
		}
	}
	if excused > 0 {
		result.Summary += fmt.Sprintf(" (%d did under a fault at which a process may end)", excused)
	}
	return result
}

// noteMayEnd keeps the faults in force at which programs may end. One that missed may be in
// force in part, and nothing tells when that is over.
func noteMayEnd(standing map[int]*histories.Fault, e *histories.Event) {
	if e.Fault == nil || !e.Fault.MayEnd {
		return
	}
	switch e.Fault.Phase {
	case histories.Inject:
		standing[e.Fault.ID] = e.Fault
	case histories.Healed:
		delete(standing, e.Fault.ID)
	}
}

func mayEnd(standing map[int]*histories.Fault, node string) bool {
	for _, fault := range standing {
		if slices.Contains(fault.Nodes, node) {
			return true
		}
	}
	return false
}

func clockOf(e *histories.Event) string { return fmt.Sprintf("%.3f s", e.Time.Seconds()) }
