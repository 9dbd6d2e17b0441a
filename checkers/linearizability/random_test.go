package linearizability

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/anishathalye/porcupine"

	"capsize/histories"
)

// register is the model of a register, written apart from the workload's own.
func register() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return "null" },
		Step: func(state, input, _ any) (bool, any) {
			op := input.(histories.Operation)
			switch op.F {
			case "read":
				return op.Type != histories.OK || op.Output.String() == state, state
			case "write":
				return true, op.Input.String()
			default:
				pair, _ := op.Input.Ints()
				if histories.Int(pair[0]).String() != state {
					return op.Type != histories.OK, state
				}
				return true, histories.Int(pair[1]).String()
			}
		},
	}
}

// plainly is the answer of Porcupine without any shortcut.
func plainly(operations []histories.Operation) bool {
	return porcupine.CheckOperations(register(), forPorcupine(operations))
}

// log makes events with consecutive indices, a millisecond apart.
type log struct{ events []histories.Event }

func (l *log) add(e histories.Event) int {
	e.Index, e.Time = len(l.events), time.Duration(len(l.events))*time.Millisecond
	l.events = append(l.events, e)
	return e.Index
}

// simulation is a register that clients use at random. It does what a right system may do:
// take effect between invoke and completion, lose a client's answer, apply what was
// given up much later, or never.
type simulation struct {
	random  *rand.Rand
	log     log
	keys    int
	values  map[string]histories.Value
	last    map[string]int64
	clients []client
	late    []histories.Event // given up, not applied yet
	next    int               // process number
}

type client struct {
	process int
	op      histories.Event
	busy    bool
	applied bool
	result  histories.Value
	kind    histories.Type
}

func simulate(random *rand.Rand, clients, keys, steps int) []histories.Event {
	s := &simulation{random: random, keys: keys, values: make(map[string]histories.Value), last: make(map[string]int64), next: clients}
	for process := range clients {
		s.clients = append(s.clients, client{process: process})
	}
	for range steps {
		s.step(&s.clients[random.IntN(clients)])
	}
	return s.log.events
}

func (s *simulation) step(c *client) {
	switch dice := s.random.IntN(10); {
	case len(s.late) > 0 && dice == 0:
		i := s.random.IntN(len(s.late))
		s.apply(s.late[i])
		s.late = append(s.late[:i], s.late[i+1:]...)
	case !c.busy:
		c.op = s.generate()
		c.op.Process = c.process
		s.log.add(c.op)
		c.busy, c.applied = true, false
	case dice == 1: // the answer never comes
		if !c.applied && s.random.IntN(2) == 0 {
			s.late = append(s.late, c.op)
		}
		s.complete(c, histories.Info, c.op.Value)
		c.process = s.next
		s.next++
	case dice == 2 && !c.applied:
		s.complete(c, histories.Fail, c.op.Value)
	case !c.applied:
		c.result, c.kind = s.apply(c.op)
		c.applied = true
	default:
		s.complete(c, c.kind, c.result)
	}
}

func (s *simulation) complete(c *client, kind histories.Type, value histories.Value) {
	e := c.op
	e.Type, e.Value = kind, value
	s.log.add(e)
	c.busy = false
}

func (s *simulation) generate() histories.Event {
	key := fmt.Sprintf("k%d", s.random.IntN(s.keys))
	e := histories.Event{F: "read", Key: key, Node: fmt.Sprintf("n%d", 1+s.random.IntN(3))}
	switch s.random.IntN(3) {
	case 0:
		s.last[key]++
		e.F, e.Value = "write", histories.Int(s.last[key])
	case 1:
		expected := s.last[key]
		if now, ok := s.values[key].Int(); ok && s.random.IntN(3) > 0 {
			expected = now
		}
		s.last[key]++
		e.F, e.Value = "cas", histories.Ints(expected, s.last[key])
	}
	return e
}

func (s *simulation) apply(e histories.Event) (histories.Value, histories.Type) {
	switch e.F {
	case "read":
		return s.values[e.Key], histories.OK
	case "cas":
		pair, _ := e.Value.Ints()
		if !s.values[e.Key].Equal(histories.Int(pair[0])) {
			return e.Value, histories.Fail
		}
		s.values[e.Key] = histories.Int(pair[1])
	default:
		s.values[e.Key] = e.Value
	}
	return e.Value, histories.OK
}

// corrupt changes what some operations saw or how they ended.
func corrupt(random *rand.Rand, events []histories.Event) {
	for range 1 + random.IntN(3) {
		if len(events) == 0 {
			return
		}
		e := &events[random.IntN(len(events))]
		switch {
		case e.F == "read" && e.Type == histories.OK && random.IntN(8) == 0:
			e.Value = histories.Nil
		case e.F == "read" && e.Type == histories.OK:
			e.Value = histories.Int(1 + random.Int64N(6))
		case e.F != "read" && e.Type == histories.Fail:
			e.Type = histories.OK
		case e.F != "read" && e.Type == histories.OK && random.IntN(3) == 0:
			e.Type = histories.Fail
		}
	}
}
