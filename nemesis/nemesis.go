// Package nemesis is what goes wrong: faults, the targets they hit, and the schedule
// that says when. [Schedule] is data; [Nemesis] carries it out through the agents
// (package agent, on the nodes) and proves that each fault landed and healed.
package nemesis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"capsize/clusters"
	"capsize/histories"
)

// Schedule is the list of faults of a run, ordered by time. It is saved with the run as
// schedule.yaml and can be written by hand.
type Schedule struct {
	Seed uint64 `yaml:"seed"` // what it was drawn from; 0 where it was written by hand
	// OutageLimit is how long faults may keep every majority from working together: then the
	// latest of them are healed early. 0 sets no limit.
	OutageLimit time.Duration `yaml:"outage-limit,omitempty"`
	// Draw says what steps to draw; [Schedule.Drawn] does. None is left in a saved schedule.
	Draw  []Draw `yaml:"draw,omitempty"`
	Steps []Step `yaml:"steps"`
	// Coverage is what the run must have put to the test.
	Coverage []Demand `yaml:"coverage,omitempty"`
}

// Step is one fault: injected At after the clients began, healed Duration later. Steps
// may overlap.
type Step struct {
	At       time.Duration     `yaml:"at"`
	Duration time.Duration     `yaml:"duration"`
	Fault    string            `yaml:"fault"`            // "partition", "pause", "clock" …
	Target   string            `yaml:"target"`           // a role, or names joined by commas; resolved when the step begins
	Params   map[string]string `yaml:"params,omitempty"` // what the fault understands: kind: halves
}

// Config is what a Nemesis works with.
type Config struct {
	Controller *Controller
	Schedule   Schedule
	// Seed is what targets are drawn from where the schedule has no seed of its own.
	Seed      uint64
	Nodes     []string
	Processes map[string]clusters.Process // the system's process of each node
	// Leader returns the node that leads now, and whether one is known.
	Leader func(ctx context.Context) (node string, known bool)
	// Clock asks the system what time it is on a node; nil where it does not tell.
	Clock func(ctx context.Context, node string) (time.Time, error)
	// Ready returns when the node serves again, or with an error when ctx ends before.
	Ready      func(ctx context.Context, node string) error
	ReadyLimit time.Duration // for a killed node to serve again; 0 means 20 s
	// Members changes the cluster's members; nil where the system has no interface for that.
	Members Members
	Log     Log
	Say     func(format string, args ...any) // tells a person what happens; may be nil
}

// Log is where the phases of faults are recorded; a [histories.Recorder] is one.
type Log interface {
	Record(histories.Event) histories.Event
}

const (
	leaderLimit  = 2 * time.Second  // to learn who leads, when a step's target depends on it
	outageWait   = 15 * time.Second // the same while other faults are in force
	leaderPoll   = 20 * time.Millisecond
	commandLimit = 10 * time.Second // for a fault to land and prove it; a heal also has ReadyLimit
	readyLimit   = 20 * time.Second
)

// Nemesis carries out one schedule.
type Nemesis struct {
	config  Config
	effects *Effects

	mu      sync.Mutex
	inForce map[int]standingStep // by step; also what could not be healed
	began   map[int]Planned      // every step that began, as it was resolved
	outage  outage

	holdOnce sync.Once
	held     chan struct{} // closed by Hold
}

// New makes a Nemesis. The schedule must be valid for these nodes.
func New(config Config) *Nemesis {
	if config.Schedule.Seed == 0 {
		config.Schedule.Seed = config.Seed
	}
	if config.ReadyLimit == 0 {
		config.ReadyLimit = readyLimit
	}
	if config.Say == nil {
		config.Say = func(string, ...any) {}
	}
	n := &Nemesis{
		config: config, effects: newEffects(config), inForce: make(map[int]standingStep), began: make(map[int]Planned), held: make(chan struct{}),
		outage: outage{limit: config.Schedule.OutageLimit, nodes: config.Nodes},
	}
	n.effects.standing = n.standing
	return n
}

