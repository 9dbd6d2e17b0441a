package registers

import (
	"math"
	"slices"
)

// A violation is what was found wrong with one or two blocks, or the chains they begin.
type violation struct {
	reason       Reason
	block, other int32
	witnesses    []int32
}

// explain makes a verdict of what was found, with the smallest core of it.
func (h *history) explain() Verdict {
	var core []int32
	for _, v := range h.found {
		if candidate := h.coreOf(v); core == nil || len(candidate) < len(core) {
			core = candidate
		}
	}
	core, why := h.spare(core, h.found[0].reason)
	verdict := Verdict{Outcome: Violation, Reason: why.reason, Core: widen(core)}
	for _, w := range why.witnesses {
		verdict.Witnesses = append(verdict.Witnesses, int(core[w]))
	}
	slices.Sort(verdict.Witnesses)
	verdict.Witnesses = slices.Compact(verdict.Witnesses)
	return verdict
}

func widen(indices []int32) []int {
	wide := make([]int, len(indices))
	for i, index := range indices {
		wide[i] = int(index)
	}
	return wide
}

// coreOf collects operations that are impossible by themselves: those that contradict each
// other, what their values rest on, and what proves their unknown outcomes.
func (h *history) coreOf(v violation) []int32 {
	core := slices.Clone(v.witnesses)
	switch v.reason {
	case Phantom:
		if h.blocks[v.block].producer != none {
			core = append(core, h.proof(v.block)...)
		}
	case DoubleSwap:
		core = append(core, h.producers(v.block)...)
		core = append(core, h.proof(h.blocks[v.block].next)...)
		core = append(core, h.proof(v.other)...)
	case SwapCycle:
		core = append(core, h.proof(v.block)...)
	case ChainOrder, Future:
		core = append(core, h.producers(v.block)...)
	case Held, Unreplaced:
		core = append(core, h.producers(v.block)...)
		if next := h.blocks[v.block].next; next != none && slices.Contains(core, h.blocks[next].producer) {
			core = append(core, h.proof(next)...)
		}
	case Overlap:
		core = h.overlapCore(v.block, v.other)
	}
	slices.Sort(core)
	return slices.Compact(core)
}

// producers returns what led to the value of block k: its producer, the producer of the
// value which that one expected, and so on.
func (h *history) producers(k int32) (led []int32) {
	for range h.blocks { // no longer than that, should they stand in a circle
		p := h.blocks[k].producer
		if p == none {
			break
		}
		led = append(led, p)
		if h.ops[p].Kind != Swap {
			break
		}
		if k = h.index.get(h.ops[p].Expected); k == none {
			break
		}
	}
	return led
}

// proof returns what shows that the producer of block k took effect: nothing if it was
// answered, else a read of its value, else the swap that took the value away and what
// shows that that one did.
func (h *history) proof(k int32) (shown []int32) {
	for h.ops[h.blocks[k].producer].Return == Never {
		if first := h.blocks[k].first; first != none {
			return append(shown, first)
		}
		k = h.blocks[k].next
		shown = append(shown, h.blocks[k].producer)
	}
	return shown
}

// A stage is the beginning of a chain, up to some block: its zone, and the operations that
// give it. Blocks of unknown outcome count from where an answered operation proves them.
type stage struct {
	f, s                  int64
	returned, called, why int32 // the operations that give f and s, and what proves the latter
}

func (h *history) stages(root int32) (stages []stage) {
	at := stage{f: math.MaxInt64, s: math.MinInt64, returned: none, called: none, why: none}
	if root == 0 {
		at.f = math.MinInt64 // the register was empty before anything happened
	}
	unproved := none
	for j := root; j != none; j = h.blocks[j].next {
		b := &h.blocks[j]
		if p := b.producer; p != none && (unproved == none || h.ops[p].Call > h.ops[unproved].Call) {
			unproved = p
		}
		var proof int32 = none
		for _, answered := range [2]int32{b.producer, b.first} {
			if answered == none || h.ops[answered].Return == Never {
				continue
			}
			proof = answered
			if ret := h.ops[answered].Return; ret < at.f {
				at.f, at.returned = ret, answered
			}
		}
		if proof != none && unproved != none {
			if call := h.ops[unproved].Call; call > at.s {
				at.s, at.called, at.why = call, unproved, proof
			}
			unproved = none
		}
		if b.last != none && h.ops[b.last].Call > at.s {
			at.s, at.called, at.why = h.ops[b.last].Call, b.last, b.last
		}
		stages = append(stages, at)
	}
	return stages
}

