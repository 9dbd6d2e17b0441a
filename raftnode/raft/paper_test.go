package raft

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// The Raft paper (Ongaro and Ousterhout, extended version, 2014), sentence by sentence:
// each rule of its sections 5 to 8 that a node can keep or break has a test here, named
// after the section, so that
//
//	go test -run TestPaper54 ./raftnode/raft
//
// tries all of 5.4. Where this core does otherwise on purpose, the test holds it to what it
// promises instead, and says so. What section 8 asks of the state machine and of clients is
// tested where they are: docs/raft-rows.md says by which tests.
//
// This file has 5.1, 5.5 and 5.6: terms, crashes and time.

// alone makes node 1 of a cluster of that size. Its log has entries of these terms; the
// other nodes are played by the test.
func alone(t *testing.T, size int, terms []uint64, hard HardState, change ...func(*nodeConfig)) *lab {
	l := &lab{t: t, nodes: make(map[uint64]*labNode)}
	var voters []uint64
	for id := range uint64(size) {
		voters = append(voters, id+1)
	}
	l.add(labConfig(1, voters, change...), terms, hard)
	return l
}

// campaigns makes node 1 a candidate whose requests nobody has received.
func (l *lab) campaigns() {
	l.t.Helper()
	must(l.t, l.nodes[1].Campaign())
	l.settle(1)
	l.wire = nil
}

// leads makes node 1 the leader, by everybody's vote. What it sends first is lost.
func (l *lab) leads() {
	l.t.Helper()
	l.campaigns()
	term := l.nodes[1].Status().Term
	for _, id := range l.nodes[1].raft.members.Voters.Voters() {
		if id != 1 {
			l.answers(Message{Type: MsgVoteResp, From: id, To: 1, Term: term})
		}
	}
	l.expectState(Leader, term, 1)
}

// cut loses what is on the wire from and to a node.
func (l *lab) cut(id uint64) {
	l.drop(func(m Message) bool { return m.From == id || m.To == id })
}

func describeAll(messages []Message) []string {
	all := make([]string, len(messages))
	for i, m := range messages {
		all[i] = describe(m)
	}
	return all
}

func (l *lab) expectSent(sent []Message, want ...string) {
	l.t.Helper()
	if got := describeAll(sent); !slices.Equal(got, want) {
		l.t.Errorf("sent %q, not %q", got, want)
	}
}

// 5.1: followers are passive. They issue no requests, they only answer.
func TestPaper51FollowersIssueNoRequests(t *testing.T) {
	l := single(t, []uint64{1, 1}, HardState{Term: 1})
	l.nodes[1].raft.electionTimeout = 15
	l.tick(1, 14)
	l.settle(1)
	l.expectSent(l.wire)
	l.tick(1, 1) // now it is a candidate
	l.settle(1)
	if len(l.wire) != 2 {
		t.Errorf("a candidate sent %q", describeAll(l.wire))
	}
}

// 5.1: a client that asks a follower gets to the leader. In the paper the follower names
// the leader; here it passes the request on, and names the leader to whoever asks.
func TestPaper51AFollowerLeadsRequestsToTheLeader(t *testing.T) {
	l := newLab(t, 3)
	l.elect(2)
	must(t, l.nodes[1].Propose([]byte("a")))
	l.stabilize()
	for _, id := range l.ids {
		if got := l.nodes[id].data; !slices.Equal(got, []string{"a"}) {
			t.Errorf("node %d applied %q", id, got)
		}
	}
	if lead := l.nodes[1].Status().Lead; lead != 2 {
		t.Errorf("the follower names %d as leader", lead)
	}
}

