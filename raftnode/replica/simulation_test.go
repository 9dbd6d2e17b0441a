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

	"capsize/checkers/invariants"
	"capsize/raftnode/internal/race"
	"capsize/raftnode/kv"
	"capsize/raftnode/raft"
	"capsize/raftnode/trace"
)

// world is a cluster in virtual time: replicas, a network that delays, drops, duplicates
// and partitions, disks that are slow and lose what was in flight, clients that repeat what
// they got no answer to, and an operator who changes the members meanwhile. Everything is
// drawn from one seed.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	now     int
	nodes   []*machine
	wires   []delivery
	clients []*client
	ops     []porcupine.Operation
	cut     map[[2]uint64]bool
	first   []Member // of the new cluster
	removed map[uint64]bool
	asks    map[uint64]Change // of the operator, by request
	calm    bool              // no faults any more
	lies    bool              // disks report writes as durable long before they are: the world must notice
	denies  bool              // clients take an unknown outcome for a failure: the world must notice
	log     io.Writer         // of all that is sent and replied

	digests                                   map[uint64]uint64 // by index
	leaders                                   map[uint64]uint64 // by term
	serial                                    int64
	asked                                     uint64
	served                                    int
	repeats                                   int
	crashes                                   int
	changes, transfers, installs, compactions int
	invariants                                *invariants.Checker
	checks                                    map[invariants.Invariant]uint64 // how often each was put to the test
	line                                      []byte
}

type machine struct {
	id          uint64
	incarnation uint64
	replica     *Replica // nil while down
	downUntil   int
	disk        storedState
	flight      []flight
	cached      []flight    // what a lying disk called durable and will lose in a crash
	saving      *saving     // a snapshot on its way to the disk
	lines       int         // of the trace in this incarnation
	persisted   trace.Event // the last Persist of this incarnation
	applied     uint64
	waiting     map[uint64]int // request to deadline
}

// storedState is what a machine's disk holds.
type storedState struct {
	hard     raft.HardState
	snapshot *raft.Snapshot // nil: none
	entries  []raft.Entry   // after it
	contents map[uint64][]byte
}

func (d *storedState) base() uint64 {
	if d.snapshot == nil {
		return 0
	}
	return d.snapshot.Metadata.Index
}

func (d *storedState) last() uint64 { return d.base() + uint64(len(d.entries)) }

func (d *storedState) store(write Write) {
	if write.HardState != (raft.HardState{}) {
		d.hard = write.HardState
	}
	if write.Snapshot != nil {
		d.snapshot, d.entries = write.Snapshot, nil
		d.hard.Commit = max(d.hard.Commit, d.base())
	}
	entries := write.Entries
	for len(entries) > 0 && entries[0].Index <= d.base() {
		entries = entries[1:]
	}
	if len(entries) > 0 {
		d.entries = append(d.entries[:entries[0].Index-d.base()-1:entries[0].Index-d.base()-1], entries...)
	}
}

// taken makes a snapshot of the machine's own state count.
func (d *storedState) taken(s *raft.Snapshot) {
	if index := s.Metadata.Index; index > d.base() {
		d.entries = slices.Clone(d.entries[index-d.base():])
		d.snapshot = s
		d.hard.Commit = max(d.hard.Commit, index)
	}
}

type saving struct {
	snapshot *Snapshot
	at       int
}

type flight struct {
	write Write
	at    int
}

type delivery struct {
	at      int
	data    []byte
	to      uint64
	content []byte // of a snapshot
	from    uint64 // who is told of its arrival
	lost    bool   // a snapshot that does not arrive
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
		removed: map[uint64]bool{}, asks: map[uint64]Change{},
		invariants: invariants.New(invariants.Options{OneClock: true}), checks: map[invariants.Invariant]uint64{},
	}
	for i := range uint64(nodes) {
		w.first = append(w.first, Member{ID: i + 1, Name: fmt.Sprint("n", i+1), Address: fmt.Sprint("address", i+1)})
		w.nodes = append(w.nodes, newMachine(i+1))
	}
	for _, m := range w.nodes {
		w.start(m)
	}
	for i := range clients {
		w.clients = append(w.clients, &client{id: i})
	}
	return w
}

func newMachine(id uint64) *machine {
	return &machine{id: id, disk: storedState{contents: map[uint64][]byte{}}}
}

