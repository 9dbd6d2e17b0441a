package raft

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// Sections 5.2 (elections) and 5.4.1 (who may be elected) of the Raft paper.

// 5.2: nodes start up as followers, whatever they were before.
func TestPaper52NodesStartAsFollowers(t *testing.T) {
	for name, hard := range map[string]HardState{
		"new":                          {},
		"with a term":                  {Term: 4},
		"that had voted for itself":    {Term: 4, Vote: 1},
		"that had voted for another":   {Term: 4, Vote: 3},
		"that had committed something": {Term: 4, Vote: 1, Commit: 2},
	} {
		t.Run(name, func(t *testing.T) {
			l := single(t, []uint64{1, 4}, hard)
			l.settle(1)
			l.expectState(Follower, hard.Term, None)
			l.expectSent(l.wire)
		})
	}
}

// 5.2, and figure 2, Rules for Followers: valid requests of the current leader, and granting
// a vote, keep a follower from campaigning. Nothing else does: or a deposed leader, or a
// candidate that can never win, could hold up elections for ever.
func TestPaper52AFollowerStaysFollowerWhileItHearsFromALeaderOrGrantsItsVote(t *testing.T) {
	for _, test := range []struct {
		m     Message
		waits bool
	}{
		{Message{Type: MsgHeartbeat, Term: 2}, true},
		{Message{Type: MsgApp, Term: 2, Index: 2, LogTerm: 2}, true},
		{Message{Type: MsgApp, Term: 2, Index: 7, LogTerm: 2}, true}, // refused, and yet from the leader
		{Message{Type: MsgSnap, Term: 2, Snapshot: &Snapshot{Metadata: SnapshotMetadata{Index: 1, Term: 1}}}, true},
		{Message{Type: MsgVote, Term: 2, Index: 2, LogTerm: 2}, true},
		{Message{Type: MsgVote, Term: 2, Index: 1, LogTerm: 1}, false}, // refused: the log is behind
		{Message{Type: MsgHeartbeat, Term: 1}, false},
		{Message{Type: MsgApp, Term: 1}, false},
		{Message{Type: MsgPreVote, Term: 3, Index: 2, LogTerm: 2}, false},
		{Message{Type: MsgAppResp, Term: 2, Index: 2}, false},
		{Message{Type: MsgVoteResp, Term: 2}, false},
	} {
		t.Run(describeBare(test.m), func(t *testing.T) {
			l := single(t, []uint64{1, 2}, HardState{Term: 2})
			l.nodes[1].raft.electionTimeout = 12
			l.tick(1, 11)
			test.m.From, test.m.To = 2, 1
			l.answers(test.m)
			l.nodes[1].raft.electionTimeout = 12
			l.tick(1, 11)
			l.settle(1)
			if waits := l.nodes[1].Status().RaftState == Follower; waits != test.waits {
				t.Errorf("after 22 ticks with that in between it waits: %v", waits)
			}
		})
	}
}

// describeBare names a test by what matters of a message.
func describeBare(m Message) string {
	return fmt.Sprintf("%v term %d at %d of term %d", m.Type, m.Term, m.Index, m.LogTerm)
}

// 5.2: a leader sends heartbeats to all followers, periodically, even when it has nothing to
// say. The paper's heartbeat is an append without entries; here it is a message of its own.
func TestPaper52ALeaderSendsHeartbeatsToAllPeriodically(t *testing.T) {
	l := alone(t, 3, nil, HardState{}, func(c *nodeConfig) { c.HeartbeatTick = 3 })
	l.leads()
	for round := range 12 {
		l.wire = nil
		l.tick(1, 1)
		l.settle(1)
		var want []string
		if (round+1)%3 == 0 {
			want = []string{"1->2 MsgHeartbeat term 1 commit 0", "1->3 MsgHeartbeat term 1 commit 0"}
		}
		l.expectSent(l.wire, want...)
	}
}

// 5.2: a follower that hears nothing for an election time-out takes it that there is no
// leader, and begins an election.
func TestPaper52AFollowerThatHearsNothingCampaigns(t *testing.T) {
	for _, timeout := range []int{10, 15, 19} {
		l := single(t, nil, HardState{Term: 1})
		l.answers(Message{Type: MsgHeartbeat, From: 2, To: 1, Term: 1})
		l.nodes[1].raft.electionTimeout = timeout
		l.tick(1, timeout-1)
		l.expectState(Follower, 1, 2)
		l.tick(1, 1)
		l.expectState(Candidate, 2, None)
	}
}

