package registers

import (
	"math/rand/v2"
	"slices"

	"github.com/anishathalye/porcupine"
)

// registerModel is a register for Porcupine. An operation of unknown outcome may do nothing,
// and as it never returns it may stand at the end.
var registerModel = porcupine.Model{
	Init: func() any { return Nothing },
	Step: func(state, input, _ any) (bool, any) {
		op := input.(Op)
		switch op.Kind {
		case Read:
			return op.Return == Never || state == op.Value, state
		case Write:
			return true, op.Value
		case Swap:
			if state == op.Expected {
				return true, op.Value
			}
			return op.Return == Never, state
		default:
			return op.Return == Never || state != op.Expected, state
		}
	},
}

func porcupineAccepts(ops []Op) bool {
	var operations []porcupine.Operation
	for i, op := range ops {
		operations = append(operations, porcupine.Operation{ClientId: i, Input: op, Call: op.Call, Return: op.Return})
	}
	return porcupine.CheckOperations(registerModel, operations)
}

// bruteAccepts tries every order, by the definition alone.
func bruteAccepts(ops []Op) bool {
	var extend func(state int64, done uint) bool
	extend = func(state int64, done uint) bool {
		complete := true
		for i, op := range ops {
			complete = complete && (done>>i&1 == 1 || op.Return == Never)
		}
		if complete {
			return true
		}
		for i, op := range ops {
			if done>>i&1 == 1 || op.Kind == Read && op.Return == Never {
				continue
			}
			minimal := true
			for j, other := range ops {
				minimal = minimal && (done>>j&1 == 1 || other.Return >= op.Call)
			}
			if !minimal {
				continue
			}
			next, legal := state, true
			switch op.Kind {
			case Read:
				legal = state == op.Value
			case Write:
				next = op.Value
			case Swap:
				legal, next = state == op.Expected, op.Value
			case Refused:
				legal = state != op.Expected
			}
			if legal && extend(next, done|1<<i) {
				return true
			}
		}
		return false
	}
	return extend(Nothing, 0)
}

// mix says what a random history is made of, in percent.
type mix struct {
	writes, swaps, refused, stale int // the rest are reads
	crashed                       int
}

var mixes = []mix{
	{writes: 50},
	{writes: 40, crashed: 20},
	{writes: 20, swaps: 40, crashed: 15},
	{swaps: 60, crashed: 20},
	{writes: 20, swaps: 20, refused: 25, crashed: 10},
	{writes: 20, refused: 30},
	{writes: 30, swaps: 10, stale: 20, crashed: 10},
	{writes: 20, swaps: 20, refused: 10, stale: 10, crashed: 25},
}

func (m mix) kind(r *rand.Rand) (kind Kind, stale bool) {
	switch p := r.IntN(100); {
	case p < m.writes:
		return Write, false
	case p < m.writes+m.swaps:
		return Swap, false
	case p < m.writes+m.swaps+m.refused:
		return Refused, false
	case p < m.writes+m.swaps+m.refused+m.stale:
		return Read, true
	}
	return Read, false
}

// simulated is a history that a correct register made: each operation took effect at one
// moment of its interval. Times are coarse, so that there are ties.
func simulated(r *rand.Rand, n int, m mix) []Op {
	values := []int64{Nothing}
	width, coarse := 1+r.Int64N(8), 1+r.Int64N(3)
	ops := make([]Op, 0, n)
	for i := range n {
		at := int64(i) / coarse * coarse
		op := Op{Call: at - r.Int64N(width), Return: at + r.Int64N(width)}
		kind, stale := m.kind(r)
		current := values[len(values)-1]
		op.Kind, op.Value = kind, current
		happens := true
		if r.IntN(100) < m.crashed {
			op.Return = Never
			happens = r.IntN(2) == 0
		}
		switch {
		case stale:
			op.Call, op.Value = Early, values[r.IntN(len(values))]
		case kind == Write:
			op.Value = int64(i + 1)
		case kind == Swap:
			op.Value, op.Expected = int64(i+1), current
			if !happens {
				op.Expected = values[r.IntN(len(values))]
			}
		case kind == Refused:
			op.Value, op.Expected = int64(i+1), int64(r.IntN(n+1))
			if op.Expected == current {
				op.Expected = -1
			}
		}
		if happens && (kind == Write || kind == Swap) {
			values = append(values, op.Value)
		}
		ops = append(ops, op)
	}
	r.Shuffle(len(ops), func(i, j int) { ops[i], ops[j] = ops[j], ops[i] })
	return ops
}