func (w *world) node(id uint64) *machine {
	for _, m := range w.nodes {
		if m.id == id {
			return m
		}
	}
	return nil
}

func (w *world) start(m *machine) {
	storage := raft.NewMemoryStorage()
	var store *kv.Store
	if m.disk.snapshot != nil {
		var err error
		if store, err = kv.Restore(bytes.NewReader(m.disk.contents[m.disk.base()])); err != nil {
			w.t.Fatalf("node %d, snapshot at %d: %v", m.id, m.disk.base(), err)
		}
		if err := storage.ApplySnapshot(m.disk.snapshot); err != nil {
			w.t.Fatal(err)
		}
	}
	storage.SetHardState(m.disk.hard)
	if err := storage.Append(slices.Clone(m.disk.entries)); err != nil {
		w.t.Fatal(err)
	}
	var first []Member
	if m.id <= uint64(len(w.first)) {
		first = w.first
	}
	m.incarnation++
	m.applied, m.lines, m.flight, m.saving, m.persisted, m.waiting = m.disk.base(), 0, nil, nil, trace.Event{}, map[uint64]int{}
	var err error
	m.replica, err = New(Config{
		ID: m.id, Members: first, Incarnation: m.incarnation, ElectionTick: 10, HeartbeatTick: 1,
		Seed: w.rng.Uint64(), Storage: storage, Store: store, SnapshotEntries: 60, KeepEntries: 20, Trace: true,
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
			m.disk.store(f.write)
		}
	}
	for _, request := range slices.Sorted(maps.Keys(m.waiting)) {
		w.answered(m, Reply{ID: request, Outcome: Unknown})
	}
	m.replica, m.downUntil = nil, w.now+w.rng.IntN(1+w.rng.IntN(60))
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
			m.disk.store(m.cached[0].write)
			m.cached = m.cached[1:]
		}
		for len(m.flight) > 0 && m.flight[0].at <= w.now {
			done := m.flight[0].write
			m.flight = m.flight[1:]
			if w.lies {
				m.cached = append(m.cached, flight{done, w.now + 30})
			} else {
				m.disk.store(done)
			}
			m.replica.Persisted(done.Number)
			w.drain(m)
		}
		if m.saving != nil && m.saving.at <= w.now {
			w.save(m)
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
	w.operate()
}

