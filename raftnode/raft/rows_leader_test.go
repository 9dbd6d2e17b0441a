package raft

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

// What docs/raft-rows.md asks of leaders, and no other test shows by itself.

func TestAProposalOfNothingIsAMistake(t *testing.T) {
	l := newLab(t, 1)
	l.elect(1)
	if err := l.nodes[1].ProposeBatch(nil); !errors.Is(err, ErrMalformed) {
		t.Errorf("no entries: %v", err)
	}
	must(t, l.nodes[1].Propose(nil)) // an entry without data is one
	must(t, l.nodes[1].ProposeBatch([][]byte{[]byte("a"), []byte("b")}))
	l.stabilize()
	if l.terms(1) != "1 1 1 1" || !slices.Equal(l.nodes[1].data, []string{"a", "b"}) {
		t.Errorf("log %q, applied %q", l.terms(1), l.nodes[1].data)
	}
}

// What is applied may be more than what the leader counted: entries of earlier terms are not
// its own proposals.
func TestTheBacklogNeverFallsBelowNothing(t *testing.T) {
	l := alone(t, 3, nil, HardState{}, func(c *nodeConfig) { c.MaxUncommittedEntriesSize = 10 })
	l.answers(Message{Type: MsgApp, From: 2, To: 1, Term: 1, Entries: []Entry{{Index: 1, Term: 1, Data: make([]byte, 50)}}})
	l.leads()
	must(t, l.nodes[1].Propose(make([]byte, 6)))
	l.settle(1)
	l.acknowledges(2, 2)
	if got := l.nodes[1].raft.uncommitted; got != 0 {
		t.Errorf("%d bytes wait after 50 others were applied", got)
	}
	must(t, l.nodes[1].Propose(make([]byte, 10)))
}

// A node that was just added has not been asked anything yet: it does not count as silent
// before the next check but one.
func TestANewMemberGetsTheTimeOfACheckToBeHeardOf(t *testing.T) {
	l := alone(t, 2, nil, HardState{}, checkQuorum)
	l.leads()
	l.acknowledges(2, 1)
	must(t, l.nodes[1].ProposeConfChange(ConfChange{Type: ConfChangeAddNode, NodeID: 3}))
	l.settle(1)
	l.acknowledges(2, 2)
	l.expectMembers(1, "voters=(1 2 3)")
	l.nodes[1].raft.progress.of(2).active = false
	l.tick(1, 10) // 1 and 3 are two of three
	l.expectState(Leader, 1, 1)
	l.tick(1, 10)
	l.expectState(Follower, 1, None)
}

// A leader has heard of itself, be its disk ever so slow.
func TestALeaderCountsItselfWhenItChecksItsQuorum(t *testing.T) {
	l := single(t, nil, HardState{}, checkQuorum)
	l.campaigns()
	must(t, l.nodes[1].Step(Message{Type: MsgVoteResp, From: 2, To: 1, Term: 1}))
	must(t, l.nodes[1].Step(Message{Type: MsgHeartbeatResp, From: 2, To: 1, Term: 1}))
	l.tick(1, 10)
	l.expectState(Leader, 1, 1)
}

// A snapshot goes only to who was heard of since the last check, and only when there is one.
func TestASnapshotIsSentWhenItCanBeTakenAndGiven(t *testing.T) {
	for _, test := range []struct{ active, available, sent bool }{{true, true, true}, {false, true, false}, {true, false, false}} {
		l := alone(t, 3, nil, HardState{Term: 1}, func(c *nodeConfig) { c.Snapshot = snapshotAt(9, 1, 1, 2, 3) })
		disk := &reluctantStorage{MemoryStorage: l.nodes[1].storage}
		l.nodes[1].config.Storage = disk
		l.start(1)
		l.leads()
		r := l.nodes[1].raft
		p := r.progress.of(2)
		p.next, p.paused, p.active, disk.busy = 5, false, test.active, !test.available
		if sent := r.sendAppend(p, true); sent != test.sent || (p.state == StateSnapshot) != test.sent {
			t.Errorf("heard of %v, to be had %v: sent %v, node 2 is in %v", test.active, test.available, sent, p.state)
		}
		must(t, l.nodes[1].Err())
		if !test.sent { // the next heartbeat's answer finds it otherwise
			disk.busy = false
			l.answers(Message{Type: MsgHeartbeatResp, From: 2, To: 1, Term: 2})
			if p.state != StateSnapshot {
				t.Errorf("then node 2 is in %v", p.state)
			}
		}
	}
}

