package invariants

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"capsize/raftnode/raft"
	"capsize/raftnode/raft/membership"
)

// cluster is five consensus cores, one or more of them members at first, in virtual time. Its
// network delays, loses, doubles and reorders; its disks are slow; its nodes crash, and
// lose what is in flight; they take snapshots, compact, and change their membership. All
// of it is drawn from one seed, and traced as a node traces it.
type cluster struct {
	t        *testing.T
	random   *rand.Rand
	nodes    []*core
	network  []raft.Message
	cut      map[[2]uint64]bool
	events   []Event
	proposed uint64
	slow     int // so many of ten writes wait
	harm     harm
	counts   map[Kind]int
}

// harm is what is broken on purpose.
type harm struct {
	lies    bool // disks report writes as durable, and may lose them in a crash
	early   bool // answers do not wait for their write
	boasts  bool // candidates claim logs that are longer than theirs
	forgets bool // a restart loses the vote
}

type core struct {
	cluster *cluster
	id      uint64
	raw     *raft.RawNode // nil: down
	storage *raft.MemoryStorage
	floor   Position // the storage's snapshot
	flight  []raft.Message
	lost    []raft.Message // written, as a lying disk says
	synced  raft.HardState

	incarnation, seq uint64

	states  map[uint64]state // by index: in memory
	onDisk  map[uint64]state // the same of what is durable; both hold more than counts
	last    uint64
	disk    Position
	hard    raft.HardState
	applied uint64
	done    []raft.Message // applied, but the core does not know
	conf    raft.ConfState
	asked   map[uint64]raft.Event
	voters  map[uint64][]uint64 // by term
	reads   uint64
	waiting map[uint64]uint64 // round to its index
}

// state is a log up to an entry, and the machine after it.
type state struct {
	term   uint64
	hash   Hash
	digest Hash
}

func (s state) next(e raft.Entry) state {
	h := word(fmt.Sprintf("%d %d %d %x", s.hash, e.Term, e.Type, e.Data))
	return state{term: e.Term, hash: Hash(h), digest: Hash(h ^ 1)}
}

func name(id uint64) string {
	if id == raft.None {
		return ""
	}
	return fmt.Sprintf("n%d", id)
}

func namesOf(ids []uint64) []string {
	var list []string
	for _, id := range ids {
		list = append(list, name(id))
	}
	return list
}

func confOf(s raft.ConfState) *Conf {
	return &Conf{
		Voters: namesOf(s.Voters), Outgoing: namesOf(s.VotersOutgoing), Learners: namesOf(s.Learners),
		Next: namesOf(s.LearnersNext), AutoLeave: s.AutoLeave,
	}
}

func newCluster(t *testing.T, seed uint64, h harm) *cluster {
	w := &cluster{t: t, random: rand.New(rand.NewPCG(seed, 6)), cut: map[[2]uint64]bool{}, harm: h, counts: map[Kind]int{}}
	w.slow = w.random.IntN(10)
	voters := []uint64{1, 2, 3, 4, 5}[:1+2*w.random.IntN(3)]
	for id := uint64(1); id <= 5; id++ {
		n := &core{cluster: w, id: id, storage: raft.NewMemoryStorage(), onDisk: map[uint64]state{0: {}}}
		n.storage.SetConfState(raft.ConfState{Voters: voters})
		w.nodes = append(w.nodes, n)
		n.start()
	}
	return w
}

func (n *core) emit(e Event) {
	w := n.cluster
	n.seq++
	e.Node, e.Incarnation, e.Seq, e.Time = name(n.id), n.incarnation, n.seq, int64(len(w.events))
	w.counts[e.Kind]++
	w.events = append(w.events, e)
}

