package registers

import (
	"fmt"
	"math"
	"slices"
)

// A Stream decides a register's history while it is being made. Feed it what happens, in
// the order in which it happens: Read, StaleRead, Write and Swap begin an operation and
// return its handle, and exactly one of Done, Found, Refused, Failed and Crashed ends it.
// Of events at the same time, feed the beginnings first: then a tie means concurrent.
//
//	write := stream.Write(7)
//	... the request is sent, and answered
//	if alarm := stream.Done(write); alarm != nil { ... }
//
// The first event after which the history has no legal order returns an alarm, and so does
// every ending from then on; no event before it does. Two exceptions, which [Stream.Open]
// counts: a swap that is refused and does not say what it found is held only against what
// was current all the while, and a stale read of a value that is not known (any more) is
// not judged. [Check] is stronger there, on the whole history.
//
// Values must be unique. A value that is produced again while it is known ends the check
// ([Stream.Ambiguous]); one that is produced again after it was forgotten cannot be told.
//
// Memory is bounded by the number of operations that overlap the longest one in flight,
// and of writes and swaps of unknown outcome whose value nobody saw. It does not grow with
// the history. An operation that hangs holds everything back: call it Crashed in time.
type Stream struct {
	now     int64
	flights flights
	known   values
	values  pool[known]
	chains  pool[chain]
	// active holds the zones of the chains in which something was completed, by f.
	active []span
	// forgotten holds the two chains with the greatest s of those that were, to name in an
	// alarm. After so many endings as patience says it is time to forget some more.
	forgotten         [2]mark
	endings, patience int

	path      []int32
	alarm     *Alarm
	ambiguous bool
	repeated  int64
	open      int
	err       error
}

// Alarm says that a history has no legal order from this event on.
type Alarm struct {
	Reason Reason
	// Handle is of the operation whose ending showed it.
	Handle Handle
	// Values are those concerned. The operations of the history so far that [Concerning]
	// selects for them are a violation by themselves, so Check gives its core.
	Values []int64
}

// known is a value that may still matter.
type known struct {
	value    int64
	call     int64 // when its write or swap was called
	expected int64 // what its swap expected
	swap     bool
	onPath   bool
	chain    int32 // the chain it belongs to once it certainly was current, or none
	next     int32 // the value whose swap took it away, or none
	first    int64 // when an operation on it first ended: its write or a read of it
	replaced int64 // when an operation on a later value of its chain first ended
	denied   int64 // when a swap that expected it, and was called after first, was first refused
}

// chain is a run of values that swaps join. Its zone is in active at the place at.
type chain struct {
	head, tail int32
	current    int32 // the first value that is not known to be replaced
	at         int32
}

// span is the zone of an active chain: f and s as for [zone]. before is at least the s of
// each span that stands before it.
type span struct {
	f, s   int64
	before int64
	chain  int32
}

// mark is the s of the zone of a chain, and one of its values.
type mark struct {
	s, value int64
}

const unknown = math.MaxInt64 // a moment that has not come

// NewStream returns a stream for a register that was never written.
func NewStream() *Stream {
	s := &Stream{known: newValues(64), forgotten: [2]mark{{s: math.MinInt64}, {s: math.MinInt64}}, patience: leastPatience}
	s.flights.init()
	s.begin(s.addValue(&known{value: Nothing, replaced: unknown, denied: unknown}))
	return s
}

// Read begins a read. End it by Found or Crashed.
func (s *Stream) Read() Handle { return s.start(flight{kind: Read, value: none}) }

// StaleRead begins a read that may find what was current at any earlier time. End it as a
// Read.
func (s *Stream) StaleRead() Handle { return s.start(flight{kind: Read, value: none, stale: true}) }

// Write begins a write. End it by Done, Failed or Crashed.
func (s *Stream) Write(value int64) Handle {
	return s.start(flight{kind: Write, value: s.produce(&known{value: value})})
}

// Swap begins a compare-and-swap. End it by Done if it took effect, Found if it was refused
// and says what it found, Refused if it does not say, Failed or Crashed.
func (s *Stream) Swap(expected, value int64) Handle {
	if expected == value { // finds the value and leaves it: a read
		return s.start(flight{kind: Swap, value: none, expected: expected})
	}
	return s.start(flight{kind: Swap, value: s.produce(&known{value: value, swap: true, expected: expected}), expected: expected})
}

// Done ends a write or swap that took effect.
func (s *Stream) Done(h Handle) *Alarm {
	f, ok := s.end(h, Write, Swap)
	switch {
	case !ok:
	case f.value == none:
		s.find(f, f.expected)
	default:
		s.complete(f.value, f.call)
	}
	return s.settle(h)
}

