// Package links is the network between the nodes of a local cluster, in user space: one
// TCP relay for each directed link, with a gate in each direction that can be cut. It
// needs no privilege, which network filters in the kernel do.
//
// A [Proxy] serves all links that lead to one node. [Proxy.Block] sets all its gates in
// one step. Where a direction is cut, bytes are held, not lost: TCP would send them again
// until the network heals, and after a heal they arrive, in order. A connection that is
// opened while a direction is cut stays silent, as one whose SYN gets no answer does; if
// its client gives up before the heal, the other side never hears of it. An end of stream
// and a reset are held like bytes. One difference remains: connect(2) itself succeeds,
// since the kernel completes the handshake with the relay.
//
// [Proxy.ShapeStreams] makes directions slow, as a bad network does.
//
// Each link has a UDP twin on the same port. What arrives there through an open gate is
// handed to the caller, which proves that the gate is open; [Proxy.Answer] sends the other
// way.
//
// A link of the checker's clients refuses connections while its target does, as the
// target's machine would: see tend.
//
// When Block returns, no byte passes a direction that it cut any more: a write under way
// is interrupted and what is left of it is held.
package links

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"capsize/clusters"
	"capsize/nemesis/agent/packets"
)

const (
	connectionsMost = 1024                 // per link; one more is reset
	bufferSize      = 32 << 10             // per direction of a connection
	dialLimit       = 5 * time.Second      // to reach the target, which is on this machine
	acceptPause     = 5 * time.Millisecond // after a failed accept: out of descriptors, most likely
	datagramMost    = 512
)

// Proxy serves the links to one node. Its methods may be called concurrently.
type Proxy struct {
	datagram   func(from string, payload []byte)
	directions map[direction]int // to the index in every gates
	gates      atomic.Pointer[gates]
	lanes      []atomic.Pointer[lane] // by direction: how it is shaped
	seed       uint64                 // of what shapes draw
	links      []*link
	ctx        context.Context // ends when Close is called
	cancel     context.CancelFunc
	work       sync.WaitGroup // all goroutines of the proxy

	mu    sync.Mutex // guards conns, and makes Blocks follow one another
	conns map[*conn]struct{}
	past  []packets.Count // by direction, of shapes that are over
}

// direction is one direction between two nodes, over whichever link bytes take it.
type direction struct{ from, to string }

// gates says which directions are cut, all of them at one moment. It is replaced as a
// whole, so that no pump sees half a partition.
type gates struct {
	cut  []bool
	held []atomic.Uint64 // bytes held back by these gates
	over chan struct{}   // closed when other gates replace these
}