// The storage is compacted by its owner, at any time: also between a look at an entry's term
// and the reading of those after it.
func TestASnapshotIsSentWhereEntriesWentWhileTheyWereReadFor(t *testing.T) {
	l := alone(t, 3, []uint64{1}, HardState{Term: 1}, func(c *nodeConfig) { c.Snapshot = snapshotAt(9, 1, 1, 2, 3) })
	disk := &reluctantStorage{MemoryStorage: l.nodes[1].storage}
	l.nodes[1].config.Storage = disk
	l.start(1)
	l.leads()
	p := l.nodes[1].raft.progress.of(2)
	p.next, p.paused, p.active, disk.compacted = 10, false, true, true
	if sent := l.nodes[1].raft.sendAppend(p, true); !sent || p.state != StateSnapshot || l.nodes[1].Err() != nil {
		t.Errorf("sent %v, node 2 is in %v, error %v", sent, p.state, l.nodes[1].Err())
	}
}

// reluctantStorage has no snapshot to give while it is busy, and no entries when it has just
// been compacted.
type reluctantStorage struct {
	*MemoryStorage
	busy, compacted bool
}

func (s *reluctantStorage) Entries(lo, hi, maxBytes uint64) ([]Entry, error) {
	if s.compacted {
		return nil, ErrCompacted
	}
	return s.MemoryStorage.Entries(lo, hi, maxBytes)
}

func (s *reluctantStorage) Snapshot() (*Snapshot, error) {
	if s.busy {
		return nil, ErrSnapshotTemporarilyUnavailable
	}
	return s.MemoryStorage.Snapshot()
}

// What joins the leader's log ends the wait for a snapshot, be it an older one than the one
// on its way; what does not join it yet does not.
func TestAnAcknowledgementThatJoinsTheLogEndsTheWaitForASnapshot(t *testing.T) {
	for acknowledged, state := range map[uint64]ProgressState{8: StateSnapshot, 9: StateReplicate, 10: StateReplicate} {
		l := alone(t, 3, []uint64{1, 1}, HardState{Term: 1}, func(c *nodeConfig) { c.Snapshot = snapshotAt(9, 1, 1, 2, 3) })
		l.leads()
		p := l.nodes[1].raft.progress.of(2)
		p.becomeSnapshot(11)
		l.acknowledges(2, acknowledged)
		if p.state != state || p.match != acknowledged {
			t.Errorf("of node 2, which holds %d, it knows %+v", acknowledged, p)
		}
	}
}

// No follower of a leader's term holds more than the leader: what says so is not believed.
func TestAnAcknowledgementOfMoreThanThereIsIsIgnored(t *testing.T) {
	l := alone(t, 3, nil, HardState{})
	l.leads()
	for index, match := range map[uint64]uint64{1: 1, 2: 0, 9: 0} {
		p := l.nodes[1].raft.progress.of(3)
		p.match = 0
		l.acknowledges(3, index)
		if p.match != match {
			t.Errorf("the log ends at 1, node 3 says %d: %d is believed", index, p.match)
		}
	}
}

// Reads need the majorities of both halves; when the old one is left, the new one will do.
func TestAReadInAJointConfigurationNeedsBothMajorities(t *testing.T) {
	for _, test := range []struct {
		answer       []uint64
		joint, after bool
	}{
		{[]uint64{2, 3}, false, false},
		{[]uint64{4, 5}, false, true},
		{[]uint64{2, 4}, true, true},
	} {
		t.Run(fmt.Sprint(test.answer), func(t *testing.T) {
			l := joint(t, []uint64{1, 4, 5}, []uint64{1, 2, 3})
			l.leads()
			l.acknowledges(2, 2)
			l.acknowledges(4, 2)
			n := l.nodes[1]
			must(t, n.ReadIndex([]byte("r")))
			for _, id := range test.answer {
				l.answers(Message{Type: MsgHeartbeatResp, From: id, To: 1, Term: 2, Context: []byte{0, 0, 0, 0, 0, 0, 0, 1}})
			}
			if served := len(n.reads) == 1; served != test.joint {
				t.Errorf("served in the joint configuration: %v", served)
			}
			_, err := n.ApplyConfChange(ConfChangeV2{})
			must(t, err)
			l.settle(1)
			if served := len(n.reads) == 1; served != test.after {
				t.Errorf("served after it: %v", served)
			}
		})
	}
}

