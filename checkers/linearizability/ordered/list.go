package ordered

import (
	"fmt"
	"slices"
)

// CheckList decides the history of a list. It takes time in proportion to what the reads
// returned.
//
// Each read must be a beginning of the longest, L. That gives the groups: reads of nothing,
// the append of L's first element, reads of it alone, the append of the second, and so on;
// then the appends that returned and are not in L. Appends of unknown outcome that are not in
// L are left out: they may stand at the end, or nowhere.
func CheckList(ops []Op) Verdict {
	l, verdict := newList(ops)
	if verdict != nil {
		return *verdict
	}
	return l.decide()
}

// OrderList returns the positions of a list's operations in a legal order, if there is one.
// Appends of unknown outcome that nobody saw are left out.
func OrderList(ops []Op) (order []int, ok bool) {
	l, verdict := newList(ops)
	if verdict != nil {
		return nil, false
	}
	return l.order()
}

// ReplayList verifies that an order is a legal one of the whole history. It shares nothing
// with the code that finds one.
func ReplayList(ops []Op, order []int) error {
	var list []int64
	return replay(len(ops), order, func(i int) interval { return interval{ops[i].Call, ops[i].Return} }, func(i int) bool {
		if ops[i].Read {
			return slices.Equal(ops[i].Elements, list)
		}
		list = append(list, ops[i].Element)
		return true
	})
}

// replay verifies an order: step does an operation and says whether it fits. Operations of
// unknown outcome may be absent.
func replay(count int, order []int, at func(int) interval, step func(int) bool) error {
	placed := make([]bool, count)
	latest := Early
	for position, i := range order {
		if i < 0 || i >= count || placed[i] {
			return fmt.Errorf("position %d: operation %d does not exist or stands twice", position, i)
		}
		placed[i] = true
		if at(i).end < latest {
			return fmt.Errorf("position %d: operation %d ended before one that stands before it began", position, i)
		}
		latest = max(latest, at(i).call)
		if !step(i) {
			return fmt.Errorf("position %d: operation %d does not fit", position, i)
		}
	}
	for i := range count {
		if !placed[i] && at(i).end != Never {
			return fmt.Errorf("operation %d is not in the order", i)
		}
	}
	return nil
}

// list is the history of a list.
type list struct {
	grown
	longest int     // a longest read; -1: there is none
	reads   [][]int // by length
}

// newList looks at the values. A verdict is given where they decide already.
func newList(ops []Op) (*list, *Verdict) {
	l := &list{grown: grown{ops: ops}, longest: -1}
	l.grown.witness = l.witness
	if v := l.noteAdds("appended"); v != nil {
		return nil, v
	}
	for i := range ops {
		if op := &ops[i]; op.Read && op.Return != Never && (l.longest < 0 || len(op.Elements) > len(ops[l.longest].Elements)) {
			l.longest = i
		}
	}
	var whole []int64
	if l.longest >= 0 {
		whole = ops[l.longest].Elements
	}
	in := make(map[int64]bool, len(whole))
	if v := l.checkElements(whole, in); v != nil {
		return nil, v
	}
	l.reads = make([][]int, len(whole)+1)
	for i := range ops {
		op := &ops[i]
		if !op.Read || op.Return == Never {
			continue
		}
		if !slices.Equal(op.Elements, whole[:len(op.Elements)]) {
			v := l.incompatible(i)
			return nil, &v
		}
		l.reads[len(op.Elements)] = append(l.reads[len(op.Elements)], i)
	}
	for length, reads := range l.reads {
		if length > 0 {
			l.groups = append(l.groups, []int{l.adds[whole[length-1]]})
		}
		l.groups = append(l.groups, reads)
	}
	l.groups = append(l.groups, l.tail(func(element int64) bool { return in[element] }))
	return l, nil
}

// checkElements notes the elements of the longest read, and looks for those that are there
// twice or that nobody appended.
func (l *list) checkElements(whole []int64, seen map[int64]bool) *Verdict {
	for _, element := range whole {
		at, appended := l.adds[element]
		var v Verdict
		switch {
		case !appended:
			v = violation(Phantom, []int64{element}, l.longest)
		case seen[element]:
			v = violation(Duplicate, []int64{element}, l.longest, at)
		default:
			seen[element] = true
			continue
		}
		return &v
	}
	return nil
}

// incompatible explains why a read is no beginning of the longest: at the first place where
// they differ one has x, the other y.
func (l *list) incompatible(read int) Verdict {
	short, long := l.ops[read].Elements, l.ops[l.longest].Elements
	at := 0
	for short[at] == long[at] {
		at++
	}
	x, y := short[at], long[at]
	appendX, known := l.adds[x]
	switch {
	case !known:
		return violation(Phantom, []int64{x}, read)
	case slices.Contains(short[:at], x):
		return violation(Duplicate, []int64{x}, read, appendX)
	}
	return violation(Incompatible, []int64{x, y}, read, l.longest, appendX, l.adds[y])
}

// witness returns the shortest read that has an element of the longest.
func (l *list) witness(element int64) int {
	at := slices.Index(l.ops[l.longest].Elements, element)
	for _, reads := range l.reads[at+1:] {
		if len(reads) > 0 {
			return reads[0]
		}
	}
	return l.longest
}
