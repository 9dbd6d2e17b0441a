package checkers

import (
	"time"

	"capsize/checkers/invariants"
	"capsize/histories"
)

// LinearizabilityEvidence is what the linearizability checker saw.
type LinearizabilityEvidence struct {
	Keys       int `json:"keys"`
	Operations int `json:"operations"` // checked, of all keys
	// Methods tells how many keys were decided by which method, such as "unique values".
	Methods    map[string]int `json:"methods,omitempty"`
	Undecided  []Undecided    `json:"undecided,omitempty"`
	Violations []Violation    `json:"violations,omitempty"` // one per guilty key, the earliest first
}

// Undecided is a key whose history was neither accepted nor refused.
type Undecided struct {
	Key        string `json:"key"`
	Operations int    `json:"operations"`
	Reason     string `json:"reason"` // which budget ended
}

// Violation is a key whose history has no legal order, or operations that contradict each other
// in another way.
type Violation struct {
	Kind        string                `json:"kind,omitempty"` // what is wrong; empty: the key has no legal order
	Key         string                `json:"key"`
	Explanation string                `json:"explanation"`        // in words, for a person
	At          time.Duration         `json:"at"`                 // when the first operation that cannot be explained returned
	Core        []histories.Operation `json:"core"`               // a small set of operations that is still impossible
	Around      []histories.Operation `json:"around"`             // the key's operations around the violation, in order of Call
	Picture     string                `json:"picture,omitempty"`  // Porcupine's visualisation: a file name in the run directory
	Method      string                `json:"method,omitempty"`   // by which the key was decided
	Verified    string                `json:"verified,omitempty"` // what an independent method says of the core
	Situation   *Situation            `json:"situation,omitempty"`
}

// LeadersEvidence is what the one-leader-a-term checker saw.
type LeadersEvidence struct {
	Sources   []string         `json:"sources"` // what was read: "trace of n1", "status polls"
	Terms     []Leadership     `json:"terms"`   // who led which term, by term
	Conflicts []LeaderConflict `json:"conflicts,omitempty"`
}

// Leadership is one node's claim to lead a term.
type Leadership struct {
	Term   uint64 `json:"term"`
	Node   string `json:"node"`
	Source string `json:"source"` // with line number where it is a trace
}

// LeaderConflict is a term with two leaders: election safety (Raft paper, figure 3)
// was broken.
type LeaderConflict struct {
	Term   uint64       `json:"term"`
	Claims []Leadership `json:"claims"`
}

// InvariantsEvidence is what the check of Raft's invariants saw.
type InvariantsEvidence struct {
	Nodes     []string               `json:"nodes"`              // whose traces were read
	Untraced  []string               `json:"untraced,omitempty"` // nodes without a trace
	Events    uint64                 `json:"events"`
	NotTested []invariants.Invariant `json:"notTested,omitempty"` // nothing in the traces put them to the test
	Report    invariants.Report      `json:"report"`
}

// LivenessEvidence is whether the cluster answered again after the final heal.
type LivenessEvidence struct {
	HealedAt time.Duration            `json:"healedAt"` // when everything was healed
	Bound    time.Duration            `json:"bound"`    // how long the cluster had
	Answered map[string]time.Duration `json:"answered"` // node to how long after HealedAt it first answered with ok
	Silent   []string                 `json:"silent,omitempty"`
}

// FaultsEvidence is whether the planned faults really happened.
type FaultsEvidence struct {
	Planned  int            `json:"planned"`
	Landed   int            `json:"landed"`
	Healed   int            `json:"healed"`
	OnLeader int            `json:"onLeader"` // landed faults that hit the leader of that moment
	ByName   map[string]int `json:"byName"`   // landed, by fault
	Problems []string       `json:"problems,omitempty"`
}

// CoverageEvidence is what the faults of a run put to the test.
type CoverageEvidence struct {
	Faults []FaultCoverage `json:"faults,omitempty"` // that landed, by name, in the order in which they first did
	Missed []string        `json:"missed,omitempty"` // what was demanded and not met
	// Beyond names faults that break what Raft builds on: a correct system may fail under them.
	Beyond []string `json:"beyond,omitempty"`
}

// FaultCoverage is what the faults of one name put to the test.
type FaultCoverage struct {
	Name             string        `json:"name"`
	Landed           int           `json:"landed"`
	OnLeader         int           `json:"onLeader"` // the leader was among the targets
	LeaderInMinority int           `json:"leaderInMinority,omitempty"`
	LeaderInMajority int           `json:"leaderInMajority,omitempty"`
	InForce          time.Duration `json:"inForce"`  // all together
	InFlight         int           `json:"inFlight"` // operations when they landed, all together
	During           int           `json:"during"`   // operations in flight at some moment of it, all together
}

// Statistics counts the clients' operations.
type Statistics struct {
	Operations map[string]Counts `json:"operations"`       // by F; "" is all of them
	MinimumOK  int               `json:"minimumOK"`        // below which the run is unknown
	Phases     []PhaseRate       `json:"phases"`           // before, during and after the faults
	Errors     map[string]int    `json:"errors,omitempty"` // the commonest error texts, with how often
}

// Counts are the outcomes and latencies of one kind of operation. The latencies are
// of ok operations.
type Counts struct {
	OK   int           `json:"ok"`
	Fail int           `json:"fail"`
	Info int           `json:"info"`
	P50  time.Duration `json:"p50"`
	P90  time.Duration `json:"p90"`
	P99  time.Duration `json:"p99"`
	Max  time.Duration `json:"max"`
}

// PhaseRate is the rate of ok operations in a part of the run.
type PhaseRate struct {
	Name   string        `json:"name"` // "before faults", "during faults", "after faults"
	From   time.Duration `json:"from"`
	To     time.Duration `json:"to"`
	OK     int           `json:"ok"`
	PerSec float64       `json:"perSec"`
}
