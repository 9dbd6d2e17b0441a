package reports

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"capsize/checkers"
	"capsize/histories"
)

//go:embed page
var pageFiles embed.FS

// pageFile reads a file that the compiler embedded: it is there, or nothing works.
func pageFile(name string) string {
	data, err := pageFiles.ReadFile("page/" + name)
	if err != nil {
		panic(err)
	}
	return string(data)
}

var (
	pageStyle  = pageFile("report.css")
	pageScript = pageFile("report.js")
	page       = template.Must(template.New("report").Funcs(template.FuncMap{
		"clock":    clock,
		"count":    grouped,
		"describe": describe,
		"duration": duration,
		"join":     func(list []string) string { return strings.Join(list, ", ") },
		"lines":    func(s string) []string { return strings.Split(strings.TrimSpace(s), "\n") },
		"outcome":  outcome,
		"plain":    plainDuration,
		"plural":   plural,
		"returned": returned,
		"sign":     sign,
		"took":     took,
		"upper":    strings.ToUpper,
	}).Parse(pageFile("report.html.tmpl") + pageFile("pictures.html.tmpl")))
)

// pageData is what the template sees.
type pageData struct {
	*Run
	Style  template.CSS
	Script template.JS
	Policy string // of content security: this page's own script and nothing else

	Facts      []Field
	Timeline   *timeline
	Violations []violationView
	Further    []checkers.Violation // listed without pictures
	LeftOut    int                  // violations beyond those
	Broken     []checkers.Result    // invalid results whose evidence is not a history
	Leaders    *checkers.LeadersEvidence
	Liveness   *checkers.LivenessEvidence
	Faults     []faultView
	FaultsCut  int // faults that the table leaves out
	Coverage   *checkers.FaultsEvidence
	Statistics *statisticsView
	Serving    *checkers.AvailabilityEvidence
	Unchecked  []uncheckedView
}

const (
	violationsDrawn  = 5
	violationsListed = 100
	faultsListed     = 500
	uncheckedListed  = 50
)

// WriteHTML writes the report as one page that needs no network: the answer first, then why,
// then everything on one time axis, and the tables. It is complete without its script,
// which adds only zooming and pointing.
func WriteHTML(w io.Writer, r *Run) error {
	operations := histories.Operations(r.History)
	data := &pageData{
		Run: r, Style: template.CSS(pageStyle), Script: template.JS(pageScript), Policy: policy(pageScript), //nolint:gosec // both are ours
		Faults: faultViews(r.History),
	}
	data.Timeline = drawTimeline(r, operations, data.Faults)
	data.gather()
	data.Facts = factsOf(r, len(operations), data)
	if more := len(data.Faults) - faultsListed; more > 0 {
		data.Faults, data.FaultsCut = data.Faults[:faultsListed], more
	}
	var b bytes.Buffer
	if err := page.Execute(&b, data); err != nil {
		return err
	}
	_, err := w.Write(bytes.Map(upright, b.Bytes()))
	return err
}

// upright keeps a character from turning the direction of the text around it, by which a
// name could make its neighbours read as something else. The page itself has none such.
func upright(r rune) rune {
	if unicode.Is(unicode.Bidi_Control, r) {
		return utf8.RuneError
	}
	return r
}

// policy forbids the page everything but its own style and script and the pictures beside
// it: what a run says could not run, nor load anything, even if it became markup.
func policy(script string) string {
	sum := sha256.Sum256([]byte(script))
	return "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; frame-src 'self' file:; base-uri 'none'; form-action 'none'"
}

// gather sorts the results' evidence into the page's sections.
func (d *pageData) gather() {
	for _, result := range d.Results {
		if result.Verdict == checkers.Unknown && (result.Linearizability == nil || len(result.Linearizability.Undecided) == 0) {
			d.unchecked(result.Checker, result.Summary)
		}
		switch {
		case result.Linearizability != nil:
			for _, u := range result.Linearizability.Undecided {
				d.unchecked(result.Checker, fmt.Sprintf("key %s, %s: %s", u.Key, plural(u.Operations, "operation"), u.Reason))
			}
		case result.Leaders != nil:
			d.Leaders = result.Leaders
		case result.Liveness != nil:
			d.Liveness = result.Liveness
		case result.Availability != nil:
			d.Serving = result.Availability
		case result.Faults != nil:
			d.Coverage = result.Faults
			if len(result.Faults.Problems) > 1 || result.Verdict != checkers.Unknown {
				for _, problem := range result.Faults.Problems {
					d.unchecked(result.Checker, problem)
				}
			}
		case result.Statistics != nil:
			d.Statistics = viewStatistics(result.Statistics)
		}
		if result.Verdict == checkers.Invalid && result.Linearizability == nil && result.Findings == nil {
			d.Broken = append(d.Broken, result)
		}
	}
	all := violationsOf(d.Results)
	for _, v := range all[:min(len(all), violationsDrawn)] {
		d.Violations = append(d.Violations, viewViolation(v))
	}
	rest := all[len(d.Violations):]
	d.Further = rest[:min(len(rest), violationsListed)]
	d.LeftOut = len(rest) - len(d.Further)
	if more := len(d.Unchecked) - uncheckedListed; more > 0 {
		d.Unchecked = append(d.Unchecked[:uncheckedListed], uncheckedView{"", fmt.Sprintf("and %d more: see verdict.json", more)})
	}
}

