package reports

import (
	"fmt"
	"strings"
	"time"

	"capsize/histories"
)

// faultView is the life of one fault.
type faultView struct {
	ID                           int
	Name, Target, Detail         string
	Nodes                        []string
	Inject, Landed, Heal, Healed time.Duration
	HasLanded, HasHeal, HasEnded bool // HasEnded: Healed is known
	LandTook, HealTook           time.Duration
	Proof                        []string
	Trouble                      string // why it missed or is stuck
}

// faultViews follows each fault through its phases, in order of injection.
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
	for _, line := range fault.Proof {
		f.Proof = append(f.Proof, string(fault.Phase)+": "+short(line, 500))
	}
	switch fault.Phase {
	case histories.Landed:
		f.Landed, f.HasLanded, f.LandTook = e.Time, true, fault.Took
	case histories.Heal:
		f.Heal, f.HasHeal = e.Time, true
	case histories.Healed:
		f.Healed, f.HasEnded, f.HealTook = e.Time, true, fault.Took
	case histories.Missed:
		f.Trouble = "did not land: " + short(e.Error, 500)
	case histories.Stuck:
		f.Trouble = "could not be healed: " + short(e.Error, 500)
	}
}

// end is when the fault was over; limit if it never was.
func (f *faultView) end(limit time.Duration) time.Duration {
	if f.HasEnded {
		return f.Healed
	}
	return limit
}

// Whom says what the fault hit: the target as planned, and the nodes that it stood for.
func (f *faultView) Whom() string {
	nodes := strings.Join(f.Nodes, " ")
	switch {
	case nodes == "" || nodes == f.Target:
		return f.Target
	case f.Target == "":
		return nodes
	default:
		return f.Target + " " + nodes
	}
}

// Label names the fault on the time axis.
func (f *faultView) Label() string {
	label := fmt.Sprintf("%d %s %s", f.ID, f.Name, f.Whom())
	if f.Trouble != "" {
		label += " ⚠"
	}
	return short(label, 40)
}

// title tells a fault's life in a line.
func (f *faultView) title() string {
	text := fmt.Sprintf("fault %d: %s of %s", f.ID, f.Name, f.Whom())
	if f.Detail != "" && f.Detail != strings.Join(f.Nodes, " ") {
		text += " (" + short(f.Detail, 120) + ")"
	}
	text += ", injected at " + clock(f.Inject)
	if f.HasLanded {
		text += ", landed at " + clock(f.Landed)
	}
	if f.HasEnded {
		text += ", healed at " + clock(f.Healed)
	}
	if f.Trouble != "" {
		text += "; " + f.Trouble
	}
	return text
}
