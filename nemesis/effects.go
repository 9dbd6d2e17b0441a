package nemesis

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"capsize/clusters"
	"capsize/nemesis/agent"
	"capsize/nemesis/agent/disk"
	"capsize/nemesis/agent/limits"
)

// Effects is what all faults in force do together: several may concern one node, or one
// pair of nodes. It is where the heal of one is kept from undoing another.
type Effects struct {
	controller *Controller
	nodes      []string
	processes  map[string]clusters.Process
	ready      func(ctx context.Context, node string) error
	readyLimit time.Duration

	network  sync.Mutex                    // held while the cut changes and is proven
	cuts     map[int][]agent.Pair          // by step
	blocked  map[int][]agent.Pair          // cuts, as the agents were told last
	held     map[int]map[agent.Pair]uint64 // what each step has held back until then
	shapings map[int]shaping               // by step
	clients  bool                          // some step has cut clients, so their ways are proven too

	states map[string]*nodeState
	clocks map[string]*layers[agent.ClockLayer] // by node; the nodeState's lock is taken before theirs
	clock  func(ctx context.Context, node string) (time.Time, error)
	limits map[string]*layers[limits.Limit] // by node; the nodeState's lock is taken before theirs

	disks      map[string]*layers[[]disk.Rule]          // by node
	hostClocks map[string]*layers[agent.HostClockLayer] // by node

	standing func() []Planned // what is in force, of all faults

	members    Members    // nil where the system has no such interface
	membership sync.Mutex // held while the members change: one change at a time
}

// layers is what the steps in force ask of one tool on one node, in the order in which they
// landed: the tool is always told all of it, so the heal of one step leaves the others in force.
type layers[V any] struct {
	mu    sync.Mutex // held while what is in force changes and is proven
	steps []layer[V]
}

type layer[V any] struct {
	step int
	what V
}

// put adds a step's layer, or replaces it.
func (l *layers[V]) put(step int, what V) {
	for i := range l.steps {
		if l.steps[i].step == step {
			l.steps[i].what = what
			return
		}
	}
	l.steps = append(l.steps, layer[V]{step, what})
}

// drop removes a step's layer.
func (l *layers[V]) drop(step int) {
	l.steps = slices.DeleteFunc(l.steps, func(one layer[V]) bool { return one.step == step })
}

// all returns the layers in force.
func (l *layers[V]) all() []V {
	all := make([]V, len(l.steps))
	for i, one := range l.steps {
		all[i] = one.what
	}
	return all
}

// nodeState is what faults do to the process of one node.
type nodeState struct {
	mu       sync.Mutex   // held while the process is acted upon
	pausedBy map[int]bool // steps
	downBy   int          // the step that killed it and has not started it again; 0 for none
	alsoDown map[int]bool // further steps that would have killed it: it stays down until the last has ended
	doubtful bool         // the kill failed: the process may run yet
	unproven bool         // started again, but it has not answered yet
	// joining is how the process is started since the node joined the cluster anew; nil while
	// it is the member that it was at first.
	joining *clusters.Process

	// What steps made of its membership; 0 for none. Read and changed while the members' lock is held.
	outBy      int // the step that removed it and has not let it join again
	addedBy    int // the step that let it join although outBy has it out
	learnerBy  int // the step that left it without a vote and has not given it back
	promotedBy int // the step that gave it a vote although learnerBy leaves it none
}

func newEffects(c Config) *Effects {
	e := &Effects{
		controller: c.Controller, nodes: c.Nodes, processes: c.Processes, ready: c.Ready, readyLimit: c.ReadyLimit,
		cuts: make(map[int][]agent.Pair), held: make(map[int]map[agent.Pair]uint64), shapings: make(map[int]shaping), states: make(map[string]*nodeState),
		limits: make(map[string]*layers[limits.Limit]),
		disks:  make(map[string]*layers[[]disk.Rule]), hostClocks: make(map[string]*layers[agent.HostClockLayer]),
		members: c.Members,
		clocks:  make(map[string]*layers[agent.ClockLayer]), clock: c.Clock,
	}
	for _, node := range c.Nodes {
		e.states[node] = &nodeState{pausedBy: make(map[int]bool), alsoDown: make(map[int]bool)}
		e.limits[node] = &layers[limits.Limit]{}
		e.hostClocks[node] = &layers[agent.HostClockLayer]{}
		e.disks[node] = &layers[[]disk.Rule]{}
		e.clocks[node] = &layers[agent.ClockLayer]{}
	}
	return e
}

// ask makes one request of a node's agent, which is answered quickly.
func (e *Effects) ask(ctx context.Context, node string, request agent.Request) (agent.Reply, error) {
	return e.controller.call(ctx, node, request)
}

func (e *Effects) signal(ctx context.Context, node, signal string) (string, error) {
	reply, err := e.controller.Signal(ctx, node, e.processes[node].Name, signal)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s: pid %d %s", node, reply.Pid, reply.State), nil
}

// onEachUp does something to those nodes of a step whose process runs. One that another step has
// ended is left alone, unless all are.
func (e *Effects) onEachUp(p Planned, do func(node string) (line string, err error)) (Proof, error) {
	down := filter(p.Nodes, func(node string) bool { return e.downBy(node) != 0 })
	if len(down) == len(p.Nodes) {
		down = nil // then each of them says why nothing could be done
	}
	proof, err := onEach(without(p.Nodes, down), do)
	for _, node := range down {
		proof.Lines = append(proof.Lines, fmt.Sprintf("%s: nothing to do, it is down by another step", node))
	}
	return proof, err
}

// onEach does something to several nodes at once. Its proof has a line of each node, in
// their order.
func onEach(nodes []string, do func(node string) (line string, err error)) (Proof, error) {
	began := time.Now()
	var mu sync.Mutex
	lines := make(map[string]string)
	err := inParallel(nodes, func(node string) error {
		line, err := do(node)
		mu.Lock()
		defer mu.Unlock()
		lines[node] = line
		return err
	})
	proof := Proof{Took: time.Since(began)}
	for _, node := range nodes {
		if lines[node] != "" {
			proof.Lines = append(proof.Lines, lines[node])
		}
	}
	return proof, err
}
