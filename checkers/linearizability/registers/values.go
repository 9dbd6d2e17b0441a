package registers

import "math/bits"

// none stands for no operation, value or chain where an index would stand.
const none int32 = -1

// values maps written values to indices: open addressing with linear probing, because Go's
// map costs several times more on a million values, cold.
type values struct {
	slots []valueSlot
	shift uint
	count int
}

// A valueSlot is free when index is 0, and otherwise holds index-1.
type valueSlot struct {
	value int64
	index int32
}

// newValues makes room for n values without growing.
func newValues(n int) values {
	bitsWanted := max(bits.Len(uint(n+n/2)), 3)
	return values{slots: make([]valueSlot, 1<<bitsWanted), shift: uint(64 - bitsWanted)}
}

// home is the slot where the search for a value begins. Values are often counters with a
// client's number above them, so all bits are mixed (a multiply, a fold, a multiply).
func (v *values) home(value int64) int {
	x := uint64(value) * 0x9E3779B97F4A7C15
	x ^= x >> 32
	x *= 0xD6E8FEB86659FD93
	return int(x >> v.shift)
}

// get returns the index of a value, or none.
func (v *values) get(value int64) int32 {
	mask := len(v.slots) - 1
	for i := v.home(value); ; i = (i + 1) & mask {
		slot := &v.slots[i]
		if slot.index == 0 {
			return none
		}
		if slot.value == value {
			return slot.index - 1
		}
	}
}

// add returns the index of a value, which is next if it was not there yet; then it is added.
func (v *values) add(value int64, next int32) int32 {
	mask := len(v.slots) - 1
	for i := v.home(value); ; i = (i + 1) & mask {
		slot := &v.slots[i]
		if slot.index == 0 {
			slot.value, slot.index = value, next+1
			if v.count++; v.count > len(v.slots)-len(v.slots)/4 {
				v.grow()
			}
			return next
		}
		if slot.value == value {
			return slot.index - 1
		}
	}
}

func (v *values) grow() {
	old := v.slots
	*v = values{slots: make([]valueSlot, 2*len(old)), shift: v.shift - 1}
	for _, slot := range old {
		if slot.index != 0 {
			v.add(slot.value, slot.index-1)
		}
	}
}

// remove forgets a value. What was pushed past its slot moves back, so that no search needs
// to know that there was something once.
func (v *values) remove(value int64) {
	mask := len(v.slots) - 1
	hole := v.home(value)
	for ; v.slots[hole].value != value || v.slots[hole].index == 0; hole = (hole + 1) & mask {
		if v.slots[hole].index == 0 {
			return
		}
	}
	v.count--
	for i := (hole + 1) & mask; v.slots[i].index != 0; i = (i + 1) & mask {
		if home := v.home(v.slots[i].value); (i-home)&mask >= (i-hole)&mask {
			v.slots[hole] = v.slots[i]
			hole = i
		}
	}
	v.slots[hole] = valueSlot{}
}
