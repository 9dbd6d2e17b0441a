package registers

// Handle names an operation in flight of a [Stream]. It tells a later operation
// from an earlier one in its place, as long as that is not two thousand million later.
type Handle uint64

// NoHandle is no operation's handle.
const NoHandle Handle = 0

// flight is an operation in flight.
type flight struct {
	kind       Kind
	stale      bool
	value      int32 // the value it produces, or none
	generation uint32
	before     int32 // the neighbours in order of call, of those that are not stale
	after      int32
	call       int64
	expected   int64
}

// flights are the operations in flight. Slots are used again, each time with a new
// generation, which is part of the handle.
type flights struct {
	slots         []flight
	free          []int32
	oldest, young int32 // the ends of the list in order of call
	count         int
}

const flying = 1 // generations of slots in use are odd

func (f *flights) init() { f.oldest, f.young = none, none }

func (f *flights) add(op flight) Handle {
	slot := int32(len(f.slots))
	if n := len(f.free); n > 0 {
		slot = f.free[n-1]
		f.free = f.free[:n-1]
	} else {
		f.slots = append(f.slots, flight{})
	}
	op.generation = f.slots[slot].generation + 1
	op.before, op.after = none, none
	if !op.stale {
		op.before = f.young
		if f.young != none {
			f.slots[f.young].after = slot
		} else {
			f.oldest = slot
		}
		f.young = slot
	}
	f.slots[slot] = op
	f.count++
	return Handle(op.generation)<<32 | Handle(slot)
}

// get returns an operation in flight, or nil.
func (f *flights) get(h Handle) *flight {
	slot := h & (1<<32 - 1)
	if slot >= Handle(len(f.slots)) || f.slots[slot].generation != uint32(h>>32) || f.slots[slot].generation&flying == 0 {
		return nil
	}
	return &f.slots[slot]
}

// remove ends an operation that get returns.
func (f *flights) remove(h Handle) {
	slot := int32(h & (1<<32 - 1))
	op := &f.slots[slot]
	op.generation++
	if !op.stale {
		if op.before != none {
			f.slots[op.before].after = op.after
		} else {
			f.oldest = op.after
		}
		if op.after != none {
			f.slots[op.after].before = op.before
		} else {
			f.young = op.before
		}
	}
	f.free = append(f.free, slot)
	f.count--
}

// isOldest says whether no operation in flight that is not stale was called earlier.
func (f *flights) isOldest(h Handle) bool { return f.oldest == int32(h&(1<<32-1)) }

// leastCall returns the least call of an operation in flight that is not stale, or now if
// there is none.
func (f *flights) leastCall(now int64) int64 {
	if f.oldest == none {
		return now
	}
	return f.slots[f.oldest].call
}

// pool holds values at indices that are used again.
type pool[T any] struct {
	items []T
	free  []int32
}

func (p *pool[T]) add(item *T) int32 {
	if n := len(p.free); n > 0 {
		i := p.free[n-1]
		p.free = p.free[:n-1]
		p.items[i] = *item
		return i
	}
	p.items = append(p.items, *item)
	return int32(len(p.items) - 1)
}

func (p *pool[T]) at(i int32) *T { return &p.items[i] }

func (p *pool[T]) remove(i int32) { p.free = append(p.free, i) }
