package checkers

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
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
type Linearizability struct {
	Model porcupine.Model // of one key; inputs and outputs are histories.Operation
	// UniqueValues says that the operations are reads, writes and compare-and-swaps whose
	// written values are all different on a key. It allows unknown writes that nobody saw
	// to be left out, which is exact for such histories and for no others.
	UniqueValues bool
	Timeout      time.Duration // for all keys together
	Memory       uint64        // bytes of heap that the search may add
	Workers      int           // 0: one per processor
	Dir          string        // where the picture of a violation goes; empty: none
}

// Name is "linearizability".
func (l *Linearizability) Name() string { return "linearizability" }

// Check judges every key. A violation on one key counts even if others stay undecided.
func (l *Linearizability) Check(ctx context.Context, run *Run) Result {
	keys := byKey(histories.Operations(run.History))
	evidence := &LinearizabilityEvidence{Method: "porcupine", Keys: len(keys)}
	for _, k := range keys {
		evidence.Operations += len(k.operations)
	}
	budget := newBudget(ctx, l.Timeout, l.Memory)
	defer budget.stop()
	outcomes := l.judge(budget, keys)
	for i, k := range keys {
		switch outcomes[i] {
		case porcupine.Illegal:
			evidence.Violations = append(evidence.Violations, l.explain(ctx, k))
		case porcupine.Unknown:
			evidence.Undecided = append(evidence.Undecided, Undecided{k.name, len(k.operations), budget.reason()})
		}
	}
	slices.SortFunc(evidence.Violations, func(a, b Violation) int { return cmp.Compare(a.At, b.At) })
	return l.result(evidence)
}

func (l *Linearizability) result(e *LinearizabilityEvidence) Result {
	result := Result{Linearizability: e}
	switch {
	case len(e.Violations) > 0:
		result.Verdict, result.Summary = Invalid, e.Violations[0].Explanation
		if more := len(e.Violations) - 1; more > 0 {
			result.Summary += fmt.Sprintf(" %d more keys are violated.", more)
		}
	case len(e.Undecided) > 0:
		names := make([]string, 0, len(e.Undecided))
		for _, u := range e.Undecided {
			names = append(names, u.Key)
		}
		result.Verdict = Unknown
		result.Summary = fmt.Sprintf("%d of %d keys could not be decided (%s): %s", len(e.Undecided), e.Keys, e.Undecided[0].Reason, strings.Join(names, ", "))
	case e.Operations == 0:
		result.Verdict, result.Summary = Unknown, "there is no operation to check"
	default:
		result.Verdict = Valid
		result.Summary = fmt.Sprintf("%d operations on %d keys are linearizable", e.Operations, e.Keys)
	}
	return result
}

// keyHistory is what happened to one key.
type keyHistory struct {
	name       string
	operations []histories.Operation // in order of Call; definite failures and unanswered reads are left out
	failed     []histories.Operation // definite failures, for explanations
}

// byKey splits a history by key and leaves out what says nothing: an operation that
// certainly did not happen, and a read whose answer nobody knows.
func byKey(operations []histories.Operation) []keyHistory {
	index := make(map[string]int)
	var keys []keyHistory
	for _, op := range operations {
		at, ok := index[op.Key]
		if !ok {
			at = len(keys)
			index[op.Key] = at
			keys = append(keys, keyHistory{name: op.Key})
		}
		switch {
		case op.Type == histories.Fail:
			keys[at].failed = append(keys[at].failed, op)
		case op.Type == histories.Info && op.F == "read":
		default:
			keys[at].operations = append(keys[at].operations, op)
		}
	}
	return keys
}

func (l *Linearizability) judge(budget *budget, keys []keyHistory) []porcupine.CheckResult {
	outcomes := make([]porcupine.CheckResult, len(keys))
	workers := l.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var next atomic.Int64
	var pool sync.WaitGroup
	for range min(workers, len(keys)) {
		pool.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(keys)); i = next.Add(1) - 1 {
				outcomes[i] = l.decide(budget, keys[i].operations)
			}
		})
	}
	pool.Wait()
	return outcomes
}

// decide asks Porcupine about one key's history.
func (l *Linearizability) decide(budget *budget, operations []histories.Operation) porcupine.CheckResult {
	if budget.over() {
		return porcupine.Unknown
	}
	if l.UniqueValues {
		operations = dropUnseen(operations)
	}
	result := porcupine.CheckOperationsTimeout(budget.bound(l.Model), forPorcupine(operations), max(budget.left(), time.Millisecond))
	if result == porcupine.Illegal && budget.over() {
		return porcupine.Unknown // the search was made to end; its answer means nothing
	}
	return result
}

