package agent

import (
	"errors"
	"fmt"

	"capsize/clusters"
	"capsize/nemesis/agent/links"
)

// barrier cuts directed pairs of nodes, as far as this node can.
type barrier interface {
	// block replaces what is cut, in one step, and returns what the barrier before it held
	// back. Where a pair concerns this node and cannot be cut it changes nothing.
	block(pairs []Pair) ([]Dropped, error)
	// dropped returns what the present barrier has held back so far.
	dropped() ([]Dropped, error)
	// clients returns why the node cannot be cut from clients, or nil.
	clients() error
	// answer sends a probe to an address of clients, through the barrier.
	answer(address string, datagram []byte) error
	// close cuts nothing any more and lets go of everything.
	close() error
}

// newBarrier makes the barrier that this node can have, and tells which: "proxy",
// "nftables", or "none: why".
func newBarrier(h *Hello, arrived *arrivals) (barrier, string, error) {
	if len(h.Links) > 0 {
		proxy, err := links.Listen(h.Links, seedOf(h), arrived.note)
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

func (b *proxyBarrier) block(pairs []Pair) ([]Dropped, error) {
	cut := make(map[Pair]bool, len(pairs))
	for _, pair := range pairs {
		if (pair.From == b.node || pair.To == b.node) && !b.proxy.Serves(pair.From, pair.To) {
			return nil, fmt.Errorf("block %s to %s: %s serves no link between them", pair.From, pair.To, b.node)
		}
		cut[pair] = true
	}
	return inPairs(b.proxy.Block(func(from, to string) bool { return cut[Pair{from, to}] })), nil
}

func (b *proxyBarrier) dropped() ([]Dropped, error) { return inPairs(b.proxy.Held()), nil }

func inPairs(held []links.Held) []Dropped {
	var dropped []Dropped
	for _, h := range held {
		dropped = append(dropped, Dropped{Pair{h.From, h.To}, h.Bytes})
	}
	return dropped
}

func (b *proxyBarrier) clients() error {
	if !b.proxy.Serves(clusters.Client, b.node) {
		return errors.New("the cluster has no link from clients to this node")
	}
	return nil
}

func (b *proxyBarrier) answer(address string, datagram []byte) error {
	for range ProbeCopies {
		if err := b.proxy.Answer(clusters.Client, address, datagram); err != nil {
			return err
		}
	}
	return nil
}

func (b *proxyBarrier) close() error {
	_, err := b.block(nil)
	return errors.Join(err, b.proxy.Close())
}

// noBarrier stands where nothing can be cut.
type noBarrier struct{ why string }

func (b noBarrier) block(pairs []Pair) ([]Dropped, error) {
	if len(pairs) > 0 {
		return nil, fmt.Errorf("block: no partition can be made here: %s", b.why)
	}
	return nil, nil
}

func (noBarrier) dropped() ([]Dropped, error)   { return nil, nil }
func (b noBarrier) clients() error              { return errors.New(b.why) }
func (b noBarrier) answer(string, []byte) error { return errors.New(b.why) }
func (noBarrier) close() error                  { return nil }
