package checkers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"capsize/histories"
)

// Liveness checks that the cluster serves again once everything is healed: every node
// answers an operation within a bound.
type Liveness struct {
	Bound time.Duration
}

// Name is "liveness".
func (*Liveness) Name() string { return "liveness" }

// Check looks for each node's first answer to a final operation.
func (l *Liveness) Check(_ context.Context, run *Run) Result {
	evidence := &LivenessEvidence{Bound: l.Bound, Answered: make(map[string]time.Duration)}
	asked := make(map[string]bool)
	stuck := ""
	for i := range run.History {
		e := &run.History[i]
		switch {
		case e.Fault != nil && e.Fault.Phase == histories.Healed:
			evidence.HealedAt = e.Time
		case e.Fault != nil && e.Fault.Phase == histories.Stuck:
			stuck = fmt.Sprintf("%s on %s", e.Fault.Name, strings.Join(e.Fault.Nodes, ", "))
		case e.Process >= 0 && e.Final && e.Type == histories.Invoke:
			if len(asked) == 0 {
				evidence.HealedAt = max(evidence.HealedAt, e.Time)
			}
			asked[e.Node] = true
		case e.Process >= 0 && e.Final && e.Type == histories.OK:
			if _, before := evidence.Answered[e.Node]; !before {
				evidence.Answered[e.Node] = e.Time - evidence.HealedAt
			}
		}
	}
	var slow []string
	for _, node := range run.Nodes {
		after, answered := evidence.Answered[node]
		if !answered {
			evidence.Silent = append(evidence.Silent, node)
		}
		if !answered || after > l.Bound {
			slow = append(slow, node)
		}
	}
	result := Result{Liveness: evidence}
	switch {
	case stuck != "":
		result.Verdict, result.Summary = Unknown, "not everything was healed ("+stuck+"): the cluster had no fair chance"
	case slices.ContainsFunc(run.Nodes, func(n string) bool { return !asked[n] }):
		result.Verdict, result.Summary = Unknown, "not every node was asked after the last heal: the run ended too early to tell"
	case len(slow) > 0:
		result.Verdict = Invalid
		result.Summary = fmt.Sprintf("%s did not answer within %s of the last heal", strings.Join(slow, ", "), l.Bound)
	default:
		var longest time.Duration
		for _, after := range evidence.Answered {
			longest = max(longest, after)
		}
		result.Verdict = Valid
		result.Summary = fmt.Sprintf("every node answered within %s of the last heal", longest.Round(time.Millisecond))
	}
	return result
}
