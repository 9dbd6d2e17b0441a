package ordered

import (
	"cmp"
	"container/heap"
	"slices"
)

// CounterKind says what an operation on a counter did.
type CounterKind uint8

const (
	// Add added 1 and did not say what the sum was then.
	Add CounterKind = iota
	// AddAndGet added 1 and returned the sum.
	AddAndGet
	// Get returned the sum.
	Get
)

// CounterOp is one operation on a counter that begins at 0 and that 1 is added to. Others may
// be made into this by the caller only if each delta is 1.
type CounterOp struct {
	Kind         CounterKind
	Result       int64 // of AddAndGet and Get that returned
	Call, Return int64 // a precedes b if and only if a.Return < b.Call
}

func (o *CounterOp) interval() interval { return interval{o.Call, o.Return} }

// says reports whether an operation tells a sum.
func (o *CounterOp) says() bool { return o.Kind != Add && o.Return != Never }

// CheckCounter decides the history of a counter, in O(n log n).
//
// The additions take the sums 1, 2, 3 … in turn. One that returned its sum has that place, a
// read stands behind the place of its result; these are in groups with a forced order. Every
// place up to the greatest result known must be taken by one of the other additions, which we
// call fillers: those that did not tell their sum, and those of unknown outcome. A filler may
// take a place if it began no later than all ends of the groups behind it, and ended no
// earlier than all calls of the groups before it. Both bounds grow from place to place: so a
// filler may take places from some first to some last one, and it is a matter of unit tasks
// with releases and deadlines, for which taking the one with the earliest deadline, which is
// the earliest end, is optimal, and which fills a place whenever any choice could.
//
// The fillers must respect one another too: none may stand before one that ended before it
// began. That one began and ended earlier, so it could take the place as well and has the
// earlier end: it was taken before. What is left stands behind all places if it was of
// unknown outcome, or nowhere; if it returned, it must not have ended before a call in any
// group.
func CheckCounter(ops []CounterOp) Verdict {
	_, verdict := fill(ops)
	return verdict
}

// OrderCounter returns the positions of a counter's operations in a legal order, if there is
// one. Additions of unknown outcome that are not needed are left out.
func OrderCounter(ops []CounterOp) (order []int, ok bool) {
	order, verdict := fill(ops)
	return order, verdict.Outcome == Linearizable
}

// ReplayCounter verifies that an order is a legal one of the whole history. It shares nothing
// with the code that finds one.
func ReplayCounter(ops []CounterOp, order []int) error {
	sum := int64(0)
	return replay(len(ops), order, func(i int) interval { return interval{ops[i].Call, ops[i].Return} }, func(i int) bool {
		if ops[i].Kind != Get {
			sum++
		}
		return ops[i].Kind == Add || ops[i].Return == Never || ops[i].Result == sum
	})
}

// place is a sum: who took it and who read it.
type place struct {
	taker  int // -1: nobody who said so
	reads  []int
	ends   int64 // the least end of this group and those behind
	number int64
}

// fill puts every operation into its place, or says why that cannot be.
func fill(ops []CounterOp) (order []int, verdict Verdict) {
	places, impossible := placesOf(ops)
	if impossible != nil {
		return nil, *impossible
	}
	var fillers []int
	for i := range ops {
		if op := &ops[i]; op.Kind != Get && !op.says() {
			fillers = append(fillers, i)
		}
	}
	byCall(fillers, func(i int) interval { return ops[i].interval() })
	able := &byEnd{ops: ops}
	walk := newLine()
	enter := func(i int) {
		order = append(order, i)
		walk.enter(i, ops[i].interval())
	}
	last := int64(0)
	for p := range places {
		group := &places[p]
		// The places between the last group and this one, and this one if nobody said it is his.
		empty := group.number - last
		if group.taker >= 0 {
			empty--
		}
		last = group.number
		for range empty {
			for len(fillers) > 0 && ops[fillers[0]].Call <= group.ends {
				heap.Push(able, fillers[0])
				fillers = fillers[1:]
			}
			if able.Len() == 0 {
				return nil, violation(Phantom, nil, group.member())
			}
			next := heap.Pop(able).(int)
			if walk.early(ops[next].interval()) {
				return nil, violation(Missing, nil, next, walk.holder)
			}
			order = append(order, next)
			// A filler's call is no bound for the fillers behind, and for groups behind it is
			// tested by their ends.
		}
		if v := group.test(ops, &walk); v != nil {
			return nil, *v
		}
		if group.taker >= 0 {
			enter(group.taker)
		}
		byCall(group.reads, func(i int) interval { return ops[i].interval() })
		for _, i := range group.reads {
			enter(i)
		}
	}
	var rest []int
	for _, i := range append(able.positions, fillers...) {
		if ops[i].Return == Never {
			continue
		}
		if walk.early(ops[i].interval()) {
			return nil, violation(Missing, nil, i, walk.holder)
		}
		rest = append(rest, i)
	}
	byCall(rest, func(i int) interval { return ops[i].interval() })
	return append(order, rest...), Verdict{Outcome: Linearizable}
}

