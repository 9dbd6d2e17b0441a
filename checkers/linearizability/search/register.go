package search

import (
	"cmp"
	"context"
	"slices"

	"capsize/checkers/linearizability/registers"
)

// CheckRegister searches for a legal order of the operations of one register, whose values
// may repeat. It knows more than [Check] with a model of the same register does:
//
//   - An unfinished operation need not happen, and is tried last; a read of unknown outcome
//     says nothing.
//   - An unfinished write, or compare-and-swap, of a value that nothing left needs is not put
//     next while no refused compare-and-swap is left. Where an order has it next, what comes
//     after it is a write or the end, since nothing finds its value; so it can be taken out.
//   - Of unfinished operations that do the same the one that began first is put first: where
//     an order has another, the two can change places.
//
// The order of a linearizable history lacks unfinished operations that had no effect.
func CheckRegister(ctx context.Context, operations []registers.Op, limits Limits) Result {
	r := newRegisterStates(operations)
	times := make([]interval, len(r.kept))
	for i, at := range r.kept {
		times[i] = interval{operations[at].Call, operations[at].Return}
	}
	result, _ := newEngine(times, r, limits).run(ctx)
	for i, at := range result.Order {
		result.Order[i] = r.kept[at]
	}
	return result
}

// registerOp is an operation with its values as numbers from 0, the initial one.
type registerOp struct {
	kind            registers.Kind
	value, expected int32
	class, rank     int32 // unfinished: those that do the same, and its place among them by call
	unfinished      bool
}

type registerStates struct {
	kept       []int // positions in the input
	operations []registerOp
	needed     []int32 // by value: operations left that find it
	refused    int     // left
	used       []int32 // by class: how many are in the order
}

func newRegisterStates(operations []registers.Op) *registerStates {
	r := &registerStates{}
	numbers := map[int64]int32{registers.Nothing: 0}
	number := func(value int64) int32 {
		n, met := numbers[value]
		if !met {
			n = int32(len(numbers))
			numbers[value] = n
		}
		return n
	}
	for at, op := range operations {
		unfinished := op.Return == Never
		if unfinished && (op.Kind == registers.Read || op.Kind == registers.Refused) {
			continue // it says nothing
		}
		o := registerOp{kind: op.Kind, unfinished: unfinished}
		switch op.Kind {
		case registers.Read, registers.Write:
			o.value = number(op.Value)
		case registers.Swap:
			o.value, o.expected = number(op.Value), number(op.Expected)
		case registers.Refused:
			o.expected = number(op.Expected)
		}
		r.kept, r.operations = append(r.kept, at), append(r.operations, o)
	}
	r.needed = make([]int32, len(numbers))
	r.leaveOutUseless()
	r.classify(operations)
	return r
}

// leaveOutUseless counts what is needed, and leaves out unfinished operations whose value
// nothing needs, and then those that were needed by these only.
func (r *registerStates) leaveOutUseless() {
	for i := range r.operations {
		r.count(i, 1)
	}
	for r.refused == 0 {
		var kept []int
		var left []registerOp
		for i, op := range r.operations {
			if op.unfinished && r.needed[op.value] == 0 {
				continue
			}
			kept, left = append(kept, r.kept[i]), append(left, op)
		}
		if len(left) == len(r.operations) {
			return
		}
		r.kept, r.operations = kept, left
		clear(r.needed)
		for i := range r.operations {
			r.count(i, 1)
		}
	}
}

// count changes by one what an operation needs while it is left.
func (r *registerStates) count(operation int, by int32) {
	switch op := &r.operations[operation]; op.kind {
	case registers.Read:
		r.needed[op.value] += by
	case registers.Swap:
		if op.value != op.expected || !op.unfinished {
			r.needed[op.expected] += by
		}
	case registers.Refused:
		r.refused += int(by)
	}
}

// classify finds unfinished operations that do the same.
func (r *registerStates) classify(operations []registers.Op) {
	type what struct {
		kind            registers.Kind
		value, expected int32
	}
	var late []int
	for i := range r.operations {
		if r.operations[i].unfinished {
			late = append(late, i)
		}
	}
	slices.SortStableFunc(late, func(a, b int) int { return cmp.Compare(operations[r.kept[a]].Call, operations[r.kept[b]].Call) })
	classes := make(map[what]int32)
	for _, i := range late {
		op := &r.operations[i]
		class, met := classes[what{op.kind, op.value, op.expected}]
		if !met {
			class = int32(len(r.used))
			classes[what{op.kind, op.value, op.expected}] = class
			r.used = append(r.used, 0)
		}
		op.class, op.rank = class, r.used[class]
		r.used[class]++
	}
	clear(r.used)
}

func (r *registerStates) first() int32 { return 0 }
func (r *registerStates) bytes() int64 { return 0 }

func (r *registerStates) step(state int32, operation int, _ mark) (int32, bool) {
	switch op := &r.operations[operation]; op.kind {
	case registers.Read:
		return state, state == op.value
	case registers.Write:
		return op.value, true
	case registers.Swap:
		if state == op.expected {
			return op.value, true
		}
		return state, false
	default:
		return state, state != op.expected
	}
}

func (r *registerStates) changesNothing(operation int) bool {
	op := &r.operations[operation]
	return op.kind == registers.Read || op.kind == registers.Refused || op.kind == registers.Swap && op.value == op.expected
}

func (r *registerStates) placed(operation int) {
	r.count(operation, -1)
	if op := &r.operations[operation]; op.unfinished {
		r.used[op.class]++
	}
}

func (r *registerStates) taken(operation int) {
	r.count(operation, 1)
	if op := &r.operations[operation]; op.unfinished {
		r.used[op.class]--
	}
}

func (r *registerStates) worth(operation int) bool {
	op := &r.operations[operation]
	return op.rank == r.used[op.class] && (r.refused > 0 || r.needed[op.value] > 0)
}
