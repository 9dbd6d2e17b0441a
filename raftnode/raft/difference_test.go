package raft

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"unsafe"

	etcd "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"capsize/raftnode/internal/race"
)

// A cluster of this package's nodes lives through a random schedule. Beside each node
// stands one of go.etcd.io/raft, its shadow, which gets the same inputs, byte for byte, and
// must come to the same: role, term, vote, leader, log, commit index, configuration, what
// is applied, what is sent, and what a leader knows of the others.
//
// Where this package differs on purpose, the schedule or the comparison steps aside:
//
//   - A probe carries one entry, etcd-raft's as many as fit: entries of a MsgApp to a
//     probed follower are compared as far as ours go (see sendAppend).
//   - A pre-candidate draws a new time-out (see becomePreCandidate), and time-outs come from
//     a seed. The shadow is given ours.
//   - Reads bear numbers of the core's own, not the user's contexts, wait for the term's
//     first commit in a cluster of one, too, and go on when a smaller configuration comes
//     into force (see read.go, adopt). No reads are made here.
//   - MsgVote waits for the candidate's own vote to be durable (see send). With synchronous
//     writes, as here, that is its place in the list of messages only.
//   - A leader's own log counts as far as it is durable, not as far as it goes (see reset).
//     Nothing is committed by that difference; own progress is not compared.
//   - A refused proposal leaves pendingConfIndex alone (see propose). No limit is set here.
//   - A change of membership that cannot be made is an error of ApplyConfChange, a storage
//     that fails or a commit index beyond the log an error that stays; there it is a panic.
//   - A MsgTransferLeader may be passed on twice (see stepFollower); there it is a panic.
//   - There are no lease-based reads.
type pairs struct {
	t       testing.TB
	seed    uint64
	random  *rand.Rand
	nodes   map[uint64]*pair
	ids     []uint64
	wire    []Message
	cut     map[uint64]bool // whose messages are lost, both ways
	steps   int
	history []string              // the last few events
	corrupt func(*raftpb.Message) // breaks what shadows are given; nil: nothing
	wrong   string
	seen    experience
	// What Raft promises whatever the configuration: one leader a term, one entry an index.
	leaders   map[uint64]uint64
	committed map[uint64]Entry
}

// experience counts what happened: a schedule in which nothing does compares nothing.
type experience struct{ elections, applied, changes, snapshots, restarts, refusals int }

// pair is a node with its shadow, and the disks of both.
type pair struct {
	id         uint64
	ours       *RawNode
	theirs     *etcd.RawNode
	disk       *MemoryStorage
	shadowDisk *etcd.MemoryStorage
	conf       ConfState
	applied    uint64
	config     Config
}

const mostPairs = 5

func newPairs(t testing.TB, seed uint64) *pairs {
	c := &pairs{
		t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 1)), nodes: make(map[uint64]*pair), cut: make(map[uint64]bool),
		leaders: make(map[uint64]uint64), committed: make(map[uint64]Entry),
	}
	config := Config{
		ElectionTick: 3 + c.random.IntN(8), HeartbeatTick: 1 + c.random.IntN(2), MaxInflightMsgs: 1 + c.random.IntN(4),
		MaxSizePerMsg: []uint64{0, NoLimit}[c.random.IntN(2)], MaxCommittedSizePerReady: NoLimit,
		PreVote: c.random.IntN(2) == 0, CheckQuorum: c.random.IntN(2) == 0,
		StepDownOnRemoval: c.random.IntN(2) == 0, DisableProposalForwarding: c.random.IntN(4) == 0,
	}
	voters := make([]uint64, 1+c.random.IntN(mostPairs))
	for i := range voters {
		voters[i] = uint64(i) + 1
	}
	for id := uint64(1); id <= mostPairs; id++ {
		c.ids = append(c.ids, id)
		p := &pair{id: id, disk: NewMemoryStorage(), shadowDisk: etcd.NewMemoryStorage(), config: config}
		p.config.ID, p.config.Seed = id, seed
		// Both begin with a snapshot that names the members: nodes that are none wait.
		s := &Snapshot{Metadata: SnapshotMetadata{Index: 1, Term: 1, ConfState: ConfState{Voters: voters}}}
		if int(id) <= len(voters) {
			must(t, p.disk.ApplySnapshot(s))
			must(t, p.shadowDisk.ApplySnapshot(shadowSnapshot(t, s)))
			p.disk.SetHardState(HardState{Term: 1, Commit: 1})
			must(t, p.shadowDisk.SetHardState(shadowHardState(HardState{Term: 1, Commit: 1})))
		}
		c.nodes[id] = p
		c.start(p)
	}
	return c
}

