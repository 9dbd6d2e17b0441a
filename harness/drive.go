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

	mu        sync.Mutex // guards generator and completed
	generator workloads.Generator
	completed chan struct{} // closed at the next completion; nil while nobody waits for it
	began     time.Time

	tally     tally
	processes atomic.Int64 // process numbers below this one are used
}

// tally counts outcomes for live progress.
type tally struct{ ok, fail, info atomic.Int64 }

// Run drives all client threads until ctx ends, or the generator ends for each of them. It
// returns an error only when the recorder can record no more, or a client cannot be made.
func (d *driver) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	nodes := d.cluster.Nodes()
	d.processes.Store(int64(d.threads)) // the first processes are numbered like their threads
	d.began = time.Now()
	for thread := range d.threads {
		group.Go(func() error {
			// Round robin over nodes: each node is asked, not only the leader.
			return d.thread(ctx, thread, nodes[thread%len(nodes)])
		})
	}
	return group.Wait()
}

// thread is one client slot. After an unknown outcome it goes on as a fresh process, with
// fresh clients: the old one's operation may still be in flight.
func (d *driver) thread(ctx context.Context, thread int, home string) error {
	process := thread
	mine := d.clients(home)
	defer mine.close()
	var idle backoff
	for {
		op, ok := d.next(ctx, thread, process)
		if !ok {
			return nil
		}
		done, err := d.perform(ctx, mine, process, op)
		if err != nil {
			return err
		}
		d.complete(done)
		if err := d.recorder.Err(); err != nil {
			return err
		}
		if !idle.after(ctx, done.Type) {
			return nil
		}
		if done.Type == histories.Info {
			process = d.freshProcess()
			mine.close()
		}
	}
}

// next asks the generator for a thread's next operation, and waits as it says; it reports
// whether there is one.
func (d *driver) next(ctx context.Context, thread, process int) (op workloads.Op, ok bool) {
	for ctx.Err() == nil {
		d.mu.Lock()
		step := d.generator.Next(workloads.Moment{Now: time.Since(d.began), Thread: thread, Process: process})
		var completed chan struct{}
		if step.Waits() {
			if d.completed == nil {
				d.completed = make(chan struct{})
			}
			completed = d.completed
		}
		d.mu.Unlock()
		if op, perform := step.Op(); perform || step.Ends() {
			return op, perform
		}
		d.wait(ctx, step, completed)
	}
	return op, false
}

// wait waits for what a step waits for.
func (d *driver) wait(ctx context.Context, step workloads.Step, completed <-chan struct{}) {
	var moment <-chan time.Time
	if until, named := step.Until(); named {
		timer := time.NewTimer(until - time.Since(d.began))
		defer timer.Stop()
		moment = timer.C
	}
	select {
	case <-ctx.Done():
	case <-completed:
	case <-moment:
	}
}

// complete tells the generator, and the threads that wait for a completion.
func (d *driver) complete(done histories.Operation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.generator.Completed(done)
	if d.completed != nil {
		close(d.completed)
		d.completed = nil
	}
}

// clients are those of one process: most workloads ask one node only.
type clients struct {
	driver *driver
	home   string
	open   map[string]systems.KV
}

func (d *driver) clients(home string) *clients {
	return &clients{driver: d, home: home, open: make(map[string]systems.KV)}
}

// of returns the node to ask, and the client of it. An empty node is the home.
func (c *clients) of(node string) (string, systems.KV, error) {
	if node == "" {
		node = c.home
	}
	if client := c.open[node]; client != nil {
		return node, client, nil
	}
	client, err := c.driver.system.Open(c.driver.cluster, node)
	if err == nil {
		c.open[node] = client
	}
	return node, client, err
}

func (c *clients) close() {
	for node, client := range c.open {
		_ = client.Close() // connections only
		delete(c.open, node)
	}
}

// perform carries out one operation: its invoke is recorded before anything is sent, its
// completion after the answer was read. An operation in flight when the run ends is
// waited for, within its own time-out, so that its outcome is known where possible. An
// error is one of the harness.
func (d *driver) perform(ctx context.Context, mine *clients, process int, op workloads.Op) (histories.Operation, error) {
	node, client, err := mine.of(op.Node)
	if err != nil {
		return histories.Operation{}, err
	}
	invoke := d.recorder.Record(histories.Event{
		Process: process, Type: histories.Invoke, F: op.F, Key: op.Key, Value: op.Value, Node: node, Stale: op.Stale, Final: op.Final,
	})
	opCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.opTimeout)
	defer cancel()
	reply, err := d.workload.Perform(opCtx, client, op)
	done := histories.Completion(invoke, reply, err)
	if again, ok := client.(systems.Attempts); ok && again.Attempts() > 1 {
		done.Attempts = again.Attempts()
	}
	done = d.recorder.Record(done)
	d.tally.count(done.Type)
	return histories.OperationOf(invoke, done), nil
}

// freshProcess returns a process number that was never used.
func (d *driver) freshProcess() int { return int(d.processes.Add(1) - 1) }

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
	mine := d.clients(node)
	defer mine.close()
	var idle backoff
	process := d.freshProcess()
	for i := 0; i < len(ops) && ctx.Err() == nil; {
		done, err := d.perform(ctx, mine, process, ops[i])
		if err != nil {
			return err
		}
		if err := d.recorder.Err(); err != nil {
			return err
		}
		if done.Type == histories.OK {
			i++
		}
		if done.Type == histories.Info {
			process = d.freshProcess()
			mine.close()
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
