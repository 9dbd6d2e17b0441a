// Package transport carries messages between the nodes of a cluster over TCP, one way a
// connection: each node dials each peer at an address of its own, so that a proxy can
// stand in every directed link. Peers come and go while it runs. Snapshots are streamed on
// connections of their own, beside the messages.
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
	"io"
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
	Peers    map[uint64]string // the address at which this node dials each other node, at first
	// Advertise is the address that this node gives to peers who do not know it: may be empty.
	Advertise string
	// Receive is given each payload, which it may keep. It is called by one goroutine per
	// connection and may block; then the sender sees a slow peer.
	Receive func(from uint64, payload []byte)
	// ReceiveSnapshot is given each snapshot's message, and its content to read: io.EOF comes
	// only when all of it was there and intact. The sender hears of the error that it returns.
	ReceiveSnapshot func(from uint64, message []byte, content io.Reader) error
	// SnapshotBytesPerSecond bounds what the stream of one snapshot takes; 0: no bound.
	SnapshotBytesPerSecond int64
	// Logf is told of refused connections and lost peers, not of each message.
	Logf func(format string, args ...any)
}

const (
	helloTimeout = 2 * time.Second
	// maxStrangers bounds the connections that have not said who they are.
	maxStrangers = 64
	// maxIntroduced bounds the peers that were learnt from their own word.
	maxIntroduced = 64
)

// Stats counts what happened since the start.
type Stats struct {
	Sent     uint64 // frames handed to the kernel
	Received uint64
	Dropped  uint64 // frames that were not sent: no connection, or a full queue
	Lost     uint64 // frames in a write that failed: part of them may have arrived
	Dials    uint64 // connections made
	// SnapshotsSent and SnapshotsReceived are those that arrived, with their bytes.
	SnapshotsSent, SnapshotsReceived, SnapshotBytesSent, SnapshotBytesReceived uint64
}

type counters struct {
	sent, received, dropped, lost, dials                                       atomic.Uint64
	snapshotsSent, snapshotsReceived, snapshotBytesSent, snapshotBytesReceived atomic.Uint64
}

// Transport is a running transport. It is safe for concurrent use.
type Transport struct {
	config Config
	stall  time.Duration // how long either side of a snapshot's stream waits for the other
	ctx    context.Context
	stop   context.CancelFunc
	done   sync.WaitGroup
	count  counters

	mu         sync.RWMutex
	peers      map[uint64]*peer
	removed    map[uint64]bool
	introduced int                 // peers that only their own word has made known
	incoming   map[uint64]net.Conn // the newest connection from each peer
	streams    map[net.Conn]uint64 // of snapshots that come in, with their senders
	strangers  map[net.Conn]struct{}
}

// Start accepts and dials until Close.
func Start(config Config) *Transport {
	t := &Transport{
		config:    config,
		stall:     stallTimeout,
		peers:     make(map[uint64]*peer, len(config.Peers)),
		removed:   make(map[uint64]bool),
		incoming:  make(map[uint64]net.Conn),
		streams:   make(map[net.Conn]uint64),
		strangers: make(map[net.Conn]struct{}),
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	for id, address := range config.Peers {
		t.AddPeer(id, address)
	}
	t.done.Go(t.accept)
	return t
}

// AddPeer makes a node a peer, reached at that address from now on.
func (t *Transport) AddPeer(id uint64, address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.removed, id)
	t.addPeer(id, address)
}

func (t *Transport) addPeer(id uint64, address string) {
	older := t.peers[id]
	if id == t.config.Self || t.ctx.Err() != nil || older != nil && older.address == address {
		return
	}
	if older != nil {
		older.stop()
	}
	p := &peer{transport: t, id: id, address: address, more: make(chan struct{}, 1)}
	p.ctx, p.stop = context.WithCancel(t.ctx)
	t.peers[id] = p
	t.done.Go(p.run)
}

// RemovePeer ends all connections with a node, and refuses it until it is added again.
func (t *Transport) RemovePeer(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removed[id] = true
	if p := t.peers[id]; p != nil {
		p.stop()
		delete(t.peers, id)
	}
	if conn := t.incoming[id]; conn != nil {
		_ = conn.Close() // ends its reader
	}
	for conn, from := range t.streams {
		if from == id {
			_ = conn.Close() // ends its reader
		}
	}
}

// Send queues a payload for a peer. It drops the oldest ones where the queue is full, and
// the payload itself where there is no such peer. The payload must not change afterwards.
func (t *Transport) Send(to uint64, payload []byte) {
	if p := t.peer(to); p != nil {
		p.enqueue(payload)
		return
	}
	t.count.dropped.Add(1)
}

func (t *Transport) peer(id uint64) *peer {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.peers[id]
}

// Stats returns the counters.
func (t *Transport) Stats() Stats {
	return Stats{
		Sent: t.count.sent.Load(), Received: t.count.received.Load(), Dropped: t.count.dropped.Load(),
		Lost: t.count.lost.Load(), Dials: t.count.dials.Load(),
		SnapshotsSent: t.count.snapshotsSent.Load(), SnapshotBytesSent: t.count.snapshotBytesSent.Load(),
		SnapshotsReceived: t.count.snapshotsReceived.Load(), SnapshotBytesReceived: t.count.snapshotBytesReceived.Load(),
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
	for conn := range t.streams {
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
			if !pause(t.ctx, maxBackOff) {
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
	h, err := t.greet(conn, in)
	if err != nil {
		if t.ctx.Err() == nil {
			t.config.Logf("refuse peer connection from %s: %v", conn.RemoteAddr(), err)
		}
		return
	}
	from := h.from
	defer t.forget(from, conn)
	if h.kind == forSnapshot {
		t.serveSnapshot(from, conn, in)
		return
	}
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
// is closed: its sender has given it up. A node that is not known yet is believed: this one
// may lack the log entry by which the other joined.
func (t *Transport) greet(conn net.Conn, in *bufio.Reader) (h hello, err error) {
	defer func() {
		t.mu.Lock()
		delete(t.strangers, conn)
		t.mu.Unlock()
	}()
	if err := conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return hello{}, err
	}
	payload, err := readFrame(in)
	if err != nil {
		return hello{}, fmt.Errorf("read hello: %w", err)
	}
	if h, err = decodeHello(payload); err != nil {
		return hello{}, err
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return hello{}, err
	}
	return h, t.welcome(h, conn)
}

// welcome takes in a connection, or says why not.
func (t *Transport) welcome(h hello, conn net.Conn) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.ctx.Err() != nil:
		return t.ctx.Err()
	case h.cluster != t.config.Cluster:
		return fmt.Errorf("it belongs to cluster %q, this node to %q", h.cluster, t.config.Cluster)
	case h.to != t.config.Self:
		return fmt.Errorf("it looks for node %d, this is node %d: check the addresses of node %d", h.to, t.config.Self, h.from)
	case h.from == t.config.Self || h.from == 0:
		return fmt.Errorf("it says that it is node %d, as this one is", h.from)
	case t.removed[h.from]:
		return fmt.Errorf("node %d was removed from the cluster", h.from)
	case h.kind == forSnapshot && (len(t.streams) >= maxIncomingSnapshots || t.config.ReceiveSnapshot == nil):
		return fmt.Errorf("node %d sends a snapshot while %d others come in", h.from, len(t.streams))
	case t.peers[h.from] == nil && h.advertise != "" && t.introduced < maxIntroduced:
		t.introduced++
		t.addPeer(h.from, h.advertise)
	}
	if h.kind == forSnapshot {
		t.streams[conn] = h.from
		return nil
	}
	if older := t.incoming[h.from]; older != nil {
		_ = older.Close() // ends its reader
	}
	t.incoming[h.from] = conn
	return nil
}

func (t *Transport) forget(from uint64, conn net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.streams, conn)
	if t.incoming[from] == conn {
		delete(t.incoming, from)
	}
}

// pause waits, and reports false if ctx ends meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
