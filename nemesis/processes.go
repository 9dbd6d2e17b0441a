package nemesis

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// pause stops processes where they are: SIGSTOP.
type pause struct{}

func (pause) About() About {
	return About{
		Name: "pause", Package: "pause",
		Meaning: "the process stands still, all threads of it, and goes on later as if no time had passed: a long garbage collection, a frozen machine",
		Target:  always(One),
		Cards:   []Card{{Leader, nil, 1, 1}, {Minority, nil, 3, 3}, {One, nil, 3, 1}, {Majority, nil, 3, 3}},
	}
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

func (kill) About() About {
	return About{
		Name: "kill", Package: "kill",
		Meaning: "the process is killed, and started again at the end: what it had not written is lost",
		Target:  always(One),
		Cards: []Card{
			{Minority, nil, 1, 3}, {Leader, nil, 1, 1},
			{One, nil, 3, 1}, {Majority, nil, 3, 3}, {All, nil, 3, 1},
		},
	}
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
