// Package search decides linearizability by searching for an order of the operations. It is
// for what no exact algorithm of linear time decides: any [porcupine.Model], unchanged, and
// registers whose values repeat. It is exponential in the worst case, so it has limits and
// answers Unknown when it reaches them.
//
// The search is that of Wing and Gong with the memory of Lowe, in the order of Porcupine:
// depth first, next is always an operation that began before any other that is left ended.
// What makes it cheaper is this:
//
//   - What was tried before is known by a 128-bit hash of the set of operations in the order
//     so far, kept up to date in one step, together with the number of the state. Porcupine
//     copies a set of n bits instead. Two sets with one hash would make it miss orders: of a
//     thousand million sets that happens with a probability of 10^-21.
//   - Equal states get one number, so that a state is stored and compared once.
//   - A read that may come next and is right is put next without an alternative. If there is
//     an order at all, there is one with it here: take that order and move the read to this
//     place. It may stand here, since nothing that is left ended before it began; and the
//     others find the states that they found, since it changes none. Only operations that
//     never change a state are such: a write of what is there already may be needed later.
//
// [Check] gives an order with its answer, and [Replay] verifies one by itself.
package search

import (
	"context"
	"fmt"
	"math"
	"runtime/debug"

	"github.com/anishathalye/porcupine"
)

// Outcome is what a search found.
type Outcome uint8

const (
	// Unknown: a limit was reached first.
	Unknown Outcome = iota
	// Linearizable: there is a legal order.
	Linearizable
	// Illegal: there is none; all were tried.
	Illegal
)

// String returns the word.
func (o Outcome) String() string {
	return [...]string{"unknown", "linearizable", "illegal"}[min(o, Illegal)]
}

// Never is the Return of an operation of unknown outcome: it has no end.
const Never = math.MaxInt64

// Limits bound a search. The context bounds its time.
type Limits struct {
	Memory int64 // bytes that the search itself may hold, estimated; 0: no limit
}

// Model is a Porcupine model, with what more is known of it.
type Model struct {
	porcupine.Model
	// Reads reports whether an operation changes no state whatsoever, judged by its input. Nil:
	// it is not known of any.
	Reads func(input any) bool
}

// Result is the answer of a search.
type Result struct {
	Outcome Outcome
	// Order holds operations by their position in the input: all of a Linearizable history in
	// a legal order; else the longest beginning of one that was found.
	Order  []int
	State  any    // of [Check]: the model's state after Order
	Reason string // Unknown: which limit was reached
	Steps  int64  // of the model that were tried
}

// Check searches for a legal order of a history under a model. The times of operations are
// closed intervals, as Porcupine has them: of two that touch, neither comes first. As in
// Porcupine every operation must stand in the order, those that never returned too.
// Partitions of the model are not used: the caller splits histories. A model that panics
// makes the answer Unknown.
func Check(ctx context.Context, model Model, operations []porcupine.Operation, limits Limits) (result Result) {
	m := &modelStates{operations: operations, do: stepOf(ctx, model.Model), reads: model.Reads, equal: model.Equal, hash: model.Hash}
	defer func() {
		if cause := recover(); cause != nil {
			if !m.stepping {
				panic(cause) // not the model's
			}
			result = Result{Reason: fmt.Sprintf("the model failed: %v\n%s", cause, debug.Stack())}
		}
	}()
	m.begin(model.Model)
	times := make([]interval, len(operations))
	for i, op := range operations {
		times[i] = interval{op.Call, op.Return}
	}
	result, state := newEngine(times, m, limits).run(ctx)
	result.State = m.known[state]
	return result
}

// Replay verifies that an order is legal: every operation that returned stands in it once,
// none stands before one that ended before it began, and the model allows each step. It
// shares nothing with the search. An operation that never returned may be absent.
func Replay(model porcupine.Model, operations []porcupine.Operation, order []int) error {
	placed := make([]bool, len(operations))
	step := stepOf(context.Background(), model)
	state := model.Init()
	latest := int64(math.MinInt64) // the latest Call in the order so far
	for position, i := range order {
		if i < 0 || i >= len(operations) || placed[i] {
			return fmt.Errorf("position %d: operation %d does not exist or stands twice", position, i)
		}
		op := operations[i]
		placed[i] = true
		if op.Return < latest {
			return fmt.Errorf("position %d: operation %d ended at %d, before one that stands before it began at %d", position, i, op.Return, latest)
		}
		latest = max(latest, op.Call)
		ok, next := step(state, op.Input, op.Output)
		if !ok {
			return fmt.Errorf("position %d: the model does not allow operation %d", position, i)
		}
		state = next
	}
	for i, op := range operations {
		if !placed[i] && op.Return != Never {
			return fmt.Errorf("operation %d is not in the order", i)
		}
	}
	return nil
}

func stepOf(ctx context.Context, model porcupine.Model) func(state, input, output any) (bool, any) {
	if model.StepContext != nil {
		return func(state, input, output any) (bool, any) { return model.StepContext(ctx, state, input, output) }
	}
	return model.Step
}
