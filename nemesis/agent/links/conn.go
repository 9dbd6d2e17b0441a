package links

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// conn is one connection through a link: the client's side and the target's.
type conn struct {
	link             *link
	forward, reverse pump

	// broken: one side refused bytes, so the connection ends with a reset. The reset
	// travels against the bytes that were refused, through that direction's gate.
	broken atomic.Bool
	dead   chan struct{} // closed when the connection was reset
	once   sync.Once     // closes dead

	mu     sync.Mutex // guards target
	client *net.TCPConn
	target *net.TCPConn // nil until the target was dialled
}

// pump carries one direction of a connection.
type pump struct {
	conn      *conn
	direction int
	from, to  *net.TCPConn
	line      *line
	writing   sync.Mutex // held while something is on its way to the other side
}

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// carry serves one connection from its accept to its end.
func (l *link) carry(client *net.TCPConn) {
	c := &conn{link: l, client: client, dead: make(chan struct{})}
	p := l.proxy
	p.mu.Lock()
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
	}()
	early, ok := c.establish()
	if !ok {
		c.reset()
		return
	}
	dialer := net.Dialer{Timeout: dialLimit}
	target, err := dialer.DialContext(p.ctx, "tcp", l.Target)
	if err != nil {
		l.suspect()
		c.await(1, l.reverse) // the refusal comes from the target
		c.reset()
		return
	}
	c.run(target.(*net.TCPConn), early)
}

// establish stands for the handshake, which needs both directions. A client that gives
// up before was never connected: nothing of what it sent may reach the target later. What
// a client sent while it waited is returned.
func (c *conn) establish() (early []byte, ok bool) {
	l := c.link
	now := l.proxy.gates.Load()
	if !now.cut[l.forward] && !now.cut[l.reverse] {
		return nil, true
	}
	var opening sync.WaitGroup
	var opened bool
	opening.Go(func() {
		opened = c.await(1, l.forward, l.reverse)
		_ = c.client.SetReadDeadline(longAgo) // wakes the reader below; fails where the client is gone
	})
	early = make([]byte, 0, bufferSize)
	for len(early) < cap(early) {
		n, err := c.client.Read(early[len(early):cap(early)])
		early = early[:len(early)+n]
		l.proxy.hold(l.forward, n)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			c.reset()
			opening.Wait()
			return nil, false
		}
	}
	opening.Wait()
	return early, opened && c.client.SetReadDeadline(time.Time{}) == nil
}

// run carries bytes until both directions have ended.
func (c *conn) run(target *net.TCPConn, early []byte) {
	c.forward = pump{conn: c, direction: c.link.forward, from: c.client, to: target, line: newLine()}
	c.reverse = pump{conn: c, direction: c.link.reverse, from: target, to: c.client, line: newLine()}
	c.mu.Lock()
	c.target = target
	c.mu.Unlock()
	if c.link.proxy.ctx.Err() != nil {
		c.reset() // closed while dialling
	}
	var reverse sync.WaitGroup
	reverse.Go(func() { c.reverse.run(nil) })
	c.forward.run(early)
	reverse.Wait()
	if c.broken.Load() {
		c.reset()
	}
	_ = c.client.Close() // both directions have ended
	_ = target.Close()
}

// reset ends the connection at once, on both sides.
func (c *conn) reset() {
	c.once.Do(func() { close(c.dead) })
	c.mu.Lock()
	defer c.mu.Unlock()
	reset(c.client)
	if c.target != nil {
		reset(c.target)
	}
}

// settle makes sure that nothing passes a direction that the new gates cut. The caller
// has put them in force.
func (c *conn) settle(now *gates) {
	c.mu.Lock()
	running := c.target != nil
	c.mu.Unlock()
	if !running {
		return // its pumps will see the new gates before they write
	}
	for _, p := range []*pump{&c.forward, &c.reverse} {
		if now.cut[p.direction] {
			p.interrupt()
		}
	}
}

// await blocks while one of the directions is cut, and counts size as held by each set of
// gates that holds it. It reports false where the connection or the proxy ended.
//
// For a SYN and a FIN the size is 1, as in TCP's sequence numbers (RFC 9293 section 3.4).
func (c *conn) await(size int, directions ...int) bool {
	for {
		now := c.link.proxy.gates.Load()
		closed := -1
		for _, d := range directions {
			if now.cut[d] {
				closed = d
				break
			}
		}
		if closed < 0 {
			return true
		}
		now.held[closed].Add(uint64(size))
		select {
		case <-now.over:
		case <-c.dead:
			return false
		case <-c.link.proxy.ctx.Done():
			return false
		}
	}
}

// hold counts bytes as held, if that direction is cut.
func (p *Proxy) hold(direction, size int) {
	if now := p.gates.Load(); now.cut[direction] {
		now.held[direction].Add(uint64(size))
	}
}

// run copies until the stream ends, then passes its end on in the same way: an end of
// stream as one, a reset as one.
func (p *pump) run(early []byte) {
	defer p.line.drain() // nothing is written to a side that others may close then
	if len(early) > 0 && !p.forward(early) {
		return
	}
	buffer := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buffer)
	for {
		n, err := p.from.Read(buffer[:])
		if err != nil && p.direction == p.conn.link.reverse {
			p.conn.link.suspect()
		}
		if n > 0 && !p.forward(buffer[:n]) {
			return
		}
		if err != nil && !p.line.drain() { // an end comes after what was sent before it
			return
		}
		if errors.Is(err, io.EOF) && !p.conn.broken.Load() {
			_, _ = p.pass(1, func() (int, error) { return 1, p.to.CloseWrite() }) // if it fails, the other direction sees why
			return
		}
		if err != nil {
			if p.conn.await(1, p.direction) {
				p.conn.reset()
			}
			return
		}
	}
}

// send writes the bytes when the gate is open; it reports false where that is no use any
// more.
func (p *pump) send(data []byte) bool {
	for len(data) > 0 {
		n, err := p.pass(len(data), func() (int, error) { return p.to.Write(data) })
		data = data[n:]
		if err != nil {
			return false
		}
	}
	return true
}

// pass lets something of that size through the gate as soon as it is open. A write that
// Block interrupts is no error: the rest has to wait.
func (p *pump) pass(size int, through func() (int, error)) (int, error) {
	for {
		if !p.conn.await(size, p.direction) {
			return 0, net.ErrClosed
		}
		p.writing.Lock()
		if p.conn.link.proxy.gates.Load().cut[p.direction] {
			p.writing.Unlock()
			continue
		}
		n, err := through()
		p.writing.Unlock()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return n, nil
		}
		if err != nil {
			p.conn.broken.Store(true)
		}
		return n, err
	}
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// interrupt ends a write that is under way, and returns when it has ended. A write can
// last as long as its reader likes, so waiting alone would not do.
func (p *pump) interrupt() {
	_ = p.to.SetWriteDeadline(longAgo) // fails only on a closed connection
	p.writing.Lock()
	defer p.writing.Unlock()
	_ = p.to.SetWriteDeadline(time.Time{})
}

// reset closes a connection so that its other side sees a reset, not an end of stream.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // fails only on a closed connection
	_ = c.Close()
}
