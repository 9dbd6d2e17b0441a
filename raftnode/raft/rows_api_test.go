package raft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// What docs/raft-rows.md asks of the interface, and no other test shows by itself.

// synchronous makes a RawNode without AsyncStorageWrites, of a cluster of that size.
func synchronous(t *testing.T, size uint64, change ...func(*Config)) (*RawNode, *MemoryStorage) {
	storage := NewMemoryStorage()
	var voters []uint64
	for id := range size {
		voters = append(voters, id+1)
	}
	storage.SetConfState(ConfState{Voters: voters})
	c := labConfig(1, nil).Config
	c.Storage = storage
	for _, f := range change {
		f(&c)
	}
	n, err := NewRawNode(c)
	must(t, err)
	return n, storage
}

// carryOut does what a Ready of a synchronous node says, and returns it.
func carryOut(t *testing.T, n *RawNode, storage *MemoryStorage) Ready {
	t.Helper()
	rd := n.Ready()
	must(t, storage.Append(rd.Entries))
	if rd.HardState != (HardState{}) {
		storage.SetHardState(rd.HardState)
	}
	n.Advance()
	return rd
}

func TestANodeIgnoresWhatNoOtherNodeMaySend(t *testing.T) {
	storage := NewMemoryStorage()
	storage.SetConfState(ConfState{Voters: []uint64{1, 2}})
	storage.SetHardState(HardState{Term: 1})
	node, err := RestartNode(hallConfig(1, storage, false))
	must(t, err)
	t.Cleanup(node.Stop)
	ctx := nodeContext(t)
	for _, kind := range []MessageType{MsgHup, MsgBeat, MsgUnreachable, MsgSnapStatus, MsgCheckQuorum} {
		if err := node.Step(ctx, Message{Type: kind, From: 2, To: 1}); err != nil {
			t.Errorf("%v: %v", kind, err)
		}
	}
	if s := node.Status(); s.RaftState != Follower || s.Term != 1 {
		t.Errorf("it is %v in term %d", s.RaftState, s.Term)
	}
	must(t, node.Campaign(ctx)) // its own user may
	if s := node.Status(); s.RaftState != PreCandidate {
		t.Errorf("it is %v", s.RaftState)
	}
}

