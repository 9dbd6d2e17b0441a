package main

import (
	"time"

	"github.com/anishathalye/porcupine"

	"capsize/checkers/linearizability/registers"
)

// model is a register for Porcupine. Inputs are registers.Op, the result included.
func model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return registers.Nothing },
		Step: func(state, input, _ any) (bool, any) {
			op := input.(registers.Op)
			unknown := op.Return == registers.Never
			switch op.Kind {
			case registers.Read:
				return unknown || state == op.Value, state
			case registers.Write:
				return true, op.Value
			case registers.Swap:
				if state != op.Expected {
					return unknown, state
				}
				return true, op.Value
			default:
				return unknown || state != op.Expected, state
			}
		},
	}
}

func forPorcupine(ops []registers.Op) []porcupine.Operation {
	list := make([]porcupine.Operation, len(ops))
	for i, op := range ops {
		list[i] = porcupine.Operation{Input: op, Call: op.Call, Return: op.Return}
	}
	return list
}

// askPorcupine is a child's whole work: what it takes to decide a history.
func askPorcupine(ops []registers.Op) answer {
	history := forPorcupine(ops)
	limit(len(ops), porcupineTime, porcupineMemory)
	model := model()
	began := begin()
	legal := porcupine.CheckOperations(model, history)
	return began.answer(len(ops), word(legal))
}

func word(legal bool) string {
	if legal {
		return "valid"
	}
	return "invalid"
}

// The budget of one question to Porcupine. What it does not answer within that it is said not
// to have finished; it has no way of being asked for less.
const (
	porcupineTime   = 10 * time.Second
	porcupineMemory = 6 << 30
)
