package nemesis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"time"

	"capsize/nemesis/agent"
)

// Fault is one kind of injection with its healing. What it would do is a pure function,
// Plan, apart from the doing: so the simulator can follow the same schedules.
type Fault interface {
	// About describes the fault, as data. It is the same each time.
	About() About
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

// Sustained is a fault that goes on acting while it is in force: it flaps, kills again,
// moves from node to node. Sustain is called once the fault has landed, and acts until ctx
// ends, which it does when the step's time is over. It returns then, and tells what it did,
// which is part of the proof when the fault is healed. An error means that the fault did not
// act as it should.
type Sustained interface {
	Sustain(ctx context.Context, e *Effects, p Planned) (lines []string, err error)
}

// About is what a fault says of itself. The list of faults, the checks of a schedule and
// the generated documentation are made of it.
type About struct {
	Name    string
	Package string // what a plan names to draw from it and its like: "partition", "kill", "disk" …
	Meaning string // what it does, in a sentence
	Params  []Param
	// Target is the target of a step that names none.
	Target func(Params) string
	// Needs names the abilities of the agents (see [agent.Ability]) that it takes, all of
	// them. Nil means none: it works everywhere.
	Needs func(Params) []string
	// Beyond says which promise of the machine the fault breaks that Raft builds on, where
	// it does: a correct system may fail then. Such steps are never drawn from a package.
	Beyond func(Params) string
	// MayEnd says that processes may end by themselves under it, and be right to: that is no
	// failure then, and healing starts them again. Nil means that they may not.
	MayEnd func(Params) bool
	// Cards are the steps that schedules are drawn from.
	Cards []Card
}

// Card is a step without its time.
type Card struct {
	Target string
	Params map[string]string
	// Round says when the card is drawn: one of round 1 for each package comes first, then
	// these of round 2; those of round 3 when nothing else is left.
	Round int
	Least int // nodes that it takes
}

// needs returns what a step of the fault takes.
func (a About) needs(params Params) []string {
	if a.Needs == nil {
		return nil
	}
	return a.Needs(params)
}

// beyond returns which promise a step of the fault breaks, or nothing.
func (a About) beyond(params Params) string {
	if a.Beyond == nil {
		return ""
	}
	return a.Beyond(params)
}

// always returns a function that returns v whatever the parameters are.
func always[V any](v V) func(Params) V { return func(Params) V { return v } }

// Scene is what a fault's plan depends on.
type Scene struct {
	Nodes   []string
	Target  string   // as the schedule says it, or the fault's default
	Targets []string // what that resolved to, never empty
	Params  Params   // all parameters of the fault
	Random  *rand.Rand
}

// Planned is what a step does, as data.
type Planned struct {
	ID     int // the number of the step, from 1
	Fault  string
	Params Params   // all parameters of the fault
	Target string   // as the schedule says it, or the fault's default
	Nodes  []string // what the target resolved to
	// Sides are the groups that a partition leaves whole: the nodes of each reach each other
	// both ways. A node may be in several. Nil where the fault has no such groups.
	Sides  [][]string
	Pairs  []agent.Pair // what a partition cuts; nil for other faults
	Shaped []agent.Pair // on what pairs packets are late or lost; nil for other faults
	Detail string       // for people
	// Down are the nodes that take no part in the cluster while the fault is in force: killed,
	// paused. Who is merely cut off is told by Pairs.
	Down     []string
	Removed  []string // are no members of the cluster while the fault is in force
	Learners []string // are members without a vote while it is
	Leader   string   // who led when the step began, as far as it was known
}

// pinned is the step as it was resolved: on these nodes, or these links, whoever leads.
func (p Planned) pinned(step Step) Step {
	if len(p.Shaped) > 0 {
		step.Target, step.Params = "", maps.Clone(step.Params)
		if step.Params == nil {
			step.Params = make(map[string]string)
		}
		delete(step.Params, "direction")
		step.Params["pairs"] = pairList(p.Shaped)
		return step
	}
	if len(p.Pairs) == 0 {
		step.Target = strings.Join(p.Nodes, ",")
		return step
	}
	step.Target, step.Params = "", map[string]string{"kind": someLinks, "pairs": pairList(p.Pairs)}
	if period := p.Params["period"]; p.Params.Duration("period") > 0 {
		step.Params["period"] = period
	}
	return step
}

// pairList writes pairs as the parameter pairs takes them.
func pairList(pairs []agent.Pair) string {
	names := make([]string, len(pairs))
	for i, pair := range pairs {
		names[i] = pair.From + ">" + pair.To
	}
	return strings.Join(names, ",")
}

// String names the fault and what it does, on a line.
func (p Planned) String() string { return p.Fault + " " + p.Detail }

// beyond returns which promise of the machine the step breaks that Raft builds on, or nothing.
func (p Planned) beyond() string {
	fault, known := faultByName(p.Fault)
	if !known {
		return ""
	}
	return fault.About().beyond(p.Params)
}

// mayEnd reports whether processes may end by themselves under the step.
func (p Planned) mayEnd() bool {
	fault, known := faultByName(p.Fault)
	if !known {
		return false
	}
	about := fault.About()
	return about.MayEnd != nil && about.MayEnd(p.Params)
}

// Proof is what was seen of a fault that landed or was healed.
type Proof struct {
	Took  time.Duration // from the first command to the effect on the last node
	Lines []string
}

// faults is the registry, in the order in which people read it.
var faults = []Fault{
	partition{},
	badNetwork{},
	pause{},
	kill{},
	term{},
	crashLoop{},
	rollingRestart{},
	amnesia{},
	freeze{},
	changeClock{},
	hostClock{},
	starveCPU{},
	starveMemory{},
	starveFiles{},
	starveProcesses{},
	slowIO{},
	failDisk{},
	failPower{},
	killAtMoment{},
	damageFiles{},
	remove{},
	addMember{},
	demote{},
	promote{},
	replace{},
	transfer{},
	churn{},
}

// Faults returns all faults that a schedule can name.
func Faults() []Fault { return append([]Fault(nil), faults...) }

// FaultNames returns their names.
func FaultNames() []string {
	names := make([]string, len(faults))
	for i, f := range faults {
		names[i] = f.About().Name
	}
	return names
}

func faultByName(name string) (Fault, bool) {
	for _, f := range faults {
		if f.About().Name == name {
			return f, true
		}
	}
	return nil, false
}

// Plan returns what step number id (from 1) does at such a moment. It is a function of its
// arguments and the schedule: each step draws from a random source of its own, so a step that
// is added or removed does not change what the others do.
func (s Schedule) Plan(id int, view View) (Planned, error) {
	if id < 1 || id > len(s.Steps) {
		return Planned{}, fmt.Errorf("schedule: there is no step %d of %d", id, len(s.Steps))
	}
	return s.Steps[id-1].plan(id, view, rand.New(rand.NewPCG(s.Seed, uint64(id))))
}

func (s Step) plan(id int, view View, random *rand.Rand) (Planned, error) {
	fault, known := faultByName(s.Fault)
	if !known {
		return Planned{}, &ScheduleError{Step: id, Key: "fault", Value: s.Fault, Allowed: oneOf(FaultNames())}
	}
	about := fault.About()
	scene := Scene{Nodes: view.Nodes, Params: withDefaults(about.Params, s.Params), Random: random}
	planned := Planned{ID: id, Fault: s.Fault, Params: scene.Params, Target: s.Target, Leader: view.Leader}
	if planned.Target == "" {
		planned.Target = about.Target(scene.Params)
	}
	var err error
	scene.Target = planned.Target
	if scene.Targets, err = resolve(planned.Target, view, random); err != nil {
		return planned, err
	}
	if len(scene.Targets) == 0 {
		return planned, &ScheduleError{Step: id, Key: "target", Value: planned.Target, Allowed: "a target that means at least one of " + strings.Join(view.Nodes, ", ")}
	}
	done, err := fault.Plan(scene)
	var wrong *ScheduleError
	if errors.As(err, &wrong) {
		wrong.Step = id
	}
	done.ID, done.Fault, done.Params, done.Target, done.Leader = planned.ID, planned.Fault, planned.Params, planned.Target, planned.Leader
	return done, err
}
