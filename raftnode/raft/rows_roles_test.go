package raft

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"capsize/raftnode/raft/quorum"
)

// What docs/raft-rows.md asks of terms, roles and the order of messages, and no other test
// shows by itself.

func TestANodeIsNotMadeOfAnImpossibleConfiguration(t *testing.T) {
	storage := NewMemoryStorage()
	storage.SetConfState(ConfState{Voters: []uint64{1, 2}, Learners: []uint64{2}})
	c := labConfig(1, nil).Config
	c.Storage = storage
	if _, err := NewRawNode(c); err == nil || !strings.Contains(err.Error(), "restore configuration") {
		t.Errorf("got %v", err)
	}
}

// The vote belongs to the term, all else to the role in it.
func TestANewRoleForgetsWhatBelongedToTheOldOne(t *testing.T) {
	for _, newTerm := range []bool{false, true} {
		l := single(t, []uint64{1}, HardState{Term: 1}, func(c *nodeConfig) { c.MaxUncommittedEntriesSize = 100 })
		l.leads()
		n := l.nodes[1]
		l.acknowledges(2, 1)
		must(t, n.Propose(make([]byte, 9)))
		must(t, n.ReadIndex([]byte("r")))
		n.TransferLeader(3)
		r := n.raft
		r.pendingConfIndex = 7
		r.electionElapsed, r.heartbeatElapsed = 5, 5
		r.progress.of(2).inflight.add(3, 9)
		r.votes[2] = quorum.Yes
		if r.uncommitted == 0 || r.transferee == None || len(r.reads.early) == 0 || len(r.asked.open) == 0 || len(r.votes) == 0 {
			t.Fatal("there is nothing to forget")
		}
		term, vote := r.term, r.vote
		if newTerm {
			term, vote = term+1, None
		}
		r.becomeFollower(term, 3)
		if r.term != term || r.vote != vote || r.leader != 3 {
			t.Errorf("term %d, vote %d, leader %d", r.term, r.vote, r.leader)
		}
		if r.electionElapsed+r.heartbeatElapsed != 0 || r.transferee != None || len(r.votes) != 0 || r.pendingConfIndex != 0 ||
			r.uncommitted != 0 || len(r.reads.early)+len(r.reads.waiting)+len(r.asked.open) != 0 {
			t.Errorf("left over: %+v", r)
		}
		for _, p := range r.progress {
			match := uint64(0)
			if p.id == 1 {
				match = 2 // the proposal is not durable
			}
			if p.match != match || p.next != 4 || p.state != StateProbe || p.inflight.count != 0 || p.paused || p.active {
				t.Errorf("of node %d it knows %+v", p.id, p)
			}
		}
	}
}

// Whether its patience ends, its user wants it or the leader asks it to: who must not lead
// does not campaign.
func TestOnlyWhoMayLeadCampaigns(t *testing.T) {
	conf := func(s ConfState) func(*lab) {
		return func(l *lab) {
			l.answers(Message{Type: MsgSnap, From: 2, To: 1, Term: 1, Snapshot: &Snapshot{Metadata: SnapshotMetadata{Index: 5, Term: 1, ConfState: s}}})
		}
	}
	change := ConfChange{Type: ConfChangeAddNode, NodeID: 4}.entry()
	change.Index, change.Term = 1, 1
	triggers := map[string]func(*lab) error{
		"patience": func(l *lab) error { l.tick(1, 20); return nil },
		"user":     func(l *lab) error { return l.nodes[1].Campaign() },
		"leader":   func(l *lab) error { return l.nodes[1].Step(Message{Type: MsgTimeoutNow, From: 2, To: 1, Term: 1}) },
	}
	for name, test := range map[string]struct {
		prepare   func(*lab)
		campaigns bool
	}{
		"a voter":         {conf(ConfState{Voters: []uint64{1, 2, 3}}), true},
		"an outgoing one": {conf(ConfState{Voters: []uint64{2, 3}, VotersOutgoing: []uint64{1, 2}}), true},
		"a learner":       {conf(ConfState{Voters: []uint64{2, 3}, Learners: []uint64{1}}), false},
		"one that is out": {func(l *lab) {
			_, err := l.nodes[1].ApplyConfChange(ConfChange{Type: ConfChangeRemoveNode, NodeID: 1})
			must(l.t, err)
		}, false},
		"its log is to go": {func(l *lab) {
			must(l.t, l.nodes[1].Step(Message{Type: MsgSnap, From: 2, To: 1, Term: 1, Snapshot: snapshotAt(5, 1, 1, 2, 3)}))
		}, false},
		"its log is going": {func(l *lab) {
			must(l.t, l.nodes[1].Step(Message{Type: MsgSnap, From: 2, To: 1, Term: 1, Snapshot: snapshotAt(5, 1, 1, 2, 3)}))
			l.nodes[1].Ready()
		}, false},
		"a change is to be applied": {func(l *lab) {
			must(l.t, l.nodes[1].Step(Message{Type: MsgApp, From: 2, To: 1, Term: 1, Entries: []Entry{change}, Commit: 1}))
		}, false},
		"a change is not committed": {func(l *lab) {
			must(l.t, l.nodes[1].Step(Message{Type: MsgApp, From: 2, To: 1, Term: 1, Entries: []Entry{change}}))
		}, true},
	} {
		for trigger, pull := range triggers {
			t.Run(name+", by "+trigger, func(t *testing.T) {
				l := single(t, nil, HardState{Term: 1})
				test.prepare(l)
				must(t, pull(l))
				if got := l.nodes[1].Status().RaftState != Follower; got != test.campaigns {
					t.Errorf("it campaigns: %v", got)
				}
			})
		}
	}
}

