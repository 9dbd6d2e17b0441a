package transactions

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
)

// discipline is how a simulated store runs transactions.
type discipline int

const (
	strict          discipline = iota // each at once, at its commit
	sessions                          // the same, but who only reads may read an old state, of its process never an older one
	serializable                      // the same, but who only reads may read any old state
	snapshot                          // each reads the state at its start; of two that write a key the second to commit fails
	readCommitted                     // each read shows what is committed; writes come at the commit
	readUncommitted                   // all is done in place, a key that is written is locked, who fails is undone
	chaos                             // all is done in place, nothing is locked or undone
)

var promises = map[discipline]Model{
	strict: StrictSerializable, sessions: StrongSessionSerializable, serializable: Serializable,
	snapshot: SnapshotIsolation, readCommitted: ReadCommitted, readUncommitted: ReadUncommitted,
}

// plan is what a simulation runs.
type plan struct {
	discipline discipline
	registers  bool
	txns       int
	clients    int
	keys       int
	microsMost int
	infos      float64 // share of transactions whose client does not hear how they ended
	fails      float64 // share that is rolled back
	final      bool    // at last one reads all keys
}

// simulation is a store with its clients, which take turns as chance has it.
type simulation struct {
	plan
	rng     *rand.Rand
	clock   int64
	next    int64 // the next value to write
	states  []store
	locks   map[string]int // to the client
	since   map[string]int // by key, the number of the state that changed it last
	clients []*client
	seen    map[int]int // by process: the newest state that it saw
	history []Txn
	process int
}

// client runs one transaction after the other.
type client struct {
	number  int
	process int
	txn     *Txn
	at      int // the next micro-operation
	start   int // the number of the state at its start
	wrote   store
	before  []undo
	waits   int
}

type undo struct {
	key   string
	value int64
	was   []int64
}

// simulate runs a plan; the same random source gives the same history.
func simulate(p plan, rng *rand.Rand) []Txn {
	s := &simulation{plan: p, rng: rng, states: []store{{}}, locks: map[string]int{}, since: map[string]int{}, seen: map[int]int{}}
	for i := range p.clients {
		s.clients = append(s.clients, &client{number: i, process: i})
	}
	s.process = p.clients
	for begun := 0; ; {
		idle := true
		c := s.clients[rng.IntN(len(s.clients))]
		if c.txn == nil && begun < p.txns {
			begun++
			s.begin(c)
		} else if c.txn != nil {
			s.step(c)
		}
		for _, other := range s.clients {
			idle = idle && other.txn == nil
		}
		if idle && begun == p.txns {
			break
		}
	}
	if p.final {
		c := s.clients[0]
		c.txn = &Txn{Process: c.process, Call: s.tick()}
		c.wrote, c.start, c.at, c.before = store{}, len(s.states)-1, 0, nil
		for k := range p.keys {
			c.txn.Micros = append(c.txn.Micros, Micro{F: "r", Key: strconv.Itoa(k)})
			s.read(&c.txn.Micros[k], s.now()[strconv.Itoa(k)])
		}
		c.txn.Return = s.tick()
		s.end(c)
	}
	slices.SortFunc(s.history, func(a, b Txn) int { return compare(a.Call, b.Call) })
	for i := range s.history {
		s.history[i].ID = i
	}
	return s.history
}

func (s *simulation) tick() int64 { s.clock++; return s.clock }

func (s *simulation) now() store { return s.states[len(s.states)-1] }

func (s *simulation) begin(c *client) {
	txn := &Txn{Process: c.process, Call: s.tick()}
	for range 1 + s.rng.IntN(s.microsMost) {
		m := Micro{F: "r", Key: strconv.Itoa(s.rng.IntN(s.keys))}
		if s.rng.IntN(2) == 0 {
			s.next++
			m.F, m.Value = "append", s.next
			if s.registers {
				m.F = "w"
			}
		}
		txn.Micros = append(txn.Micros, m)
	}
	c.txn, c.at, c.start, c.wrote, c.before, c.waits = txn, 0, len(s.states)-1, store{}, nil, 0
}

func (s *simulation) step(c *client) {
	if c.at == len(c.txn.Micros) {
		s.commit(c)
		return
	}
	m := &c.txn.Micros[c.at]
	switch s.discipline {
	case readUncommitted, chaos:
		if m.F != "r" && s.discipline == readUncommitted {
			if owner, locked := s.locks[m.Key]; locked && owner != c.number {
				if c.waits++; c.waits > 5 {
					s.rollback(c) // it may wait for one that waits for it
				}
				return
			}
			s.locks[m.Key] = c.number
		}
		s.inPlace(c, m)
	case readCommitted:
		s.perform(c, m, s.now())
	case snapshot:
		s.perform(c, m, s.states[c.start])
	default: // all at the commit
	}
	c.at++
}

