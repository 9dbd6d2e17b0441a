package raft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// world is a cluster in virtual time. Its network delays, drops, doubles, reorders and
// partitions; its disks are slow; its nodes crash, and lose what was not durable. All of
// it is drawn from one seed.
type world struct {
	random  *rand.Rand
	voters  []uint64
	members map[uint64]*member
	oracle  *oracle
	network []Message
	cut     map[[2]uint64]bool // by sender and receiver: takes no messages
	late    map[[2]uint64]bool // delivers what is on its way only when hold is over
	hold    int                // events to go
	loss    int                // percent of messages
	pace    int                // messages delivered in one event
	config  nodeConfig
	kinds   []int // of partitions

	sabotage   sabotage
	transcript *bytes.Buffer // nil: not kept
	proposed   uint64
	served     int
	crashes    int
}

type member struct {
	id      uint64
	node    *pipelined
	storage *MemoryStorage
	flight  []work // writes not yet durable
	synced  HardState
	down    bool
	life    int

	given   uint64  // the last index given out to be applied
	applied uint64  // the last one applied
	machine []chain // what was applied, [i] up to entry i

	contexts [][]byte          // of this life's reads
	asked    map[string]uint64 // open reads: the commit index when they were asked

	// What the oracle knows of it.
	log      []chain // in memory
	disk     []chain
	term     uint64
	termSent uint64 // the highest term that a message which rests on it has borne
	commit   uint64
	leading  bool
	longest  []Entry // that was ever on the disk, for a disk that keeps it
}

func newWorld(seed uint64, size int, s sabotage) *world {
	w := &world{
		random: rand.New(rand.NewPCG(seed, uint64(size))), members: make(map[uint64]*member),
		cut: make(map[[2]uint64]bool), late: make(map[[2]uint64]bool), sabotage: s,
	}
	pick := func(choices ...uint64) uint64 { return choices[w.random.IntN(len(choices))] }
	w.loss, w.pace = w.random.IntN(15), 1+w.random.IntN(3)
	w.config = nodeConfig{Config: Config{
		ElectionTick: 4 + w.random.IntN(8), HeartbeatTick: 1 + w.random.IntN(2),
		MaxSizePerMsg: pick(0, 80, 1<<20), MaxInflightMsgs: int(pick(1, 2, 8)),
		MaxUncommittedEntriesSize: pick(0, 40), MaxCommittedSizePerReady: pick(0, 1, 100),
		PreVote: w.random.IntN(2) == 0, CheckQuorum: w.random.IntN(2) == 0,
	}}
	w.kinds = []int{aroundOne, halves, oneWay, hereAndThere, aroundTheLeader, none, none}
	if s.world != nil {
		s.world(w)
	}
	for id := uint64(1); id <= uint64(size); id++ {
		w.voters = append(w.voters, id)
		w.members[id] = &member{id: id, storage: NewMemoryStorage(), machine: make([]chain, 1), disk: make([]chain, 1)}
	}
	w.oracle = newOracle(w.members)
	for _, id := range w.voters {
		w.start(w.members[id])
	}
	return w
}

func (w *world) note(format string, args ...any) {
	if w.transcript != nil {
		fmt.Fprintf(w.transcript, format+"\n", args...)
	}
}

func (w *world) noteReady(m *member, rd work) {
	if w.transcript == nil {
		return
	}
	var soft SoftState
	if rd.SoftState != nil {
		soft = *rd.SoftState
	}
	rd.SoftState = nil // its address is another one each time
	w.note("%d ready %+v %+v", m.id, rd, soft)
}

// start brings a node up with what is on its disk. What its state machine keeps of what it
// applied may be all or nothing.
func (w *world) start(m *member) {
	c := w.config
	c.ID, c.Voters, c.Storage, c.Seed = m.id, w.voters, m.storage, w.random.Uint64()
	c.Trace = func(e Event) {
		w.note("%d event %+v", m.id, e)
		w.oracle.event(m, e)
	}
	if w.random.IntN(3) == 0 {
		m.applied = 0
	}
	c.Applied, m.given = m.applied, m.applied
	if w.sabotage.restart != nil {
		w.sabotage.restart(m)
	}
	m.flight, m.down, m.contexts, m.asked = nil, false, nil, make(map[string]uint64)
	m.life++
	node, err := newPipelined(c)
	if err != nil {
		w.oracle.fail("node %d does not start: %v", m.id, err)
		m.down = true
		return
	}
	m.node = node
	w.oracle.started(m)
}