func (n *core) start() {
	w := n.cluster
	var err error
	if n.hard, n.conf, err = n.storage.InitialState(); err != nil {
		w.t.Fatal(err)
	}
	if w.harm.forgets {
		n.hard.Vote = raft.None
		n.storage.SetHardState(n.hard)
	}
	first, last := n.floor.Index+1, uint64(0)
	if last, err = n.storage.LastIndex(); err != nil {
		w.t.Fatal(err)
	}
	n.states = map[uint64]state{n.floor.Index: n.onDisk[n.floor.Index]}
	if last >= first {
		entries, err := n.storage.Entries(first, last+1, raft.NoLimit)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range entries {
			n.states[e.Index] = n.states[e.Index-1].next(e)
		}
	}
	n.last, n.disk = last, Position{n.states[last].term, last}
	n.incarnation++
	n.seq = 0
	n.applied, n.flight, n.lost, n.done, n.synced = n.floor.Index, nil, nil, nil, n.hard
	n.asked, n.voters, n.waiting = map[uint64]raft.Event{}, map[uint64][]uint64{}, map[uint64]uint64{}
	n.emit(Event{
		Kind: Boot, Term: n.hard.Term, Vote: name(n.hard.Vote), Commit: n.hard.Commit, Applied: n.applied,
		Last: last, LastTerm: n.disk.Term, Hash: n.states[last].hash, SnapIndex: n.floor.Index, SnapTerm: n.floor.Term, Conf: confOf(n.conf),
	})
	n.raw, err = raft.NewRawNode(raft.Config{
		ID: n.id, ElectionTick: 8, HeartbeatTick: 1, Storage: n.storage, Applied: n.applied, AsyncStorageWrites: true,
		MaxSizePerMsg: 64, MaxInflightMsgs: 4, PreVote: w.random.IntN(2) == 0, CheckQuorum: w.random.IntN(2) == 0,
		Seed: w.random.Uint64(), Trace: n.told,
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// told is called by the core.
func (n *core) told(e raft.Event) {
	switch e.Kind {
	case raft.EventVote:
		if e.Peer == n.id {
			n.emit(Event{Kind: Campaign, Term: e.Term})
		}
	case raft.EventVoteSend:
		if !e.PreVote {
			n.asked[e.Peer] = e
		}
	case raft.EventLeader:
		voters := append([]uint64{n.id}, n.voters[e.Term]...)
		n.emit(Event{Kind: Leader, Term: e.Term, Last: e.Index, LastTerm: e.LogTerm, Hash: n.states[e.Index].hash, Conf: confOf(e.Conf), Voters: namesOf(voters)})
	case raft.EventStepDown:
		n.emit(Event{Kind: StepDown, Term: e.Term})
	case raft.EventAppend:
		n.states[e.Index] = n.states[e.Index-1].next(e.Entry)
		n.last = e.Index
		n.emit(Event{Kind: Append, Index: e.Index, Term: e.LogTerm, Hash: n.states[e.Index].hash})
		if e.Entry.Type != raft.EntryNormal {
			n.emit(Event{Kind: ConfAppend, Index: e.Index, Old: confOf(e.Conf), New: changed(e.Conf, e.Entry)})
		}
	case raft.EventTruncate:
		n.last = e.Index - 1
		n.emit(Event{Kind: Truncate, From: e.Index})
	case raft.EventCommit:
		n.emit(Event{Kind: Commit, Index: e.Index, Role: e.Role.String(), Term: e.Term})
	case raft.EventProgress:
		n.emit(Event{Kind: Progress, Term: e.Term, Peer: name(e.Peer), Match: e.Index, Next: e.Next})
	case raft.EventRestore:
		s := snapshotState(e.Snapshot)
		n.states[e.Index], n.last, n.applied = s, e.Index, e.Index
		n.conf = e.Snapshot.Metadata.ConfState
		n.emit(Event{Kind: SnapInstall, Index: e.Index, Term: e.LogTerm, Hash: s.hash, Digest: s.digest, Conf: confOf(n.conf)})
	}
}

func changed(conf raft.ConfState, e raft.Entry) *Conf {
	change, err := raft.DecodeConfChangeEntry(e)
	if err != nil {
		return nil
	}
	now, err := membership.Restore(conf)
	if err != nil {
		return nil
	}
	next, err := change.AsV2().Next(now)
	if err != nil {
		return nil
	}
	return confOf(next.State())
}

func snapshotState(s *raft.Snapshot) state {
	return state{
		term: s.Metadata.Term, hash: Hash(binary.BigEndian.Uint64(s.Data)), digest: Hash(binary.BigEndian.Uint64(s.Data[8:])),
	}
}

// carryOut does what the core wants done.
func (n *core) carryOut() {
	for n.raw.HasReady() {
		rd := n.raw.Ready()
		for _, r := range rd.ReadStates {
			id := binary.BigEndian.Uint64(r.RequestCtx)
			n.emit(Event{Kind: ReadIndex, ID: id, Index: r.Index})
			n.waiting[id] = r.Index
		}
		for _, m := range rd.Messages {
			switch m.To {
			case raft.LocalAppendThread:
				n.flight = append(n.flight, m)
				if n.cluster.harm.early {
					n.respond(m.Responses)
					n.flight[len(n.flight)-1].Responses = nil
				}
			case raft.LocalApplyThread:
				for _, e := range m.Entries {
					n.apply(e)
				}
				n.done = append(n.done, m.Responses...)
			default:
				n.send(m)
			}
		}
		for id, index := range n.waiting {
			if index <= n.applied {
				n.emit(Event{Kind: ReadServe, ID: id, Applied: n.applied})
				delete(n.waiting, id)
			}
		}
	}
	if err := n.raw.Err(); err != nil && n.cluster.harm == (harm{}) {
		n.cluster.t.Fatal(err)
	}
}

func (n *core) apply(e raft.Entry) {
	s := n.states[e.Index]
	n.applied = e.Index
	n.emit(Event{Kind: Apply, Index: e.Index, Term: e.Term, Hash: s.hash, Digest: s.digest})
	if e.Type == raft.EntryNormal {
		return
	}
	change, err := raft.DecodeConfChangeEntry(e)
	if err != nil {
		n.cluster.t.Fatal(err)
	}
	conf, err := n.raw.ApplyConfChange(change)
	if err != nil {
		return
	}
	n.conf = conf
	n.emit(Event{Kind: ConfApply, Index: e.Index, Conf: confOf(conf)})
}

// finishWrite makes the oldest write durable, and lets go what waited for it.
func (n *core) finishWrite() {
	if len(n.flight) == 0 {
		return
	}
	m := n.flight[0]
	n.flight = n.flight[1:]
	if n.cluster.harm.lies && n.cluster.random.IntN(30) == 0 {
		n.lost = append(n.lost, m)
	}
	n.store(m)
	before := n.hard
	if m.Term != 0 || m.Vote != 0 || m.Commit != 0 {
		n.hard = raft.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
	}
	if k := len(m.Entries); k > 0 {
		n.disk = Position{m.Entries[k-1].Term, m.Entries[k-1].Index}
	} else if m.Snapshot != nil {
		n.disk = Position{m.Snapshot.Metadata.Term, m.Snapshot.Metadata.Index}
	}
	if len(m.Responses) > 0 || n.cluster.harm.early {
		n.synced = n.hard
		n.persisted(before)
	}
	n.respond(m.Responses)
}

func (n *core) persisted(before raft.HardState) {
	if n.hard.Term != before.Term {
		n.emit(Event{Kind: Term, Term: n.hard.Term})
	}
	n.emit(Event{Kind: Persist, UpTo: n.disk.Index, UpToTerm: n.disk.Term, Term: n.hard.Term, Vote: name(n.hard.Vote), Commit: n.hard.Commit})
	if n.hard.Vote == raft.None || n.hard.Vote == before.Vote && n.hard.Term == before.Term {
		return
	}
	n.emit(Event{Kind: VotePersist, Term: n.hard.Term, Candidate: name(n.hard.Vote)})
	if n.hard.Vote == n.id {
		n.emit(Event{Kind: VoteSend, Term: n.hard.Term, To: name(n.id), Granted: true, CandLast: n.disk})
	}
}

// store puts a write on the disk.
func (n *core) store(m raft.Message) {
	if m.Snapshot != nil {
		if err := n.storage.ApplySnapshot(m.Snapshot); err != nil {
			n.cluster.t.Fatal(err)
		}
		meta := m.Snapshot.Metadata
		n.floor = Position{meta.Term, meta.Index}
		n.onDisk[meta.Index] = snapshotState(m.Snapshot)
	}
	if err := n.storage.Append(m.Entries); err != nil {
		n.cluster.t.Fatal(err)
	}
	if m.Term != 0 || m.Vote != 0 || m.Commit != 0 {
		n.storage.SetHardState(raft.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit})
	}
}

func (n *core) respond(responses []raft.Message) {
	for _, m := range responses {
		if m.To == n.id {
			_ = n.raw.Step(m) // what it does not take belongs to a term that is over
			continue
		}
		n.send(m)
	}
}

func (n *core) send(m raft.Message) {
	w := n.cluster
	switch {
	case m.Type == raft.MsgVoteResp:
		asked := n.asked[m.To]
		if asked.Term != m.Term {
			asked = raft.Event{}
		}
		n.emit(Event{Kind: VoteSend, Term: m.Term, To: name(m.To), Granted: !m.Reject, CandLast: Position{asked.LogTerm, asked.Index}})
	case m.Type == raft.MsgAppResp && !m.Reject && m.Index > 0:
		n.emit(Event{Kind: AckSend, To: name(m.To), Term: m.Term, Index: m.Index})
	case m.Type == raft.MsgVote && w.harm.boasts:
		m.LogTerm, m.Index = m.Term-1, m.Index+100
	}
	if w.cut[[2]uint64{m.From, m.To}] || len(w.network) > 2000 {
		return
	}
	decoded, err := raft.DecodeMessage(raft.EncodeMessage(nil, m))
	if err != nil {
		w.t.Fatal(err)
	}
	w.network = append(w.network, decoded)
}

func (w *cluster) deliver() {
	if len(w.network) == 0 {
		return
	}
	i := w.random.IntN(1 + w.random.IntN(len(w.network)))
	m := w.network[i]
	if w.random.IntN(20) > 0 {
		w.network = slices.Delete(w.network, i, i+1)
	}
	n := w.nodes[m.To-1]
	if n.raw == nil || w.random.IntN(20) == 0 {
		return
	}
	if m.Type == raft.MsgVoteResp && !m.Reject && !slices.Contains(n.voters[m.Term], m.From) {
		n.voters[m.Term] = append(n.voters[m.Term], m.From)
	}
	_ = n.raw.Step(m) // a message that is not taken is lost
}

// crash loses some of what is in flight, and a commit index that was not synced.
func (n *core) crash() {
	w := n.cluster
	for len(n.flight) > 0 && w.random.IntN(2) == 0 {
		n.store(n.flight[0])
		n.flight = n.flight[1:]
	}
	if hard, _, err := n.storage.InitialState(); err == nil && hard.Commit > n.synced.Commit && w.random.IntN(2) == 0 {
		hard.Commit = max(n.synced.Commit, n.floor.Index)
		n.storage.SetHardState(hard)
	}
	if len(n.lost) > 0 {
		n.takeBack(n.lost[0])
	}
	n.raw = nil
}

// takeBack undoes a write of entries, and all after it.
func (n *core) takeBack(m raft.Message) {
	last, err := n.storage.LastIndex()
	if err != nil || len(m.Entries) == 0 || m.Entries[0].Index <= n.floor.Index || m.Entries[0].Index > last {
		return
	}
	var kept []raft.Entry
	if m.Entries[0].Index > n.floor.Index+1 {
		if kept, err = n.storage.Entries(n.floor.Index+1, m.Entries[0].Index, raft.NoLimit); err != nil {
			return
		}
	}
	hard, conf, err := n.storage.InitialState()
	if err != nil || n.floor.Index > 0 {
		return
	}
	hard.Commit = min(hard.Commit, m.Entries[0].Index-1)
	n.storage = raft.NewMemoryStorage()
	n.storage.SetConfState(conf)
	n.storage.SetHardState(hard)
	if err := n.storage.Append(kept); err != nil {
		n.cluster.t.Fatal(err)
	}
}

// snapshot takes one of some applied index, and may compact the log up to it.
func (n *core) snapshot() {
	last, err := n.storage.LastIndex()
	if err != nil || n.applied <= n.floor.Index || n.applied > last || n.raw.Status().Applied < n.applied {
		return
	}
	s := n.states[n.applied]
	if term, err := n.storage.Term(n.applied); err != nil || term != s.term {
		return
	}
	data := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(s.hash)), uint64(s.digest))
	if _, err := n.storage.CreateSnapshot(n.applied, n.conf, data); err != nil {
		return
	}
	n.emit(Event{Kind: SnapTake, Index: n.applied, Term: s.term, Hash: s.hash, Digest: s.digest, Conf: confOf(n.conf)})
	if err := n.storage.Compact(n.applied); err != nil {
		n.cluster.t.Fatal(err)
	}
	n.floor = Position{s.term, n.applied}
	n.onDisk[n.applied] = s
	n.emit(Event{Kind: Compact, Index: n.applied})
}