// Run carries out the schedule in real time, beginning now. It returns when all steps are
// over and healed; when ctx ends before, what is in force is healed at once. What becomes
// of each fault is in the log, its failure too; the error says only that the schedule
// itself cannot be carried out.
func (n *Nemesis) Run(ctx context.Context) error {
	if err := n.config.Schedule.Validate(n.config.Nodes, 0); err != nil {
		return err
	}
	start := time.Now()
	var steps sync.WaitGroup // no more than the schedule has
	defer steps.Wait()
	for i, step := range n.config.Schedule.Steps {
		if !sleep(ctx, time.Until(start.Add(step.At))) || n.isHeld() {
			return nil
		}
		steps.Go(func() { n.carryOut(ctx, i+1, step) })
	}
	return nil
}

// Hold keeps what is in force as it is until the ctx of Run ends, beyond its time, and begins
// no other step: so that a person can look at the cluster.
func (n *Nemesis) Hold() { n.holdOnce.Do(func() { close(n.held) }) }

func (n *Nemesis) isHeld() bool {
	select {
	case <-n.held:
		return true
	default:
		return false
	}
}

// carryOut is the life of one fault. The end of ctx shortens it, but a command under way
// is finished, so that it is known what to undo.
func (n *Nemesis) carryOut(ctx context.Context, id int, step Step) {
	planned, err := n.plan(ctx, id)
	if err != nil {
		if ctx.Err() == nil {
			n.missed(planned, err)
		}
		return
	}
	fault, _ := faultByName(step.Fault) // Run has validated it
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	n.record(planned, histories.Inject, Proof{}, nil)
	n.stand(planned, cut)
	began := time.Now()
	commandCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandLimit)
	proof, err := fault.Inject(commandCtx, n.effects, planned)
	cancel()
	if err != nil {
		n.missed(planned, err)
		n.undo(ctx, fault, planned)
		return
	}
	n.record(planned, histories.Landed, proof, nil)
	n.config.Say("%s (%s): in force after %s", planned, planned.Target, proof.Took.Round(100*time.Microsecond))
	lines := n.sustain(ctx, fault, planned, began.Add(step.Duration))
	if errors.Is(context.Cause(ctx), errOutage) {
		lines = append(lines, fmt.Sprintf("healed early: no majority could work for %s", n.outage.limit))
	}
	_ = n.heal(context.WithoutCancel(ctx), planned, lines) // it is recorded; HealAll tries again
}

// sustain waits until a step's time is over, or longer where it is held. A fault that acts
// meanwhile tells what it did.
func (n *Nemesis) sustain(ctx context.Context, fault Fault, planned Planned, until time.Time) []string {
	defer func() {
		if n.isHeld() {
			<-ctx.Done()
		}
	}()
	return n.sustainUntil(ctx, fault, planned, until)
}

func (n *Nemesis) sustainUntil(ctx context.Context, fault Fault, planned Planned, until time.Time) []string {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	sustained, ok := fault.(Sustained)
	if !ok {
		sleep(ctx, time.Until(until))
		return nil
	}
	lines, err := sustained.Sustain(ctx, n.effects, planned)
	if err != nil {
		n.missed(planned, fmt.Errorf("it landed, but did not go on: %w", err))
	}
	sleep(ctx, time.Until(until))
	return lines
}

// plan resolves the step now. Where the target means nobody, but may in a moment, it waits a
// little; and longer where other faults keep nodes from leading or from being spared.
func (n *Nemesis) plan(ctx context.Context, id int) (Planned, error) {
	for began := time.Now(); ; {
		leader, known := n.config.Leader(ctx)
		if !known || !slices.Contains(n.config.Nodes, leader) {
			leader = ""
		}
		planned, err := n.config.Schedule.Plan(id, View{Nodes: n.config.Nodes, Leader: leader, Standing: n.standing()})
		if !mayPass(err) {
			return planned, err
		}
		limit := leaderLimit
		if len(n.standing()) > 0 && (errors.Is(err, errUnknownLeader) || errors.Is(err, errNoSpare)) {
			limit = outageWait
		}
		if time.Since(began) > limit {
			return planned, fmt.Errorf("%w, for %s", err, limit)
		}
		if !sleep(ctx, leaderPoll) {
			return planned, ctx.Err()
		}
	}
}

