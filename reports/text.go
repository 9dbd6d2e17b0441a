package reports

import (
	"fmt"
	"io"
	"strings"

	"capsize/checkers"
)

// Colours of the terminal.
const (
	plain  = "\x1b[0m"
	red    = "\x1b[1;31m"
	green  = "\x1b[1;32m"
	yellow = "\x1b[1;33m"
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

// WriteText writes the verdict for a terminal: the answer first, then the detail.
func WriteText(w io.Writer, r *Run, colour bool) error {
	paint := func(verdict, s string) string {
		if !colour {
			return s
		}
		return colourOf(verdict) + s + plain
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s  %s\n\n", paint(r.Verdict, strings.ToUpper(r.Verdict)), printable(r.Headline))
	for _, problem := range r.Harness {
		fmt.Fprintf(&b, "  harness    %s\n", printable(problem))
	}
	width := 0
	for _, result := range r.Results {
		width = max(width, len(result.Checker))
	}
	for _, result := range r.Results {
		fmt.Fprintf(&b, "  %s  %-*s  %s\n", paint(string(result.Verdict), fmt.Sprintf("%-7s", result.Verdict)), width, result.Checker, printable(result.Summary))
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "  note     %s\n", printable(note))
	}
	fmt.Fprintf(&b, "\n  report   %s/report.html\n  again    %s\n", r.Dir, r.Command)
	_, err := io.WriteString(w, b.String())
	return err
}

// printable keeps what a node or a value says from driving the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r >= ' ' && r != 0x7f && (r < 0x80 || r > 0x9f) {
			return r
		}
		return '?'
	}, s)
}
