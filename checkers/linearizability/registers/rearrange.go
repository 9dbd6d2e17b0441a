package registers

import (
	"cmp"
	"slices"
)

// A refused swap that is stuck in a legal order of the rest found what it expected from
// before its call until after its return, though no operation demands that: what comes next
// in the order was called too late. So some other chain must stand between, and chains that
// demand nothing of each other may change places. Here the nearest is put there that may.
// This is a heuristic for a proof: what it finds is verified as a whole.

const (
	// mostRounds bounds how often a changed order is tried.
	mostRounds = 12
	// farthest is how many chains away to look for one that may stand between.
	farthest = 128
)

// arrangement is an order of chains that is being changed.
type arrangement struct {
	h      *history
	chains []zone
	at     []int32 // where the chain that begins with a block stands
	root   []int32 // the block that a block's chain begins with, or none
	// Blocks of unknown outcome that nobody saw and that are not used here: those of writes,
	// by call, and those of swaps, by the value they expected.
	dead      []int32
	deadSwaps map[int64][]int32
	extended  []int32 // the blocks to which such a swap was joined
}

// rearrange changes the order of the chains until no refused swap is stuck, or it knows no
// further: then it returns those that still are.
func (h *history) rearrange(chains []zone, stuck []int32) (order []int, still []int32) {
	a := h.newArrangement(chains)
	for range mostRounds {
		changed := false
		for _, i := range stuck {
			changed = a.makeRoom(&h.ops[i]) || changed
		}
		if !changed {
			break
		}
		if order, stuck = h.placeRefused(h.layOut(a.chains)); len(stuck) == 0 {
			if Replay(h.ops, order) == nil {
				return order, nil
			}
			stuck = h.refused
			break
		}
	}
	for _, k := range a.extended {
		h.blocks[k].next = none
	}
	return nil, stuck
}

func (h *history) newArrangement(chains []zone) *arrangement {
	a := &arrangement{h: h, chains: chains, at: make([]int32, len(h.blocks)), root: make([]int32, len(h.blocks)), deadSwaps: make(map[int64][]int32)}
	for k := range a.root {
		a.root[k] = none
	}
	for i, z := range chains {
		a.at[z.root] = int32(i)
		for j := z.root; j != none; j = h.blocks[j].next {
			a.root[j] = z.root
		}
	}
	for k := range a.root {
		if a.root[k] != none {
			continue
		}
		if op := &h.ops[h.blocks[k].producer]; op.Kind == Write {
			a.dead = append(a.dead, int32(k))
		} else {
			a.deadSwaps[op.Expected] = append(a.deadSwaps[op.Expected], int32(k))
		}
	}
	slices.SortFunc(a.dead, func(x, y int32) int { return cmp.Compare(a.called(x), a.called(y)) })
	return a
}

func (a *arrangement) called(root int32) int64 { return a.h.ops[a.h.blocks[root].producer].Call }

// makeRoom puts a chain that begins before c returned behind the chain of what c expected.
func (a *arrangement) makeRoom(c *Op) bool {
	k := a.h.index.get(c.Expected)
	if k == none || a.root[k] == none {
		return false
	}
	own := int(a.at[a.root[k]])
	least := Never // the least f of those that one from behind would overtake
	for j := own + 1; j < min(len(a.chains), own+farthest); j++ {
		if z := a.chains[j]; j > own+1 && z.s <= least && a.called(z.root) <= c.Return {
			a.move(j, own+1)
			return true
		}
		least = min(least, a.chains[j].f)
	}
	most := a.chains[own].s // the greatest s of those that would overtake one from before
	for j := own - 1; j > max(0, own-farthest); j-- {
		if z := a.chains[j]; z.f >= most && a.called(z.root) <= c.Return {
			a.move(j, own)
			return true
		}
		most = max(most, a.chains[j].s)
	}
	return a.revive(c, k, own)
}

// revive lets a write of unknown outcome that nobody saw replace value k, at the end of the
// chain that stands at own, or a swap of k.
func (a *arrangement) revive(c *Op, k int32, own int) bool {
	latest := c.Return // when it must have been called: before those behind ended, too
	for j := own + 1; j < min(len(a.chains), own+farthest); j++ {
		latest = min(latest, a.chains[j].f)
	}
	if a.h.blocks[k].next != none {
		return false // its next is too late for c, and nothing may come between
	}
	for _, n := range a.deadSwaps[c.Expected] {
		if a.called(n) <= latest && a.root[n] == none {
			a.h.blocks[k].next, a.root[n] = n, a.root[k]
			a.extended = append(a.extended, k)
			a.chains[own].s = max(a.chains[own].s, a.called(n))
			return true
		}
	}
	i, _ := slices.BinarySearchFunc(a.dead, latest, func(k int32, t int64) int {
		if a.called(k) <= t {
			return -1
		}
		return 1
	})
	if i == 0 {
		return false
	}
	n := a.dead[i-1]
	a.dead = slices.Delete(a.dead, i-1, i)
	a.chains = append(a.chains, zone{f: Never, s: a.called(n), root: n})
	a.root[n] = n
	a.move(len(a.chains)-1, own+1)
	return true
}

// move takes the chain at one place to another; those between make way.
func (a *arrangement) move(from, to int) {
	z := a.chains[from]
	if from < to {
		copy(a.chains[from:to], a.chains[from+1:to+1])
	} else {
		copy(a.chains[to+1:from+1], a.chains[to:from])
	}
	a.chains[to] = z
	for j := min(from, to); j <= max(from, to); j++ {
		a.at[a.chains[j].root] = int32(j)
	}
}
