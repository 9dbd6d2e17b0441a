// Package reports draws a finished run for people and machines: a page, a text for the
// terminal, JUnit XML, Markdown. It decides nothing: everything that it shows stands in
// the run's results and history.
//
// Whatever a run says (names, values, error texts, log lines) is data of a system that is
// being broken on purpose. No writer lets it become markup, script, a link or a terminal's
// control sequence.
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
	Verdict  string   // "valid", "invalid", "unknown", "harness failed"
	Headline string   // one sentence
	Harness  []string // what failed in the harness itself
	Notes    []string // what a reader should know besides
	Results  []checkers.Result
	History  []histories.Event
}

// Field is one key of the plan.
type Field struct{ Key, Value string }

// harnessFailed is the verdict of a run that says nothing of the system.
const harnessFailed = "harness failed"

// Headline says a verdict in one sentence: what was broken, or what could not be decided,
// or what was tested.
func Headline(verdict string, results []checkers.Result) string {
	for _, r := range results {
		if string(r.Verdict) == verdict && r.Verdict != checkers.Valid {
			return oneLine(r.Summary)
		}
	}
	switch {
	case verdict == harnessFailed:
		return "The harness failed, so this run says nothing of the system."
	case verdict != string(checkers.Valid):
		return "This run is " + verdict + ": no checker says more."
	}
	for _, r := range results {
		if r.Linearizability != nil || r.Findings != nil {
			return "Every promise was kept: " + oneLine(r.Summary) + "."
		}
	}
	return "Every promise was kept."
}
