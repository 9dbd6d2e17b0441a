// Package nemesis is what goes wrong: faults, the targets they hit, and the schedule
// that says when. [Schedule] is data; [Nemesis] carries it out through the agents
// (package agent, on the nodes) and proves that each fault landed and healed.
package nemesis

import "time"

// Schedule is the list of faults of a run, ordered by time. It is saved with the run as
// schedule.yaml and can be written by hand.
type Schedule struct {
	Seed  uint64 `yaml:"seed"` // what it was drawn from; 0 where it was written by hand
	Steps []Step `yaml:"steps"`
}

// Step is one fault: injected At after the clients began, healed Duration later. Steps
// may overlap.
type Step struct {
	At       time.Duration     `yaml:"at"`
	Duration time.Duration     `yaml:"duration"`
	Fault    string            `yaml:"fault"`            // "partition", "pause", "kill"
	Target   string            `yaml:"target"`           // a role, or names joined by commas; resolved when the step begins
	Params   map[string]string `yaml:"params,omitempty"` // what the fault understands: kind: halves
}