func (c *pairs) start(p *pair) {
	config := p.config
	config.Storage = p.disk
	ours, err := NewRawNode(config)
	must(c.t, err)
	theirs, err := etcd.NewRawNode(&etcd.Config{
		ID: p.id, ElectionTick: config.ElectionTick, HeartbeatTick: config.HeartbeatTick, Storage: p.shadowDisk,
		MaxSizePerMsg: config.MaxSizePerMsg, MaxInflightMsgs: config.MaxInflightMsgs,
		MaxCommittedSizePerReady: config.MaxCommittedSizePerReady, PreVote: config.PreVote, CheckQuorum: config.CheckQuorum,
		StepDownOnRemoval: config.StepDownOnRemoval, DisableProposalForwarding: config.DisableProposalForwarding,
		Logger: discard{},
	})
	must(c.t, err)
	p.ours, p.theirs = ours, theirs
	p.applied, p.conf = 0, ConfState{}
	if s, err := p.disk.Snapshot(); err == nil {
		p.applied, p.conf = s.Metadata.Index, s.Metadata.ConfState
	}
	c.align(p)
}

// align gives the shadow our time-out: theirs come from a source that has no seed.
func (c *pairs) align(p *pair) {
	field := reflect.ValueOf(p.theirs).Elem().FieldByName("raft").Elem().FieldByName("randomizedElectionTimeout")
	*(*int)(unsafe.Pointer(field.UnsafeAddr())) = p.ours.raft.electionTimeout
}

func shadowSnapshot(t testing.TB, s *Snapshot) *raftpb.Snapshot {
	var out raftpb.Snapshot
	must(t, proto.Unmarshal(EncodeSnapshot(nil, s), &out))
	return &out
}

func shadowHardState(h HardState) *raftpb.HardState {
	return &raftpb.HardState{Term: &h.Term, Vote: &h.Vote, Commit: &h.Commit}
}

func (c *pairs) note(format string, args ...any) {
	c.history = append(c.history, fmt.Sprintf(format, args...))
	if len(c.history) > 30 {
		c.history = c.history[1:]
	}
}

func (c *pairs) differ(p *pair, format string, args ...any) {
	if c.wrong == "" {
		c.wrong = fmt.Sprintf("node %d: ", p.id) + fmt.Sprintf(format, args...)
	}
}

// live runs the schedule, and returns what differed first; "" if nothing did.
func (c *pairs) live(steps int) string {
	for ; c.steps < steps && c.wrong == ""; c.steps++ {
		c.event(c.nodes[c.ids[c.random.IntN(len(c.ids))]])
	}
	return c.wrong
}

