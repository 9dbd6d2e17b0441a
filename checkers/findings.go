package checkers

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"capsize/histories"
)

// FindingsEvidence is what a checker saw that counts things, and shows operations that cannot
// all be right.
type FindingsEvidence struct {
	Counts     map[string]int `json:"counts,omitempty"` // of what was looked at and of what was wrong with it
	Violations []Violation    `json:"violations,omitempty"`
	More       int            `json:"more,omitempty"` // violations that are counted only
}

// Findings gathers what a checker of a workload finds, and makes the result.
type Findings struct {
	run  *Run
	sign string // what is counted that shows that something was put to the test
	e    FindingsEvidence
}

// findingsMost bounds the violations that are explained.
const findingsMost = 20

// NewFindings begins a check of a run. tested is what is counted that shows that the check had
// something to check: without any the result is unknown.
func NewFindings(run *Run, tested string) *Findings {
	return &Findings{run: run, sign: tested, e: FindingsEvidence{Counts: map[string]int{tested: 0}}}
}

// Count adds to a count.
func (f *Findings) Count(what string, n int) { f.e.Counts[what] += n }

// Add notes a violation: its kind, such as "lost write", the operations that contradict each
// other, and in words why. The kind is counted.
func (f *Findings) Add(kind string, core []histories.Operation, explanation string, args ...any) {
	f.e.Counts[kind]++
	v := Violation{Kind: kind, Explanation: fmt.Sprintf(explanation, args...), Core: slices.Clone(core)}
	for _, op := range core {
		v.Key = cmp.Or(v.Key, op.Key)
		v.At = max(v.At, op.Call)
		if op.Type != histories.Info {
			v.At = max(v.At, op.Return)
		}
	}
	f.e.Violations = append(f.e.Violations, v)
}

// recount sets how often a kind was found, those without explanation included.
func (e *FindingsEvidence) recount(kind string, n int) {
	e.More += n - e.Counts[kind]
	e.Counts[kind] = n
}

// Result makes the result. Violations are in order of time.
func (f *Findings) Result() Result {
	e := &f.e
	slices.SortStableFunc(e.Violations, func(a, b Violation) int { return cmp.Compare(a.At, b.At) })
	if more := len(e.Violations) - findingsMost; more > 0 {
		e.Violations, e.More = e.Violations[:findingsMost], more
	}
	for i := range e.Violations {
		v := &e.Violations[i]
		from := v.At
		for _, op := range v.Core {
			from = min(from, op.Call)
		}
		v.Situation = SituationOf(f.run, from, v.At)
	}
	result := Result{Verdict: Valid, Findings: e, Summary: f.counted()}
	switch {
	case len(e.Violations) > 0:
		result.Verdict, result.Summary = Invalid, e.Violations[0].Explanation
		if more := len(e.Violations) + e.More - 1; more > 0 {
			result.Summary += fmt.Sprintf(" (and %d more violations)", more)
		}
	case e.Counts[f.sign] == 0:
		result.Verdict = Unknown
		result.Summary = "nothing was put to the test: " + f.counted()
	}
	return result
}

// counted says what was counted, that which was tested first.
func (f *Findings) counted() string {
	parts := []string{fmt.Sprintf("%d %s", f.e.Counts[f.sign], f.sign)}
	for _, what := range slices.Sorted(maps.Keys(f.e.Counts)) {
		if what != f.sign {
			parts = append(parts, fmt.Sprintf("%d %s", f.e.Counts[what], what))
		}
	}
	return strings.Join(parts, ", ")
}
