package links

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"capsize/nemesis/agent/packets"
)

// A link carries streams, not packets: a lost packet is one that TCP sends again. So a chunk of
// which a packet would be lost, or discarded for its checksum, arrives later, by at least
// resendTime for each time that it is lost, and all that follows it waits with it.
const (
	segmentSize = 1448                   // bytes of a stream in a packet, on Ethernet with time stamps
	resendTime  = 200 * time.Millisecond // the least time after which Linux sends again (TCP_RTO_MIN)
	resendMost  = 6                      // times that one chunk is sent again
	lineMost    = 1 << 20                // bytes of one stream that are on their way; more wait at the sender
	latestMost  = 256                    // datagrams of one link that are on their way; more are lost
)

// lane is the shape of one direction, and what it did. A nil lane shapes nothing.
type lane struct {
	shape packets.Shape
	over  chan struct{} // closed when another lane, or none, replaces it

	mu     sync.Mutex // guards what is below
	count  packets.Count
	random *rand.Rand
	free   time.Time // when the limited rate has carried all so far
}

// ShapeStreams shapes these directions and no others, replacing what was shaped before. What is
// on its way then in a direction that is no longer shaped, or otherwise, arrives at once. A
// shape that stays the same goes on. Shapes may not duplicate or reorder: a stream has one order.
func (p *Proxy) ShapeStreams(shape func(from, to string) (packets.Shape, bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for d, i := range p.directions {
		before := p.lanes[i].Load()
		want, shaped := shape(d.from, d.to)
		if before != nil && shaped && before.shape == want {
			continue
		}
		var next *lane
		if shaped {
			next = &lane{shape: want, over: make(chan struct{}), random: rand.New(rand.NewPCG(p.seed, uint64(i)))}
			if before != nil {
				next.count = before.counted()
			} else {
				next.count = p.past[i]
			}
		}
		p.lanes[i].Store(next)
		if before != nil {
			p.past[i] = before.counted()
			close(before.over)
		}
	}
}

// Shaped is what was done to what From sends to To, over this proxy's links. A chunk of a stream
// counts as a packet.
type Shaped struct {
	From, To string
	Count    packets.Count
}

// Counts returns what was done to each direction that was ever shaped, in no particular order.
func (p *Proxy) Counts() []Shaped {
	p.mu.Lock()
	defer p.mu.Unlock()
	var shaped []Shaped
	for d, i := range p.directions {
		count := p.past[i]
		if l := p.lanes[i].Load(); l != nil {
			count = l.counted()
		}
		if count != (packets.Count{}) {
			shaped = append(shaped, Shaped{d.from, d.to, count})
		}
	}
	return shaped
}

func (l *lane) counted() packets.Count {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// partMost is how many bytes of a stream go over the link together: so few, where the rate is
// limited, that what others send is not kept waiting by them.
func (l *lane) partMost() int {
	if l.shape.Rate == 0 {
		return bufferSize
	}
	carried := float64(l.shape.Rate) * packets.BacklogMost.Seconds() / 4
	return int(min(max(carried, segmentSize), bufferSize))
}

// admit is draw for a part of a stream, once the link's queue has room for it; until then it
// tells after how long that may be.
func (l *lane) admit(now time.Time, size int) (wait, full time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := l.free.Add(-packets.BacklogMost); room.After(now) {
		return 0, room.Sub(now)
	}
	wait, _ = l.draw(now, size, true)
	return wait, 0
}

// judge is draw for a datagram, which waits for no room and is not sent again.
func (l *lane) judge(now time.Time, size int) (wait time.Duration, lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wait, missing := l.draw(now, size, false)
	return wait, missing > 0
}

// draw decides how much later so many bytes arrive, and how many of their packets are lost on the
// way, and counts it. The caller holds l.mu.
func (l *lane) draw(now time.Time, size int, again bool) (wait time.Duration, lost int) {
	l.count.Seen++
	wait = l.shape.Delay + time.Duration((2*l.random.Float64()-1)*float64(l.shape.Jitter))
	delayed := wait > 0
	if rate := l.shape.Rate; rate > 0 {
		if l.free.Before(now) {
			l.free = now
		} else if l.free.After(now) {
			l.count.Limited++
		}
		wait += l.free.Sub(now)
		l.free = l.free.Add(time.Duration(float64(size) / float64(rate) * float64(time.Second)))
	}
	sent := (size + segmentSize - 1) / segmentSize
	for range resendMost {
		missing := 0
		for range sent {
			corrupt, gone := l.random.Float64() < l.shape.Corrupt, l.random.Float64() < l.shape.Loss
			switch {
			case gone:
				l.count.Lost++
			case corrupt:
				l.count.Corrupted++
			default:
				continue
			}
			missing++
		}
		if sent, lost = missing, lost+missing; missing == 0 || !again {
			break
		}
		wait, delayed = wait+resendTime, true
	}
	if delayed {
		l.count.Delayed++
	}
	return wait, lost
}

// line is what of a stream is on its way, in order. It carries nothing while its direction is not
// shaped.
type line struct {
	mu     sync.Mutex
	moved  sync.Cond // on mu: the queue has changed
	queue  []parcel
	bytes  int
	moving bool // somebody carries the queue
	failed bool // the stream is over: nothing is carried any more
}

// parcel is a chunk of a stream. Its time has come at the latest when its lane is over.
type parcel struct {
	data []byte
	at   time.Time
	lane *lane
}

func newLine() *line {
	l := &line{}
	l.moved.L = &l.mu
	return l
}

// forward sends a chunk in its time: at once, where nothing is shaped nor on its way before it.
func (p *pump) forward(data []byte) bool {
	for len(data) > 0 {
		shaping := p.conn.link.proxy.lanes[p.direction].Load()
		if shaping == nil && p.line.empty() {
			return p.send(data)
		}
		part, now := data, time.Now()
		one := parcel{at: now, lane: shaping}
		if shaping != nil {
			part = data[:min(len(data), shaping.partMost())]
			wait, full := shaping.admit(now, len(part))
			if full > 0 {
				if !p.conn.arrive(parcel{at: now.Add(full), lane: shaping}) {
					return false
				}
				continue
			}
			one.at = now.Add(wait)
		}
		one.data = append([]byte(nil), part...)
		if !p.line.push(one, p) {
			return false
		}
		data = data[len(part):]
	}
	return true
}

func (l *line) empty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.moving
}

// push puts a parcel into the line as soon as there is room, and sees that somebody carries it.
func (l *line) push(one parcel, p *pump) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.bytes > lineMost && !l.failed {
		l.moved.Wait()
	}
	if l.failed {
		return false
	}
	l.queue = append(l.queue, one)
	l.bytes += len(one.data)
	if !l.moving {
		l.moving = true
		p.conn.link.proxy.work.Go(func() { l.carry(p) })
	}
	return true
}

