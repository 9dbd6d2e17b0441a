package nemesis

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"capsize/nemesis/agent"
	"capsize/nemesis/agent/disk"
)

// Parameters of the faults that take what was not synced.
const (
	lostWrites = "lost"
	noneLost   = "none"
)

const lostMeaning = "what becomes of what was not synced. all: each write is lost; prefix: of each file a random prefix of them survives, the last one torn at a sector; " +
	"pages: each 4 KiB page survives or not; names that were made, removed or changed and not synced are undone too"

// failPower kills processes and takes back what they had not synced.
type failPower struct{}

func (failPower) About() About {
	lose := func(mode string) map[string]string { return map[string]string{lostWrites: mode} }
	return About{
		Name: "power-failure", Package: disks,
		Meaning: "the machine loses its power: the process is killed, what it had not synced is lost, and it is started again at the end",
		Params: []Param{
			{Name: lostWrites, Default: disk.PowerAll, Allowed: []string{disk.PowerAll, disk.PowerPrefix, disk.PowerPages}, Meaning: lostMeaning},
		},
		Target: always(All), Needs: always([]string{agent.Disks}),
		Cards: []Card{
			{All, lose(disk.PowerAll), 1, 1}, {Minority, lose(disk.PowerPages), 2, 3},
			{Leader, lose(disk.PowerPrefix), 3, 1}, {Majority, lose(disk.PowerPrefix), 3, 3}, {All, lose(disk.PowerPages), 3, 1},
		},
	}
}

func (failPower) Plan(scene Scene) (Planned, error) { return takesDown(scene) }

func (failPower) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return onEach(p.Nodes, func(node string) (string, error) {
		line, err := e.bringDown(ctx, node, p.ID, "kill")
		if err != nil {
			return "", err
		}
		reply, err := e.ask(ctx, node, agent.Request{Power: &agent.PowerFail{
			Process: e.processes[node].Name, Mode: p.Params[lostWrites], Seed: powerSeed(p.ID, node),
		}})
		if err != nil {
			return "", err
		}
		if reply.Power == nil {
			return "", fmt.Errorf("%s: its agent says nothing of the power failure", node)
		}
		return line + describeLoss(reply.Power.Loss), nil
	})
}

func (failPower) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return e.bringBack(ctx, p)
}

// powerSeed is what the chances of one power failure on one node are drawn from.
func powerSeed(id int, node string) uint64 {
	sum := fnv.New64a()
	_, _ = fmt.Fprintf(sum, "%d/%s", id, node) // a hash takes everything
	return sum.Sum64()
}

func describeLoss(loss disk.Loss) string {
	if loss == (disk.Loss{}) {
		return ", all that it had written was synced"
	}
	said := fmt.Sprintf(", lost %d bytes in %d files", loss.Bytes, loss.Files)
	if loss.Names > 0 {
		said += fmt.Sprintf(" and %d changes of names", loss.Names)
	}
	if loss.Kept > 0 {
		said += fmt.Sprintf(" (%d changes could not be taken back)", loss.Kept)
	}
	return said
}

// killAtMoment kills processes at a moment that their disk chooses.
type killAtMoment struct{}

func (killAtMoment) About() About {
	return About{
		Name: "kill-at", Package: disks,
		Meaning: "the process is killed at a chosen moment of what it writes: when it calls its Nth fsync, before that does anything, or with the write that would reach so many bytes; " +
			"then the power fails, unless told otherwise, and it is started again at the end",
		Params: []Param{
			{Name: "fsyncs", Kind: Count, Default: "1", Least: "0", Most: "1000000000", Meaning: "the fsync at which it dies, counted from the beginning of the step; 0 is none"},
			{Name: "bytes", Kind: Size, Default: "0", Least: "0", Most: "1024GiB", Meaning: "the bytes written at which it dies, counted likewise; 0 is none"},
			{
				Name: lostWrites, Default: disk.PowerAll, Allowed: []string{noneLost, disk.PowerAll, disk.PowerPrefix, disk.PowerPages},
				Meaning: "none: the process alone dies, and its machine lives; else " + lostMeaning,
			},
			{Name: "patience", Kind: Duration, Default: "3s", Least: "100ms", Most: "4s", Meaning: "how long the moment may take to come; later the fault has missed"},
		},
		Target: always(Leader), Needs: always([]string{agent.Disks}),
		Cards: []Card{
			{Leader, nil, 2, 3}, {Follower, map[string]string{"fsyncs": "20"}, 3, 3},
			{Leader, map[string]string{"fsyncs": "0", "bytes": "4KiB", lostWrites: disk.PowerPrefix}, 3, 3},
		},
	}
}

func (killAtMoment) Plan(scene Scene) (Planned, error) {
	if scene.Params.Count("fsyncs") == 0 && scene.Params.Size("bytes") == 0 {
		return Planned{}, &ScheduleError{Key: "params.fsyncs", Value: "0", Allowed: "more than 0, or bytes more than 0: else the moment never comes"}
	}
	planned, err := takesDown(scene)
	moment := "fsync " + scene.Params["fsyncs"]
	if scene.Params.Count("fsyncs") == 0 {
		moment = scene.Params["bytes"] + " bytes"
	}
	planned.Detail += " at " + moment
	return planned, err
}

func (killAtMoment) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return onEach(p.Nodes, func(node string) (string, error) {
		state := e.states[node]
		state.mu.Lock() // nothing else is done to the process until it is dead, or the moment did not come
		defer state.mu.Unlock()
		switch {
		case state.downBy != 0:
			return "", fmt.Errorf("%s is down: step %d killed it", node, state.downBy)
		case len(state.pausedBy) > 0:
			return "", fmt.Errorf("%s is paused, so the moment cannot come", node)
		}
		reply, err := e.killAt(ctx, node, p)
		if err != nil {
			if runs, unknown := e.runs(ctx, node); !runs {
				e.tookDown(node, p.ID, unknown != nil)
			}
			return "", err
		}
		e.tookDown(node, p.ID, false)
		line := fmt.Sprintf("%s: pid %d %s at that moment, %s after the step began", node, reply.Pid, reply.State, reply.After.Round(time.Millisecond))
		if reply.Loss != nil {
			line += describeLoss(*reply.Loss)
		}
		return line, nil
	})
}

func (e *Effects) killAt(ctx context.Context, node string, p Planned) (*agent.KillAtReply, error) {
	request := &agent.KillAt{
		Process: e.processes[node].Name, Fsyncs: p.Params.Count("fsyncs"), Bytes: p.Params.Size("bytes"),
		Limit: p.Params.Duration("patience"), Seed: powerSeed(p.ID, node),
	}
	if mode := p.Params[lostWrites]; mode != noneLost {
		request.Mode = mode
	}
	reply, err := e.ask(ctx, node, agent.Request{KillAt: request})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", node, err)
	}
	if reply.KillAt == nil {
		return nil, errors.New(node + ": its agent says nothing of the kill")
	}
	return reply.KillAt, nil
}

func (killAtMoment) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return e.bringBack(ctx, p)
}
