package raft

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"capsize/raftnode/raft/membership"
)

// Section 6 of the Raft paper: changes of membership.

// joint makes node 1, in a configuration of two halves.
func joint(t *testing.T, incoming, outgoing []uint64) *lab {
	l := &lab{t: t, nodes: make(map[uint64]*labNode)}
	l.add(labConfig(1, nil, func(c *nodeConfig) {
		c.Snapshot = &Snapshot{Metadata: SnapshotMetadata{Index: 1, Term: 1, ConfState: ConfState{Voters: incoming, VotersOutgoing: outgoing}}}
	}), nil, HardState{Term: 1})
	return l
}

func added(ids ...uint64) (changes []ConfChangeSingle) {
	for _, id := range ids {
		changes = append(changes, ConfChangeSingle{Type: ConfChangeAddNode, NodeID: id})
	}
	return changes
}

func removed(ids ...uint64) (changes []ConfChangeSingle) {
	for _, id := range ids {
		changes = append(changes, ConfChangeSingle{Type: ConfChangeRemoveNode, NodeID: id})
	}
	return changes
}

func (l *lab) expectMembers(id uint64, want string) {
	l.t.Helper()
	if got := l.nodes[id].raft.members.String(); got != want {
		l.t.Errorf("node %d is in %s, not in %s", id, got, want)
	}
}

// Figure 10: going over to another configuration in one step could let two disjoint
// majorities decide. More than one voter is never changed outside a joint configuration.
func TestPaper6ManyVotersNeverChangeInOneStep(t *testing.T) {
	three, err := membership.Restore(ConfState{Voters: []uint64{1, 2, 3}})
	must(t, err)
	for name, changes := range map[string][]ConfChangeSingle{
		"two come":          added(4, 5),
		"two go":            removed(2, 3),
		"one comes and one": append(added(4), removed(3)...),
	} {
		if _, err := three.Simple(changes...); !errors.Is(err, membership.ErrTooMuch) {
			t.Errorf("%s: %v", name, err)
		}
		next, err := ConfChangeV2{Changes: changes}.Next(three)
		must(t, err)
		if !next.Joint() {
			t.Errorf("%s: made in one step", name)
		}
	}
	if _, err := three.Simple(added(4)...); err != nil {
		t.Errorf("one voter comes: %v", err)
	}
}

// 6: configurations are entries of the replicated log, and sent like any other.
func TestPaper6AConfigurationIsAnEntryOfTheLog(t *testing.T) {
	l := alone(t, 3, nil, HardState{})
	l.leads()
	l.acknowledges(2, 1)
	must(t, l.nodes[1].ProposeConfChange(ConfChangeV2{Changes: append(added(4), removed(3)...)}))
	l.wire = nil
	l.settle(1)
	l.wire = slices.DeleteFunc(l.wire, func(m Message) bool { return m.To != 2 })
	l.expectSent(l.wire, "1->2 MsgApp term 1 after 1/1 [2/1 AddNode(4)+RemoveNode(3)] commit 1")
}

// 6 has a node use a configuration as soon as it is in its log. Here, as in etcd-raft, it is
// in force when it is applied: appended or even acknowledged it counts for nothing. That is
// safe because nobody campaigns with a committed change that it has not applied.
func TestPaper6AConfigurationIsInForceWhenItIsApplied(t *testing.T) {
	const before, after = "voters=(1 2 3)", "voters=(1 2 3 4)"
	l := newLab(t, 3)
	l.elect(1)
	must(t, l.nodes[1].ProposeConfChange(ConfChange{Type: ConfChangeAddNode, NodeID: 4}))
	l.settle(1)
	l.deliver(func(m Message) bool { return m.To == 2 })
	l.settle(2)
	l.expectMembers(1, before)
	l.expectMembers(2, before)
	l.deliver(func(m Message) bool { return m.From == 2 })
	l.settle(1)
	l.expectMembers(1, after) // the old majority has committed it
	l.expectMembers(2, before)
	l.deliver(func(m Message) bool { return m.To == 2 })
	l.settle(2)
	l.expectMembers(2, after)
	l.expectMembers(3, before)
}

// 6: in a joint configuration entries go to the nodes of both halves.
func TestPaper6AJointConfigurationSendsEntriesToBothHalves(t *testing.T) {
	l := joint(t, []uint64{1, 4, 5}, []uint64{1, 2, 3})
	l.leads()
	must(t, l.nodes[1].Propose([]byte("a")))
	l.tick(1, 1)
	l.settle(1)
	var told []uint64
	for _, m := range l.wire {
		if m.Type == MsgHeartbeat {
			told = append(told, m.To)
			l.answers(Message{Type: MsgAppResp, From: m.To, To: 1, Term: 2, Index: 2})
			if p := l.nodes[1].raft.progress.of(m.To); p.next != 4 {
				t.Errorf("node %d was not sent entry 3", m.To)
			}
		}
	}
	if !slices.Equal(told, []uint64{2, 3, 4, 5}) {
		t.Errorf("heartbeats went to %v", told)
	}
}

