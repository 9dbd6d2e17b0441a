package raft

import (
	"fmt"
	"slices"
	"testing"
)

// Sections 5.3 (log replication), 5.4.2 (entries of earlier terms) and 5.4.3 of the Raft
// paper.

// acknowledges has a node tell node 1 that it holds everything up to index.
func (l *lab) acknowledges(from, index uint64) []Message {
	l.t.Helper()
	return l.answers(Message{Type: MsgAppResp, From: from, To: 1, Term: l.nodes[1].Status().Term, Index: index})
}

func (l *lab) expectCommit(id, want uint64) {
	l.t.Helper()
	if commit := l.nodes[id].Status().Commit; commit != want {
		l.t.Errorf("node %d knows that %d is committed, not %d", id, commit, want)
	}
}

// 5.3: the leader appends a command to its log as a new entry, with its term and the next
// index, and sends it to all others at once, together with where it goes and how far the
// log is committed (figure 2, AppendEntries).
func TestPaper53ALeaderAppendsACommandAndSendsItToAllAtOnce(t *testing.T) {
	l := alone(t, 3, []uint64{1}, HardState{Term: 1})
	l.leads()
	l.acknowledges(2, 2)
	l.acknowledges(3, 2)
	must(t, l.nodes[1].Propose([]byte("a")))
	l.settle(1)
	if l.terms(1) != "1 2 2" {
		t.Errorf("the log is %q", l.terms(1))
	}
	l.expectSent(l.wire, `1->2 MsgApp term 2 after 2/2 [3/2 "a"] commit 2`, `1->3 MsgApp term 2 after 2/2 [3/2 "a"] commit 2`)
}

// 5.3: the leader that made an entry commits it when a majority holds it.
func TestPaper53AnEntryIsCommittedWhenAMajorityHoldsIt(t *testing.T) {
	for _, test := range []struct {
		size, acknowledge int
		committed         bool
	}{
		{1, 0, true}, {2, 0, false}, {2, 1, true}, {3, 0, false}, {3, 1, true}, {3, 2, true},
		{4, 1, false}, {4, 2, true}, {5, 1, false}, {5, 2, true}, {6, 2, false}, {6, 3, true}, {7, 2, false}, {7, 3, true},
	} {
		t.Run(fmt.Sprintf("%d nodes, %d acknowledge", test.size, test.acknowledge), func(t *testing.T) {
			l := alone(t, test.size, nil, HardState{})
			l.leads()
			must(t, l.nodes[1].Propose([]byte("a")))
			l.settle(1)
			for i := range test.acknowledge {
				l.acknowledges(uint64(i)+2, 2)
				l.acknowledges(uint64(i)+2, 2) // twice is one
			}
			want := uint64(0)
			if test.committed {
				want = 2
			}
			l.expectCommit(1, want)
		})
	}
}

// 5.3: the leader applies an entry to its state machine when it is committed, not before.
func TestPaper53ALeaderAppliesWhatIsCommittedAndNothingElse(t *testing.T) {
	l := alone(t, 3, nil, HardState{})
	l.leads()
	must(t, l.nodes[1].Propose([]byte("a")))
	must(t, l.nodes[1].Propose([]byte("b")))
	l.settle(1)
	for _, step := range []struct {
		acknowledged uint64
		applied      []string
	}{{1, nil}, {2, []string{"a"}}, {3, []string{"a", "b"}}} {
		l.acknowledges(2, step.acknowledged)
		if got := l.nodes[1].data; !slices.Equal(got, step.applied) {
			t.Errorf("a majority holds %d, applied %q", step.acknowledged, got)
		}
	}
}

