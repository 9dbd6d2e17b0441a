package raft

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

// Section 7 (log compaction) of the Raft paper, and what section 8 (client interaction) asks
// of the core.

func snapshotAt(index, term uint64, voters ...uint64) *Snapshot {
	return &Snapshot{Metadata: SnapshotMetadata{Index: index, Term: term, ConfState: ConfState{Voters: voters}}}
}

// 7: each node takes snapshots of its own, without its leader's knowledge, and goes on as
// before.
func TestPaper7NodesTakeSnapshotsOfTheirOwn(t *testing.T) {
	l := newLab(t, 3)
	l.elect(1)
	for i := range 4 {
		must(t, l.nodes[1].Propose(fmt.Append(nil, i)))
	}
	l.stabilize()
	for _, id := range l.ids {
		l.compact(l.nodes[id], id+1) // each at another index
	}
	l.stabilize()
	l.expectSent(l.wire)
	must(t, l.nodes[1].Propose([]byte("a")))
	l.stabilize()
	for _, id := range l.ids {
		if got := l.nodes[id].data; len(got) != 5 || got[4] != "a" {
			t.Errorf("node %d applied %q", id, got)
		}
	}
	if l.terms(2) != "(snapshot up to 3) 1 1 1" {
		t.Errorf("node 2's log is %q", l.terms(2))
	}
}

// 7: a snapshot bears the index and term of the last entry that it stands for, so that the
// first entry after it can be checked, and the configuration as of then.
func TestPaper7ASnapshotBearsWhereItEndsAndTheConfiguration(t *testing.T) {
	l := newLab(t, 3)
	l.elect(1)
	must(t, l.nodes[1].ProposeConfChange(ConfChange{Type: ConfChangeAddLearnerNode, NodeID: 9}))
	l.stabilize()
	l.compact(l.nodes[2], 2)
	s, err := l.nodes[2].storage.Snapshot()
	must(t, err)
	want := ConfState{Voters: []uint64{1, 2, 3}, Learners: []uint64{9}}
	if s.Metadata.Index != 2 || s.Metadata.Term != 1 || !s.Metadata.ConfState.Equivalent(want) {
		t.Errorf("the snapshot bears %+v", s.Metadata)
	}
	// What a snapshot stands for is committed: where a leader has it otherwise, a log was lost.
	for _, term := range []uint64{1, 2} {
		one := single(t, nil, HardState{Term: 2}, func(c *nodeConfig) { c.Snapshot = snapshotAt(5, 1, 1, 2, 3) })
		err := one.nodes[1].Step(Message{Type: MsgApp, From: 2, To: 1, Term: 2, Index: 5, LogTerm: term, Entries: []Entry{{Index: 6, Term: 2}}})
		if taken := err == nil && one.nodes[1].Status().LastIndex == 6; taken != (term == 1) {
			t.Errorf("an entry after 5/%d is taken: %v, %v", term, taken, err)
		}
	}
}

// 7: the log may be deleted as far as a snapshot goes, and no further; a newer snapshot takes
// the place of the one before. What is left is as it was.
func TestPaper7TheLogIsDeletedAsFarAsASnapshotGoes(t *testing.T) {
	s := NewMemoryStorage()
	must(t, s.Append([]Entry{{Index: 1, Term: 1}, {Index: 2, Term: 1}, {Index: 3, Term: 2}, {Index: 4, Term: 2}}))
	if err := s.Compact(1); err == nil {
		t.Error("entry 1 is gone, and no snapshot stands for it")
	}
	for _, index := range []uint64{2, 3} {
		_, err := s.CreateSnapshot(index, ConfState{Voters: []uint64{1}}, nil)
		must(t, err)
		if err := s.Compact(index + 1); err == nil {
			t.Errorf("entry %d is gone, and the snapshot ends at %d", index+1, index)
		}
		must(t, s.Compact(index))
		if newest, err := s.Snapshot(); err != nil || newest.Metadata.Index != index {
			t.Errorf("the snapshot is %v, %v", newest, err)
		}
		if _, err := s.Entries(index, 5, NoLimit); !errors.Is(err, ErrCompacted) {
			t.Errorf("entry %d: %v", index, err)
		}
		if left, err := s.Entries(index+1, 5, NoLimit); err != nil || len(left) != int(4-index) || left[0].Index != index+1 {
			t.Errorf("left is %v, %v", left, err)
		}
	}
	if _, err := s.CreateSnapshot(2, ConfState{}, nil); !errors.Is(err, ErrSnapOutOfDate) {
		t.Errorf("an older snapshot: %v", err)
	}
}

