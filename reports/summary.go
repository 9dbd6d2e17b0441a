package reports

import (
	"fmt"
	"io"
	"strings"
)

// WriteSummary writes a short Markdown text for a pull request or a job's page.
func WriteSummary(w io.Writer, r *Run) error {
	var b strings.Builder
	fmt.Fprintf(&b, "## %s: %s\n\n%s\n\n", markdown(r.Name), strings.ToUpper(r.Verdict), markdown(r.Headline))
	for _, problem := range r.Harness {
		fmt.Fprintf(&b, "- harness: %s\n", markdown(problem))
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "- %s\n", markdown(note))
	}
	b.WriteString("\n| checker | verdict | finding |\n|---|---|---|\n")
	for _, result := range r.Results {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", markdown(result.Checker), result.Verdict, markdown(result.Summary))
	}
	fmt.Fprintf(&b, "\nSeed %d. Again: `%s`\n", r.Seed, strings.ReplaceAll(r.Command, "`", ""))
	_, err := io.WriteString(w, b.String())
	return err
}

// markdown makes text that Markdown shows as it is, on one line.
func markdown(s string) string {
	var b strings.Builder
	for _, c := range s {
		switch {
		case c == '\n' || c == '\r':
			b.WriteString(" ")
		case c < ' ':
		case c == '<':
			b.WriteString("&lt;")
		case c == '&':
			b.WriteString("&amp;")
		case strings.ContainsRune("\\`*_{}[]()#+!|~>", c):
			b.WriteRune('\\')
			b.WriteRune(c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}