// dropUnseen leaves out writes and compare-and-swaps of unknown outcome whose value no
// effective operation saw. In a history whose written values are unique this is exact:
// taking such an operation out of an order leaves a legal order, since nothing that
// follows depends on it; and putting it at the end, where it may always be, adds nothing.
// A compare-and-swap that is effective makes what it expects seen, so the rule is
// applied until nothing changes.
func dropUnseen(operations []histories.Operation) []histories.Operation {
	writer := make(map[int64]int) // value to the unknown operation that writes it
	for i, op := range operations {
		if op.Type == histories.Info {
			if value, ok := written(op); ok {
				writer[value] = i
			}
		}
	}
	if len(writer) == 0 {
		return operations
	}
	effective := make(map[int]bool)
	var see func(value int64)
	see = func(value int64) {
		for { // along the chain of compare-and-swaps that led to the value
			i, ok := writer[value]
			if !ok || effective[i] {
				return
			}
			effective[i] = true
			expected, ok := expects(operations[i])
			if !ok {
				return
			}
			value = expected
		}
	}
	for _, op := range operations {
		if op.Type != histories.OK {
			continue
		}
		if value, ok := op.Output.Int(); ok && op.F == "read" {
			see(value)
		}
		if expected, ok := expects(op); ok {
			see(expected)
		}
	}
	kept := make([]histories.Operation, 0, len(operations))
	for i, op := range operations {
		if op.Type != histories.Info || effective[i] {
			kept = append(kept, op)
		}
	}
	return kept
}

// written returns the value that an operation writes if it happens.
func written(op histories.Operation) (int64, bool) {
	switch op.F {
	case "write":
		return op.Input.Int()
	case "cas":
		if pair, ok := op.Input.Ints(); ok && len(pair) == 2 {
			return pair[1], true
		}
	}
	return 0, false
}

// expects returns the value that a compare-and-swap found if it happened.
func expects(op histories.Operation) (int64, bool) {
	if pair, ok := op.Input.Ints(); ok && op.F == "cas" && len(pair) == 2 {
		return pair[0], true
	}
	return 0, false
}

func forPorcupine(operations []histories.Operation) []porcupine.Operation {
	history := make([]porcupine.Operation, len(operations))
	for i, op := range operations {
		history[i] = porcupine.Operation{
			ClientId: op.Process, Input: op, Output: op.Output, Call: int64(op.Call), Return: int64(op.Return),
		}
	}
	return history
}

// picture writes Porcupine's own view of a key's history and returns its file name.
func (l *Linearizability) picture(k keyHistory) string {
	if l.Dir == "" {
		return ""
	}
	operations := k.operations
	if l.UniqueValues {
		operations = dropUnseen(operations)
	}
	_, info := porcupine.CheckOperationsVerbose(l.Model, forPorcupine(operations), 5*time.Second)
	name := "porcupine-" + safeName(k.name) + ".html"
	file, err := os.Create(filepath.Join(l.Dir, name))
	if err != nil {
		return "" // the verdict stands without its picture
	}
	err = porcupine.Visualize(l.Model, info, file)
	if closeErr := file.Close(); err != nil || closeErr != nil {
		return ""
	}
	return name
}

func safeName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, s)
}

// budget is the time and memory that a search may use. Porcupine knows only a time-out;
// what makes it stop for memory is a model whose every step fails from then on.
type budget struct {
	deadline time.Time
	heapMost uint64
	spent    atomic.Pointer[string]
	quit     chan struct{}
	watching sync.WaitGroup
}

func newBudget(ctx context.Context, timeout time.Duration, memory uint64) *budget {
	b := &budget{deadline: time.Now().Add(timeout), quit: make(chan struct{})}
	b.heapMost = heap() + memory
	b.watching.Go(func() { b.watch(ctx, timeout, memory) })
	return b
}

func (b *budget) watch(ctx context.Context, timeout time.Duration, memory uint64) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-b.quit:
			return
		case <-ctx.Done():
			b.end("the check was interrupted")
			return
		case <-ticker.C:
		}
		if time.Now().After(b.deadline) {
			b.end(fmt.Sprintf("the time budget of %s ended", timeout))
			return
		}
		if memory > 0 && heap() > b.heapMost {
			b.end(fmt.Sprintf("the memory budget of %d MiB ended", memory>>20))
			return
		}
	}
}

func (b *budget) end(why string) { b.spent.CompareAndSwap(nil, &why) }

func (b *budget) over() bool {
	if b.spent.Load() == nil && !time.Now().Before(b.deadline) {
		b.end("the time budget ended")
	}
	return b.spent.Load() != nil
}

func (b *budget) left() time.Duration { return time.Until(b.deadline) }

func (b *budget) reason() string {
	if why := b.spent.Load(); why != nil {
		return *why
	}
	return "the time budget ended"
}

func (b *budget) stop() {
	close(b.quit)
	b.watching.Wait()
}

// bound makes a model whose steps fail once the budget is spent, so that a search ends.
func (b *budget) bound(m porcupine.Model) porcupine.Model {
	step := m.Step
	m.Step = func(state, input, output any) (bool, any) {
		if b.spent.Load() != nil {
			return false, state
		}
		return step(state, input, output)
	}
	return m
}

func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