// 6: a node of either half may lead; one of neither may not.
func TestPaper6ANodeOfEitherHalfMayLead(t *testing.T) {
	for name, test := range map[string]struct {
		incoming, outgoing []uint64
		may                bool
	}{
		"both":     {[]uint64{1, 2}, []uint64{1, 3}, true},
		"incoming": {[]uint64{1, 2}, []uint64{2, 3}, true},
		"outgoing": {[]uint64{2, 3}, []uint64{1, 2}, true},
		"neither":  {[]uint64{2, 3}, []uint64{2, 4}, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := joint(t, test.incoming, test.outgoing)
			l.campaigns()
			for _, id := range []uint64{2, 3} {
				l.answers(Message{Type: MsgVoteResp, From: id, To: 1, Term: 2})
			}
			if leads := l.nodes[1].Status().RaftState == Leader; leads != test.may {
				t.Errorf("it leads: %v", leads)
			}
		})
	}
}

// 6: in a joint configuration, elections and commitment need a majority of the old and one of
// the new members.
func TestPaper6AJointConfigurationNeedsBothMajorities(t *testing.T) {
	for _, test := range []struct {
		agree  []uint64
		enough bool
	}{
		{nil, false},
		{[]uint64{2}, false},
		{[]uint64{2, 3}, false}, // all of the old ones
		{[]uint64{4, 5}, false}, // all of the new ones
		{[]uint64{2, 4}, true},
		{[]uint64{3, 5}, true},
		{[]uint64{2, 3, 4, 5}, true},
	} {
		t.Run(fmt.Sprint(test.agree), func(t *testing.T) {
			l := joint(t, []uint64{1, 4, 5}, []uint64{1, 2, 3})
			l.campaigns()
			for _, id := range test.agree {
				l.answers(Message{Type: MsgVoteResp, From: id, To: 1, Term: 2})
			}
			if won := l.nodes[1].Status().RaftState == Leader; won != test.enough {
				t.Errorf("the election is won: %v", won)
			}
			l = joint(t, []uint64{1, 4, 5}, []uint64{1, 2, 3})
			l.leads()
			for _, id := range test.agree {
				l.acknowledges(id, 2)
			}
			if committed := l.nodes[1].Status().Commit == 2; committed != test.enough {
				t.Errorf("the entry is committed: %v", committed)
			}
		})
	}
}

// 6: if the leader crashes, the next one is elected under the old or the joint configuration,
// according to what the winner has. The new members cannot decide alone.
func TestPaper6AfterACrashTheOldOrTheJointConfigurationElects(t *testing.T) {
	begin := func() *lab {
		l := newLab(t, 3)
		l.elect(1)
		must(t, l.nodes[1].ProposeConfChange(ConfChangeV2{Transition: TransitionJointExplicit, Changes: append(added(4, 5), removed(2)...)}))
		l.settle(1)
		return l
	}
	l := begin() // the change stays with the leader
	l.cut(1)
	must(t, l.nodes[3].Campaign())
	l.stabilize(2, 3)
	if s := l.nodes[3].Status(); s.RaftState != Leader {
		t.Fatalf("node 3 is %v under the old configuration", s.RaftState)
	}
	l.start(1)
	l.tick(3, 1)
	l.stabilize()
	for _, id := range l.ids {
		l.expectMembers(id, "voters=(1 2 3)")
	}

	l = begin() // the change is in force on node 3
	l.stabilize()
	l.expectMembers(3, "voters=(1 3 4 5)&&(1 2 3)")
	l.wire = nil
	must(t, l.nodes[3].Campaign())
	l.stabilize(2, 3)
	if s := l.nodes[3].Status(); s.RaftState != Candidate {
		t.Errorf("node 3 is %v by the votes of the old majority alone", s.RaftState)
	}
	var asked []uint64
	for _, m := range l.wire {
		asked = append(asked, m.To)
		must(t, l.nodes[3].Step(Message{Type: MsgVoteResp, From: 4, To: 3, Term: m.Term}))
	}
	if !slices.Equal(asked, []uint64{1, 4, 5}) {
		t.Errorf("besides node 2 it asked %v", asked)
	}
	must(t, l.nodes[3].Step(Message{Type: MsgVoteResp, From: 5, To: 3, Term: 2}))
	if s := l.nodes[3].Status(); s.RaftState != Leader {
		t.Errorf("node 3 is %v by both majorities", s.RaftState)
	}
}