// 5.1, and Election Safety in figure 3: a term has one leader at most, in whatever order
// the requests of two candidates arrive.
func TestPaper51ATermHasOneLeaderAtMost(t *testing.T) {
	winners := make(map[string]int)
	for _, order := range permutations(4) {
		l := newLab(t, 3)
		for _, id := range []uint64{1, 2} {
			must(t, l.nodes[id].Campaign())
			l.settle(id)
		}
		requests := l.wire
		l.wire = nil
		for _, i := range order {
			l.step(requests[i])
			l.settle(requests[i].To)
		}
		l.stabilize()
		var leaders []uint64
		for _, id := range l.ids {
			if s := l.nodes[id].Status(); s.RaftState == Leader && s.Term == 1 {
				leaders = append(leaders, id)
			}
		}
		winners[fmt.Sprint(leaders)]++
	}
	if len(winners) != 2 || winners["[1]"] != 12 || winners["[2]"] != 12 {
		t.Errorf("who won, in 24 orders: %v", winners)
	}
}

// permutations returns all orders of the first n numbers.
func permutations(n int) [][]int {
	if n == 0 {
		return [][]int{nil}
	}
	var all [][]int
	for _, shorter := range permutations(n - 1) {
		for at := range n {
			all = append(all, slices.Insert(slices.Clone(shorter), at, n-1))
		}
	}
	return all
}

// 5.1: a split vote leaves a term without a leader; a new term, with a new election, begins
// shortly.
func TestPaper51ASplitVoteEndsATermWithoutALeader(t *testing.T) {
	l := newLab(t, 4)
	for _, id := range []uint64{1, 2} {
		must(t, l.nodes[id].Campaign())
		l.settle(id)
	}
	// 3 hears of 1 first and 4 of 2: two votes for each.
	l.deliver(func(m Message) bool { return m.To == 3 && m.From == 1 || m.To == 4 && m.From == 2 })
	l.stabilize()
	for _, id := range l.ids {
		if s := l.nodes[id].Status(); s.RaftState == Leader || s.Term != 1 {
			t.Errorf("node %d is %v in term %d", id, s.RaftState, s.Term)
		}
	}
	l.tick(1, l.nodes[1].raft.electionTimeout)
	l.stabilize()
	l.expectState(Leader, 2, 1)
}

// 5.1: the current term increases monotonically, whatever arrives and across crashes.
func TestPaper51TheTermNeverFalls(t *testing.T) {
	l := single(t, nil, HardState{})
	high := uint64(0)
	for i, m := range []Message{
		{Type: MsgHeartbeat, Term: 3}, {Type: MsgVote, Term: 2}, {Type: MsgApp, Term: 7}, {Type: MsgHeartbeat, Term: 6},
		{Type: MsgVoteResp, Term: 7}, {Type: MsgVote, Term: 8}, {Type: MsgSnap, Term: 5, Snapshot: &Snapshot{Metadata: SnapshotMetadata{Index: 1, Term: 1}}},
		{Type: MsgPreVote, Term: 4}, {Type: MsgAppResp, Term: 9},
	} {
		m.From, m.To = 2, 1
		l.answers(m)
		l.start(1)
		if high = max(high, m.Term); l.nodes[1].Status().Term != high {
			t.Errorf("message %d: term %d, not %d", i, l.nodes[1].Status().Term, high)
		}
	}
}

// 5.1: terms are exchanged whenever nodes communicate. Every message of a node bears its
// term; requests that are passed on for clients belong to none.
func TestPaper51EveryMessageBearsItsSendersTerm(t *testing.T) {
	l := newLab(t, 3)
	seen := make(map[MessageType]bool)
	must(t, l.nodes[1].Campaign())
	for round := range 12 {
		for _, id := range l.ids {
			l.settle(id)
		}
		for _, m := range l.wire {
			seen[m.Type] = true
			if term := l.nodes[m.From].Status().Term; m.Term != term {
				t.Errorf("%s comes from term %d", describe(m), term)
			}
		}
		l.deliver(everything)
		if round == 6 {
			must(t, l.nodes[1].Propose([]byte("a")))
			l.tick(1, 1)
		}
	}
	for _, kind := range []MessageType{MsgVote, MsgVoteResp, MsgApp, MsgAppResp, MsgHeartbeat, MsgHeartbeatResp} {
		if !seen[kind] {
			t.Errorf("no %v was sent", kind)
		}
	}
}