// crash takes a node down. Some of its writes may have reached the disk, the last of them
// in part, without anybody having been told. A commit index that was not synced may be
// lost again.
func (w *world) crash(m *member) {
	w.crashes++
	m.down, m.leading = true, false
	for len(m.flight) > 0 && w.random.IntN(2) == 0 {
		w.write(m, m.flight[0])
		m.flight = m.flight[1:]
	}
	if len(m.flight) > 0 {
		if torn := m.flight[0].Entries; len(torn) > 1 {
			w.write(m, work{Entries: torn[:w.random.IntN(len(torn))]})
		}
	}
	if hard := m.storage.hard; w.random.IntN(2) == 0 && hard.Commit > m.synced.Commit {
		hard.Commit = m.synced.Commit
		m.storage.SetHardState(hard)
	}
}

// write puts a write on the disk.
func (w *world) write(m *member, rd work) {
	entries := rd.Entries
	if len(entries) > 0 {
		m.disk = m.disk[:entries[0].Index]
		for _, e := range entries {
			c := chainLink(m.disk[e.Index-1], e)
			m.disk = append(m.disk, c)
			w.oracle.checkMatching(m, e.Index, e.Term, c)
		}
	}
	if err := m.storage.Append(entries); err != nil {
		w.oracle.fail("node %d: %v", m.id, err)
	}
	if rd.HardState != (HardState{}) {
		m.storage.SetHardState(rd.HardState)
	}
	if rd.MustSync {
		m.synced = m.storage.hard
	}
}

// finishWrite makes the oldest write durable and releases what waited for it.
func (w *world) finishWrite(m *member) {
	if m.down || len(m.flight) == 0 {
		return
	}
	rd := m.flight[0]
	m.flight = m.flight[1:]
	w.write(m, rd)
	w.send(rd.AfterPersist...)
	w.persisted(m, rd.Write)
}

func (w *world) persisted(m *member, write uint64) {
	if err := m.node.Persisted(write); err != nil {
		w.oracle.fail("node %d: %v", m.id, err)
	}
}

func (w *world) send(messages ...Message) {
	for _, m := range messages {
		w.note("send %s", describe(m))
		w.oracle.sent(m)
		// A cut link takes nothing more; what is on its way already arrives, however late.
		if !w.cut[[2]uint64{m.From, m.To}] {
			w.network = append(w.network, m)
		}
	}
}

// carryOut does what a node wants done.
func (w *world) carryOut(m *member) {
	for rounds := 0; !m.down && m.node.HasReady(); rounds++ {
		if rounds > 100 {
			w.oracle.fail("node %d always has more to do", m.id)
			return
		}
		rd := m.node.Ready()
		w.noteReady(m, rd)
		if w.sabotage.ready != nil {
			w.sabotage.ready(w, m, &rd)
		}
		w.send(rd.Messages...)
		if rd.Write > 0 {
			m.flight = append(m.flight, rd)
		}
		for _, e := range rd.Committed {
			w.oracle.applied(m, e)
			m.applied = e.Index
		}
		for _, read := range rd.ReadStates {
			w.serve(m, read)
		}
	}
	if err := m.node.Err(); err != nil {
		w.oracle.fail("node %d stands still: %v", m.id, err)
	}
}

// reportApplied tells the node what it has applied, some time after it has.
func (w *world) reportApplied(m *member) {
	if m.down || m.given == m.applied {
		return
	}
	m.given += 1 + w.random.Uint64N(m.applied-m.given)
	if err := m.node.AppliedTo(m.given); err != nil {
		w.oracle.fail("node %d: %v", m.id, err)
	}
}

func (w *world) propose(m *member) error {
	if m.down {
		return ErrProposalDropped
	}
	w.proposed++
	data := binary.BigEndian.AppendUint64(nil, w.proposed)
	return m.node.Propose(data[:1+w.random.IntN(8)])
}

// read asks for a read; a quarter of them try an earlier context again.
func (w *world) read(m *member) {
	if m.down {
		return
	}
	context := fmt.Appendf(nil, "%d.%d", m.life, len(m.contexts))
	if len(m.contexts) > 0 && w.random.IntN(4) == 0 {
		context = m.contexts[w.random.IntN(len(m.contexts))]
	} else {
		m.contexts = append(m.contexts, context)
	}
	if err := m.node.ReadIndex(context); err != nil {
		delete(m.asked, string(context))
		return
	}
	m.asked[string(context)] = w.oracle.commitIndex()
}

