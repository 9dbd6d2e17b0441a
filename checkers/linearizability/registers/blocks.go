package registers

import "math"

// history is a history while it is taken apart: a block for each value, chains of blocks,
// and a zone for each chain.
type history struct {
	ops []Op
	// blocks are in the order in which their values first appear, block 0 is Nothing's.
	blocks  []block
	index   values
	refused []int32
	// swapped says of each block whether it is linked to the one whose value its swap
	// expected; nil where there are no swaps. visited is used by the walk along chains.
	swapped []bool
	visited []bool
	// first is the zone of Nothing's chain, the others are in zones: forward ones in front,
	// in order of f once sorted, backward ones at the back.
	first             zone
	zones             []zone
	forward, backward []zone
	// found are violations, never more than mostFound: enough to choose a small one from.
	found []violation
}

const mostFound = 16

// A block is a value with its reads. In a legal order its operations are neighbours: the
// producer first, then the reads, and the swap that takes the value away last.
type block struct {
	value    int64
	producer int32 // the write or swap that wrote the value, or none
	first    int32 // the read of it that returned first, or none
	last     int32 // the read of it that was called last, or none
	next     int32 // the block whose swap took this value away, or none
}

// analyse takes the history apart. The verdict is Linearizable where nothing was found, and
// then that is so but for refused swaps; it tells of a Violation no more than that.
func analyse(ops []Op) (*history, Verdict) {
	h := &history{ops: ops}
	if verdict, ok := h.split(); !ok {
		return h, verdict
	}
	h.findPhantoms()
	if len(h.found) == 0 {
		h.link()
	}
	if len(h.found) == 0 {
		h.walkChains()
	}
	if len(h.found) == 0 {
		h.findOverlaps()
	}
	if len(h.found) == 0 {
		h.findHeld()
	}
	if len(h.found) == 0 {
		return h, Verdict{Outcome: Linearizable}
	}
	return h, Verdict{Outcome: Violation}
}

// split makes the blocks. It is not ok, with the verdict, where that cannot be done.
func (h *history) split() (Verdict, bool) {
	if len(h.ops) >= math.MaxInt32-1 {
		return Verdict{}, false
	}
	producers, swaps := 0, 0
	for i := range h.ops {
		switch h.ops[i].kind() {
		case Write:
			producers++
		case Swap:
			producers++
			swaps++
		}
	}
	h.index = newValues(producers + 1)
	h.blocks = make([]block, 0, producers+1)
	h.blockOf(Nothing)
	for i := range h.ops {
		op := &h.ops[i]
		switch op.kind() {
		case Read:
			if op.Return != Never {
				h.addRead(int32(i))
			}
		case Write, Swap:
			k := h.blockOf(op.Value)
			if k == 0 || h.blocks[k].producer != none {
				return Verdict{Outcome: Ambiguous, Value: op.Value}, false
			}
			h.blocks[k].producer = int32(i)
		case Refused:
			if op.Return != Never {
				h.refused = append(h.refused, int32(i))
			}
		default:
			return Verdict{}, false
		}
	}
	if swaps > 0 {
		h.swapped = make([]bool, len(h.blocks))
		h.visited = make([]bool, len(h.blocks))
	}
	return Verdict{}, true
}

func (h *history) addRead(i int32) {
	op := &h.ops[i]
	b := &h.blocks[h.blockOf(op.Value)]
	if b.first == none || op.Return < h.ops[b.first].Return {
		b.first = i
	}
	if b.last == none || op.Call > h.ops[b.last].Call {
		b.last = i
	}
}

func (h *history) blockOf(value int64) int32 {
	k := h.index.add(value, int32(len(h.blocks)))
	if int(k) == len(h.blocks) {
		h.blocks = append(h.blocks, block{value: value, producer: none, first: none, last: none, next: none})
	}
	return k
}

func (h *history) report(v violation) {
	if len(h.found) < mostFound {
		h.found = append(h.found, v)
	}
}

func (h *history) findPhantoms() {
	for k := 1; k < len(h.blocks); k++ {
		if b := &h.blocks[k]; b.producer == none {
			h.report(violation{reason: Phantom, block: int32(k), witnesses: []int32{b.first}})
			return
		}
	}
}

// link joins blocks by the swaps that took effect: those that were answered, those whose
// value was read and those whose value another such swap expected. A swap of unknown
// outcome that is none of these may be left out of any order, and put at the end of any.
func (h *history) link() {
	if h.swapped == nil {
		return
	}
	for k := int32(1); int(k) < len(h.blocks); k++ {
		b := &h.blocks[k]
		if h.ops[b.producer].Return == Never && b.first == none {
			continue
		}
		for j := k; j != 0 && h.ops[h.blocks[j].producer].Kind == Swap && !h.swapped[j]; {
			h.swapped[j] = true
			swap := h.blocks[j].producer
			e := h.index.get(h.ops[swap].Expected)
			if e == none {
				h.report(violation{reason: Phantom, block: j, witnesses: []int32{swap}})
				break
			}
			if other := h.blocks[e].next; other != none {
				h.report(violation{reason: DoubleSwap, block: e, other: j, witnesses: []int32{h.blocks[other].producer, swap}})
				break
			}
			h.blocks[e].next = j
			j = e
		}
	}
}

// effective says whether the write or swap of a block took effect for certain, after link.
func (h *history) effective(k int32) bool {
	b := &h.blocks[k]
	return b.first != none || b.next != none || h.ops[b.producer].Return != Never
}
