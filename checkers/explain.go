package checkers

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"capsize/histories"
)

const (
	shrinkLimit = 5 * time.Second
	aroundMost  = 40 // operations shown around a violation
)

// explain finds out why a key's history has no legal order: the earliest moment at which
// it has none, a small set of operations that is impossible by itself, and a sentence.
func (l *Linearizability) explain(ctx context.Context, k keyHistory) Violation {
	budget := newBudget(ctx, shrinkLimit, 0)
	defer budget.stop()
	impossible := func(ops []histories.Operation) bool {
		return porcupine.CheckOperationsTimeout(budget.bound(l.Model), forPorcupine(ops), max(budget.left(), time.Millisecond)) == porcupine.Illegal && !budget.over()
	}
	operations := k.operations
	if l.UniqueValues {
		operations = dropUnseen(operations)
	}
	prefix := shortestImpossible(operations, impossible)
	v := Violation{Key: k.name, Core: shrink(prefix, impossible), Picture: l.picture(k)}
	slices.SortFunc(v.Core, func(a, b histories.Operation) int { return int(a.Call - b.Call) })
	for _, op := range prefix {
		if op.Return != histories.Forever {
			v.At = max(v.At, op.Return)
		}
	}
	v.Around = around(k, v.At)
	v.Explanation = fmt.Sprintf("key %s: %s", k.name, inWords(v.Core, k.failed))
	return v
}

// shortestImpossible cuts a history at the earliest return after which no order exists.
// An operation that had not returned by then counts as unknown. Linearizability is
// prefix-closed, so the cut can be found by halving.
func shortestImpossible(operations []histories.Operation, impossible func([]histories.Operation) bool) []histories.Operation {
	var returns []time.Duration
	for _, op := range operations {
		if op.Return != histories.Forever {
			returns = append(returns, op.Return)
		}
	}
	slices.Sort(returns)
	low, high := 0, len(returns)-1
	for low < high {
		middle := (low + high) / 2
		if impossible(cutAt(operations, returns[middle])) {
			high = middle
		} else {
			low = middle + 1
		}
	}
	if len(returns) == 0 {
		return operations
	}
	if cut := cutAt(operations, returns[high]); impossible(cut) {
		return cut
	}
	return operations // the budget ended
}

func cutAt(operations []histories.Operation, at time.Duration) []histories.Operation {
	var cut []histories.Operation
	for _, op := range operations {
		if op.Call > at {
			continue
		}
		if op.Return > at {
			if op.F == "read" {
				continue
			}
			op.Type, op.Return, op.Output = histories.Info, histories.Forever, histories.Nil
		}
		cut = append(cut, op)
	}
	return cut
}

// shrink leaves operations out, larger pieces first, as long as what is left stays
// impossible. A write is left out only together with everything that read its value: a
// read without its write would be impossible for another reason.
func shrink(operations []histories.Operation, impossible func([]histories.Operation) bool) []histories.Operation {
	closed := func(ops []histories.Operation) bool {
		values := make(map[int64]bool)
		for _, op := range operations {
			if value, ok := written(op); ok {
				values[value] = false
			}
		}
		for _, op := range ops {
			if value, ok := written(op); ok {
				values[value] = true
			}
		}
		for _, op := range ops {
			if value, ok := op.Output.Int(); ok && op.F == "read" {
				if there, known := values[value]; known && !there {
					return false
				}
			}
			if value, ok := expects(op); ok {
				if there, known := values[value]; known && !there {
					return false
				}
			}
		}
		return true
	}
	// By value first: an operation together with what reads its value.
	for piece := max(1, len(operations)/2); piece >= 1; piece /= 2 {
		for at := 0; at < len(operations); {
			left := slices.Delete(slices.Clone(operations), at, min(at+piece, len(operations)))
			left = dropOrphans(left, operations)
			if len(left) < len(operations) && closed(left) && impossible(left) {
				operations = left
			} else {
				at += piece
			}
		}
	}
	return operations
}

// dropOrphans leaves out reads and compare-and-swaps whose value's write was left out.
func dropOrphans(left, all []histories.Operation) []histories.Operation {
	for {
		writes := make(map[int64]bool)
		for _, op := range all {
			if value, ok := written(op); ok {
				writes[value] = false
			}
		}
		for _, op := range left {
			if value, ok := written(op); ok {
				writes[value] = true
			}
		}
		before := len(left)
		left = slices.DeleteFunc(left, func(op histories.Operation) bool {
			value, ok := expects(op)
			if op.F == "read" {
				value, ok = op.Output.Int()
			}
			there, known := writes[value]
			return ok && known && !there
		})
		if len(left) == before {
			return left
		}
	}
}

// around returns the operations that a reader wants to see: those nearest in time.
func around(k keyHistory, at time.Duration) []histories.Operation {
	operations := append(slices.Clone(k.operations), k.failed...)
	slices.SortStableFunc(operations, func(a, b histories.Operation) int { return int(a.Call - b.Call) })
	end := len(operations)
	for end > 0 && operations[end-1].Call > at {
		end--
	}
	end = min(len(operations), end+aroundMost/8)
	return operations[max(0, end-aroundMost):end]
}