func (w *world) serve(m *member, read ReadState) {
	w.served++
	before, open := m.asked[string(read.RequestCtx)]
	switch {
	case !open:
		w.oracle.fail("reads: node %d is told to serve %q, which it did not ask, or not again", m.id, read.RequestCtx)
	case read.Index < before:
		w.oracle.fail("stale read: node %d may serve %q at %d, but %d was committed when it was asked", m.id, read.RequestCtx, read.Index, before)
	}
	delete(m.asked, string(read.RequestCtx))
}

// deliver takes a message from the network, in any order, and perhaps leaves a copy.
func (w *world) deliver(i int, faults bool) {
	m := w.network[i]
	if faults && w.late[[2]uint64{m.From, m.To}] && w.hold > 0 {
		return
	}
	if !faults || w.random.IntN(20) > 0 {
		w.network = slices.Delete(w.network, i, i+1)
	}
	to := w.members[m.To]
	if to.down || faults && w.random.IntN(100) < w.loss {
		return
	}
	decoded, err := DecodeMessage(EncodeMessage(nil, m))
	if err != nil {
		w.oracle.fail("%v", err)
		return
	}
	if w.sabotage.receive != nil {
		w.sabotage.receive(w, to, &decoded)
	}
	if err := to.node.Step(decoded); err != nil && !errors.Is(err, ErrProposalDropped) && !errors.Is(err, ErrReadDropped) {
		w.oracle.fail("node %d: %v", m.To, err)
	}
}

// Kinds of partitions.
const (
	none = iota
	aroundOne
	halves
	oneWay
	hereAndThere
	// aroundTheLeader: what is on its way to the leader arrives only when there may be another
	// one.
	aroundTheLeader
)

// partition cuts other links than before.
func (w *world) partition() {
	if w.hold > 0 {
		return
	}
	clear(w.cut)
	clear(w.late)
	kind := w.kinds[w.random.IntN(len(w.kinds))]
	lone := w.voters[w.random.IntN(len(w.voters))]
	if leader := w.leader(); kind == aroundTheLeader && leader != nil {
		lone, w.hold = leader.id, 40*w.config.ElectionTick*len(w.voters)
	}
	for _, a := range w.voters {
		for _, b := range w.voters {
			link := [2]uint64{a, b}
			switch kind {
			case aroundOne:
				w.cut[link] = a == lone || b == lone
			case halves:
				w.cut[link] = a <= lone && b > lone || b <= lone && a > lone
			case oneWay:
				w.cut[link] = a == lone
			case hereAndThere:
				w.cut[link] = w.random.IntN(4) == 0
			case aroundTheLeader:
				w.cut[link], w.late[link] = a == lone || b == lone, b == lone
			}
		}
	}
}

// event is one thing that happens.
func (w *world) event() {
	w.hold = max(w.hold-1, 0)
	m := w.members[w.voters[w.random.IntN(len(w.voters))]]
	switch dice := w.random.IntN(1000); {
	case dice < 200:
		if !m.down {
			m.node.Tick()
		}
	case dice < 700:
		for range min(w.pace, len(w.network)) {
			// Mostly the older ones, so that some stay for long.
			w.deliver(w.random.IntN(1+w.random.IntN(len(w.network))), true)
		}
	case dice < 880:
		w.finishWrite(m)
	case dice < 910:
		_ = w.propose(m) // without a leader it is refused
	case dice < 940:
		w.read(m)
	case dice < 980:
		w.reportApplied(m)
	case dice < 984:
		if !m.down {
			m.node.ReportUnreachable(w.voters[w.random.IntN(len(w.voters))])
		}
	case dice < 986:
		w.partition()
	case dice < 988:
		if !m.down {
			w.crash(m)
		}
	default:
		if m.down {
			w.start(m)
		}
	}
	w.network = w.network[:min(len(w.network), networkMost)]
}

// storm lets events happen until something is wrong.
func (w *world) storm(events int) {
	for range events {
		w.event()
		for _, id := range w.voters {
			if m := w.members[id]; !m.down {
				w.carryOut(m)
			}
		}
		if len(w.oracle.failures) > 0 {
			return
		}
	}
}