// 5.1, and figure 2, Rules for All Servers: a node that sees a larger term takes it over; a
// candidate or leader is follower from then on. Who leads that term it knows only from the
// leader's own messages.
func TestPaper51ALargerTermMakesAnyNodeFollower(t *testing.T) {
	roles := map[Role]func(*lab){
		Follower:     func(*lab) {},
		PreCandidate: func(l *lab) { l.nodes[1].raft.config.PreVote = true; l.campaigns() },
		Candidate:    (*lab).campaigns,
		Leader:       (*lab).leads,
	}
	leader := map[MessageType]uint64{MsgApp: 2, MsgHeartbeat: 2, MsgSnap: 2}
	for role, become := range roles {
		for _, kind := range []MessageType{
			MsgApp, MsgAppResp, MsgHeartbeat, MsgHeartbeatResp, MsgVote, MsgVoteResp, MsgSnap, MsgPreVoteResp, MsgReadIndexResp,
		} {
			t.Run(fmt.Sprintf("%v hears %v", role, kind), func(t *testing.T) {
				l := single(t, []uint64{1}, HardState{Term: 1})
				become(l)
				if got := l.nodes[1].Status().RaftState; got != role {
					t.Fatalf("the node is %v", got)
				}
				m := Message{Type: kind, From: 2, To: 1, Term: 9, Reject: kind == MsgPreVoteResp}
				switch kind {
				case MsgSnap:
					m.Snapshot = &Snapshot{Metadata: SnapshotMetadata{Index: 5, Term: 2, ConfState: ConfState{Voters: []uint64{1, 2, 3}}}}
				case MsgReadIndexResp:
					m.Entries = []Entry{{Data: []byte("nobody's")}}
				}
				l.answers(m)
				l.expectState(Follower, 9, leader[kind])
			})
		}
	}
}

// 5.1: a request of an earlier term is rejected. Mostly that is silence here; where silence
// would leave somebody stuck there is an answer, which
// TestALowerTermIsAnsweredOnlyWhereSilenceWouldBlock holds. Either way it changes nothing.
func TestPaper51ARequestOfAnEarlierTermChangesNothing(t *testing.T) {
	for _, m := range []Message{
		{Type: MsgApp, Index: 2, LogTerm: 1, Entries: []Entry{{Index: 3, Term: 2}}, Commit: 3},
		{Type: MsgApp, Index: 1, LogTerm: 1, Entries: []Entry{{Index: 2, Term: 2}}},
		{Type: MsgHeartbeat, Commit: 2},
		{Type: MsgVote, Index: 9, LogTerm: 2},
		{Type: MsgTimeoutNow},
		{Type: MsgSnap, Snapshot: &Snapshot{Metadata: SnapshotMetadata{Index: 9, Term: 2, ConfState: ConfState{Voters: []uint64{1, 2, 3}}}}},
	} {
		t.Run(m.Type.String(), func(t *testing.T) {
			// The term makes all the difference: in the node's own, each of them does something.
			for _, term := range []uint64{2, 3} {
				l := single(t, []uint64{1, 1}, HardState{Term: 3, Commit: 1})
				l.tick(1, 4)
				state := func() string {
					r := l.nodes[1].raft
					return fmt.Sprint(r.hardState(), r.softState(), r.electionElapsed, l.terms(1))
				}
				before := state()
				m.From, m.To, m.Term = 2, 1, term
				l.answers(m)
				if changed := state() != before; changed != (term == 3) {
					t.Errorf("in term %d: from %s to %s", term, before, state())
				}
			}
		})
	}
}