// 5.3: a leader tries again until every follower has every entry, also after it has
// committed and applied it. A slow follower does not hold up the others.
func TestPaper53ASlowFollowerHoldsUpNobodyAndGetsEverything(t *testing.T) {
	l := newLab(t, 3)
	l.elect(1)
	var all []string
	for i := range 20 {
		all = append(all, fmt.Sprint(i))
		must(t, l.nodes[1].Propose([]byte(all[i])))
		l.stabilize(1, 2)
		l.cut(3)
		if !slices.Equal(l.nodes[1].data, all) {
			t.Fatalf("applied %q", l.nodes[1].data)
		}
	}
	for range 3 { // heartbeats get through to it, and at first nothing else does
		l.tick(1, 1)
		l.settle(1)
		l.drop(func(m Message) bool { return m.To == 3 && m.Type == MsgApp })
		l.stabilize()
	}
	if !slices.Equal(l.nodes[3].data, all) {
		t.Errorf("node 3 applied %q", l.nodes[3].data)
	}
}

// 5.3: committing an entry commits all before it, those of earlier leaders, too.
func TestPaper53CommittingAnEntryCommitsAllBeforeIt(t *testing.T) {
	l := alone(t, 3, []uint64{1, 2, 2, 4}, HardState{Term: 4})
	l.leads()
	l.expectCommit(1, 0)
	l.acknowledges(2, 5)
	l.expectCommit(1, 5)
	if applied := l.nodes[1].applied; applied != 5 {
		t.Errorf("applied up to %d", applied)
	}
}

// 5.3: what the leader knows to be committed is in every append, and in heartbeats as far
// as the follower is known to agree: what comes after that in its log may be another entry.
func TestPaper53FollowersAreToldWhatIsCommitted(t *testing.T) {
	l := alone(t, 3, nil, HardState{})
	l.leads()
	must(t, l.nodes[1].Propose([]byte("a")))
	l.settle(1)
	l.wire = nil
	l.expectSent(l.acknowledges(2, 2), "1->2 MsgApp term 1 after 2/1 [] commit 2")
	l.tick(1, 1)
	l.settle(1)
	l.expectSent(l.wire, "1->2 MsgHeartbeat term 1 commit 2", "1->3 MsgHeartbeat term 1 commit 0")
}

// 5.3: a follower that learns that entries are committed applies them, in the order of the
// log. It may learn it with the entry, with a later one, or with a heartbeat.
func TestPaper53AFollowerAppliesWhatIsCommittedInOrder(t *testing.T) {
	entries := []Entry{{Index: 1, Term: 1, Data: []byte("a")}, {Index: 2, Term: 1, Data: []byte("b")}, {Index: 3, Term: 1, Data: []byte("c")}}
	for name, messages := range map[string][]Message{
		"with the entries":   {{Type: MsgApp, Entries: entries, Commit: 3}},
		"with a later entry": {{Type: MsgApp, Entries: entries[:2]}, {Type: MsgApp, Index: 2, LogTerm: 1, Entries: entries[2:], Commit: 3}},
		"with a heartbeat":   {{Type: MsgApp, Entries: entries}, {Type: MsgHeartbeat, Commit: 2}, {Type: MsgHeartbeat, Commit: 3}},
		"with an empty one":  {{Type: MsgApp, Entries: entries}, {Type: MsgApp, Index: 3, LogTerm: 1, Commit: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			l := single(t, nil, HardState{Term: 1})
			for _, m := range messages {
				m.From, m.To, m.Term = 2, 1, 1
				committed := m.Commit
				l.answers(m)
				if got := l.nodes[1].data; !slices.Equal(got, []string{"a", "b", "c"}[:committed]) {
					t.Errorf("told that %d is committed, applied %q", committed, got)
				}
			}
		})
	}
}

