package nemesis

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"capsize/nemesis/agent"
	"capsize/nemesis/agent/limits"
)

// resources is the package of the faults that take resources away.
const resources = "resource"

// limiting is a fault that is a limit on the system's process. Several may be in force on a node:
// the tightest holds.
type limiting struct{}

// starveCPU leaves processes little CPU time.
type starveCPU struct{ limiting }

func (starveCPU) About() About {
	return About{
		Name: "cpu", Package: resources,
		Meaning: "the process gets only so much CPU time: a noisy neighbour, a host that is overbooked. It runs in short bursts, and is late with everything",
		Params: []Param{{
			Name: "cores", Kind: Number, Default: "0.1", Least: "0.01", Most: "64",
			Meaning: "CPU time a second of time: 0.1 is a tenth of a core",
		}},
		Target: always(One), Needs: always([]string{agent.LimitCPU}),
		Cards: []Card{{Leader, nil, 3, 1}, {Minority, nil, 3, 3}, {All, map[string]string{"cores": "0.3"}, 3, 1}},
	}
}

func (starveCPU) Plan(scene Scene) (Planned, error) {
	return Planned{Nodes: scene.Targets, Detail: strings.Join(scene.Targets, " ") + " to " + scene.Params["cores"] + " cores"}, nil
}

// starveMemory leaves processes little more memory than they have.
type starveMemory struct{ limiting }

// atLimit is the parameter of what happens at the limit of memory.
const (
	atLimit       = "at-limit"
	atLimitRefuse = "refuse"
	atLimitKill   = "kill"
)

func (starveMemory) About() About {
	return About{
		Name: "memory", Package: resources,
		Meaning: "the process can take only so much more memory. What it does then is its own: most programs end, and are not started again. It is never drawn",
		Params: []Param{
			{Name: "room", Kind: Size, Default: "64MiB", Least: "1MiB", Most: "1024GiB", Meaning: "how much more than it has when the fault begins"},
			{
				Name: atLimit, Kind: Choice, Default: atLimitRefuse, Allowed: []string{atLimitRefuse, atLimitKill},
				Meaning: "refuse: allocations fail; kill: the kernel kills the process, where it has cgroups for it, else they fail",
			},
		},
		Target: always(One), Needs: always([]string{agent.LimitMemory}),
	}
}

func (starveMemory) Plan(scene Scene) (Planned, error) {
	return Planned{Nodes: scene.Targets, Detail: strings.Join(scene.Targets, " ") + " to " + scene.Params["room"] + " more"}, nil
}

// starveFiles leaves processes few more file descriptors than they have.
type starveFiles struct{ limiting }

func (starveFiles) About() About {
	return About{
		Name: "files", Package: resources,
		Meaning: "the process can open only so many more files and connections: EMFILE. Some programs end at it, and are not started again. It is never drawn",
		Params:  []Param{{Name: "room", Kind: Count, Default: "4", Least: "1", Most: "1000000", Meaning: "how many more than it has when the fault begins"}},
		Target:  always(One), Needs: always([]string{agent.LimitFiles}),
	}
}

func (starveFiles) Plan(scene Scene) (Planned, error) {
	return Planned{Nodes: scene.Targets, Detail: strings.Join(scene.Targets, " ") + " to " + scene.Params["room"] + " more"}, nil
}

// starveProcesses leaves processes few more tasks than they have.
type starveProcesses struct{ limiting }

func (starveProcesses) About() About {
	return About{
		Name: "processes", Package: resources,
		Meaning: "the process can make only so many more threads and processes: EAGAIN. Many runtimes end at it, and are not started again. It is never drawn",
		Params:  []Param{{Name: "room", Kind: Count, Default: "4", Least: "1", Most: "1000000", Meaning: "how many more than it has when the fault begins"}},
		Target:  always(One), Needs: always([]string{agent.LimitProcesses}),
	}
}

func (starveProcesses) Plan(scene Scene) (Planned, error) {
	return Planned{Nodes: scene.Targets, Detail: strings.Join(scene.Targets, " ") + " to " + scene.Params["room"] + " more"}, nil
}

// slowIO makes the disk of processes slow.
type slowIO struct{ limiting }

func (slowIO) About() About {
	return About{
		Name: "io", Package: resources,
		Meaning: "the process reads from and writes to its disk only so fast: a disk that others use too. In cgroups of version 1 only what it syncs, or writes past the cache, is slowed",
		Params: []Param{
			{Name: "rate", Kind: Size, Default: "256KiB", Least: "4KiB", Most: "1024GiB", Meaning: "bytes a second, each way"},
			{Name: "of", Kind: Choice, Default: "both", Allowed: []string{"both", "read", "write"}, Meaning: "which way is slowed"},
		},
		Target: always(One), Needs: always([]string{agent.LimitIO}),
		Cards: []Card{{Leader, nil, 3, 1}, {Minority, nil, 3, 3}},
	}
}

func (slowIO) Plan(scene Scene) (Planned, error) {
	return Planned{Nodes: scene.Targets, Detail: fmt.Sprintf("%s to %s a second (%s)", strings.Join(scene.Targets, " "), scene.Params["rate"], scene.Params["of"])}, nil
}

// freeze stops processes where they are, as pause does, but without a signal: the process and
// who watches it see nothing of it.
type freeze struct{ limiting }