// calm heals everything. Within a bounded time the cluster must have a leader, take a
// proposal, serve a read, and be equal everywhere.
func (w *world) calm() {
	clear(w.cut)
	clear(w.late)
	for _, id := range w.voters {
		if w.members[id].down {
			w.start(w.members[id])
		}
	}
	var target uint64 // applied everywhere, it is the end; 0: nothing is proposed yet
	served := 0
	for round := range 60 * w.config.ElectionTick {
		w.calmRound()
		if len(w.oracle.failures) > 0 {
			return
		}
		leader := w.leader()
		if leader == nil {
			continue
		}
		if target > 0 && w.served > served && w.everywhere(target) {
			return
		}
		if target == 0 || round%(10*w.config.ElectionTick) == 0 { // that leader may be gone
			if w.propose(leader) == nil {
				target, served = leader.node.Status().LastIndex, w.served
				w.read(leader)
			}
		}
	}
	w.oracle.fail("liveness: everything is healed, and the cluster does not settle: %s", w.states())
}

// calmRound is one tick of everybody, and then every message and write in order, until
// nobody has anything more to say.
func (w *world) calmRound() {
	for _, id := range w.voters {
		m := w.members[id]
		m.node.Tick()
		w.quiesce(m)
	}
	for range 20_000 {
		if len(w.network) == 0 || len(w.oracle.failures) > 0 {
			return
		}
		to := w.members[w.network[0].To]
		w.deliver(0, false)
		w.quiesce(to)
	}
	w.oracle.fail("liveness: the nodes never stop talking")
}

// quiesce lets a node do all that it can do by itself.
func (w *world) quiesce(m *member) {
	for range 1000 {
		w.carryOut(m)
		if len(m.flight) == 0 && m.given == m.applied || len(w.oracle.failures) > 0 {
			return
		}
		w.finishWrite(m)
		w.reportApplied(m)
	}
	w.oracle.fail("node %d does not come to rest", m.id)
}

func (w *world) leader() *member {
	for _, id := range w.voters {
		if m := w.members[id]; !m.down && m.node.Status().RaftState == Leader {
			return m
		}
	}
	return nil
}

// everywhere reports whether all nodes have applied the same, at least up to index, and
// follow the same leader.
func (w *world) everywhere(index uint64) bool {
	first := w.members[w.voters[0]].node.Status()
	for _, id := range w.voters {
		s := w.members[id].node.Status()
		if s.Applied < index || s.Applied != first.Applied || s.Term != first.Term || s.Lead == None || s.LastIndex != s.Applied {
			return false
		}
	}
	return true
}

func (w *world) states() (s string) {
	for _, id := range w.voters {
		s += fmt.Sprintf("\n%+v", w.members[id].node.Status())
	}
	return s
}

// live runs a world to its end and returns the first thing that went wrong.
func (w *world) live(events int) string {
	w.storm(events)
	if len(w.oracle.failures) == 0 {
		w.calm()
	}
	if len(w.oracle.failures) > 0 {
		return w.oracle.failures[0]
	}
	return ""
}

// networkMost is how many messages the network holds; more are lost.
const networkMost = 300

const simulatedEvents = 8000

func TestRaftKeepsItsPromisesInRandomWorlds(t *testing.T) {
	worlds := uint64(80)
	if testing.Short() {
		worlds = 20
	}
	var committed uint64
	served, crashes, leaders := 0, 0, 0
	for seed := range worlds {
		w := newWorld(seed, 3+2*int(seed%2), sabotage{})
		if wrong := w.live(simulatedEvents); wrong != "" {
			t.Errorf("seed %d: %s", seed, wrong)
		}
		committed += w.oracle.commitIndex()
		served, crashes, leaders = served+w.served, crashes+w.crashes, leaders+len(w.oracle.leaders)
	}
	t.Logf("%d worlds: %d entries committed, %d reads served, %d leaders, %d crashes", worlds, committed, served, leaders, crashes)
	if n := int(worlds); committed < 50*worlds || served < 20*n || crashes < 5*n || leaders < 3*n {
		t.Error("too little happened to prove anything")
	}
}

func TestTheSameInputsGiveTheSameOutputs(t *testing.T) {
	for size := 3; size <= 5; size += 2 {
		var runs [2]bytes.Buffer
		for i := range runs {
			w := newWorld(7, size, sabotage{})
			w.transcript = &runs[i]
			if wrong := w.live(simulatedEvents); wrong != "" {
				t.Fatal(wrong)
			}
		}
		if runs[0].Len() < 100_000 || !bytes.Equal(runs[0].Bytes(), runs[1].Bytes()) {
			t.Errorf("%d nodes: two runs from one seed give %d and %d bytes, and they are not equal", size, runs[0].Len(), runs[1].Len())
		}
	}
}