func TestALeaderDoesNotCampaign(t *testing.T) {
	l := single(t, nil, HardState{})
	l.leads()
	must(t, l.nodes[1].Campaign())
	must(t, l.nodes[1].Step(Message{Type: MsgTimeoutNow, From: 2, To: 1, Term: 1}))
	l.expectState(Leader, 1, 1)
}

// Who campaigns already goes on with that: the word to take over is for followers.
func TestACandidateIgnoresTheWordToTakeOver(t *testing.T) {
	for _, change := range []func(*nodeConfig){preVote, func(*nodeConfig) {}} {
		l := single(t, nil, HardState{}, change)
		l.campaigns()
		s := l.nodes[1].Status()
		if s.Term > 0 {
			must(t, l.nodes[1].Step(Message{Type: MsgTimeoutNow, From: 2, To: 1, Term: s.Term}))
		}
		must(t, l.nodes[1].raft.Step(Message{Type: MsgTimeoutNow, From: 2}))
		l.expectState(s.RaftState, s.Term, None)
	}
}

// Nobody is asked whether a transfer could be won, and the request says what it is, so that
// voters set their lease aside.
func TestWhoIsToTakeOverAsksForVotesAtOnce(t *testing.T) {
	for _, asked := range []bool{true, false} {
		l := single(t, nil, HardState{Term: 1}, preVote, checkQuorum)
		l.answers(Message{Type: MsgHeartbeat, From: 2, To: 1, Term: 1})
		if asked {
			l.expectSent(l.answers(Message{Type: MsgTimeoutNow, From: 2, To: 1, Term: 1}),
				"1->2 MsgVote term 2 log ends at 0/0 for a transfer", "1->3 MsgVote term 2 log ends at 0/0 for a transfer")
			continue
		}
		must(t, l.nodes[1].Campaign())
		l.settle(1)
		l.expectSent(l.wire, "1->2 MsgPreVote term 2 log ends at 0/0", "1->3 MsgPreVote term 2 log ends at 0/0")
	}
}

func TestAPreCandidateKeepsTermAndVote(t *testing.T) {
	l := single(t, []uint64{1}, HardState{Term: 4, Vote: 3}, preVote)
	l.answers(Message{Type: MsgHeartbeat, From: 3, To: 1, Term: 4})
	l.nodes[1].raft.electionTimeout = 10
	l.tick(1, 10)
	l.expectState(PreCandidate, 4, None)
	l.settle(1)
	hard, _, _ := l.nodes[1].storage.InitialState()
	if want := (HardState{Term: 4, Vote: 3}); hard != want || l.nodes[1].raft.hardState() != want {
		t.Errorf("%v is durable, it is in %v", hard, l.nodes[1].raft.hardState())
	}
	if len(l.nodes[1].raft.votes) != 1 { // its own
		t.Errorf("votes %v", l.nodes[1].raft.votes)
	}
}

func TestNoRoleIsPassedOver(t *testing.T) {
	for _, test := range []struct {
		from   Role
		become func(*raft)
		wrong  bool
	}{
		{Follower, (*raft).becomeLeader, true},
		{PreCandidate, (*raft).becomeLeader, true},
		{Candidate, (*raft).becomeLeader, false},
		{Leader, (*raft).becomeLeader, true},
		{Leader, (*raft).becomeCandidate, true},
		{Leader, (*raft).becomePreCandidate, true},
		{Follower, (*raft).becomeCandidate, false},
		{Follower, func(r *raft) { r.becomeFollower(r.term-1, None) }, true}, // the term falls
	} {
		l := single(t, nil, HardState{Term: 2})
		l.nodes[1].raft.role = test.from
		if wrong := panics(func() { test.become(l.nodes[1].raft) }); wrong != test.wrong {
			t.Errorf("from %v: refused is %v", test.from, wrong)
		}
	}
}

