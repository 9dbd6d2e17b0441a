// Package reports draws a finished run for people and machines: a page, a text for the
// terminal, JUnit XML, Markdown. It decides nothing: everything that it shows stands in
// the run's results and history.
package reports

import (
	"time"

	"capsize/checkers"
	"capsize/histories"
)

// Run is everything that a report is drawn from.
type Run struct {
	ID, Name string
	Started  time.Time
	Dir      string
	Command  string  // the command line that does the run again
	Plan     []Field // the resolved plan, in order
	System   string
	Version  string // of Capsize
	Nodes    []string
	Seed     uint64
	Verdict  string // "valid", "invalid", "unknown", "harness failed"
	Headline string // one sentence
	Harness  []string
	Notes    []string
	Results  []checkers.Result
	History  []histories.Event
}

// Field is one key of the plan.
type Field struct{ Key, Value string }

// Headline says a verdict in one sentence: what was broken, or what could not be decided,
// or what was tested.
func Headline(verdict string, results []checkers.Result) string {
	for _, want := range []checkers.Verdict{checkers.Invalid, checkers.Unknown} {
		for _, r := range results {
			if r.Verdict == want && string(want) == verdict {
				return r.Summary
			}
		}
	}
	for _, r := range results {
		if r.Linearizability != nil {
			return "Every promise was kept: " + r.Summary + "."
		}
	}
	return "Every promise was kept."
}