func TestAChangeIsProposedInEitherFormAndWaitsForALeader(t *testing.T) {
	node := lone(t)
	ctx := nodeContext(t)
	must(t, node.Step(ctx, Message{Type: MsgHeartbeat, From: 2, To: 1, Term: 2}))
	must(t, node.ProposeConfChange(ctx, ConfChangeV2{Changes: added(3)})) // passed on
	must(t, node.ProposeConfChange(ctx, ConfChange{Type: ConfChangeAddNode, NodeID: 3}))
	must(t, node.ForgetLeader(ctx))
	ended, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := node.ProposeConfChange(ended, ConfChangeV2{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a leader: %v", err)
	}
}

// A change that is dropped makes no error, a proposal that is dropped does.
func TestOnlyAProposalOfDataTellsThatItWasDropped(t *testing.T) {
	storage := NewMemoryStorage()
	storage.SetConfState(ConfState{Voters: []uint64{1, 2}})
	c := hallConfig(1, storage, false)
	c.DisableProposalForwarding = true
	node, err := RestartNode(c)
	must(t, err)
	t.Cleanup(node.Stop)
	ctx := nodeContext(t)
	must(t, node.Step(ctx, Message{Type: MsgHeartbeat, From: 2, To: 1, Term: 2}))
	must(t, node.ProposeConfChange(ctx, ConfChange{Type: ConfChangeAddNode, NodeID: 3}))
	if err := node.Propose(ctx, []byte("a")); !errors.Is(err, ErrProposalDropped) {
		t.Errorf("got %v", err)
	}
}

// In the order: the node's own answers, then that its entries are durable, then that others
// are applied.
func TestAdvanceTellsTheNodeWhatTheReadyHasDone(t *testing.T) {
	n, storage := synchronous(t, 1)
	must(t, n.Campaign())
	rd := n.Ready()
	if n.BasicStatus().RaftState != Candidate || !rd.MustSync {
		t.Errorf("before its vote is durable it is %v", n.BasicStatus().RaftState)
	}
	storage.SetHardState(rd.HardState)
	n.Advance()
	if n.BasicStatus().RaftState != Leader {
		t.Errorf("after that it is %v", n.BasicStatus().RaftState)
	}
	rd = carryOut(t, n, storage)
	if s := n.BasicStatus(); len(rd.Entries) != 1 || s.Commit != 1 || s.Applied != 0 {
		t.Errorf("wrote %v, then %d is committed, %d applied", rd.Entries, s.Commit, s.Applied)
	}
	rd = carryOut(t, n, storage)
	if s := n.BasicStatus(); len(rd.CommittedEntries) != 1 || s.Applied != 1 || n.HasReady() {
		t.Errorf("gave out %v, then %d is applied, there is more: %v", rd.CommittedEntries, s.Applied, n.HasReady())
	}
}

// Without AsyncStorageWrites what must wait for the disk is among the messages, which are
// sent after the writing; what is committed by others may be applied by the same Ready that
// writes it.
func TestASynchronousReadyHasAllInOne(t *testing.T) {
	n, _ := synchronous(t, 3)
	must(t, n.Step(Message{Type: MsgApp, From: 2, To: 1, Term: 1, Entries: []Entry{{Index: 1, Term: 1}}, Commit: 1}))
	rd := n.Ready()
	if len(rd.Entries) != 1 || len(rd.CommittedEntries) != 1 || len(rd.Messages) != 1 || rd.Messages[0].Type != MsgAppResp {
		t.Errorf("got %+v", rd)
	}
	// With them it is applied when it is durable.
	l := single(t, nil, HardState{})
	must(t, l.nodes[1].Step(Message{Type: MsgApp, From: 2, To: 1, Term: 1, Entries: []Entry{{Index: 1, Term: 1}}, Commit: 1}))
	if rd := l.nodes[1].Ready(); len(rd.Entries) != 1 || len(rd.Committed) != 0 || len(rd.Messages) != 0 || len(rd.AfterPersist) != 1 {
		t.Errorf("got %+v", rd)
	}
}

func TestAnOrderToWriteHoldsTheAnswersThatRestOnIt(t *testing.T) {
	n, storage := synchronous(t, 3, func(c *Config) { c.AsyncStorageWrites = true })
	must(t, n.Step(Message{Type: MsgApp, From: 2, To: 1, Term: 3, Entries: []Entry{{Index: 1, Term: 1}, {Index: 2, Term: 3}}, Commit: 1}))
	rd := n.Ready()
	if len(rd.Messages) != 1 {
		t.Fatalf("got %+v", rd.Messages)
	}
	order := rd.Messages[0]
	if order.Type != MsgStorageAppend || order.To != LocalAppendThread || len(order.Entries) != 2 || order.Term != 3 || order.Vote != None || order.Commit != 1 {
		t.Errorf("the order is %+v", order)
	}
	if len(order.Responses) != 2 || describe(order.Responses[0]) != "1->2 MsgAppResp term 3 holds 2" {
		t.Fatalf("its responses are %q", describeAll(order.Responses))
	}
	// The node's own is the last, and speaks for the whole log in the node's present term.
	done := order.Responses[1]
	if done.Type != MsgStorageAppendResp || done.To != 1 || done.From != LocalAppendThread || done.Term != 3 || done.Index != 2 || done.LogTerm != 3 {
		t.Errorf("the last is %+v", done)
	}
	// Another one follows while it is in flight. A commit index needs no answer.
	must(t, n.Step(Message{Type: MsgHeartbeat, From: 2, To: 1, Term: 3, Commit: 2}))
	must(t, storage.Append(order.Entries))
	must(t, n.Step(done))
	rd = n.Ready()
	if i := slices.IndexFunc(rd.Messages, func(m Message) bool { return m.Type == MsgStorageAppend }); i < 0 || len(rd.Messages[i].Responses) != 0 || rd.MustSync {
		t.Errorf("got %+v", rd)
	}
	i := slices.IndexFunc(rd.Messages, func(m Message) bool { return m.Type == MsgStorageApply })
	if i < 0 || rd.Messages[i].To != LocalApplyThread || len(rd.Messages[i].Entries) != 2 {
		t.Fatalf("to apply: %+v", rd.Messages)
	}
	must(t, n.Step(rd.Messages[i].Responses[0]))
	if applied := n.BasicStatus().Applied; applied != 2 {
		t.Errorf("applied %d", applied)
	}
}

func TestApplyConfChangeGivesTheConfigurationToStore(t *testing.T) {
	n, _ := synchronous(t, 3)
	for _, test := range []struct {
		change ConfChangeI
		want   ConfState
	}{
		{ConfChange{Type: ConfChangeAddNode, NodeID: 4}, ConfState{Voters: []uint64{1, 2, 3, 4}}},
		{ConfChange{Type: ConfChangeRemoveNode}, ConfState{Voters: []uint64{1, 2, 3, 4}}}, // the user decided against it
		{ConfChange{Type: ConfChangeUpdateNode, NodeID: 4}, ConfState{Voters: []uint64{1, 2, 3, 4}}},
		{ConfChange{Type: ConfChangeAddLearnerNode, NodeID: 5}, ConfState{Voters: []uint64{1, 2, 3, 4}, Learners: []uint64{5}}},
		{
			ConfChangeV2{Changes: removed(3, 4)},
			ConfState{Voters: []uint64{1, 2}, VotersOutgoing: []uint64{1, 2, 3, 4}, Learners: []uint64{5}, AutoLeave: true},
		},
		{ConfChangeV2{}, ConfState{Voters: []uint64{1, 2}, Learners: []uint64{5}}},
	} {
		got, err := n.ApplyConfChange(test.change)
		if err != nil || !got.Equivalent(test.want) {
			t.Errorf("%+v gives %+v, %v", test.change, got, err)
		}
	}
}

func TestForgettingALeaderConcernsFollowersOnly(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(*lab)
		role    Role
	}{
		{"follower", func(*lab) {}, Follower},
		{"learner", func(l *lab) {
			l.answers(Message{Type: MsgSnap, From: 2, To: 1, Term: 1, Snapshot: &Snapshot{Metadata: SnapshotMetadata{
				Index: 3, Term: 1, ConfState: ConfState{Voters: []uint64{2, 3}, Learners: []uint64{1}},
			}}})
		}, Follower},
		{"candidate", (*lab).campaigns, Candidate},
		{"leader", (*lab).leads, Leader},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := single(t, nil, HardState{Term: 1})
			l.answers(Message{Type: MsgHeartbeat, From: 2, To: 1, Term: 1})
			test.prepare(l)
			term, leader := l.nodes[1].Status().Term, l.nodes[1].Status().Lead
			for range 2 { // the second time there is nothing to forget
				must(t, l.nodes[1].ForgetLeader())
				if test.role == Follower {
					leader = None
				}
				l.expectState(test.role, term, leader)
			}
			if test.role == Follower {
				l.answers(Message{Type: MsgHeartbeat, From: 2, To: 1, Term: 1})
				l.expectState(Follower, 1, 2)
			}
		})
	}
}