// 7: a leader sends a snapshot to a follower that needs an entry which is deleted already,
// and to no other. The paper sends it in chunks; here it is one message, and what carries it
// may cut it up.
func TestPaper7ALeaderSendsASnapshotWhereTheLogIsDeleted(t *testing.T) {
	l := newLab(t, 3)
	l.elect(1)
	for i := range 5 {
		must(t, l.nodes[1].Propose(fmt.Append(nil, i)))
		l.stabilize(1, 2)
		l.cut(3)
	}
	l.compact(l.nodes[1], 4)
	l.tick(1, 1)
	l.settle(1)
	var snapshots []string
	for range 8 {
		for _, m := range l.wire {
			if m.Type == MsgSnap {
				snapshots = append(snapshots, describe(m))
			}
		}
		l.deliver(everything)
		for _, id := range l.ids {
			l.settle(id)
		}
	}
	if want := []string{"1->3 MsgSnap term 1 snapshot 4/1 voters=(1 2 3)"}; !slices.Equal(snapshots, want) {
		t.Errorf("sent %q, not %q", snapshots, want)
	}
	if l.terms(3) != "(snapshot up to 4) 1 1" {
		t.Errorf("node 3's log is %q", l.terms(3))
	}
}

// 7, and figure 13, InstallSnapshot: what a snapshot does to the log that it meets. New
// information replaces all of it. Where the log has the snapshot's last entry, what follows
// stays; here what came before stays as well, until the node compacts it. A snapshot of an
// earlier term is not taken.
func TestPaper7WhatASnapshotDoesToTheLog(t *testing.T) {
	for _, test := range []struct {
		name            string
		own             []uint64
		term            uint64
		index, lastTerm uint64
		log             string
		commit          uint64
		answer          string
	}{
		{"it is longer", []uint64{1, 1}, 3, 5, 2, "(snapshot up to 5)", 5, "1->2 MsgAppResp term 3 holds 5"},
		{"it conflicts", []uint64{1, 1, 1, 1, 1, 1, 1}, 3, 5, 2, "(snapshot up to 5)", 5, "1->2 MsgAppResp term 3 holds 5"},
		{"the log is empty", nil, 3, 5, 2, "(snapshot up to 5)", 5, "1->2 MsgAppResp term 3 holds 5"},
		{"it is a prefix", []uint64{1, 1, 2, 2, 2, 3}, 3, 5, 2, "1 1 2 2 2 3", 5, "1->2 MsgAppResp term 3 holds 5"},
		{"it is the whole log", []uint64{1, 1, 2, 2, 2}, 3, 5, 2, "1 1 2 2 2", 5, "1->2 MsgAppResp term 3 holds 5"},
		{"it is committed already", []uint64{1, 1, 2}, 3, 1, 1, "1 1 2", 1, "1->2 MsgAppResp term 3 holds 1"},
		{"its term is over", []uint64{1, 1}, 2, 5, 2, "1 1", 1, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			commit := min(uint64(len(test.own)), 1)
			l := single(t, test.own, HardState{Term: 3, Commit: commit})
			answers := l.answers(Message{Type: MsgSnap, From: 2, To: 1, Term: test.term, Snapshot: snapshotAt(test.index, test.lastTerm, 1, 2, 3)})
			if test.answer == "" {
				l.expectSent(answers)
			} else {
				l.expectSent(answers, test.answer)
			}
			if got := l.terms(1); got != test.log {
				t.Errorf("the log is %q, not %q", got, test.log)
			}
			l.expectCommit(1, test.commit)
		})
	}
}

// 7: a snapshot that was sent again, or by mistake, may be older than the node's own. Then
// nothing goes back, although the log cannot tell any more that it agrees.
func TestPaper7AnOlderSnapshotTakesNothingBack(t *testing.T) {
	l := single(t, []uint64{2}, HardState{Term: 2}, func(c *nodeConfig) { c.Snapshot = snapshotAt(5, 1, 1, 2, 3) })
	for index := uint64(1); index <= 5; index++ {
		answers := l.answers(Message{Type: MsgSnap, From: 2, To: 1, Term: 2, Snapshot: snapshotAt(index, 1, 1, 2)})
		l.expectSent(answers, "1->2 MsgAppResp term 2 holds 5")
	}
	l.expectMembers(1, "voters=(1 2 3)")
	if l.terms(1) != "(snapshot up to 5) 2" {
		t.Errorf("the log is %q", l.terms(1))
	}
}