// 5.3, Log Matching: a leader makes one entry at most of an index and term, and an entry
// never moves. Whatever is proposed, to it or to others, the log is only appended to.
func TestPaper53ALeaderNeverMovesAnEntry(t *testing.T) {
	l := newLab(t, 3)
	l.elect(1)
	made := make(map[uint64]Entry)
	for i := range 12 {
		must(t, l.nodes[uint64(i%3)+1].Propose(fmt.Append(nil, i)))
		l.settle(uint64(i%3) + 1)
		l.deliver(func(m Message) bool { return m.Type == MsgProp })
		r := l.nodes[1].raft
		entries, err := r.log.slice(1, r.log.lastIndex()+1, NoLimit)
		must(t, err)
		if len(entries) != i+2 {
			t.Fatalf("%d entries after %d proposals", len(entries), i+1)
		}
		for _, e := range entries {
			if before, ok := made[e.Index]; ok && (before.Term != e.Term || string(before.Data) != string(e.Data)) {
				t.Errorf("entry %d was %v and is %v", e.Index, before, e)
			}
			made[e.Index] = e
		}
		if i%4 == 3 {
			l.stabilize()
		}
	}
}

// 5.3, and figure 2, AppendEntries, receiver 2: a follower refuses entries unless its log has
// an entry of the same index and term before them. Its answer says where to look on.
func TestPaper53AFollowerRefusesEntriesAfterWhatItDoesNotHold(t *testing.T) {
	for _, test := range []struct {
		index, logTerm uint64
		accepted       bool
	}{{0, 0, true}, {1, 1, true}, {2, 2, true}, {1, 2, false}, {2, 1, false}, {2, 3, false}, {3, 2, false}, {9, 3, false}} {
		l := single(t, []uint64{1, 2}, HardState{Term: 3})
		answers := l.answers(Message{
			Type: MsgApp, From: 2, To: 1, Term: 3, Index: test.index, LogTerm: test.logTerm, Entries: []Entry{{Index: test.index + 1, Term: 3}},
		})
		if len(answers) != 1 || answers[0].Reject == test.accepted {
			t.Errorf("after %d/%d: %q", test.index, test.logTerm, describeAll(answers))
		}
		if before := l.terms(1) == "1 2"; before == test.accepted {
			t.Errorf("after %d/%d: the log is %q", test.index, test.logTerm, l.terms(1))
		}
	}
}

// 5.3, and figure 2, AppendEntries, receiver 3 and 4: what conflicts with the leader's
// entries goes, with all that follows it; what agrees stays; what is missing is added.
func TestPaper53AFollowerKeepsWhatAgreesAndReplacesWhatDoesNot(t *testing.T) {
	entries := func(terms ...uint64) (list []Entry) {
		for i, term := range terms {
			list = append(list, Entry{Index: uint64(i) + 2, Term: term})
		}
		return list
	}
	for _, test := range []struct {
		own     []uint64
		entries []Entry
		want    string
	}{
		{[]uint64{1}, entries(4), "1 4"},
		{[]uint64{1}, entries(4, 4, 4), "1 4 4 4"},
		{[]uint64{1, 2, 2, 3}, entries(4), "1 4"},
		{[]uint64{1, 2, 2, 3}, entries(2, 4), "1 2 4"},
		{[]uint64{1, 2, 2, 3}, entries(2, 2), "1 2 2 3"}, // it may be late: what follows is not in question
		{[]uint64{1, 2, 2, 3}, entries(2, 2, 3, 4), "1 2 2 3 4"},
		{[]uint64{1, 2, 2, 3}, nil, "1 2 2 3"},
	} {
		l := single(t, test.own, HardState{Term: 4})
		l.answers(Message{Type: MsgApp, From: 2, To: 1, Term: 4, Index: 1, LogTerm: 1, Entries: test.entries})
		if got := l.terms(1); got != test.want {
			t.Errorf("%v, given %s after 1, is %q, not %q", test.own, describeEntries(test.entries), got, test.want)
		}
	}
}

