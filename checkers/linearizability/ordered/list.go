package ordered

import (
	"fmt"
	"slices"
)

// ListOp is one operation on an append-only list: the append of an element, or a read that
// returned all elements in order.
type ListOp struct {
	Read         bool
	Element      int64   // of an append
	Elements     []int64 // that a read returned
	Call, Return int64   // a precedes b if and only if a.Return < b.Call
}

func (o *ListOp) interval() interval { return interval{o.Call, o.Return} }

// CheckList decides the history of a list. It takes time in proportion to what the reads
// returned.
//
// Each read must be a beginning of the longest, L. That gives the groups: reads of nothing,
// the append of L's first element, reads of it alone, the append of the second, and so on;
// then the appends that returned and are not in L. Appends of unknown outcome that are not in
// L are left out: they may stand at the end, or nowhere.
func CheckList(ops []ListOp) Verdict {
	l, verdict := newList(ops)
	if verdict != nil {
		return *verdict
	}
	walk := newLine()
	for _, group := range l.groups() {
		for _, i := range group {
			if walk.early(ops[i].interval()) {
				return l.explain(i, walk.holder)
			}
		}
		for _, i := range group {
			walk.enter(i, ops[i].interval())
		}
	}
	return Verdict{Outcome: Linearizable}
}

// OrderList returns the positions of a list's operations in a legal order, if there is one.
// Appends of unknown outcome that nobody saw are left out.
func OrderList(ops []ListOp) (order []int, ok bool) {
	if CheckList(ops).Outcome != Linearizable {
		return nil, false
	}
	l, _ := newList(ops)
	for _, group := range l.groups() {
		byCall(group, func(i int) interval { return ops[i].interval() })
		order = append(order, group...)
	}
	return order, true
}

// ReplayList verifies that an order is a legal one of the whole history. It shares nothing
// with the code that finds one.
func ReplayList(ops []ListOp, order []int) error {
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

// list is a history whose reads agree with one another.
type list struct {
	ops     []ListOp
	appends map[int64]int // element to its append
	longest int           // a longest read; -1: there is none
	reads   [][]int       // by length
	tail    []int         // appends that returned and are not in the longest read
}

// newList looks at the values. A verdict is given where they decide already.
func newList(ops []ListOp) (*list, *Verdict) {
	l := &list{ops: ops, appends: make(map[int64]int), longest: -1}
	for i := range ops {
		op := &ops[i]
		switch {
		case !op.Read:
			if _, twice := l.appends[op.Element]; twice {
				v := undecided(fmt.Sprintf("%d was appended twice", op.Element))
				return nil, &v
			}
			l.appends[op.Element] = i
		case op.Return != Never && (l.longest < 0 || len(op.Elements) > len(ops[l.longest].Elements)):
			l.longest = i
		}
	}
	var whole []int64
	if l.longest >= 0 {
		whole = ops[l.longest].Elements
		if v := l.checkElements(whole); v != nil {
			return nil, v
		}
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
	in := make(map[int64]bool, len(whole))
	for _, element := range whole {
		in[element] = true
	}
	for i := range ops {
		if op := &ops[i]; !op.Read && op.Return != Never && !in[op.Element] {
			l.tail = append(l.tail, i)
		}
	}
	return l, nil
}

// checkElements looks for elements of the longest read that are there twice or that nobody
// appended.
func (l *list) checkElements(whole []int64) *Verdict {
	seen := make(map[int64]bool, len(whole))
	for _, element := range whole {
		at, appended := l.appends[element]
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
	appendX, known := l.appends[x]
	switch {
	case !known:
		return violation(Phantom, []int64{x}, read)
	case slices.Contains(short[:at], x):
		return violation(Duplicate, []int64{x}, read, appendX)
	}
	return violation(Incompatible, []int64{x, y}, read, l.longest, appendX, l.appends[y])
}

func (l *list) groups() [][]int {
	var groups [][]int
	for length, reads := range l.reads {
		if length > 0 {
			groups = append(groups, []int{l.appends[l.ops[l.longest].Elements[length-1]]})
		}
		groups = append(groups, reads)
	}
	return append(groups, l.tail)
}

// explain says why late, which ended before early began, must come after it.
func (l *list) explain(late, early int) Verdict {
	a, b := &l.ops[late], &l.ops[early]
	switch {
	case a.Read && b.Read: // a saw an element that b, later, did not
		element := a.Elements[len(b.Elements)]
		return violation(Missing, []int64{element}, late, early, l.appends[element])
	case a.Read: // a saw b's element before b began
		return violation(Order, []int64{b.Element}, late, early)
	case b.Read: // b did not see a's element
		return violation(Missing, []int64{a.Element}, late, early)
	default: // some read shows b's element without, or before, a's
		return violation(Order, []int64{b.Element, a.Element}, late, early, l.witness(b.Element))
	}
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