func (c *pairs) event(p *pair) {
	switch roll := c.random.IntN(1000); {
	case roll < 500:
		c.deliver()
	case roll < 810:
		c.carryOut(p)
	case roll < 900:
		c.note("%d ticks", p.id)
		p.ours.Tick()
		p.theirs.Tick()
	case roll < 945:
		data := binary.AppendUvarint(nil, uint64(c.steps))
		c.note("%d proposes", p.id)
		c.same(p, p.ours.Propose(data), p.theirs.Propose(slices.Clone(data)))
	case roll < 960:
		c.change(p)
	case roll < 970:
		c.compact(p)
	case roll < 978:
		to := c.ids[c.random.IntN(len(c.ids))]
		c.note("%d transfers to %d", p.id, to)
		p.ours.TransferLeader(to)
		p.theirs.TransferLeader(to)
	case roll < 983:
		c.note("%d forgets", p.id)
		c.same(p, p.ours.ForgetLeader(), p.theirs.ForgetLeader())
	case roll < 987:
		c.note("%d campaigns", p.id)
		c.same(p, p.ours.Campaign(), p.theirs.Campaign())
	case roll < 992:
		c.report(p)
	case roll < 997:
		c.note("%d crashes", p.id)
		c.seen.restarts++
		c.start(p)
	default:
		clear(c.cut)
		for _, id := range c.ids {
			c.cut[id] = c.random.IntN(6) == 0
		}
		c.note("cut off: %v", c.cut)
	}
	c.settle(p)
}

func (c *pairs) same(p *pair, ours, theirs error) {
	if (ours == nil) != (theirs == nil) {
		c.differ(p, "returned %v, its shadow %v", ours, theirs)
	}
}

// deliver takes any message from the wire: most once, some twice, some never.
func (c *pairs) deliver() {
	if len(c.wire) == 0 {
		return
	}
	i := c.random.IntN(min(len(c.wire), 8)) // not too late
	m := c.wire[i]
	if c.random.IntN(20) > 0 {
		c.wire = slices.Delete(c.wire, i, i+1)
	}
	p := c.nodes[m.To]
	if c.random.IntN(25) == 0 || c.cut[m.To] || c.cut[m.From] || m.Type == MsgTransferLeader && p.ours.raft.role != Leader {
		return
	}
	c.note("%s", describe(m))
	if m.Type == MsgAppResp && m.Reject {
		c.seen.refusals++
	}
	encoded := EncodeMessage(nil, m)
	var shadow raftpb.Message
	must(c.t, proto.Unmarshal(encoded, &shadow))
	if c.corrupt != nil {
		c.corrupt(&shadow)
	}
	own, err := DecodeMessage(encoded)
	must(c.t, err)
	c.same(p, p.ours.Step(own), p.theirs.Step(&shadow))
	c.settle(p)
}

// settle compares the two after an input.
func (c *pairs) settle(p *pair) {
	if c.wrong == "" {
		c.align(p)
		c.compare(p)
	}
}

func (c *pairs) change(p *pair) {
	if p.ours.raft.role != Leader {
		return
	}
	v2 := ConfChangeV2{Transition: ConfChangeTransition(c.random.IntN(3))}
	for range c.random.IntN(4) {
		v2.Changes = append(v2.Changes, ConfChangeSingle{
			Type: ConfChangeType(c.random.IntN(4)), NodeID: c.ids[c.random.IntN(len(c.ids))],
		})
	}
	var change ConfChangeI = v2
	var shadow raftpb.ConfChangeI
	if len(v2.Changes) == 1 && c.random.IntN(2) == 0 {
		v1 := ConfChange{Type: v2.Changes[0].Type, NodeID: v2.Changes[0].NodeID}
		change = v1
		var out raftpb.ConfChange
		must(c.t, proto.Unmarshal(EncodeConfChange(nil, v1), &out))
		shadow = &out
	} else {
		var out raftpb.ConfChangeV2
		must(c.t, proto.Unmarshal(EncodeConfChangeV2(nil, v2), &out))
		shadow = &out
	}
	if _, err := change.AsV2().Next(p.ours.raft.members); err != nil {
		return // there it would be a panic when it is applied
	}
	c.note("%d proposes %s", p.id, describeChange(change.entry()))
	c.same(p, p.ours.ProposeConfChange(change), p.theirs.ProposeConfChange(shadow))
}

