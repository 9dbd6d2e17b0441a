package reports

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"capsize/checkers"
)

// Colours of the terminal.
const (
	plainColour = "\x1b[0m"
	dim         = "\x1b[2m"
	red         = "\x1b[1;31m"
	green       = "\x1b[1;32m"
	yellow      = "\x1b[1;33m"
)

func colourOf(verdict string) string {
	switch verdict {
	case string(checkers.Valid):
		return green
	case string(checkers.Invalid):
		return red
	default:
		return yellow
	}
}

// coreTextMost is how many operations of a proof the terminal shows; more are for the page.
const coreTextMost = 12

// WriteText writes the verdict for a terminal: the answer first, on one line, then the
// checkers' findings, the proof of a violation, and how to see more and do it again.
func WriteText(w io.Writer, r *Run, colour bool) error {
	t := &terminal{colour: colour}
	t.line("%s  %s", t.paint(colourOf(r.Verdict), strings.ToUpper(printable(r.Verdict))), printable(oneLine(r.Headline)))
	t.line("")
	for _, problem := range r.Harness {
		t.item("harness", problem)
	}
	t.checkers(r.Results)
	t.proof(r.Results)
	t.line("")
	for _, note := range r.Notes {
		t.item("note", note)
	}
	if r.Seed != 0 {
		t.item("seed", fmt.Sprint(r.Seed))
	}
	if r.Dir != "" {
		t.item("report", filepath.Join(r.Dir, "report.html"))
	}
	t.item("again", r.Command)
	_, err := io.WriteString(w, t.String())
	return err
}

// terminal gathers a text for a person.
type terminal struct {
	strings.Builder
	colour bool
}

func (t *terminal) paint(colour, s string) string {
	if !t.colour {
		return s
	}
	return colour + s + plainColour
}

func (t *terminal) line(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }

// item writes a name and what there is to say; further lines of it stand below the first.
func (t *terminal) item(name, text string) {
	text = strings.TrimRight(printable(text), "\n ")
	t.line("  %s  %s", t.paint(dim, fmt.Sprintf("%-7s", name)), strings.ReplaceAll(text, "\n", "\n           "))
}

func (t *terminal) checkers(results []checkers.Result) {
	width := 0
	for _, result := range results {
		width = max(width, len(result.Checker))
	}
	for _, result := range results {
		verdict := fmt.Sprintf("%s %-7s", sign(result.Verdict), printable(string(result.Verdict)))
		t.line("  %s  %-*s  %s", t.paint(colourOf(string(result.Verdict)), verdict), width, printable(result.Checker), printable(oneLine(result.Summary)))
	}
}

// proof lists the operations that have no legal order, of the first violation that names
// them.
func (t *terminal) proof(results []checkers.Result) {
	for _, v := range violationsOf(results) {
		if len(v.Core) == 0 || len(v.Core) > coreTextMost {
			continue
		}
		what := "these operations together have no legal order"
		if v.Kind != "" {
			what = printable(oneLine(v.Kind))
		}
		if v.Key != "" {
			what += " (key " + printable(oneLine(v.Key)) + ")"
		}
		t.line("\n  %s:", what)
		for i, op := range slices.SortedStableFunc(slices.Values(v.Core), byCall) {
			t.line("  %2d  %12s – %-12s  process %-4d %-6s %s", i+1, clock(op.Call), returned(op), op.Process, printable(oneLine(op.Node)), printable(oneLine(describe(op))))
		}
		return
	}
}