// inWords tells a core's story. The common shapes have a sentence of their own.
func inWords(core, failed []histories.Operation) string {
	for _, tell := range []func(core, failed []histories.Operation) string{neverWritten, tellStale, tellBackAgain} {
		if text := tell(core, failed); text != "" {
			return text
		}
	}
	var names []string
	for _, op := range core {
		names = append(names, phrase(op))
	}
	return fmt.Sprintf("these %d operations have no legal order: %s", len(core), joinAnd(names))
}

// neverWritten: a read of a value that nobody wrote, or whose only write failed.
func neverWritten(core, failed []histories.Operation) string {
	values := make(map[int64]histories.Operation)
	for _, op := range core {
		if value, ok := written(op); ok {
			values[value] = op
		}
	}
	for _, op := range core {
		value, ok := observed(op)
		if !ok {
			continue
		}
		write, known := values[value]
		switch {
		case known && op.Return < write.Call:
			return fmt.Sprintf("%s before %s had begun, at %s", phrase(op), phrase(write), clock(write.Call))
		case known:
			continue
		}
		for _, write := range failed {
			if v, ok := written(write); ok && v == value {
				return fmt.Sprintf("%s, but the only write of %d, by process %d on %s at %s, had certainly failed (%s)",
					phrase(op), value, write.Process, write.Node, clock(write.Call), write.Error)
			}
		}
		return fmt.Sprintf("%s, which nobody had ever written", phrase(op))
	}
	return ""
}

// tellStale: a read that returned a value although a newer one had been established,
// before the read began, by an operation that itself began after the value was there.
func tellStale(core, _ []histories.Operation) string {
	establishes := writesOf(core)
	for _, read := range core {
		old, ok := observed(read)
		initial := read.F == "read" && read.Output.IsNil()
		if !ok && !initial {
			continue
		}
		for _, write := range core { // in order, so that the same history is told the same way
			value, ok := written(write)
			if !ok || value == old && !initial || write.Type != histories.OK || write.Return >= read.Call {
				continue
			}
			if initial {
				return fmt.Sprintf("%s, but %d had been written and acknowledged before it began (%s)", phrase(read), value, phrase(write))
			}
			if source, ok := establishes[old]; ok && source.Return < write.Call {
				return fmt.Sprintf("%s, but %d had been written and acknowledged before it began (%s), after %d itself was written (%s)",
					phrase(read), value, phrase(write), old, phrase(source))
			}
		}
	}
	return ""
}

// tellBackAgain: two values that were each seen before and after the other.
func tellBackAgain(core, _ []histories.Operation) string {
	type sight struct{ first, last histories.Operation }
	sights := make(map[int64]sight)
	var order []int64 // of first appearance, so that the same history is told the same way
	for _, op := range core {
		for _, value := range shows(op) {
			s, ok := sights[value]
			if !ok {
				s = sight{op, op}
				order = append(order, value)
			}
			if op.Return < s.first.Return {
				s.first = op
			}
			if op.Call > s.last.Call {
				s.last = op
			}
			sights[value] = s
		}
	}
	for _, a := range order {
		for _, b := range order {
			seen, other := sights[a], sights[b]
			if a != b && seen.first.Return < other.last.Call && other.first.Return < seen.last.Call && seen.last.Call > other.last.Call {
				return fmt.Sprintf("%d came back after it had been replaced: %s; then %d was there (%s); then %s. Each value is written once, so no order explains this: a write was applied twice, or an old state was served",
					a, phrase(seen.first), b, phrase(other.first), phrase(seen.last))
			}
		}
	}
	return ""
}

func writesOf(core []histories.Operation) map[int64]histories.Operation {
	writes := make(map[int64]histories.Operation)
	for _, op := range core {
		if value, ok := written(op); ok {
			writes[value] = op
		}
	}
	return writes
}

// observed returns the value that an operation found.
func observed(op histories.Operation) (int64, bool) {
	if op.F == "read" {
		return op.Output.Int()
	}
	if op.Type == histories.OK {
		return expects(op)
	}
	return 0, false
}

// shows returns the values that were the key's value at some moment of the operation.
func shows(op histories.Operation) []int64 {
	var values []int64
	if value, ok := observed(op); ok {
		values = append(values, value)
	}
	if value, ok := written(op); ok {
		values = append(values, value)
	}
	return values
}

// phrase names an operation so that it can be found in the history.
func phrase(op histories.Operation) string {
	at := clock(op.Return)
	unknown := ""
	if op.Return == histories.Forever {
		at, unknown = clock(op.Call), " with unknown outcome"
	}
	who := fmt.Sprintf("at %s by process %d on %s", at, op.Process, op.Node)
	switch op.F {
	case "read":
		if op.Output.IsNil() {
			return fmt.Sprintf("read %s returned nothing", who)
		}
		return fmt.Sprintf("read %s returned %s", who, op.Output)
	case "cas":
		if pair, ok := op.Input.Ints(); ok && len(pair) == 2 {
			return fmt.Sprintf("compare-and-swap %s from %d to %d%s", who, pair[0], pair[1], unknown)
		}
	}
	return fmt.Sprintf("%s %s of %s%s", op.F, who, op.Input, unknown)
}

func clock(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }

func joinAnd(items []string) string {
	text := ""
	for i, item := range items {
		switch {
		case i == 0:
		case i == len(items)-1:
			text += " and "
		default:
			text += ", "
		}
		text += item
	}
	return text
}
