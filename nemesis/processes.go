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
	return Planned{Nodes: scene.Targets, Down: scene.Targets, Detail: strings.Join(scene.Targets, " ")}, nil
}

func (pause) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return e.onEachUp(p, func(node string) (string, error) {
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
