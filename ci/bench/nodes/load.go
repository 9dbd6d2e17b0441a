package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	keys = 10_000
	// stallTimeout is how long after its end a measurement waits for the last answers.
	stallTimeout = 10 * time.Second
	// mostAgain is how often a measurement is made again because the leader changed in it.
	mostAgain = 3
	// settle is left between two measurements, for the disk to finish the one before.
	settle = 100 * time.Millisecond
)

// variant is one way to drive one of the systems.
type variant struct {
	cluster     *cluster
	connections int // shared by the clients; 0: each client has its own
}

func (v variant) String() string {
	switch v.connections {
	case 0:
		return v.cluster.name()
	case 1:
		return v.cluster.name() + ", 1 connection"
	}
	return fmt.Sprintf("%s, %d connections", v.cluster.name(), v.connections)
}

// measurement is one window of load.
type measurement struct {
	puts      int
	window    time.Duration
	p50, p99  time.Duration
	serverCPU time.Duration // of the three nodes
	clientCPU time.Duration
}

func (m measurement) perSecond() float64 { return float64(m.puts) / m.window.Seconds() }

// perPut is a CPU time in microseconds a put.
func (m measurement) perPut(cpu time.Duration) float64 {
	return cpu.Seconds() * 1e6 / float64(max(m.puts, 1))
}

// result is everything that was measured with one number of clients.
type result struct {
	clients int
	theirs  []series // one for each number of connections
	ours    series
	again   int // measurements that were made again because the leader changed
}

// series is what one variant did, round by round.
type series struct {
	variant variant
	rounds  []measurement
}

// measureLoad measures every number of clients on both systems, in each of the rounds. The
// systems take turns in going first.
func measureLoad(ctx context.Context, o options, theirs, ours *cluster, progress io.Writer) ([]result, error) {
	results := make([]result, len(o.clients))
	for i, clients := range o.clients {
		results[i] = result{clients: clients, ours: series{variant: variant{cluster: ours}}}
		for _, connections := range upTo(o.connections, clients) {
			results[i].theirs = append(results[i].theirs, series{variant: variant{theirs, connections}})
		}
	}
	for round := range o.rounds {
		for i := range results {
			r := &results[i]
			line := []string{fmt.Sprintf("round %d of %d, %d clients:", round+1, o.rounds, r.clients)}
			for _, s := range r.turn(round) {
				m, again, err := s.variant.settled(ctx, o, r.clients)
				if err != nil {
					return nil, fmt.Errorf("%s with %d clients: %w", s.variant, r.clients, err)
				}
				s.rounds = append(s.rounds, m)
				r.again += again
				line = append(line, fmt.Sprintf("%s %.0f/s;", s.variant, m.perSecond()))
			}
			fmt.Fprintln(progress, strings.Join(line, " "))
		}
	}
	return results, nil
}

// upTo returns the numbers in rising order, with most in place of all that are greater.
func upTo(numbers []int, most int) []int {
	var cut []int
	for _, n := range numbers {
		cut = append(cut, min(n, most))
	}
	slices.Sort(cut)
	return slices.Compact(cut)
}

// turn returns all series in the order of this round.
func (r *result) turn(round int) []*series {
	var all []*series
	for i := range r.theirs {
		all = append(all, &r.theirs[i])
	}
	all = append(all, &r.ours)
	if round%2 == 1 {
		slices.Reverse(all)
	}
	return all
}

// settled measures until the leader is the same before and after: an election is no matter
// of speed. It returns how many measurements were not used.
func (v variant) settled(ctx context.Context, o options, clients int) (measurement, int, error) {
	for again := 0; ; again++ {
		leader, err := v.cluster.leader(ctx)
		if err != nil {
			return measurement{}, 0, err
		}
		m, failed := v.measure(ctx, o, clients, leader)
		after, err := v.cluster.leader(ctx)
		if err != nil {
			return measurement{}, 0, errors.Join(failed, err)
		}
		switch {
		case after == leader && failed == nil:
			return m, again, nil
		case after == leader:
			return measurement{}, 0, failed
		case again == mostAgain:
			return measurement{}, 0, errors.Join(failed, fmt.Errorf("the leader changed in each of %d measurements", again+1))
		}
	}
}

