package registers

// Concerning returns the indices, in ascending order, of the operations on any of the
// values, and on what swaps made of them or made them of. It is for fetching from a long
// history what an [Alarm] speaks of: these operations alone are a violation. Where an
// operation had not ended when the alarm was raised, give it as of unknown outcome.
func Concerning(ops []Op, values []int64) []int {
	ids := newValues(2 * len(values))
	var joined []int32 // for each value, one that swaps connect it with, or itself
	id := func(value int64) int32 {
		k := ids.add(value, int32(len(joined)))
		if int(k) == len(joined) {
			joined = append(joined, k)
		}
		return k
	}
	root := func(k int32) int32 {
		for joined[k] != k {
			joined[k] = joined[joined[k]]
			k = joined[k]
		}
		return k
	}
	for i := range ops {
		if op := &ops[i]; op.kind() == Swap {
			joined[root(id(op.Value))] = root(id(op.Expected))
		}
	}
	wanted := make(map[int32]bool, len(values))
	for _, value := range values {
		wanted[root(id(value))] = true
	}
	var concerning []int
	for i := range ops {
		value := ops[i].Value
		if ops[i].Kind == Refused {
			value = ops[i].Expected
		}
		if k := ids.get(value); k != none && wanted[root(k)] {
			concerning = append(concerning, i)
		}
	}
	return concerning
}
