package search

import (
	"context"
	"math/bits"

	"github.com/anishathalye/porcupine"
)

// Live decides a history of any model while it goes on, by just-in-time linearization
// (Lowe, "Testing for linearizability", 2017): it knows every way in which the operations
// so far can have taken effect, each as a state with the set of those in flight that have
// done so already. An operation is put into the order at the latest when it returns, others
// before it only if that makes it possible. No way left means that there is no order.
//
// It is exact, and holds nothing of what is past; but the ways can be exponentially many in
// the number of operations in flight, those of unknown outcome included, which never leave.
// So there is a limit, after which it gives up.
//
// The outcome of an operation must be known when it is added. So the caller adds an
// operation when it has completed, and only then goes on with what happened after its invoke.
type Live struct {
	model    Model
	step     func(state, input, output any) (bool, any)
	ways     []way
	waysMost int
	inFlight [slots]porcupine.Operation
	used     uint64
	outcome  Outcome
}

// way is one way in which the operations so far can have taken effect.
type way struct {
	state any
	done  uint64 // the slots of operations in flight that took effect
}

const slots = 64

// NewLive begins with the model's initial state and no operation. It gives up when there are
// more ways than waysMost, or more than 64 operations in flight.
func NewLive(model Model, waysMost int) *Live {
	return &Live{
		model: model, step: stepOf(context.Background(), model.Model), waysMost: waysMost,
		ways: []way{{state: model.Init()}}, outcome: Linearizable,
	}
}

// Add takes an operation that begins. finished says whether it will return; else its outcome
// is unknown, and it stays in flight. The slot is what Return takes.
func (l *Live) Add(op porcupine.Operation, finished bool) (slot int) {
	if l.outcome != Linearizable || !finished && l.model.Reads != nil && l.model.Reads(op.Input) {
		return -1
	}
	slot = bits.TrailingZeros64(^l.used)
	if slot == slots {
		l.give()
		return -1
	}
	l.used |= 1 << slot
	l.inFlight[slot] = op
	return slot
}

// Return takes the return of an operation. Illegal says that the history has no order from
// here on, Unknown that Live gave up.
func (l *Live) Return(slot int) Outcome {
	if l.outcome != Linearizable || slot < 0 {
		return l.outcome
	}
	bit := uint64(1) << slot
	var after []way
	todo := append([]way(nil), l.ways...)
	seen := ways{equal: l.same, byDone: make(map[uint64][]any)}
	for len(todo) > 0 {
		w := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if w.done&bit != 0 {
			w.done &^= bit
			after = append(after, w)
			continue
		}
		for left := l.used &^ w.done; left != 0; left &= left - 1 {
			next := bits.TrailingZeros64(left)
			op := &l.inFlight[next]
			ok, state := l.step(w.state, op.Input, op.Output)
			further := way{state, w.done | 1<<next}
			if ok && seen.add(further) {
				todo = append(todo, further)
			}
		}
		if seen.count > l.waysMost {
			l.give()
			return l.outcome
		}
	}
	l.used &^= bit
	l.inFlight[slot] = porcupine.Operation{}
	distinct := ways{equal: l.same, byDone: make(map[uint64][]any)}
	l.ways = l.ways[:0]
	for _, w := range after {
		if distinct.add(w) {
			l.ways = append(l.ways, w)
		}
	}
	if len(l.ways) == 0 {
		l.outcome = Illegal
	}
	return l.outcome
}

// give stops, and holds nothing any more.
func (l *Live) give() {
	l.outcome, l.ways, l.inFlight = Unknown, nil, [slots]porcupine.Operation{}
}

func (l *Live) same(a, b any) bool {
	if l.model.Equal == nil {
		return a == b
	}
	return l.model.Equal(a, b)
}

// ways is a set of ways.
type ways struct {
	equal  func(a, b any) bool
	byDone map[uint64][]any
	count  int
}

func (s *ways) add(w way) bool {
	for _, state := range s.byDone[w.done] {
		if s.equal(state, w.state) {
			return false
		}
	}
	s.count++
	s.byDone[w.done] = append(s.byDone[w.done], w.state)
	return true
}
