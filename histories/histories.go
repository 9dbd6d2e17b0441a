// Package histories is the record of what happened in a run: the sequence of
// operations as clients saw them, the faults as the nemesis injected and healed
// them, and what was observed of the nodes' leadership, on one monotonic clock.
//
// A history is a list of [Event]. Everything else (operations, statistics,
// verdicts, reports) is a function of it. [Recorder] writes one while the run goes
// on; [ReadFile] reads one back as a whole, [Scan] one event after the other. [Writer]
// writes one whose events have happened elsewhere.
package histories

import (
	"fmt"
	"time"
)

// Type says what an event tells about its operation. The words are Jepsen's.
type Type uint8

const (
	// Invoke: the operation is about to be sent.
	Invoke Type = iota
	// OK: the operation happened, between its invoke and this event.
	OK
	// Fail: the operation certainly did not happen and never will.
	Fail
	// Info: nobody knows. The operation may have happened, may happen later, or never.
	// A process that sees Info is never used again. Nemesis and observer events are
	// Info too: they are no operations.
	Info
)

var typeNames = [...]string{"invoke", "ok", "fail", "info"}

// String returns the word written in history files.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("Type(%d)", uint8(t))
}

// MarshalText writes the word; it makes a Type a JSON string.
func (t Type) MarshalText() ([]byte, error) {
	if int(t) >= len(typeNames) {
		return nil, fmt.Errorf("event type %d has no word: want invoke, ok, fail or info", uint8(t))
	}
	return []byte(typeNames[t]), nil
}

// UnmarshalText is the inverse of MarshalText.
func (t *Type) UnmarshalText(text []byte) (err error) {
	*t, err = ParseType(string(text))
	return err
}

// ParseType is the inverse of [Type.String].
func ParseType(s string) (Type, error) {
	for i, name := range typeNames {
		if s == name {
			return Type(i), nil
		}
	}
	return 0, fmt.Errorf("event type %q: want invoke, ok, fail or info", s)
}

// Processes below zero are not clients. In a history file they are written as the
// words "nemesis" and "observer".
const (
	Nemesis  = -1
	Observer = -2
)

// Event is one line of a history.
type Event struct {
	Index   int           // position in the history, from 0
	Time    time.Duration // since the start of the run, on the checker's monotonic clock; never decreases with Index
	Process int           // the logical client thread, from 0; or Nemesis, Observer
	Type    Type
	Stale   bool // on Invoke: a read that the system may answer with a state of the past, and says so
	Final   bool // true for the reads made after everything was healed
	// Refused, on Fail: the operation did take its place among the others, but its condition did
	// not hold, as of a compare-and-swap. Value is what it found instead; where it repeats the
	// argument, the answer did not say.
	Refused  bool
	F        string  // what was called: "read", "write", "cas" …; for the nemesis the fault's name; for the observer "status"
	Key      string  // which object of the workload; empty where there is only one
	Value    Value   // argument on Invoke, result on OK; completions of writes repeat the argument
	Revision int64   // on OK, and where Refused: the revision, index or fencing token that came with the answer; 0: none
	Node     string  // the node that the client talked to, or that was observed
	Error    string  // why the outcome is Fail or Info
	Attempts int     // how often the client sent the request under this one invoke; 0 where it was not sent again
	Fault    *Fault  // of the nemesis only
	Status   *Status // of the observer only
}

// Phase is a step in the life of a fault.
type Phase string

const (
	Inject Phase = "inject" // the nemesis decided and sent the command
	Landed Phase = "landed" // it is in force, with proof
	Missed Phase = "missed" // it is not in force, though it should be: Error says why
	Heal   Phase = "heal"   // the nemesis sent the command to undo it
	Healed Phase = "healed" // it is undone, with proof
	Stuck  Phase = "stuck"  // it is not undone, though it should be: Error says why
)

// Fault is what a nemesis event says.
type Fault struct {
	ID     int           `json:"id"`               // number of the step in the schedule, from 1; the same in all phases of one fault
	Name   string        `json:"name"`             // "partition", "pause", "kill" …
	Phase  Phase         `json:"phase"`            // where in its life
	Took   time.Duration `json:"took,omitempty"`   // Landed and Healed: from command to effect on the last node
	Target string        `json:"target,omitempty"` // as the schedule says it: "leader", "minority", "n3" …
	Nodes  []string      `json:"nodes,omitempty"`  // what the target resolved to
	Detail string        `json:"detail,omitempty"` // for people: "n1 n4 | n2 n3 n5"
	Proof  []string      `json:"proof,omitempty"`  // what was seen that proves the phase, a line each

	Params map[string]string `json:"params,omitempty"` // as the schedule says them
	Leader string            `json:"leader,omitempty"` // who led when the step began, as far as it was known
	// Side is where a partition leaves that leader: in the "majority" or in a "minority".
	Side string `json:"side,omitempty"`
	// Beyond says which promise of the machine the fault breaks that Raft builds on: a correct
	// system may fail under it.
	Beyond string `json:"beyond,omitempty"`
	// MayEnd says that the processes of its nodes may end by themselves under it, and be right to.
	MayEnd bool `json:"mayEnd,omitempty"`
}

// Status is what a poll of one node said. An observer event is recorded when
// something in it other than Commit and Applied changes.
type Status struct {
	Up      bool   `json:"up"` // false: no answer
	ID      uint64 `json:"id,omitempty"`
	Term    uint64 `json:"term,omitempty"`
	Role    string `json:"role,omitempty"`   // "leader", "follower", "candidate", "precandidate"; empty where Up is false
	Leader  string `json:"leader,omitempty"` // name of the node that this one believes to lead; empty for none
	Commit  uint64 `json:"commit,omitempty"`
	Applied uint64 `json:"applied,omitempty"`
}