// overlapCore takes the shortest beginnings of two chains that contradict each other.
// A longer beginning of one never needs a longer one of the other, so one pass along both
// compares all that matter.
func (h *history) overlapCore(a, b int32) (core []int32) {
	first, second := h.stages(a), h.stages(b)
	clash := func(p, q int) bool {
		x, y := &first[p], &second[q]
		return (a == 0 || x.f < y.s) && y.f < x.s
	}
	bestP, bestQ := len(first)-1, len(second)-1
	for p, q := 0, len(second)-1; p < len(first); p++ {
		if !clash(p, q) {
			continue
		}
		for q > 0 && clash(p, q-1) {
			q--
		}
		if p+q < bestP+bestQ {
			bestP, bestQ = p, q
		}
	}
	for _, chain := range [2]struct {
		root   int32
		length int
		stage
	}{{a, bestP, first[bestP]}, {b, bestQ, second[bestQ]}} {
		for j, n := chain.root, 0; n <= chain.length; j, n = h.blocks[j].next, n+1 {
			core = append(core, h.blocks[j].producer)
		}
		core = append(core, chain.returned, chain.called, chain.why)
	}
	return slices.DeleteFunc(core, func(i int32) bool { return i == none })
}

// mostTrials bounds the work of making a long core shorter. A core of this length or less
// is tried completely, as an operation that could not be spared once never can.
const mostTrials = 64

// spare leaves out of a core what is not needed, and says what is wrong with the rest.
// Only an operation that no other of the core builds on is left out: if a write went, the
// reads of its value would be impossible for that reason.
func (h *history) spare(core []int32, reason Reason) ([]int32, violation) {
	kept := make([]Op, len(core))
	for i, index := range core {
		kept[i] = h.ops[index]
	}
	examine := func(ops []Op) *history {
		part, _ := analyse(ops)
		if reason == Unreplaced && len(part.found) == 0 {
			part.settleRefused()
		}
		return part
	}
	needed := make(map[int32]bool)
	for trials := 0; trials < mostTrials; trials++ {
		i := unneeded(kept, func(i int) bool { return !needed[core[i]] })
		if i < 0 {
			break
		}
		rest := slices.Delete(slices.Clone(kept), i, i+1)
		if len(examine(rest).found) > 0 {
			kept, core = rest, slices.Delete(core, i, i+1)
		} else {
			needed[core[i]] = true
		}
	}
	alone := examine(kept)
	if len(alone.found) == 0 { // never so far: a core that explains nothing is not shown
		return nil, violation{reason: reason}
	}
	why := alone.found[0]
	if why.reason == Overlap {
		a, b := alone.stages(why.block), alone.stages(why.other)
		for _, whole := range [2]stage{a[len(a)-1], b[len(b)-1]} {
			why.witnesses = append(why.witnesses, whole.returned, whole.called)
		}
		why.witnesses = slices.DeleteFunc(why.witnesses, func(i int32) bool { return i == none })
	}
	return core, why
}

// unneeded returns the last operation that no other builds on and that may be tried, or -1.
func unneeded(ops []Op, may func(i int) bool) int {
	found := make(map[int64]int, len(ops))
	for i := range ops {
		switch ops[i].kind() {
		case Read:
			found[ops[i].Value]++
		case Swap, Refused:
			found[ops[i].Expected]++
		}
	}
	for i := len(ops) - 1; i >= 0; i-- {
		kind := ops[i].kind()
		produces := kind == Write || kind == Swap
		if may(i) && !(produces && found[ops[i].Value] > 0) {
			return i
		}
	}
	return -1
}