func TestStatusTellsProgressOnTheLeaderOnly(t *testing.T) {
	l := newLab(t, 3)
	l.elect(1)
	must(t, l.nodes[1].Propose([]byte("a")))
	l.stabilize()
	l.nodes[1].TransferLeader(2)
	for id, progress := range map[uint64]int{1: 3, 2: 0} {
		s := l.nodes[id].Status()
		want := HardState{Term: 1, Vote: 1, Commit: 2}
		if len(s.Progress) != progress || s.ID != id || s.HardState != want || s.Lead != 1 || s.Applied != 2 || s.LastIndex != 2 || s.Config.String() != "voters=(1 2 3)" {
			t.Errorf("node %d: %+v", id, s)
		}
	}
	if s := l.nodes[1].Status(); s.LeadTransferee != 2 || s.RaftState != Leader || s.Progress[1].Match != 2 {
		t.Errorf("the leader: %+v", s)
	}
}

// After a failure what to send is where the log went on before; after a success it is what
// follows the snapshot. Either way the next heartbeat's answer is waited for.
func TestWhatBecameOfASnapshotDecidesWhereToGoOn(t *testing.T) {
	for status, next := range map[SnapshotStatus]uint64{SnapshotFailure: 2, SnapshotFinish: 10} {
		l := alone(t, 3, nil, HardState{Term: 1}, func(c *nodeConfig) { c.Snapshot = snapshotAt(9, 1, 1, 2, 3) })
		l.leads()
		n := l.nodes[1]
		n.ReportSnapshot(2, status) // there is none on its way
		l.answers(Message{Type: MsgAppResp, From: 2, To: 1, Term: 2, Index: 9, Reject: true, RejectHint: 1, LogTerm: 1})
		l.answers(Message{Type: MsgHeartbeatResp, From: 2, To: 1, Term: 2})
		p := n.raft.progress.of(2)
		if p.state != StateSnapshot || p.snapshot != 9 {
			t.Fatalf("of node 2 it knows %+v", p)
		}
		p.match = 1 // known before the log was compacted
		n.ReportSnapshot(2, status)
		if p.state != StateProbe || p.next != next || !p.paused || p.snapshot != 0 {
			t.Errorf("status %d: %+v", status, p)
		}
	}
}