// measure lets clients put for the warm-up and the window, and counts what is answered
// within the window.
func (v variant) measure(ctx context.Context, o options, clients, leader int) (measurement, error) {
	addresses := []string{v.cluster.members[leader].client}
	if o.spread {
		addresses = addresses[:0]
		for _, m := range v.cluster.members {
			addresses = append(addresses, m.client)
		}
	}
	puts, disconnect, err := v.cluster.connect(ctx, addresses, clients, v.connections)
	if err != nil {
		return measurement{}, err
	}
	defer disconnect()
	if err := waitUntil(ctx, time.Now().Add(settle)); err != nil {
		return measurement{}, err
	}
	begin := time.Now().Add(o.warmup)
	d := newDrive(ctx, puts, o.valueBytes, begin, begin.Add(o.window))
	m := measurement{window: o.window}
	m.serverCPU, m.clientCPU, err = v.cluster.cpuBetween(ctx, d.begin, d.end)
	latencies, failed := d.wait()
	slices.Sort(latencies)
	m.puts, m.p50, m.p99 = len(latencies), percentile(latencies, 50), percentile(latencies, 99)
	return m, errors.Join(failed, err)
}

// cpuBetween returns what the nodes and this program use from one moment to another, for
// which it waits.
func (c *cluster) cpuBetween(ctx context.Context, begin, end time.Time) (servers, clients time.Duration, err error) {
	sampleAt := func(moment time.Time) (servers, clients time.Duration) {
		err = errors.Join(err, waitUntil(ctx, moment))
		servers, failed := c.cpu()
		err = errors.Join(err, failed)
		clients, failed = ownCPUTime()
		err = errors.Join(err, failed)
		return servers, clients
	}
	servers0, clients0 := sampleAt(begin)
	servers1, clients1 := sampleAt(end)
	return servers1 - servers0, clients1 - clients0, err
}

// waitUntil returns at that moment, or with the reason when ctx ends before.
func waitUntil(ctx context.Context, moment time.Time) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(time.Until(moment)):
		return nil
	}
}

// drive is clients at work, each of which sends its next put when the last is answered.
type drive struct {
	begin, end time.Time // of what counts
	running    sync.WaitGroup
	cancel     context.CancelFunc
	stalled    *time.Timer
	latencies  [][]time.Duration // by client
	errs       []error           // by client
}

// newDrive starts the clients. They stop at end, or at the first error.
func newDrive(ctx context.Context, puts []put, valueBytes int, begin, end time.Time) *drive {
	d := &drive{begin: begin, end: end, latencies: make([][]time.Duration, len(puts)), errs: make([]error, len(puts))}
	// No deadline in the context itself: gRPC would send it along with every put, and HTTP
	// would not.
	ctx, cancel := context.WithCancelCause(ctx)
	d.cancel = func() { cancel(nil) }
	d.stalled = time.AfterFunc(time.Until(end)+stallTimeout, func() {
		cancel(fmt.Errorf("a put is not answered %s after the end", stallTimeout))
	})
	for i, put := range puts {
		source := rand.New(rand.NewPCG(uint64(i), uint64(len(puts)))) // the same keys for both systems
		d.running.Go(func() {
			for d.errs[i] == nil && time.Now().Before(end) {
				key := fmt.Sprintf("k%07d", source.IntN(keys))
				value := text(source, valueBytes)
				sent := time.Now()
				err := put(ctx, key, value)
				answered := time.Now()
				if err != nil {
					d.errs[i] = fmt.Errorf("put %s: %w", key, errors.Join(err, context.Cause(ctx)))
				} else if !answered.Before(begin) && answered.Before(end) {
					d.latencies[i] = append(d.latencies[i], answered.Sub(sent))
				}
			}
		})
	}
	return d
}

// wait returns, when all clients have stopped, how long each put took that was answered
// from begin to end, and the first client's error if there is one.
func (d *drive) wait() ([]time.Duration, error) {
	d.running.Wait()
	d.stalled.Stop()
	d.cancel()
	for _, err := range d.errs {
		if err != nil {
			return nil, err
		}
	}
	return slices.Concat(d.latencies...), nil
}

// text returns so many letters.
func text(source *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(source.IntN(26))
	}
	return string(b)
}