// 5.2, and figure 2, Rules for Candidates: a candidate raises its term, votes for itself,
// starts its timer anew and asks all others. The request bears its term, its name and where
// its log ends (figure 2, RequestVote).
func TestPaper52ACandidateRaisesItsTermVotesForItselfAndAsksAllOthers(t *testing.T) {
	l := alone(t, 5, []uint64{1, 1, 4}, HardState{Term: 6, Vote: 3, Commit: 1})
	l.nodes[1].raft.electionTimeout = 11
	l.tick(1, 11)
	l.settle(1)
	l.expectState(Candidate, 7, None)
	if hard, _, _ := l.nodes[1].storage.InitialState(); hard.Vote != 1 || hard.Term != 7 {
		t.Errorf("%+v is durable", hard)
	}
	if elapsed := l.nodes[1].raft.electionElapsed; elapsed != 0 {
		t.Errorf("its timer is at %d", elapsed)
	}
	l.expectSent(l.wire,
		"1->2 MsgVote term 7 log ends at 3/4", "1->3 MsgVote term 7 log ends at 3/4",
		"1->4 MsgVote term 7 log ends at 3/4", "1->5 MsgVote term 7 log ends at 3/4")
}

// 5.2: the votes of a majority of the whole cluster win the election, those of the ones that
// answer do not. The term they were given in must be the candidate's.
func TestPaper52TheVotesOfAMajorityWin(t *testing.T) {
	for _, test := range []struct {
		size, grants, refusals int
		want                   Role
	}{
		{1, 0, 0, Leader},
		{2, 0, 0, Candidate}, {2, 1, 0, Leader}, {2, 0, 1, Follower},
		{3, 0, 0, Candidate}, {3, 1, 0, Leader}, {3, 0, 1, Candidate}, {3, 0, 2, Follower}, {3, 1, 1, Leader},
		{4, 1, 0, Candidate}, {4, 2, 0, Leader}, {4, 1, 2, Follower},
		{5, 1, 0, Candidate}, {5, 2, 0, Leader}, {5, 1, 2, Candidate}, {5, 1, 3, Follower}, {5, 2, 2, Leader},
		{7, 2, 3, Candidate}, {7, 3, 3, Leader}, {7, 2, 4, Follower},
	} {
		t.Run(fmt.Sprintf("%d nodes, %d grant, %d refuse", test.size, test.grants, test.refusals), func(t *testing.T) {
			l := alone(t, test.size, nil, HardState{Term: 1})
			l.campaigns()
			for i := range test.grants + test.refusals {
				from := uint64(i) + 2
				l.answers(Message{Type: MsgVoteResp, From: from, To: 1, Term: 1}) // of the term before
				l.answers(Message{Type: MsgVoteResp, From: from, To: 1, Term: 2, Reject: i >= test.grants})
			}
			leader := None
			if test.want == Leader {
				leader = 1
			}
			l.expectState(test.want, 2, leader)
		})
	}
}

// 5.2, and figure 2, RequestVote: a node votes for one candidate a term, the first that
// asks, and again for the same one.
func TestPaper52OneVoteATermForWhoAsksFirst(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		l := alone(t, 5, nil, HardState{})
		for _, ask := range []struct {
			from, term uint64
			want       string
		}{
			{3, 2, "1->3 MsgVoteResp term 2 granted"},
			{2, 2, "1->2 MsgVoteResp term 2 refused"},
			{3, 2, "1->3 MsgVoteResp term 2 granted"},
			{4, 3, "1->4 MsgVoteResp term 3 granted"}, // another term, another vote
			{3, 3, "1->3 MsgVoteResp term 3 refused"},
		} {
			l.expectSent(l.answers(Message{Type: MsgVote, From: ask.from, To: 1, Term: ask.term}), ask.want)
			if restarts {
				l.start(1)
			}
		}
	}
}

// 5.2: a candidate has voted, for itself.
func TestPaper52ACandidateHasNoVoteForAnother(t *testing.T) {
	l := single(t, nil, HardState{})
	l.campaigns()
	l.expectSent(l.answers(Message{Type: MsgVote, From: 2, To: 1, Term: 1}), "1->2 MsgVoteResp term 1 refused")
	l.expectState(Candidate, 1, None)
}