func (c *pairs) compact(p *pair) {
	first, _ := p.disk.FirstIndex()
	if p.applied < first || len(p.conf.Voters) == 0 {
		return
	}
	c.note("%d compacts up to %d", p.id, p.applied)
	s, err := p.disk.CreateSnapshot(p.applied, p.conf, nil)
	if err != nil {
		return
	}
	_, err = p.shadowDisk.CreateSnapshot(p.applied, shadowSnapshot(c.t, s).GetMetadata().GetConfState(), nil)
	must(c.t, err)
	must(c.t, p.disk.Compact(p.applied))
	must(c.t, p.shadowDisk.Compact(p.applied))
}

func (c *pairs) report(p *pair) {
	id := c.ids[c.random.IntN(len(c.ids))]
	if id == p.id {
		return
	}
	c.note("%d reports %d", p.id, id)
	switch c.random.IntN(3) {
	case 0:
		p.ours.ReportUnreachable(id)
		p.theirs.ReportUnreachable(id)
	case 1:
		p.ours.ReportSnapshot(id, SnapshotFinish)
		p.theirs.ReportSnapshot(id, etcd.SnapshotFinish)
	default:
		p.ours.ReportSnapshot(id, SnapshotFailure)
		p.theirs.ReportSnapshot(id, etcd.SnapshotFailure)
	}
}

// carryOut takes one Ready of each and does what it says. Snapshots and changes of
// membership are applied with it.
func (c *pairs) carryOut(p *pair) {
	if p.ours.HasReady() != p.theirs.HasReady() {
		c.differ(p, "has a Ready: %v, its shadow: %v", p.ours.HasReady(), p.theirs.HasReady())
	}
	if c.wrong != "" || !p.ours.HasReady() {
		return
	}
	c.note("%d carries out", p.id)
	ours, theirs := p.ours.Ready(), p.theirs.Ready()
	c.compareReady(p, ours, theirs)
	if c.wrong != "" {
		return
	}
	c.store(p, ours, theirs)
	for i, e := range ours.CommittedEntries {
		p.applied = e.Index
		c.seen.applied++
		c.promised(p, e)
		if e.isConfChange() {
			c.seen.changes++
			c.applyChange(p, e, theirs.CommittedEntries[i])
		}
	}
	p.ours.Advance()
	p.theirs.Advance(theirs)
	for _, m := range ours.Messages {
		c.wire = append(c.wire, m)
		if m.Type == MsgSnap && c.random.IntN(2) == 0 {
			p.ours.ReportSnapshot(m.To, SnapshotFinish)
			p.theirs.ReportSnapshot(m.To, etcd.SnapshotFinish)
		}
	}
	if len(c.wire) > 400 {
		c.wire = c.wire[len(c.wire)-400:]
	}
}

// promised checks that no node applies another entry at an index.
func (c *pairs) promised(p *pair, e Entry) {
	was, known := c.committed[e.Index]
	if known && (was.Term != e.Term || was.Type != e.Type || !slices.Equal(was.Data, e.Data)) {
		c.differ(p, "applies %s, another node %s", describeEntries([]Entry{e}), describeEntries([]Entry{was}))
	}
	c.committed[e.Index] = e
}

func (c *pairs) store(p *pair, ours Ready, theirs etcd.Ready) {
	if ours.HardState != (HardState{}) {
		p.disk.SetHardState(ours.HardState)
		must(c.t, p.shadowDisk.SetHardState(theirs.HardState))
	}
	if ours.Snapshot != nil {
		must(c.t, p.disk.ApplySnapshot(ours.Snapshot))
		must(c.t, p.shadowDisk.ApplySnapshot(theirs.Snapshot))
		p.applied, p.conf = ours.Snapshot.Metadata.Index, ours.Snapshot.Metadata.ConfState
		c.seen.snapshots++
	}
	if ours.SoftState != nil && ours.SoftState.RaftState == Leader {
		c.seen.elections++
		if other, known := c.leaders[p.ours.raft.term]; known && other != p.id {
			c.differ(p, "leads in term %d, and so does node %d", p.ours.raft.term, other)
		}
		c.leaders[p.ours.raft.term] = p.id
	}
	must(c.t, p.disk.Append(ours.Entries))
	must(c.t, p.shadowDisk.Append(theirs.Entries))
}

