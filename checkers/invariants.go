package checkers

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"capsize/checkers/invariants"
)

// Invariants checks what Raft promises at every step, I1 to I18 of package invariants,
// against the nodes' traces. It does not compare the nodes' clocks, so that a skewed one
// cannot mislead it: the index of a read is not compared with what other nodes had committed
// (part of I16), and liveness (I17) is the liveness checker's.
type Invariants struct{}

// Name is "raft-invariants".
func (*Invariants) Name() string { return "raft-invariants" }

// Check reads the traces one after the other. A trace that cannot be read to its end leaves
// undecided what rests on the rest of it. A system that writes no traces is not checked, and
// the summary says so.
func (*Invariants) Check(ctx context.Context, run *Run) Result {
	checker := invariants.New(invariants.Options{})
	evidence := &InvariantsEvidence{Nodes: slices.Sorted(maps.Keys(run.Traces))}
	for _, node := range run.Nodes {
		if _, traced := run.Traces[node]; !traced {
			evidence.Untraced = append(evidence.Untraced, node)
		}
	}
	if len(run.Traces) == 0 {
		return Result{Verdict: Valid, Invariants: evidence, Summary: "not checked: the system writes no traces; of leaders and terms one-leader-a-term checks what status polls tell"}
	}
	for i := range run.History {
		if fault := run.History[i].Fault; fault != nil && fault.Beyond != "" {
			for _, node := range fault.Nodes {
				checker.Unkept(node, fmt.Sprintf("the fault %s may have taken from %s what was durable", fault.Name, node))
			}
		}
	}
	owners := make(map[string]string) // of identities
	for _, node := range evidence.Nodes {
		err := invariants.Read(ctx, run.Traces[node], node, func(e invariants.Event) {
			evidence.Events++
			owners[e.Node] = node
			checker.Add(e)
		})
		if err != nil {
			checker.Incomplete(node, err.Error())
		}
	}
	evidence.Report = checker.Finish()
	evidence.name(owners)
	for _, i := range invariants.All() {
		if evidence.Report.Checks[i] == 0 {
			evidence.NotTested = append(evidence.NotTested, i)
		}
	}
	return evidence.judge(ctx)
}

// name gives members their names back, with the ID behind it where one had several.
func (e *InvariantsEvidence) name(owners map[string]string) {
	called := make(map[string]int)
	for _, owner := range owners {
		called[owner]++
	}
	// The longest first: #12 is not #1.
	identities := slices.SortedFunc(maps.Keys(owners), func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, identity := range identities {
		name := owners[identity]
		if called[name] > 1 && name != identity {
			name += identity
		}
		pairs = append(pairs, identity, name)
	}
	names := strings.NewReplacer(pairs...)
	for i := range e.Report.Violations {
		v := &e.Report.Violations[i]
		v.Explanation = names.Replace(v.Explanation)
	}
	var incomplete map[string]string
	if len(e.Report.Incomplete) > 0 {
		incomplete = make(map[string]string)
	}
	for node, why := range e.Report.Incomplete {
		if owner, known := owners[node]; known {
			node = owner
		}
		incomplete[node] = names.Replace(why)
	}
	e.Report.Incomplete = incomplete
	for i := range e.Report.Undecided {
		e.Report.Undecided[i].Reason = names.Replace(e.Report.Undecided[i].Reason)
	}
}

func (e *InvariantsEvidence) judge(ctx context.Context) Result {
	result := Result{Invariants: e}
	r := &e.Report
	switch {
	case len(r.Violations) > 0:
		first := r.Violations[0]
		result.Verdict, result.Summary = Invalid, fmt.Sprintf("%s, %s: %s", first.Invariant, first.Name, first.Explanation)
		if more := len(r.Violations) - 1 + r.More; more > 0 {
			result.Summary += fmt.Sprintf(" (and %d more violations)", more)
		}
	case ctx.Err() != nil:
		result.Verdict, result.Summary = Unknown, "the check was interrupted"
	case len(r.Incomplete) > 0 || len(e.Untraced) > 0:
		result.Verdict, result.Summary = Unknown, "no violation, but not all traces are whole: "+strings.Join(e.holes(), "; ")
	case e.Events == 0:
		result.Verdict, result.Summary = Unknown, "the traces are empty: there is nothing to check"
	default:
		result.Verdict = Valid
		result.Summary = fmt.Sprintf("%d events of %d nodes keep %d of Raft's invariants", e.Events, len(e.Nodes), len(r.Checks))
		if len(e.NotTested) > 0 {
			result.Summary += fmt.Sprintf("; nothing put to the test: %s", listed(e.NotTested))
		}
	}
	return result
}

// holes says what of which trace is missing.
func (e *InvariantsEvidence) holes() []string {
	var list []string
	for _, node := range slices.Sorted(maps.Keys(e.Report.Incomplete)) {
		list = append(list, node+": "+e.Report.Incomplete[node])
	}
	for _, node := range e.Untraced {
		list = append(list, node+": it has no trace")
	}
	return list
}

func listed(list []invariants.Invariant) string {
	var words []string
	for _, i := range list {
		words = append(words, fmt.Sprintf("%s (%s)", i, i.Name()))
	}
	return strings.Join(words, ", ")
}