// 5.1: requests go out to all at once, and again if there is no answer in time. Here the
// answer to a heartbeat is what has lost entries sent again, and lost requests for votes are
// not: the next election asks anew.
func TestPaper51RequestsGoOutInParallelAndLostOnesAgain(t *testing.T) {
	l := newLab(t, 3)
	must(t, l.nodes[1].Campaign())
	l.settle(1)
	l.expectSent(l.wire, "1->2 MsgVote term 1 log ends at 0/0", "1->3 MsgVote term 1 log ends at 0/0")
	l.drop(everything)
	l.tick(1, l.nodes[1].raft.electionTimeout)
	l.settle(1)
	l.expectSent(l.wire, "1->2 MsgVote term 2 log ends at 0/0", "1->3 MsgVote term 2 log ends at 0/0")
	l.stabilize()

	must(t, l.nodes[1].Propose([]byte("a")))
	l.settle(1)
	l.expectSent(l.wire, `1->2 MsgApp term 2 after 1/2 [2/2 "a"] commit 1`, `1->3 MsgApp term 2 after 1/2 [2/2 "a"] commit 1`)
	l.drop(everything)
	l.tick(1, 1)
	l.stabilize()
	for _, id := range l.ids {
		if !slices.Equal(l.nodes[id].data, []string{"a"}) {
			t.Errorf("node %d applied %q", id, l.nodes[id].data)
		}
	}
}

// 5.5: a leader goes on sending to a follower that has crashed, for as long as that takes;
// when the follower restarts, it gets everything.
func TestPaper55ACrashedFollowerCatchesUpWhenItRestarts(t *testing.T) {
	l := newLab(t, 3)
	l.elect(1)
	for i := range 30 {
		must(t, l.nodes[1].Propose(fmt.Append(nil, i)))
		l.tick(1, 1)
		l.stabilize(1, 2)
		l.cut(3)
	}
	l.start(3)
	l.tick(1, 1)
	l.stabilize()
	if l.terms(3) != l.terms(1) || !slices.Equal(l.nodes[3].data, l.nodes[1].data) {
		t.Errorf("node 3 applied %q", l.nodes[3].data)
	}
}

// 5.5: a node that crashes after it has done what a request asks, and before it answers,
// gets the request again. That does no harm: requests are idempotent.
func TestPaper55RepeatedRequestsDoNoHarm(t *testing.T) {
	for _, test := range []struct {
		m      Message
		answer string
	}{
		{Message{Type: MsgApp, Index: 1, LogTerm: 1, Entries: []Entry{{Index: 2, Term: 2}, {Index: 3, Term: 2}}, Commit: 1}, "1->2 MsgAppResp term 2 holds 3"},
		{Message{Type: MsgVote, Index: 1, LogTerm: 1}, "1->2 MsgVoteResp term 2 granted"},
		{Message{Type: MsgHeartbeat, Commit: 1}, "1->2 MsgHeartbeatResp term 2"},
	} {
		l := single(t, []uint64{1}, HardState{Term: 2})
		test.m.From, test.m.To, test.m.Term = 2, 1, 2
		l.expectSent(l.answers(test.m), test.answer)
		log, hard := l.terms(1), l.nodes[1].raft.hardState()
		l.start(1)
		l.expectSent(l.answers(test.m), test.answer)
		if now := l.nodes[1].raft.hardState(); l.terms(1) != log || now != hard {
			t.Errorf("%v: the second time made %v of %v, log %q of %q", test.m.Type, now, hard, l.terms(1), log)
		}
	}
}

// Figure 2, State: term, vote and log are on stable storage before a request is answered.
// A crash at any moment before takes the answer back together with what it rests on.
func TestPaper55NothingIsAnsweredBeforeItIsDurable(t *testing.T) {
	for _, test := range []struct {
		m    Message
		hard HardState
		log  string
	}{
		{Message{Type: MsgVote, Term: 5, Index: 1, LogTerm: 1}, HardState{Term: 5, Vote: 2}, "1"},
		{Message{Type: MsgVote, Term: 5}, HardState{Term: 5}, "1"}, // refused: the term counts all the same
		{Message{Type: MsgApp, Term: 5, Index: 1, LogTerm: 1, Entries: []Entry{{Index: 2, Term: 5}}}, HardState{Term: 5}, "1 5"},
	} {
		l := single(t, []uint64{1}, HardState{Term: 1})
		test.m.From, test.m.To = 2, 1
		must(t, l.nodes[1].Step(test.m))
		l.ready(1)
		l.expectSent(l.wire)
		l.persist(1)
		if len(l.wire) != 1 {
			t.Errorf("answered %q", describeAll(l.wire))
		}
		l.start(1)
		if got := l.nodes[1].raft.hardState(); got != test.hard || l.terms(1) != test.log {
			t.Errorf("%s: a restart gives %v and log %q", describe(test.m), got, l.terms(1))
		}
	}
}

