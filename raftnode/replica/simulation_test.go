package replica

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"capsize/raftnode/raft"
	"capsize/raftnode/trace"
)

// world is a cluster in virtual time: replicas, a network that delays, drops, duplicates
// and partitions, disks that are slow and lose what was in flight, and clients that
// repeat what they got no answer to. Everything is drawn from one seed.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	now     int
	nodes   []*machine
	wires   []delivery
	clients []*client
	ops     []porcupine.Operation
	cut     map[[2]uint64]bool
	calm    bool      // no faults any more
	lies    bool      // disks report writes as durable long before they are: the world must notice
	denies  bool      // clients take an unknown outcome for a failure: the world must notice
	log     io.Writer // of all that is sent and replied

	digests map[uint64]uint64 // by index
	leaders map[uint64]uint64 // by term
	serial  int64
	asked   uint64
	served  int
	repeats int
	crashes int
}

type machine struct {
	id          uint64
	incarnation uint64
	replica     *Replica // nil while down
	downUntil   int
	hard        raft.HardState // the disk
	entries     []raft.Entry
	flight      []flight
	cached      []flight    // what a lying disk called durable and will lose in a crash
	persisted   trace.Event // the last Persist of this incarnation
	applied     uint64
	waiting     map[uint64]int // request to deadline
}

type flight struct {
	write Write
	at    int
}

type delivery struct {
	at   int
	data []byte
	to   uint64
}

// client has one operation in flight.
type client struct {
	id       int
	session  int
	sequence uint64
	busy     bool
	request  Request
	call     int
	node     uint64
	unknown  bool // an earlier attempt may have taken effect
	attempts int
	wait     int // tick before which it does nothing
}

func newWorld(t *testing.T, seed uint64, nodes, clients int) *world {
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), cut: map[[2]uint64]bool{},
		digests: map[uint64]uint64{}, leaders: map[uint64]uint64{}, log: io.Discard,
	}
	for i := range nodes {
		w.nodes = append(w.nodes, &machine{id: uint64(i) + 1})
	}
	for _, m := range w.nodes {
		w.start(m)
	}
	for i := range clients {
		w.clients = append(w.clients, &client{id: i})
	}
	return w
}

func (w *world) start(m *machine) {
	storage := raft.NewMemoryStorage()
	storage.SetHardState(m.hard)
	if err := storage.Append(slices.Clone(m.entries)); err != nil {
		w.t.Fatal(err)
	}
	var voters []uint64
	for _, n := range w.nodes {
		voters = append(voters, n.id)
	}
	m.incarnation++
	m.applied, m.flight, m.persisted, m.waiting = 0, nil, trace.Event{}, map[uint64]int{}
	var err error
	m.replica, err = New(Config{
		ID: m.id, Voters: voters, Incarnation: m.incarnation, ElectionTick: 10, HeartbeatTick: 1,
		Seed: w.rng.Uint64(), Storage: storage, Trace: true,
	})
	if err != nil {
		w.t.Fatalf("start node %d: %v", m.id, err)
	}
	w.drain(m)
}

// crash loses what no disk write has finished, at a random point of those in flight.
func (w *world) crash(m *machine) {
	w.crashes++
	if w.lies {
		m.cached = nil
	} else {
		for _, f := range m.flight[:w.rng.IntN(len(m.flight)+1)] {
			m.store(f.write)
		}
	}
	for _, request := range slices.Sorted(maps.Keys(m.waiting)) {
		w.answered(m, Reply{ID: request, Outcome: Unknown})
	}
	m.replica, m.downUntil = nil, w.now+w.rng.IntN(1+w.rng.IntN(60))
}

func (m *machine) store(write Write) {
	if write.HardState != (raft.HardState{}) {
		m.hard = write.HardState
	}
	if len(write.Entries) > 0 {
		m.entries = append(m.entries[:write.Entries[0].Index-1], write.Entries...)
	}
}