func TestLeadershipIsHandedToVotersOnly(t *testing.T) {
	for target, transferee := range map[uint64]uint64{1: None, 2: 2, 4: None, 9: None} {
		l := newLab(t, 3)
		l.elect(1)
		must(t, l.nodes[1].ProposeConfChange(ConfChange{Type: ConfChangeAddLearnerNode, NodeID: 4}))
		l.stabilize()
		l.nodes[1].TransferLeader(target)
		if got := l.nodes[1].Status().LeadTransferee; got != transferee {
			t.Errorf("to %d: leadership goes to %d", target, got)
		}
	}
}

// A leader that is demoted is no voter any more, and steps down like one that is removed.
func TestADemotedLeaderStepsDownIfItIsTo(t *testing.T) {
	for _, stepDown := range []bool{true, false} {
		l := newLab(t, 3, func(c *nodeConfig) { c.StepDownOnRemoval = stepDown })
		l.elect(1)
		must(t, l.nodes[1].ProposeConfChange(ConfChange{Type: ConfChangeAddLearnerNode, NodeID: 1}))
		l.stabilize()
		l.expectMembers(1, "voters=(2 3) learners=(1)")
		if s := l.nodes[1].Status(); (s.RaftState == Follower) != stepDown || s.Term != 1 {
			t.Errorf("StepDownOnRemoval %v: it is %v in term %d", stepDown, s.RaftState, s.Term)
		}
	}
}

// When a configuration comes into force by which fewer must agree, what they hold already is
// committed at once.
func TestASmallerConfigurationCommitsWhatItsMajorityHolds(t *testing.T) {
	l := alone(t, 4, nil, HardState{})
	l.leads()
	for _, id := range []uint64{2, 3} {
		l.acknowledges(id, 1)
	}
	must(t, l.nodes[1].ProposeConfChange(ConfChange{Type: ConfChangeRemoveNode, NodeID: 4}))
	must(t, l.nodes[1].Propose([]byte("a")))
	l.settle(1)
	l.acknowledges(2, 3)
	l.expectCommit(1, 1) // two of four
	l.acknowledges(3, 2)
	l.expectCommit(1, 3) // the removal by three of four, then a by two of three
}

// Within one term no entry is replaced twice, across terms it is: write 1 speaks for entry 2
// no more, though the log holds the same entry again.
func TestAnEntryThatWasReplacedAndPutBackIsDurableWithItsLastWrite(t *testing.T) {
	l := single(t, []uint64{1}, HardState{Term: 1})
	n := l.nodes[1]
	var writes []work
	for _, m := range []Message{
		{Type: MsgApp, From: 2, Term: 1, Index: 1, LogTerm: 1, Entries: []Entry{{Index: 2, Term: 1}}},
		{Type: MsgApp, From: 3, Term: 2, Index: 1, LogTerm: 1, Entries: []Entry{{Index: 2, Term: 2}}},
		{Type: MsgApp, From: 2, Term: 3, Index: 1, LogTerm: 1, Entries: []Entry{{Index: 2, Term: 1}, {Index: 3, Term: 3}}, Commit: 3},
	} {
		m.To = 1
		must(t, n.Step(m))
		writes = append(writes, n.Ready())
	}
	for i, rd := range writes {
		if got := n.raft.log.unstable.offset; got != 2 {
			t.Errorf("before write %d is durable, entries from %d on are not", i+1, got)
		}
		must(t, n.storage.Append(rd.Entries))
		must(t, n.Persisted(rd.Write))
	}
	if rd := n.Ready(); describeEntries(rd.Committed) != "[2/1, 3/3]" {
		t.Errorf("then to apply are %s", describeEntries(rd.Committed))
	}
}
