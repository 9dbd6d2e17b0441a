package search

import (
	"github.com/anishathalye/porcupine"
)

// modelStates are the states of a Porcupine model, each kept once and known by its number.
type modelStates struct {
	operations []porcupine.Operation
	do         func(state, input, output any) (bool, any)
	reads      func(input any) bool // nil: not known
	equal      func(a, b any) bool  // nil: states are compared with ==, as Porcupine does
	hash       func(any) uint64     // nil: equal states are found by the set of operations that led to them
	known      []any
	numbers    map[any]int32    // where equal is nil
	newest     map[uint64]int32 // else: of a hash, the newest state
	older      []int32          // of each state: an older one of the same hash, or -1
	stepping   bool             // inside the model: a panic is its own
}

func (m *modelStates) begin(model porcupine.Model) {
	if m.equal == nil {
		m.numbers = make(map[any]int32)
	} else {
		m.newest = make(map[uint64]int32)
	}
	m.stepping = true
	m.number(model.Init(), mark{})
	m.stepping = false
}

func (m *modelStates) first() int32 { return 0 }

func (m *modelStates) step(state int32, operation int, set mark) (int32, bool) {
	op := &m.operations[operation]
	m.stepping = true
	ok, next := m.do(m.known[state], op.Input, op.Output)
	number := state
	if ok && !m.same(state, next) {
		number = m.number(next, set)
	}
	m.stepping = false
	return number, ok
}

func (m *modelStates) changesNothing(operation int) bool {
	return m.reads != nil && m.reads(m.operations[operation].Input)
}

func (m *modelStates) same(state int32, next any) bool {
	if m.equal == nil {
		return m.known[state] == next
	}
	return m.equal(m.known[state], next)
}

// number returns the number of a state, a new one if it was not met before.
func (m *modelStates) number(state any, set mark) int32 {
	if m.equal == nil {
		number, met := m.numbers[state]
		if !met {
			number = int32(len(m.known))
			m.numbers[state], m.known = number, append(m.known, state)
		}
		return number
	}
	hash := set.low
	if m.hash != nil {
		hash = m.hash(state)
	}
	newest, met := m.newest[hash]
	if !met {
		newest = -1
	}
	for number := newest; number >= 0; number = m.older[number] {
		if m.equal(m.known[number], state) {
			return number
		}
	}
	number := int32(len(m.known))
	m.newest[hash], m.known, m.older = number, append(m.known, state), append(m.older, newest)
	return number
}

// stateBytes is what a small state takes, with its place in the map. What a state points to
// is not known here.
const stateBytes = 96

func (m *modelStates) bytes() int64 { return stateBytes * int64(len(m.known)) }
