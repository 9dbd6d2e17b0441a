package harness

import (
	"context"
	"sync"
	"time"

	"capsize/clusters"
	"capsize/histories"
	"capsize/systems"
)

// observer polls the nodes' own view of leader and term, records what changes, and
// knows the present leader for the nemesis and for live progress.
type observer struct {
	system   systems.Observer // nil where the system tells nothing
	cluster  clusters.Cluster
	recorder *histories.Recorder

	mu   sync.Mutex
	last map[string]histories.Status
}

const (
	pollEvery   = 100 * time.Millisecond
	pollTimeout = 400 * time.Millisecond
)

func newObserver(system systems.System, cluster clusters.Cluster, recorder *histories.Recorder) *observer {
	o := &observer{cluster: cluster, recorder: recorder, last: make(map[string]histories.Status)}
	o.system, _ = system.(systems.Observer)
	return o
}

// Run polls every node until ctx ends. Each node has a poller of its own: one that hangs
// does not delay the others.
func (o *observer) Run(ctx context.Context) {
	if o.system == nil {
		return
	}
	var pollers sync.WaitGroup
	for _, node := range o.cluster.Nodes() {
		pollers.Go(func() {
			for sleep(ctx, pollEvery) {
				o.note(ctx, node, o.poll(ctx, node))
			}
		})
	}
	pollers.Wait()
}

func (o *observer) poll(ctx context.Context, node string) histories.Status {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	status, err := o.system.Status(ctx, o.cluster, node)
	status.Up = err == nil
	return status
}

// note keeps a status, and records it if who leads or what term it is has changed.
func (o *observer) note(ctx context.Context, node string, status histories.Status) {
	if ctx.Err() != nil {
		return // the poll was cut short by the end of the run: it says nothing of the node
	}
	o.mu.Lock()
	before, known := o.last[node]
	o.last[node] = status
	o.mu.Unlock()
	shown := status
	shown.Commit, shown.Applied = before.Commit, before.Applied
	if known && shown == before {
		return
	}
	o.recorder.Record(histories.Event{Process: histories.Observer, Type: histories.Info, F: "status", Node: node, Status: &status})
}

// Leader returns the node that leads in the highest term, as the nodes said last.
func (o *observer) Leader() (node string, term uint64, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, status := range o.last {
		if status.Up && status.Role == "leader" && (!ok || status.Term > term) {
			node, term, ok = name, status.Term, true
		}
	}
	return node, term, ok
}
