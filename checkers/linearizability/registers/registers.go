// Package registers decides whether the history of one register is linearizable when no
// value is written twice. It is exact and never searches.
//
// The idea: a value that is written once is current in one unbroken stretch, so a value
// and the reads of it are one block, and blocks joined by compare-and-swap are one chain.
// Chains can be put in order unless some operation demands the opposite of another, and
// two chains are enough to see that (Gibbons and Korach, SIAM J. Comput. 26(4), 1997, call
// the stretches zones; the proofs that we rely on stand beside the code).
//
// Use [Check] for a whole history, [Order] for a legal order of it and [Replay] to verify
// such an order without trusting this package; use a [Stream] to decide while the history
// is still being made. Both handle reads, writes, compare-and-swaps, refused ones,
// operations of unknown outcome and reads that may be stale.
//
// Guarantees. Linearizable and Violation are proved verdicts: the first has an order that
// Replay accepts, the second a core of few operations that cannot be explained by
// themselves, whatever else happened (but for [Unreplaced], which needs the whole history).
// A history outside the method's reach is called Ambiguous (values repeat) or Undecided
// (refused swaps that need a search), never guessed. Check takes O(n log n) time at worst
// and O(n) where the operations come nearly in the order of time; where refused swaps do not
// fit the first order found it tries some more. Everything here is deterministic; functions
// are safe for concurrent use, a Stream belongs to one goroutine.
package registers

import "math"

const (
	// Nothing is the value of a register that was never written.
	Nothing int64 = math.MinInt64
	// Never is the Return of an operation of unknown outcome: it may take effect at any
	// time after its Call, or not at all.
	Never int64 = math.MaxInt64
	// Early is the Call of a read that may be stale: what it found may have been current
	// at any moment before its Return.
	Early int64 = math.MinInt64
)

// Kind says what an operation did.
type Kind uint8

const (
	// Read found Value. A read of unknown outcome says nothing and is left out. A swap
	// that was refused and says what it found is a Read too.
	Read Kind = iota
	// Write wrote Value.
	Write
	// Swap is a compare-and-swap that found Expected and wrote Value, or may have, if its
	// Return is Never.
	Swap
	// Refused is a compare-and-swap that certainly found something else than Expected and
	// does not say what.
	Refused
)

// Op is one operation on the register. Call and Return are in any unit, on one clock, with
// Call <= Return; a precedes b if and only if a.Return < b.Call, so a tie means concurrent.
type Op struct {
	Kind            Kind
	Value, Expected int64
	Call, Return    int64
}

// kind is what the operation amounts to: a swap of a value for itself finds it and leaves
// it, as a read does.
func (o *Op) kind() Kind {
	if o.Kind == Swap && o.Value == o.Expected {
		return Read
	}
	return o.Kind
}

// Outcome is what could be decided of a history.
type Outcome uint8

const (
	// Undecided: no violation was found, and no order either. The history needs a search:
	// it has refused swaps that none of the quick arguments settles, or a kind of operation
	// that is not known here, or too many operations (2^31) to be numbered.
	Undecided Outcome = iota
	// Linearizable: a legal order exists, and [Order] gives it.
	Linearizable
	// Violation: no legal order exists.
	Violation
	// Ambiguous: a value is produced more than once, so who read which cannot be told.
	Ambiguous
)

func (o Outcome) String() string {
	return name(int(o), "undecided", "linearizable", "violation", "ambiguous")
}

// Reason says why a history cannot be linearizable.
type Reason uint8

const (
	// NoReason: the history is not a violation.
	NoReason Reason = iota
	// Phantom: a value was read, or found by a swap, that nobody wrote.
	Phantom
	// Future: a read ended before the write of what it found began.
	Future
	// DoubleSwap: two swaps took the same value away.
	DoubleSwap
	// SwapCycle: swaps produced each other's expected values in a circle, and nobody began it.
	SwapCycle
	// ChainOrder: swaps fix an order in which values followed each other, and an operation
	// on an earlier one began after an operation on a later one had ended.
	ChainOrder
	// Overlap: each of two chains of values must have come before the other.
	Overlap
	// Held: a swap was refused though what it expected was current all the while: it was
	// established before and used afterwards.
	Held
	// Unreplaced: a swap was refused though what it expected was established before, and
	// nothing in the whole history can have replaced it by then: what else was written
	// must have come before, or began later.
	Unreplaced
	// Gone: a value was found that was never written, or was replaced before the operation
	// that found it began. Only a [Stream] says this: it has forgotten which of the two.
	Gone
)

func (r Reason) String() string {
	return name(int(r), "none", "phantom", "future read", "double swap", "swap cycle", "chain order",
		"overlap", "refused though held", "refused though not replaced", "gone")
}

func name(i int, names ...string) string {
	if i < len(names) {
		return names[i]
	}
	return "unknown"
}

// Verdict is what [Check] found.
type Verdict struct {
	Outcome Outcome
	// Reason is set for a Violation.
	Reason Reason
	// Value is, when Ambiguous, a value that is produced more than once.
	Value int64
	// Core holds, for a Violation, the indices in ascending order of operations that have no
	// legal order by themselves. Where no swap is among them they are at most six. A swap
	// brings what produced the value that it expected, and so on back to a plain write or
	// the empty register, because without those the core would be impossible for the
	// wrong reason. So a core has at most six operations and the swaps that lead to the
	// values concerned, each with one operation that proves it if its outcome is unknown.
	// No operation of a core (of up to 64) can be spared, but for those that others build on.
	Core []int
	// Witnesses holds, for a Violation, the two to four operations of the core that
	// contradict each other: without those that the core has only to be complete.
	Witnesses []int
}

// Check decides the history. It does not change ops, whose order does not matter, but an
// order by Call or by Return is the fastest.
func Check(ops []Op) Verdict {
	h, verdict := analyse(ops)
	if verdict.Outcome == Linearizable && !h.settleRefused() {
		return Verdict{}
	}
	if len(h.found) > 0 {
		return h.explain()
	}
	return verdict
}

// Order returns the indices of a history's operations in a legal order, and whether there
// is one and it was found, which is when [Check] says Linearizable. Operations of unknown
// outcome that nobody saw an effect of may be left out.
func Order(ops []Op) ([]int, bool) {
	h, verdict := analyse(ops)
	if verdict.Outcome != Linearizable {
		return nil, false
	}
	order, stuck := h.legalOrder()
	return order, len(stuck) == 0
}
