package registers

import "math/rand/v2"

// An action is one event of a history, as a Stream is fed: the method, who and with what.
type action struct {
	what            what
	client          int32
	value, expected int64
}

type what uint8

const (
	callRead what = iota
	callStale
	callWrite
	callSwap
	done
	found
	refused
	crashed
)

// play feeds a stream with the action. handles has one place for each client.
func (a *action) play(s *Stream, handles []Handle) *Alarm {
	h := &handles[a.client]
	switch a.what {
	case callRead:
		*h = s.Read()
	case callStale:
		*h = s.StaleRead()
	case callWrite:
		*h = s.Write(a.value)
	case callSwap:
		*h = s.Swap(a.expected, a.value)
	case done:
		return s.Done(*h)
	case found:
		return s.Found(*h, a.value)
	case refused:
		return s.Refused(*h)
	case crashed:
		return s.Crashed(*h)
	}
	return nil
}

// A log is the history that actions make, for the batch check.
type log struct {
	ops   []Op
	place []int // of the operation in flight, for each client
}

func newLog(clients int) *log { return &log{place: make([]int, clients)} }

func (l *log) add(a action, time int64) {
	if a.what <= callSwap {
		l.place[a.client] = len(l.ops)
		op := Op{Kind: Read, Value: a.value, Expected: a.expected, Call: time, Return: Never}
		switch a.what {
		case callStale:
			op.Call = Early
		case callWrite:
			op.Kind = Write
		case callSwap:
			op.Kind = Swap
		}
		l.ops = append(l.ops, op)
		return
	}
	op := &l.ops[l.place[a.client]]
	switch a.what {
	case done:
		op.Return = time
	case found:
		op.Kind, op.Value, op.Return = Read, a.value, time
	case refused:
		op.Kind, op.Return = Refused, time
	}
}

// busy is a correct register under clients that call again as soon as they are answered. It
// makes the history event by event, in order of time, without end and in constant memory.
type busy struct {
	r       *rand.Rand
	mix     mix // crashed is per thousand
	told    bool
	value   int64
	fresh   int64
	clients []client
	late    []client // crashed, and yet to take effect
	past    [16]int64
}

type client struct {
	phase           int // 0 idle, 1 called, 2 happened
	kind            Kind
	stale           bool
	value, expected int64
	answer          what
	sitsOut         int // so many of its turns, which makes some operations long
}

// newBusy makes a register for so many clients. If told, a refused swap says what it found.
func newBusy(seed uint64, clients int, m mix, told bool) *busy {
	b := &busy{r: seeded(seed), mix: m, told: told, value: Nothing, clients: make([]client, clients)}
	for i := range b.past {
		b.past[i] = Nothing
	}
	return b
}

func (b *busy) next() action {
	for {
		i := b.r.IntN(len(b.clients))
		c := &b.clients[i]
		if c.sitsOut > 0 {
			c.sitsOut--
			continue
		}
		if n := len(b.late); n > 0 && b.r.IntN(50) == 0 {
			b.happen(&b.late[n-1])
			b.late = b.late[:n-1]
		}
		switch c.phase {
		case 0:
			c.phase = 1
			return b.call(c, int32(i))
		case 1:
			if c.kind != Read && b.r.IntN(1000) < b.mix.crashed {
				if b.r.IntN(2) == 0 {
					b.late = append(b.late, *c)
				}
				c.phase = 0
				return action{what: crashed, client: int32(i)}
			}
			b.happen(c)
			c.phase = 2
		default:
			c.phase = 0
			return action{what: c.answer, client: int32(i), value: c.value}
		}
	}
}

func (b *busy) call(c *client, i int32) action {
	c.kind, c.stale = b.mix.kind(b.r)
	if b.r.IntN(200) == 0 {
		c.sitsOut = b.r.IntN(100)
	}
	a := action{what: callRead, client: i}
	switch {
	case c.stale:
		a.what = callStale
	case c.kind == Write:
		a.what = callWrite
	case c.kind != Read:
		a.what, a.expected = callSwap, b.value
	}
	if c.kind != Read {
		b.fresh++
		a.value = b.fresh
	}
	c.value, c.expected = a.value, a.expected
	return a
}

// happen is the moment at which an operation takes effect.
func (b *busy) happen(c *client) {
	c.answer = done
	switch {
	case c.stale:
		c.answer, c.value = found, b.past[b.r.IntN(len(b.past))]
	case c.kind == Read:
		c.answer, c.value = found, b.value
	case c.kind == Write || c.expected == b.value:
		b.value = c.value
		b.past[int(c.value)%len(b.past)] = c.value
	case b.told:
		c.answer, c.value = found, b.value
	default:
		c.answer = refused
	}
}
