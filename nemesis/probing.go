package nemesis

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"capsize/clusters"
	"capsize/nemesis/agent"
)

// Probed is what probes over pairs of nodes, and of nodes and clients, found.
type Probed struct {
	Arrived map[agent.Pair]bool
	// Unprobed are pairs over which nothing can be sent since the other direction is cut:
	// what clients are sent answers what they sent.
	Unprobed map[agent.Pair]bool
	// Unexplained are cut pairs that were silent without anything having been dropped.
	Unexplained []agent.Pair
	// Dropped is what the present Block has held back so far, as [Controller.Block]
	// returns it.
	Dropped map[agent.Pair]uint64
}

const (
	probeRound  = 150 * time.Millisecond // after which probes that are missing are sent again
	probeTime   = 10 * probeRound
	probeAgain  = 40 * time.Millisecond // the same where probes are lost on purpose
	probePoll   = 2 * time.Millisecond
	probeSettle = 10 * time.Millisecond // for a probe that must not arrive to do so
)

// probing is one [Controller.Probe].
type probing struct {
	*Controller
	pairs    []agent.Pair
	expected func(agent.Pair) bool
	clients  clientProber // nil where no pair concerns clients
	found    Probed
	nonce    uint64 // the same in all rounds: a probe that is late counts in the next
	again    time.Duration
}

// Probe sends probes over the pairs until one has arrived over each that is expected, for
// at most 1.5 seconds and the slack, for pairs that are slow or lossy. What arrived in any round counts, so a pair that leaks some of its
// probes is seen too.
func (c *Controller) Probe(ctx context.Context, pairs []agent.Pair, expected func(agent.Pair) bool, slack time.Duration) (Probed, error) {
	p := &probing{Controller: c, pairs: pairs, expected: expected, found: Probed{
		Arrived: make(map[agent.Pair]bool), Unprobed: make(map[agent.Pair]bool),
	}, nonce: rand.Uint64(), again: probeRound}
	if slack > 0 {
		p.again = probeAgain
	}
	if slices.ContainsFunc(pairs, ofClients) {
		var err error
		if p.clients, err = c.clientProber(ctx); err != nil {
			return p.found, err
		}
		defer p.clients.close()
	}
	for end := time.Now().Add(probeTime + slack); time.Now().Before(end); {
		if over, err := p.round(ctx); over || err != nil {
			return p.found, err
		}
	}
	return p.found, nil
}

// ofClients reports whether a pair is one of a node and clients.
func ofClients(pair agent.Pair) bool {
	return pair.From == clusters.Client || pair.To == clusters.Client
}

// round sends probes once and waits for them. It reports whether all is found that there
// was to find.
func (p *probing) round(ctx context.Context) (over bool, err error) {
	err = p.everywhere(func(node string) error {
		request := &agent.Probe{Nonce: p.nonce}
		if p.clients != nil {
			request.Client = p.clients.address(node)
		}
		_, err := p.call(ctx, node, agent.Request{Probe: request})
		return err
	})
	if err == nil && p.clients != nil {
		err = p.clients.send(p.nonce)
	}
	if err != nil {
		return false, err
	}
	for end := time.Now().Add(p.again); time.Now().Before(end); {
		if err := p.collect(ctx); err != nil {
			return false, err
		}
		if p.complete() {
			sleep(ctx, probeSettle)
			return true, p.collect(ctx)
		}
		if !sleep(ctx, probePoll) {
			return false, ctx.Err()
		}
	}
	return false, nil
}

func (p *probing) collect(ctx context.Context) error {
	var mu sync.Mutex
	dropped := make(map[agent.Pair]uint64)
	err := p.everywhere(func(to string) error {
		reply, err := p.call(ctx, to, agent.Request{Arrived: &agent.Arrived{Nonce: p.nonce}})
		if err != nil || reply.Arrived == nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, from := range reply.Arrived.From {
			p.found.Arrived[agent.Pair{From: from, To: to}] = true
		}
		add(dropped, reply.Arrived.Dropped)
		return nil
	})
	p.found.Dropped = dropped
	if p.clients != nil {
		p.clients.collect(p.nonce, p.expected, &p.found)
	}
	return err
}

func (p *probing) complete() bool {
	missing := func(pair agent.Pair) bool {
		return p.expected(pair) && !p.found.Arrived[pair] && !p.found.Unprobed[pair]
	}
	return !slices.ContainsFunc(p.pairs, missing) && len(p.found.Unexplained) == 0
}