func (w *cluster) change() raft.ConfChangeV2 {
	kinds := []raft.ConfChangeType{raft.ConfChangeAddNode, raft.ConfChangeAddNode, raft.ConfChangeRemoveNode, raft.ConfChangeAddLearnerNode}
	change := raft.ConfChangeV2{Transition: raft.ConfChangeTransition(w.random.IntN(2))}
	for range 1 + w.random.IntN(2) {
		change.Changes = append(change.Changes, raft.ConfChangeSingle{Type: kinds[w.random.IntN(len(kinds))], NodeID: 1 + w.random.Uint64N(5)})
	}
	return change
}

func (w *cluster) step() {
	n := w.nodes[w.random.IntN(len(w.nodes))]
	dice := w.random.IntN(1000)
	switch {
	case dice >= 990 && n.raw == nil:
		n.start()
	case n.raw == nil || dice >= 990:
		w.deliver()
	case dice < 150:
		n.raw.Tick()
	case dice < 700:
		w.deliver()
	case dice < 880:
		if w.random.IntN(10) >= w.slow {
			n.finishWrite()
		}
	case dice < 920:
		w.proposed++
		_ = n.raw.Propose(binary.BigEndian.AppendUint64(nil, w.proposed)) // without a leader it is refused
	case dice < 924:
		_ = n.raw.ProposeConfChange(w.change())
	case dice < 950:
		if len(n.done) > 0 {
			_ = n.raw.Step(n.done[0])
			n.done = n.done[1:]
		}
	case dice < 965:
		n.reads++
		if n.raw.ReadIndex(binary.BigEndian.AppendUint64(nil, n.reads)) == nil {
			n.emit(Event{Kind: ReadStart, ID: n.reads})
		}
	case dice < 970:
		n.snapshot()
	case dice < 974:
		n.raw.ReportSnapshot(1+w.random.Uint64N(5), raft.SnapshotFailure)
	case dice < 976:
		n.raw.TransferLeader(1 + w.random.Uint64N(5))
	case dice < 980:
		clear(w.cut)
		lone := 1 + w.random.Uint64N(10)
		for id := range uint64(5) {
			w.cut[[2]uint64{lone, id + 1}], w.cut[[2]uint64{id + 1, lone}] = true, true
		}
	case dice < 984:
		n.crash()
	}
}