func (n *Nemesis) missed(planned Planned, err error) {
	n.record(planned, histories.Missed, Proof{}, err)
	n.config.Say("%s (%s): not in force: %v", planned, planned.Target, err)
}

// undo takes back what a missed fault did in part. Only a failure of that is worth an
// event.
func (n *Nemesis) undo(ctx context.Context, fault Fault, planned Planned) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandLimit+n.config.ReadyLimit)
	defer cancel()
	if _, err := fault.Heal(ctx, n.effects, planned); err != nil {
		n.stuck(planned, err)
		return
	}
	n.forget(planned)
}

// heal ends a fault that is in force, or is stuck. Lines are what the fault did meanwhile.
func (n *Nemesis) heal(ctx context.Context, planned Planned, lines []string) error {
	fault, _ := faultByName(planned.Fault)
	n.record(planned, histories.Heal, Proof{}, nil)
	ctx, cancel := context.WithTimeout(ctx, commandLimit+n.config.ReadyLimit)
	defer cancel()
	proof, err := fault.Heal(ctx, n.effects, planned)
	if err != nil {
		n.stuck(planned, err)
		return fmt.Errorf("step %d, %s, is stuck: %w", planned.ID, planned, err)
	}
	n.forget(planned)
	proof.Lines = append(lines, proof.Lines...)
	n.record(planned, histories.Healed, proof, nil)
	return nil
}

func (n *Nemesis) stuck(planned Planned, err error) {
	n.record(planned, histories.Stuck, Proof{}, err)
	n.config.Say("%s (%s): not healed: %v", planned, planned.Target, err)
}

// stand notes a fault as in force. Cut ends its time early.
func (n *Nemesis) stand(planned Planned, cut context.CancelCauseFunc) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.inForce[planned.ID] = standingStep{planned, time.Now(), cut}
	n.began[planned.ID] = planned
	n.outage.note(n.plannedLocked(), n.endOutage)
}

func (n *Nemesis) forget(planned Planned) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.inForce, planned.ID)
	n.outage.note(n.plannedLocked(), n.endOutage)
}

// errOutage: a fault was ended early, since no majority could work for too long.
var errOutage = errors.New("the outage limit of the schedule is reached")

// endOutage is called when no majority could work for the schedule's limit.
func (n *Nemesis) endOutage() {
	n.mu.Lock()
	ended := restoreMajority(n.config.Nodes, slices.Collect(maps.Values(n.inForce)))
	n.mu.Unlock()
	for _, planned := range ended {
		n.config.Say("%s (%s): healed early, no majority could work for %s", planned, planned.Target, n.outage.limit)
	}
}

func (n *Nemesis) record(planned Planned, phase histories.Phase, proof Proof, err error) {
	event := histories.Event{
		Process: histories.Nemesis, Type: histories.Info, F: planned.Fault,
		Fault: &histories.Fault{
			ID: planned.ID, Name: planned.Fault, Phase: phase, Took: proof.Took, Target: planned.Target,
			Nodes: planned.Nodes, Detail: planned.Detail, Proof: proof.Lines,
			Params: n.config.Schedule.Steps[planned.ID-1].Params, Leader: planned.Leader, Side: planned.side(n.config.Nodes), Beyond: planned.beyond(),
			MayEnd: planned.mayEnd(),
		},
	}
	if err != nil {
		event.Error = err.Error()
	}
	n.config.Log.Record(event)
}