func (freeze) About() About {
	return About{
		Name: "freeze", Package: "pause",
		Meaning: "the process stands still, as with pause, by the freezer of the kernel's cgroups instead of a signal: as a virtual machine does that is moved, or a container that is paused",
		Target:  always(One), Needs: always([]string{agent.Freezing}),
		Cards: []Card{{Leader, nil, 3, 1}, {Minority, nil, 3, 3}},
	}
}

func (freeze) Plan(scene Scene) (Planned, error) { return takesDown(scene) }

// limitOf is the limit that a step is.
func limitOf(p Planned) limits.Limit {
	switch p.Fault {
	case "cpu":
		return limits.Limit{CPU: p.Params.Number("cores")}
	case "memory":
		return limits.Limit{Memory: p.Params.Size("room"), Refuse: p.Params.Is(atLimit, atLimitRefuse)}
	case "files":
		return limits.Limit{Files: int(p.Params.Count("room"))}
	case "processes":
		return limits.Limit{Processes: int(p.Params.Count("room"))}
	case "io":
		limit := limits.Limit{ReadRate: p.Params.Size("rate"), WriteRate: p.Params.Size("rate")}
		if p.Params.Is("of", "read") {
			limit.WriteRate = 0
		}
		if p.Params.Is("of", "write") {
			limit.ReadRate = 0
		}
		return limit
	default:
		return limits.Limit{Frozen: true}
	}
}

// Inject lands when the kernel says the limit back. Whether the process then met it is told when
// it is healed: one that is idle may never.
func (limiting) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return e.onEachUp(p, func(node string) (string, error) {
		state := e.states[node]
		state.mu.Lock()
		defer state.mu.Unlock()
		if state.downBy != 0 {
			return "", fmt.Errorf("%s is down: step %d killed it", node, state.downBy)
		}
		e.limits[node].mu.Lock()
		defer e.limits[node].mu.Unlock()
		want := limitOf(p)
		e.limits[node].put(p.ID, want) // before the proof: what may be in force must be healed
		reply, err := e.sendLimits(ctx, node)
		if err != nil {
			return "", err
		}
		if err := landed(want, reply.Seen); err != nil {
			return "", fmt.Errorf("%s: pid %d: %w", node, reply.Pid, err)
		}
		return fmt.Sprintf("%s: pid %d: %s", node, reply.Pid, strings.Join(reply.Seen.Lines(), "; ")), nil
	})
}

// landed checks that the kernel says a limit back.
func landed(want limits.Limit, seen limits.Seen) error {
	for _, resource := range limits.Resources {
		if want.Has(resource) && seen.How[resource] == "" {
			return fmt.Errorf("the agent says that no limit of %s is in force", resource)
		}
	}
	if want.Frozen && !seen.Frozen {
		return errors.New("the kernel says that it is not frozen")
	}
	return nil
}

// lifted checks that nothing is limited but what is left.
func lifted(left limits.Limit, seen limits.Seen) error {
	for _, resource := range limits.Resources {
		if !left.Has(resource) && seen.How[resource] != "" {
			return fmt.Errorf("%s is limited yet: %s", resource, seen.How[resource])
		}
	}
	if !left.Frozen && seen.Frozen {
		return errors.New("the kernel says that it is frozen yet")
	}
	return nil
}

func (limiting) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return onEach(p.Nodes, func(node string) (string, error) {
		state := e.states[node]
		state.mu.Lock()
		defer state.mu.Unlock()
		e.limits[node].mu.Lock()
		defer e.limits[node].mu.Unlock()
		e.limits[node].drop(p.ID)
		reply, err := e.sendLimits(ctx, node)
		if errors.Is(err, ErrEnded) {
			return node + ": nothing is limited any more, " + err.Error(), nil
		}
		if err != nil {
			return "", err
		}
		left := e.limitsOf(node)
		if err := lifted(left, reply.Seen); err != nil {
			return "", fmt.Errorf("%s: pid %d: %w", node, reply.Pid, err)
		}
		line := fmt.Sprintf("%s: pid %d: lifted; it had met: %s", node, reply.Pid, strings.Join(reply.Before.Lines(), "; "))
		if left != (limits.Limit{}) {
			line += "; another step limits it still"
		}
		return line, nil
	})
}

// limitsOf combines the limits in force on a node. The caller holds their lock.
func (e *Effects) limitsOf(node string) limits.Limit {
	var tightest limits.Limit
	for _, limit := range e.limits[node].all() {
		tightest = tightest.Tightest(limit)
	}
	return tightest
}

// sendLimits tells a node's agent all limits in force there. The caller holds their lock.
func (e *Effects) sendLimits(ctx context.Context, node string) (agent.LimitsReply, error) {
	reply, err := e.ask(ctx, node, agent.Request{Limits: &agent.Limits{Process: e.processes[node].Name, Limit: e.limitsOf(node)}})
	if err != nil || reply.Limits == nil {
		return agent.LimitsReply{}, err
	}
	return *reply.Limits, nil
}

// endLimits drops what ends with a process that was killed.
func (e *Effects) endLimits(node string) {
	e.limits[node].mu.Lock()
	defer e.limits[node].mu.Unlock()
	steps := e.limits[node].steps
	for i := range steps {
		steps[i].what = steps[i].what.Outlasting()
	}
}
