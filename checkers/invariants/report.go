package invariants

import (
	"cmp"
	"fmt"
	"slices"
)

// Invariant is one of Raft's promises, by number.
type Invariant uint8

const (
	ElectionSafety     Invariant = iota + 1 // I1
	OneVote                                 // I2
	VoteQuorum                              // I3
	UpToDateVotes                           // I4
	TermMonotone                            // I5
	LogMatching                             // I6
	LeaderAppendOnly                        // I7
	CommitSafety                            // I8
	CommitRule                              // I9
	LeaderCompleteness                      // I10
	StateMachine                            // I11
	Durability                              // I12
	PersistBeforeSend                       // I13
	Snapshots                               // I14
	Membership                              // I15
	LinearizableReads                       // I16
	Liveness                                // I17
	ReplicationView                         // I18
)

var invariantNames = [...]string{
	"", "election safety", "one vote a term", "leader elected by a quorum", "votes only for up-to-date logs",
	"term never falls", "log matching", "leader append-only", "commit safety", "commit rule", "leader completeness",
	"state machine safety", "durability", "persist before send", "snapshots", "membership", "linearizable reads",
	"liveness after healing", "leader's view of followers",
}

// All are the invariants, in order.
func All() []Invariant {
	var all []Invariant
	for i := ElectionSafety; i <= ReplicationView; i++ {
		all = append(all, i)
	}
	return all
}

// String returns "I1" to "I18".
func (i Invariant) String() string { return fmt.Sprintf("I%d", uint8(i)) }

// Name returns the invariant's short name, such as "election safety".
func (i Invariant) Name() string { return invariantNames[i] }

// MarshalText writes "I1" to "I18".
func (i Invariant) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (i *Invariant) UnmarshalText(text []byte) error {
	for _, known := range All() {
		if known.String() == string(text) {
			*i = known
			return nil
		}
	}
	return fmt.Errorf("%q is no invariant: want I1 to I18", text)
}

// Violation is a promise that was broken.
type Violation struct {
	Invariant   Invariant `json:"invariant"`
	Name        string    `json:"name"`
	Explanation string    `json:"explanation"` // one or two sentences
	// Events contradict each other, the one that gave it away first. Of an event that happens
	// often, only the fields that matter here are set.
	Events []Event `json:"events"`
}

// Undecided is a check that could not be made, and why.
type Undecided struct {
	Invariant Invariant `json:"invariant"`
	Reason    string    `json:"reason"`
	Times     int       `json:"times"`
}

// Report is what a [Checker] found.
type Report struct {
	Violations []Violation          `json:"violations,omitempty"` // by invariant; a few of each
	More       int                  `json:"more,omitempty"`       // violations found beyond those listed
	Undecided  []Undecided          `json:"undecided,omitempty"`
	Checks     map[Invariant]uint64 `json:"checks"`               // how often each was put to the test; absent: never
	Incomplete map[string]string    `json:"incomplete,omitempty"` // node to what its trace lacks
}

// violationsMost of one invariant are listed. The first few tell what is wrong; a broken
// node breaks the same promise with every entry.
const violationsMost = 8

// ledger collects findings.
type ledger struct {
	violations []Violation
	listed     [len(invariantNames)]int
	more       int
	undecided  map[Undecided]int // with Times 0
	checks     [len(invariantNames)]uint64
}

func (l *ledger) violated(i Invariant, events []Event, format string, args ...any) {
	if l.listed[i] == violationsMost {
		l.more++
		return
	}
	l.listed[i]++
	l.violations = append(l.violations, Violation{
		Invariant: i, Name: i.Name(), Explanation: fmt.Sprintf(format, args...), Events: events,
	})
}

func (l *ledger) undecide(i Invariant, reason string) {
	if l.undecided == nil {
		l.undecided = make(map[Undecided]int)
	}
	l.undecided[Undecided{Invariant: i, Reason: reason}]++
}

func (l *ledger) report() Report {
	r := Report{Violations: l.violations, More: l.more, Checks: make(map[Invariant]uint64)}
	slices.SortStableFunc(r.Violations, func(a, b Violation) int { return cmp.Compare(a.Invariant, b.Invariant) })
	for u, times := range l.undecided {
		u.Times = times
		r.Undecided = append(r.Undecided, u)
	}
	slices.SortFunc(r.Undecided, func(a, b Undecided) int {
		return cmp.Or(cmp.Compare(a.Invariant, b.Invariant), cmp.Compare(a.Reason, b.Reason))
	})
	for i, times := range l.checks {
		if times > 0 {
			r.Checks[Invariant(i)] = times
		}
	}
	return r
}
