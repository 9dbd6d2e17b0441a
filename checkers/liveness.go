package checkers

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"capsize/histories"
)

// Liveness checks that the cluster serves again once everything is healed: each node
// answers some operation with ok within Bound. The clients' last reads, which go to every
// node after the heal, are the questions.
//
// A node's time begins when everything is healed, but not before it is first asked. It is
// accused only of questions that were put to it after the heal and left open for
// nearly all of Bound; a run that ended earlier proves nothing.
type Liveness struct {
	Bound time.Duration
}

// Name is "liveness".
func (*Liveness) Name() string { return "liveness" }

// Check looks for each node's first answer after the last heal. Without faults, the time
// runs from the first of the last reads.
func (l *Liveness) Check(_ context.Context, run *Run) Result {
	healed, why := lastHeal(run.History)
	evidence := &LivenessEvidence{HealedAt: healed, Bound: l.Bound, Answered: make(map[string]time.Duration)}
	if why != "" {
		return Result{Verdict: Unknown, Summary: why, Liveness: evidence}
	}
	var slow, untold []string
	for _, node := range run.Nodes {
		r := recoveryOf(node, run.History, healed, l.Bound)
		if r.answered {
			evidence.Answered[node] = r.answeredAt - healed
		}
		given := r.openUntil - r.askedAt
		switch {
		case r.answered && (!r.asked || r.answeredAt-r.askedAt <= l.Bound):
		case !r.answered && endedFromOutside(node, run.History):
			untold = append(untold, fmt.Sprintf("%s was ended from outside", node))
		case !r.asked:
			untold = append(untold, fmt.Sprintf("%s was not asked", node))
		case given < l.patience() && r.answered:
			untold = append(untold, fmt.Sprintf("%s answered %s after the last heal, but was not asked all the while", node, seconds(r.answeredAt-healed)))
		case given < l.patience():
			untold = append(untold, fmt.Sprintf("%s was asked for %s only, and did not answer", node, seconds(given)))
		case r.answered:
			evidence.Silent = append(evidence.Silent, node)
			slow = append(slow, fmt.Sprintf("%s answered only %s after the last heal; the bound is %s", node, seconds(r.answeredAt-healed), l.Bound))
		default:
			evidence.Silent = append(evidence.Silent, node)
			slow = append(slow, fmt.Sprintf("%s did not answer within %s of the last heal", node, l.Bound))
		}
	}
	return l.judge(run, evidence, slow, untold)
}

func (l *Liveness) judge(run *Run, evidence *LivenessEvidence, slow, untold []string) Result {
	result := Result{Liveness: evidence}
	stuck := stuckFaults(run.History)
	switch {
	case len(evidence.Silent) > 0 && len(stuck) > 0:
		result.Verdict = Unknown
		result.Summary = fmt.Sprintf("%s did not answer, but not everything was healed (%s): the system had no fair chance", strings.Join(evidence.Silent, ", "), strings.Join(stuck, ", "))
	case len(slow) > 0:
		result.Verdict, result.Summary = Invalid, strings.Join(slow, ", ")
	case len(untold) > 0:
		result.Verdict, result.Summary = Unknown, "it cannot be told whether every node serves again: "+strings.Join(untold, ", ")
	default:
		var longest time.Duration
		for _, after := range evidence.Answered {
			longest = max(longest, after)
		}
		result.Verdict = Valid
		result.Summary = fmt.Sprintf("every node answered within %s of the last heal", seconds(longest))
	}
	return result
}

// patience is how long questions must have been open to accuse a node: the whole bound but
// for the pause that a client makes between two questions.
func (l *Liveness) patience() time.Duration { return l.Bound - min(l.Bound/4, 500*time.Millisecond) }

// lastHeal returns when everything was healed: the last event that says so, or that
// healing failed, or the first of the last reads where no fault was in force before. Where
// there is no such moment, it says why.
func lastHeal(events []histories.Event) (at time.Duration, why string) {
	inForce := make(map[int]string)
	faulty, asked := false, false
	for i := range events {
		e := &events[i]
		switch {
		case e.Fault != nil:
			switch e.Fault.Phase {
			case histories.Inject, histories.Landed:
				inForce[e.Fault.ID] = e.Fault.Name
			case histories.Missed:
				delete(inForce, e.Fault.ID)
			case histories.Healed, histories.Stuck:
				delete(inForce, e.Fault.ID)
				at, faulty = e.Time, true
			}
		case e.Process >= 0 && e.Final && !asked:
			asked = true
			if !faulty {
				at = e.Time
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(inForce)) {
		return at, fmt.Sprintf("fault %d (%s) was still in force when the recording ended", id, inForce[id])
	}
	if !faulty && !asked {
		return at, "the nodes were not asked after the end of the run"
	}
	return at, ""
}

// stuckFaults names the faults that were never healed.
func stuckFaults(events []histories.Event) []string {
	names := make(map[int]string)
	for i := range events {
		if f := events[i].Fault; f != nil && f.Phase == histories.Stuck {
			names[f.ID] = fmt.Sprintf("%s of %s", f.Name, strings.Join(f.Nodes, " "))
		} else if f != nil && f.Phase == histories.Healed {
			delete(names, f.ID)
		}
	}
	var stuck []string
	for _, name := range names {
		stuck = append(stuck, name)
	}
	slices.Sort(stuck)
	return stuck
}

// recovery is what one node did after everything was healed.
type recovery struct {
	asked, answered     bool
	askedAt, answeredAt time.Duration // first
	openUntil           time.Duration // until when it is known not to have answered
}

func recoveryOf(node string, events []histories.Event, healed, bound time.Duration) recovery {
	var r recovery
	open := make(map[int]time.Duration) // process to when it put a question, after the heal
	for i := range events {
		e := &events[i]
		if e.Time < healed || e.Process < 0 || e.Node != node {
			continue
		}
		switch {
		case e.Type == histories.Invoke:
			open[e.Process] = e.Time
			if !r.asked {
				r.asked, r.askedAt, r.openUntil = true, e.Time, e.Time
			}
		case e.Type == histories.OK:
			r.answered, r.answeredAt = true, e.Time
			for _, since := range open {
				// A question that was put only when the time was over proves nothing.
				if since-r.askedAt <= bound {
					r.openUntil = e.Time
				}
			}
			return r
		default:
			if _, asked := open[e.Process]; asked {
				delete(open, e.Process)
				r.openUntil = e.Time
			}
		}
	}
	if len(open) > 0 {
		r.openUntil = events[len(events)-1].Time
	}
	return r
}

// endedFromOutside reports whether a node's process ended in a way that the system need
// not be to blame for; see [Exits].
func endedFromOutside(node string, events []histories.Event) bool {
	return slices.ContainsFunc(events, func(e histories.Event) bool {
		return e.Process == histories.Observer && e.F == "exit" && e.Node == node &&
			slices.ContainsFunc(strangers, func(sign string) bool { return strings.Contains(e.Error, sign) })
	})
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