// Resolved returns the schedule with every target that was a role replaced by the nodes that it
// meant, and every partition by the links that it cut: run again, it hits the same nodes whoever
// leads. A step that never began stays as it was.
func (n *Nemesis) Resolved() Schedule {
	n.mu.Lock()
	defer n.mu.Unlock()
	resolved := n.config.Schedule
	resolved.Steps = slices.Clone(resolved.Steps)
	for i := range resolved.Steps {
		if planned, began := n.began[i+1]; began {
			resolved.Steps[i] = planned.pinned(resolved.Steps[i])
		}
	}
	return resolved
}

// InForce returns the faults in force, a line each, in the order of their steps.
func (n *Nemesis) InForce() []string {
	var lines []string
	for _, planned := range n.standing() {
		lines = append(lines, planned.String())
	}
	return lines
}

func (n *Nemesis) standing() []Planned {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.plannedLocked()
}

// plannedLocked returns what is in force, in the order of the steps. The caller holds n.mu.
func (n *Nemesis) plannedLocked() []Planned {
	var standing []Planned
	for _, id := range slices.Sorted(maps.Keys(n.inForce)) {
		standing = append(standing, n.inForce[id].planned)
	}
	return standing
}

// HealAll heals what is still in force and proves that nothing is: every pair of nodes
// reaches each other, and no process is stopped. It is called after Run has returned. The
// error names what is stuck.
func (n *Nemesis) HealAll(ctx context.Context) error {
	standing := n.standing()
	slices.SortStableFunc(standing, func(a, b Planned) int { return a.healsLate() - b.healsLate() })
	var problems []error
	for _, planned := range standing {
		problems = append(problems, n.heal(ctx, planned, nil))
	}
	return errors.Join(append(problems, n.proveHealed(ctx))...)
}

// healsLate orders what is healed together. A node that was ended may not serve before it can
// talk to the others, and they run: so the network comes first, and who is started again after
// it. Members change only when a majority serves: they come last.
func (p Planned) healsLate() int {
	fault, known := faultByName(p.Fault)
	if !known {
		return 0
	}
	switch fault.About().Package {
	case "partition", "packet":
		return 0
	case "kill", disks:
		return 2
	case "membership":
		return 3
	default:
		return 1
	}
}

func (n *Nemesis) proveHealed(ctx context.Context) error {
	var problems []error
	e := n.effects
	if n.config.Schedule.Uses("partition") || n.config.Schedule.Uses("packet") {
		e.network.Lock()
		clear(e.cuts)
		clear(e.shapings)
		_, _, err := e.cut(ctx)
		if err == nil && n.config.Schedule.Uses("packet") {
			_, err = e.shape(ctx)
		}
		if err == nil {
			_, err = e.proveNetwork(ctx)
		}
		e.network.Unlock()
		if err != nil {
			problems = append(problems, fmt.Errorf("the network is not proven whole: %w", err))
		}
	}
	if n.config.Schedule.Uses("pause") {
		_, err := onEach(n.config.Nodes, func(node string) (string, error) {
			line, err := e.signal(ctx, node, "cont")
			if errors.Is(err, ErrEnded) {
				err = nil // then it is not stopped; why it ended is told elsewhere
			}
			return line, err
		})
		if err != nil {
			problems = append(problems, fmt.Errorf("not every process is proven to run: %w", err))
		}
	}
	return errors.Join(problems...)
}

// Needs reports whether some step needs an ability, or some draw has a fault that does.
func (s Schedule) Needs(ability string) bool {
	for _, step := range s.Steps {
		if fault, known := faultByName(step.Fault); known && slices.Contains(fault.About().Abilities(), ability) {
			return true
		}
	}
	for _, draw := range s.Draw {
		for _, name := range draw.From {
			for _, in := range FaultsIn(name) {
				fault, _ := faultByName(in)
				if about := fault.About(); len(about.Cards) > 0 && slices.Contains(about.Abilities(), ability) {
					return true
				}
			}
		}
	}
	return false
}

// Uses reports whether some step is that fault.
func (s Schedule) Uses(fault string) bool {
	return slices.ContainsFunc(s.Steps, func(step Step) bool { return step.Fault == fault })
}
