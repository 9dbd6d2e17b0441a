package agent

import (
	"errors"
	"fmt"

	"capsize/nemesis/agent/links"
)

// barrier cuts directed pairs of nodes, as far as this node can.
type barrier interface {
	// block replaces what is cut, in one step, and returns what the barrier before it held
	// back, for each sending node. Where a pair concerns this node and cannot be cut it
	// changes nothing.
	block(pairs []Pair) (map[string]uint64, error)
	// dropped returns what the present barrier has held back so far.
	dropped() (map[string]uint64, error)
	// close cuts nothing any more and lets go of everything.
	close() error
}

// newBarrier makes the barrier that this node can have, and tells which: "proxy",
// "nftables", or "none: why".
func newBarrier(h *Hello, arrived *arrivals) (barrier, string, error) {
	if len(h.Links) > 0 {
		proxy, err := links.Listen(h.Links, arrived.note)
		if err != nil {
			return nil, "", err
		}
		return &proxyBarrier{node: h.Node, proxy: proxy}, "proxy", nil
	}
	addressed := false
	for _, peer := range h.Peers {
		addressed = addressed || peer.Address != ""
	}
	if !addressed {
		return noBarrier{"there are no links and no addresses of peers"}, "none: there are no links and no addresses of peers", nil
	}
	filter, err := newFilter(h.Run, h)
	if err != nil {
		return noBarrier{err.Error()}, "none: " + err.Error(), nil
	}
	return filter, "nftables", nil
}

// proxyBarrier cuts at the gates of the links to this node.
type proxyBarrier struct {
	node  string
	proxy *links.Proxy
}

func (b *proxyBarrier) block(pairs []Pair) (map[string]uint64, error) {
	cut := make(map[Pair]bool, len(pairs))
	for _, pair := range pairs {
		if (pair.From == b.node || pair.To == b.node) && !b.proxy.Serves(pair.From, pair.To) {
			return nil, fmt.Errorf("block %s to %s: %s serves no link between them", pair.From, pair.To, b.node)
		}
		cut[pair] = true
	}
	return b.proxy.Block(func(from, to string) bool { return cut[Pair{from, to}] }), nil
}

func (b *proxyBarrier) dropped() (map[string]uint64, error) { return b.proxy.Held(), nil }

func (b *proxyBarrier) close() error {
	_, err := b.block(nil)
	return errors.Join(err, b.proxy.Close())
}

// noBarrier stands where nothing can be cut.
type noBarrier struct{ why string }

func (b noBarrier) block(pairs []Pair) (map[string]uint64, error) {
	if len(pairs) > 0 {
		return nil, fmt.Errorf("block: no partition can be made here: %s", b.why)
	}
	return nil, nil
}

func (noBarrier) dropped() (map[string]uint64, error) { return nil, nil }
func (noBarrier) close() error                        { return nil }
