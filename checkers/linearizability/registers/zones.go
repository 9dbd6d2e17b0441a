package registers

import (
	"cmp"
	"math"
	"slices"
)

// A zone says what a chain of blocks demands of others. A legal order has the operations of
// a chain as neighbours, in a forced inner order (producer, reads, swap, reads of what it
// wrote ...). So chains are ordered as wholes, and chain A must come before chain B if and
// only if some operation of A precedes one of B: f of A < s of B.
//
// Two chains that must each come before the other have no legal order. If there is no such
// pair there is one: suppose a circle of demands, and in it A with the least f, and X before
// A. Each C of the circle has some D before it, and f(A) <= f(D) < s(C), so A must come
// before all of them, X too: a pair. So it is enough to look for pairs.
//
// A zone is forward if f < s, else backward. Both of a pair forward: the zones share an
// inside. A forward and B backward: f(A) < s(B) <= f(B) < s(A), so B lies inside A. Both
// backward: impossible.
type zone struct {
	f    int64 // the least Return in the chain
	s    int64 // the greatest Call in the chain
	root int32 // the block it begins with
}

// walkChains finds the zone of each chain and what in a chain is out of order.
func (h *history) walkChains() {
	h.zones = make([]zone, len(h.blocks))
	front, back := 0, len(h.zones)
	for k := range int32(len(h.blocks)) {
		if k != 0 && (h.swapped != nil && h.swapped[k] || !h.effective(k)) {
			continue // part of another chain, or of no consequence
		}
		z, ok := h.walk(k)
		switch {
		case !ok:
		case k == 0:
			h.first = z
		case z.f < z.s:
			h.zones[front] = z
			front++
		default:
			back--
			h.zones[back] = z
		}
	}
	h.forward, h.backward = h.zones[:front], h.zones[back:]
	slices.Reverse(h.backward)
	h.findCycles()
}

// walk follows the chain that begins with block k. The groups of a chain (a producer; the
// reads of its value) follow each other, so an operation that returned before one of an
// earlier group was called is a violation.
func (h *history) walk(k int32) (z zone, ok bool) {
	z = zone{f: math.MaxInt64, s: math.MinInt64, root: k}
	latest := none // the operation called last so far
	step := func(j, returned, called int32) bool {
		op := &h.ops[returned]
		if op.Return < z.s {
			reason := ChainOrder
			if h.blocks[j].producer == latest {
				reason = Future
			}
			h.report(violation{reason: reason, block: j, witnesses: []int32{returned, latest}})
			return false
		}
		z.f = min(z.f, op.Return)
		if call := h.ops[called].Call; call > z.s {
			z.s, latest = call, called
		}
		return true
	}
	for j := k; j != none; j = h.blocks[j].next {
		b := &h.blocks[j]
		if h.visited != nil {
			h.visited[j] = true
		}
		if b.producer != none && !step(j, b.producer, b.producer) {
			return z, false
		}
		if b.first != none && !step(j, b.first, b.last) {
			return z, false
		}
	}
	return z, true
}

// findCycles finds swaps that no chain's beginning leads to. As no value is taken twice
// they stand in circles.
func (h *history) findCycles() {
	for k := range h.swapped {
		if !h.swapped[k] || h.visited[k] || len(h.found) > 0 {
			continue
		}
		v := violation{reason: SwapCycle, block: int32(k)}
		for j := int32(k); !h.visited[j]; j = h.blocks[j].next {
			h.visited[j] = true
			v.witnesses = append(v.witnesses, h.blocks[j].producer)
		}
		h.report(v)
	}
}

// findOverlaps finds two chains that must each come before the other. Nothing's chain
// begins before all, so nothing may precede one of its operations.
func (h *history) findOverlaps() {
	for _, zones := range [2][]zone{h.forward, h.backward} {
		for i := range zones {
			if zones[i].f < h.first.s {
				h.report(violation{reason: Overlap, block: 0, other: zones[i].root})
			}
		}
	}
	sortZones(h.forward)
	for i := 1; i < len(h.forward); i++ {
		if a, b := &h.forward[i-1], &h.forward[i]; b.f < a.s {
			h.report(violation{reason: Overlap, block: a.root, other: b.root})
		}
	}
	if len(h.found) > 0 {
		return
	}
	at := 0
	for i := range h.backward {
		b := &h.backward[i]
		at = endingBefore(h.forward, b.s, at)
		if at > 0 && b.f < h.forward[at-1].s {
			h.report(violation{reason: Overlap, block: h.forward[at-1].root, other: b.root})
		}
	}
}

// sortZones sorts by f. Zones come nearly sorted where the history was recorded in order,
// so they are inserted one by one as long as that stays cheap.
func sortZones(zones []zone) {
	moves := 8 * len(zones)
	for i := 1; i < len(zones); i++ {
		z, j := zones[i], i
		for ; j > 0 && zones[j-1].f > z.f; j-- {
			zones[j] = zones[j-1]
		}
		zones[j] = z
		if moves -= i - j; moves < 0 {
			slices.SortFunc(zones, func(a, b zone) int { return cmp.Compare(a.f, b.f) })
			return
		}
	}
}

// endingBefore counts the zones, sorted by f, whose f is less than t. It gallops from a
// guess, as the next answer is mostly near the last.
func endingBefore(zones []zone, t int64, guess int) int {
	low, high := guess, guess
	for step := 1; low > 0 && zones[low-1].f >= t; step *= 2 {
		high = low - 1
		low = max(low-step, 0)
	}
	for step := 1; high < len(zones) && zones[high].f < t; step *= 2 {
		low = high + 1
		high = min(high+step, len(zones))
	}
	for low < high {
		if middle := int(uint(low+high) / 2); zones[middle].f < t {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}
