package raft

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// world is a cluster in virtual time whose network delays, drops, doubles and reorders,
// and whose nodes crash and lose what was not durable. It checks Raft's promises after
// every event.
type world struct {
	random  *rand.Rand
	voters  []uint64
	nodes   map[uint64]*member
	network []Message
	cut     map[[2]uint64]bool

	leaders   map[uint64]uint64    // term to leader
	votes     map[[2]uint64]uint64 // node and term to candidate, once sent
	committed map[uint64]Entry     // index to entry, as applied anywhere
	highest   uint64               // greatest index applied anywhere
	reads     map[string]uint64    // context to the greatest index applied anywhere when it was asked
	served    int
	nextRead  uint64
	failures  []string

	breakIt string // which promise of the environment is broken on purpose
}

type member struct {
	node    *RawNode
	storage *MemoryStorage
	disk    []Ready // written, not durable
	applied uint64
	down    bool
}

func newWorld(seed uint64, size int, breakIt string) *world {
	w := &world{
		random: rand.New(rand.NewPCG(seed, 1)), nodes: make(map[uint64]*member), cut: make(map[[2]uint64]bool),
		leaders: make(map[uint64]uint64), votes: make(map[[2]uint64]uint64), committed: make(map[uint64]Entry),
		reads: make(map[string]uint64), breakIt: breakIt,
	}
	for id := uint64(1); id <= uint64(size); id++ {
		w.voters = append(w.voters, id)
		w.nodes[id] = &member{storage: NewMemoryStorage()}
	}
	for _, id := range w.voters {
		w.start(id, seed)
	}
	return w
}

func (w *world) start(id, seed uint64) {
	m := w.nodes[id]
	if w.breakIt == "vote forgotten at restart" {
		hard, _ := m.storage.InitialState()
		hard.Vote = None
		m.storage.SetHardState(hard)
	}
	hard, _ := m.storage.InitialState()
	m.applied = min(m.applied, hard.Commit) // the commit index need not be durable
	node, err := NewRawNode(Config{
		ID: id, Voters: w.voters, ElectionTick: 10, HeartbeatTick: 1, Storage: m.storage, Applied: m.applied,
		MaxSizePerMsg: 64, MaxInflightMsgs: 4, PreVote: seed%2 == 0, CheckQuorum: seed%3 != 0, Seed: w.random.Uint64(),
		Trace: func(e Event) { w.check(id, e) },
	})
	if err != nil {
		panic(err)
	}
	m.node, m.disk, m.down = node, nil, false
}

func (w *world) fail(format string, args ...any) {
	w.failures = append(w.failures, fmt.Sprintf(format, args...))
}

func (w *world) check(id uint64, e Event) {
	if e.Kind == EventLeader {
		if other, ok := w.leaders[e.Term]; ok && other != id {
			w.fail("election safety: %d and %d lead term %d", other, id, e.Term)
		}
		w.leaders[e.Term] = id
		for index, entry := range w.committed {
			if w.nodes[id].node == nil || w.nodes[id].node.raft.log.termOrZero(index) != entry.Term {
				w.fail("leader completeness: leader %d of term %d lacks committed entry %d", id, e.Term, index)
			}
		}
	}
}

func (w *world) pick() *member { return w.nodes[w.voters[w.random.IntN(len(w.voters))]] }

func (w *world) run(steps int) {
	for range steps {
		if len(w.failures) > 0 {
			return
		}
		w.event()
		for _, id := range w.voters {
			if m := w.nodes[id]; !m.down {
				w.collect(id, m)
			}
		}
	}
}

func (w *world) event() {
	m := w.pick()
	switch dice := w.random.IntN(100); {
	case dice < 30:
		if !m.down {
			m.node.Tick()
		}
	case dice < 72:
		w.deliver()
	case dice < 85:
		w.finishWrite(m)
	case dice < 91:
		if !m.down {
			_ = m.node.Propose(binary.BigEndian.AppendUint64(nil, w.random.Uint64()))
		}
	case dice < 97:
		w.read(m)
	case dice < 98:
		a, b := w.random.IntN(len(w.voters)), w.random.IntN(len(w.voters))
		w.cut[[2]uint64{w.voters[a], w.voters[b]}] = w.random.IntN(5) == 0
	case dice < 99:
		m.down = true // what is on its way to the disk is lost
	default:
		for _, id := range w.voters {
			if w.nodes[id].down {
				w.start(id, 6)
			}
		}
	}
}

func (w *world) read(m *member) {
	if m.down {
		return
	}
	w.nextRead++
	context := fmt.Sprint(w.nextRead)
	w.reads[context] = w.highest
	if w.breakIt == "reads answered without asking" {
		if m.node.raft.role == Leader {
			w.serve(ReadState{Index: m.node.raft.log.committed, Context: []byte(context)})
		}
		return
	}
	_ = m.node.ReadIndex([]byte(context))
}

