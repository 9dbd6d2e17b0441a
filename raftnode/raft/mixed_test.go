package raft

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	etcd "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"capsize/raftnode/internal/race"
)

// A cluster in which every second node is one of go.etcd.io/raft's. They know of each
// other only what goes over the wire: bytes.
type mixture struct {
	t         *testing.T
	random    *rand.Rand
	nodes     map[uint64]mixed
	wire      [][]byte
	cut       map[uint64]bool
	leaders   map[uint64]uint64 // by term
	committed map[uint64]string // by index
	highest   uint64            // committed
	reads     map[string]uint64 // by name: what was committed when it was asked
	answered  int
	proposed  int
	ledBy     map[bool]int // our own nodes, the others
}

// mixed is a node of either kind with its disk.
type mixed interface {
	Tick()
	Campaign() error
	Propose(data []byte) error
	HasReady() bool
	own() bool
	leads() (term uint64, does bool)
	receive(message []byte)
	read(name []byte)
	restart()
	compact()
	// carryOut does what one Ready says. All that leaves is handed to the cluster.
	carryOut(c *mixture, id uint64)
}

var mixtureVoters = []uint64{1, 2, 3, 4, 5}

func newMixture(t *testing.T, seed uint64) *mixture {
	c := &mixture{
		t: t, random: rand.New(rand.NewPCG(seed, 5)), nodes: make(map[uint64]mixed), cut: make(map[uint64]bool),
		leaders: make(map[uint64]uint64), committed: make(map[uint64]string), reads: make(map[string]uint64), ledBy: make(map[bool]int),
	}
	for _, id := range mixtureVoters {
		if id%2 == seed%2 {
			c.nodes[id] = newMixedOwn(t, id, seed)
		} else {
			c.nodes[id] = newMixedShadow(t, id)
		}
	}
	return c
}

func (c *mixture) apply(id, index uint64, data []byte) {
	if was, known := c.committed[index]; known && was != string(data) {
		c.t.Fatalf("node %d applies %q at %d, another one %q", id, data, index, was)
	}
	c.committed[index] = string(data)
	c.highest = max(c.highest, index)
}

func (c *mixture) answer(index uint64, name []byte) {
	if asked, open := c.reads[string(name)]; open && index < asked {
		c.t.Fatalf("read %q is answered at %d, but %d was committed when it was asked", name, index, asked)
	}
	delete(c.reads, string(name))
	c.answered++
}

func (c *mixture) settle(id uint64) {
	for node := c.nodes[id]; node.HasReady(); {
		node.carryOut(c, id)
		if term, does := node.leads(); does {
			if other, known := c.leaders[term]; known && other != id {
				c.t.Fatalf("nodes %d and %d lead in term %d", other, id, term)
			} else if !known {
				c.ledBy[node.own()]++
			}
			c.leaders[term] = id
		}
	}
}

func (c *mixture) event() {
	id := mixtureVoters[c.random.IntN(len(mixtureVoters))]
	node := c.nodes[id]
	switch roll := c.random.IntN(1000); {
	case roll < 650:
		c.deliver()
	case roll < 800:
		node.Tick()
	case roll < 900:
		c.proposed++
		_ = node.Propose(fmt.Appendf(nil, "%d", c.proposed)) // refused: lost
	case roll < 960:
		name := binary.AppendUvarint([]byte("read"), c.random.Uint64())
		c.reads[string(name)] = c.highest
		node.read(name)
	case roll < 985:
		node.compact()
	case roll < 993:
		node.restart()
	default:
		clear(c.cut)
		for range c.random.IntN(3) {
			c.cut[mixtureVoters[c.random.IntN(len(mixtureVoters))]] = true
		}
	}
	c.settle(id)
}

func (c *mixture) deliver() {
	if len(c.wire) == 0 {
		return
	}
	i := c.random.IntN(min(len(c.wire), 6))
	encoded := c.wire[i]
	if c.random.IntN(30) > 0 {
		c.wire = append(c.wire[:i], c.wire[i+1:]...)
	}
	m, err := DecodeMessage(encoded)
	must(c.t, err)
	if c.random.IntN(30) == 0 || c.cut[m.To] || c.cut[m.From] {
		return
	}
	c.nodes[m.To].receive(encoded)
	c.settle(m.To)
}

// heal mends everything and waits until what is proposed then is committed.
func (c *mixture) heal() {
	clear(c.cut)
	before := c.highest
	for round := range 3000 {
		for _, id := range mixtureVoters {
			c.nodes[id].Tick()
			c.settle(id)
		}
		for range len(c.wire) {
			encoded := c.wire[0]
			c.wire = c.wire[1:]
			m, err := DecodeMessage(encoded)
			must(c.t, err)
			c.nodes[m.To].receive(encoded)
			c.settle(m.To)
		}
		if round%50 == 40 {
			if round > 300 && c.highest > before {
				return
			}
			before = c.highest
			for _, id := range mixtureVoters {
				_ = c.nodes[id].Propose([]byte("last"))
				c.settle(id)
			}
		}
	}
	c.t.Fatal("nothing is committed after the healing")
}

