package nemesis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

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

func (kill) Plan(scene Scene) (Planned, error) { return takesDown(scene) }

// takesDown is the plan of a fault whose targets take no part while it is in force.
func takesDown(scene Scene) (Planned, error) {
	return Planned{Nodes: scene.Targets, Down: scene.Targets, Detail: strings.Join(scene.Targets, " ")}, nil
}

func (kill) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return onEach(p.Nodes, func(node string) (string, error) { return e.bringDown(ctx, node, p.ID, "kill") })
}

func (kill) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return e.bringBack(ctx, p)
}

// term asks processes to end, SIGTERM, and starts them again.
type term struct{}

func (term) About() About {
	return About{
		Name: "term", Package: "kill",
		Meaning: "the process is asked to end (SIGTERM), and started again at the end: an orderly restart, with whatever the system does at shutdown",
		Params: []Param{{
			Name: "patience", Kind: Duration, Default: "5s", Least: "100ms", Most: "30s",
			Meaning: "how long the process may take to end; one that takes longer is killed, and the fault has missed",
		}},
		Target: always(One),
		Cards:  []Card{{Leader, nil, 3, 1}, {Minority, nil, 3, 3}},
	}
}

func (term) Plan(scene Scene) (Planned, error) { return takesDown(scene) }

func (term) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Params.Duration("patience"))
	defer cancel()
	return onEach(p.Nodes, func(node string) (string, error) { return e.bringDown(ctx, node, p.ID, "term") })
}

func (term) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return e.bringBack(ctx, p)
}

// crashLoop kills processes again and again.
type crashLoop struct{}

func (crashLoop) About() About {
	return About{
		Name: "crash-loop", Package: "kill",
		Meaning: "the process is killed, started, and killed again as soon as it has run for a while, over and over: a supervisor that restarts a program which cannot live",
		Params: []Param{
			{Name: "up", Kind: Duration, Default: "400ms", Least: "10ms", Most: "10m", Meaning: "how long it runs between two kills"},
			{Name: "down", Kind: Duration, Default: "100ms", Least: "0s", Most: "10m", Meaning: "how long it stays down"},
		},
		Target: always(One),
		Cards: []Card{
			{One, nil, 3, 3}, {Leader, nil, 3, 3},
			{Minority, map[string]string{"up": "1.5s"}, 3, 3},
		},
	}
}

func (crashLoop) Plan(scene Scene) (Planned, error) { return takesDown(scene) }

func (crashLoop) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return kill{}.Inject(ctx, e, p)
}

// Sustain starts and kills each target, on its own.
func (crashLoop) Sustain(ctx context.Context, e *Effects, p Planned) ([]string, error) {
	proof, err := onEach(p.Nodes, func(node string) (string, error) {
		for kills := 1; ; kills++ {
			done := fmt.Sprintf("%s: killed %d times", node, kills)
			if !sleep(ctx, p.Params.Duration("down")) {
				return done, nil
			}
			// Once begun, each command is finished: so it is known whether the process runs.
			uncut, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandLimit)
			err := e.restart(uncut, node, p.ID)
			if err == nil && sleep(ctx, p.Params.Duration("up")) {
				_, err = e.bringDown(uncut, node, p.ID, "kill")
				cancel()
				if err != nil {
					return done, err
				}
				continue
			}
			cancel()
			return done, err
		}
	})
	return proof.Lines, err
}

func (crashLoop) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return e.bringBack(ctx, p)
}

// rollingRestart restarts one target after the other.
type rollingRestart struct{}

func (rollingRestart) About() About {
	return About{
		Name: "rolling-restart", Package: "kill",
		Meaning: "one target after the other is ended, started, and waited for until it serves again, for as long as the step lasts: an upgrade, as it is done in production",
		Params: []Param{
			{Name: "signal", Default: "term", Allowed: []string{"term", "kill"}, Meaning: "how each of them ends"},
			{Name: "down", Kind: Duration, Default: "100ms", Least: "0s", Most: "10m", Meaning: "how long each of them stays down"},
		},
		Target: always(All),
		Cards:  []Card{{All, nil, 3, 3}, {All, map[string]string{"signal": "kill"}, 3, 3}},
	}
}

func (rollingRestart) Plan(scene Scene) (Planned, error) {
	planned := Planned{Nodes: scene.Targets, Detail: strings.Join(scene.Targets, ", then ")}
	planned.Down = planned.Nodes[:1] // one at a time; which one changes
	return planned, nil
}

// Inject ends the first target.
func (rollingRestart) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return onEach(p.Nodes[:1], func(node string) (string, error) { return e.bringDown(ctx, node, p.ID, p.Params["signal"]) })
}

