package checkers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"capsize/histories"
)

// Demand is something that a run must have put to the test: faults of these names, landed
// with proof, so often, so long, with so many operations in flight.
type Demand struct {
	What   string   // as its author put it, for people
	Faults []string // names; empty for any
	Params map[string]string
	// Leader: "hit" (the leader was among the targets), or on which side of a partition it was,
	// "minority" or "majority"; empty for no matter.
	Leader     string
	Times      int
	InForce    time.Duration // all together
	Operations int           // in flight when they landed, all together
}

// Coverage checks that a run put to the test what was demanded of it. One that did not is
// unknown, whatever else it found to hold.
type Coverage struct {
	Demands []Demand
}

// Name is "coverage".
func (*Coverage) Name() string { return "coverage" }

// Check measures every fault that landed, and holds that against the demands.
func (c *Coverage) Check(_ context.Context, run *Run) Result {
	spans := faultSpans(run.History)
	evidence := &CoverageEvidence{}
	for _, span := range spans {
		evidence.add(span)
	}
	for _, demand := range c.Demands {
		if missed := demand.missed(spans); missed != "" {
			evidence.Missed = append(evidence.Missed, missed)
		}
	}
	result := Result{Verdict: Valid, Coverage: evidence}
	switch {
	case len(evidence.Missed) > 0:
		result.Verdict = Unknown
		result.Summary = "the run did not test what was demanded: " + strings.Join(evidence.Missed, "; ")
	case len(c.Demands) > 0:
		result.Summary = fmt.Sprintf("all %d demands were met: %s", len(c.Demands), evidence)
	default:
		result.Summary = evidence.String()
	}
	return result
}

// String tells in a line what each fault put to the test.
func (e *CoverageEvidence) String() string {
	if len(e.Faults) == 0 {
		return "no fault landed"
	}
	said := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		said[i] = fmt.Sprintf("%s %d× (%d on the leader, %s in all, %d operations in flight)", f.Name, f.Landed, f.OnLeader, seconds(f.InForce), f.During)
		if f.LeaderInMinority > 0 {
			said[i] = strings.TrimSuffix(said[i], ")") + fmt.Sprintf(", %d with the leader in a minority)", f.LeaderInMinority)
		}
	}
	return strings.Join(said, ", ")
}

// faultSpan is one fault that landed, with what went on around it.
type faultSpan struct {
	fault    *histories.Fault
	inForce  time.Duration // from landed to healed, or to the end of the history
	inFlight int           // operations, when it landed
	during   int           // operations that were in flight at some moment while it was in force
}

func (s faultSpan) onLeader() bool {
	return s.fault.Leader != "" && slices.Contains(s.fault.Nodes, s.fault.Leader)
}

// faultSpans measures the faults that landed with proof, in the order in which they did.
func faultSpans(events []histories.Event) []faultSpan {
	var spans []faultSpan
	open := make(map[int]int) // step to its span
	began := make(map[int]time.Duration)
	flying := 0
	for i := range events {
		e := &events[i]
		switch {
		case e.Process >= 0 && e.Type == histories.Invoke:
			flying++
			for _, at := range open {
				spans[at].during++
			}
		case e.Process >= 0:
			flying--
		case e.Fault == nil:
		case e.Fault.Phase == histories.Landed && len(e.Fault.Proof) > 0:
			open[e.Fault.ID], began[e.Fault.ID] = len(spans), e.Time
			spans = append(spans, faultSpan{fault: e.Fault, inFlight: flying, during: flying})
		case e.Fault.Phase == histories.Heal, e.Fault.Phase == histories.Missed:
			if at, landed := open[e.Fault.ID]; landed {
				spans[at].inForce = e.Time - began[e.Fault.ID]
				delete(open, e.Fault.ID)
			}
		}
	}
	for id, at := range open {
		spans[at].inForce = events[len(events)-1].Time - began[id]
	}
	return spans
}

// matches reports whether a fault is of the kind that is demanded.
func (d Demand) matches(s faultSpan) bool {
	if len(d.Faults) > 0 && !slices.Contains(d.Faults, s.fault.Name) {
		return false
	}
	for name, value := range d.Params {
		if s.fault.Params[name] != value {
			return false
		}
	}
	switch d.Leader {
	case "":
		return true
	case "hit":
		return s.onLeader()
	default:
		return s.fault.Side == d.Leader
	}
}

// missed says what of the demand was not met; nothing if all was.
func (d Demand) missed(spans []faultSpan) string {
	times, operations, inForce := 0, 0, time.Duration(0)
	for _, span := range spans {
		if d.matches(span) {
			times++
			operations += span.inFlight
			inForce += span.inForce
		}
	}
	var short []string
	if want := max(1, d.Times); times < want {
		short = append(short, fmt.Sprintf("%d times of %d", times, want))
	}
	if inForce < d.InForce {
		short = append(short, fmt.Sprintf("in force for %s of %s", seconds(inForce), seconds(d.InForce)))
	}
	if operations < d.Operations {
		short = append(short, fmt.Sprintf("%d operations in flight of %d", operations, d.Operations))
	}
	if len(short) == 0 {
		return ""
	}
	return d.What + ": " + strings.Join(short, ", ")
}

func (e *CoverageEvidence) add(s faultSpan) {
	i := slices.IndexFunc(e.Faults, func(f FaultCoverage) bool { return f.Name == s.fault.Name })
	if i < 0 {
		i = len(e.Faults)
		e.Faults = append(e.Faults, FaultCoverage{Name: s.fault.Name})
	}
	f := &e.Faults[i]
	f.Landed++
	f.InForce += s.inForce
	f.InFlight += s.inFlight
	f.During += s.during
	if s.onLeader() {
		f.OnLeader++
	}
	switch s.fault.Side {
	case "minority":
		f.LeaderInMinority++
	case "majority":
		f.LeaderInMajority++
	}
	if s.fault.Beyond != "" && !slices.Contains(e.Beyond, s.fault.Name+": "+s.fault.Beyond) {
		e.Beyond = append(e.Beyond, s.fault.Name+": "+s.fault.Beyond)
	}
}
