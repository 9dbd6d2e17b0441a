package harness

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"capsize/clusters"
	"capsize/histories"
	"capsize/systems"
	"capsize/workloads"
)

// driver is the clients: it performs the workload's operations against the system and
// records both ends of each.
type driver struct {
	system    systems.System
	cluster   clusters.Cluster
	workload  workloads.Workload
	recorder  *histories.Recorder
	opTimeout time.Duration
	threads   int
	pace      pace

	mu        sync.Mutex // guards generator
	generator workloads.Generator

	tally     tally
	processes atomic.Int64 // process numbers below this one are used
}

// tally counts outcomes for live progress.
type tally struct{ ok, fail, info atomic.Int64 }

// Run drives all client threads until ctx ends. It returns an error only when the
// recorder can record no more, or a client cannot be made.
func (d *driver) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	nodes := d.cluster.Nodes()
	d.processes.Store(int64(d.threads)) // the first processes are numbered like their threads
	for thread := range d.threads {
		group.Go(func() error {
			// Round robin over nodes: each node is asked, not only the leader.
			return d.thread(ctx, thread, nodes[thread%len(nodes)])
		})
	}
	return group.Wait()
}

// thread is one client slot. After an unknown outcome it goes on as a fresh process, with
// a fresh client: the old one's operation may still be in flight.
func (d *driver) thread(ctx context.Context, thread int, node string) error {
	process := thread
	client, err := d.system.Open(d.cluster, node)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // connections only
	var idle backoff
	for d.pace.wait(ctx) {
		d.mu.Lock()
		op := d.generator.Next(thread, process)
		d.mu.Unlock()
		done := d.perform(ctx, client, node, process, op)
		d.mu.Lock()
		d.generator.Completed(done)
		d.mu.Unlock()
		if err := d.recorder.Err(); err != nil {
			return err
		}
		if !idle.after(ctx, done.Type) {
			return nil
		}
		if done.Type != histories.Info {
			continue
		}
		process = d.freshProcess()
		_ = client.Close()
		if client, err = d.system.Open(d.cluster, node); err != nil {
			return err
		}
	}
	return nil
}

// perform carries out one operation: its invoke is recorded before anything is sent, its
// completion after the answer was read. An operation in flight when the run ends is
// waited for, within its own time-out, so that its outcome is known where possible.
func (d *driver) perform(ctx context.Context, client systems.KV, node string, process int, op workloads.Op) histories.Operation {
	invoke := d.recorder.Record(histories.Event{
		Process: process, Type: histories.Invoke, F: op.F, Key: op.Key, Value: op.Value, Node: node, Final: op.Final,
	})
	opCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.opTimeout)
	defer cancel()
	value, err := d.workload.Perform(opCtx, client, op)
	done := histories.Event{
		Process: process, Type: histories.Outcome(err), F: op.F, Key: op.Key, Value: op.Value, Node: node, Final: op.Final,
	}
	if err != nil {
		done.Error = err.Error()
	} else {
		done.Value = value
	}
	if again, ok := client.(systems.Attempts); ok && again.Attempts() > 1 {
		done.Attempts = again.Attempts()
	}
	done = d.recorder.Record(done)
	d.tally.count(done.Type)
	return operation(invoke, done)
}

// freshProcess returns a process number that was never used.
func (d *driver) freshProcess() int { return int(d.processes.Add(1) - 1) }

func operation(invoke, done histories.Event) histories.Operation {
	return histories.Operations([]histories.Event{invoke, done})[0]
}

func (t *tally) count(outcome histories.Type) {
	switch outcome {
	case histories.OK:
		t.ok.Add(1)
	case histories.Fail:
		t.fail.Add(1)
	default:
		t.info.Add(1)
	}
}

// final performs the workload's last reads on every node, round after round, until each
// node has answered all of its own or the deadline passes. A read that gets no answer is
// read again as a new operation; the first answer of each node is what the liveness
// checker looks for.
func (d *driver) final(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ops := d.generator.Final()
	group, ctx := errgroup.WithContext(ctx)
	for _, node := range d.cluster.Nodes() {
		group.Go(func() error { return d.finalReads(ctx, node, ops) })
	}
	return group.Wait()
}

func (d *driver) finalReads(ctx context.Context, node string, ops []workloads.Op) error {
	client, err := d.system.Open(d.cluster, node)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // connections only
	var idle backoff
	process := d.freshProcess()
	for i := 0; i < len(ops) && ctx.Err() == nil; {
		done := d.perform(ctx, client, node, process, ops[i])
		if err := d.recorder.Err(); err != nil {
			return err
		}
		if done.Type == histories.OK {
			i++
		}
		if done.Type == histories.Info {
			process = d.freshProcess()
		}
		if !idle.after(ctx, done.Type) {
			return nil
		}
	}
	return nil
}

// backoff keeps a client that is refused at once from filling the history with refusals.
type backoff struct{ next time.Duration }

const backoffMost = 100 * time.Millisecond

// after waits a little if the outcome was not OK; it reports whether to go on.
func (b *backoff) after(ctx context.Context, outcome histories.Type) bool {
	if outcome == histories.OK {
		b.next = 0
		return ctx.Err() == nil
	}
	b.next = min(max(2*b.next, 5*time.Millisecond), backoffMost)
	return sleep(ctx, b.next)
}

// pace spreads operations evenly over time.
type pace struct {
	every time.Duration // between two operations of all clients; 0: no pace
	start time.Time
	turn  atomic.Int64
}

func (p *pace) set(perSecond float64) {
	p.start = time.Now()
	if perSecond > 0 {
		p.every = time.Duration(float64(time.Second) / perSecond)
	}
}

// wait blocks until the caller's turn; it reports whether to go on. Turns that nobody
// took in time are not made up for: after a stall the clients do not all rush at once.
func (p *pace) wait(ctx context.Context) bool {
	if p.every == 0 {
		return ctx.Err() == nil
	}
	now := int64(time.Since(p.start) / p.every)
	for {
		last := p.turn.Load()
		mine := max(last+1, now)
		if p.turn.CompareAndSwap(last, mine) {
			return sleep(ctx, time.Until(p.start.Add(time.Duration(mine)*p.every)))
		}
	}
}

// sleep waits for d; it reports whether ctx is still live.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