// corrupt changes one thing about a history, and keeps its values unique.
func corrupt(r *rand.Rand, ops []Op) []Op {
	ops = slices.Clone(ops)
	i := r.IntN(len(ops))
	op, other := &ops[i], ops[r.IntN(len(ops))]
	switch r.IntN(6) {
	case 0:
		op.Call, op.Return = other.Call, max(other.Return, other.Call)
	case 1:
		shift := r.Int64N(9) - 4
		if op.Call != Early {
			op.Call += shift
		}
		if op.Return != Never {
			op.Return = max(op.Call, op.Return+shift)
		}
	case 2:
		if op.Kind == Read {
			op.Value = other.Value
		} else {
			op.Expected = other.Value
		}
	case 3:
		op.Kind = Kind(r.IntN(4))
		if op.Kind == Read {
			op.Value = other.Value
		} else if producesTwice(ops) {
			op.Value = 1000 + r.Int64N(1<<40)
		}
	case 4:
		ops = slices.Delete(ops, i, i+1)
	case 5:
		if op.Call != Early {
			op.Return = op.Call
		}
	}
	for i := range ops { // only a read may be early
		if ops[i].Kind != Read && ops[i].Call == Early {
			ops[i].Call = 0
			ops[i].Return = max(ops[i].Return, 0)
		}
	}
	return ops
}

func producesTwice(ops []Op) bool {
	seen := map[int64]bool{Nothing: true}
	for i := range ops {
		if kind := ops[i].kind(); kind == Write || kind == Swap {
			if seen[ops[i].Value] {
				return true
			}
			seen[ops[i].Value] = true
		}
	}
	return false
}

// arbitrary is a history without any sense, but for unique values that are mostly written.
func arbitrary(r *rand.Rand, n int, m mix) []Op {
	ops, written := make([]Op, n), []int64{Nothing}
	span, length := int64(2+r.IntN(3*n)), int64(1+r.IntN(2*n))
	for i := range ops {
		op := &ops[i]
		var stale bool
		op.Kind, stale = m.kind(r)
		op.Call = r.Int64N(span)
		op.Return = op.Call + r.Int64N(length)
		if stale {
			op.Call = Early
		}
		if r.IntN(100) < m.crashed {
			op.Return = Never
		}
		if op.Kind == Write || op.Kind == Swap {
			op.Value = int64(i + 1)
			written = append(written, op.Value)
		}
	}
	for i := range ops {
		from := written[r.IntN(len(written))]
		if r.IntN(20*n) == 0 {
			from = int64(i + 1)
		}
		switch ops[i].Kind {
		case Read:
			ops[i].Value = from
		case Swap, Refused:
			ops[i].Expected = from
		}
	}
	return ops
}

// randomHistory draws from all of the above.
func randomHistory(r *rand.Rand, most int) []Op {
	m := mixes[r.IntN(len(mixes))]
	n := 2 + r.IntN(most-1)
	switch r.IntN(3) {
	case 0:
		return simulated(r, n, m)
	case 1:
		ops := simulated(r, n, m)
		for range 1 + r.IntN(2) {
			if len(ops) > 1 {
				ops = corrupt(r, ops)
			}
		}
		return ops
	default:
		return arbitrary(r, n, m)
	}
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func pick(ops []Op, indices []int) (picked []Op) {
	for _, i := range indices {
		picked = append(picked, ops[i])
	}
	return picked
}