func (w *cluster) run(steps int) {
	for range steps {
		w.step()
		for _, n := range w.nodes {
			if n.raw != nil {
				n.carryOut()
			}
		}
	}
}

const (
	clusters = 60
	steps    = 20000
)

func TestRealNodesBreakNothing(t *testing.T) {
	counts, checks := map[Kind]int{}, map[Invariant]uint64{}
	for seed := range uint64(clusters) {
		w := newCluster(t, seed, harm{})
		w.run(steps)
		for _, events := range [][]Event{w.events, interleave(w.events, w.random)} {
			r := check(events, Options{OneClock: &events[0] == &w.events[0]})
			if len(r.Violations) > 0 || len(r.Undecided) > 0 || len(r.Incomplete) > 0 {
				t.Fatalf("seed %d: %v\n%s", seed, r.Incomplete, explain(r))
			}
			for i, times := range r.Checks {
				checks[i] += times
			}
		}
		for kind, times := range w.counts {
			counts[kind] += times
		}
	}
	t.Log(counts)
	t.Log(checks)
	for kind := Boot; kind <= ReadServe; kind++ {
		if counts[kind] < clusters/3 {
			t.Errorf("only %d %v", counts[kind], kind)
		}
	}
}

func TestBrokenNodesAreFound(t *testing.T) {
	for _, test := range []struct {
		what string
		harm harm
		want Invariant
	}{
		{"disks that lie", harm{lies: true}, Durability},
		{"answers before their write", harm{early: true}, PersistBeforeSend},
		{"candidates that boast", harm{boasts: true}, LeaderCompleteness},
		{"votes that a restart loses", harm{forgets: true}, Durability},
	} {
		t.Run(test.what, func(t *testing.T) {
			found := 0
			for seed := range uint64(clusters / 6) {
				w := newCluster(t, seed, test.harm)
				func() {
					defer func() { _ = recover() }() // a core that finds the impossible stops
					w.run(steps)
				}()
				if r := check(w.events, Options{}); slices.Contains(broken(r), test.want) {
					found++
				}
			}
			if found == 0 {
				t.Error("nothing was found")
			}
			t.Logf("found in %d of %d clusters", found, clusters/6)
		})
	}
}