// 6: when the joint configuration is committed, and not before, the leader makes the entry
// of the new one; when that is committed, the old members are out.
func TestPaper6TheNewConfigurationFollowsTheCommittedJointOne(t *testing.T) {
	l := alone(t, 3, nil, HardState{})
	l.leads()
	l.acknowledges(2, 1)
	must(t, l.nodes[1].ProposeConfChange(ConfChangeV2{Changes: append(added(4), removed(3)...)}))
	l.settle(1)
	if last := l.nodes[1].Status().LastIndex; last != 2 {
		t.Errorf("the log ends at %d while the joint configuration is on its way", last)
	}
	l.acknowledges(2, 2)
	l.expectMembers(1, "voters=(1 2 4)&&(1 2 3) autoleave")
	if last := l.nodes[1].Status().LastIndex; last != 3 {
		t.Errorf("the log ends at %d when the joint configuration is in force", last)
	}
	l.acknowledges(2, 3)
	l.expectMembers(1, "voters=(1 2 4)")
}

// 6: new nodes get the log first and are not counted, so that adding them does not hold up
// the cluster; when they have caught up they are made voters.
func TestPaper6NewNodesLearnBeforeTheyVote(t *testing.T) {
	l := newLab(t, 3)
	l.elect(1)
	l.add(labConfig(4, []uint64{1, 2, 3}), nil, HardState{})
	must(t, l.nodes[1].ProposeConfChange(ConfChange{Type: ConfChangeAddLearnerNode, NodeID: 4}))
	l.stabilize()
	must(t, l.nodes[1].Propose([]byte("a")))
	l.stabilize(1, 4)
	if l.terms(4) != l.terms(1) || len(l.nodes[1].data) != 0 {
		t.Errorf("the learner has %q, the leader applied %q", l.terms(4), l.nodes[1].data)
	}
	l.stabilize() // 2 and 3 do count
	if got := l.nodes[4].data; !slices.Equal(got, []string{"a"}) {
		t.Errorf("the learner applied %q", got)
	}
	must(t, l.nodes[1].ProposeConfChange(ConfChange{Type: ConfChangeAddNode, NodeID: 4}))
	l.stabilize()
	must(t, l.nodes[1].Propose([]byte("b")))
	l.stabilize(1, 4)
	if len(l.nodes[1].data) != 1 {
		t.Error("two of four voters commit")
	}
	l.stabilize(1, 2, 4)
	if got := l.nodes[1].data; !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("three of four voters hold b, applied %q", got)
	}
}

// 6: a leader that is not in the new configuration leads until that is committed, and then
// steps down (with StepDownOnRemoval). It does not count itself any more.
func TestPaper6ARemovedLeaderStepsDownWhenThatIsCommitted(t *testing.T) {
	for _, stepDown := range []bool{true, false} {
		l := alone(t, 3, nil, HardState{}, func(c *nodeConfig) { c.StepDownOnRemoval = stepDown })
		l.leads()
		l.acknowledges(2, 1)
		must(t, l.nodes[1].ProposeConfChange(ConfChange{Type: ConfChangeRemoveNode, NodeID: 1}))
		must(t, l.nodes[1].Propose([]byte("a")))
		l.settle(1)
		l.expectState(Leader, 1, 1)
		l.acknowledges(2, 2)
		l.expectMembers(1, "voters=(2 3)")
		if stepDown {
			l.expectState(Follower, 1, None)
			continue
		}
		// Else it leads on without itself, which the paper lets it do only until then.
		l.expectState(Leader, 1, 1)
		l.acknowledges(2, 3)
		l.expectCommit(1, 2)
		l.acknowledges(3, 3)
		l.expectCommit(1, 3)
	}
}

// 6: nodes that are removed, and campaign because nobody tells them anything, must not
// disturb: who has heard from a leader within the shortest time-out takes over no term and
// grants no vote. With CheckQuorum it is so; without it, they do disturb.
func TestPaper6RemovedNodesDoNotDisturb(t *testing.T) {
	for _, protected := range []bool{true, false} {
		l := newLab(t, 4, func(c *nodeConfig) { c.CheckQuorum = protected })
		l.elect(1)
		must(t, l.nodes[1].ProposeConfChange(ConfChange{Type: ConfChangeRemoveNode, NodeID: 4}))
		l.stabilize(1, 2, 3)
		l.cut(4)
		for range 100 {
			for _, id := range l.ids {
				l.tick(id, 1)
			}
			l.stabilize()
		}
		if calm := l.nodes[1].Status().Term == 1 && l.nodes[1].Status().RaftState == Leader; calm != protected {
			t.Errorf("CheckQuorum %v: the leader stays is %v", protected, calm)
		}
		if s := l.nodes[4].Status(); s.Term < 3 {
			t.Errorf("the removed node is in term %d: it did not even try", s.Term)
		}
	}
}
