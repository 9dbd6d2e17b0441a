package ordered

import (
	"cmp"
	"fmt"
	"slices"
)

// SetOp is one operation on a set that nothing is taken out of: the addition of an element,
// or a read that returned all elements in any order.
type SetOp struct {
	Read         bool
	Element      int64   // of an addition
	Elements     []int64 // that a read returned
	Call, Return int64   // a precedes b if and only if a.Return < b.Call
}

func (o *SetOp) interval() interval { return interval{o.Call, o.Return} }

// CheckSet decides the history of a set. It takes time in proportion to what the reads
// returned, besides sorting the reads by size.
//
// Of two reads the smaller must be part of the larger. That gives the groups: reads of
// nothing, the additions of what the next larger reads have, these reads, and so on; then the
// additions that returned and that no read has.
func CheckSet(ops []SetOp) Verdict {
	s, verdict := newSet(ops)
	if verdict != nil {
		return *verdict
	}
	walk := newLine()
	for _, group := range s.groups {
		for _, i := range group {
			if walk.early(ops[i].interval()) {
				return s.explain(i, walk.holder)
			}
		}
		for _, i := range group {
			walk.enter(i, ops[i].interval())
		}
	}
	return Verdict{Outcome: Linearizable}
}

// OrderSet returns the positions of a set's operations in a legal order, if there is one.
// Additions of unknown outcome that nobody saw are left out.
func OrderSet(ops []SetOp) (order []int, ok bool) {
	if CheckSet(ops).Outcome != Linearizable {
		return nil, false
	}
	s, _ := newSet(ops)
	for _, group := range s.groups {
		byCall(group, func(i int) interval { return ops[i].interval() })
		order = append(order, group...)
	}
	return order, true
}

// ReplaySet verifies that an order is a legal one of the whole history. It shares nothing with
// the code that finds one.
func ReplaySet(ops []SetOp, order []int) error {
	set := make(map[int64]bool)
	return replay(len(ops), order, func(i int) interval { return interval{ops[i].Call, ops[i].Return} }, func(i int) bool {
		if !ops[i].Read {
			set[ops[i].Element] = true
			return true
		}
		seen := make(map[int64]bool)
		for _, element := range ops[i].Elements {
			if !set[element] || seen[element] {
				return false
			}
			seen[element] = true
		}
		return len(seen) == len(set)
	})
}

// set is a history whose reads agree with one another.
type set struct {
	ops    []SetOp
	adds   map[int64]int // element to its addition
	groups [][]int
	reads  []int         // by size
	level  map[int64]int // element to the place in reads of the first that has it
}

func newSet(ops []SetOp) (*set, *Verdict) {
	s := &set{ops: ops, adds: make(map[int64]int), level: make(map[int64]int)}
	for i := range ops {
		op := &ops[i]
		switch {
		case op.Read && op.Return != Never:
			s.reads = append(s.reads, i)
		case !op.Read:
			if _, twice := s.adds[op.Element]; twice {
				v := undecided(fmt.Sprintf("%d was added twice", op.Element))
				return nil, &v
			}
			s.adds[op.Element] = i
		}
	}
	slices.SortStableFunc(s.reads, func(a, b int) int { return cmp.Compare(len(ops[a].Elements), len(ops[b].Elements)) })
	for place, read := range s.reads {
		if v := s.take(place, read); v != nil {
			return nil, v
		}
	}
	var tail []int
	for i := range ops {
		if op := &ops[i]; !op.Read && op.Return != Never {
			if _, seen := s.level[op.Element]; !seen {
				tail = append(tail, i)
			}
		}
	}
	s.groups = append(s.groups, tail)
	return s, nil
}

// take makes a group of what a read saw that no smaller one did, and puts the read behind.
func (s *set) take(place, read int) *Verdict {
	known, own := len(s.level), make(map[int64]bool, len(s.ops[read].Elements))
	var fresh []int
	for _, element := range s.ops[read].Elements {
		add, added := s.adds[element]
		var v Verdict
		switch {
		case !added:
			v = violation(Phantom, []int64{element}, read)
		case own[element]:
			v = violation(Duplicate, []int64{element}, read, add)
		default:
			own[element] = true
			if _, seen := s.level[element]; !seen {
				fresh = append(fresh, add)
			}
			continue
		}
		return &v
	}
	if len(own)-len(fresh) < known {
		v := s.incompatible(place, read, own, fresh[0])
		return &v
	}
	if len(fresh) > 0 || place == 0 {
		for _, add := range fresh {
			s.level[s.ops[add].Element] = place
		}
		s.groups = append(s.groups, fresh, nil)
	}
	last := len(s.groups) - 1
	s.groups[last] = append(s.groups[last], read)
	return nil
}

// incompatible explains why a smaller read, the one before, is not part of a larger one, which
// therefore has an element of its own.
func (s *set) incompatible(place, read int, own map[int64]bool, fresh int) Verdict {
	before := s.reads[place-1]
	x := s.ops[before].Elements[slices.IndexFunc(s.ops[before].Elements, func(e int64) bool { return !own[e] })]
	return violation(Incompatible, []int64{x, s.ops[fresh].Element}, before, read, s.adds[x], fresh)
}

// explain says why late, which ended before early began, must come after it.
func (s *set) explain(late, early int) Verdict {
	a, b := &s.ops[late], &s.ops[early]
	switch {
	case a.Read && b.Read:
		has := make(map[int64]bool, len(b.Elements))
		for _, element := range b.Elements {
			has[element] = true
		}
		element := a.Elements[slices.IndexFunc(a.Elements, func(e int64) bool { return !has[e] })]
		return violation(Missing, []int64{element}, late, early, s.adds[element])
	case a.Read:
		return violation(Order, []int64{b.Element}, late, early)
	case b.Read:
		return violation(Missing, []int64{a.Element}, late, early)
	default: // the first read with b's element has not a's
		return violation(Order, []int64{b.Element, a.Element}, late, early, s.reads[s.level[b.Element]])
	}
}
