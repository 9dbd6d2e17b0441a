package ordered

import (
	"cmp"
	"slices"
)

// CheckSet decides the history of a set. It takes time in proportion to what the reads
// returned, besides sorting the reads by size.
//
// Of two reads the smaller must be part of the larger. That gives the groups: reads of
// nothing, the additions of what the next larger reads have, these reads, and so on; then the
// additions that returned and that no read has.
func CheckSet(ops []Op) Verdict {
	s, verdict := newSet(ops)
	if verdict != nil {
		return *verdict
	}
	return s.decide()
}

// OrderSet returns the positions of a set's operations in a legal order, if there is one.
// Additions of unknown outcome that nobody saw are left out.
func OrderSet(ops []Op) (order []int, ok bool) {
	s, verdict := newSet(ops)
	if verdict != nil {
		return nil, false
	}
	return s.order()
}

// ReplaySet verifies that an order is a legal one of the whole history. It shares nothing with
// the code that finds one.
func ReplaySet(ops []Op, order []int) error {
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

// set is the history of a set.
type set struct {
	grown
	reads []int         // by size
	level map[int64]int // element to the place in reads of the first that has it
}

func newSet(ops []Op) (*set, *Verdict) {
	s := &set{grown: grown{ops: ops}, level: make(map[int64]int)}
	s.witness = func(element int64) int { return s.reads[s.level[element]] }
	if v := s.noteAdds("added"); v != nil {
		return nil, v
	}
	for i := range ops {
		if op := &ops[i]; op.Read && op.Return != Never {
			s.reads = append(s.reads, i)
		}
	}
	slices.SortStableFunc(s.reads, func(a, b int) int { return cmp.Compare(len(ops[a].Elements), len(ops[b].Elements)) })
	for place, read := range s.reads {
		if v := s.take(place, read); v != nil {
			return nil, v
		}
	}
	s.groups = append(s.groups, s.tail(func(element int64) bool { _, seen := s.level[element]; return seen }))
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