// A new leader does not know which changes in its log are applied elsewhere: it takes none
// before its own log is applied up to where it was elected.
func TestANewLeaderTakesNoChangeBeforeItsLogIsApplied(t *testing.T) {
	l := single(t, []uint64{1, 1}, HardState{Term: 1, Commit: 1})
	l.leads()
	kind := func() EntryType {
		must(t, l.nodes[1].ProposeConfChange(ConfChange{Type: ConfChangeAddNode, NodeID: 4}))
		l.settle(1)
		entries := l.nodes[1].storage.entries
		return entries[len(entries)-1].Type
	}
	if kind() != EntryNormal {
		t.Error("a change was taken, and entry 2 is not applied")
	}
	l.acknowledges(2, 4)
	if kind() != EntryConfChange {
		t.Error("a change was refused, and everything is applied")
	}
	if kind() != EntryNormal {
		t.Error("a second change was taken")
	}
}

func TestAProposalThatIsRefusedHoldsUpNoChange(t *testing.T) {
	l := alone(t, 3, nil, HardState{}, func(c *nodeConfig) { c.MaxUncommittedEntriesSize = 10 })
	l.leads()
	l.acknowledges(2, 1)
	before := l.nodes[1].raft.pendingConfIndex
	must(t, l.nodes[1].Propose(make([]byte, 10)))
	if err := l.nodes[1].ProposeConfChange(ConfChange{Type: ConfChangeAddNode, NodeID: 4}); err == nil {
		t.Fatal("it was taken beyond the limit")
	}
	if now := l.nodes[1].raft.pendingConfIndex; now != before {
		t.Errorf("a change is waited for at %d, which was never appended", now)
	}
}

// Whatever a write of an earlier term says of entries may have been replaced since: it does
// not count. A snapshot is never replaced: it does.
func TestAWriteOfAnEarlierTermSpeaksForItsSnapshotOnly(t *testing.T) {
	l := single(t, nil, HardState{Term: 1})
	n := l.nodes[1]
	must(t, n.Step(Message{Type: MsgSnap, From: 2, To: 1, Term: 1, Snapshot: snapshotAt(5, 1, 1, 2, 3)}))
	must(t, n.Step(Message{Type: MsgApp, From: 2, To: 1, Term: 1, Index: 5, LogTerm: 1, Entries: []Entry{{Index: 6, Term: 1}}}))
	rd := n.Ready()
	must(t, n.Step(Message{Type: MsgHeartbeat, From: 3, To: 1, Term: 2}))
	must(t, n.storage.ApplySnapshot(rd.Snapshot))
	must(t, n.storage.Append(rd.Entries))
	must(t, n.Persisted(rd.Write))
	if u := n.raft.log.unstable; u.snapshot != nil || u.offset != 6 || n.Status().Applied != 5 {
		t.Errorf("not durable are snapshot %v and entries from %d; %d is applied", u.snapshot, u.offset, n.Status().Applied)
	}
	rd = n.Ready()
	must(t, n.Persisted(rd.Write)) // a later write speaks for the entry
	if u := n.raft.log.unstable; u.offset != 7 {
		t.Errorf("not durable are entries from %d", u.offset)
	}
}

func TestMessagesThatBreakTheContractAreNotSent(t *testing.T) {
	for _, test := range []struct {
		m     Message
		wrong bool
	}{
		{Message{Type: MsgVote, To: 2}, true},
		{Message{Type: MsgVoteResp, To: 2}, true},
		{Message{Type: MsgPreVote, To: 2}, true},
		{Message{Type: MsgVote, To: 2, Term: 1}, false},
		{Message{Type: MsgApp, To: 2, Term: 1}, true},
		{Message{Type: MsgApp, To: 2}, false},
		{Message{Type: MsgProp, To: 2, Term: 1}, true},
		{Message{Type: MsgReadIndex, To: 2, Term: 1}, true},
		{Message{Type: MsgReadIndex, To: 2}, false},
		{Message{Type: MsgHeartbeat, To: 1}, true}, // itself
		{Message{Type: MsgAppResp, To: 1}, false},  // itself, when the disk has it
	} {
		l := single(t, nil, HardState{Term: 1})
		if wrong := panics(func() { l.nodes[1].raft.send(test.m) }); wrong != test.wrong {
			t.Errorf("%s: refused is %v", describe(withRead(test.m)), wrong)
		}
	}
}

