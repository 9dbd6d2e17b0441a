package main

import (
	"math/rand/v2"
	"strconv"
	"time"

	"capsize/checkers/linearizability/registers"
	"capsize/histories"
)

// mix says what clients do to registers.
type mix struct {
	seed       uint64
	operations int
	clients    int
	keys       int
	crashed    float64 // share of the operations whose outcome stays unknown
	unanswered int     // writes that begin before all others and never end
	// wrong makes the last operation a read of what was replaced long before it began.
	wrong bool
}

// traffic is a history that a right register makes under clients that call again as soon as
// they are answered, half of the calls writes, each of a value of its own. It is made event by
// event and never held.
type traffic struct {
	mix
	random  *rand.Rand
	event   histories.Event
	events  int
	begun   int
	written int64
	process int // next number
	clients []client
	idle    int
	state   []histories.Value // by key
	old     int64             // the last value of key 0 whose write was answered in the first half
	late    []histories.Event // given up, and yet to take effect
	names   []string
}

type client struct {
	process int
	phase   phase
	call    histories.Event
	answer  histories.Value
}

type phase uint8

const (
	idle phase = iota
	called
	happened
)

func newTraffic(m mix) *traffic {
	t := &traffic{mix: m, random: rand.New(rand.NewPCG(m.seed, 1)), process: m.clients, idle: m.clients}
	t.state = make([]histories.Value, m.keys)
	for i := range m.clients {
		t.clients = append(t.clients, client{process: i})
	}
	for i := range m.keys {
		t.names = append(t.names, "k"+strconv.Itoa(i))
	}
	return t
}

// next makes the next event. It returns nil at the end; what it returns is good until the next
// call.
func (t *traffic) next() *histories.Event {
	if t.unanswered > 0 {
		return t.abandon()
	}
	for t.begun < t.operations || t.idle < len(t.clients) {
		c := &t.clients[t.random.IntN(len(t.clients))]
		switch c.phase {
		case idle:
			if t.begun == t.operations || t.last() && t.idle < len(t.clients) {
				continue // the wrong read comes when all others have ended
			}
			return t.call(c)
		case called:
			if t.random.Float64() < t.crashed && !t.last() {
				return t.crash(c)
			}
			c.answer = t.happen(&c.call)
			c.phase = happened
		case happened:
			return t.end(c)
		}
	}
	return nil
}

func (t *traffic) last() bool { return t.wrong && t.begun >= t.operations-1 }

func (t *traffic) call(c *client) *histories.Event {
	key := t.random.IntN(len(t.names))
	c.call = histories.Event{F: "read", Key: t.names[key], Node: "n1"}
	if t.random.IntN(2) == 0 && !t.last() {
		t.written++
		c.call.F, c.call.Value = "write", histories.Int(t.written)
	}
	if t.last() {
		c.call.Key = t.names[0]
	}
	t.begun++
	t.idle--
	c.phase = called
	return t.emit(c, histories.Invoke, c.call.Value)
}

func (t *traffic) end(c *client) *histories.Event {
	if c.call.F == "write" && c.call.Key == t.names[0] && t.begun <= t.operations/2 {
		t.old, _ = c.call.Value.Int()
	}
	c.phase = idle
	t.idle++
	return t.emit(c, histories.OK, c.answer)
}

// abandon begins a write that never ends. Half of them take effect later.
func (t *traffic) abandon() *histories.Event {
	t.unanswered--
	t.written++
	c := client{process: t.process, call: histories.Event{F: "write", Key: t.names[0], Node: "n1", Value: histories.Int(t.written)}}
	t.process++
	if t.unanswered%2 == 0 {
		t.late = append(t.late, c.call)
	}
	return t.emit(&c, histories.Invoke, c.call.Value)
}

// crash gives an operation up. Half of those that are given up take effect later.
func (t *traffic) crash(c *client) *histories.Event {
	if c.call.F == "write" && t.random.IntN(2) == 0 {
		t.late = append(t.late, c.call)
	}
	t.emit(c, histories.Info, c.call.Value)
	c.process, c.phase = t.process, idle
	t.process++
	t.idle++
	return &t.event
}

// happen is the moment at which an operation takes effect.
func (t *traffic) happen(call *histories.Event) histories.Value {
	if call.F == "read" && t.last() && t.begun == t.operations {
		return histories.Int(t.old)
	}
	if n := len(t.late); n > 0 && t.random.IntN(50) == 0 {
		write := t.late[n-1]
		t.late = t.late[:n-1]
		t.apply(&write)
	}
	return t.apply(call)
}

func (t *traffic) apply(call *histories.Event) histories.Value {
	key, _ := strconv.Atoi(call.Key[1:])
	if call.F == "read" {
		return t.state[key]
	}
	t.state[key] = call.Value
	return call.Value
}

func (t *traffic) emit(c *client, kind histories.Type, value histories.Value) *histories.Event {
	t.event = c.call
	t.event.Index, t.event.Time = t.events, time.Duration(t.events)*time.Microsecond
	t.event.Process, t.event.Type, t.event.Value = c.process, kind, value
	if kind == histories.Info {
		t.event.Error = "timed out"
	}
	t.events++
	return &t.event
}

// all returns a whole history.
func (t *traffic) all() []histories.Event {
	events := make([]histories.Event, 0, 2*t.operations)
	for e := t.next(); e != nil; e = t.next() {
		events = append(events, *e)
	}
	return events
}

// ops returns a history of one key as operations on a register.
func (t *traffic) ops() []registers.Op {
	ops := make([]registers.Op, 0, t.operations)
	open := make(map[int]int)
	for e := t.next(); e != nil; e = t.next() {
		if e.Type == histories.Invoke {
			open[e.Process] = len(ops)
			op := registers.Op{Kind: registers.Read, Call: int64(e.Index), Return: registers.Never}
			if e.F == "write" {
				op.Kind = registers.Write
				op.Value, _ = e.Value.Int()
			}
			ops = append(ops, op)
			continue
		}
		op := &ops[open[e.Process]]
		delete(open, e.Process)
		if e.Type == histories.Info {
			continue
		}
		op.Return = int64(e.Index)
		if value, ok := e.Value.Int(); ok {
			op.Value = value
		} else {
			op.Value = registers.Nothing
		}
	}
	return ops
}
