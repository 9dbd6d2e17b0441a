package registers

import (
	"cmp"
	"slices"
)

// order returns a legal order of a history without violation, refused swaps left out:
// Nothing's chain, then the others by min(f,s), at a tie a backward zone before a forward
// one. That agrees with every demand A before B, which is f(A) < s(B):
//
//	forward A, backward B: f(A) < s(B).
//	backward A, forward B: as they are no pair, f(B) >= s(A); at a tie A comes first.
//	both backward: s(A) <= f(A) < s(B).
//	both forward: they have no common inside, so f(A) < f(B).
func (h *history) order() []int32 {
	type start struct {
		at      int64
		forward bool
		root    int32
	}
	starts := make([]start, 0, len(h.forward)+len(h.backward))
	for _, z := range h.backward {
		starts = append(starts, start{z.s, false, z.root})
	}
	for _, z := range h.forward {
		starts = append(starts, start{z.f, true, z.root})
	}
	slices.SortFunc(starts, func(a, b start) int {
		if c := cmp.Compare(a.at, b.at); c != 0 || a.forward == b.forward {
			return c
		}
		if b.forward {
			return -1
		}
		return 1
	})
	reads, begin := h.readsByBlock()
	order := make([]int32, 0, len(h.ops))
	appendChain := func(root int32) {
		for j := root; j != none; j = h.blocks[j].next {
			if p := h.blocks[j].producer; p != none {
				order = append(order, p)
			}
			// A read that ended before another began has the lesser call too.
			own := reads[begin[j]:begin[j+1]]
			slices.SortFunc(own, func(a, b int32) int { return cmp.Compare(h.ops[a].Call, h.ops[b].Call) })
			order = append(order, own...)
		}
	}
	appendChain(0)
	for _, s := range starts {
		appendChain(s.root)
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