// 5.2, and figure 2, Rules for Leaders: who has won tells everybody at once, so that nobody
// else campaigns. The paper sends an empty append; here it is the append of the term's first
// entry.
func TestPaper52AWinnerTellsEverybodyAtOnce(t *testing.T) {
	l := alone(t, 4, []uint64{1}, HardState{Term: 1})
	l.campaigns()
	l.expectSent(l.answers(Message{Type: MsgVoteResp, From: 2, To: 1, Term: 2}))
	l.expectSent(l.answers(Message{Type: MsgVoteResp, From: 3, To: 1, Term: 2}),
		"1->2 MsgApp term 2 after 1/1 [2/2] commit 0", "1->3 MsgApp term 2 after 1/1 [2/2] commit 0", "1->4 MsgApp term 2 after 1/1 [2/2] commit 0")

	// 3 had lost patience, too.
	whole := newLab(t, 3)
	must(t, whole.nodes[3].Campaign())
	whole.settle(3)
	whole.drop(everything)
	whole.elect(1)
	if s := whole.nodes[3].Status(); s.RaftState != Follower || s.Lead != 1 {
		t.Errorf("node 3 is %v under %d", s.RaftState, s.Lead)
	}
}

// 5.2, and figure 2, Rules for Candidates: a candidate that hears from a leader of its term,
// or of a later one, follows it. It goes on where the term is an earlier one.
func TestPaper52ACandidateFollowsALeaderWhoseTermIsNotBehind(t *testing.T) {
	for _, pre := range []bool{false, true} {
		for _, kind := range []MessageType{MsgApp, MsgHeartbeat, MsgSnap} {
			for term := uint64(1); term <= 4; term++ {
				l := single(t, []uint64{1}, HardState{Term: 2}, func(c *nodeConfig) { c.PreVote = pre })
				l.campaigns()
				role, own := l.nodes[1].Status().RaftState, l.nodes[1].Status().Term
				l.answers(Message{Type: kind, From: 2, To: 1, Term: term, Snapshot: &Snapshot{Metadata: SnapshotMetadata{Index: 1, Term: 1}}})
				if term < own {
					l.expectState(role, own, None)
				} else {
					l.expectState(Follower, term, 2)
				}
			}
		}
	}
}

// 5.2: a candidate that neither wins nor loses raises its term again after a time-out, and
// asks again.
func TestPaper52ACandidateThatHearsNothingBeginsANewElection(t *testing.T) {
	l := single(t, nil, HardState{})
	l.campaigns()
	for term := uint64(1); term < 4; term++ {
		l.expectState(Candidate, term, None)
		l.tick(1, l.nodes[1].raft.electionTimeout-1)
		l.settle(1)
		l.expectSent(l.wire)
		l.tick(1, 1)
		l.settle(1)
		l.expectState(Candidate, term+1, None)
		if len(l.wire) != 2 || l.wire[0].Term != term+1 {
			t.Errorf("asked %q", describeAll(l.wire))
		}
		l.wire = nil
	}
}

// 5.2: time-outs are drawn from an interval, all of it, and each election draws anew.
func TestPaper52TimeoutsAreDrawnFromAWholeInterval(t *testing.T) {
	l := single(t, nil, HardState{})
	drawn := make(map[int]int)
	for range 1000 {
		must(t, l.nodes[1].Campaign())
		drawn[l.nodes[1].raft.electionTimeout]++
	}
	for timeout := 10; timeout < 20; timeout++ {
		if n := drawn[timeout]; n < 50 || n > 200 {
			t.Errorf("%d of 1000 time-outs are of %d ticks", n, timeout)
		}
	}
	if len(drawn) != 10 {
		t.Errorf("drew %v, not from 10 to 19", drawn)
	}
}