// member returns an operation that shows that the place is there.
func (p *place) member() int {
	if p.taker >= 0 {
		return p.taker
	}
	return p.reads[0]
}

// test looks for a member that ended before an earlier group's began. The taker stands before
// the reads.
func (p *place) test(ops []CounterOp, walk *line) *Verdict {
	late := -1
	for _, i := range p.reads {
		if walk.early(ops[i].interval()) || p.taker >= 0 && ops[i].Return < ops[p.taker].Call {
			late = i
		}
	}
	if p.taker >= 0 && walk.early(ops[p.taker].interval()) {
		late = p.taker
	}
	if late < 0 {
		return nil
	}
	before := walk.holder
	if !walk.early(ops[late].interval()) {
		before = p.taker
	}
	v := violation(Order, nil, late, before)
	return &v
}

// placesOf groups the operations that tell a sum by it. A verdict is given where the results
// decide already.
func placesOf(ops []CounterOp) ([]place, *Verdict) {
	violated := func(reason Reason, core ...int) ([]place, *Verdict) {
		v := violation(reason, nil, core...)
		return nil, &v
	}
	bySum := make(map[int64]*place)
	for i := range ops {
		op := &ops[i]
		if !op.says() {
			continue
		}
		if op.Result < 0 || op.Kind == AddAndGet && op.Result == 0 {
			return violated(Phantom, i)
		}
		p := bySum[op.Result]
		if p == nil {
			p = &place{taker: -1, number: op.Result}
			bySum[op.Result] = p
		}
		switch {
		case op.Kind == Get:
			p.reads = append(p.reads, i)
		case p.taker >= 0:
			return violated(Duplicate, p.taker, i)
		default:
			p.taker = i
		}
	}
	places := make([]place, 0, len(bySum))
	for _, p := range bySum {
		places = append(places, *p)
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Compare(a.number, b.number) })
	if len(places) > 0 && places[len(places)-1].number > int64(len(ops)) {
		return violated(Phantom, places[len(places)-1].member())
	}
	least := Never
	for p := len(places) - 1; p >= 0; p-- {
		for _, i := range places[p].reads {
			least = min(least, ops[i].Return)
		}
		if taker := places[p].taker; taker >= 0 {
			least = min(least, ops[taker].Return)
		}
		places[p].ends = least
	}
	return places, nil
}

// byEnd is a heap of fillers, the earliest end first.
type byEnd struct {
	ops       []CounterOp
	positions []int
}

func (h *byEnd) Len() int { return len(h.positions) }
func (h *byEnd) Less(a, b int) bool {
	return h.ops[h.positions[a]].Return < h.ops[h.positions[b]].Return
}
func (h *byEnd) Swap(a, b int) { h.positions[a], h.positions[b] = h.positions[b], h.positions[a] }

// Push and Pop are for container/heap.
func (h *byEnd) Push(x any) { h.positions = append(h.positions, x.(int)) }

// Pop takes the last position.
func (h *byEnd) Pop() any {
	last := len(h.positions) - 1
	x := h.positions[last]
	h.positions = h.positions[:last]
	return x
}
