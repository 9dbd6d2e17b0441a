// Package ordered decides whether the history of one object is linearizable where the
// answers of its operations say in which order they took effect: an append-only list, a set
// that nothing is taken out of, a counter. It is exact and never searches.
//
// The idea: what the operations returned puts them into groups, and the groups into an order
// that every legal order has: between the reads of a list that saw three elements and those
// that saw four stands the append of the fourth. Inside a group any order is legal. So the
// history has a legal order if and only if no operation ended before one of an earlier group
// began, which one pass over the groups tells.
//
// Use [CheckList], [CheckSet] and [CheckCounter]; each has an Order and a Replay that verifies
// such an order by nothing but the definition. Operations of unknown outcome and reads that
// may be stale are handled. A history outside the method's reach is called Undecided, with
// the reason, never guessed. Everything is deterministic and safe for concurrent use.
package ordered

import (
	"cmp"
	"math"
	"slices"
)

const (
	// Never is the Return of an operation of unknown outcome: it may take effect at any time
	// after its Call, or not at all.
	Never int64 = math.MaxInt64
	// Early is the Call of a read that may be stale.
	Early int64 = math.MinInt64
)

// Outcome is what could be decided of a history.
type Outcome uint8

const (
	// Undecided: it is outside the method's reach.
	Undecided Outcome = iota
	// Linearizable: there is a legal order.
	Linearizable
	// Violation: there is none.
	Violation
)

// Reason says why a history cannot be linearizable.
type Reason uint8

const (
	// NoReason: it is no violation.
	NoReason Reason = iota
	// Phantom: something was read that nobody added, or more than could have been added.
	Phantom
	// Duplicate: something was read twice, or two operations got one result.
	Duplicate
	// Incompatible: two reads contradict each other whenever they took place.
	Incompatible
	// Order: one operation ended before another began that the answers put before it.
	Order
	// Missing: an operation that had ended left no trace in what was read later.
	Missing
)

// String returns the reason in words.
func (r Reason) String() string {
	return [...]string{"none", "phantom", "duplicate", "incompatible reads", "order", "missing"}[min(r, Missing)]
}

// Verdict is the answer of a check.
type Verdict struct {
	Outcome Outcome
	Reason  Reason // of a Violation
	Why     string // Undecided: what is outside the method's reach
	// Core holds, for a Violation, the positions of a few operations that contradict one
	// another. It may be empty where the contradiction is one of numbers.
	Core []int
	// Elements, of lists and sets: if what the reads of the core returned is restricted to
	// these, the core is impossible by itself. Were the whole history possible, it would be so
	// without all other elements too.
	Elements []int64
}

func undecided(why string) Verdict { return Verdict{Outcome: Undecided, Why: why} }

func violation(reason Reason, elements []int64, core ...int) Verdict {
	slices.Sort(core)
	return Verdict{Outcome: Violation, Reason: reason, Core: slices.Compact(core), Elements: elements}
}

// interval is when an operation was under way.
type interval struct{ call, end int64 }

// line walks over groups in their order.
type line struct {
	latest int64 // the latest call so far
	holder int   // whose it is; -1: nobody's
}

func newLine() line { return line{latest: math.MinInt64, holder: -1} }

// enter adds a member of the present group, which must have been tested.
func (l *line) enter(member int, at interval) {
	if l.holder < 0 || at.call > l.latest {
		l.latest, l.holder = at.call, member
	}
}

// early reports whether an operation ended before one of an earlier group began.
func (l *line) early(at interval) bool { return l.holder >= 0 && at.end < l.latest }

// byCall sorts positions by the calls of their operations: an operation that ended before
// another began stands before it then.
func byCall(positions []int, at func(int) interval) {
	slices.SortStableFunc(positions, func(a, b int) int { return cmp.Compare(at(a).call, at(b).call) })
}
