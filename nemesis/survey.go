package nemesis

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"capsize/nemesis/agent"
)

// Survey is what the agents can do, for each node: what [Controller.Survey] found.
type Survey map[string][]agent.Ability

// Without returns the survey of nodes that lack an ability for that reason.
func (s Survey) Without(name, why string) Survey {
	lacking := make(Survey, len(s))
	for node, abilities := range s {
		for _, ability := range abilities {
			if ability.Name == name && ability.How != "" {
				ability.How, ability.Why = "", why
			}
			lacking[node] = append(lacking[node], ability)
		}
	}
	return lacking
}

// Way is how a fault would work on the surveyed nodes.
type Way struct {
	Works bool
	How   string // the mechanisms; empty where the fault needs none
	Why   string // it does not work, and on which nodes
}

// Way tells whether and how a step of a fault would work on all nodes.
func (s Survey) Way(about About, params Params) Way {
	var how, why []string
	for _, need := range about.needs(params) {
		mechanisms := make(map[string]bool)
		for _, node := range slices.Sorted(maps.Keys(s)) {
			ability := find(s[node], need)
			if ability.How == "" {
				why = append(why, fmt.Sprintf("%s: %s", node, ability.Why))
			} else {
				mechanisms[ability.How] = true
			}
		}
		for _, mechanism := range slices.Sorted(maps.Keys(mechanisms)) {
			if !slices.Contains(how, mechanism) {
				how = append(how, mechanism)
			}
		}
	}
	if len(why) > 0 {
		return Way{Why: abridge(why)}
	}
	return Way{Works: true, How: strings.Join(how, ", ")}
}

// abridge says once what is the same on all nodes.
func abridge(why []string) string {
	_, first, _ := strings.Cut(why[0], ": ")
	for _, one := range why {
		if _, reason, _ := strings.Cut(one, ": "); reason != first {
			return strings.Join(why, "; ")
		}
	}
	return first
}

func find(abilities []agent.Ability, name string) agent.Ability {
	for _, ability := range abilities {
		if ability.Name == name {
			return ability
		}
	}
	return agent.Ability{Name: name, Why: fmt.Sprintf("its agent knows nothing of %q", name)}
}

// Check reports the first step of a schedule that cannot work on the surveyed nodes.
func (s Survey) Check(schedule Schedule) error {
	for i, step := range schedule.Steps {
		fault, known := faultByName(step.Fault)
		if !known {
			return &ScheduleError{Step: i + 1, Key: "fault", Value: step.Fault, Allowed: oneOf(FaultNames())}
		}
		about := fault.About()
		if way := s.Way(about, withDefaults(about.Params, step.Params)); !way.Works {
			return &ScheduleError{Step: i + 1, Key: "fault", Value: step.Fault, Allowed: "it does not work here: " + way.Why + " (checker doctor tells what does)"}
		}
	}
	return nil
}

// Works is a filter for [Circumstances]: what the surveyed nodes can do.
func (s Survey) Works(fault Fault, params Params) bool { return s.Way(fault.About(), params).Works }

// Missing returns the faults of a schedule's draws of which nothing works, with the reason.
func (s Survey) Missing(schedule Schedule) []string {
	var missing []string
	for _, draw := range schedule.Draw {
		for _, name := range draw.From {
			for _, in := range FaultsIn(name) {
				fault, _ := faultByName(in)
				about := fault.About()
				works := slices.ContainsFunc(about.Cards, func(c Card) bool { return s.Works(fault, withDefaults(about.Params, c.Params)) })
				if len(about.Cards) > 0 && !works {
					missing = append(missing, in+": "+s.Way(about, withDefaults(about.Params, about.Cards[0].Params)).Why)
				}
			}
		}
	}
	slices.Sort(missing)
	return slices.Compact(missing)
}

// FaultWay is how a fault would work, with such parameters.
type FaultWay struct {
	Fault string `json:"fault"`
	With  string `json:"with,omitempty"` // a choice that needs something else than the defaults do
	Works bool   `json:"works"`
	How   string `json:"how,omitempty"`
	Why   string `json:"why,omitempty"`
}

// Ways tells of every fault whether and how it would work; a choice of a parameter has a line of
// its own where it needs something else.
func (s Survey) Ways() []FaultWay {
	var ways []FaultWay
	for _, fault := range faults {
		about := fault.About()
		seen := make(map[string]bool)
		for _, variant := range about.variants() {
			needs := strings.Join(about.needs(variant.params), " ")
			if seen[needs] {
				continue
			}
			seen[needs] = true
			way := s.Way(about, variant.params)
			ways = append(ways, FaultWay{Fault: about.Name, With: variant.with, Works: way.Works, How: way.How, Why: way.Why})
		}
	}
	return ways
}
