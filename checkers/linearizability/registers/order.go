package registers

import (
	"cmp"
	"slices"
)

// legalOrder returns a legal order of a history in which no violation was found yet, and
// which refused swaps are stuck if there is one only without them.
func (h *history) legalOrder() (order []int, stuck []int32) {
	chains := h.chainOrder()
	if len(h.refused) == 0 {
		return widen(h.layOut(chains)), nil
	}
	if order, stuck = h.placeRefused(h.layOut(chains)); len(stuck) > 0 {
		return h.rearrange(chains, stuck)
	}
	return order, nil
}

// chainOrder returns the chains in a legal order, refused swaps left out: Nothing's chain,
// then the others by min(f,s), at a tie a backward zone before a forward one. That agrees
// with every demand A before B, which is f(A) < s(B):
//
//	forward A, backward B: f(A) < s(B).
//	backward A, forward B: as they are no pair, f(B) >= s(A); at a tie A comes first.
//	both backward: s(A) <= f(A) < s(B).
//	both forward: they have no common inside, so f(A) < f(B).
func (h *history) chainOrder() []zone {
	chains := make([]zone, 0, 1+len(h.forward)+len(h.backward))
	chains = append(append(append(chains, h.first), h.backward...), h.forward...)
	slices.SortFunc(chains[1:], func(a, b zone) int {
		if c := cmp.Compare(min(a.f, a.s), min(b.f, b.s)); c != 0 {
			return c
		}
		return cmp.Compare(b2i(a.f < a.s), b2i(b.f < b.s))
	})
	return chains
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// layOut returns the operations of the chains, one chain after the other.
func (h *history) layOut(chains []zone) []int32 {
	reads, begin := h.readsByBlock()
	order := make([]int32, 0, len(h.ops))
	for _, z := range chains {
		for j := z.root; j != none; j = h.blocks[j].next {
			if p := h.blocks[j].producer; p != none {
				order = append(order, p)
			}
			// A read that ended before another began has the lesser call too.
			own := reads[begin[j]:begin[j+1]]
			slices.SortFunc(own, func(a, b int32) int { return cmp.Compare(h.ops[a].Call, h.ops[b].Call) })
			order = append(order, own...)
		}
	}
	return order
}

// readsByBlock returns the reads, those of block k from begin[k] to begin[k+1].
func (h *history) readsByBlock() (reads, begin []int32) {
	begin = make([]int32, len(h.blocks)+2)
	blocks := make([]int32, len(h.ops))
	for i := range h.ops {
		blocks[i] = none
		if op := &h.ops[i]; op.kind() == Read && op.Return != Never {
			blocks[i] = h.index.get(op.Value)
			begin[blocks[i]+2]++
		}
	}
	for k := 2; k < len(begin); k++ {
		begin[k] += begin[k-1]
	}
	reads = make([]int32, begin[len(begin)-1])
	for i, k := range blocks {
		if k != none {
			reads[begin[k+1]] = int32(i)
			begin[k+1]++
		}
	}
	return reads, begin[:len(h.blocks)+1]
}