func (c *pairs) applyChange(p *pair, e Entry, shadow *raftpb.Entry) {
	change, err := DecodeConfChangeEntry(e)
	must(c.t, err)
	if p.conf, err = p.ours.ApplyConfChange(change); err != nil {
		c.differ(p, "cannot make the change of entry %d: %v", e.Index, err)
		return
	}
	var conf *raftpb.ConfState
	if shadow.GetType() == raftpb.EntryConfChange {
		var v1 raftpb.ConfChange
		must(c.t, proto.Unmarshal(shadow.GetData(), &v1))
		conf = p.theirs.ApplyConfChange(&v1)
	} else {
		var v2 raftpb.ConfChangeV2
		must(c.t, proto.Unmarshal(shadow.GetData(), &v2))
		conf = p.theirs.ApplyConfChange(&v2)
	}
	encoded, err := proto.Marshal(conf)
	must(c.t, err)
	decoded, err := DecodeConfState(encoded)
	must(c.t, err)
	if !decoded.Equivalent(p.conf) {
		c.differ(p, "is in %+v, its shadow in %+v", p.conf, decoded)
	}
}

func (c *pairs) compareReady(p *pair, ours Ready, theirs etcd.Ready) {
	if hard := theirs.HardState; (ours.HardState != HardState{}) != (hard != nil && !etcd.IsEmptyHardState(hard)) ||
		ours.HardState != (HardState{hard.GetTerm(), hard.GetVote(), hard.GetCommit()}) {
		c.differ(p, "writes %+v, its shadow %v", ours.HardState, theirs.HardState)
	}
	c.compareEntries(p, "writes", ours.Entries, theirs.Entries)
	c.compareEntries(p, "applies", ours.CommittedEntries, theirs.CommittedEntries)
	if (ours.Snapshot != nil) != (theirs.Snapshot != nil && !etcd.IsEmptySnap(theirs.Snapshot)) {
		c.differ(p, "writes snapshot %v, its shadow %v", ours.Snapshot, theirs.Snapshot)
	}
	if ours.MustSync != theirs.MustSync && ours.Snapshot == nil {
		c.differ(p, "must sync: %v, its shadow: %v", ours.MustSync, theirs.MustSync)
	}
	c.compareMessages(p, ours.Messages, theirs.Messages)
}

func (c *pairs) compareEntries(p *pair, what string, ours []Entry, theirs []*raftpb.Entry) {
	same := len(ours) == len(theirs)
	for i := 0; same && i < len(ours); i++ {
		e := theirs[i]
		same = ours[i].Index == e.GetIndex() && ours[i].Term == e.GetTerm() && int32(ours[i].Type) == int32(e.GetType()) &&
			slices.Equal(ours[i].Data, e.GetData())
	}
	if !same {
		c.differ(p, "%s %s, its shadow %v", what, describeEntries(ours), theirs)
	}
}

// compareMessages compares what is sent, in whatever order.
func (c *pairs) compareMessages(p *pair, ours []Message, theirs []*raftpb.Message) {
	shadows := make([]Message, len(theirs))
	for i, m := range theirs {
		encoded, err := proto.Marshal(m)
		must(c.t, err)
		shadows[i], err = DecodeMessage(encoded)
		must(c.t, err)
	}
	ours = slices.Clone(ours)
	order := func(a, b Message) int {
		return cmp.Or(cmp.Compare(a.To, b.To), cmp.Compare(a.Type, b.Type))
	}
	slices.SortStableFunc(ours, order)
	slices.SortStableFunc(shadows, order)
	same := len(ours) == len(shadows)
	for i := 0; same && i < len(ours); i++ {
		a, b := ours[i], shadows[i]
		if a.Type == MsgApp && len(a.Entries) == 1 && len(b.Entries) > 1 {
			b.Entries = b.Entries[:1] // it may have been a probe
		}
		if a.Type == MsgSnap && a.Snapshot.Metadata.ConfState.Equivalent(b.Snapshot.Metadata.ConfState) {
			b.Snapshot.Metadata.ConfState = a.Snapshot.Metadata.ConfState
		}
		same = string(EncodeMessage(nil, a)) == string(EncodeMessage(nil, b))
	}
	if same {
		return
	}
	var lines string
	for _, m := range ours {
		lines += "\n  ours   " + describe(m)
	}
	for _, m := range shadows {
		lines += "\n  theirs " + describe(m)
	}
	c.differ(p, "sends other messages:%s", lines)
}

