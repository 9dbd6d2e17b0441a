package registers

// CheckUnambiguousPart looks for a violation in the part of a history whose values are
// produced once; it is for histories that [Check] calls Ambiguous. The outcome is Violation,
// with a core of the whole history, or Undecided: it never says Linearizable.
//
// What is left out is every operation on a value that is produced more than once, and on
// what swaps made of it. In a legal order the rest keeps its neighbours: whole stretches of
// values disappear, each with the swap that began it, and what stood before a stretch ended
// with its own value still current. So the rest of a linearizable history is linearizable.
// That is not so for refused swaps, which may have found one of the values that disappear;
// a refused one counts only where what it expected was current all the while. (A swap of a
// value left out is left out with what it produced.)
func CheckUnambiguousPart(ops []Op) Verdict {
	tainted := taintedValues(ops)
	kept, indices := make([]Op, 0, len(ops)), make([]int, 0, len(ops))
	for i := range ops {
		if ops[i].Kind == Refused || tainted.get(ops[i].Value) == none {
			kept, indices = append(kept, ops[i]), append(indices, i)
		}
	}
	h, _ := analyse(kept)
	if len(h.found) == 0 {
		return Verdict{}
	}
	verdict := h.explain()
	for _, part := range [2][]int{verdict.Core, verdict.Witnesses} {
		for j := range part {
			part[j] = indices[part[j]]
		}
	}
	return verdict
}

// taintedValues returns the values that are produced more than once, and those that swaps
// produced from them.
func taintedValues(ops []Op) values {
	produced, tainted := newValues(len(ops)+1), newValues(0)
	isNew(&produced, Nothing)
	var todo []int64
	taint := func(value int64) {
		if isNew(&tainted, value) {
			todo = append(todo, value)
		}
	}
	from := make(map[int64][]int64)
	for i := range ops {
		op := &ops[i]
		kind := op.kind()
		if kind != Write && kind != Swap {
			continue
		}
		if !isNew(&produced, op.Value) {
			taint(op.Value)
		}
		if kind == Swap {
			from[op.Expected] = append(from[op.Expected], op.Value)
		}
	}
	for len(todo) > 0 {
		value := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, next := range from[value] {
			taint(next)
		}
	}
	return tainted
}

// isNew adds a value and says whether it was not there yet.
func isNew(v *values, value int64) bool {
	before := v.count
	v.add(value, int32(before))
	return v.count > before
}