func TestBootstrapBeginsTheLogWithItsMembers(t *testing.T) {
	n, err := NewRawNode(hallConfig(1, NewMemoryStorage(), false))
	must(t, err)
	must(t, n.Bootstrap([]Peer{{ID: 1, Context: []byte("here")}, {ID: 2}}))
	rd := n.Ready()
	if got, want := describeEntries(rd.Entries), "[1/1 AddNode(1), 2/1 AddNode(2)]"; got != want || len(rd.CommittedEntries) != 2 || rd.HardState != (HardState{Term: 1, Commit: 2}) {
		t.Errorf("wrote %s, %+v; to apply are %d", got, rd.HardState, len(rd.CommittedEntries))
	}
	change, err := DecodeConfChangeEntry(rd.Entries[0])
	must(t, err)
	if got := change.AsV2().Context; !bytes.Equal(got, []byte("here")) {
		t.Errorf("the first member's context is %q", got)
	}
	if got := n.Status().Config.String(); got != "voters=(1 2)" {
		t.Errorf("before it has applied anything it is in %s", got)
	}
}

// A restarted node is given no peers: its members are those of its snapshot, and what its
// log has changed since comes when it is applied. Without Applied that begins after the
// snapshot, with it after that.
func TestARestartTakesMembersAndEntriesFromTheStorage(t *testing.T) {
	for _, test := range []struct{ applied, first uint64 }{{0, 4}, {3, 4}, {4, 5}} {
		storage := NewMemoryStorage()
		must(t, storage.ApplySnapshot(snapshotAt(3, 1, 1, 2, 3)))
		change := ConfChange{Type: ConfChangeAddNode, NodeID: 4}.entry()
		change.Index, change.Term = 5, 1
		must(t, storage.Append([]Entry{{Index: 4, Term: 1}, change}))
		storage.SetHardState(HardState{Term: 1, Commit: 5})
		c := hallConfig(1, storage, false)
		c.Applied = test.applied
		node, err := RestartNode(c)
		must(t, err)
		if got := node.Status().Config.String(); got != "voters=(1 2 3)" {
			t.Errorf("it is in %s", got)
		}
		rd := <-node.Ready()
		if got := rd.CommittedEntries; len(got) != int(6-test.first) || got[0].Index != test.first {
			t.Errorf("Applied %d: given out were %s", test.applied, describeEntries(got))
		}
		node.Stop()
	}
}

func TestLookingAtAReadyTakesNothing(t *testing.T) {
	l := newLab(t, 3)
	l.elect(1)
	must(t, l.nodes[1].Propose([]byte("a")))
	first, second := l.nodes[1].readyWithoutAccept(), l.nodes[1].readyWithoutAccept()
	if fmt.Sprint(first) != fmt.Sprint(second) || !l.nodes[1].HasReady() {
		t.Errorf("first %+v, then %+v", first, second)
	}
	taken := l.nodes[1].RawNode.Ready()
	if fmt.Sprint(taken) != fmt.Sprint(first) || l.nodes[1].HasReady() {
		t.Errorf("taken %+v, there is more: %v", taken, l.nodes[1].HasReady())
	}
}

func TestEachKindOfWorkMakesAReady(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*raft)
		has    bool
	}{
		"nothing":           {func(*raft) {}, false},
		"a ticking clock":   {func(r *raft) { r.electionElapsed++ }, false},
		"another leader":    {func(r *raft) { r.leader = 2 }, true},
		"another role":      {func(r *raft) { r.role = Candidate }, true},
		"a vote":            {func(r *raft) { r.vote = 2 }, true},
		"a commit":          {func(r *raft) { r.commitTo(2) }, true},
		"a message":         {func(r *raft) { r.out.atOnce = make([]Message, 1) }, true},
		"a waiting message": {func(r *raft) { r.out.afterPersist = make([]Message, 1) }, true},
		"a read":            {func(r *raft) { r.out.readStates = make([]ReadState, 1) }, true},
		"an entry":          {func(r *raft) { r.log.append([]Entry{{Index: 3, Term: 1}}) }, true},
		"a snapshot":        {func(r *raft) { r.log.restore(snapshotAt(9, 1, 1)) }, true},
		"to apply":          {func(r *raft) { r.log.apply.given = 0 }, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := single(t, []uint64{1, 1}, HardState{Term: 1, Commit: 1})
			if l.nodes[1].HasReady() {
				t.Fatal("there is something to do from the start")
			}
			test.change(l.nodes[1].raft)
			if has := l.nodes[1].HasReady(); has != test.has {
				t.Errorf("there is something to do: %v", has)
			}
		})
	}
}

