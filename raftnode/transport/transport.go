// Package transport carries messages between the nodes of a cluster over TCP, one way a
// connection: each node dials each peer at an address of its own, so that a proxy can
// stand in every directed link.
//
// [Transport.Send] never blocks. What cannot be sent soon is lost and counted, as on a
// network: Raft repeats what matters. A frame is delivered whole or not at all, at most
// once, and in order within a connection. A peer that is paused, cut off or dead costs a
// bounded queue and one goroutine. Once it can be reached again, traffic flows within the
// dial time-out and [maxBackOff].
package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Config says who talks to whom.
type Config struct {
	Cluster  string // peers of another cluster are refused
	Self     uint64
	Listener net.Listener      // where peers reach this node; Close closes it
	Peers    map[uint64]string // the address at which this node dials each other node
	// Receive is given each payload, which it may keep. It is called by one goroutine per
	// connection and may block; then the sender sees a slow peer.
	Receive func(from uint64, payload []byte)
	// Logf is told of refused connections and lost peers, not of each message.
	Logf func(format string, args ...any)
}

const (
	helloTimeout = 2 * time.Second
	// maxStrangers bounds the connections that have not said who they are.
	maxStrangers = 64
)

// Stats counts what happened since the start.
type Stats struct {
	Sent     uint64 // frames handed to the kernel
	Received uint64
	Dropped  uint64 // frames that were not sent: no connection, or a full queue
	Lost     uint64 // frames in a write that failed: part of them may have arrived
	Dials    uint64 // connections made
}

type counters struct{ sent, received, dropped, lost, dials atomic.Uint64 }

// Transport is a running transport. It is safe for concurrent use.
type Transport struct {
	config Config
	peers  map[uint64]*peer
	ctx    context.Context
	stop   context.CancelFunc
	done   sync.WaitGroup
	count  counters

	mu        sync.Mutex
	incoming  map[uint64]net.Conn // the newest connection from each peer
	strangers map[net.Conn]struct{}
}

// Start accepts and dials until Close.
func Start(config Config) *Transport {
	t := &Transport{
		config:    config,
		peers:     make(map[uint64]*peer, len(config.Peers)),
		incoming:  make(map[uint64]net.Conn),
		strangers: make(map[net.Conn]struct{}),
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	for id, address := range config.Peers {
		if id == config.Self {
			continue
		}
		p := &peer{transport: t, id: id, address: address, more: make(chan struct{}, 1)}
		t.peers[id] = p
		t.done.Go(p.run)
	}
	t.done.Go(t.accept)
	return t
}

// Send queues a payload for a peer. It drops the oldest ones where the queue is full, and
// the payload itself where there is no such peer. The payload must not change afterwards.
func (t *Transport) Send(to uint64, payload []byte) {
	if p, known := t.peers[to]; known {
		p.enqueue(payload)
		return
	}
	t.count.dropped.Add(1)
}

// Stats returns the counters.
func (t *Transport) Stats() Stats {
	return Stats{
		Sent: t.count.sent.Load(), Received: t.count.received.Load(), Dropped: t.count.dropped.Load(),
		Lost: t.count.lost.Load(), Dials: t.count.dials.Load(),
	}
}

// Close ends every connection and waits for all goroutines. A Receive that blocks must
// return first.
func (t *Transport) Close() error {
	t.stop()
	err := t.config.Listener.Close()
	t.mu.Lock()
	for conn := range t.strangers {
		_ = conn.Close() // ends its reader
	}
	for _, conn := range t.incoming {
		_ = conn.Close() // ends its reader
	}
	t.mu.Unlock()
	t.done.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close transport: %w", err)
	}
	return nil
}

func (t *Transport) accept() {
	for {
		conn, err := t.config.Listener.Accept()
		if err != nil {
			if t.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			t.config.Logf("accept peer connection: %v", err) // out of descriptors, most likely
			if !t.pause(maxBackOff) {
				return
			}
			continue
		}
		if !t.admit(conn) {
			_ = conn.Close() // refused: there are too many, or the transport is closing
			continue
		}
		t.done.Go(func() { t.serve(conn) })
	}
}

func (t *Transport) admit(conn net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil || len(t.strangers) >= maxStrangers {
		return false
	}
	t.strangers[conn] = struct{}{}
	return true
}

// serve reads one incoming connection to its end.
func (t *Transport) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }() // often closed already
	in := bufio.NewReaderSize(conn, 64<<10)
	from, err := t.greet(conn, in)
	if err != nil {
		if t.ctx.Err() == nil {
			t.config.Logf("refuse peer connection from %s: %v", conn.RemoteAddr(), err)
		}
		return
	}
	defer t.forget(from, conn)
	for {
		payload, err := readFrame(in)
		if err != nil {
			if errors.Is(err, errDamaged) {
				t.config.Logf("drop connection from node %d: %v", from, err)
			}
			return
		}
		t.count.received.Add(1)
		t.config.Receive(from, payload)
	}
}

// greet reads the hello frame and makes conn the connection from that peer. An older one
// is closed: its sender has given it up.
func (t *Transport) greet(conn net.Conn, in *bufio.Reader) (from uint64, err error) {
	defer func() {
		t.mu.Lock()
		delete(t.strangers, conn)
		t.mu.Unlock()
	}()
	if err := conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return 0, err
	}
	payload, err := readFrame(in)
	if err != nil {
		return 0, fmt.Errorf("read hello: %w", err)
	}
	h, err := decodeHello(payload)
	if err != nil {
		return 0, err
	}
	_, known := t.config.Peers[h.from]
	switch {
	case h.cluster != t.config.Cluster:
		return 0, fmt.Errorf("it belongs to cluster %q, this node to %q", h.cluster, t.config.Cluster)
	case h.to != t.config.Self:
		return 0, fmt.Errorf("it looks for node %d, this is node %d: check --peers of node %d", h.to, t.config.Self, h.from)
	case !known || h.from == t.config.Self:
		return 0, fmt.Errorf("it says that it is node %d, which is no peer of node %d", h.from, t.config.Self)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return 0, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return 0, t.ctx.Err()
	}
	if older := t.incoming[h.from]; older != nil {
		_ = older.Close() // ends its reader
	}
	t.incoming[h.from] = conn
	return h.from, nil
}

func (t *Transport) forget(from uint64, conn net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.incoming[from] == conn {
		delete(t.incoming, from)
	}
}

// pause waits, and reports false if the transport closes meanwhile.
func (t *Transport) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.ctx.Done():
		return false
	}
}
