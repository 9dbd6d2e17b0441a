package nemesis

import (
	"context"
	"fmt"
	"strings"

	"capsize/nemesis/agent"
)

// damageFiles kills processes, changes their files, and starts them with those.
type damageFiles struct{}

// swapFiles is the kind with which files are what they were a while ago.
const swapFiles = agent.DamageSwap

func (damageFiles) About() About {
	return About{
		Name: "file", Package: disks,
		Meaning: "the process is killed, its files are changed, and it is started with those: a disk that rots, a backup that was restored. " +
			"If it refuses to run it gets its files back at the end, and is started again",
		Params: []Param{
			{
				Name: "kind", Default: agent.DamageFlip, Allowed: []string{agent.DamageFlip, agent.DamageTruncate, swapFiles},
				Meaning: "flip: one bit of one file is changed, anywhere in what is written there; truncate: the end of one file is lost; swap: all files are what they were some time before",
			},
			{Name: "bytes", Kind: Size, Default: "512", Least: "1", Most: "1024GiB", Meaning: "of truncate: how many are lost"},
			{Name: "age", Kind: Duration, Default: "1s", Least: "1ms", Most: "9s", Meaning: "of swap: how much older the files are"},
			{Name: "files", Kind: Text, Default: "", Meaning: "names of files, or paths below the data directory, with * and ?; empty is all"},
		},
		Target: always(One), Needs: always([]string{agent.DataFiles}),
		MayEnd: always(true),
		Beyond: always("what was made durable stays so (Raft paper, figure 2: persistent state)"),
	}
}

func (damageFiles) Plan(scene Scene) (Planned, error) {
	planned, err := takesDown(scene)
	planned.Detail = scene.Params["kind"] + " at " + strings.Join(scene.Targets, " ")
	return planned, err
}

func (damageFiles) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return onEach(p.Nodes, func(node string) (string, error) {
		if p.Params.Is("kind", swapFiles) {
			if _, err := e.damage(ctx, node, p, agent.DamageKeep); err != nil {
				return "", err
			}
			if !sleep(ctx, p.Params.Duration("age")) {
				return "", context.Cause(ctx)
			}
		}
		return e.startWith(ctx, node, p, p.Params["kind"])
	})
}

// startWith kills a node's process, damages its files, and starts it with those.
func (e *Effects) startWith(ctx context.Context, node string, p Planned, kind string) (string, error) {
	line, err := e.takeDown(ctx, node, p.ID, "kill")
	if err != nil {
		return "", err
	}
	what, err := e.damage(ctx, node, p, kind)
	if err != nil {
		return "", err
	}
	if err := e.restart(ctx, node, p.ID); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; %s; it was started with that", line, what), nil
}

func (e *Effects) damage(ctx context.Context, node string, p Planned, kind string) (string, error) {
	process := e.processes[node]
	if process.Data == "" {
		return "", fmt.Errorf("%s: it is not known where its process keeps its data", node)
	}
	request := &agent.Damage{
		Process: process.Name, Dir: process.Data, Kind: kind, Mark: fmt.Sprint(p.ID), Files: p.Params["files"],
		Seed: powerSeed(p.ID, node), Bytes: p.Params.Size("bytes"),
	}
	reply, err := e.ask(ctx, node, agent.Request{Damage: request})
	if err != nil || reply.Damage == nil {
		return "", err
	}
	return reply.Damage.What, nil
}

// Sustain watches for processes that refuse to run with what they find.
func (damageFiles) Sustain(ctx context.Context, e *Effects, p Planned) ([]string, error) {
	proof, err := onEach(p.Nodes, func(node string) (string, error) {
		for sleep(ctx, endingPoll) {
			if e.noteEnd(ctx, node, p) {
				return node + ": its process did not run with that, and ended by itself", nil
			}
		}
		return "", nil
	})
	return proof.Lines, err
}

// Heal gives a process that does not run with its files those that it had. One that does run has
// made them its own: nothing is taken from under it. One that another step has ended gets them
// back too.
func (damageFiles) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	proof, err := onEach(p.Nodes, func(node string) (string, error) {
		said, err := e.reviveAfter(ctx, node, p)
		if err != nil || e.downBy(node) == 0 {
			return node + ": goes on" + said, err
		}
		state := e.states[node]
		state.mu.Lock()
		err = e.settleKill(ctx, node)
		state.mu.Unlock()
		if err != nil {
			return "", err
		}
		what, err := e.damage(ctx, node, p, agent.DamageRestore)
		return node + ": " + what + said, err
	})
	if err != nil {
		return proof, err
	}
	back, err := e.bringBack(ctx, p)
	proof.Lines = append(proof.Lines, back.Lines...)
	return proof, err
}

// amnesia kills processes and starts them with nothing of what they had stored.
type amnesia struct{ damageFiles }

func (amnesia) About() About {
	return About{
		Name: "amnesia", Package: "kill",
		Meaning: "the process is killed and started again with an empty disk, under its old name: a machine that was replaced without telling the cluster. " +
			"If it refuses to run it gets its files back at the end, and is started again",
		Target: always(One), Needs: always([]string{agent.DataFiles}),
		MayEnd: always(true),
		Beyond: always("a node that comes back under its old name remembers its votes and its log (Raft paper, figure 2: persistent state); " +
			"replacing a node takes a change of membership"),
	}
}

func (amnesia) Plan(scene Scene) (Planned, error) { return takesDown(scene) }

func (amnesia) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return onEach(p.Nodes, func(node string) (string, error) { return e.startWith(ctx, node, p, agent.DamageWipe) })
}
