package register

import (
	"fmt"

	"github.com/anishathalye/porcupine"

	"capsize/histories"
)

// Model is one register: a read returns what was written last, a compare-and-swap happens
// only if it finds what it expects. Inputs and outputs are [histories.Operation].
func (w *Workload) Model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return unwritten },
		Step: func(state, input, _ any) (bool, any) {
			return step(state.(register), input.(histories.Operation))
		},
		Equal: func(a, b any) bool { return a.(register) == b.(register) },
		Hash:  func(state any) uint64 { return uint64(state.(register).value) },
		DescribeOperation: func(input, _ any) string {
			return Describe(input.(histories.Operation))
		},
		DescribeState: func(state any) string {
			r := state.(register)
			if !r.written {
				return "never written"
			}
			return fmt.Sprint(r.value)
		},
	}
}

// register is the state of the model.
type register struct {
	written bool
	value   int64
}

var unwritten register

func step(state register, op histories.Operation) (bool, register) {
	switch op.F {
	case Read:
		if op.Output.IsNil() {
			return !state.written, state
		}
		value, ok := op.Output.Int()
		return ok && state == (register{true, value}), state
	case Write:
		value, ok := op.Input.Int()
		return ok, register{true, value}
	case CAS:
		pair, ok := op.Input.Ints()
		if !ok || len(pair) != 2 || state != (register{true, pair[0]}) {
			return false, state
		}
		return true, register{true, pair[1]}
	default:
		return false, state
	}
}

// Describe says what an operation did, for pictures.
func Describe(op histories.Operation) string {
	unknown := ""
	if op.Type == histories.Info {
		unknown = " (unknown)"
	}
	switch op.F {
	case Read:
		if op.Output.IsNil() {
			return "read: never written"
		}
		return "read " + op.Output.String()
	case CAS:
		pair, _ := op.Input.Ints()
		if len(pair) == 2 {
			return fmt.Sprintf("cas %d to %d%s", pair[0], pair[1], unknown)
		}
	}
	return op.F + " " + op.Input.String() + unknown
}