// Figure 13, InstallSnapshot, receiver 8: the state machine is set to the snapshot's contents,
// and its configuration is in force. Nothing that the snapshot stands for is applied again.
func TestPaper7ASnapshotResetsTheStateMachineAndTheConfiguration(t *testing.T) {
	l := single(t, []uint64{1, 1}, HardState{Term: 1})
	n := l.nodes[1]
	s := snapshotAt(5, 1, 1, 2, 3, 4, 5)
	s.Data = []byte("contents")
	must(t, n.Step(Message{Type: MsgApp, From: 2, To: 1, Term: 1, Index: 2, LogTerm: 1, Commit: 2}))
	must(t, n.Step(Message{Type: MsgSnap, From: 2, To: 1, Term: 1, Snapshot: s}))
	rd := n.Ready()
	if rd.Snapshot == nil || string(rd.Snapshot.Data) != "contents" || len(rd.Committed) != 0 {
		t.Fatalf("the snapshot is %v, to apply are %s", rd.Snapshot, describeEntries(rd.Committed))
	}
	must(t, n.storage.ApplySnapshot(rd.Snapshot))
	must(t, n.Persisted(rd.Write))
	n.applied = 5
	l.expectMembers(1, "voters=(1 2 3 4 5)")
	must(t, n.Step(Message{Type: MsgApp, From: 2, To: 1, Term: 1, Index: 5, LogTerm: 1, Entries: []Entry{{Index: 6, Term: 1, Data: []byte("next")}}, Commit: 6}))
	l.settle(1)
	if !slices.Equal(n.data, []string{"next"}) {
		t.Errorf("applied %q after the snapshot", n.data)
	}
}

// 8: a new leader makes an entry without a command at the start of its term, which tells it
// what is committed. Before that is so it serves no read; it may not know of an entry that
// its predecessor committed.
func TestPaper8ANewLeaderServesReadsAfterTheFirstCommitOfItsTerm(t *testing.T) {
	l := alone(t, 3, []uint64{1, 1}, HardState{Term: 1, Commit: 1})
	l.leads()
	n := l.nodes[1]
	if e := n.storage.entries[2]; e.Index != 3 || e.Term != 2 || len(e.Data) != 0 || e.Type != EntryNormal {
		t.Errorf("the first entry of the term is %v", e)
	}
	must(t, n.ReadIndex([]byte("r")))
	l.settle(1)
	confirm := func() {
		l.answers(Message{Type: MsgHeartbeatResp, From: 2, To: 1, Term: 2, Context: []byte{0, 0, 0, 0, 0, 0, 0, 1}})
	}
	confirm()
	if len(n.reads) != 0 {
		t.Fatalf("served %v, and nothing of this term is committed", n.reads)
	}
	l.acknowledges(2, 3)
	confirm()
	if len(n.reads) != 1 || n.reads[0].Index != 3 {
		t.Errorf("served %v", n.reads)
	}
}

// 8: before it serves a read, a leader exchanges heartbeats with a majority, to learn whether
// it is deposed.
func TestPaper8ADeposedLeaderServesNoRead(t *testing.T) {
	for _, deposed := range []bool{true, false} {
		l := newLab(t, 3)
		l.elect(1)
		if deposed {
			must(t, l.nodes[2].Campaign())
			l.stabilize(2, 3)
			l.cut(1)
			must(t, l.nodes[2].Propose([]byte("newer")))
			l.stabilize(2, 3)
			l.cut(1)
			l.expectState(Leader, 1, 1) // it does not know
		}
		must(t, l.nodes[1].ReadIndex([]byte("r")))
		l.settle(1)
		if len(l.nodes[1].reads) != 0 {
			t.Error("served without asking anybody")
		}
		l.tick(1, 1)
		l.stabilize()
		if served := len(l.nodes[1].reads) == 1; served == deposed {
			t.Errorf("deposed %v: served %v", deposed, l.nodes[1].reads)
		}
	}
}
