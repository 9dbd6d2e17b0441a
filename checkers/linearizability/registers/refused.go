package registers

import (
	"cmp"
	"slices"
)

// Refused swaps say that the register did not hold a value, which blocks and zones do not
// decide. Two quick arguments settle nearly all: what was current all the while (a
// violation), and a place in an order already found (linearizable), which may be rearranged.

// findHeld finds a swap that was refused though the value it expected was current from
// before its call until after its return: it was established before, and used afterwards.
// Being written once it was current in between.
func (h *history) findHeld() {
	for _, i := range h.refused {
		c := &h.ops[i]
		k, by, established := h.establishedBefore(c)
		if !established {
			continue
		}
		b := &h.blocks[k]
		v := violation{reason: Held, block: k, witnesses: by}
		switch {
		case b.last != none && h.ops[b.last].Call > c.Return:
			v.witnesses = append(v.witnesses, i, b.last)
		case b.next != none && h.ops[h.blocks[b.next].producer].Call > c.Return:
			v.witnesses = append(v.witnesses, i, h.blocks[b.next].producer)
		default:
			continue
		}
		h.report(v)
	}
}

// settleRefused says whether the refused swaps do not leave the history undecided, which
// is a violation with them if that was found.
func (h *history) settleRefused() bool {
	if len(h.refused) == 0 {
		return true
	}
	_, stuck := h.legalOrder()
	h.findUnreplaced(stuck)
	return len(stuck) == 0 || len(h.found) > 0
}

// establishedBefore finds the value that a refused swap expected, if it certainly had been
// current before the swap was called, and the operation that shows it, if one must.
func (h *history) establishedBefore(c *Op) (k int32, by []int32, established bool) {
	k = h.index.get(c.Expected)
	switch {
	case k == none || k != 0 && !h.effective(k):
		return k, nil, false
	case k == 0:
		return k, nil, true
	}
	for _, i := range [2]int32{h.blocks[k].producer, h.blocks[k].first} {
		if i != none && h.ops[i].Return < c.Call {
			return k, []int32{i}, true
		}
	}
	return k, nil, false
}

// findUnreplaced finds, of the refused swaps that are stuck, one whose expected value was
// established before and could not be replaced before it returned: no swap of it had been
// called by then, and each other chain either had not begun, or must come before the value's
// own, or after one that had not begun. (A linearization has the value's chain, then whatever
// replaced it, then the refused swap, then what began later. The replacement begins with a
// write called by then.) Any other operation could matter to that, so this proof holds for
// the whole history only.
func (h *history) findUnreplaced(stuck []int32) {
	for _, i := range stuck[:min(len(stuck), mostFound)] {
		c := &h.ops[i]
		if k, by, established := h.establishedBefore(c); established && h.blocks[k].next == none && !h.replaceable(k, c) {
			h.report(violation{reason: Unreplaced, block: k, witnesses: append(by, i)})
			return
		}
	}
}

// replaceable says whether something may have replaced value k, the last of its chain, before
// the refused swap c returned.
func (h *history) replaceable(k int32, c *Op) bool {
	root := k
	for root != 0 && h.ops[h.blocks[root].producer].Kind == Swap {
		root = h.index.get(h.ops[h.blocks[root].producer].Expected)
	}
	own, _ := h.walk(root)
	// What must follow a chain that began after c returned cannot be it either.
	later, candidates := Never, h.zones[:0:0]
	for j := int32(1); int(j) < len(h.blocks); j++ {
		p := &h.ops[h.blocks[j].producer]
		begun := p.Call <= c.Return
		switch {
		case p.Kind == Swap:
			if begun && p.Expected == c.Expected {
				return true
			}
		case j == root:
		case !h.effective(j):
			if begun {
				return true
			}
		default:
			z, _ := h.walk(j)
			if !begun {
				later = min(later, z.f)
			} else if z.f >= own.s {
				candidates = append(candidates, z)
			}
		}
	}
	return slices.ContainsFunc(candidates, func(z zone) bool { return z.s <= later })
}

// placeRefused puts each refused swap at the first place of a legal order of all the rest
// that time allows and where the register does not hold what it expected. It returns those
// that have no such place as stuck; in another order they may have one.
func (h *history) placeRefused(order []int32) (merged []int, stuck []int32) {
	line := h.newLine(order)
	byCall := slices.Clone(h.refused)
	slices.SortFunc(byCall, func(a, b int32) int { return cmp.Compare(h.ops[a].Call, h.ops[b].Call) })
	byReturn := slices.Clone(h.refused)
	slices.SortFunc(byReturn, func(a, b int32) int { return cmp.Compare(h.ops[a].Return, h.ops[b].Return) })
	places := make(map[int32]int, len(byCall))
	ended, least := 0, 0 // those that returned before this one was called, and their last place
	at := make([][]int32, len(order)+1)
	for _, i := range byCall {
		c := &h.ops[i]
		for ; ended < len(byReturn) && h.ops[byReturn[ended]].Return < c.Call; ended++ {
			least = max(least, places[byReturn[ended]])
		}
		place, ok := line.place(c, least)
		if !ok {
			stuck = append(stuck, i)
			continue
		}
		places[i] = place
		at[place] = append(at[place], i)
	}
	merged = make([]int, 0, len(order)+len(byCall))
	for p := range at {
		merged = append(merged, widen(at[p])...)
		if p < len(order) {
			merged = append(merged, int(order[p]))
		}
	}
	return merged, stuck
}

// A line is a legal order, ready to be asked where another operation may stand. Place p is
// before the operation at position p.
type line struct {
	h           *history
	leastReturn []int64 // of the operations from a position on
	mostCall    []int64 // of the operations up to a position
	holds       []int32 // the block whose value the register holds at a place
	until       []int   // the last place where it does
}

func (h *history) newLine(order []int32) *line {
	n := len(order)
	l := &line{h: h, leastReturn: make([]int64, n), mostCall: make([]int64, n), holds: make([]int32, n+1), until: make([]int, n+1)}
	for p, i := range order {
		op := &h.ops[i]
		l.mostCall[p] = op.Call
		if p > 0 {
			l.mostCall[p] = max(op.Call, l.mostCall[p-1])
		}
		l.holds[p+1] = h.index.get(op.Value)
	}
	l.until[n] = n
	for p := n - 1; p >= 0; p-- {
		l.leastReturn[p] = h.ops[order[p]].Return
		if p+1 < n {
			l.leastReturn[p] = min(l.leastReturn[p], l.leastReturn[p+1])
		}
		l.until[p] = p
		if l.holds[p] == l.holds[p+1] {
			l.until[p] = l.until[p+1]
		}
	}
	return l
}

// place finds the first place, not before least, for a refused swap.
func (l *line) place(c *Op, least int) (int, bool) {
	// After all that returned before its call, before all that were called after its return.
	earliest, _ := slices.BinarySearch(l.leastReturn, c.Call)
	latest, _ := slices.BinarySearchFunc(l.mostCall, c.Return, func(call, ret int64) int {
		if call > ret {
			return 1
		}
		return -1
	})
	place := max(earliest, least)
	if expected := l.h.index.get(c.Expected); expected != none && l.holds[place] == expected {
		place = l.until[place] + 1 // a value that is written once does not come back
	}
	return place, place <= latest
}
