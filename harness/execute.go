package harness

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"capsize/checkers"
	"capsize/clusters"
	"capsize/nemesis"
)

// test is the middle of a run: clients and nemesis against a cluster that serves, then
// healing and the last reads.
func (r *run) test(ctx context.Context, d *deployment) error {
	watch := newObserver(d.system, d.cluster, r.recorder)
	driver := &driver{
		system: d.system, cluster: d.cluster, workload: r.workload, recorder: r.recorder,
		generator: r.plan.pace(r.workload.NewGenerator(r.plan.Seed, r.plan.Concurrency)),
		opTimeout: r.plan.OpTimeout, threads: r.plan.Concurrency,
	}
	breaker := r.nemesis(d, watch)

	// The observer outlives the clients: it watches the recovery too.
	watchCtx, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	var watching sync.WaitGroup
	watching.Go(func() { watch.Run(watchCtx) })
	defer func() {
		stopWatching()
		watching.Wait()
	}()

	err := r.drive(ctx, driver, breaker, watch)
	err = errors.Join(err, r.recover(ctx, d, driver, breaker))
	return errors.Join(err, breaker.Resolved().Save(r.dir.Resolved()))
}

// drive lets clients and nemesis work until the time is over, someone interrupts, one of them
// can no longer go on, or the live check raises an alarm.
func (r *run) drive(ctx context.Context, clients *driver, breaker *nemesis.Nemesis, watch *observer) error {
	timed, cancel := context.WithTimeout(ctx, r.plan.TimeLimit)
	defer cancel()
	breakCtx, stopBreaking := context.WithCancel(ctx) // outlasts the clients where the cluster is held
	defer stopBreaking()
	go func() {
		select {
		case <-r.stopped:
			cancel()
		case <-timed.Done():
		}
	}()
	guard := newWatchman(r.workload.Checkers(limitsOf(&r.plan, r.dir)))
	r.recorder.OnEvent(guard.take)
	var others sync.WaitGroup
	others.Go(func() { r.show(timed, clients, breaker, watch) })
	others.Go(func() { r.stopAtAlarm(timed, guard, breaker, cancel) })

	group, groupCtx := errgroup.WithContext(timed)
	group.Go(func() error {
		defer cancel() // when the generator has ended, there is nothing left to break
		return clients.Run(groupCtx)
	})
	var breaking error
	var broken sync.WaitGroup
	broken.Go(func() {
		if breaking = breaker.Run(breakCtx); breaking != nil {
			cancel()
		}
	})
	err := group.Wait()
	cancel()
	others.Wait()
	if r.facts.Alarm != nil {
		r.hold(ctx, breaker)
	}
	stopBreaking()
	broken.Wait()
	r.recorder.OnEvent(nil)
	for _, unjudged := range guard.close() {
		r.progress.Say("not judged while the run went on: %s", unjudged)
	}
	return errors.Join(err, breaking)
}

// stopAtAlarm ends the clients' work at an alarm of the live check, if the plan says so.
func (r *run) stopAtAlarm(ctx context.Context, guard *watchman, breaker *nemesis.Nemesis, stop context.CancelFunc) {
	alarm, raised := guard.violated(ctx)
	if !raised {
		return
	}
	after := (r.recorder.Elapsed() - alarm.At).Round(time.Millisecond)
	r.progress.Say("violation seen %s after it happened: %s", after, alarm.Why)
	if !r.plan.StopOnViolation {
		return
	}
	r.note("stopped at the first violation, %s after it happened at %s", after, checkers.Clock(alarm.At))
	r.mu.Lock()
	r.facts.Alarm = &alarm
	r.mu.Unlock()
	if r.plan.Hold > 0 {
		breaker.Hold()
	}
	stop()
}

// hold leaves nodes and faults as they are, for a look.
func (r *run) hold(ctx context.Context, breaker *nemesis.Nemesis) {
	if r.plan.Hold == 0 {
		return
	}
	r.progress.Say("held for %s as it was at the violation (%s in force); Ctrl-C goes on", r.plan.Hold, strings.Join(breaker.InForce(), ", "))
	sleep(ctx, r.plan.Hold)
}

// recover heals everything, proves it, and lets every node answer the last reads. It
// happens after an interruption too.
func (r *run) recover(ctx context.Context, d *deployment, clients *driver, breaker *nemesis.Nemesis) error {
	ctx = context.WithoutCancel(ctx)
	healCtx, cancel := context.WithTimeout(ctx, takeDownLimit)
	defer cancel()
	if err := breaker.HealAll(healCtx); err != nil {
		if !d.broken() {
			return err
		}
		// A killed node that does not come up again is the system's own failure: it is in the
		// history as such, and the others can still answer.
		r.note("not everything could be healed: %v", err)
	}
	if err := r.recorder.Err(); err != nil {
		return err
	}
	r.progress.Say("everything is healed; last reads on every node")
	return clients.final(ctx, r.plan.RecoveryLimit)
}

// nemesis makes what will carry the schedule out.
func (r *run) nemesis(d *deployment, watch *observer) *nemesis.Nemesis {
	processes := make(map[string]clusters.Process)
	for _, node := range d.cluster.Nodes() {
		processes[node] = d.process(node)
	}
	return nemesis.New(nemesis.Config{
		Controller: d.controller,
		Schedule:   d.schedule,
		Seed:       r.plan.Seed,
		Nodes:      d.cluster.Nodes(),
		Processes:  processes,
		Leader: func(context.Context) (string, bool) {
			node, _, ok := watch.Leader()
			return node, ok
		},
		Clock:   d.clock(),
		Ready:   d.serves,
		Members: d.members(),
		Log:     r.recorder,
		Say:     r.progress.Say,
	})
}

// show prints progress until ctx ends.
func (r *run) show(ctx context.Context, clients *driver, breaker *nemesis.Nemesis, watch *observer) {
	began := time.Now()
	var before int64
	beforeAt := began
	for sleep(ctx, r.progress.every()) {
		now := snapshot{
			elapsed: time.Since(began), limit: r.plan.TimeLimit,
			ok: clients.tally.ok.Load(), fail: clients.tally.fail.Load(), info: clients.tally.info.Load(),
			faults: breaker.InForce(),
		}
		now.leader, now.term, _ = watch.Leader()
		now.perSecond = float64(now.ok-before) / time.Since(beforeAt).Seconds()
		before, beforeAt = now.ok, time.Now()
		r.progress.Show(now.String())
	}
}

// fail ends the run early because the harness can no longer do its work.
func (r *run) fail(err error) {
	r.problem(err)
	r.stopOnce.Do(func() { close(r.stopped) })
}
