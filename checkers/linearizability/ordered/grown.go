package ordered

import (
	"fmt"
	"slices"
)

// Op is one operation on a list or a set: the addition of an element, or a read that returned
// all elements.
type Op struct {
	Read         bool
	Element      int64   // of an addition
	Elements     []int64 // that a read returned
	Call, Return int64   // a precedes b if and only if a.Return < b.Call
}

func (o *Op) interval() interval { return interval{o.Call, o.Return} }

// grown is the history of a list or a set whose reads agree with one another.
type grown struct {
	ops    []Op
	adds   map[int64]int // element to its addition
	groups [][]int       // of positions, in their order
	// witness returns a read that has an element, as few others with it as there is one.
	witness func(element int64) int
}

// noteAdds finds the additions. A verdict is given where an element was added twice.
func (g *grown) noteAdds(added string) *Verdict {
	g.adds = make(map[int64]int)
	for i := range g.ops {
		op := &g.ops[i]
		if op.Read {
			continue
		}
		if _, twice := g.adds[op.Element]; twice {
			v := undecided(fmt.Sprintf("%d was %s twice", op.Element, added))
			return &v
		}
		g.adds[op.Element] = i
	}
	return nil
}

// tail returns the additions that returned and that no read has.
func (g *grown) tail(seen func(element int64) bool) (tail []int) {
	for i := range g.ops {
		if op := &g.ops[i]; !op.Read && op.Return != Never && !seen(op.Element) {
			tail = append(tail, i)
		}
	}
	return tail
}

// decide looks for an operation that ended before one of an earlier group began.
func (g *grown) decide() Verdict {
	walk := newLine()
	for _, group := range g.groups {
		for _, i := range group {
			if walk.early(g.ops[i].interval()) {
				return g.explain(i, walk.holder)
			}
		}
		for _, i := range group {
			walk.enter(i, g.ops[i].interval())
		}
	}
	return Verdict{Outcome: Linearizable}
}

// order returns the positions in a legal order, if there is one.
func (g *grown) order() (order []int, ok bool) {
	if g.decide().Outcome != Linearizable {
		return nil, false
	}
	for _, group := range g.groups {
		byCall(group, func(i int) interval { return g.ops[i].interval() })
		order = append(order, group...)
	}
	return order, true
}

// explain says why late, which ended before early began, must come after it.
func (g *grown) explain(late, early int) Verdict {
	a, b := &g.ops[late], &g.ops[early]
	switch {
	case a.Read && b.Read: // a saw an element that b, later, did not
		has := make(map[int64]bool, len(b.Elements))
		for _, element := range b.Elements {
			has[element] = true
		}
		element := a.Elements[slices.IndexFunc(a.Elements, func(e int64) bool { return !has[e] })]
		return violation(Missing, []int64{element}, late, early, g.adds[element])
	case a.Read: // a saw b's element before b began
		return violation(Order, []int64{b.Element}, late, early)
	case b.Read: // b did not see a's element
		return violation(Missing, []int64{a.Element}, late, early)
	default: // some read shows b's element without, or before, a's
		return violation(Order, []int64{b.Element, a.Element}, late, early, g.witness(b.Element))
	}
}