func TestAQuiescedTickCountsTowardsAnElectionAndDoesNothingElse(t *testing.T) {
	l := single(t, nil, HardState{Term: 1})
	l.nodes[1].raft.electionTimeout = 12
	for range 30 {
		l.nodes[1].TickQuiesced()
	}
	if l.nodes[1].HasReady() {
		t.Error("a node that sleeps has work")
	}
	l.expectState(Follower, 1, None)
	l.nodes[1].Tick() // it wakes up
	l.expectState(Candidate, 2, None)
}

func TestWhatIsLeftOutOfAConfigurationHasADefault(t *testing.T) {
	c := Config{MaxSizePerMsg: 70}
	c.setDefaults()
	if c.MaxCommittedSizePerReady != 70 || c.MaxUncommittedEntriesSize != NoLimit || c.MaxInflightBytes != NoLimit || c.Logger == nil {
		t.Errorf("got %+v", c)
	}
	set := Config{MaxCommittedSizePerReady: 1, MaxUncommittedEntriesSize: 2, MaxInflightBytes: 3, Logger: silence{}}
	set.setDefaults()
	if set.MaxCommittedSizePerReady != 1 || set.MaxUncommittedEntriesSize != 2 || set.MaxInflightBytes != 3 {
		t.Errorf("what was set became %+v", set)
	}
	for _, thread := range []uint64{LocalAppendThread, LocalApplyThread} {
		c := labConfig(thread, nil).Config
		c.Storage = NewMemoryStorage()
		if c.Validate() == nil {
			t.Errorf("a node may be called %d", thread)
		}
	}
}

func TestMemoryStorageKnowsTermsFromItsSnapshotOn(t *testing.T) {
	s := NewMemoryStorage()
	if term, err := s.Term(0); term != 0 || err != nil {
		t.Errorf("of an empty log: %d, %v", term, err)
	}
	if _, err := s.Snapshot(); !errors.Is(err, ErrSnapshotTemporarilyUnavailable) {
		t.Errorf("its snapshot: %v", err)
	}
	must(t, s.ApplySnapshot(snapshotAt(5, 2, 1)))
	must(t, s.Append([]Entry{{Index: 6, Term: 3}}))
	for i, want := range map[uint64]error{4: ErrCompacted, 5: nil, 6: nil, 7: ErrUnavailable} {
		if term, err := s.Term(i); !errors.Is(err, want) || err == nil && term != i-3 {
			t.Errorf("the term at %d: %d, %v", i, term, err)
		}
	}
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	if first != 6 || last != 6 {
		t.Errorf("the log goes from %d to %d", first, last)
	}
	if err := s.ApplySnapshot(snapshotAt(5, 2, 1)); !errors.Is(err, ErrSnapOutOfDate) {
		t.Errorf("the same snapshot again: %v", err)
	}
	must(t, s.Append([]Entry{{Index: 4, Term: 1}, {Index: 5, Term: 2}, {Index: 6, Term: 4}})) // its snapshot stands for two of them
	if term, _ := s.Term(6); term != 4 {
		t.Errorf("entry 6 has term %d", term)
	}
}

// listener is a Logger that keeps what it is told.
type listener struct{ lines []string }

func (l *listener) note(format string, args ...any) {
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}
func (l *listener) Debugf(format string, args ...any)   { l.note(format, args...) }
func (l *listener) Infof(format string, args ...any)    { l.note(format, args...) }
func (l *listener) Warningf(format string, args ...any) { l.note(format, args...) }
func (l *listener) Errorf(format string, args ...any)   { l.note(format, args...) }

func TestTheLoggerIsToldOfEachRoleAndTerm(t *testing.T) {
	heard := &listener{}
	l := single(t, nil, HardState{}, preVote, func(c *nodeConfig) { c.Logger = heard })
	l.campaigns()
	l.answers(Message{Type: MsgPreVoteResp, From: 2, To: 1, Term: 1})
	l.answers(Message{Type: MsgVoteResp, From: 2, To: 1, Term: 1})
	l.answers(Message{Type: MsgHeartbeat, From: 2, To: 1, Term: 2})
	want := []string{
		"node 1 is follower in term 0", "node 1 is pre-candidate in term 0", "node 1 is candidate in term 1",
		"node 1 is leader in term 1", "node 1 is follower in term 2",
	}
	if !slices.Equal(heard.lines, want) {
		t.Errorf("heard\n%s", strings.Join(heard.lines, "\n"))
	}
}
