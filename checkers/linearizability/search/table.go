package search

// mark is a random number of 128 bits that stands for a set: the XOR of the marks of its
// elements (Zobrist hashing). Adding an element and taking it out are the same step.
type mark struct{ high, low uint64 }

func (m mark) with(o mark) mark { return mark{m.high ^ o.high, m.low ^ o.low} }

// ofState is the mark of a state's number.
func ofState(state int32) mark {
	return mark{mix(uint64(uint32(state)) + 0x9e3779b97f4a7c15), mix(uint64(uint32(state)) + 0xd1b54a32d192ed03)}
}

// mix spreads a number over 64 bits, one to one (the finaliser of SplitMix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// table is a set of marks: open addressing with linear probing, at most three quarters full.
// The mark of all zeros stands for an empty place; it is kept apart.
type table struct {
	slots []mark
	used  int
	zero  bool
}

const slotsFirst = 64

// add puts a mark in and reports whether it was not there.
func (t *table) add(m mark) bool {
	if m == (mark{}) {
		was := t.zero
		t.zero = true
		return !was
	}
	if 4*(t.used+1) > 3*len(t.slots) {
		t.grow()
	}
	if !t.put(m) {
		return false
	}
	t.used++
	return true
}

func (t *table) put(m mark) bool {
	last := uint64(len(t.slots) - 1)
	for i := m.low & last; ; i = (i + 1) & last {
		switch t.slots[i] {
		case m:
			return false
		case mark{}:
			t.slots[i] = m
			return true
		}
	}
}

func (t *table) grow() {
	old := t.slots
	t.slots = make([]mark, max(slotsFirst, 2*len(old)))
	for _, m := range old {
		if m != (mark{}) {
			t.put(m)
		}
	}
}

// bytes is what the table holds, and what it needs on top of that when it grows next.
func (t *table) bytes() int64 { return 16 * int64(len(t.slots)) }
