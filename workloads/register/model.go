package register

import (
	"fmt"

	"github.com/anishathalye/porcupine"

	"capsize/histories"
)

// Model is one register: a read returns what was written last, a compare-and-swap happens
// only if it finds what it expects. Inputs are [histories.Operation]; outputs are not
// looked at. An operation of unknown outcome may take no effect.
func (w *Workload) Model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return state{} },
		Step: func(s, input, _ any) (bool, any) {
			return step(s.(state), input.(histories.Operation))
		},
		Equal:             func(a, b any) bool { return a.(state) == b.(state) },
		Hash:              func(s any) uint64 { return s.(state).hash() },
		DescribeOperation: func(input, _ any) string { return describe(input.(histories.Operation)) },
		DescribeState:     func(s any) string { return s.(state).String() },
	}
}

// state is what a register holds.
type state struct {
	written bool
	value   int64
}

func (s state) hash() uint64 {
	if !s.written {
		return 0
	}
	return (uint64(s.value) + 1) * 0x9e3779b97f4a7c15 // 2^64 over the golden ratio: spreads small numbers
}

func (s state) String() string {
	if !s.written {
		return "never written"
	}
	return fmt.Sprint(s.value)
}

func step(s state, op histories.Operation) (bool, state) {
	switch op.F {
	case Read:
		if op.Type != histories.OK {
			return true, s
		}
		if op.Output.IsNil() {
			return !s.written, s
		}
		value, ok := op.Output.Int()
		return ok && s == state{true, value}, s
	case Write:
		value, ok := op.Input.Int()
		return ok, state{true, value}
	case CAS:
		pair, ok := op.Input.Ints()
		if !ok || len(pair) != 2 {
			return false, s
		}
		if op.Refused {
			return refused(s, op.Output, pair[0]), s
		}
		if s != (state{true, pair[0]}) {
			// It must have found what it expected only if it is known to have happened.
			return op.Type != histories.OK, s
		}
		return true, state{true, pair[1]}
	default:
		return false, s
	}
}

// refused reports whether a state is what a compare-and-swap found that was refused.
func refused(s state, found histories.Value, expected int64) bool {
	if value, said := found.Int(); said {
		return s == state{true, value}
	}
	if found.IsNil() {
		return !s.written
	}
	return s != state{true, expected} // the answer did not say
}

// describe says what an operation did, for pictures.
func describe(op histories.Operation) string {
	unknown := ""
	if op.Type != histories.OK {
		unknown = " (" + op.Type.String() + ")"
	}
	switch op.F {
	case Read:
		return "read → " + op.Output.String() + unknown
	case CAS:
		if pair, ok := op.Input.Ints(); ok && len(pair) == 2 {
			return fmt.Sprintf("cas %d → %d%s", pair[0], pair[1], unknown)
		}
	}
	return op.F + " " + op.Input.String() + unknown
}
