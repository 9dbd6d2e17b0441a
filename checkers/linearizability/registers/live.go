package registers

import "math"

// What a Stream knows is what [Check] would find in the history so far, with operations in
// flight taken as of unknown outcome. Each event adds one operation to a chain, so only
// what that can break is looked at. Moments are numbered, so no two are the same.
//
// A value counts from when it certainly was current: its write or swap was answered, it was
// read, or a swap that counts expected it. Until then it is known, for it may be found at
// any time, and in no chain. When it begins to count it is a chain of its own, or the last
// of the chain of what its swap expected. So chains only ever grow at their end.

// find makes a read of value count, which began with f.
func (s *Stream) find(f flight, value int64) {
	k := s.known.get(value)
	switch {
	case f.stale:
		s.findStale(k)
	case k == none:
		s.raise(Gone, s.suspects(value, f.call)...)
	default:
		s.complete(k, f.call)
	}
}

// findStale makes a read count that may have found value k, if that is known, at any time.
// What is forgotten is so because of what no stale read need be part of: so a value that is
// not known proves nothing, nor does a swap that rests on one.
func (s *Stream) findStale(k int32) {
	if k == none {
		s.open++
		return
	}
	for j, steps := k, 0; s.values.at(j).chain == none && s.values.at(j).swap; steps++ {
		if steps == 0 {
			s.open++ // the swap was called long ago, and of then not all is known
		}
		if j = s.known.get(s.values.at(j).expected); j == none {
			return
		}
		if steps > s.known.count {
			break // a circle, which activate will tell
		}
	}
	s.complete(k, math.MinInt64)
}

// complete makes an operation on value k count that was called at call and ends now: the
// write or swap that produced it, or a read of it.
func (s *Stream) complete(k int32, call int64) {
	if s.values.at(k).chain == none && !s.activate(k, call) {
		return
	}
	v := s.values.at(k)
	if call > v.replaced {
		s.raise(ChainOrder, v.value)
		return
	}
	if call > v.denied {
		s.raise(Held, v.value)
		return
	}
	v.first = min(v.first, s.now)
	c := s.chains.at(v.chain)
	if v.replaced == unknown { // then those before it are replaced from now on
		for c.current != k {
			earlier := s.values.at(c.current)
			earlier.replaced = s.now
			c.current = earlier.next
		}
	}
	s.demand(v.chain, call)
}

// demand lets an operation called at call be part of a chain, and looks whether now some
// other chain must come both before and after it.
func (s *Stream) demand(c int32, call int64) {
	at := int(s.chains.at(c).at)
	own := &s.active[at]
	if call <= own.s {
		return
	}
	own.s = call
	for i := at + 1; i < len(s.active) && s.active[i].before < call; i++ {
		s.active[i].before = call
	}
	f := own.f
	if f == s.now {
		return // nothing was called later
	}
	for i := len(s.active) - 1; i >= 0; i-- {
		other := &s.active[i]
		if other.s > f && other.f < call && i != at {
			s.raise(Overlap, s.valueOf(c), s.valueOf(other.chain))
			return
		}
		if other.before <= f {
			break
		}
	}
}

func (s *Stream) valueOf(c int32) int64 { return s.values.at(s.chains.at(c).tail).value }

// activate lets a value count that an operation called at call shows to have been current,
// and those before it that its swap rests on. It is not ok, and an alarm, if one of them
// cannot have been current.
func (s *Stream) activate(k int32, call int64) bool {
	s.path = s.path[:0]
	root := none
	for j := k; ; {
		v := s.values.at(j)
		if v.chain != none {
			root = j
			break
		}
		if v.onPath {
			s.raise(SwapCycle, v.value)
			return false
		}
		v.onPath = true
		s.path = append(s.path, j)
		if !v.swap {
			break
		}
		e := s.known.get(v.expected)
		if e == none {
			s.raise(Gone, append(s.suspects(v.expected, call), s.values.at(k).value)...)
			return false
		}
		j = e
	}
	for i := len(s.path) - 1; i >= 0; i-- {
		j := s.path[i]
		s.values.at(j).onPath = false
		if root == none {
			s.begin(j)
		} else if !s.extend(root, j) {
			return false
		}
		root = j
	}
	return true
}