func (w *world) step() {
	w.now++
	if !w.calm {
		w.faults()
	}
	w.deliver()
	for _, m := range w.nodes {
		if m.replica == nil {
			if w.now >= m.downUntil {
				w.start(m)
			}
			continue
		}
		for len(m.cached) > 0 && m.cached[0].at <= w.now {
			m.store(m.cached[0].write)
			m.cached = m.cached[1:]
		}
		for len(m.flight) > 0 && m.flight[0].at <= w.now {
			done := m.flight[0].write
			m.flight = m.flight[1:]
			if w.lies {
				m.cached = append(m.cached, flight{done, w.now + 30})
			} else {
				m.store(done)
			}
			m.replica.Persisted(done.Number)
			w.drain(m)
		}
		m.replica.Tick()
		w.drain(m)
		for id, deadline := range m.waiting {
			if w.now > deadline {
				w.t.Fatalf("node %d did not reply to request %d by its deadline", m.id, id)
			}
		}
	}
	for _, c := range w.clients {
		w.act(c)
	}
}

func (w *world) faults() {
	if w.rng.IntN(150) == 0 {
		if m := w.nodes[w.rng.IntN(len(w.nodes))]; m.replica != nil {
			w.crash(m)
		}
	}
	if w.rng.IntN(200) == 0 {
		clear(w.cut)
		side := w.rng.Perm(len(w.nodes))[:1+w.rng.IntN(len(w.nodes)/2+1)]
		for _, a := range w.nodes {
			for _, b := range w.nodes {
				if slices.Contains(side, int(a.id-1)) != slices.Contains(side, int(b.id-1)) && w.rng.IntN(8) > 0 {
					w.cut[[2]uint64{a.id, b.id}] = true
				}
			}
		}
	}
	if w.rng.IntN(120) == 0 {
		clear(w.cut)
	}
}

func (w *world) deliver() {
	due := w.wires[:0:0]
	w.wires = slices.DeleteFunc(w.wires, func(d delivery) bool {
		if d.at <= w.now {
			due = append(due, d)
			return true
		}
		return false
	})
	for _, d := range due {
		m := w.nodes[d.to-1]
		if m.replica == nil {
			continue
		}
		message, err := raft.DecodeMessage(d.data)
		if err != nil {
			w.t.Fatal(err)
		}
		m.replica.Receive(message)
		w.drain(m)
	}
}

func (w *world) drain(m *machine) {
	for m.replica.HasOutput() {
		out := m.replica.Output()
		w.observe(m, out.Events)
		for _, write := range out.Writes {
			at := w.now + w.rng.IntN(4)
			if !w.calm && w.rng.IntN(40) == 0 {
				at += w.rng.IntN(40)
			}
			if n := len(m.flight); n > 0 {
				at = max(at, m.flight[n-1].at)
			}
			m.flight = append(m.flight, flight{write, at})
		}
		for _, message := range out.Messages {
			w.transmit(message)
		}
		for _, reply := range out.Replies {
			w.answered(m, reply)
		}
	}
	if err := m.replica.Err(); err != nil {
		w.violated("%v", err)
	}
}

func (w *world) transmit(m raft.Message) {
	fmt.Fprintln(w.log, w.now, m.From, m.To, m.Type, m.Term, m.Index)
	copies := 1
	if !w.calm {
		if w.cut[[2]uint64{m.From, m.To}] || w.rng.IntN(30) == 0 {
			return
		}
		if w.rng.IntN(30) == 0 {
			copies = 2
		}
	}
	for range copies {
		delay := 1 + w.rng.IntN(2)
		if !w.calm && w.rng.IntN(20) == 0 {
			delay += w.rng.IntN(40)
		}
		w.wires = append(w.wires, delivery{w.now + delay, raft.EncodeMessage(nil, m), m.To})
	}
}

// act lets a client begin an operation, or repeat one.
func (w *world) act(c *client) {
	if c.busy || w.now < c.wait || w.calm {
		return
	}
	if c.attempts == 0 {
		w.serial++
		c.sequence++
		c.call = w.now
		c.request = Request{
			Op: Op(w.rng.IntN(3)), Key: fmt.Sprint(w.serial / opsPerKey), Value: w.serial, Ticks: 10 + w.rng.IntN(40),
			Session: fmt.Sprintf("%d.%d", c.id, c.session), Sequence: c.sequence,
		}
		if c.request.Op == CompareAndSwap {
			c.request.Expected = w.serial - 1 - int64(w.rng.IntN(4))
		}
	} else {
		w.repeats++
	}
	m := w.nodes[w.rng.IntN(len(w.nodes))]
	if m.replica == nil {
		return // refused connection: nothing was sent
	}
	c.attempts++
	c.busy, c.node = true, m.id
	w.asked++
	c.request.ID = w.asked
	m.waiting[c.request.ID] = w.now + c.request.Ticks
	m.replica.Request(c.request)
	w.drain(m)
}