func TestOurNodesAndEtcdsFormOneCluster(t *testing.T) {
	seeds := uint64(40)
	if race.Enabled || testing.Short() {
		seeds = 6
	}
	ledBy, answered, committed := make(map[bool]int), 0, uint64(0)
	for seed := range seeds {
		c := newMixture(t, seed)
		for range 4000 {
			c.event()
		}
		c.heal()
		ledBy[true] += c.ledBy[true]
		ledBy[false] += c.ledBy[false]
		answered += c.answered
		committed += c.highest
	}
	t.Logf("%d leaders of ours, %d of theirs, %d entries committed, %d reads answered", ledBy[true], ledBy[false], committed, answered)
	if min(ledBy[true], ledBy[false], answered) < int(seeds) || committed < 50*seeds {
		t.Error("too little happened")
	}
}

type mixedOwn struct {
	*RawNode
	t      *testing.T
	disk   *MemoryStorage
	config Config
}

func newMixedOwn(t *testing.T, id, seed uint64) *mixedOwn {
	n := &mixedOwn{t: t, disk: NewMemoryStorage()}
	n.config = Config{
		ID: id, ElectionTick: 10, HeartbeatTick: 1, Storage: n.disk, MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 8,
		PreVote: true, CheckQuorum: true, Seed: seed,
	}
	must(t, n.disk.ApplySnapshot(mixtureSnapshot()))
	n.restart()
	return n
}

func mixtureSnapshot() *Snapshot {
	return &Snapshot{Metadata: SnapshotMetadata{Index: 1, Term: 1, ConfState: ConfState{Voters: mixtureVoters}}}
}

func (n *mixedOwn) own() bool { return true }

func (n *mixedOwn) restart() {
	var err error
	n.RawNode, err = NewRawNode(n.config)
	must(n.t, err)
}

func (n *mixedOwn) leads() (uint64, bool) {
	s := n.BasicStatus()
	return s.Term, s.RaftState == Leader
}

func (n *mixedOwn) receive(message []byte) {
	m, err := DecodeMessage(message)
	must(n.t, err)
	_ = n.Step(m) // refused: lost
}

func (n *mixedOwn) read(name []byte) { _ = n.ReadIndex(name) }

func (n *mixedOwn) compact() {
	applied := n.BasicStatus().Applied
	if _, err := n.disk.CreateSnapshot(applied, ConfState{Voters: mixtureVoters}, nil); err == nil {
		must(n.t, n.disk.Compact(applied))
	}
}

func (n *mixedOwn) carryOut(c *mixture, id uint64) {
	rd := n.Ready()
	if rd.HardState != (HardState{}) {
		n.disk.SetHardState(rd.HardState)
	}
	if rd.Snapshot != nil {
		must(n.t, n.disk.ApplySnapshot(rd.Snapshot))
	}
	must(n.t, n.disk.Append(rd.Entries))
	for _, e := range rd.CommittedEntries {
		c.apply(id, e.Index, e.Data)
	}
	for _, read := range rd.ReadStates {
		c.answer(read.Index, read.RequestCtx)
	}
	n.Advance()
	for _, m := range rd.Messages {
		c.wire = append(c.wire, EncodeMessage(nil, m))
		if m.Type == MsgSnap {
			n.ReportSnapshot(m.To, SnapshotFinish)
		}
	}
}

type mixedShadow struct {
	*etcd.RawNode
	t    *testing.T
	id   uint64
	disk *etcd.MemoryStorage
}

func newMixedShadow(t *testing.T, id uint64) *mixedShadow {
	n := &mixedShadow{t: t, id: id, disk: etcd.NewMemoryStorage()}
	must(t, n.disk.ApplySnapshot(shadowSnapshot(t, mixtureSnapshot())))
	n.restart()
	return n
}

func (n *mixedShadow) own() bool { return false }

func (n *mixedShadow) restart() {
	var err error
	n.RawNode, err = etcd.NewRawNode(&etcd.Config{
		ID: n.id, ElectionTick: 10, HeartbeatTick: 1, Storage: n.disk, MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 8,
		PreVote: true, CheckQuorum: true, Logger: discard{},
	})
	must(n.t, err)
}

func (n *mixedShadow) leads() (uint64, bool) {
	s := n.BasicStatus()
	return s.GetTerm(), s.RaftState == etcd.StateLeader
}

func (n *mixedShadow) receive(message []byte) {
	var m raftpb.Message
	must(n.t, proto.Unmarshal(message, &m))
	_ = n.Step(&m) // refused: lost
}

func (n *mixedShadow) read(name []byte) { n.ReadIndex(name) }

func (n *mixedShadow) compact() {
	applied := n.BasicStatus().Applied
	if _, err := n.disk.CreateSnapshot(applied, &raftpb.ConfState{Voters: mixtureVoters}, nil); err == nil {
		must(n.t, n.disk.Compact(applied))
	}
}

func (n *mixedShadow) carryOut(c *mixture, id uint64) {
	rd := n.Ready()
	if !etcd.IsEmptyHardState(rd.HardState) {
		must(n.t, n.disk.SetHardState(rd.HardState))
	}
	if !etcd.IsEmptySnap(rd.Snapshot) {
		must(n.t, n.disk.ApplySnapshot(rd.Snapshot))
	}
	must(n.t, n.disk.Append(rd.Entries))
	for _, e := range rd.CommittedEntries {
		c.apply(id, e.GetIndex(), e.GetData())
	}
	for _, read := range rd.ReadStates {
		c.answer(read.Index, read.RequestCtx)
	}
	n.Advance(rd)
	for _, m := range rd.Messages {
		encoded, err := proto.Marshal(m)
		must(n.t, err)
		c.wire = append(c.wire, encoded)
		if m.GetType() == raftpb.MsgSnap {
			n.ReportSnapshot(m.GetTo(), etcd.SnapshotFinish)
		}
	}
}
