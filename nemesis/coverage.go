package nemesis

import (
	"maps"
	"slices"
	"time"
)

// Demand is something that a run must have put to the test: so many faults of a kind, landed
// and proven. A run that misses it is unknown.
type Demand struct {
	Fault  string            `yaml:"fault,omitempty"`  // a fault or a package; empty for any
	Params map[string]string `yaml:"params,omitempty"` // that the step must have: kind: halves
	// Leader: "hit" (the leader was among the targets), or on which side of a partition it was,
	// "minority" or "majority"; empty for no matter.
	Leader string `yaml:"leader,omitempty"`
	Times  int    `yaml:"times,omitempty"` // at least; 0 means 1
	// InForce is the time that they must have been in force, all together.
	InForce time.Duration `yaml:"in-force,omitempty"`
	// Operations is how many operations must have been in flight when they landed, all together.
	Operations int `yaml:"operations,omitempty"`
}

// Hit is the Leader of a [Demand] that the leader was among the targets.
const Hit = "hit"

// String says what is demanded, for people.
func (d Demand) String() string {
	what := d.Fault
	if what == "" {
		what = "any fault"
	}
	for _, name := range slices.Sorted(maps.Keys(d.Params)) {
		what += " " + name + "=" + d.Params[name]
	}
	switch d.Leader {
	case Hit:
		what += " of the leader"
	case InMinority, InMajority:
		what += " with the leader in a " + d.Leader
	}
	return what
}

func (d Demand) validate() *ScheduleError {
	switch {
	case d.Fault != "" && len(FaultsIn(d.Fault)) == 0:
		return &ScheduleError{Key: "fault", Value: d.Fault, Allowed: oneOf(append(Packages(), FaultNames()...))}
	case !slices.Contains([]string{"", Hit, InMinority, InMajority}, d.Leader):
		return &ScheduleError{Key: "leader", Value: d.Leader, Allowed: oneOf([]string{Hit, InMinority, InMajority}) + ", or nothing"}
	case d.Times < 0 || d.Operations < 0 || d.InForce < 0:
		return &ScheduleError{Key: "times", Value: "", Allowed: "nothing below 0"}
	}
	if len(d.Params) == 0 {
		return nil
	}
	for _, name := range FaultsIn(d.Fault) {
		fault, _ := faultByName(name)
		if wrong := validateParams(fault.About().Params, d.Params); wrong != nil {
			return wrong
		}
	}
	return nil
}