// Figure 2, AppendEntries, receiver 5: a follower's commit index goes as far as the leader's,
// and no further than the last entry of the message. It never falls.
func TestPaper53AFollowersCommitIndexGoesNoFurtherThanTheMessage(t *testing.T) {
	for _, test := range []struct{ index, logTerm, entries, commit, want uint64 }{
		{1, 1, 0, 9, 1}, {1, 1, 1, 9, 2}, {1, 1, 2, 2, 2}, {1, 1, 2, 3, 3}, {3, 1, 0, 9, 3}, {1, 1, 0, 0, 1},
	} {
		l := single(t, []uint64{1, 1, 1}, HardState{Term: 1, Commit: 1})
		m := Message{Type: MsgApp, From: 2, To: 1, Term: 2, Index: test.index, LogTerm: test.logTerm, Commit: test.commit}
		for i := range test.entries {
			m.Entries = append(m.Entries, Entry{Index: test.index + 1 + i, Term: 1})
		}
		l.answers(m)
		l.expectCommit(1, test.want)
	}
}

// 5.3, and figure 2, State: a new leader takes every follower to hold its whole log, and
// knows of nothing that they do.
func TestPaper53ANewLeaderTriesTheEndOfItsLogFirst(t *testing.T) {
	l := alone(t, 3, []uint64{1, 1, 3}, HardState{Term: 3})
	l.campaigns()
	l.expectSent(l.answers(Message{Type: MsgVoteResp, From: 2, To: 1, Term: 4}),
		"1->2 MsgApp term 4 after 3/3 [4/4] commit 0", "1->3 MsgApp term 4 after 3/3 [4/4] commit 0")
	for _, p := range l.nodes[1].Status().Progress[1:] {
		if p.Match != 0 || p.Next != 4 || p.State != StateProbe {
			t.Errorf("of node %d it believes %v", p.ID, p)
		}
	}
}

// 5.3, and figure 2, Rules for Leaders: after a refusal the leader goes back and tries again,
// until the logs agree; then the follower gets the rest. The paper lets the leader probe
// without entries until then; here a probe carries one.
func TestPaper53ALeaderGoesBackUntilTheLogsAgree(t *testing.T) {
	l := newScene(t, map[uint64][]uint64{1: {1, 2, 3, 4, 5}, 2: {1, 1, 1, 1, 1, 1}, 3: {1, 2, 3, 4, 5}})
	l.elect(1)
	for _, id := range l.ids {
		if l.terms(id) != "1 2 3 4 5 6" {
			t.Errorf("node %d has %q", id, l.terms(id))
		}
	}
	p := l.nodes[1].Status().Progress[1]
	if p.Match != 6 || p.Next != 7 || p.State != StateReplicate {
		t.Errorf("of node 2 it knows %v", p)
	}
}

// newScene makes nodes with these logs, each in the term of its last entry.
func newScene(t *testing.T, logs map[uint64][]uint64, change ...func(*nodeConfig)) *lab {
	l := &lab{t: t, nodes: make(map[uint64]*labNode)}
	voters := make([]uint64, len(logs))
	for i := range voters {
		voters[i] = uint64(i) + 1
	}
	for _, id := range voters {
		l.add(labConfig(id, voters, change...), logs[id], HardState{Term: slices.Max(append(slices.Clone(logs[id]), 0))})
	}
	return l
}

// 5.3, and figure 2, Rules for Leaders: when the logs agree, match and next of a follower
// rise with its acknowledgements, and entries are sent without waiting for them.
func TestPaper53AcknowledgementsMoveAFollowerOn(t *testing.T) {
	l := alone(t, 3, nil, HardState{})
	l.leads()
	l.acknowledges(2, 1)
	l.acknowledges(3, 1)
	for i := range uint64(3) {
		must(t, l.nodes[1].Propose([]byte("a")))
		l.settle(1)
		if p := l.nodes[1].Status().Progress[1]; p.Next != i+3 || p.Match != 1 {
			t.Errorf("after %d proposals: %v", i+1, p)
		}
	}
	l.acknowledges(2, 3)
	l.acknowledges(2, 2) // late: it takes nothing back
	if p := l.nodes[1].Status().Progress[1]; p.Next != 5 || p.Match != 3 {
		t.Errorf("after an acknowledgement of 3: %v", p)
	}
}

