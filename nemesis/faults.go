package nemesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"capsize/nemesis/agent"
)

// Fault is one kind of injection with its healing. What it would do is a pure function,
// Plan, apart from the doing: so the simulator can follow the same schedules.
type Fault interface {
	Name() string
	// Meaning says in a sentence what the fault does.
	Meaning() string
	Params() []Param
	// Target is the target of a step that names none.
	Target(params map[string]string) string
	// Plan decides what a step does. It fails with a [*ScheduleError], without the number
	// of the step, where that is impossible.
	Plan(Scene) (Planned, error)
	// Inject puts the fault in force and proves it. After an error it may be in force in
	// part, and Heal undoes that.
	Inject(context.Context, *Effects, Planned) (Proof, error)
	// Heal undoes what Inject did, and nothing that another fault did, and proves it. It
	// can be called again after an error.
	Heal(context.Context, *Effects, Planned) (Proof, error)
}

// Param is a parameter of a fault.
type Param struct {
	Name    string
	Meaning string
	Default string
	Allowed []string
}

// Scene is what a fault's plan depends on.
type Scene struct {
	Nodes   []string
	Target  string            // as the schedule says it, or the fault's default
	Targets []string          // what that resolved to, never empty
	Params  map[string]string // of all the fault's parameters
	Random  *rand.Rand
}

// Planned is what a step does, as data.
type Planned struct {
	ID     int // the number of the step, from 1
	Fault  string
	Target string       // as the schedule says it, or the fault's default
	Nodes  []string     // what the target resolved to
	Pairs  []agent.Pair // what a partition cuts; nil for other faults
	Detail string       // for people
}

// String names the fault and what it does, on a line.
func (p Planned) String() string { return p.Fault + " " + p.Detail }

// Proof is what was seen of a fault that landed or was healed.
type Proof struct {
	Took  time.Duration // from the first command to the effect on the last node
	Lines []string
}

var faults = []Fault{partition{}, pause{}, kill{}}

// Faults returns all faults that a schedule can name.
func Faults() []Fault { return append([]Fault(nil), faults...) }

// FaultNames returns their names.
func FaultNames() []string {
	names := make([]string, len(faults))
	for i, f := range faults {
		names[i] = f.Name()
	}
	return names
}

func faultByName(name string) (Fault, bool) {
	for _, f := range faults {
		if f.Name() == name {
			return f, true
		}
	}
	return nil, false
}

// Plan returns what step number id (from 1) does to these nodes while that node leads;
// leader is empty where nobody does. It is a function of its arguments and the schedule:
// each step draws from a random source of its own, so a step that is added or removed does
// not change what the others do.
func (s Schedule) Plan(id int, nodes []string, leader string) (Planned, error) {
	if id < 1 || id > len(s.Steps) {
		return Planned{}, fmt.Errorf("schedule: there is no step %d of %d", id, len(s.Steps))
	}
	return s.Steps[id-1].plan(id, nodes, leader, rand.New(rand.NewPCG(s.Seed, uint64(id))))
}

func (s Step) plan(id int, nodes []string, leader string, random *rand.Rand) (Planned, error) {
	fault, known := faultByName(s.Fault)
	if !known {
		return Planned{}, &ScheduleError{Step: id, Key: "fault", Value: s.Fault, Allowed: oneOf(FaultNames())}
	}
	scene := Scene{Nodes: nodes, Params: make(map[string]string), Random: random}
	for _, p := range fault.Params() {
		scene.Params[p.Name] = p.Default
	}
	for name, value := range s.Params {
		scene.Params[name] = value
	}
	planned := Planned{ID: id, Fault: s.Fault, Target: s.Target}
	if planned.Target == "" {
		planned.Target = fault.Target(scene.Params)
	}
	var err error
	scene.Target = planned.Target
	if scene.Targets, err = resolve(planned.Target, nodes, leader, random); err != nil {
		return planned, err
	}
	if len(scene.Targets) == 0 {
		return planned, &ScheduleError{Step: id, Key: "target", Value: planned.Target, Allowed: "a target that means at least one of " + strings.Join(nodes, ", ")}
	}
	done, err := fault.Plan(scene)
	var wrong *ScheduleError
	if errors.As(err, &wrong) {
		wrong.Step = id
	}
	planned.Nodes, planned.Pairs, planned.Detail = done.Nodes, done.Pairs, done.Detail
	return planned, err
}