func (w *world) answered(m *machine, reply Reply) {
	if _, asked := m.waiting[reply.ID]; !asked {
		w.t.Fatalf("node %d replied to request %d, which it was not asked, or twice", m.id, reply.ID)
	}
	delete(m.waiting, reply.ID)
	for _, c := range w.clients {
		if c.busy && c.request.ID == reply.ID {
			w.complete(c, reply)
		}
	}
}

func (w *world) complete(c *client, reply Reply) {
	c.busy = false
	fmt.Fprintln(w.log, w.now, c.id, c.request, reply)
	settled := reply.Outcome == Done || reply.Err == ErrMismatch
	c.unknown = c.unknown || (reply.Outcome == Unknown && c.request.Op != Get)
	c.wait = w.now + w.rng.IntN(6)
	if !settled && c.unknown && c.attempts < 4 && w.rng.IntN(4) > 0 {
		return // the same session and sequence again, elsewhere
	}
	switch {
	case settled:
		w.served++
		w.record(c, reply, w.now)
	case c.unknown:
		if !w.denies {
			w.record(c, reply, forever)
		}
		c.session++ // as a new client: the old session's request may still be on its way
		c.sequence = 0
	}
	c.attempts, c.unknown = 0, false
}

const forever = 1 << 40

func (w *world) record(c *client, reply Reply, end int) {
	w.ops = append(w.ops, porcupine.Operation{ClientId: c.id, Input: c.request, Output: reply, Call: int64(c.call), Return: int64(end)})
}

// observe checks what a node's trace says against what its disk did.
func (w *world) observe(m *machine, events []trace.Event) {
	for _, e := range events {
		switch e.Kind {
		case trace.Persist:
			m.persisted = e
		case trace.Leader:
			if other, had := w.leaders[e.T]; had && other != m.id {
				w.violated("nodes %d and %d lead in term %d", other, m.id, e.T)
			}
			w.leaders[e.T] = m.id
			if len(e.Voters) <= len(w.nodes)/2 {
				w.violated("node %d leads in term %d with the votes of %v", m.id, e.T, e.Voters)
			}
			if m.hard.Term != e.T && !w.lies {
				w.violated("node %d leads in term %d, its disk says %d", m.id, e.T, m.hard.Term)
			}
		case trace.VoteSend:
			if !w.lies && (m.hard.Term < e.T || e.Granted && (m.hard.Term != e.T || m.hard.Vote != e.Node)) {
				w.violated("node %d sent a vote for %d in term %d, its disk says %+v", m.id, e.Node, e.T, m.hard)
			}
		case trace.AckSend:
			if !w.lies && uint64(len(m.entries)) < e.I {
				w.violated("node %d acknowledged entry %d, its disk ends at %d", m.id, e.I, len(m.entries))
			}
		case trace.Apply:
			if e.I != m.applied+1 {
				w.violated("node %d applied %d after %d", m.id, e.I, m.applied)
			}
			m.applied = e.I
			if digest, had := w.digests[e.I]; had && digest != e.Digest {
				w.violated("digests differ at entry %d", e.I)
			}
			w.digests[e.I] = e.Digest
		}
	}
}

type violation string

func (w *world) violated(format string, args ...any) {
	panic(violation(fmt.Sprintf(format, args...)))
}