// 5.2: because time-outs are drawn, one node mostly loses patience before the others, and
// split votes are rare and soon over.
func TestPaper52SplitVotesAreRareAndSoonOver(t *testing.T) {
	const elections = 60
	ties := 0
	for seed := range uint64(elections) {
		random := rand.New(rand.NewPCG(seed, 52))
		l := newLab(t, 4, func(c *nodeConfig) { c.Seed = seed })
		leader := func() bool {
			return slices.ContainsFunc(l.ids, func(id uint64) bool { return l.nodes[id].Status().RaftState == Leader })
		}
		for range 60 {
			for _, id := range l.ids {
				l.tick(id, 1)
			}
			for _, id := range l.ids {
				l.settle(id)
			}
			random.Shuffle(len(l.wire), func(i, j int) { l.wire[i], l.wire[j] = l.wire[j], l.wire[i] })
			l.deliver(everything) // a message takes a tick
			if leader() {
				break
			}
		}
		if !leader() {
			t.Errorf("seed %d: nobody leads after 60 ticks", seed)
		}
		if l.nodes[1].Status().Term > 1 {
			ties++
		}
	}
	t.Logf("%d of %d elections were tied first", ties, elections)
	if ties > elections/3 {
		t.Errorf("%d of %d elections needed more than one term", ties, elections)
	}
}

// 5.4.1: a voter refuses a candidate whose log is less up to date than its own. Of two logs
// the one whose last entry has the later term is more up to date; of two that end in the
// same term, the longer one.
func TestPaper541AVoteNeedsALogThatIsAsUpToDate(t *testing.T) {
	for _, test := range []struct {
		own            []uint64
		index, logTerm uint64
		granted        bool
	}{
		{[]uint64{1}, 1, 1, true},
		{[]uint64{1}, 2, 1, true},
		{[]uint64{1, 1}, 1, 1, false},
		{[]uint64{1}, 1, 2, true},
		{[]uint64{1, 1, 1}, 1, 2, true}, // the term decides, the length does not
		{[]uint64{2}, 1, 1, false},
		{[]uint64{2}, 9, 1, false},
		{[]uint64{1, 2}, 2, 2, true},
		{nil, 0, 0, true},
		{[]uint64{1}, 0, 0, false},
	} {
		for _, kind := range []MessageType{MsgVote, MsgPreVote} {
			l := single(t, test.own, HardState{Term: 2})
			answers := l.answers(Message{Type: kind, From: 2, To: 1, Term: 3, Index: test.index, LogTerm: test.logTerm})
			if len(answers) != 1 || answers[0].Reject == test.granted {
				t.Errorf("%v with a log to %d/%d, the voter's is %v: answered %q", kind, test.index, test.logTerm, test.own, describeAll(answers))
			}
		}
	}
}

// 5.4.1, and Leader Completeness in figure 3: whoever wins holds every committed entry from
// the start. Of three nodes of which two hold an entry, the third cannot win, whoever votes.
func TestPaper541WhoWinsHoldsEverythingThatIsCommitted(t *testing.T) {
	for _, missing := range []uint64{2, 3} {
		for candidate := uint64(2); candidate <= 3; candidate++ {
			l := newLab(t, 3)
			l.elect(1)
			must(t, l.nodes[1].Propose([]byte("a")))
			l.stabilize(1, 5-missing)
			l.cut(missing)
			if commit := l.nodes[1].Status().Commit; commit != 2 {
				t.Fatalf("committed up to %d", commit)
			}
			must(t, l.nodes[candidate].Campaign())
			l.stabilize()
			if won := l.nodes[candidate].Status().RaftState == Leader; won != (candidate != missing) {
				t.Errorf("node %d, when %d lacks a committed entry: won is %v", candidate, missing, won)
			}
		}
	}
}

// 5.4: entries flow from leaders to followers only. A leader takes none from anybody.
func TestPaper54EntriesFlowFromLeadersToFollowersOnly(t *testing.T) {
	l := alone(t, 3, []uint64{1}, HardState{Term: 1})
	l.leads()
	before := l.terms(1)
	for _, m := range []Message{
		{Type: MsgApp, Term: 2, Index: 2, LogTerm: 2, Entries: []Entry{{Index: 3, Term: 2}}},
		{Type: MsgAppResp, Term: 2, Index: 9},
		{Type: MsgVote, Term: 2, Index: 9, LogTerm: 2},
		{Type: MsgVoteResp, Term: 2},
	} {
		m.From, m.To = 2, 1
		l.answers(m)
	}
	if l.terms(1) != before {
		t.Errorf("the log is %q, it was %q", l.terms(1), before)
	}
	l.expectState(Leader, 2, 1)
}
