package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"capsize/clusters"
	"capsize/clusters/docker"
	"capsize/clusters/local"
	"capsize/clusters/ssh"
	"capsize/histories"
	"capsize/nemesis"
	"capsize/nemesis/agent"
	"capsize/systems"
)

// deployment is a system that runs on a cluster, with an agent on every node.
type deployment struct {
	run        *run
	cluster    clusters.Cluster
	system     systems.System
	controller *nemesis.Controller
	schedule   nemesis.Schedule // drawn for what the agents can do

	mu       sync.Mutex
	expected map[string]bool // nodes whose end the harness itself asked for
	serving  bool            // every node has answered once
	exits    int             // of processes that nobody had asked to end
	died     chan string     // why a node's process ended by itself; taken while the start is waited for
}

const (
	takeDownLimit = time.Minute
	agentProgram  = "agent"
	stopLimit     = 5 * time.Second
)

// deploy brings the cluster up, installs and starts the system, and waits until every
// node serves. What was made is returned even with an error, so that it is taken down.
func (r *run) deploy(ctx context.Context, planned nemesis.Schedule) (*deployment, error) {
	began := time.Now()
	d := &deployment{run: r, expected: make(map[string]bool), died: make(chan string, maxNodes)}
	prepare, prepareCtx := errgroup.WithContext(ctx)
	var agentPath string
	prepare.Go(func() (err error) {
		agentPath, err = program(prepareCtx, agentProgram, r.plan.AgentBinary)
		return err
	})
	prepare.Go(func() (err error) {
		d.system, err = systemsByName[r.plan.System].make(prepareCtx, &r.plan)
		return err
	})
	if err := prepare.Wait(); err != nil {
		return nil, err
	}
	built := time.Now()
	var err error
	if d.cluster, err = r.makeCluster(ctx, d.system.Ports(), planned.Needs(agent.Disks)); err != nil {
		return nil, err
	}
	if err := d.install(ctx, agentPath); err != nil {
		return d, err
	}
	survey, err := d.controller.Survey(ctx)
	if err != nil {
		return d, fmt.Errorf("ask the agents what they can do: %w", err)
	}
	d.addMembership(survey)
	able := nemesis.Survey(survey)
	if planned.Needs(agent.Disks) {
		able = able.Without(agent.LimitIO, "in this run another process writes for the system, which no limit of its I/O reaches: use disk with kind slow, or leave out the faults of disks")
	}
	if d.schedule, err = r.draw(planned, able); err != nil {
		return d, err
	}
	if err := d.start(ctx); err != nil {
		return d, err
	}
	if err := d.waitReady(ctx); err != nil {
		return d, err
	}
	d.mu.Lock()
	d.serving = true
	d.mu.Unlock()
	r.progress.Say("%d nodes answer (%s cluster; programs ready in %.1f s, nodes up in %.1f s)",
		len(d.cluster.Nodes()), d.cluster.Kind(), built.Sub(began).Seconds(), time.Since(built).Seconds())
	return d, nil
}

// makeCluster makes the machines. Their disks can fail where that takes rights that machines do
// without otherwise.
func (r *run) makeCluster(ctx context.Context, ports []clusters.Port, disks bool) (clusters.Cluster, error) {
	switch r.plan.Cluster {
	case "docker":
		return docker.New(ctx, docker.Options{
			Run: r.facts.ID, Image: r.plan.Image, Nodes: r.plan.Nodes, Ports: ports, Disks: disks,
		})
	case "ssh":
		return ssh.New(ctx, ssh.Options{
			Run: r.facts.ID, Hosts: r.plan.Hosts, Key: r.plan.SSHKey, KnownHosts: r.plan.SSHKnownHosts, Ports: ports, Keep: r.plan.KeepData,
		})
	default:
		return local.New(local.Options{
			Run: r.facts.ID, Dir: r.dir.Cluster(), Nodes: r.plan.Nodes, Ports: ports, BasePort: r.plan.BasePort, Keep: r.plan.KeepData,
		})
	}
}

