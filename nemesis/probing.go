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
	probeRounds = 10
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
}

// Probe sends probes over the pairs until one has arrived over each that is expected, for
// at most 1.5 seconds. What arrived in any round counts, so a pair that leaks some of its
// probes is seen too.
func (c *Controller) Probe(ctx context.Context, pairs []agent.Pair, expected func(agent.Pair) bool) (Probed, error) {
	p := &probing{Controller: c, pairs: pairs, expected: expected, found: Probed{
		Arrived: make(map[agent.Pair]bool), Unprobed: make(map[agent.Pair]bool),
	}}
	if slices.ContainsFunc(pairs, ofClients) {
		var err error
		if p.clients, err = c.clientProber(ctx); err != nil {
			return p.found, err
		}
		defer p.clients.close()
	}
	for range probeRounds {
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
	nonce := rand.Uint64()
	err = p.everywhere(func(node string) error {
		request := &agent.Probe{Nonce: nonce}
		if p.clients != nil {
			request.Client = p.clients.address(node)
		}
		_, err := p.call(ctx, node, agent.Request{Probe: request})
		return err
	})
	if err == nil && p.clients != nil {
		err = p.clients.send(nonce)
	}
	if err != nil {
		return false, err
	}
	for end := time.Now().Add(probeRound); time.Now().Before(end); {
		if err := p.collect(ctx, nonce); err != nil {
			return false, err
		}
		if p.complete() {
			sleep(ctx, probeSettle)
			return true, p.collect(ctx, nonce)
		}
		if !sleep(ctx, probePoll) {
			return false, ctx.Err()
		}
	}
	return false, nil
}

func (p *probing) collect(ctx context.Context, nonce uint64) error {
	var mu sync.Mutex
	dropped := make(map[agent.Pair]uint64)
	err := p.everywhere(func(to string) error {
		reply, err := p.call(ctx, to, agent.Request{Arrived: &agent.Arrived{Nonce: nonce}})
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
		p.clients.collect(nonce, p.expected, &p.found)
	}
	return err
}

func (p *probing) complete() bool {
	missing := func(pair agent.Pair) bool {
		return p.expected(pair) && !p.found.Arrived[pair] && !p.found.Unprobed[pair]
	}
	return !slices.ContainsFunc(p.pairs, missing) && len(p.found.Unexplained) == 0
}