func (s *simulation) inPlace(c *client, m *Micro) {
	now := s.now()[m.Key]
	if m.F == "r" {
		s.read(m, now)
		return
	}
	c.before = append(c.before, undo{m.Key, m.Value, now})
	state := maps.Clone(s.now())
	state[m.Key] = s.changed(now, m)
	s.states = append(s.states, state)
}

func (s *simulation) changed(now []int64, m *Micro) []int64 {
	if m.F == "w" {
		return []int64{m.Value}
	}
	return append(slices.Clone(now), m.Value)
}

// perform runs a micro-operation on what the transaction sees: its own writes over a state.
func (s *simulation) perform(c *client, m *Micro, state store) {
	seen := state[m.Key]
	if mine, ok := c.wrote[m.Key]; ok {
		if s.registers {
			seen = mine
		} else {
			seen = append(slices.Clone(seen), mine...)
		}
	}
	if m.F == "r" {
		s.read(m, seen)
		return
	}
	if s.registers {
		c.wrote[m.Key] = []int64{m.Value}
	} else {
		c.wrote[m.Key] = append(slices.Clone(c.wrote[m.Key]), m.Value)
	}
}

func (s *simulation) read(m *Micro, seen []int64) {
	switch {
	case !s.registers:
		m.List = append([]int64{}, seen...)
	case len(seen) == 0:
		m.Nil = true
	default:
		m.Value = seen[0]
	}
}

func (s *simulation) commit(c *client) {
	if s.rng.Float64() < s.fails {
		s.rollback(c)
		return
	}
	switch s.discipline {
	case strict, sessions, serializable:
		state := s.states[s.old(c)]
		for i := range c.txn.Micros {
			s.perform(c, &c.txn.Micros[i], state)
		}
	case snapshot:
		for k := range c.wrote {
			if s.since[k] > c.start {
				s.rollback(c)
				return
			}
		}
	}
	if len(c.wrote) > 0 {
		state := maps.Clone(s.now())
		for k, values := range c.wrote {
			if s.registers {
				state[k] = values
			} else {
				state[k] = append(slices.Clone(state[k]), values...)
			}
			s.since[k] = len(s.states)
		}
		s.states = append(s.states, state)
	}
	s.unlock(c)
	c.txn.Return = s.tick()
	if s.rng.Float64() < s.infos {
		s.forget(c)
	}
	s.end(c)
}

// old returns the number of the state that a transaction runs at.
func (s *simulation) old(c *client) int {
	last, from := len(s.states)-1, 0
	if s.discipline == sessions {
		from = s.seen[c.process]
	}
	at := from + s.rng.IntN(last-from+1)
	if s.discipline == strict || slices.ContainsFunc(c.txn.Micros, func(m Micro) bool { return m.F != "r" }) {
		s.seen[c.process] = last + 1
		return last
	}
	s.seen[c.process] = at
	return at
}

// rollback ends a transaction that did not happen; the client may not hear that.
func (s *simulation) rollback(c *client) {
	if s.discipline == readUncommitted {
		for _, u := range slices.Backward(c.before) {
			state := maps.Clone(s.now())
			if s.registers {
				state[u.key] = u.was
			} else {
				state[u.key] = slices.DeleteFunc(slices.Clone(state[u.key]), func(value int64) bool { return value == u.value })
			}
			s.states = append(s.states, state)
		}
	}
	s.unlock(c)
	c.txn.Type, c.txn.Return = Fail, s.tick()
	if s.rng.Float64() < s.infos {
		s.forget(c)
	}
	s.end(c)
}

// forget makes the outcome unknown. The client goes on as another process, as a harness does.
func (s *simulation) forget(c *client) {
	c.txn.Type, c.txn.Return = Info, Never
	c.process = s.process
	s.process++
}

func (s *simulation) unlock(c *client) {
	maps.DeleteFunc(s.locks, func(_ string, owner int) bool { return owner == c.number })
}

func (s *simulation) end(c *client) {
	if c.txn.Type != OK {
		for i := range c.txn.Micros {
			if m := &c.txn.Micros[i]; m.F == "r" {
				m.List, m.Value, m.Nil = nil, 0, false
			}
		}
	}
	s.history = append(s.history, *c.txn)
	c.txn = nil
}