// install copies the programs to every host and attaches the agents.
func (d *deployment) install(ctx context.Context, agentPath string) error {
	files, err := d.system.Files(ctx)
	if err != nil {
		return fmt.Errorf("prepare %s: %w", d.system.Name(), err)
	}
	files = append(files, clusters.File{Local: agentPath, Name: agentProgram, Mode: 0o755})
	err = d.everyNode(ctx, func(ctx context.Context, node string) error {
		for _, file := range files {
			if err := d.cluster.Host(node).Put(ctx, file.Local, file.Name, file.Mode); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	d.controller, err = nemesis.Connect(ctx, d.cluster, nemesis.ConnectOptions{
		Run:          d.run.facts.ID,
		Argv:         func(node string) []string { return []string{path.Join(d.cluster.Host(node).Dir(), agentProgram)} },
		ClientPorts:  clientPorts(d.system.Ports()),
		StopOnExpiry: d.cluster.Kind() != "docker", // containers stay, to be looked at, until clean; standing hosts must be free for the next run
		OnExit:       d.exited,
		OnLost:       func(node string, err error) { d.run.fail(fmt.Errorf("the agent on %s is lost: %w", node, err)) },
	})
	return err
}

// clientPorts are the names of the ports where clients talk to nodes.
func clientPorts(ports []clusters.Port) []string {
	var names []string
	for _, port := range ports {
		if !port.Peer {
			names = append(names, port.Name)
		}
	}
	return names
}

// process is the program of a node.
func (d *deployment) process(node string) clusters.Process {
	return d.prepare(d.system.Process(d.cluster, node))
}

// prepare makes a node's program ready for the faults of the schedule.
func (d *deployment) prepare(process clusters.Process) clusters.Process {
	process.Clock = d.schedule.Uses("clock")
	process.Disk = d.schedule.Needs(agent.Disks)
	return process
}

// clock returns how to ask the system for a node's time; nil where it does not tell.
func (d *deployment) clock() func(context.Context, string) (time.Time, error) {
	system, ok := d.system.(systems.Clocked)
	if !ok {
		return nil
	}
	return func(ctx context.Context, node string) (time.Time, error) { return system.Clock(ctx, d.cluster, node) }
}

// start starts the system on every node.
func (d *deployment) start(ctx context.Context) error {
	return d.everyNode(ctx, func(ctx context.Context, node string) error {
		return d.controller.Start(ctx, node, d.process(node))
	})
}

// exited is called when a node's process ended without the nemesis having asked for it.
func (d *deployment) exited(node string, exit agent.Exited) {
	d.mu.Lock()
	expected := d.expected[node]
	if !expected {
		d.exits++
	}
	serving := d.serving
	d.mu.Unlock()
	if expected {
		return
	}
	why := fmt.Sprintf("%s's process ended by itself: %s", node, exit.Status)
	if len(exit.Tail) > 0 {
		why += "; its last log lines:\n    " + strings.Join(exit.Tail, "\n    ")
	}
	d.run.recorder.Record(histories.Event{
		Process: histories.Observer, Type: histories.Info, F: "exit", Node: node, Error: why, Status: &histories.Status{},
	})
	if serving {
		d.run.note("%s", why)
		return
	}
	select {
	case d.died <- why: // who waits for the start tells it
	default: // it has heard of as many ends as there are nodes
	}
}

// broken reports whether a node's process has ended by itself.
func (d *deployment) broken() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.exits > 0
}

// waitReady waits until every node has answered a write and a read.
func (d *deployment) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.run.plan.ReadyLimit)
	defer cancel()
	type outcome struct{ err error }
	ready := make(chan outcome, 1)
	go func() { ready <- outcome{d.everyNode(ctx, d.serves)} }()
	select {
	case all := <-ready:
		err := all.err
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("the cluster did not serve within %s of its start: %w", d.run.plan.ReadyLimit, err)
		}
		return err
	case why := <-d.died:
		cancel()
		<-ready
		return fmt.Errorf("the cluster did not start: %s", why)
	}
}

// readyKey is written while the cluster starts; no workload uses it.
const readyKey = "capsize-ready"

// serves waits until a node has answered a write and a read: a port that is open, or a
// health page that says ok, is not enough.
func (d *deployment) serves(ctx context.Context, node string) error {
	client, err := d.system.Open(d.cluster, node)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // connections only
	var last error
	for {
		tryCtx, cancel := context.WithTimeout(ctx, time.Second)
		if _, last = client.Put(tryCtx, readyKey, 1); last == nil {
			_, last = client.Get(tryCtx, readyKey)
		}
		cancel()
		if last == nil {
			return nil
		}
		if !sleep(ctx, 10*time.Millisecond) {
			return fmt.Errorf("%s does not serve: %w (%w)", node, last, ctx.Err())
		}
	}
}

// takeDown stops the system, collects what it wrote, ends the agents and removes the
// cluster.
func (d *deployment) takeDown(ctx context.Context) error {
	var problems []error
	if d.controller != nil {
		d.stop(ctx)
		problems = append(problems, d.collect(ctx), d.controller.Close(ctx))
	}
	if d.cluster != nil {
		problems = append(problems, d.cluster.Close(ctx))
	}
	return errors.Join(problems...)
}

// stop ends the system's processes, gently first, so that traces and logs are whole. A
// process that has ended already is what was wanted: nothing here is an error, and what
// happens on one node must not cut the others short.
func (d *deployment) stop(ctx context.Context) {
	d.mu.Lock()
	for _, node := range d.cluster.Nodes() {
		d.expected[node] = true
	}
	d.mu.Unlock()
	_ = d.everyNode(ctx, func(ctx context.Context, node string) error {
		name := d.process(node).Name
		gentle, cancel := context.WithTimeout(ctx, stopLimit)
		defer cancel()
		if _, err := d.controller.Signal(gentle, node, name, "term"); err != nil {
			_, _ = d.controller.Signal(ctx, node, name, "kill")
		}
		return nil
	})
}

// collect copies logs and traces into the run directory.
func (d *deployment) collect(ctx context.Context) error {
	traced, _ := d.system.(systems.Traced)
	return d.everyNode(ctx, func(ctx context.Context, node string) error {
		process := d.process(node)
		host := d.cluster.Host(node)
		artifacts := map[string]string{}
		if traced != nil {
			for name, as := range traced.Artifacts(node) {
				artifacts[name] = as
			}
		}
		if log, err := filepath.Rel(host.Dir(), process.Log); err == nil {
			artifacts[log] = process.Name + ".log"
		}
		for name, as := range artifacts {
			err := host.Get(ctx, name, filepath.Join(d.run.dir.Node(node), as))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("collect %s from %s: %w", name, node, err)
			}
		}
		return nil
	})
}

func (d *deployment) everyNode(ctx context.Context, do func(ctx context.Context, node string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, node := range d.cluster.Nodes() {
		group.Go(func() error { return do(ctx, node) })
	}
	return group.Wait()
}
