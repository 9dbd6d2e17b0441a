// Faults measures how fast faults land and heal on five containers, beside the naive way to do
// the same: for each node a fresh SSH connection and a shell command, all nodes at once.
//
//	go run ./ci/bench/faults            # about a minute
//	go run ./ci/bench/faults -rounds 5  # a first look
//
// Both ways take turns, round by round, on the same containers. A time runs from the command to
// the moment when the last node has confirmed: for ours the answer of its agent, that the kernel
// has the rules or that all threads are stopped; for the naive way the exit status 0 of its
// command, which proves less. What ours proves beyond that, by probes over every pair of nodes, is
// told apart: the naive way has nothing like it.
//
// It needs the Docker engine and the image of ci/base-image, and removes its containers. Nothing
// here fails because it is slow.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"capsize/clusters"
	"capsize/clusters/docker"
	"capsize/histories"
	"capsize/nemesis"
)

const (
	warmUp    = 3 // rounds that do not count
	upLimit   = time.Minute
	downLimit = time.Minute
	inForce   = 50 * time.Millisecond
	// settle lets the sessions of the naive way end: nobody's turn shall pay for that.
	settle = 200 * time.Millisecond
)

func main() {
	rounds := flag.Int("rounds", 100, "measurements of each kind")
	nodes := flag.Int("nodes", 5, "containers")
	image := flag.String("image", "capsize-node:1", "of the containers: ci/base-image makes it")
	flag.Parse()
	if *rounds < 1 || *nodes < 2 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "faults: want at least one round on at least two nodes, and no arguments")
		os.Exit(64)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *rounds, *nodes, *image); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds, nodes int, image string) (err error) {
	b, err := setUp(ctx, nodes, image)
	if b != nil {
		defer func() {
			down, cancel := context.WithTimeout(context.WithoutCancel(ctx), downLimit)
			defer cancel()
			err = errors.Join(err, b.takeDown(down))
		}()
	}
	if err != nil {
		return err
	}
	for round := range warmUp + rounds {
		if round == warmUp {
			clear(b.times)
		}
		for _, measure := range []func(context.Context) error{b.partition, b.naivePartition, b.pause, b.naivePause} {
			time.Sleep(settle)
			if err := measure(ctx); err != nil {
				return err
			}
		}
	}
	return b.report()
}

// bench is five containers with our agents, and what was measured on them.
type bench struct {
	dir        string
	cluster    *docker.Cluster
	controller *nemesis.Controller
	processes  map[string]clusters.Process
	pids       map[string]int // of the process on each node, in its own container
	naive      *naive
	times      map[string][]time.Duration
}

func setUp(ctx context.Context, nodes int, image string) (*bench, error) {
	ctx, cancel := context.WithTimeout(ctx, upLimit)
	defer cancel()
	b := &bench{processes: make(map[string]clusters.Process), pids: make(map[string]int), times: make(map[string][]time.Duration)}
	var err error
	if b.dir, err = os.MkdirTemp("", "capsize-bench-"); err != nil {
		return nil, err
	}
	agent := filepath.Join(b.dir, "agent")
	build := exec.CommandContext(ctx, "go", "build", "-o", agent, "./cmd/agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return b, fmt.Errorf("build the agent (run this in the repository): %w: %s", err, said)
	}
	b.cluster, err = docker.New(ctx, docker.Options{
		Run: fmt.Sprintf("bench-faults-%d", os.Getpid()), Image: image, Nodes: nodes,
		Ports: []clusters.Port{{Name: "peer", Number: 7070, Peer: true}},
	})
	if err != nil {
		return b, err
	}
	for _, node := range b.cluster.Nodes() {
		host := b.cluster.Host(node)
		if err := host.Put(ctx, agent, "agent", 0o755); err != nil {
			return b, err
		}
		b.processes[node] = clusters.Process{Name: "db", Argv: []string{"/bin/sleep", "100000"}, Dir: host.Dir(), Log: filepath.Join(host.Dir(), "log")}
	}
	b.controller, err = nemesis.Connect(ctx, b.cluster, nemesis.ConnectOptions{
		Run: "bench", StopOnExpiry: true,
		Argv: func(node string) []string { return []string{filepath.Join(b.cluster.Host(node).Dir(), "agent")} },
	})
	if err != nil {
		return b, err
	}
	for node, process := range b.processes {
		if err := b.controller.Start(ctx, node, process); err != nil {
			return b, err
		}
		running, err := b.controller.Signal(ctx, node, process.Name, "cont")
		if err != nil {
			return b, err
		}
		b.pids[node] = running.Pid
	}
	machines, key := b.cluster.Machines()
	b.naive = &naive{machines: machines, key: key}
	return b, nil
}

func (b *bench) takeDown(ctx context.Context) error {
	var problems []error
	if b.controller != nil {
		problems = append(problems, b.controller.Close(ctx))
	}
	if b.cluster != nil {
		problems = append(problems, b.cluster.Close(ctx))
	}
	return errors.Join(append(problems, os.RemoveAll(b.dir))...)
}

// note keeps a measurement.
func (b *bench) note(what string, took time.Duration) { b.times[what] = append(b.times[what], took) }

