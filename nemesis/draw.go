package nemesis

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Draw is a part of a schedule that is drawn from the schedule's seed: faults of these
// packages, one in about each interval.
type Draw struct {
	From     []string      `yaml:"from"`     // packages ("partition", "disk", "all") or faults
	Interval time.Duration `yaml:"interval"` // about one begins in each
	// At and Duration bound the time in which faults are in force; without a Duration it is the
	// whole run but for a quiet tenth at either end.
	At       time.Duration `yaml:"at,omitempty"`
	Duration time.Duration `yaml:"duration,omitempty"`
	// Overlap is how many faults may be in force at a time; 0 means 1.
	Overlap int `yaml:"overlap,omitempty"`
	// Swarm draws from a random part of the faults only, and of their parameters and targets, at
	// a random pace: each run is another test, and over many runs rare combinations come up that
	// drawing from everything never reaches (Groce et al., Swarm Testing, ISSTA 2012).
	Swarm bool `yaml:"swarm,omitempty"`
}

// AllPackages is the package of all packages.
const AllPackages = "all"

const overlapMost = 8

// Packages returns the names of the packages from which steps can be drawn, "all" last.
func Packages() []string {
	var packages []string
	for _, fault := range faults {
		if about := fault.About(); len(about.Cards) > 0 && !slices.Contains(packages, about.Package) {
			packages = append(packages, about.Package)
		}
	}
	return append(packages, AllPackages)
}

// FaultsIn returns the faults of a package, those too that are never drawn; or the fault of
// that name itself; or nothing.
func FaultsIn(name string) []string {
	var in []string
	for _, fault := range faults {
		about := fault.About()
		if about.Name == name && about.Package != name {
			return []string{name}
		}
		if name == AllPackages || about.Package == name {
			in = append(in, about.Name)
		}
	}
	return in
}

func (d Draw) validate() *ScheduleError {
	if len(d.From) == 0 {
		return &ScheduleError{Key: "from", Value: "", Allowed: oneOf(append(Packages(), FaultNames()...))}
	}
	for _, name := range d.From {
		if len(FaultsIn(name)) == 0 {
			return &ScheduleError{Key: "from", Value: name, Allowed: oneOf(append(Packages(), FaultNames()...))}
		}
		if len(cards(Options{Faults: FaultsIn(name), Nodes: make([]string, nodesMost)})) == 0 {
			return &ScheduleError{Key: "from", Value: name, Allowed: "a fault that is drawn; this one is not, since it builds on another step or a correct system may fail under it: write it as a step"}
		}
	}
	switch {
	case d.Interval <= 0:
		return &ScheduleError{Key: "interval", Value: d.Interval.String(), Allowed: "more than 0, such as 5s"}
	case d.At < 0 || d.Duration < 0:
		return &ScheduleError{Key: "at", Value: d.At.String(), Allowed: "0 or later"}
	case d.Overlap < 0 || d.Overlap > overlapMost:
		return &ScheduleError{Key: "overlap", Value: fmt.Sprint(d.Overlap), Allowed: fmt.Sprintf("1 to %d faults at a time", overlapMost)}
	}
	return nil
}

// nodesMost is more nodes than any card takes.
const nodesMost = 9

// Circumstances are what a schedule is drawn for.
type Circumstances struct {
	Nodes     []string
	TimeLimit time.Duration
	// Works reports whether a step of a fault can work here. Nil means that all can.
	Works func(fault Fault, params Params) bool
}

// Drawn returns the schedule with its draws replaced by steps: the same for the same seed and
// circumstances. A draw that finds nothing that works gives no step.
func (s Schedule) Drawn(c Circumstances) Schedule {
	drawn := s
	drawn.Draw, drawn.Steps = nil, slices.Clone(s.Steps)
	for i, draw := range s.Draw {
		drawn.Steps = append(drawn.Steps, draw.steps(s.Seed, i, c)...)
	}
	slices.SortStableFunc(drawn.Steps, func(a, b Step) int { return int(a.At - b.At) })
	drawn.Steps = drawn.Steps[:min(len(drawn.Steps), stepsMost)]
	return drawn
}

// steps draws the steps of the draw of that number, in as many lanes as may overlap: within a
// lane faults follow one another.
func (d Draw) steps(seed uint64, number int, c Circumstances) []Step {
	var names []string
	for _, name := range d.From {
		names = append(names, FaultsIn(name)...)
	}
	slices.Sort(names)
	o := Options{Faults: slices.Compact(names), Interval: d.Interval, TimeLimit: c.TimeLimit, Nodes: c.Nodes, Works: c.Works, From: d.At, Until: d.At + d.Duration}
	if d.Duration == 0 {
		o.Until = 0
	}
	var steps []Step
	for lane := range max(1, d.Overlap) {
		random := rand.New(rand.NewPCG(seed, uint64(number*overlapMost+lane)))
		if d.Swarm {
			o.Swarm = rand.New(rand.NewPCG(seed, uint64(number)+1<<32)) // the same for all lanes
		}
		steps = append(steps, generate(random, o)...)
	}
	return steps
}