// begin makes a value a chain of its own, of which an operation ends now.
func (s *Stream) begin(k int32) {
	v := s.values.at(k)
	v.chain = s.chains.add(&chain{head: k, tail: k, current: k, at: int32(len(s.active))})
	before := int64(math.MinInt64)
	if n := len(s.active); n > 0 {
		before = max(s.active[n-1].before, s.active[n-1].s)
	}
	s.active = append(s.active, span{f: s.now, s: v.call, before: before, chain: v.chain})
}

// extend lets the swap that produced k take the value before away.
func (s *Stream) extend(before, k int32) bool {
	e, v := s.values.at(before), s.values.at(k)
	if e.next != none {
		s.raise(DoubleSwap, e.value, s.values.at(e.next).value, v.value)
		return false
	}
	e.next, v.chain = k, e.chain
	s.chains.at(e.chain).tail = k
	if v.call > e.denied {
		s.raise(Held, e.value, v.value)
		return false
	}
	s.demand(e.chain, v.call)
	return s.alarm == nil
}

// suspects are a value that is not known at all when an operation finds it that was called
// at call, and values one of which replaced it before, if it ever was written: the chains
// with the greatest s that had been established by then.
func (s *Stream) suspects(value, call int64) []int64 {
	best := s.forgotten
	for i := range s.active {
		if a := &s.active[i]; a.f < call {
			best = greatest(best, mark{a.s, s.valueOf(a.chain)})
		}
	}
	suspects := []int64{value}
	for _, m := range best {
		if m.s != math.MinInt64 {
			suspects = append(suspects, m.value)
		}
	}
	return suspects
}

// greatest keeps the two marks with the greatest s.
func greatest(two [2]mark, m mark) [2]mark {
	switch {
	case m.s > two[0].s:
		return [2]mark{m, two[0]}
	case m.s > two[1].s:
		two[1] = m
	}
	return two
}

// leastPatience is after how many endings to look for what may be forgotten, at least:
// later if much is kept, so that looking costs no more than a few steps an ending.
const leastPatience = 32

// forget drops what any later operation on it would be a violation anyhow, so that not to
// know its value is the same. Let w be the least call of an operation in flight; later
// operations are called later still.
//
//   - A chain A, if there is another B with f(B) < w and f(A) < s(B): an operation of A with
//     a call of w or later makes f(B) < s(A), so each must come before the other. (One of
//     unknown outcome joins A only as an answered one finds its value.)
//   - A value of a chain of which a later one was found by an operation that ended before w.
//
// Nor can A, once forgotten, be missing as the one that another chain C conflicts with, for
// then f(C) < s(A), and C is forgotten too. As A and B are no pair, s(A) <= f(B) < w, so
// f(C) < w; a chain that is yet to be has a greater f. If f(C) <= f(A) then f(C) < s(B).
// Else f(A) < f(C) < w, so A serves as such a B for C.
//
// What is kept of chains with f < w: none has f < s of another, so all their writes were
// called before any of them ended, and they are no more than there are clients.
func (s *Stream) forget() {
	w := s.flights.leastCall(s.now + 1)
	var first, second span
	first.s, second.s = math.MinInt64, math.MinInt64
	for _, a := range s.active {
		switch {
		case a.f >= w:
		case a.s > first.s:
			first, second = a, first
		case a.s > second.s:
			second = a
		}
	}
	kept, before := s.active[:0], int64(math.MinInt64)
	for _, a := range s.active {
		other := first.s
		if a.chain == first.chain {
			other = second.s
		}
		if a.f < other {
			s.forgetChain(a)
			continue
		}
		s.chains.at(a.chain).at = int32(len(kept))
		s.trim(a.chain, w)
		a.before, before = before, max(before, a.s)
		kept = append(kept, a)
	}
	s.active = kept
	s.patience = max(leastPatience, len(kept)/2)
}

func (s *Stream) forgetChain(a span) {
	s.forgotten = greatest(s.forgotten, mark{a.s, s.valueOf(a.chain)})
	for k := s.chains.at(a.chain).head; k != none; {
		next := s.values.at(k).next
		s.dropValue(k)
		k = next
	}
	s.chains.remove(a.chain)
}

// trim drops the values of a chain that had been replaced by w.
func (s *Stream) trim(c int32, w int64) {
	ch := s.chains.at(c)
	for s.values.at(ch.head).replaced < w {
		k := ch.head
		ch.head = s.values.at(k).next
		s.dropValue(k)
	}
}