var (
	shadowRoles = map[etcd.StateType]Role{
		etcd.StateFollower: Follower, etcd.StatePreCandidate: PreCandidate, etcd.StateCandidate: Candidate, etcd.StateLeader: Leader,
	}
	shadowStates = map[string]ProgressState{
		"StateProbe": StateProbe, "StateReplicate": StateReplicate, "StateSnapshot": StateSnapshot,
	}
)

func (c *pairs) compare(p *pair) {
	ours, theirs := p.ours.Status(), p.theirs.Status()
	shadow := BasicStatus{
		ID:        p.id,
		HardState: HardState{theirs.HardState.GetTerm(), theirs.HardState.GetVote(), theirs.HardState.GetCommit()},
		SoftState: SoftState{theirs.SoftState.Lead, shadowRoles[theirs.SoftState.RaftState]},
		Applied:   theirs.Applied, LeadTransferee: theirs.LeadTransferee,
	}
	if ours.BasicStatus != shadow {
		c.differ(p, "is %+v, its shadow %+v", ours.BasicStatus, shadow)
		return
	}
	for _, own := range ours.Progress {
		pr, known := theirs.Progress[own.ID]
		if own.ID == p.id && known {
			continue
		}
		got := Progress{
			ID: own.ID, State: shadowStates[pr.State.String()],
			Match: pr.Match, Next: pr.Next, Paused: known && pr.IsPaused(), RecentActive: pr.RecentActive,
			PendingSnapshot: pr.PendingSnapshot, Inflight: own.Inflight, InflightFull: own.InflightFull, IsLearner: pr.IsLearner,
		}
		if known {
			got.Inflight = pr.Inflights.Count()
			got.InflightFull = got.Inflight > 0 && pr.Inflights.Full()
		}
		if !known || got != own {
			c.differ(p, "sees %+v, its shadow %+v", own, got)
		}
	}
	if len(ours.Progress) != len(theirs.Progress) {
		c.differ(p, "knows %d members, its shadow %d", len(ours.Progress), len(theirs.Progress))
	}
}

// discard is a logger for shadows that says nothing. It panics where it is told to.
type discard struct{}

func (discard) Debug(...any)              {}
func (discard) Debugf(string, ...any)     {}
func (discard) Error(...any)              {}
func (discard) Errorf(string, ...any)     {}
func (discard) Info(...any)               {}
func (discard) Infof(string, ...any)      {}
func (discard) Warning(...any)            {}
func (discard) Warningf(string, ...any)   {}
func (discard) Fatal(v ...any)            { panic(fmt.Sprint(v...)) }
func (discard) Fatalf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }
func (discard) Panic(v ...any)            { panic(fmt.Sprint(v...)) }
func (discard) Panicf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }

const stepsPerSeed = 5000

// differenceSteps is how long both are compared, in all. The race detector makes each step
// some ten times as long.
func differenceSteps() int {
	if race.Enabled || testing.Short() {
		return 150_000
	}
	return 4_000_000
}

