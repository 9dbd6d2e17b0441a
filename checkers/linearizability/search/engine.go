package search

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
)

// interval is when an operation was under way, both ends included.
type interval struct{ call, end int64 }

// states is the object whose operations are put in order. A state is a number; equal states
// that one set of operations leads to have equal numbers, and a step that does not change
// the state does not change its number.
type states interface {
	// first returns the state at the beginning.
	first() int32
	// step returns the state after an operation, and whether the operation may happen in the
	// state. set stands for the operations in the order so far with this one.
	step(state int32, operation int, set mark) (next int32, ok bool)
	// changesNothing reports whether an operation never changes a state.
	changesNothing(operation int) bool
	// bytes is what the states themselves hold, estimated.
	bytes() int64
}

// looseEnds is implemented by states whose unfinished operations need not happen. Such a one is
// tried only where it changes the state, and only where worth says so.
type looseEnds interface {
	// placed and taken tell that an operation was put next, and that this was undone.
	placed(operation int)
	taken(operation int)
	// worth reports whether putting an unfinished operation next could help; false only where
	// an order without it, or with another one in its place, exists if one with it does.
	worth(operation int) bool
}

// The operations that are left stand in two lists: those that must be in the order, as events
// in order of time, as in Porcupine; and the optional ones, by their call. An event is the
// operation's number, doubled, plus one where it is the return.

type engine struct {
	times  []interval
	states states
	loose  looseEnds // nil: unfinished operations must be in the order too
	limits Limits

	next, previous []int32 // of each event in its list
	main, ends     int32   // heads, which are no events: of what must be in the order, of what is optional
	marks          []mark  // random, of each operation
	tried          table
	frames         []frame
	set            mark // of the operations in the order
	state          int32
	steps          int64
	longest        []int
	farthest       int32 // the state after longest
	shared         int   // of longest, how many frames at the bottom are the same now
	left           int   // operations that must be in the order and are not
}

// frame is one operation in the order so far.
type frame struct {
	operation int32
	before    int32 // the state in which it was put
	only      bool  // nothing else needs to be tried in its place
}

func newEngine(times []interval, s states, limits Limits) *engine {
	n := len(times)
	e := &engine{
		times: times, states: s, limits: limits,
		next: make([]int32, 2*n+2), previous: make([]int32, 2*n+2), main: int32(2 * n), ends: int32(2*n + 1),
		marks: make([]mark, n), frames: make([]frame, 0, n), state: s.first(),
	}
	e.loose, _ = s.(looseEnds)
	random := rand.NewPCG(0x9e3779b97f4a7c15, uint64(n))
	var events, late []int32
	for i := range times {
		e.marks[i] = mark{random.Uint64(), random.Uint64()}
		if e.optional(i) {
			late = append(late, int32(2*i))
		} else {
			events = append(events, int32(2*i), int32(2*i+1))
		}
	}
	e.left = n - len(late)
	// At one moment calls stand before returns: operations that touch overlap.
	slices.SortStableFunc(events, func(a, b int32) int {
		return cmp.Or(cmp.Compare(e.moment(a), e.moment(b)), cmp.Compare(a&1, b&1))
	})
	slices.SortStableFunc(late, func(a, b int32) int { return cmp.Compare(e.moment(a), e.moment(b)) })
	e.link(e.main, events)
	e.link(e.ends, late)
	return e
}

// optional reports whether an operation need not be in the order.
func (e *engine) optional(operation int) bool {
	return e.loose != nil && e.times[operation].end == Never
}

func (e *engine) moment(event int32) int64 {
	if event&1 == 0 {
		return e.times[event/2].call
	}
	return e.times[event/2].end
}

// link makes a ring of a head and events.
func (e *engine) link(head int32, events []int32) {
	last := head
	for _, event := range events {
		e.next[last], e.previous[event] = event, last
		last = event
	}
	e.next[last], e.previous[head] = head, last
}

func (e *engine) unlink(event int32) {
	e.next[e.previous[event]], e.previous[e.next[event]] = e.next[event], e.previous[event]
}

func (e *engine) relink(event int32) {
	e.next[e.previous[event]], e.previous[e.next[event]] = event, event
}

// lookEvery is how many steps pass between two looks at the limits.
const lookEvery = 1024