// carry sends what is in the line until it is empty.
func (l *line) carry(p *pump) {
	for {
		l.mu.Lock()
		if len(l.queue) == 0 || l.failed {
			l.moving = false
			l.moved.Broadcast()
			l.mu.Unlock()
			return
		}
		one := l.queue[0]
		l.mu.Unlock()
		sent := p.conn.arrive(one) && p.send(one.data)
		l.mu.Lock()
		l.queue, l.bytes, l.failed = l.queue[1:], l.bytes-len(one.data), !sent
		l.moved.Broadcast()
		l.mu.Unlock()
	}
}

// drain waits until all that is on its way has arrived; it reports false where that is no use
// any more.
func (l *line) drain() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.moving {
		l.moved.Wait()
	}
	return !l.failed
}

// arrive waits until a parcel's time has come; it reports false where the connection or the proxy
// ended before.
func (c *conn) arrive(one parcel) bool {
	wait := time.Until(one.at)
	if wait <= 0 || one.lane == nil {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-one.lane.over:
	case <-c.dead:
		return false
	case <-c.link.proxy.ctx.Done():
		return false
	}
	return true
}

// deliver hands on a datagram in its time, or loses it.
func (l *link) deliver(direction int, size int, late *atomic.Int64, hand func()) {
	shaping := l.proxy.lanes[direction].Load()
	if shaping == nil {
		hand()
		return
	}
	wait, lost := shaping.judge(time.Now(), size)
	if lost {
		return
	}
	if wait <= 0 {
		hand()
		return
	}
	if late.Add(1) > latestMost {
		late.Add(-1)
		return
	}
	l.proxy.work.Go(func() {
		defer late.Add(-1)
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-shaping.over:
		case <-l.proxy.ctx.Done():
			return
		}
		hand()
	})
}
