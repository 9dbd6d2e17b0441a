package checkers

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"capsize/histories"
)

// Faults checks that the nemesis did what was planned: every fault landed and healed,
// with proof. A run whose faults did not land tested less than it says.
type Faults struct {
	Planned int
}

// Name is "faults".
func (*Faults) Name() string { return "faults" }

// Check counts landed and healed faults.
func (f *Faults) Check(_ context.Context, run *Run) Result {
	evidence := &FaultsEvidence{Planned: f.Planned, ByName: make(map[string]int)}
	leader := make(map[string]bool) // node to whether it led when it was last asked
	for i := range run.History {
		e := &run.History[i]
		if e.Process == histories.Observer && e.Status != nil {
			leader[e.Node] = e.Status.Up && e.Status.Role == "leader"
		}
		if e.Fault != nil {
			evidence.note(e, leader)
		}
	}
	result := Result{Faults: evidence, Verdict: Valid}
	if evidence.Landed < f.Planned && len(evidence.Problems) == 0 {
		evidence.Problems = append(evidence.Problems, fmt.Sprintf("only %d of %d planned faults began", evidence.Landed, f.Planned))
	}
	if evidence.Landed < f.Planned || evidence.Healed < evidence.Landed {
		result.Verdict = Unknown
		result.Summary = fmt.Sprintf("of %d planned faults %d landed and %d healed: %s", f.Planned, evidence.Landed, evidence.Healed, strings.Join(evidence.Problems, "; "))
		return result
	}
	if f.Planned == 0 {
		result.Summary = "no fault was planned"
		return result
	}
	result.Summary = fmt.Sprintf("all %d faults landed and healed, %d of them on the leader", f.Planned, evidence.OnLeader)
	return result
}

func (e *FaultsEvidence) note(event *histories.Event, leader map[string]bool) {
	fault := event.Fault
	switch fault.Phase {
	case histories.Inject:
		if slices.ContainsFunc(fault.Nodes, func(node string) bool { return leader[node] }) {
			e.OnLeader++
		}
	case histories.Landed:
		e.Landed++
		e.ByName[fault.Name]++
	case histories.Healed:
		e.Healed++
	case histories.Missed, histories.Stuck:
		e.Problems = append(e.Problems, fmt.Sprintf("fault %d (%s on %s) %s: %s", fault.ID, fault.Name, fault.Target, fault.Phase, event.Error))
	}
}
