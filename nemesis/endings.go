package nemesis

import (
	"context"
	"fmt"
	"time"

	"capsize/nemesis/agent"
)

// Some faults are such that a program does well to end by itself. What follows is how such a
// fault takes charge of a process that did: it is the fault's then, as if the fault had killed
// it, and is started again when the fault is healed.

const (
	// endingTime is how long a process that met a fault may take to end because of it.
	endingTime = 500 * time.Millisecond
	endingPoll = 20 * time.Millisecond
	// revivalTime is how long one that did not end may take to serve again, before it is
	// restarted as a person would.
	revivalTime = 5 * time.Second
	// resumeTime is how long that waits for a step that has stopped the process.
	resumeTime = 10 * time.Second
)

// runs reports whether a node's process runs.
func (e *Effects) runs(ctx context.Context, node string) (bool, error) {
	reply, err := e.ask(ctx, node, agent.Request{Running: &agent.Running{Process: e.processes[node].Name}})
	if err != nil || reply.Running == nil {
		return false, err
	}
	return reply.Running.Pid != 0, nil
}

// noteEnd takes charge of a process that has ended by itself, and reports whether it did.
func (e *Effects) noteEnd(ctx context.Context, node string, p Planned) bool {
	state := e.states[node]
	state.mu.Lock()
	defer state.mu.Unlock()
	if state.downBy != 0 {
		return false
	}
	if runs, err := e.runs(ctx, node); runs || err != nil {
		return false
	}
	e.tookDown(node, p.ID, false)
	return true
}

// tookDown notes that a node's process is down for a step. The caller holds the state's lock.
func (e *Effects) tookDown(node string, id int, doubtful bool) {
	state := e.states[node]
	state.downBy, state.doubtful = id, doubtful
	clear(state.pausedBy) // a pause ends with the process
	e.endLimits(node)
}

// reviveAfter is for a node whose process met a fault at which it may end: it is not over
// before the process has ended, or serves. It says how that went, as the end of a sentence;
// what has ended is started by bringBack.
func (e *Effects) reviveAfter(ctx context.Context, node string, p Planned) (string, error) {
	for end := time.Now().Add(endingTime); time.Now().Before(end) && sleep(ctx, endingPoll); {
		if e.noteEnd(ctx, node, p) {
			break
		}
	}
	if e.downBy(node) != 0 {
		return "; its process has ended", nil // by this step's fault, or another's
	}
	failed := e.servesSoon(ctx, node, p)
	if failed != nil && e.awaitResumed(ctx, node) {
		failed = e.servesSoon(ctx, node, p)
	}
	switch {
	case e.noteEnd(ctx, node, p), e.downBy(node) != 0: // another step may have ended it meanwhile
		return "; its process has ended", nil
	case failed == nil:
		return "; its process serves", nil
	}
	if _, err := e.bringDown(ctx, node, p.ID, "kill"); err != nil {
		return "", fmt.Errorf("%s does not serve (%w), and cannot be restarted: %w", node, failed, err)
	}
	return fmt.Sprintf("; its process did not serve for %s more, and was killed", revivalTime), nil
}

// servesSoon waits until a node serves, for [revivalTime] at most, and no longer than its process
// runs.
func (e *Effects) servesSoon(ctx context.Context, node string, p Planned) error {
	ctx, cancel := context.WithTimeout(ctx, revivalTime)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- e.ready(ctx, node) }() // ends with ctx
	ticker := time.NewTicker(endingPoll)
	defer ticker.Stop()
	for {
		select {
		case err := <-served:
			return err
		case <-ticker.C:
			if e.noteEnd(ctx, node, p) || e.downBy(node) != 0 {
				cancel()
				return <-served
			}
		}
	}
}

// awaitResumed waits until no step stops a node's process any more, for [resumeTime] at most: a
// process that is stopped cannot serve, and to kill it would end the other step's fault. It
// reports whether one did, and none does now.
func (e *Effects) awaitResumed(ctx context.Context, node string) bool {
	state := e.states[node]
	paused := func() bool {
		state.mu.Lock()
		defer state.mu.Unlock()
		return len(state.pausedBy) > 0
	}
	if !paused() {
		return false
	}
	for end := time.Now().Add(resumeTime); time.Now().Before(end) && sleep(ctx, endingPoll); {
		if !paused() {
			return true
		}
	}
	return false
}