// Sustain goes round the targets.
func (rollingRestart) Sustain(ctx context.Context, e *Effects, p Planned) ([]string, error) {
	restarts := 0
	said := func() []string { return []string{fmt.Sprintf("%d restarts, one after the other", restarts)} }
	for i := 0; ; i = (i + 1) % len(p.Nodes) {
		node := p.Nodes[i]
		uncut, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandLimit+e.readyLimit)
		var err error
		if restarts > 0 {
			_, err = e.bringDown(uncut, node, p.ID, p.Params["signal"])
		}
		if err == nil && sleep(ctx, p.Params.Duration("down")) {
			err = e.restart(uncut, node, p.ID)
			if err == nil && e.downBy(node) == 0 {
				restarts++
				err = e.provenReady(uncut, node)
			}
		}
		cancel()
		if err != nil || ctx.Err() != nil {
			return said(), err
		}
	}
}

func (rollingRestart) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	proof, err := e.bringBack(ctx, p)
	if err == nil && len(proof.Lines) == 0 {
		proof.Lines = []string{"all targets run and had answered"}
	}
	return proof, err
}

// bringDown is takeDown for a fault to which a process that another step has ended is as good: it
// stays down until both have ended. One that was removed from the cluster is left to who did that.
func (e *Effects) bringDown(ctx context.Context, node string, id int, signal string) (string, error) {
	removed := slices.ContainsFunc(e.standing(), func(p Planned) bool { return slices.Contains(p.Removed, node) })
	state := e.states[node]
	state.mu.Lock()
	by := state.downBy
	if by != 0 && by != id && !removed {
		state.alsoDown[id] = true
	}
	state.mu.Unlock()
	if by != 0 && by != id {
		return fmt.Sprintf("%s: is down already, by step %d", node, by), nil
	}
	return e.takeDown(ctx, node, id, signal)
}

// takeDown ends a node's process by a signal for a step.
func (e *Effects) takeDown(ctx context.Context, node string, id int, signal string) (string, error) {
	state := e.states[node]
	state.mu.Lock()
	defer state.mu.Unlock()
	if state.downBy != 0 {
		return "", fmt.Errorf("%s is down already: step %d killed it", node, state.downBy)
	}
	line, err := e.signal(ctx, node, signal)
	if !errors.Is(err, ErrEnded) {
		e.tookDown(node, id, err != nil)
	}
	return line, err
}

// bringBack starts what a step took down, once, and waits until it answers. A process that
// ends again by itself is not started again: that it does not answer is the finding then.
func (e *Effects) bringBack(ctx context.Context, p Planned) (Proof, error) {
	return onEach(p.Nodes, func(node string) (string, error) {
		if err := e.restart(ctx, node, p.ID); err != nil {
			return "", err
		}
		state := e.states[node]
		state.mu.Lock()
		proven := !state.unproven || state.downBy != 0
		state.mu.Unlock()
		if by := e.downBy(node); by != 0 {
			return fmt.Sprintf("%s: stays down, by step %d", node, by), nil
		}
		if proven {
			return "", nil
		}
		if err := e.provenReady(ctx, node); err != nil {
			return "", err
		}
		return node + ": runs again and answers", nil
	})
}

// provenReady waits until a node that was started again answers.
func (e *Effects) provenReady(ctx context.Context, node string) error {
	if err := e.awaitReady(ctx, node); err != nil {
		return err
	}
	state := e.states[node]
	state.mu.Lock()
	defer state.mu.Unlock()
	state.unproven = false
	return nil
}

func (e *Effects) restart(ctx context.Context, node string, id int) error {
	state := e.states[node]
	state.mu.Lock()
	defer state.mu.Unlock()
	delete(state.alsoDown, id)
	if state.downBy != id {
		return nil
	}
	for other := range state.alsoDown {
		state.downBy = other
		delete(state.alsoDown, other)
		return nil
	}
	if err := e.settleKill(ctx, node); err != nil {
		return err
	}
	process := e.processes[node]
	if state.joining != nil {
		process = *state.joining
	}
	if err := e.controller.Start(ctx, node, process); err != nil {
		return err
	}
	state.downBy, state.unproven = 0, true
	return nil
}

// settleKill kills a process again of which it is not certain that it was. The caller holds
// the lock of the node's state.
func (e *Effects) settleKill(ctx context.Context, node string) error {
	state := e.states[node]
	if !state.doubtful {
		return nil
	}
	if _, err := e.signal(ctx, node, "kill"); err != nil && !errors.Is(err, ErrEnded) {
		return err
	}
	state.doubtful = false
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
