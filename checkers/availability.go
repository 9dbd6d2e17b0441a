package checkers

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"capsize/histories"
)

// Availability measures when the cluster served, and how fast it did again after each fault. It
// accuses nobody: a cluster without a majority may not serve. It is unknown where nothing ever
// succeeded.
type Availability struct {
	Bound time.Duration // silence up to here is no outage; 0: half a second
}

// AvailabilityEvidence is when the cluster served.
type AvailabilityEvidence struct {
	Bound      time.Duration      `json:"bound"`
	Share      float64            `json:"share"` // of the clients' time in which there was no outage
	Nodes      map[string]float64 `json:"nodes"` // the same of the operations that were put to one node
	Outages    []Outage           `json:"outages,omitempty"`
	Recoveries []Recovery         `json:"recoveries,omitempty"`
}

// Outage is a time in which clients asked and nothing succeeded.
type Outage struct {
	From   time.Duration `json:"from"`
	To     time.Duration `json:"to"`
	Faults []string      `json:"faults,omitempty"` // in force then
}

// Recovery is how long it took after a fault until an operation succeeded that was sent after.
type Recovery struct {
	ID       int           `json:"id"` // of the fault
	Fault    string        `json:"fault"`
	Landed   time.Duration `json:"landed"`
	AfterHit time.Duration `json:"afterHit"`            // from when it landed; negative: never again
	Healed   time.Duration `json:"healed,omitempty"`    // 0: it was not
	AfterAll time.Duration `json:"afterHeal,omitempty"` // from when it was healed; negative: never again
}

const usualSilence = 500 * time.Millisecond

// Name is "availability".
func (*Availability) Name() string { return "availability" }

// Check looks at the clients' operations, without the last reads.
func (a *Availability) Check(_ context.Context, run *Run) Result {
	e := &AvailabilityEvidence{Bound: cmp.Or(a.Bound, usualSilence), Nodes: make(map[string]float64)}
	var all []histories.Operation
	byNode := make(map[string][]histories.Operation)
	succeeded := false
	for _, op := range histories.Operations(run.History) {
		if op.Final {
			continue
		}
		all = append(all, op)
		byNode[op.Node] = append(byNode[op.Node], op)
		succeeded = succeeded || op.Type == histories.OK
	}
	if !succeeded {
		return Result{Verdict: Unknown, Availability: e, Summary: "no operation ever succeeded: nothing was tested"}
	}
	end := time.Duration(0)
	for _, op := range all {
		end = max(end, op.Call)
		if op.Type != histories.Info {
			end = max(end, op.Return)
		}
	}
	e.Outages, e.Share = outages(all, end, e.Bound)
	for i := range e.Outages {
		e.Outages[i].Faults = SituationOf(run, e.Outages[i].From, e.Outages[i].To).Faults
	}
	for _, node := range run.Nodes {
		if asked := byNode[node]; len(asked) > 0 {
			_, e.Nodes[node] = outages(asked, end, e.Bound)
		}
	}
	e.recover(run, all)
	return Result{Verdict: Valid, Availability: e, Summary: e.summary()}
}

// outages returns when clients asked and nothing succeeded for longer than a bound, and the share of
// the time that is left. Clients that rest do not make an outage.
func outages(operations []histories.Operation, end, bound time.Duration) (list []Outage, share float64) {
	served := slices.DeleteFunc(slices.Clone(operations), func(op histories.Operation) bool { return op.Type != histories.OK })
	slices.SortFunc(served, func(a, b histories.Operation) int { return cmp.Compare(a.Return, b.Return) })
	begin := operations[0].Call
	var out time.Duration
	next := 0 // the first operation that was called after since
	check := func(since, until time.Duration) {
		for ; next < len(operations) && operations[next].Call < since; next++ {
		}
		from := until
		if next < len(operations) {
			from = min(until, operations[next].Call)
		}
		if until-from > bound {
			list = append(list, Outage{From: from, To: until})
			out += until - from
		}
	}
	since := begin
	for _, op := range served {
		check(since, op.Return)
		since = op.Return
	}
	check(since, end)
	if end <= begin {
		return list, 1
	}
	return list, 1 - float64(out)/float64(end-begin)
}

// recover measures, of each fault that landed, when the first operation succeeded that was sent
// after it.
func (e *AvailabilityEvidence) recover(run *Run, all []histories.Operation) {
	// The earliest return among the operations from each one on, which are in order of call.
	earliest := make([]time.Duration, len(all)+1)
	earliest[len(all)] = -1
	for i := len(all) - 1; i >= 0; i-- {
		earliest[i] = earliest[i+1]
		if op := &all[i]; op.Type == histories.OK && (earliest[i] < 0 || op.Return < earliest[i]) {
			earliest[i] = op.Return
		}
	}
	after := func(at time.Duration) time.Duration {
		i, _ := slices.BinarySearchFunc(all, at, func(op histories.Operation, at time.Duration) int { return cmp.Compare(op.Call, at) })
		if earliest[i] < 0 {
			return -1
		}
		return earliest[i] - at
	}
	at := make(map[int]int)
	for i := range run.History {
		event := &run.History[i]
		if event.Fault == nil {
			continue
		}
		switch place, known := at[event.Fault.ID]; {
		case event.Fault.Phase == histories.Landed && !known:
			at[event.Fault.ID] = len(e.Recoveries)
			e.Recoveries = append(e.Recoveries, Recovery{ID: event.Fault.ID, Fault: event.Fault.Name, Landed: event.Time, AfterHit: after(event.Time)})
		case event.Fault.Phase == histories.Healed && known:
			e.Recoveries[place].Healed, e.Recoveries[place].AfterAll = event.Time, after(event.Time)
		}
	}
}

func (e *AvailabilityEvidence) summary() string {
	parts := []string{fmt.Sprintf("the cluster served %.1f %% of the time", 100*e.Share)}
	if len(e.Outages) > 0 {
		longest := slices.MaxFunc(e.Outages, func(a, b Outage) int { return cmp.Compare(a.To-a.From, b.To-b.From) })
		parts = append(parts, fmt.Sprintf("%d outages of more than %s, the longest of %s from %s", len(e.Outages), e.Bound, rounded(longest.To-longest.From), Clock(longest.From)))
	}
	if len(e.Recoveries) > 0 {
		slowest := slices.MaxFunc(e.Recoveries, func(a, b Recovery) int { return cmp.Compare(a.AfterHit, b.AfterHit) })
		if slowest.AfterHit >= 0 {
			parts = append(parts, fmt.Sprintf("after a fault landed an operation succeeded within %s (slowest: fault %d, %s)", rounded(slowest.AfterHit), slowest.ID, slowest.Fault))
		}
	}
	return strings.Join(parts, "; ")
}
