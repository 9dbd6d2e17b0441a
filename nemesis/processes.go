package nemesis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"capsize/clusters"
	"capsize/nemesis/agent"
)

// Effects is what all faults in force do together: several may concern one node, or one
// pair of nodes. It is where the heal of one is kept from undoing another.
type Effects struct {
	controller *Controller
	nodes      []string
	processes  map[string]clusters.Process
	ready      func(ctx context.Context, node string) error
	readyLimit time.Duration

	network sync.Mutex           // held while the cut changes and is proven
	cuts    map[int][]agent.Pair // by step

	states map[string]*nodeState
}

// nodeState is what faults do to the process of one node.
type nodeState struct {
	mu       sync.Mutex   // held while the process is acted upon
	pausedBy map[int]bool // steps
	downBy   int          // the step that killed it and has not started it again; 0 for none
	doubtful bool         // the kill failed: the process may run yet
	unproven bool         // started again, but it has not answered yet
}

func newEffects(c Config) *Effects {
	e := &Effects{
		controller: c.Controller, nodes: c.Nodes, processes: c.Processes, ready: c.Ready, readyLimit: c.ReadyLimit,
		cuts: make(map[int][]agent.Pair), states: make(map[string]*nodeState),
	}
	for _, node := range c.Nodes {
		e.states[node] = &nodeState{pausedBy: make(map[int]bool)}
	}
	return e
}

func (e *Effects) signal(ctx context.Context, node, signal string) (string, error) {
	reply, err := e.controller.Signal(ctx, node, e.processes[node].Name, signal)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s: pid %d %s", node, reply.Pid, reply.State), nil
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

// pause stops processes where they are: SIGSTOP.
type pause struct{}

func (pause) Name() string                    { return "pause" }
func (pause) Params() []Param                 { return nil }
func (pause) Target(map[string]string) string { return One }
func (pause) Meaning() string {
	return "the process stands still, all threads of it, and goes on later as if no time had passed: a long garbage collection, a frozen machine"
}

func (pause) Plan(scene Scene) (Planned, error) {
	return Planned{Nodes: scene.Targets, Detail: strings.Join(scene.Targets, " ")}, nil
}

func (pause) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return onEach(p.Nodes, func(node string) (string, error) {
		state := e.states[node]
		state.mu.Lock()
		defer state.mu.Unlock()
		if state.downBy != 0 {
			return "", fmt.Errorf("%s is down: step %d killed it", node, state.downBy)
		}
		state.pausedBy[p.ID] = true // before the proof: what may be stopped must be continued
		return e.signal(ctx, node, "stop")
	})
}

func (pause) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return onEach(p.Nodes, func(node string) (string, error) {
		state := e.states[node]
		state.mu.Lock()
		defer state.mu.Unlock()
		if !state.pausedBy[p.ID] {
			return node + ": nothing to resume, the paused process was killed meanwhile", nil
		}
		if len(state.pausedBy) > 1 {
			delete(state.pausedBy, p.ID)
			return node + ": stays paused by another step", nil
		}
		line, err := e.signal(ctx, node, "cont")
		if errors.Is(err, ErrEnded) {
			line, err = node+": nothing to resume, "+err.Error(), nil
		}
		if err == nil {
			delete(state.pausedBy, p.ID)
		}
		return line, err
	})
}

// kill ends processes without a warning, SIGKILL, and starts them again.
type kill struct{}

func (kill) Name() string                    { return "kill" }
func (kill) Params() []Param                 { return nil }
func (kill) Target(map[string]string) string { return One }
func (kill) Meaning() string {
	return "the process is killed, and started again at the end: what it had not written is lost"
}

func (kill) Plan(scene Scene) (Planned, error) {
	return Planned{Nodes: scene.Targets, Detail: strings.Join(scene.Targets, " ")}, nil
}

func (kill) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return onEach(p.Nodes, func(node string) (string, error) {
		state := e.states[node]
		state.mu.Lock()
		defer state.mu.Unlock()
		if state.downBy != 0 {
			return "", fmt.Errorf("%s is down already: step %d killed it", node, state.downBy)
		}
		line, err := e.signal(ctx, node, "kill")
		if !errors.Is(err, ErrEnded) {
			state.downBy, state.doubtful = p.ID, err != nil
			clear(state.pausedBy) // a pause ends with the process
		}
		return line, err
	})
}

// Heal starts what it killed, once, and waits until it answers. A process that ends again
// by itself is not started again: that it does not answer is the finding then.
func (kill) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return onEach(p.Nodes, func(node string) (string, error) {
		if err := e.restart(ctx, node, p.ID); err != nil {
			return "", err
		}
		state := e.states[node]
		state.mu.Lock()
		proven := !state.unproven || state.downBy != 0
		state.mu.Unlock()
		if proven {
			return "", nil
		}
		if err := e.awaitReady(ctx, node); err != nil {
			return "", err
		}
		state.mu.Lock()
		state.unproven = false
		state.mu.Unlock()
		return node + ": runs again and answers", nil
	})
}

func (e *Effects) restart(ctx context.Context, node string, id int) error {
	state := e.states[node]
	state.mu.Lock()
	defer state.mu.Unlock()
	if state.downBy != id {
		return nil
	}
	if state.doubtful {
		if _, err := e.signal(ctx, node, "kill"); err != nil && !errors.Is(err, ErrEnded) {
			return err
		}
		state.doubtful = false
	}
	if err := e.controller.Start(ctx, node, e.processes[node]); err != nil {
		return err
	}
	state.downBy, state.unproven = 0, true
	return nil
}

func (e *Effects) awaitReady(ctx context.Context, node string) error {
	readyCtx, cancel := context.WithTimeout(ctx, e.readyLimit)
	defer cancel()
	err := e.ready(readyCtx, node)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s does not answer, %s after it was started again: %w", node, e.readyLimit, err)
	if _, gone := e.signal(ctx, node, "cont"); errors.Is(gone, ErrEnded) {
		err = errors.Join(err, gone)
	}
	return err
}