// save makes the snapshot durable that a machine has taken.
func (w *world) save(m *machine) {
	var content bytes.Buffer
	taken := m.saving.snapshot
	m.saving = nil
	if _, err := taken.View.WriteTo(&content); err != nil {
		w.t.Fatal(err)
	}
	if w.lies && taken.Metadata.Index > m.disk.last() {
		w.violated("node %d takes a snapshot of what its disk lost", m.id)
	}
	m.disk.contents[taken.Metadata.Index] = content.Bytes()
	m.disk.taken(taken.Snapshot)
	m.replica.SnapshotSaved()
	w.drain(m)
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
		for i, a := range w.nodes {
			for j, b := range w.nodes {
				if slices.Contains(side, i) != slices.Contains(side, j) && w.rng.IntN(8) > 0 {
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
		m := w.node(d.to)
		if d.content != nil {
			w.arrive(d)
		}
		if m == nil || m.replica == nil || d.content != nil {
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

// arrive ends the stream of a snapshot, one way or the other.
func (w *world) arrive(d delivery) {
	to, from := w.node(d.to), w.node(d.from)
	arrived := !d.lost && to != nil && to.replica != nil
	if arrived {
		message, err := raft.DecodeMessage(d.data)
		if err != nil {
			w.t.Fatal(err)
		}
		store, err := kv.Restore(bytes.NewReader(d.content))
		if err != nil {
			w.t.Fatal(err)
		}
		to.disk.contents[message.Snapshot.Metadata.Index] = d.content
		to.replica.ReceiveSnapshot(message, store)
		w.drain(to)
	}
	if from.replica != nil {
		from.replica.SnapshotSent(d.to, arrived)
		w.drain(from)
	}
}

// send streams a snapshot.
func (w *world) send(m *machine, message raft.Message) {
	content := m.disk.contents[message.Snapshot.Metadata.Index]
	if content == nil {
		w.violated("node %d sends a snapshot at %d that it does not have", m.id, message.Snapshot.Metadata.Index)
	}
	lost := !w.calm && (w.cut[[2]uint64{m.id, message.To}] || w.rng.IntN(4) == 0)
	w.wires = append(w.wires, delivery{
		at: w.now + 3 + w.rng.IntN(15), data: raft.EncodeMessage(nil, message), to: message.To, content: content, from: m.id, lost: lost,
	})
}

func (w *world) drain(m *machine) {
	for m.replica.HasOutput() {
		out := m.replica.Output()
		w.observe(m, out.Events)
		for _, write := range out.Writes {
			fmt.Fprintln(w.log, w.now, m.id, write.Number, write.HardState, write.Snapshot != nil, write.Entries, write.Sync)
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
		for _, message := range out.Sends {
			w.send(m, message)
		}
		for _, reply := range out.Replies {
			w.answered(m, reply)
		}
		if out.Take != nil {
			m.saving = &saving{out.Take, w.now + 1 + w.rng.IntN(20)}
		}
		if out.Compact > 0 {
			w.compactions++
		}
	}
	if err := m.replica.Err(); err != nil {
		w.violated("%v", err)
	}
}

func (w *world) transmit(m raft.Message) {
	encoded := raft.EncodeMessage(nil, m)
	fmt.Fprintf(w.log, "%d %x\n", w.now, encoded)
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
		w.wires = append(w.wires, delivery{at: w.now + delay, data: encoded, to: m.To})
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
		c.request = w.newRequest(c)
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

// operate lets the operator change the members, or who leads, and bring up the machines
// that were added and take away those that were removed.
func (w *world) operate() {
	leader := w.leader()
	if leader == nil {
		return
	}
	members := leader.replica.Members()
	for _, member := range members {
		if w.node(member.ID) == nil && !w.removed[member.ID] {
			m := newMachine(member.ID)
			w.nodes = append(w.nodes, m)
			w.start(m)
		}
	}
	for _, m := range w.nodes {
		removed := !slices.ContainsFunc(members, func(member MemberStatus) bool { return member.ID == m.id })
		if removed && m != leader && m.id <= leader.replica.state.members.Last && w.calm && !w.removed[m.id] {
			w.retire(m)
		}
	}
	if w.calm || w.rng.IntN(60) > 0 {
		return
	}
	q := Request{Ticks: 60}
	switch w.rng.IntN(3) {
	case 0:
		q.Kind, q.To = Transfer, members[w.rng.IntN(len(members))].Name
	default:
		q.Kind, q.Changes = Reconfigure, w.plan(members, leader.replica.state.members.Last)
	}
	w.asked++
	q.ID = w.asked
	w.asks[q.ID] = Change{}
	if len(q.Changes) > 0 {
		w.asks[q.ID] = q.Changes[0]
	}
	leader.waiting[q.ID] = w.now + q.Ticks
	leader.replica.Request(q)
	w.drain(leader)
}

// plan thinks of a change that leaves three to five voters, as far as it succeeds.
func (w *world) plan(members []MemberStatus, last uint64) []Change {
	var voters, learners []string
	for _, m := range members {
		if m.Voter {
			voters = append(voters, m.Name)
		} else {
			learners = append(learners, m.Name)
		}
	}
	fresh := Change{Op: AddVoter, Name: fmt.Sprint("n", last+1), Address: "somewhere"}
	victim := Change{Op: Remove, Name: voters[w.rng.IntN(len(voters))]}
	switch {
	case len(learners) > 1:
		return []Change{{Op: Remove, Name: learners[0]}}
	case len(learners) > 0 && w.rng.IntN(2) == 0:
		return []Change{{Op: Promote, Name: learners[0]}}
	case len(voters) > 3 && w.rng.IntN(3) == 0:
		return []Change{{Op: Demote, Name: victim.Name}}
	case len(voters) > 3 && w.rng.IntN(2) == 0:
		return []Change{victim}
	case w.rng.IntN(3) == 0:
		return []Change{fresh, victim} // replaced, by way of a joint configuration
	case w.rng.IntN(2) == 0:
		fresh.Op = AddLearner
	case len(voters) >= 5:
		return []Change{victim}
	}
	return []Change{fresh}
}

// retire takes a machine away for good.
func (w *world) retire(m *machine) {
	if m.replica != nil {
		w.crash(m)
	}
	m.downUntil = forever
	w.removed[m.id] = true
}

// leader returns the machine that leads the newest term, if one does.
func (w *world) leader() (leader *machine) {
	var term uint64
	for _, m := range w.nodes {
		if m.replica == nil {
			continue
		}
		if s := m.replica.Status(); s.Role == raft.Leader && s.Term > term {
			leader, term = m, s.Term
		}
	}
	return leader
}

func (w *world) newRequest(c *client) Request {
	q := Request{Ticks: 10 + w.rng.IntN(40), Command: kv.Command{Key: fmt.Sprint(w.serial / opsPerKey)}}
	switch w.rng.IntN(3) {
	case 0:
		q.Kind, q.Command.Op = Read, kv.Get
		return q
	case 1:
		q.Command.Op = kv.Put
	case 2:
		q.Command.Op = kv.CompareAndSwap
		q.Command.Expected = kv.ValueIs(fmt.Sprint(w.serial - 1 - int64(w.rng.IntN(4))))
	}
	q.Command.Value = fmt.Sprint(w.serial)
	q.Command.Session, q.Command.Sequence = fmt.Sprintf("%d.%d", c.id, c.session), c.sequence
	return q
}

func (w *world) answered(m *machine, reply Reply) {
	if _, asked := m.waiting[reply.ID]; !asked {
		w.t.Fatalf("node %d replied to request %d, which it was not asked, or twice", m.id, reply.ID)
	}
	delete(m.waiting, reply.ID)
	if change, mine := w.asks[reply.ID]; mine {
		delete(w.asks, reply.ID)
		if reply.Outcome == Done && change.Name != "" {
			w.changes++
		} else if reply.Outcome == Done {
			w.transfers++
		}
	}
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
	c.unknown = c.unknown || (reply.Outcome == Unknown && c.request.Kind != Read)
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

// nodeNames are written into traces.
var nodeNames = func() trace.Names {
	names := trace.Names{}
	for id := range uint64(100) {
		names[id+1] = fmt.Sprint("n", id+1)
	}
	return names
}()

// trace gives the checker of Raft's invariants the line that would stand in the node's trace.
func (w *world) trace(m *machine, e trace.Event) {
	m.lines++
	w.line = fmt.Appendf(w.line[:0], `{"seq":%d,"time":%d,"inc":%d,"node":"n%d",`, m.lines, w.now, m.incarnation, m.id)
	w.line = append(e.AppendJSON(w.line, nodeNames), '}')
	fmt.Fprintf(w.log, "%s\n", w.line)
	event, err := invariants.Decode(w.line)
	if err != nil {
		w.t.Fatalf("%s: %v", w.line, err)
	}
	w.invariants.Add(event)
}

// brokenInvariant finishes the check of the invariants, and says what broke one.
func (w *world) brokenInvariant() string {
	report := w.invariants.Finish()
	for invariant, n := range report.Checks {
		w.checks[invariant] += n
	}
	if len(report.Violations) > 0 {
		v := report.Violations[0]
		return fmt.Sprintf("%v, %s: %s %v", v.Invariant, v.Name, v.Explanation, v.Events)
	}
	if len(report.Undecided)+len(report.Incomplete) > 0 {
		return fmt.Sprintf("invariants are not decided: %+v, %v", report.Undecided, report.Incomplete)
	}
	return ""
}

// observe checks what a node's trace says against what its disk did.
func (w *world) observe(m *machine, events []trace.Event) {
	for _, e := range events {
		w.trace(m, e)
		switch e.Kind {
		case trace.Persist:
			m.persisted = e
		case trace.Leader:
			if other, had := w.leaders[e.T]; had && other != m.id {
				w.violated("nodes %d and %d lead in term %d", other, m.id, e.T)
			}
			w.leaders[e.T] = m.id
			if !majority(e.Voters, e.Conf.Voters) || !majority(e.Voters, e.Conf.Outgoing) {
				w.violated("node %d leads in term %d with the votes of %v, configured are %+v", m.id, e.T, e.Voters, e.Conf)
			}
			if m.disk.hard.Term != e.T && !w.lies {
				w.violated("node %d leads in term %d, its disk says %d", m.id, e.T, m.disk.hard.Term)
			}
		case trace.VoteSend:
			if !w.lies && (m.disk.hard.Term < e.T || e.Granted && (m.disk.hard.Term != e.T || m.disk.hard.Vote != e.Node)) {
				w.violated("node %d sent a vote for %d in term %d, its disk says %+v", m.id, e.Node, e.T, m.disk.hard)
			}
		case trace.AckSend:
			if !w.lies && m.disk.last() < e.I {
				w.violated("node %d acknowledged entry %d, its disk ends at %d", m.id, e.I, m.disk.last())
			}
		case trace.SnapInstall:
			w.installs++
			m.applied = e.I
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

func majority(of, voters []uint64) bool {
	n := 0
	for _, id := range voters {
		if slices.Contains(of, id) {
			n++
		}
	}
	return len(voters) == 0 || n > len(voters)/2
}

type violation string

func (w *world) violated(format string, args ...any) {
	panic(violation(fmt.Sprintf(format, args...)))
}

// cell is what a key holds.
type cell struct {
	value   string
	present bool
}

func (c cell) is(found kv.Found) bool { return c == cell{found.Entry.Value, found.Present} }

// register is what each key must look like. Inputs are Request, outputs Reply.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		keys := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(Request).Command.Key
			keys[key] = append(keys[key], op)
		}
		return slices.Collect(maps.Values(keys))
	},
	Init: func() any { return cell{} },
	Step: func(state, input, output any) (bool, any) {
		held, c, reply := state.(cell), input.(Request).Command, output.(Reply)
		set := cell{c.Value, true}
		known := reply.Outcome == Done || reply.Err == ErrMismatch
		matches := held == cell{c.Expected.Value, true}
		switch {
		case c.Op == kv.Get:
			return held.is(reply.Result.Found), held
		case c.Op == kv.Put:
			return true, set
		case !known && matches:
			return true, set
		case !known:
			return true, held
		case reply.Err == ErrMismatch:
			return !matches && held.is(reply.Result.Found), held
		}
		return matches, set
	},
	Equal: func(a, b any) bool { return a.(cell) == b.(cell) },
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
	if broken := w.brokenInvariant(); broken != "" {
		return broken
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
	leader := w.leader()
	if leader == nil {
		return false
	}
	first := leader.replica.Status()
	for _, m := range w.nodes {
		if w.removed[m.id] {
			continue
		}
		if m.replica == nil {
			return false
		}
		s := m.replica.Status()
		if s.Leader == 0 || s.Applied == 0 || s.Applied != first.Applied || s.Term != first.Term || s.Commit != s.Applied || s.Waiting > 0 {
			return false
		}
	}
	return true
}

// worlds is how many are simulated: fewer under the race detector, since CI does without it,
// too.
var worlds = func() uint64 {
	if race.Enabled {
		return 6
	}
	return 40
}()

const (
	simulatedTicks = 1500
	// opsPerKey keeps each key's history short: checking one is exponential in the
	// operations of unknown outcome.
	opsPerKey = 40
)

func TestEveryReplyIsConsistentUnderFaults(t *testing.T) {
	served, repeats, crashes, changes, transfers, installs, compactions := 0, 0, 0, 0, 0, 0, 0
	checks := map[invariants.Invariant]uint64{}
	for seed := range worlds {
		w := newWorld(t, seed, 3+2*int(seed%2), 5)
		w.checks = checks
		if wrong := w.run(simulatedTicks); wrong != "" {
			t.Fatalf("seed %d: %s", seed, wrong)
		}
		served, repeats, crashes = served+w.served, repeats+w.repeats, crashes+w.crashes
		changes, transfers = changes+w.changes, transfers+w.transfers
		installs, compactions = installs+w.installs, compactions+w.compactions
	}
	t.Logf("%d worlds: %d operations served, %d requests repeated, %d crashes, %d changes of membership, %d transfers, %d snapshots installed, %d compactions",
		worlds, served, repeats, crashes, changes, transfers, installs, compactions)
	if served < 50*int(worlds) || repeats < int(worlds) || crashes < int(worlds) || changes < 2*int(worlds) ||
		transfers < int(worlds)/2 || installs < int(worlds)/2 || compactions < 5*int(worlds) {
		t.Error("too little happened to prove anything")
	}
	for _, invariant := range invariants.All() {
		if checks[invariant] < worlds && invariant != invariants.Liveness { // liveness has its own check here
			t.Errorf("%v, %s, was put to the test %d times", invariant, invariant.Name(), checks[invariant])
		}
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