func TestNodesDoAsEtcdRaftDoesStepByStep(t *testing.T) {
	var all experience
	for seed := uint64(0); seed < uint64(differenceSteps()/stepsPerSeed); seed++ {
		c := newPairs(t, seed)
		if wrong := c.live(stepsPerSeed); wrong != "" {
			for _, line := range c.history {
				t.Log(line)
			}
			t.Fatalf("seed %d, step %d: %s", seed, c.steps, wrong)
		}
		all.add(c.seen)
	}
	t.Logf("%d steps: %+v", differenceSteps(), all)
	least := differenceSteps() / 10_000
	if min(all.elections, all.applied, all.changes, all.snapshots, all.restarts, all.refusals) < least {
		t.Errorf("too little happened: %+v, want %d of each at least", all, least)
	}
}

func (e *experience) add(more experience) {
	e.elections += more.elections
	e.applied += more.applied
	e.changes += more.changes
	e.snapshots += more.snapshots
	e.restarts += more.restarts
	e.refusals += more.refusals
}

// FuzzNodesDoAsEtcdRaftDoes looks for a schedule under which they do not.
func FuzzNodesDoAsEtcdRaftDoes(f *testing.F) {
	f.Add(uint64(1 << 40))
	f.Fuzz(func(t *testing.T, seed uint64) {
		c := newPairs(t, seed)
		if wrong := c.live(stepsPerSeed); wrong != "" {
			t.Fatalf("seed %d, step %d: %s", seed, c.steps, wrong)
		}
	})
}

func TestTheComparisonNoticesASmallDifference(t *testing.T) {
	on := func(kind raftpb.MessageType, do func(*raftpb.Message)) func(*raftpb.Message) {
		return func(m *raftpb.Message) {
			if m.GetType() == kind {
				do(m)
			}
		}
	}
	for name, corrupt := range map[string]func(*raftpb.Message){
		"a vote that was refused": on(raftpb.MsgVoteResp, func(m *raftpb.Message) { m.Reject = proto.Bool(true) }),
		"an entry less": on(raftpb.MsgApp, func(m *raftpb.Message) {
			if n := len(m.Entries); n > 0 {
				m.Entries = m.Entries[:n-1]
			}
		}),
		"another commit index": on(raftpb.MsgApp, func(m *raftpb.Message) {
			m.Commit = proto.Uint64(m.GetCommit() - min(m.GetCommit(), 1))
		}),
		"a later log at an election": on(raftpb.MsgVote, func(m *raftpb.Message) { m.LogTerm = proto.Uint64(m.GetLogTerm() + 1) }),
		"another hint":               on(raftpb.MsgAppResp, func(m *raftpb.Message) { m.RejectHint = proto.Uint64(0) }),
		"an acknowledgement less": on(raftpb.MsgAppResp, func(m *raftpb.Message) {
			m.Index = proto.Uint64(m.GetIndex() - min(m.GetIndex(), 1))
		}),
		"a higher term":           on(raftpb.MsgHeartbeat, func(m *raftpb.Message) { m.Term = proto.Uint64(m.GetTerm() + 1) }),
		"a transfer that is none": on(raftpb.MsgVote, func(m *raftpb.Message) { m.Context = nil }),
		"another snapshot": on(raftpb.MsgSnap, func(m *raftpb.Message) {
			m.Snapshot.Metadata.Index = proto.Uint64(m.GetSnapshot().GetMetadata().GetIndex() - 1)
		}),
	} {
		t.Run(name, func(t *testing.T) {
			for seed := uint64(0); seed < 60; seed++ {
				if wrong := livesCorrupted(t, seed, corrupt); wrong != "" {
					t.Logf("seed %d: %s", seed, wrong)
					return
				}
			}
			t.Error("60 schedules look the same")
		})
	}
}

// livesCorrupted runs a schedule in which the shadow may even panic.
func livesCorrupted(t *testing.T, seed uint64, corrupt func(*raftpb.Message)) (wrong string) {
	defer func() {
		if p := recover(); p != nil {
			wrong = fmt.Sprint("the shadow panics: ", p)
		}
	}()
	c := newPairs(t, seed)
	c.corrupt = corrupt
	return c.live(stepsPerSeed)
}