// 5.3, end: a refusal may name the follower's term at the conflict, and the leader passes
// over all of that term: one probe a conflicting term, not one an entry.
func TestPaper53ARefusalPassesOverAWholeTerm(t *testing.T) {
	own := []uint64{1, 1, 1, 4, 4, 5, 5, 6, 6, 6}
	for _, test := range []struct {
		follower []uint64
		refusals int
	}{
		{own, 0},
		{[]uint64{1, 1, 1, 4, 4, 5, 5, 6, 6}, 1},
		{[]uint64{1, 1, 1, 4}, 1},
		{append(slices.Clone(own), 6, 6, 6), 0},
		{[]uint64{1, 1, 1, 4, 4, 4, 4}, 1},
		{[]uint64{1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3}, 1},
		{[]uint64{1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2}, 1},
	} {
		l := newScene(t, map[uint64][]uint64{1: own, 2: test.follower, 3: own})
		must(t, l.nodes[1].Campaign())
		l.stabilize(1, 3)
		refusals := 0
		for range 30 {
			l.deliver(func(m Message) bool { return m.To == 2 })
			l.settle(2)
			for _, m := range l.wire {
				if m.Reject && m.Type == MsgAppResp {
					refusals++
				}
			}
			l.deliver(func(m Message) bool { return m.To == 1 })
			l.settle(1)
		}
		if refusals != test.refusals || l.terms(2) != l.terms(1) {
			t.Errorf("%v: %d refusals, then %q", test.follower, refusals, l.terms(2))
		}
	}
}

// 5.4.2, and figure 8: counting copies commits only entries of the leader's own term. Entry
// 2, of term 2, is on three nodes of five and not committed by that; with an entry of the
// leader's own term after it, it is.
func TestPaper542CopiesOfAnEarlierTermsEntryCommitNothing(t *testing.T) {
	for _, own := range []bool{false, true} {
		l := alone(t, 5, []uint64{1, 2}, HardState{Term: 3, Commit: 1})
		l.leads()
		index := uint64(2)
		if own {
			index = 3
		}
		l.acknowledges(2, index)
		l.acknowledges(3, index)
		want := uint64(1)
		if own {
			want = 3
		}
		l.expectCommit(1, want)
	}
}

// 5.4.2: entries of earlier leaders keep their terms when a later leader sends them.
func TestPaper542EntriesKeepTheirTerms(t *testing.T) {
	l := newScene(t, map[uint64][]uint64{1: {1, 2, 2, 5}, 2: nil, 3: {1}})
	l.elect(1)
	for _, id := range l.ids {
		if l.terms(id) != "1 2 2 5 6" {
			t.Errorf("node %d has %q", id, l.terms(id))
		}
	}
}

// 5.4.3, and State Machine Safety in figure 3: once a node has applied an entry, no node ever
// applies another one there. TestRaftKeepsItsPromisesInRandomWorlds holds it in general;
// here a leader that is cut off keeps entries that were never committed, and loses them.
func TestPaper543NobodyAppliesAnotherEntryAtTheSameIndex(t *testing.T) {
	l := newLab(t, 3)
	l.elect(1)
	must(t, l.nodes[1].Propose([]byte("lost")))
	l.settle(1)
	l.cut(1)
	must(t, l.nodes[2].Campaign())
	l.stabilize(2, 3)
	must(t, l.nodes[2].Propose([]byte("kept")))
	l.stabilize(2, 3)
	l.cut(1)
	if len(l.nodes[1].data) != 0 || l.terms(1) != "1 1" {
		t.Errorf("cut off, node 1 applied %q, its log is %q", l.nodes[1].data, l.terms(1))
	}
	l.tick(2, 1)
	l.stabilize()
	for _, id := range l.ids {
		if !slices.Equal(l.nodes[id].data, []string{"kept"}) {
			t.Errorf("node %d applied %q", id, l.nodes[id].data)
		}
	}
}
