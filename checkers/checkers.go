// Package checkers decides what held in a finished run. A checker reads the run's
// history and the nodes' traces, never a live cluster, and answers valid, invalid or
// unknown with evidence. It has a budget, and says unknown, with the reason, when that
// runs out. Evidence is data; package reports draws it.
package checkers

import (
	"context"
	"fmt"
	"time"

	"capsize/histories"
)

// Verdict is a checker's answer. Its values order by severity: see [Worse].
type Verdict string

const (
	Valid   Verdict = "valid"   // the property held
	Unknown Verdict = "unknown" // it could not be decided, or nothing was tested
	Invalid Verdict = "invalid" // it was broken, with evidence
)

// Worse returns the one of two verdicts that decides a run: invalid before unknown
// before valid.
func Worse(a, b Verdict) Verdict {
	for _, v := range []Verdict{Invalid, Unknown} {
		if a == v || b == v {
			return v
		}
	}
	return Valid
}

// Run is the input of every checker: a finished run, read back from its directory.
type Run struct {
	Nodes   []string
	History []histories.Event
	Traces  map[string]string // node to the path of its trace.jsonl; a node without one is absent
	Logs    map[string]string // node to the path of what its process printed; likewise
}

// Limits bound what a checker may use, and say where its pictures go.
type Limits struct {
	Timeout time.Duration // 0: none
	Memory  uint64        // bytes by which the heap of this process may grow; 0: no limit
	Dir     string        // the run directory; empty: no pictures are made
}

// Checker decides one property.
type Checker interface {
	Name() string
	Check(ctx context.Context, run *Run) Result
}

// Result is what one checker found. Of the evidence fields at most one is set.
type Result struct {
	Checker string        `json:"checker"`
	Verdict Verdict       `json:"verdict"`
	Summary string        `json:"summary"` // one sentence, the answer first
	Took    time.Duration `json:"took"`

	Linearizability *LinearizabilityEvidence `json:"linearizability,omitempty"`
	Leaders         *LeadersEvidence         `json:"leaders,omitempty"`
	Invariants      *InvariantsEvidence      `json:"invariants,omitempty"`
	Liveness        *LivenessEvidence        `json:"liveness,omitempty"`
	Faults          *FaultsEvidence          `json:"faults,omitempty"`
	Coverage        *CoverageEvidence        `json:"coverage,omitempty"`
	Statistics      *Statistics              `json:"statistics,omitempty"`
	Findings        *FindingsEvidence        `json:"findings,omitempty"`
	Availability    *AvailabilityEvidence    `json:"availability,omitempty"`
	Logs            *LogsEvidence            `json:"logs,omitempty"`
}

// Clock writes a moment of a run as every checker does: in seconds since its start.
func Clock(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }
