package transport

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// A queue holds a second or so of a busy leader's messages; older ones are stale.
	maxQueuedFrames = 4096
	maxQueuedBytes  = 64 << 20
	maxWriteBytes   = 256 << 10
	// writeTimeout is how long a peer may take nothing before its connection counts as stuck.
	writeTimeout = time.Second
	dialTimeout  = 300 * time.Millisecond
	minBackOff   = 10 * time.Millisecond
	maxBackOff   = 100 * time.Millisecond
)

// peer is the outgoing half of the link to one node.
type peer struct {
	transport *Transport
	id        uint64
	address   string
	ctx       context.Context // ends when the peer is removed, or the transport closes
	stop      context.CancelFunc
	streaming atomic.Bool   // a snapshot is on its way there
	more      chan struct{} // holds a token while the queue may be non-empty

	mu     sync.Mutex
	queue  [][]byte
	queued int // bytes in queue
}

func (p *peer) enqueue(payload []byte) {
	p.mu.Lock()
	dropped := 0
	for len(p.queue) > 0 && (len(p.queue) >= maxQueuedFrames || p.queued+len(payload) > maxQueuedBytes) {
		p.queued -= len(p.queue[0])
		p.queue[0] = nil
		p.queue = p.queue[1:]
		dropped++
	}
	p.queue = append(p.queue, payload)
	p.queued += len(payload)
	p.mu.Unlock()
	p.transport.count.dropped.Add(uint64(dropped))
	select {
	case p.more <- struct{}{}:
	default:
	}
}

// take moves frames from the queue to buf, up to about maxWriteBytes.
func (p *peer) take(buf []byte) (filled []byte, frames int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) > 0 && (frames == 0 || len(buf)+len(p.queue[0]) <= maxWriteBytes) {
		buf = appendFrame(buf, p.queue[0])
		p.queued -= len(p.queue[0])
		p.queue[0] = nil
		p.queue = p.queue[1:]
		frames++
	}
	if len(p.queue) == 0 {
		p.queue = nil
	}
	return buf, frames
}

// discard empties the queue. While there is no connection messages are lost, so that
// only fresh ones flow when there is one again.
func (p *peer) discard() {
	p.mu.Lock()
	dropped := len(p.queue)
	p.queue, p.queued = nil, 0
	p.mu.Unlock()
	p.transport.count.dropped.Add(uint64(dropped))
}

// run keeps a connection up while there is something to send.
func (p *peer) run() {
	backOff := minBackOff
	reachable := true
	for {
		conn, err := p.dial(writeTimeout)
		if err == nil {
			if !reachable {
				p.transport.config.Logf("node %d at %s can be reached again", p.id, p.address)
			}
			backOff, reachable = minBackOff, true
			err = p.feed(conn)
		}
		if p.ctx.Err() != nil {
			return
		}
		if reachable {
			p.transport.config.Logf("node %d at %s cannot be reached: %v", p.id, p.address, err)
			reachable = false
		}
		p.discard()
		if !pause(p.ctx, backOff) {
			return
		}
		backOff = min(2*backOff, maxBackOff)
	}
}

// dial connects. When what was sent stays unacknowledged for that long, the connection ends.
func (p *peer) dial(unacknowledged time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(p.ctx, dialTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.address)
	if err != nil {
		return nil, err
	}
	if err := limitUnacknowledged(conn, unacknowledged); err != nil {
		_ = conn.Close() // the error that matters is already there
		return nil, fmt.Errorf("set a time limit on the connection: %w", err)
	}
	p.transport.count.dials.Add(1)
	return conn, nil
}

// feed says hello and then sends what is queued until the connection fails or the
// transport closes. It closes the connection.
func (p *peer) feed(conn net.Conn) error {
	dead := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		// The peer never writes, so a read ends only when the connection does. Without
		// this the first message after a peer's restart would vanish in the old connection.
		_, _ = io.Copy(io.Discard, conn)
		close(dead)
	})
	defer watcher.Wait()
	defer func() { _ = conn.Close() }() // ends the watcher

	buf := p.hello(forMessages)
	if err := p.write(conn, buf, 0); err != nil {
		return err
	}
	for {
		select {
		case <-dead:
			return fmt.Errorf("the peer closed the connection")
		case <-p.ctx.Done():
			return p.ctx.Err()
		case <-p.more:
		}
		for {
			var frames int
			if buf, frames = p.take(buf[:0]); frames == 0 {
				break
			}
			if err := p.write(conn, buf, frames); err != nil {
				return err
			}
		}
		if cap(buf) > 4*maxWriteBytes {
			buf = nil // one huge frame must not be paid for ever
		}
	}
}

func (p *peer) hello(kind kind) []byte {
	config := p.transport.config
	h := hello{kind: kind, cluster: config.Cluster, from: config.Self, to: p.id, advertise: config.Advertise}
	return appendFrame(nil, h.encode())
}

func (p *peer) write(conn net.Conn, buf []byte, frames int) error {
	if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := conn.Write(buf); err != nil {
		p.transport.count.lost.Add(uint64(frames))
		return err
	}
	p.transport.count.sent.Add(uint64(frames))
	return nil
}