// withRead gives a read a name, so that it can be described.
func withRead(m Message) Message {
	m.Entries = []Entry{{}}
	return m
}

// The state machine is about to be replaced, from when the snapshot is known until it is
// durable.
func TestNothingIsAppliedWhileASnapshotIsOnItsWay(t *testing.T) {
	l := single(t, []uint64{1, 1}, HardState{Term: 1})
	n := l.nodes[1]
	must(t, n.Step(Message{Type: MsgHeartbeat, From: 2, To: 1, Term: 1, Commit: 2}))
	if !n.raft.log.hasNextCommitted(false) {
		t.Fatal("there is nothing to apply")
	}
	must(t, n.Step(Message{Type: MsgSnap, From: 2, To: 1, Term: 1, Snapshot: snapshotAt(5, 1, 1, 2, 3)}))
	rd := n.Ready()
	must(t, n.Step(Message{Type: MsgApp, From: 2, To: 1, Term: 1, Index: 5, LogTerm: 1, Entries: []Entry{{Index: 6, Term: 1}}, Commit: 6}))
	if later := n.Ready(); len(rd.Committed)+len(later.Committed) != 0 {
		t.Errorf("to apply are %s and %s", describeEntries(rd.Committed), describeEntries(later.Committed))
	}
	must(t, n.storage.ApplySnapshot(rd.Snapshot))
	must(t, n.Persisted(rd.Write))
	must(t, n.storage.Append([]Entry{{Index: 6, Term: 1}}))
	must(t, n.Persisted(rd.Write+1))
	if rd := n.Ready(); describeEntries(rd.Committed) != "[6/1]" {
		t.Errorf("then to apply are %s", describeEntries(rd.Committed))
	}
}

func TestARequestToHandOverGoesToTheLeader(t *testing.T) {
	l := single(t, nil, HardState{Term: 1})
	l.expectSent(l.answers(Message{Type: MsgTransferLeader, From: 3, To: 1})) // nobody leads
	l.answers(Message{Type: MsgHeartbeat, From: 2, To: 1, Term: 1})
	l.expectSent(l.answers(Message{Type: MsgTransferLeader, From: 3, To: 1}), "3->2 MsgTransferLeader term 1")

	whole := newLab(t, 3)
	whole.elect(1)
	whole.nodes[2].TransferLeader(3)
	whole.stabilize()
	if s := whole.nodes[3].Status(); s.RaftState != Leader || s.Term != 2 {
		t.Errorf("node 3 is %v in term %d", s.RaftState, s.Term)
	}
}

func TestASnapshotOfAClusterWithoutTheNodeIsNotForIt(t *testing.T) {
	for _, test := range []struct {
		conf  ConfState
		taken bool
	}{
		{ConfState{Voters: []uint64{2, 3}}, false},
		{ConfState{Voters: []uint64{2, 3}, Learners: []uint64{4}}, false},
		{ConfState{Voters: []uint64{1, 2}}, true},
		{ConfState{Voters: []uint64{2, 3}, Learners: []uint64{1}}, true},
		{ConfState{Voters: []uint64{2, 3}, VotersOutgoing: []uint64{1, 2}}, true},
		{ConfState{Voters: []uint64{1, 2}, Learners: []uint64{2}}, false}, // there is no such cluster
	} {
		l := single(t, []uint64{1}, HardState{Term: 1})
		l.answers(Message{Type: MsgSnap, From: 2, To: 1, Term: 1, Snapshot: &Snapshot{Metadata: SnapshotMetadata{Index: 5, Term: 1, ConfState: test.conf}}})
		if taken := l.nodes[1].Status().Commit == 5; taken != test.taken {
			t.Errorf("a snapshot in %+v is taken: %v", test.conf, taken)
		}
	}
}

// Elections and transfers in a joint configuration ask the voters of both halves, once each.
func TestVotersOfBothHalvesAreAskedOnce(t *testing.T) {
	for _, change := range []func(*nodeConfig){preVote, func(*nodeConfig) {}} {
		l := joint(t, []uint64{1, 4, 5}, []uint64{1, 2, 4})
		change(&l.nodes[1].config)
		l.start(1)
		must(t, l.nodes[1].Campaign())
		l.settle(1)
		var asked []uint64
		for _, m := range l.wire {
			asked = append(asked, m.To)
		}
		if !slices.Equal(asked, []uint64{2, 4, 5}) {
			t.Errorf("%s: asked %v", fmt.Sprint(l.nodes[1].Status().RaftState), asked)
		}
	}
}