// Figure 2, State: a node that restarts knows its term, its vote and its log; that it led,
// or whom it followed, it has forgotten. The commit index is volatile in the paper. Here
// what was stored of it comes back; if that is nothing, the leader tells it.
func TestPaper55ARestartKeepsTermVoteAndLogOnly(t *testing.T) {
	l := newLab(t, 3)
	l.elect(1)
	must(t, l.nodes[1].Propose([]byte("a")))
	l.stabilize()
	l.start(1)
	l.expectState(Follower, 1, None)
	if l.nodes[1].Status().Vote != 1 || l.terms(1) != "1 1" {
		t.Errorf("vote for %d, log %q", l.nodes[1].Status().Vote, l.terms(1))
	}

	l = single(t, []uint64{1, 1}, HardState{Term: 1})
	if commit := l.nodes[1].Status().Commit; commit != 0 {
		t.Errorf("nothing was stored, and %d is committed", commit)
	}
	l.answers(Message{Type: MsgHeartbeat, From: 2, To: 1, Term: 1, Commit: 2})
	if commit := l.nodes[1].Status().Commit; commit != 2 {
		t.Errorf("the leader told 2, and %d is committed", commit)
	}
}

// 5.6: safety does not depend on timing. Clocks that run at any rates, against messages
// that take any time, make no second leader in a term and no two opinions of an entry.
func TestPaper56SafetyDoesNotDependOnTiming(t *testing.T) {
	terms, applied := 0, 0
	for seed := range uint64(4) {
		random := rand.New(rand.NewPCG(seed, 56))
		l := newLab(t, 3)
		leaders := make(map[uint64]uint64)
		deaf := uint64(1)
		for round := range 100 {
			for _, id := range l.ids {
				l.tick(id, random.IntN(9))
				l.settle(id)
				s := l.nodes[id].Status()
				if s.RaftState != Leader {
					continue
				}
				if other, ok := leaders[s.Term]; ok && other != id {
					t.Fatalf("%d and %d lead term %d", other, id, s.Term)
				}
				leaders[s.Term] = id
				must(t, l.nodes[id].Propose(fmt.Append(nil, round)))
			}
			if round%8 == 0 {
				deaf = random.Uint64N(4)
			}
			l.deliver(func(m Message) bool { return m.To != deaf && m.From != deaf && random.IntN(2) == 0 })
		}
		longest := slices.MaxFunc([][]string{l.nodes[1].data, l.nodes[2].data, l.nodes[3].data}, func(a, b []string) int { return len(a) - len(b) })
		terms, applied = terms+len(leaders), applied+len(longest)
		for _, id := range l.ids {
			if data := l.nodes[id].data; !slices.Equal(data, longest[:len(data)]) {
				t.Errorf("applied %q and %q", data, longest)
			}
		}
	}
	if terms < 6 || applied < 30 {
		t.Errorf("%d terms with a leader, %d entries applied: too few to prove anything", terms, applied)
	}
}

// 5.6: while messages take much less time than elections wait, a leader stays.
func TestPaper56ALeaderStaysWhileItsHeartbeatsArriveInTime(t *testing.T) {
	for _, delay := range []struct {
		rounds int
		stays  bool
	}{{1, true}, {5, true}, {40, false}} {
		l := newLab(t, 3)
		l.elect(1)
		for round := 1; round <= 120; round++ {
			for _, id := range l.ids {
				l.tick(id, 1)
				l.settle(id)
			}
			if round%delay.rounds == 0 {
				l.stabilize()
			}
		}
		if stays := l.nodes[1].Status().Term == 1; stays != delay.stays {
			t.Errorf("messages every %d ticks: the leader stays is %v", delay.rounds, stays)
		}
	}
}