// run searches, and returns the state after the order of its result too.
func (e *engine) run(ctx context.Context) (result Result, state int32) {
	at := e.next[e.main]
	for {
		if e.left == 0 {
			return Result{Outcome: Linearizable, Order: e.order(), Steps: e.steps}, e.state
		}
		event, found := e.candidate(at)
		if !found {
			e.remember()
			if at, found = e.back(); !found {
				return Result{Outcome: Illegal, Order: e.longest, Steps: e.steps}, e.farthest
			}
			continue
		}
		if e.steps++; e.steps%lookEvery == 0 {
			if reason := e.over(ctx); reason != "" {
				e.remember()
				return Result{Outcome: Unknown, Order: e.longest, Reason: reason, Steps: e.steps}, e.farthest
			}
		}
		at = e.try(event)
	}
}

// candidate returns the next event from at on that is the call of an operation which may
// come next: one that began before, or as, the first of those that returned ended.
func (e *engine) candidate(at int32) (event int32, found bool) {
	if at != e.main && at != e.ends && !e.optional(int(at/2)) {
		if at&1 == 0 {
			return at, true
		}
		at = e.next[e.ends]
	} else if at == e.main {
		at = e.next[e.ends]
	}
	for first := e.firstReturn(); at != e.ends && e.times[at/2].call <= first; at = e.next[at] {
		if e.loose.worth(int(at / 2)) {
			return at, true
		}
	}
	return 0, false
}

// firstReturn is when the first of the operations that are left and returned ended.
func (e *engine) firstReturn() int64 {
	for event := e.next[e.main]; event != e.main; event = e.next[event] {
		if event&1 == 1 {
			return e.moment(event)
		}
	}
	return Never
}

// try puts an operation next if the state allows it and that was not tried before. It
// returns where to look for the next candidate.
func (e *engine) try(event int32) int32 {
	operation := int(event / 2)
	set := e.set.with(e.marks[operation])
	next, ok := e.states.step(e.state, operation, set)
	optional := e.optional(operation)
	if !ok || optional && next == e.state {
		return e.next[event]
	}
	only := next == e.state && e.states.changesNothing(operation)
	if !e.tried.add(set.with(ofState(next))) {
		if only { // nothing else is better here, so there is no candidate any more
			return e.ends
		}
		return e.next[event]
	}
	e.frames = append(e.frames, frame{int32(operation), e.state, only})
	e.set, e.state = set, next
	e.unlink(event)
	if !optional {
		e.unlink(event + 1)
		e.left--
	}
	if e.loose != nil {
		e.loose.placed(operation)
	}
	return e.next[e.main]
}

// back takes the last operation out of the order again and returns where to look for
// another in its place. It is not found when none is left.
func (e *engine) back() (at int32, found bool) {
	for len(e.frames) > 0 {
		last := e.frames[len(e.frames)-1]
		e.frames = e.frames[:len(e.frames)-1]
		e.shared = min(e.shared, len(e.frames))
		operation, event := int(last.operation), 2*last.operation
		e.set, e.state = e.set.with(e.marks[operation]), last.before
		if !e.optional(operation) {
			e.relink(event + 1)
			e.left++
		}
		e.relink(event)
		if e.loose != nil {
			e.loose.taken(operation)
		}
		if !last.only {
			return e.next[event], true
		}
	}
	return 0, false
}

// remember keeps the order so far if it is the longest yet.
func (e *engine) remember() {
	if len(e.frames) <= len(e.longest) {
		return
	}
	e.longest = e.longest[:e.shared]
	for _, f := range e.frames[e.shared:] {
		e.longest = append(e.longest, int(f.operation))
	}
	e.shared, e.farthest = len(e.longest), e.state
}

func (e *engine) order() []int {
	order := make([]int, len(e.frames))
	for i, f := range e.frames {
		order[i] = int(f.operation)
	}
	return order
}

// over says which limit is reached, or nothing.
func (e *engine) over(ctx context.Context) string {
	if ctx.Err() != nil {
		return context.Cause(ctx).Error()
	}
	if e.limits.Memory == 0 {
		return ""
	}
	const perOperation = 8 + 16 + 12 + 8 // links, mark, frame, longest
	held := e.tried.bytes() + e.states.bytes() + int64(len(e.times))*perOperation
	if held > e.limits.Memory {
		return fmt.Sprintf("the memory budget of %d MiB ended", e.limits.Memory>>20)
	}
	return ""
}