// halves cuts the first nodes from the others, as many as are a minority.
func (b *bench) halves() (one, other []string) {
	nodes := b.cluster.Nodes()
	return nodes[:(len(nodes)-1)/2], nodes[(len(nodes)-1)/2:]
}

func (b *bench) partition(ctx context.Context) error {
	one, _ := b.halves()
	return b.inject(ctx, "partition", nemesis.Step{Fault: "partition", Target: strings.Join(one, ","), Params: map[string]string{"kind": "halves"}})
}

func (b *bench) pause(ctx context.Context) error {
	return b.inject(ctx, "pause", nemesis.Step{Fault: "pause", Target: nemesis.All})
}

// inject carries out one step as a run does.
func (b *bench) inject(ctx context.Context, what string, step nemesis.Step) error {
	step.Duration = inForce
	phases := &phases{}
	n := nemesis.New(nemesis.Config{
		Controller: b.controller, Schedule: nemesis.Schedule{Seed: 1, Steps: []nemesis.Step{step}}, Nodes: b.cluster.Nodes(), Processes: b.processes,
		Leader: func(context.Context) (string, bool) { return "n1", true },
		Ready:  func(context.Context, string) error { return nil },
		Log:    phases,
	})
	if err := n.Run(ctx); err != nil {
		return err
	}
	for _, pair := range []struct {
		name       string
		from, till histories.Phase
	}{{"landed", histories.Inject, histories.Landed}, {"healed", histories.Heal, histories.Healed}} {
		began, over := phases.find(pair.from), phases.find(pair.till)
		if over.event.Fault == nil {
			return fmt.Errorf("%s was not %s: %s", what, pair.name, phases.problem())
		}
		b.note(what+" "+pair.name, over.event.Fault.Took)
		b.note(what+" "+pair.name+", proven", over.at.Sub(began.at))
	}
	return nil
}

// phases records when each phase of a fault was told.
type phases struct {
	mu    sync.Mutex
	heard []phase
}

type phase struct {
	event histories.Event
	at    time.Time
}

func (p *phases) Record(e histories.Event) histories.Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = append(p.heard, phase{e, time.Now()})
	return e
}

func (p *phases) find(which histories.Phase) phase {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.heard {
		if one.event.Fault.Phase == which {
			return one
		}
	}
	return phase{}
}

func (p *phases) problem() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.heard {
		if one.event.Error != "" {
			return one.event.Error
		}
	}
	return "nothing says why"
}

// naivePartition makes the same cut with the same tool of the kernel.
func (b *bench) naivePartition(ctx context.Context) error {
	one, other := b.halves()
	cut := make(map[string]string)
	for _, node := range b.cluster.Nodes() {
		enemies := other
		if slices.Contains(other, node) {
			enemies = one
		}
		cut[node] = "nft -f - <<'E'\n" + b.naive.rules(enemies) + "E\n"
	}
	took, err := b.naive.everywhere(ctx, func(node string) string { return cut[node] })
	b.note("partition landed, naively", took)
	if err != nil {
		return err
	}
	took, err = b.naive.everywhere(ctx, func(string) string { return "nft delete table inet naive" })
	b.note("partition healed, naively", took)
	return err
}

func (b *bench) naivePause(ctx context.Context) error {
	took, err := b.naive.everywhere(ctx, func(node string) string { return fmt.Sprintf("kill -STOP %d", b.pids[node]) })
	b.note("pause landed, naively", took)
	if err != nil {
		return err
	}
	took, err = b.naive.everywhere(ctx, func(node string) string { return fmt.Sprintf("kill -CONT %d", b.pids[node]) })
	b.note("pause healed, naively", took)
	return err
}

func (b *bench) report() error {
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		load = []byte("unknown")
	}
	fmt.Printf("%d containers, %d rounds, %d cores, load %s\n\n", len(b.cluster.Nodes()), len(b.times["pause landed"]), runtime.NumCPU(), strings.Fields(string(load))[0])
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "\tours p50\tp99\tproven p50\tp99\tnaive p50\tp99\tnaive/ours p50\tp99\tnaive/proven p50\tp99")
	for _, what := range []string{"partition landed", "partition healed", "pause landed", "pause healed"} {
		ours, proven, naively := b.times[what], b.times[what+", proven"], b.times[what+", naively"]
		_, _ = fmt.Fprint(table, what)
		for _, times := range [][]time.Duration{ours, proven, naively} {
			_, _ = fmt.Fprintf(table, "\t%s\t%s", short(at(times, 50)), short(at(times, 99)))
		}
		for _, times := range [][]time.Duration{ours, proven} {
			_, _ = fmt.Fprintf(table, "\t%.1f×\t%.1f×", ratio(naively, times, 50), ratio(naively, times, 99))
		}
		_, _ = fmt.Fprintln(table)
	}
	return table.Flush()
}

// at returns a percentile.
func at(times []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[min(len(sorted)-1, len(sorted)*percent/100)]
}

func ratio(a, b []time.Duration, percent int) float64 {
	return float64(at(a, percent)) / float64(at(b, percent))
}

func short(d time.Duration) string { return d.Round(10 * time.Microsecond).String() }