// uncheckedView is something that no checker decided, and why.
type uncheckedView struct{ Checker, Why string }

func (d *pageData) unchecked(checker, why string) {
	d.Unchecked = append(d.Unchecked, uncheckedView{checker, why})
}

// LongHeadline reports whether the headline needs smaller letters to be seen at a glance.
func (d *pageData) LongHeadline() bool { return utf8.RuneCountInString(d.Headline) > 120 }

// factsOf are the first things that a reader asks of a run.
func factsOf(r *Run, operations int, d *pageData) []Field {
	facts := []Field{{"run", strings.TrimSpace(r.Name + "  " + r.ID)}}
	if !r.Started.IsZero() {
		facts = append(facts, Field{"started", r.Started.UTC().Format("2006-01-02 15:04:05 UTC")})
	}
	system := r.System
	if len(r.Nodes) > 0 {
		system += " on " + strings.Join(r.Nodes, " ")
	}
	facts = append(facts, Field{"system", system})
	if operations > 0 {
		facts = append(facts, Field{"recorded", plural(operations, "operation") + " in " + duration(d.Timeline.axis.end-d.Timeline.axis.begin)})
	}
	if c := d.Coverage; c != nil {
		facts = append(facts, Field{"faults", fmt.Sprintf("%d planned, %d landed, %d healed, %d hit the leader", c.Planned, c.Landed, c.Healed, c.OnLeader)})
	}
	return append(facts, Field{"Capsize", r.Version})
}

// sign is a verdict's sign, so that colour is not all that tells it.
func sign(verdict any) string {
	switch fmt.Sprint(verdict) {
	case string(checkers.Valid):
		return "✓"
	case string(checkers.Invalid):
		return "✗"
	case harnessFailed:
		return "!"
	default:
		return "?"
	}
}

// violationView is a violation with its pictures.
type violationView struct {
	checkers.Violation
	Diagram *diagram
	Picture string // a file name that is safe to link to, or nothing
	Rows    []rowView
}

// rowView is an operation in the table around a violation. Number is its place in the
// proof, from 1; 0 where it is not part of it.
type rowView struct {
	histories.Operation
	Number int
}

func viewViolation(v checkers.Violation) violationView {
	core := slices.SortedStableFunc(slices.Values(v.Core), byCall)
	view := violationView{Violation: v, Diagram: drawDiagram(core, v.At), Picture: safePicture(v.Picture)}
	number := make(map[int]int)
	for i, op := range core {
		number[op.Invoked] = i + 1
	}
	rows := slices.Clone(v.Around)
	for _, op := range core {
		if !slices.ContainsFunc(rows, func(row histories.Operation) bool { return row.Invoked == op.Invoked }) {
			rows = append(rows, op) // a proof may reach further back than the table
		}
	}
	slices.SortStableFunc(rows, byCall)
	for _, op := range rows {
		view.Rows = append(view.Rows, rowView{op, number[op.Invoked]})
	}
	return view
}

func byCall(a, b histories.Operation) int {
	return cmp.Or(cmp.Compare(a.Call, b.Call), cmp.Compare(a.Invoked, b.Invoked))
}

var pictureName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*\.html$`)

// safePicture returns the name if it is that of a page beside the report, else nothing.
func safePicture(name string) string {
	if path.Base(name) != name || !pictureName.MatchString(name) {
		return ""
	}
	return name
}

// statisticsView is the statistics in the order in which they are read.
type statisticsView struct {
	Rows   []countsRow
	Phases []checkers.PhaseRate
	Errors []errorRow
}

type countsRow struct {
	Name string
	checkers.Counts
}

type errorRow struct {
	Count int
	Text  string
}

func viewStatistics(s *checkers.Statistics) *statisticsView {
	view := &statisticsView{Phases: s.Phases}
	for _, f := range slices.Sorted(maps.Keys(s.Operations)) {
		name := f
		if f == "" {
			name = "all"
		}
		view.Rows = append(view.Rows, countsRow{name, s.Operations[f]})
	}
	for text, n := range s.Errors {
		view.Errors = append(view.Errors, errorRow{n, short(text, 500)})
	}
	slices.SortFunc(view.Errors, func(a, b errorRow) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Text, b.Text))
	})
	return view
}

// Answered lists the nodes' answers after the last heal.
func (d *pageData) Answered() []answerView {
	var list []answerView
	for _, node := range slices.Sorted(maps.Keys(d.Liveness.Answered)) {
		list = append(list, answerView{node, d.Liveness.Answered[node]})
	}
	return list
}

type answerView struct {
	Node  string
	After time.Duration
}
