// Package linearizability decides whether the histories of objects are linearizable: whether
// each operation can have taken effect at one moment between its invoke and its completion
// (Herlihy and Wing, 1990), and explains why where they are not.
//
// A [Checker] judges a finished run, each key by itself, by the cheapest method that decides
// it exactly, and says which one that was. Packages below do the work: registers and ordered
// in linear time, search for what those do not decide. A [Live] does the same while the run
// goes on.
//
// A key that is judged legal has an order that the package's independent Replay accepts; a
// key that is judged illegal has a core, a few operations that are impossible by themselves,
// and the core is put before Porcupine too.
package linearizability

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/anishathalye/porcupine"

	"capsize/checkers"
	"capsize/checkers/linearizability/search"
	"capsize/histories"
)

// Checker checks each key's history by itself: linearizability is local, so a history is
// linearizable if and only if every key's is (Herlihy and Wing, 1990).
//
// What came first is told by the index of events, not by their time: the recorder gives
// both under one lock, and indices are never equal.
type Checker struct {
	// Model is what one key must satisfy. Inputs are histories.Operation. An operation of
	// unknown outcome has no end: the model must let it take no effect, or take it last.
	Model porcupine.Model
	// Object is what each key is, if it is one that this package knows: then methods apply
	// that need no search.
	Object Object
	// Reads reports whether an operation never changes a state of the model. A search takes
	// far less with it. Nil: not known of any; not needed where Object names an object.
	Reads func(op histories.Operation) bool
	// Keys reports whether a key is judged. Nil: all are.
	Keys    func(key string) bool
	Limits  checkers.Limits
	Workers int // keys that are judged at once; 0: one per processor
}

// Name is "linearizability".
func (c *Checker) Name() string { return "linearizability" }

// Check judges every key, those with few operations first. A key that is violated counts
// even when others stay undecided. When a budget ends, the keys that were not decided are
// named with the reason.
func (c *Checker) Check(ctx context.Context, run *checkers.Run) checkers.Result {
	keys := c.byKey(histories.Operations(run.History))
	evidence := &checkers.LinearizabilityEvidence{Keys: len(keys), Methods: make(map[string]int)}
	for _, k := range keys {
		evidence.Operations += k.counted
	}
	budget := newBudget(ctx, c.Limits)
	c.decideAll(budget, keys)
	budget.close()
	var guilty []*key
	for _, k := range keys {
		switch k.decided.outcome {
		case search.Illegal:
			guilty = append(guilty, k)
		case search.Unknown:
			evidence.Undecided = append(evidence.Undecided, checkers.Undecided{Key: k.name, Operations: k.counted, Reason: k.decided.reason})
		}
		if k.decided.outcome != search.Unknown {
			evidence.Methods[string(k.decided.method)]++
		}
	}
	evidence.Violations = c.explainAll(ctx, run, guilty)
	return result(evidence)
}

func result(e *checkers.LinearizabilityEvidence) checkers.Result {
	result := checkers.Result{Linearizability: e}
	switch {
	case len(e.Violations) > 0:
		result.Verdict, result.Summary = checkers.Invalid, e.Violations[0].Explanation
		if more := len(e.Violations) - 1; more > 0 {
			result.Summary += fmt.Sprintf(" (and %d more of %d keys are not linearizable)", more, e.Keys)
		}
	case len(e.Undecided) > 0:
		result.Verdict = checkers.Unknown
		result.Summary = fmt.Sprintf("%d of %d keys could not be decided: %s", len(e.Undecided), e.Keys, undecided(e.Undecided))
	case e.Operations == 0:
		result.Verdict, result.Summary = checkers.Unknown, "there is no operation to check"
	default:
		result.Verdict = checkers.Valid
		result.Summary = fmt.Sprintf("%d operations on %d keys are linearizable", e.Operations, e.Keys)
	}
	return result
}

// undecided names keys by reason.
func undecided(list []checkers.Undecided) string {
	const namesMost = 10
	keys := make(map[string][]string)
	var reasons []string
	for _, u := range list {
		if keys[u.Reason] == nil {
			reasons = append(reasons, u.Reason)
		}
		keys[u.Reason] = append(keys[u.Reason], u.Key)
	}
	var parts []string
	for _, reason := range reasons {
		names := keys[reason]
		part := strings.Join(names[:min(len(names), namesMost)], ", ")
		if more := len(names) - namesMost; more > 0 {
			part += fmt.Sprintf(" and %d more", more)
		}
		parts = append(parts, fmt.Sprintf("%s (%s)", part, reason))
	}
	return strings.Join(parts, "; ")
}

// key is what happened to one key, and what became of judging it.
type key struct {
	name       string
	operations []histories.Operation // in order of invoke
	counted    int                   // operations that say something
	decided    decision
}

func (c *Checker) byKey(operations []histories.Operation) []*key {
	byName := make(map[string]*key)
	var keys []*key
	for _, op := range operations {
		if !c.judges(op.Key) {
			continue
		}
		k := byName[op.Key]
		if k == nil {
			k = &key{name: op.Key}
			byName[op.Key] = k
			keys = append(keys, k)
		}
		k.operations = append(k.operations, op)
		if says(op) {
			k.counted++
		}
	}
	return keys
}

// judges reports whether a key is judged.
func (c *Checker) judges(key string) bool { return c.Keys == nil || c.Keys(key) }

// says reports whether an operation has a place in the order: what certainly did not happen
// has none.
func says(op histories.Operation) bool { return op.Type != histories.Fail || op.Refused }

// decideAll judges the keys with a bounded number of workers.
func (c *Checker) decideAll(budget *budget, keys []*key) {
	bySize := slices.SortedStableFunc(slices.Values(keys), func(a, b *key) int { return cmp.Compare(a.counted, b.counted) })
	workers := c.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var next atomic.Int64
	var pool sync.WaitGroup
	for range min(workers, len(bySize)) {
		pool.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(bySize); i = int(next.Add(1)) - 1 {
				k := bySize[i]
				k.decided = c.decide(budget, k.operations)
			}
		})
	}
	pool.Wait()
}
