package reports

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"capsize/checkers"
	"capsize/histories"
)

//go:embed report.html.tmpl
var pageSource string

var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"clock":    clock,
	"duration": duration,
	"join":     func(list []string) string { return strings.Join(list, ", ") },
	"upper":    strings.ToUpper,
	"describe": describe,
	"returned": func(op histories.Operation) string {
		if op.Return == histories.Forever {
			return "never"
		}
		return clock(op.Return)
	},
}).Parse(pageSource))

// pageData is what the template sees.
type pageData struct {
	*Run
	Chart      template.HTML
	Violations []violationView
	Faults     []faultView
	Coverage   *checkers.FaultsEvidence
	Statistics *checkers.Statistics
	Unchecked  []string
}

type violationView struct {
	checkers.Violation
	Diagram template.HTML
	Rows    []rowView
}

type rowView struct {
	histories.Operation
	Core bool
}

// WriteHTML writes the report as one page that needs no network: the answer first, then
// everything on one time axis, the proof of a violation, and the tables.
func WriteHTML(w io.Writer, r *Run) error {
	data := pageData{Run: r, Faults: faultViews(r.History), Chart: drawChart(r)}
	for _, result := range r.Results {
		switch {
		case result.Linearizability != nil:
			for _, v := range result.Linearizability.Violations {
				data.Violations = append(data.Violations, viewOf(v))
			}
			for _, u := range result.Linearizability.Undecided {
				data.Unchecked = append(data.Unchecked, fmt.Sprintf("key %s (%d operations): %s", u.Key, u.Operations, u.Reason))
			}
		case result.Faults != nil:
			data.Coverage = result.Faults
			data.Unchecked = append(data.Unchecked, result.Faults.Problems...)
		case result.Statistics != nil:
			data.Statistics = result.Statistics
		}
	}
	return page.Execute(w, data)
}

func viewOf(v checkers.Violation) violationView {
	view := violationView{Violation: v, Diagram: drawDiagram(v.Core)}
	core := make(map[int]bool)
	for _, op := range v.Core {
		core[op.Invoked] = true
	}
	for _, op := range v.Around {
		view.Rows = append(view.Rows, rowView{op, core[op.Invoked]})
	}
	return view
}

// faultView is the life of one fault.
type faultView struct {
	ID                           int
	Name, Target, Detail         string
	Nodes                        []string
	Inject, Landed, Heal, Healed time.Duration
	HasLanded, HasHealed         bool
	LandTook, HealTook           time.Duration
	Proof                        []string
	Trouble                      string
}

// end is when the fault was over; limit if it never was.
func (f faultView) end(limit time.Duration) time.Duration {
	if f.HasHealed {
		return f.Healed
	}
	return limit
}

func faultViews(events []histories.Event) []faultView {
	at := make(map[int]int)
	var views []faultView
	for i := range events {
		fault := events[i].Fault
		if fault == nil {
			continue
		}
		index, known := at[fault.ID]
		if !known {
			index = len(views)
			at[fault.ID] = index
			views = append(views, faultView{ID: fault.ID, Name: fault.Name, Target: fault.Target, Inject: events[i].Time})
		}
		views[index].note(&events[i])
	}
	return views
}

func (f *faultView) note(e *histories.Event) {
	fault := e.Fault
	if len(fault.Nodes) > 0 {
		f.Nodes = fault.Nodes
	}
	if fault.Detail != "" {
		f.Detail = fault.Detail
	}
	f.Proof = append(f.Proof, fault.Proof...)
	switch fault.Phase {
	case histories.Landed:
		f.Landed, f.HasLanded, f.LandTook = e.Time, true, fault.Took
	case histories.Heal:
		f.Heal = e.Time
	case histories.Healed:
		f.Healed, f.HasHealed, f.HealTook = e.Time, true, fault.Took
	case histories.Missed, histories.Stuck:
		f.Trouble = fmt.Sprintf("%s: %s", fault.Phase, e.Error)
	}
}

func clock(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }

// duration rounds to what a person reads: 12.4 s, 3.21 ms, 45 µs.
func duration(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.2f ms", float64(d)/1e6)
	default:
		return fmt.Sprintf("%d µs", d.Microseconds())
	}
}

// describe says in few words what an operation did.
func describe(op histories.Operation) string {
	switch {
	case op.F == "cas":
		if pair, ok := op.Input.Ints(); ok && len(pair) == 2 {
			return fmt.Sprintf("cas %d → %d", pair[0], pair[1])
		}
	case op.Type == histories.OK && op.Input.IsNil():
		return op.F + " " + op.Output.String()
	}
	if op.Input.IsNil() {
		return op.F
	}
	return op.F + " " + op.Input.String()
}