// Listen opens the links. Each datagram that came through an open gate is given to
// datagram, with the name of the node at the link's other end; that must not block. The seed
// is that of the chances of shapes.
func Listen(served []clusters.Link, seed uint64, datagram func(from string, payload []byte)) (*Proxy, error) {
	p := &Proxy{datagram: datagram, seed: seed, directions: make(map[direction]int), conns: make(map[*conn]struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, served := range served {
		l, err := p.open(served)
		if err != nil {
			_ = p.Close() // the listeners made so far
			return nil, fmt.Errorf("link %s to %s: %w", served.From, served.To, err)
		}
		p.links = append(p.links, l)
	}
	p.lanes, p.past = make([]atomic.Pointer[lane], len(p.directions)), make([]packets.Count, len(p.directions))
	p.gates.Store(p.newGates())
	for _, l := range p.links {
		listener := l.tcp
		p.work.Go(func() { l.accept(listener) })
		p.work.Go(l.receive)
	}
	for _, l := range p.links {
		if l.doubt != nil {
			p.work.Go(l.tend)
		}
	}
	return p, nil
}

func (p *Proxy) open(served clusters.Link) (*link, error) {
	tcp, err := net.Listen("tcp", served.Listen)
	if err != nil {
		return nil, err
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		_ = tcp.Close() // never used
		return nil, err
	}
	l := &link{
		Link: served, proxy: p, tcp: tcp.(*net.TCPListener), udp: udp.(*net.UDPConn),
		forward: p.index(direction{served.From, served.To}),
		reverse: p.index(direction{served.To, served.From}),
	}
	if served.From == clusters.Client {
		l.doubt = make(chan struct{}, 1)
	}
	return l, nil
}

func (p *Proxy) index(d direction) int {
	i, known := p.directions[d]
	if !known {
		i = len(p.directions)
		p.directions[d] = i
	}
	return i
}

func (p *Proxy) newGates() *gates {
	n := len(p.directions)
	return &gates{cut: make([]bool, n), held: make([]atomic.Uint64, n), over: make(chan struct{})}
}

// Serves reports whether bytes that from sends to to pass through this proxy.
func (p *Proxy) Serves(from, to string) bool {
	_, known := p.directions[direction{from, to}]
	return known
}

// Block cuts the directions for which cut is true and opens all others, in one step. It
// returns what the gates before it held back.
func (p *Proxy) Block(cut func(from, to string) bool) []Held {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.newGates()
	for d, i := range p.directions {
		next.cut[i] = cut(d.from, d.to)
	}
	before := p.gates.Swap(next)
	for c := range p.conns {
		c.settle(next)
	}
	close(before.over)
	return p.count(before)
}

// Held is how much of what From sends to To was held back.
type Held struct {
	From, To string
	Bytes    uint64
}

// Held returns what the present gates have held back so far, of each direction where that
// is anything, in no particular order.
func (p *Proxy) Held() []Held { return p.count(p.gates.Load()) }

func (p *Proxy) count(g *gates) []Held {
	var held []Held
	for d, i := range p.directions {
		if n := g.held[i].Load(); n > 0 {
			held = append(held, Held{d.from, d.to, n})
		}
	}
	return held
}

// Close ends all links and connections and waits until nothing of the proxy is left.
func (p *Proxy) Close() error {
	p.cancel()
	var problems []error
	for _, l := range p.links {
		problems = append(problems, l.close())
	}
	p.mu.Lock()
	for c := range p.conns {
		c.reset()
	}
	p.mu.Unlock()
	p.work.Wait()
	return errors.Join(problems...)
}

// link is one of the proxy's links.
type link struct {
	clusters.Link
	proxy            *Proxy
	udp              *net.UDPConn
	forward, reverse int // directions
	live             atomic.Int64
	late             atomic.Int64  // datagrams on their way
	doubt            chan struct{} // a token for tend; nil where nobody tends the link

	mu  sync.Mutex       // guards tcp
	tcp *net.TCPListener // nil while the link refuses connections
}

// accept takes connections until the listener is closed.
func (l *link) accept(listener *net.TCPListener) {
	for {
		from, err := listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !pause(l.proxy.ctx, acceptPause) {
				return
			}
			continue
		}
		if l.live.Add(1) > connectionsMost {
			l.live.Add(-1)
			reset(from)
			continue
		}
		l.proxy.work.Go(func() {
			defer l.live.Add(-1)
			l.carry(from)
		})
	}
}

// receive is the UDP twin.
func (l *link) receive() {
	buffer := make([]byte, datagramMost)
	for {
		n, _, err := l.udp.ReadFrom(buffer)
		if err != nil {
			if !pause(l.proxy.ctx, acceptPause) {
				return
			}
			continue
		}
		if now := l.proxy.gates.Load(); now.cut[l.forward] {
			now.held[l.forward].Add(uint64(n))
			continue
		}
		payload := append([]byte(nil), buffer[:n]...)
		l.deliver(l.forward, n, &l.late, func() { l.proxy.datagram(l.From, payload) })
	}
}

// Answer sends a datagram from the UDP twin of from's link to this node back to an address
// of from, through the gate of that direction.
func (p *Proxy) Answer(from, address string, payload []byte) error {
	to, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return err
	}
	for _, l := range p.links {
		if l.From != from {
			continue
		}
		if now := p.gates.Load(); now.cut[l.reverse] {
			now.held[l.reverse].Add(uint64(len(payload)))
			return nil
		}
		if p.lanes[l.reverse].Load() == nil {
			_, err := l.udp.WriteToUDP(payload, to)
			return err
		}
		l.deliver(l.reverse, len(payload), &l.late, func() { _, _ = l.udp.WriteToUDP(payload, to) }) // a late one that fails is lost
		return nil
	}
	return fmt.Errorf("there is no link from %s", from)
}

// pause waits for d; it reports whether ctx is still live.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
