package checkers

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"capsize/histories"
)

// Situation is what was going on in a run while something went wrong.
type Situation struct {
	From    time.Duration `json:"from"`
	To      time.Duration `json:"to"`
	Faults  []string      `json:"faults,omitempty"`  // in force at some moment between, each in words
	Leaders []string      `json:"leaders,omitempty"` // who led, by the nodes' own word, in order of time
}

// SituationOf returns the faults in force and the leaders known between two moments.
func SituationOf(run *Run, from, to time.Duration) *Situation {
	s := &Situation{From: from, To: to}
	type force struct {
		fault *histories.Fault
		since time.Duration
	}
	inForce := make(map[int]force)
	tell := func(f force, until string) {
		s.Faults = append(s.Faults, fmt.Sprintf("%s of %s from %s %s", f.fault.Name, strings.Join(f.fault.Nodes, ", "), Clock(f.since), until))
	}
	leads := make(map[string]string) // node to what it claims
	begun := false
	begin := func() { // the claims that stood when the time began
		if !begun {
			s.Leaders, begun = leading(leads), true
		}
	}
	for i := range run.History {
		e := &run.History[i]
		if e.Time > to {
			break
		}
		switch {
		case e.Fault != nil && e.Fault.Phase == histories.Landed:
			inForce[e.Fault.ID] = force{e.Fault, e.Time}
		case e.Fault != nil && e.Fault.Phase == histories.Healed:
			if f, ok := inForce[e.Fault.ID]; ok && e.Time >= from {
				tell(f, "to "+Clock(e.Time))
			}
			delete(inForce, e.Fault.ID)
		case e.Status != nil:
			if e.Time >= from {
				begin()
			}
			claim := ""
			if e.Status.Role == "leader" {
				claim = fmt.Sprintf("%s in term %d", e.Node, e.Status.Term)
			}
			if claim != "" && claim != leads[e.Node] && e.Time >= from {
				s.Leaders = append(s.Leaders, claim+" from "+Clock(e.Time))
			}
			leads[e.Node] = claim
		}
	}
	for _, id := range slices.Sorted(maps.Keys(inForce)) {
		tell(inForce[id], "on")
	}
	begin()
	return s
}

func leading(leads map[string]string) []string {
	var list []string
	for _, claim := range leads {
		if claim != "" {
			list = append(list, claim)
		}
	}
	slices.Sort(list)
	return list
}
