package linearizability

import (
	"math"

	"github.com/anishathalye/porcupine"

	"capsize/checkers/linearizability/ordered"
	"capsize/checkers/linearizability/registers"
	"capsize/checkers/linearizability/search"
	"capsize/histories"
)

// Method is how a key was decided.
type Method string

const (
	// ByValues: each value was written once, so who read whose is known, and no search is
	// needed (package registers).
	ByValues Method = "unique values"
	// ByRegisterSearch: an order was searched with what is known of registers (package search).
	ByRegisterSearch Method = "register search"
	// ByPorcupine: Porcupine decided.
	ByPorcupine Method = "porcupine"
	// BySearch: an order was searched under the model (package search).
	BySearch Method = "search"
	// ByRevisions: the revisions that came with the answers contradict each other.
	ByRevisions Method = "revisions"
)

// decision is what became of judging a history.
type decision struct {
	outcome search.Outcome
	method  Method
	reason  string // Unknown

	// Illegal:
	core     []int          // positions of operations that are impossible by themselves; nil: not known yet
	elements []int64        // ByOrder: once their reads are restricted to these; nil: as they are
	why      ordered.Reason // ByOrder
}

// decide judges the operations of one key.
func (c *Checker) decide(b *budget, operations []histories.Operation) decision {
	if b.over() {
		return decision{reason: why(b.ctx)}
	}
	d := c.decideByResults(b, operations)
	if d.outcome != search.Illegal {
		if core := lyingRevisions(operations); core != nil {
			return decision{outcome: search.Illegal, method: ByRevisions, core: core}
		}
	}
	return d
}

// decideByResults judges what the operations returned, without the revisions.
func (c *Checker) decideByResults(b *budget, operations []histories.Operation) decision {
	switch c.Object {
	case Register:
		if ops, at, ok := translate(operations, registerOp); ok {
			return decideRegister(b, ops, at)
		}
	case Mutex:
		if ops, at, ok := asMutex(operations); ok {
			return decideRegister(b, ops, at)
		}
	case List, Set, Counter:
		if d, ok := c.decideOrdered(operations); ok {
			return d
		}
	}
	return c.search(b, operations)
}

// decideRegister judges a register by its values where it can, else by a search.
func decideRegister(b *budget, ops []registers.Op, at []int) decision {
	verdict := registers.Check(ops)
	if verdict.Outcome == registers.Ambiguous {
		verdict = registers.CheckUnambiguousPart(ops)
	}
	switch verdict.Outcome {
	case registers.Linearizable:
		return decision{outcome: search.Linearizable, method: ByValues}
	case registers.Violation:
		core := make([]int, len(verdict.Core))
		for i, position := range verdict.Core {
			core[i] = at[position]
		}
		return decision{outcome: search.Illegal, method: ByValues, core: core}
	}
	ctx, done := b.begin()
	defer done()
	result := search.CheckRegister(ctx, ops, search.Limits{Memory: int64(b.memory)})
	return decision{outcome: result.Outcome, method: ByRegisterSearch, reason: reasonOf(result)}
}

// Up to this length of a history Porcupine is asked first, with so many steps: that is where
// it is quick, if the history is not one of those that it takes for ever with.
const (
	porcupineMost  = 128
	porcupineSteps = 200_000
)

// search judges a history by the model.
func (c *Checker) search(b *budget, operations []histories.Operation) decision {
	history := forPorcupine(operations)
	ctx, done := b.begin()
	defer done()
	if len(history) <= porcupineMost {
		if outcome, _ := askPorcupine(ctx, c.Model, history, porcupineSteps); outcome != search.Unknown {
			return decision{outcome: outcome, method: ByPorcupine}
		}
	}
	result := search.Check(ctx, c.model(), history, search.Limits{Memory: int64(b.memory)})
	return decision{outcome: result.Outcome, method: BySearch, reason: reasonOf(result)}
}

func (c *Checker) model() search.Model {
	m := search.Model{Model: c.Model}
	switch {
	case c.Reads != nil:
		m.Reads = func(input any) bool { return c.Reads(input.(histories.Operation)) }
	case c.Object != Any:
		m.Reads = func(input any) bool { return input.(histories.Operation).F == "read" }
	}
	return m
}

func reasonOf(result search.Result) string {
	if result.Outcome != search.Unknown {
		return ""
	}
	return result.Reason
}

// forPorcupine leaves out what certainly did not happen.
func forPorcupine(operations []histories.Operation) []porcupine.Operation {
	list := make([]porcupine.Operation, 0, len(operations))
	for _, op := range operations {
		if says(op) {
			list = append(list, forSearch(op))
		}
	}
	return list
}

func forSearch(op histories.Operation) porcupine.Operation {
	call, end := interval(op)
	return porcupine.Operation{ClientId: op.Process, Input: op, Output: op.Output, Call: call, Return: end, Metadata: op}
}

// interval returns the part of the history in which an operation took effect, as indices of
// events, both included. What a stale read returned may have been there at any earlier time.
func interval(op histories.Operation) (call, end int64) {
	call, end = int64(op.Invoked), int64(op.Returned)
	if op.Stale {
		call = math.MinInt64
	}
	if op.Type == histories.Info {
		end = search.Never
	}
	return call, end
}

func registerOp(op *histories.Operation) (o registers.Op, ok bool) {
	o.Call, o.Return = interval(*op)
	switch op.F {
	case "read":
		o.Kind = registers.Read
		if op.Type != histories.OK {
			return o, true
		}
		o.Value, ok = heldValue(op.Output)
	case "write":
		o.Kind = registers.Write
		o.Value, ok = op.Input.Int()
	case "cas":
		o.Kind = registers.Swap
		pair, given := op.Input.Ints()
		if !given || len(pair) != 2 {
			return o, false
		}
		o.Expected, o.Value, ok = pair[0], pair[1], true
		if !op.Refused {
			break
		}
		if found, said := heldValue(op.Output); said {
			o.Kind, o.Value = registers.Read, found
		} else {
			o.Kind = registers.Refused
		}
	}
	return o, ok
}

// heldValue is what a register holds: an integer, or nothing.
func heldValue(v histories.Value) (value int64, ok bool) {
	if v.IsNil() {
		return registers.Nothing, true
	}
	return v.Int()
}
