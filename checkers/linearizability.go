package checkers

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"capsize/histories"
)

// Linearizability checks each key's history by itself: linearizability is local, so a
// history is linearizable if and only if every key's is (Herlihy and Wing, 1990).
//
// What came first is told by the index of events, not by their time: the recorder gives
// both under one lock, and indices are never equal.
type Linearizability struct {
	// Model is what one key must satisfy. Inputs are histories.Operation. An operation of
	// unknown outcome has no end: the model must let it take no effect, or take it last.
	Model   porcupine.Model
	Object  Object        // what each key is
	Timeout time.Duration // for all keys together; 0: none
	Memory  uint64        // bytes by which the heap of this process may grow; 0: no limit
	Workers int           // keys that are judged at once; 0: one per processor
	Dir     string        // where pictures of violations go; empty: none are made
}

// Name is "linearizability".
func (l *Linearizability) Name() string { return "linearizability" }

// Check judges every key, those with few operations first. A key that is violated counts
// even when others stay undecided. When a budget ends, the keys that were not decided are
// named with the reason.
func (l *Linearizability) Check(ctx context.Context, run *Run) Result {
	keys := l.byKey(histories.Operations(run.History))
	evidence := &LinearizabilityEvidence{Method: "porcupine", Keys: len(keys)}
	for _, k := range keys {
		evidence.Operations += k.counted
	}
	budget := newBudget(ctx, l.Timeout, l.Memory)
	l.decideAll(budget, keys)
	budget.close()
	var guilty []*keyHistory
	for _, k := range keys {
		switch k.result {
		case porcupine.Illegal:
			guilty = append(guilty, k)
		case porcupine.Unknown:
			evidence.Undecided = append(evidence.Undecided, Undecided{Key: k.name, Operations: k.counted, Reason: k.reason})
		}
	}
	evidence.Violations = l.explainAll(ctx, guilty)
	return l.result(evidence)
}

func (l *Linearizability) result(e *LinearizabilityEvidence) Result {
	result := Result{Linearizability: e}
	switch {
	case len(e.Violations) > 0:
		result.Verdict, result.Summary = Invalid, e.Violations[0].Explanation
		if more := len(e.Violations) - 1; more > 0 {
			result.Summary += fmt.Sprintf(" (and %d more of %d keys are not linearizable)", more, e.Keys)
		}
	case len(e.Undecided) > 0:
		result.Verdict = Unknown
		result.Summary = fmt.Sprintf("%d of %d keys could not be decided: %s", len(e.Undecided), e.Keys, undecided(e.Undecided))
	case e.Operations == 0:
		result.Verdict, result.Summary = Unknown, "there is no operation to check"
	default:
		result.Verdict = Valid
		result.Summary = fmt.Sprintf("%d operations on %d keys are linearizable", e.Operations, e.Keys)
	}
	return result
}

// undecided names keys by reason.
func undecided(list []Undecided) string {
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

// keyHistory is what happened to one key, and what became of judging it.
type keyHistory struct {
	name    string
	all     []histories.Operation // in order of invoke
	spans   []span                // what must have a legal order
	unique  bool                  // the shortcuts for unique values apply
	counted int                   // operations that say something

	result porcupine.CheckResult
	reason string // where result is Unknown
}

// span is an operation with the part of the history in which it must take effect, as
// indices of events, both included.
type span struct {
	op        histories.Operation
	call, end int
}

// never is the end of an operation that may take effect at any later time.
const never = int(^uint(0) >> 1)

func (l *Linearizability) byKey(operations []histories.Operation) []*keyHistory {
	byName := make(map[string]*keyHistory)
	var keys []*keyHistory
	for _, op := range operations {
		k := byName[op.Key]
		if k == nil {
			k = &keyHistory{name: op.Key}
			byName[op.Key] = k
			keys = append(keys, k)
		}
		k.all = append(k.all, op)
	}
	for _, k := range keys {
		k.counted = len(spansOf(k.all))
		k.spans, k.unique = l.prepare(k.all)
	}
	return keys
}

// prepare returns what of a key's operations must have a legal order.
func (l *Linearizability) prepare(operations []histories.Operation) (spans []span, unique bool) {
	if l.Object == Register {
		if spans, ok := prepareUnique(operations); ok {
			return spans, true
		}
	}
	return spansOf(operations), false
}

// spansOf leaves out what certainly did not happen: it has no place in any order.
func spansOf(operations []histories.Operation) []span {
	spans := make([]span, 0, len(operations))
	for _, op := range operations {
		switch op.Type {
		case histories.Fail:
		case histories.OK:
			spans = append(spans, span{op, op.Invoked, op.Returned})
		default:
			spans = append(spans, span{op, op.Invoked, never})
		}
	}
	return spans
}

// decideAll judges the keys with a bounded number of workers.
func (l *Linearizability) decideAll(budget *budget, keys []*keyHistory) {
	bySize := slices.SortedStableFunc(slices.Values(keys), func(a, b *keyHistory) int { return cmp.Compare(len(a.spans), len(b.spans)) })
	workers := l.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var next atomic.Int64
	var pool sync.WaitGroup
	for range min(workers, len(bySize)) {
		pool.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(bySize); i = int(next.Add(1)) - 1 {
				k := bySize[i]
				k.result, k.reason = budget.decide(l.Model, k.spans)
			}
		})
	}
	pool.Wait()
}

func forPorcupine(spans []span) []porcupine.Operation {
	list := make([]porcupine.Operation, len(spans))
	for i, s := range spans {
		list[i] = porcupine.Operation{
			ClientId: s.op.Process, Input: s.op, Output: s.op.Output,
			Call: int64(s.call), Return: int64(s.end), Metadata: s.op,
		}
	}
	return list
}
