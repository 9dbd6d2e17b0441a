package checkers

import (
	"context"
	"fmt"

	"capsize/checkers/sessions"
	"capsize/histories"
)

// Sessions checks the four session guarantees of each process by the revisions that came with
// the answers: see package sessions. It is apart from linearizability, which implies them where
// every read is linearizable, and does not rest on the same algorithm. Reads that may be
// stale are promised nothing and are left out.
type Sessions struct {
	Reads  func(op histories.Operation) bool // the operations that read; nil: those called "read"
	Skip   []sessions.Guarantee              // not promised
	OneKey bool                              // the revisions of different keys do not compare
}

// Name is "sessions".
func (*Sessions) Name() string { return "sessions" }

const comparedPairs = "operations compared with an earlier one of their session"

// Check compares the operations of each process. A system that gives no revisions is not
// checked, and the summary says so.
func (s *Sessions) Check(_ context.Context, run *Run) Result {
	var operations []histories.Operation
	var ops []sessions.Op
	known := 0
	for _, op := range histories.Operations(run.History) {
		if op.Type != histories.OK || op.Stale {
			continue
		}
		reads := op.F == "read"
		if s.Reads != nil {
			reads = s.Reads(op)
		}
		version := op.Revision
		switch {
		case version > 0:
			known++
		case !reads || !op.Output.IsNil(): // what was never written is older than all that was
			version = sessions.Unknown
		}
		operations = append(operations, op)
		ops = append(ops, sessions.Op{Session: op.Process, Key: op.Key, Write: !reads, Version: version})
	}
	if known == 0 {
		return Result{Verdict: Valid, Summary: "not checked: no answer came with a revision"}
	}
	checked := sessions.Check(ops, sessions.Options{OneOrder: !s.OneKey, Skip: s.Skip})
	found := NewFindings(run, comparedPairs)
	for _, g := range sessions.Guarantees {
		found.Count(comparedPairs, checked.Compared[g])
	}
	for _, v := range checked.Violations {
		found.Add(string(v.Guarantee), []histories.Operation{operations[v.Earlier], operations[v.Later]}, "%s is broken: %s", v.Guarantee, v.Text)
	}
	result := found.Result()
	for g, n := range checked.Counts {
		result.Findings.recount(string(g), n)
	}
	if result.Verdict == Valid {
		result.Summary = fmt.Sprintf("every session saw its own writes and never went back: %d %s", result.Findings.Counts[comparedPairs], comparedPairs)
	}
	return result
}
