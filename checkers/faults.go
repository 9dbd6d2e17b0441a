package checkers

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"capsize/histories"
)

// Faults checks that the nemesis did what was planned: every fault landed and was healed,
// each with proof. A run whose faults did not land tested less than it seems to: it is
// unknown, never valid.
type Faults struct {
	Planned int // faults in the schedule
}

// Name is "faults".
func (*Faults) Name() string { return "faults" }

// Check follows each fault through its phases.
func (f *Faults) Check(_ context.Context, run *Run) Result {
	evidence := &FaultsEvidence{Planned: f.Planned, ByName: make(map[string]int)}
	lives := make(map[int]*life)
	leaders := make(lastStatus)
	for i := range run.History {
		e := &run.History[i]
		leaders.note(e)
		if e.Fault == nil {
			continue
		}
		l := lives[e.Fault.ID]
		if l == nil {
			l = &life{fault: e.Fault}
			lives[e.Fault.ID] = l
		}
		l.note(e, leaders)
	}
	for _, id := range slices.Sorted(maps.Keys(lives)) {
		evidence.add(lives[id])
	}
	if began := len(lives); began < f.Planned {
		evidence.Problems = append(evidence.Problems, fmt.Sprintf("only %d of %d planned faults began", began, f.Planned))
	}
	return f.judge(evidence)
}

func (f *Faults) judge(e *FaultsEvidence) Result {
	result := Result{Faults: e, Verdict: Valid}
	switch {
	case len(e.Problems) > 0:
		result.Verdict = Unknown
		result.Summary = fmt.Sprintf("of %d planned faults %d landed and %d were healed: %s", f.Planned, e.Landed, e.Healed, strings.Join(e.Problems, "; "))
	case f.Planned == 0 && e.Landed == 0:
		result.Summary = "no fault was planned"
	default:
		result.Summary = fmt.Sprintf("all %d faults landed and were healed, %d of them hit the leader", e.Landed, e.OnLeader)
	}
	return result
}

// life is what became of one fault.
type life struct {
	fault    *histories.Fault // of its last event with targets
	landed   *histories.Event
	ended    *histories.Event // Healed or Stuck, the last of them
	missed   *histories.Event
	onLeader bool
}

func (l *life) note(e *histories.Event, leaders lastStatus) {
	switch e.Fault.Phase {
	case histories.Inject:
		l.onLeader = slices.Contains(e.Fault.Nodes, leaders.leader())
	case histories.Landed:
		l.landed = e
	case histories.Missed:
		l.missed = e
	case histories.Healed, histories.Stuck:
		l.ended = e
	}
	if len(e.Fault.Nodes) > 0 {
		l.fault = e.Fault
	}
}

func (e *FaultsEvidence) add(l *life) {
	problem := func(format string, args ...any) {
		name := fmt.Sprintf("fault %d (%s of %s): ", l.fault.ID, l.fault.Name, target(l.fault))
		e.Problems = append(e.Problems, name+fmt.Sprintf(format, args...))
	}
	switch {
	case l.landed == nil && l.missed != nil:
		problem("it missed: %s", l.missed.Error)
	case l.landed == nil:
		problem("it was injected, but nothing says that it landed")
	case l.missed != nil:
		problem("it did not stay in force: %s", l.missed.Error)
	case len(l.landed.Fault.Proof) == 0:
		problem("it is said to have landed, without proof")
	default:
		e.Landed++
		e.ByName[l.fault.Name]++
		if l.onLeader {
			e.OnLeader++
		}
	}
	switch {
	case l.ended != nil && l.ended.Fault.Phase == histories.Stuck:
		problem("it is stuck, not healed: %s", l.ended.Error)
	case l.landed == nil:
	case l.ended == nil:
		problem("it was still in force when the recording ended")
	case len(l.ended.Fault.Proof) == 0:
		problem("it is said to be healed, without proof")
	default:
		e.Healed++
	}
}

func target(f *histories.Fault) string {
	nodes := strings.Join(f.Nodes, " ")
	if nodes == "" || nodes == f.Target {
		return f.Target
	}
	return f.Target + ", " + nodes
}

// lastStatus is what each node said of itself last.
type lastStatus map[string]*histories.Status

func (s lastStatus) note(e *histories.Event) {
	if e.Process == histories.Observer && e.Status != nil {
		s[e.Node] = e.Status
	}
}

// leader returns the node that leads in the highest term, as far as the nodes said; empty
// for none. A node that was cut off may believe to lead an older term.
func (s lastStatus) leader() string {
	leader, term := "", uint64(0)
	for _, node := range slices.Sorted(maps.Keys(s)) {
		if status := s[node]; status.Up && status.Role == "leader" && (leader == "" || status.Term > term) {
			leader, term = node, status.Term
		}
	}
	return leader
}
