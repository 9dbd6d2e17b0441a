// Package quorum is the arithmetic of majorities: which index enough voters have reached,
// and how an election stands.
//
// A [Majority] is a plain sorted list of voters. What each voter said is asked for by a
// function, so that the same arithmetic serves acknowledged entries, confirmed reads,
// votes and signs of life. Everything here is a pure function of its arguments.
package quorum

import "slices"

// Majority is a set of voters of which more than half decide. It is sorted and holds
// nobody twice: New makes it so.
//
// The empty set agrees to everything: it has reached every index and has won every
// election. So it decides nothing where another set must agree as well.
type Majority []uint64

// New returns the set of these voters.
func New(voters []uint64) Majority {
	return slices.Compact(slices.Sorted(slices.Values(voters)))
}

// Size returns how many voters make a majority.
func (m Majority) Size() int { return len(m)/2 + 1 }

// Contains reports whether id is one of the voters.
func (m Majority) Contains(id uint64) bool {
	_, found := slices.BinarySearch(m, id)
	return found
}

// Reached returns the highest number that a majority has reached, where reached tells how
// far each voter is.
func (m Majority) Reached(reached func(id uint64) uint64) uint64 {
	if len(m) == 0 {
		return ^uint64(0)
	}
	var few [9]uint64 // spares the heap in clusters of usual size
	numbers := few[:0]
	for _, id := range m {
		numbers = append(numbers, reached(id))
	}
	slices.Sort(numbers)
	// The voters from here to the end are exactly a majority, and this one is the least far.
	return numbers[len(numbers)-m.Size()]
}

// Answer is what a voter said.
type Answer uint8

const (
	Silent Answer = iota // nothing yet
	Yes
	No
)

// Result is how an election stands.
type Result uint8

const (
	Pending Result = iota // it can still go either way
	Won
	Lost // the voters that have not said no are no majority any more
)

func (r Result) String() string { return [...]string{"pending", "won", "lost"}[r] }

// Vote returns how an election stands in which the voters gave these answers.
func (m Majority) Vote(answer func(id uint64) Answer) Result {
	if len(m) == 0 {
		return Won
	}
	yes, no := 0, 0
	for _, id := range m {
		switch answer(id) {
		case Yes:
			yes++
		case No:
			no++
		case Silent:
		}
	}
	switch {
	case yes >= m.Size():
		return Won
	case len(m)-no < m.Size():
		return Lost
	}
	return Pending
}