func (w *world) serve(state ReadState) {
	w.served++
	if before := w.reads[string(state.Context)]; state.Index < before {
		w.fail("stale read: read %s may be served at index %d, but %d was applied before it was asked", state.Context, state.Index, before)
	}
}

func (w *world) deliver() {
	if len(w.network) == 0 {
		return
	}
	i := w.random.IntN(len(w.network))
	m := w.network[i]
	if w.random.IntN(10) > 0 { // else it comes twice
		w.network[i] = w.network[len(w.network)-1]
		w.network = w.network[:len(w.network)-1]
	}
	to := w.nodes[m.To]
	if w.cut[[2]uint64{m.From, m.To}] || to.down || w.random.IntN(20) == 0 {
		return
	}
	data := EncodeMessage(nil, m)
	decoded, err := DecodeMessage(data)
	if err != nil {
		panic(err)
	}
	_ = to.node.Step(decoded)
}

func (w *world) collect(id uint64, m *member) {
	for m.node.HasReady() {
		rd := m.node.Ready()
		if err := m.node.Err(); err != nil {
			w.fail("node %d: %v", id, err)
			return
		}
		w.network = append(w.network, rd.Messages...)
		if w.breakIt == "replies before the write" {
			w.network = append(w.network, rd.AfterPersist...)
			rd.AfterPersist = nil
		}
		if rd.Write > 0 {
			m.disk = append(m.disk, rd)
		}
		w.apply(id, m, rd.Committed)
		for _, state := range rd.ReadStates {
			w.serve(state)
		}
	}
	if len(w.network) > 300 {
		w.network = w.network[100:]
	}
}

func (w *world) apply(id uint64, m *member, entries []Entry) {
	for _, e := range entries {
		if e.Index != m.applied+1 {
			w.fail("apply order: node %d applies %d after %d", id, e.Index, m.applied)
		}
		if other, ok := w.committed[e.Index]; ok && (other.Term != e.Term || string(other.Data) != string(e.Data)) {
			w.fail("commit safety: node %d applies another entry at %d (terms %d and %d)", id, e.Index, e.Term, other.Term)
		}
		w.committed[e.Index] = e
		m.applied = e.Index
		w.highest = max(w.highest, e.Index)
	}
	if len(entries) > 0 {
		if err := m.node.AppliedTo(m.applied); err != nil {
			w.fail("node %d: %v", id, err)
		}
	}
}

func (w *world) finishWrite(m *member) {
	if m.down || len(m.disk) == 0 {
		return
	}
	rd := m.disk[0]
	m.disk = m.disk[1:]
	if rd.HardState != (HardState{}) {
		m.storage.SetHardState(rd.HardState)
	}
	if err := m.storage.Append(rd.Entries); err != nil {
		w.fail("%v", err)
	}
	for _, reply := range rd.AfterPersist {
		w.checkVote(reply)
	}
	w.network = append(w.network, rd.AfterPersist...)
	if err := m.node.Persisted(rd.Write); err != nil {
		w.fail("%v", err)
	}
}

func (w *world) checkVote(m Message) {
	if m.Type != MsgVoteResp || m.Reject {
		return
	}
	key := [2]uint64{m.From, m.Term}
	if other, ok := w.votes[key]; ok && other != m.To {
		w.fail("node %d votes for %d and %d in term %d", m.From, other, m.To, m.Term)
	}
	w.votes[key] = m.To
}

func TestRaftKeepsItsPromisesInRandomWorlds(t *testing.T) {
	worlds, applied, served := 300, uint64(0), 0
	for seed := range uint64(worlds) {
		w := newWorld(seed, 3+2*int(seed%2), "")
		w.run(8000)
		for _, failure := range w.failures {
			t.Errorf("seed %d: %s", seed, failure)
		}
		applied += w.highest
		served += w.served
	}
	t.Logf("%d worlds, %d entries committed, %d reads served", worlds, applied, served)
	if applied < 1000 || served < 1000 {
		t.Errorf("only %d entries committed and %d reads served: the worlds test nothing", applied, served)
	}
}

func TestABrokenEnvironmentIsFoundOut(t *testing.T) {
	for _, breakIt := range []string{"replies before the write", "vote forgotten at restart", "reads answered without asking"} {
		t.Run(breakIt, func(t *testing.T) {
			for seed := range uint64(2000) {
				w := newWorld(seed, 3, breakIt)
				w.run(8000)
				if len(w.failures) > 0 {
					t.Logf("seed %d: %s", seed, w.failures[0])
					return
				}
			}
			t.Error("nothing was found in 2000 worlds")
		})
	}
}