// register is what each key must look like. Inputs are Request, outputs Reply.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		keys := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(Request).Key
			keys[key] = append(keys[key], op)
		}
		return slices.Collect(maps.Values(keys))
	},
	Init: func() any { return Reply{} },
	Step: func(state, input, output any) (bool, any) {
		held, q, reply := state.(Reply), input.(Request), output.(Reply)
		set := Reply{Value: q.Value, Present: true}
		known := reply.Outcome == Done || reply.Err == ErrMismatch
		matches := held.Present && held.Value == q.Expected
		switch {
		case q.Op == Get:
			return held.Present == reply.Present && held.Value == reply.Value, held
		case q.Op == Put:
			return true, set
		case !known && matches:
			return true, set
		case !known:
			return true, held
		case reply.Err == ErrMismatch:
			return !matches && held.Present == reply.Present && held.Value == reply.Value, held
		}
		return matches, set
	},
	Equal: func(a, b any) bool { return a.(Reply) == b.(Reply) },
}

// run lives through the ticks, then heals everything and lets the cluster settle. It
// returns what went wrong.
func (w *world) run(ticks int) (wrong string) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case violation:
			wrong = string(p)
		default:
			panic(p)
		}
	}()
	for range ticks {
		w.step()
	}
	w.calm = true
	clear(w.cut)
	for settled := false; !settled; w.step() {
		if w.now > ticks+2000 {
			return "the cluster did not settle after everything was healed"
		}
		settled = w.settled()
	}
	for _, c := range w.clients {
		if c.attempts > 0 { // it was about to ask again
			w.record(c, Reply{Outcome: Unknown}, forever)
		}
	}
	switch porcupine.CheckOperationsTimeout(register, w.ops, 10*time.Second) {
	case porcupine.Illegal:
		return "the history is not linearizable"
	case porcupine.Unknown:
		return "whether the history is linearizable was not decided in time"
	}
	return ""
}

func (w *world) settled() bool {
	var first Status
	for i, m := range w.nodes {
		if m.replica == nil {
			return false
		}
		s := m.replica.Status()
		if i == 0 {
			first = s
		}
		if s.Leader == 0 || s.Applied == 0 || s.Applied != first.Applied || s.Term != first.Term || s.Commit != s.Applied || s.Waiting > 0 {
			return false
		}
	}
	return true
}

const (
	worlds         = uint64(24)
	simulatedTicks = 1500
	// opsPerKey keeps each key's history short: checking one is exponential in the
	// operations of unknown outcome.
	opsPerKey = 40
)

func TestEveryReplyIsConsistentUnderFaults(t *testing.T) {
	served, repeats, crashes := 0, 0, 0
	for seed := range worlds {
		w := newWorld(t, seed, 3+2*int(seed%2), 5)
		if wrong := w.run(simulatedTicks); wrong != "" {
			t.Fatalf("seed %d: %s", seed, wrong)
		}
		served, repeats, crashes = served+w.served, repeats+w.repeats, crashes+w.crashes
	}
	t.Logf("%d worlds: %d operations served, %d requests repeated, %d crashes", worlds, served, repeats, crashes)
	if served < 50*int(worlds) || repeats < int(worlds) || crashes < int(worlds) {
		t.Error("too little happened to prove anything")
	}
}

// The other half of the proof: the same checks find what is wrong.
func TestTheSimulationNotices(t *testing.T) {
	for _, c := range []struct {
		what string
		harm func(*world)
		want string // among what is found; anything is, if empty
	}{
		{"disks that forget what they called durable", func(w *world) { w.lies = true }, ""},
		{"time-outs taken for failures", func(w *world) { w.denies = true }, "the history is not linearizable"},
	} {
		t.Run(c.what, func(t *testing.T) {
			found := map[string]int{}
			for seed := range worlds / 2 {
				w := newWorld(t, seed, 3, 5)
				c.harm(w)
				found[w.run(simulatedTicks)]++
			}
			if c.want != "" && found[c.want] == 0 {
				t.Errorf("found %v", found)
			}
			if found[""] > int(worlds)/4 {
				t.Errorf("%d of %d worlds look right", found[""], worlds/2)
			}
		})
	}
}

func TestTheSameSeedGivesTheSameRun(t *testing.T) {
	logs := make([]bytes.Buffer, 2)
	for i := range logs {
		w := newWorld(t, 42, 5, 5)
		w.log = &logs[i]
		if wrong := w.run(simulatedTicks); wrong != "" {
			t.Fatal(wrong)
		}
	}
	if logs[0].Len() == 0 || !bytes.Equal(logs[0].Bytes(), logs[1].Bytes()) {
		t.Error("two runs from one seed differ")
	}
}