// Found ends a read, or a swap that was refused, by the value that it found.
func (s *Stream) Found(h Handle, value int64) *Alarm {
	if f, ok := s.end(h, Read, Swap); ok && s.withdraw(f) {
		s.find(f, value)
	}
	return s.settle(h)
}

// Refused ends a swap that found another value than it expected and does not say which.
func (s *Stream) Refused(h Handle) *Alarm {
	if f, ok := s.end(h, Swap); ok && s.withdraw(f) {
		s.open++
		if k := s.known.get(f.expected); k != none {
			if v := s.values.at(k); v.first < f.call {
				v.denied = min(v.denied, s.now)
			}
		}
	}
	return s.settle(h)
}

// Failed ends an operation that certainly did nothing and says nothing.
func (s *Stream) Failed(h Handle) *Alarm {
	if f, ok := s.end(h, Read, Write, Swap); ok {
		s.withdraw(f)
	}
	return s.settle(h)
}

// Crashed ends an operation of unknown outcome: it may take effect at any later time.
func (s *Stream) Crashed(h Handle) *Alarm {
	s.end(h, Read, Write, Swap)
	return s.settle(h)
}

// Ambiguous returns a value that was produced a second time while it was known, if there is
// one. From then on nothing is checked.
func (s *Stream) Ambiguous() (value int64, ambiguous bool) { return s.repeated, s.ambiguous }

// Open counts the operations that were judged only in part: see [Stream].
func (s *Stream) Open() int { return s.open }

// Held counts the operations in flight and the values known: what the memory in use is
// proportional to.
func (s *Stream) Held() int { return s.flights.count + s.known.count }

// Err returns the first misuse: a handle that is not of an operation in flight, or an
// ending that does not fit the operation. Such an ending is ignored.
func (s *Stream) Err() error { return s.err }

func (s *Stream) stopped() bool { return s.alarm != nil || s.ambiguous }

func (s *Stream) start(f flight) Handle {
	s.now++
	f.call = s.now
	return s.flights.add(f)
}

// end takes an operation out of flight. It is not ok if there is none of one of these
// kinds, or if nothing is to be checked any more.
func (s *Stream) end(h Handle, kinds ...Kind) (flight, bool) {
	s.now++
	f := s.flights.get(h)
	if f == nil || !slices.Contains(kinds, f.kind) {
		if s.err == nil {
			s.err = fmt.Errorf("end operation %d: it is not in flight, or of a kind that does not end so", h)
		}
		return flight{}, false
	}
	ended := *f
	if s.flights.isOldest(h) && len(s.active) > 8*(s.flights.count+leastPatience) {
		s.endings = s.patience // it held much back: do not wait
	}
	s.flights.remove(h)
	return ended, !s.stopped()
}

// settle returns the alarm, if any, and now and then forgets what no longer matters.
func (s *Stream) settle(h Handle) *Alarm {
	if s.alarm != nil {
		if s.alarm.Handle == NoHandle {
			s.alarm.Handle = h
		}
		return s.alarm
	}
	if s.endings++; s.endings >= s.patience {
		s.endings = 0
		s.forget()
	}
	return nil
}

func (s *Stream) raise(reason Reason, values ...int64) {
	if s.alarm == nil {
		s.alarm = &Alarm{Reason: reason, Values: values}
	}
}

// produce makes the value of a write or swap known from its call on.
func (s *Stream) produce(v *known) int32 {
	if s.stopped() {
		return none
	}
	v.call = s.now + 1
	if v.value == Nothing || s.known.get(v.value) != none {
		s.ambiguous, s.repeated = true, v.value
		return none
	}
	v.first, v.replaced, v.denied = unknown, unknown, unknown
	return s.addValue(v)
}

func (s *Stream) addValue(v *known) int32 {
	v.chain, v.next = none, none
	k := s.values.add(v)
	s.known.add(v.value, k)
	return k
}

func (s *Stream) dropValue(k int32) {
	s.known.remove(s.values.at(k).value)
	s.values.remove(k)
}

// withdraw takes back what a swap that did nothing, or a failed write, might have produced.
// It is not ok, and an alarm, if somebody found it.
func (s *Stream) withdraw(f flight) bool {
	if f.value == none {
		return true
	}
	v := s.values.at(f.value)
	if v.chain != none {
		s.raise(Phantom, v.value)
		return false
	}
	s.dropValue(f.value)
	return true
}
