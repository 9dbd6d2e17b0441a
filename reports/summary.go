package reports

import (
	"fmt"
	"io"
	"strings"
)

// WriteSummary writes a short Markdown text for a pull request or a job's page.
func WriteSummary(w io.Writer, r *Run) error {
	var b strings.Builder
	fmt.Fprintf(&b, "## %s %s: %s\n\n%s\n", sign(r.Verdict), markdown(strings.ToUpper(r.Verdict)), markdown(r.Name), markdown(r.Headline))
	if len(r.Harness)+len(r.Notes) > 0 {
		b.WriteString("\n")
	}
	for _, problem := range r.Harness {
		fmt.Fprintf(&b, "- harness: %s\n", markdown(problem))
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "- %s\n", markdown(note))
	}
	if len(r.Results) > 0 {
		b.WriteString("\n| verdict | checker | finding |\n|---|---|---|\n")
	}
	for _, result := range r.Results {
		fmt.Fprintf(&b, "| %s %s | %s | %s |\n", sign(result.Verdict), markdown(string(result.Verdict)), markdown(result.Checker), markdown(result.Summary))
	}
	fmt.Fprintf(&b, "\nSeed %d. Do it again: %s\n", r.Seed, codeSpan(r.Command))
	_, err := io.WriteString(w, b.String())
	return err
}

// markdown makes text that Markdown shows as it is, on one line.
func markdown(s string) string {
	var b strings.Builder
	for i, c := range oneLine(printable(s)) {
		switch {
		case c == '<':
			b.WriteString("&lt;")
		case c == '>':
			b.WriteString("&gt;")
		case c == '&':
			b.WriteString("&amp;")
		case strings.ContainsRune("\\`*_{}[]()#+!|~", c), c == '-' && i == 0:
			b.WriteRune('\\')
			b.WriteRune(c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// codeSpan makes s a code span: between more backticks than s has in a row, so that none
// of its own ends it (CommonMark, code spans).
func codeSpan(s string) string {
	s = oneLine(printable(s))
	if s == "" {
		return "–"
	}
	fence := "`"
	for strings.Contains(s, fence) {
		fence += "`"
	}
	return fence + " " + s + " " + fence
}
