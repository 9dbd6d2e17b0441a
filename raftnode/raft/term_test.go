package raft

import (
	"errors"
	"testing"
)

// single makes one node of three that is stepped by hand.
func single(t *testing.T, terms []uint64, hard HardState, change ...func(*nodeConfig)) *lab {
	l := &lab{t: t, nodes: make(map[uint64]*labNode)}
	l.add(labConfig(1, []uint64{1, 2, 3}, change...), terms, hard)
	return l
}

func checkQuorum(c *nodeConfig) { c.CheckQuorum = true }
func preVote(c *nodeConfig)     { c.PreVote = true }

// answers returns what the node says to a message, once everything is durable.
func (l *lab) answers(m Message) []Message {
	l.t.Helper()
	must(l.t, l.nodes[1].Step(m))
	l.settle(1)
	answers := l.wire
	l.wire = nil
	return answers
}

func (l *lab) expectState(role Role, term, leader uint64) {
	l.t.Helper()
	s := l.nodes[1].Status()
	if s.RaftState != role || s.Term != term || s.Lead != leader {
		l.t.Errorf("the node is %v in term %d under %d, not %v in %d under %d", s.RaftState, s.Term, s.Lead, role, term, leader)
	}
}

func TestAHigherTermIsFollowed(t *testing.T) {
	for _, test := range []struct {
		m      Message
		term   uint64
		leader uint64
	}{
		{Message{Type: MsgHeartbeat, Term: 5}, 5, 2},
		{Message{Type: MsgApp, Term: 5}, 5, 2},
		{Message{Type: MsgVote, Term: 5}, 5, None},
		{Message{Type: MsgAppResp, Term: 5}, 5, None},
		{Message{Type: MsgPreVoteResp, Term: 5, Reject: true}, 5, None},
		// These two speak of a term that nobody is in.
		{Message{Type: MsgPreVote, Term: 5}, 1, None},
		{Message{Type: MsgPreVoteResp, Term: 5}, 1, None},
	} {
		l := single(t, nil, HardState{Term: 1})
		test.m.From, test.m.To = 2, 1
		l.answers(test.m)
		l.expectState(Follower, test.term, test.leader)
	}
}

func TestALowerTermIsAnsweredOnlyWhereSilenceWouldBlock(t *testing.T) {
	for _, test := range []struct {
		name   string
		m      Message
		change func(*nodeConfig)
		want   string // the answer; "": none
	}{
		{"append", Message{Type: MsgApp}, func(*nodeConfig) {}, ""},
		{"heartbeat", Message{Type: MsgHeartbeat}, func(*nodeConfig) {}, ""},
		{"append with CheckQuorum", Message{Type: MsgApp}, checkQuorum, "1->2 MsgAppResp term 4 holds 0"},
		{"heartbeat with PreVote", Message{Type: MsgHeartbeat}, preVote, "1->2 MsgAppResp term 4 holds 0"},
		{"pre-vote", Message{Type: MsgPreVote, Index: 9, LogTerm: 3}, func(*nodeConfig) {}, "1->2 MsgPreVoteResp term 4 refused"},
		{"vote", Message{Type: MsgVote}, checkQuorum, ""},
		{"acknowledgement", Message{Type: MsgAppResp}, checkQuorum, ""},
		{"read index", Message{Type: MsgReadIndexResp, Entries: []Entry{{Data: []byte("12345678r")}}}, checkQuorum, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := single(t, nil, HardState{Term: 4}, test.change)
			test.m.From, test.m.To, test.m.Term = 2, 1, 3
			answers := l.answers(test.m)
			got := ""
			if len(answers) > 0 {
				got = describe(answers[0])
			}
			if got != test.want || len(answers) > 1 {
				t.Errorf("answered %q (%d messages), not %q", got, len(answers), test.want)
			}
			l.expectState(Follower, 4, None)
		})
	}
}

// The vote lease: the limit is ElectionTick, not the node's own drawn time-out.
func TestWhoHearsFromALeaderIgnoresCandidatesUnderCheckQuorum(t *testing.T) {
	for _, kind := range []MessageType{MsgVote, MsgPreVote} {
		for _, test := range []struct {
			ticks   int
			ignored bool
		}{{0, true}, {9, true}, {10, false}} {
			l := single(t, nil, HardState{Term: 1}, checkQuorum)
			l.answers(Message{Type: MsgHeartbeat, From: 2, To: 1, Term: 1})
			l.nodes[1].raft.electionTimeout = 19
			l.tick(1, test.ticks)
			answers := l.answers(Message{Type: kind, From: 3, To: 1, Term: 9, Index: 1, LogTerm: 1})
			if ignored := len(answers) == 0; ignored != test.ignored {
				t.Errorf("%v after %d ticks: ignored is %v", kind, test.ticks, ignored)
			}
		}
	}
}

func TestVotesFollowTheRule(t *testing.T) {
	for _, test := range []struct {
		name        string
		vote        uint64
		leader      bool // node 3 leads the term
		m           Message
		granted     bool
		restartsOwn bool // the vote makes the node wait for the winner
	}{
		{"free", None, false, Message{Type: MsgVote, Term: 2, Index: 2, LogTerm: 2}, true, true},
		{"the same again", 2, false, Message{Type: MsgVote, Term: 2, Index: 2, LogTerm: 2}, true, true},
		{"given to another", 3, false, Message{Type: MsgVote, Term: 2, Index: 2, LogTerm: 2}, false, false},
		{"the term has a leader", None, true, Message{Type: MsgVote, Term: 2, Index: 2, LogTerm: 2}, false, false},
		{"a shorter log", None, false, Message{Type: MsgVote, Term: 2, Index: 1, LogTerm: 2}, false, false},
		{"a longer log of a lower term", None, false, Message{Type: MsgVote, Term: 2, Index: 9, LogTerm: 1}, false, false},
		{"a shorter log of a higher term", None, false, Message{Type: MsgVote, Term: 4, Index: 1, LogTerm: 3}, true, true},
		{"a pre-vote, though the vote is given", 3, false, Message{Type: MsgPreVote, Term: 3, Index: 2, LogTerm: 2}, true, false},
		{"a pre-vote, though there is a leader", None, true, Message{Type: MsgPreVote, Term: 3, Index: 2, LogTerm: 2}, true, false},
		{"a pre-vote for a shorter log", None, false, Message{Type: MsgPreVote, Term: 3, Index: 1, LogTerm: 2}, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := single(t, []uint64{1, 2}, HardState{Term: 2, Vote: test.vote})
			if test.leader {
				l.answers(Message{Type: MsgHeartbeat, From: 3, To: 1, Term: 2})
			}
			l.nodes[1].raft.electionTimeout = 15
			l.tick(1, 3)
			test.m.From, test.m.To = 2, 1
			answers := l.answers(test.m)
			if len(answers) != 1 || answers[0].Reject == test.granted {
				t.Fatalf("answered %v", answers)
			}
			// Granted: the term asked for. Refused: the node's own, from which the asker learns.
			if want := test.m.Term; test.granted && answers[0].Term != want {
				t.Errorf("granted in term %d, not %d", answers[0].Term, want)
			}
			if own := l.nodes[1].Status().Term; !test.granted && answers[0].Term != own {
				t.Errorf("refused in term %d, not %d", answers[0].Term, own)
			}
			hard, _, _ := l.nodes[1].storage.InitialState()
			if isVote := test.m.Type == MsgVote; test.granted && isVote && hard.Vote != 2 {
				t.Error("the vote was granted and is not durable")
			}
			if elapsed := l.nodes[1].raft.electionElapsed; test.restartsOwn != (elapsed == 0) {
				t.Errorf("the node's own patience has %d ticks behind it", elapsed)
			}
		})
	}
}

func TestOnlyTheFirstAnswerOfEachVoterCounts(t *testing.T) {
	l := &lab{t: t, nodes: make(map[uint64]*labNode)}
	l.add(labConfig(1, []uint64{1, 2, 3, 4, 5}), nil, HardState{})
	must(t, l.nodes[1].Campaign())
	l.settle(1)
	for range 3 {
		l.answers(Message{Type: MsgVoteResp, From: 2, To: 1, Term: 1})
	}
	l.expectState(Candidate, 1, None)
	l.answers(Message{Type: MsgVoteResp, From: 3, To: 1, Term: 1, Reject: true})
	l.answers(Message{Type: MsgVoteResp, From: 3, To: 1, Term: 1})
	l.expectState(Candidate, 1, None)
	l.answers(Message{Type: MsgVoteResp, From: 4, To: 1, Term: 1})
	l.expectState(Leader, 1, 1)
}

func TestACandidateThatCannotWinGivesUp(t *testing.T) {
	l := single(t, nil, HardState{})
	must(t, l.nodes[1].Campaign())
	l.settle(1)
	l.answers(Message{Type: MsgVoteResp, From: 2, To: 1, Term: 1, Reject: true})
	l.expectState(Candidate, 1, None)
	l.answers(Message{Type: MsgVoteResp, From: 3, To: 1, Term: 1, Reject: true})
	l.expectState(Follower, 1, None)
}

func TestACandidateCountsOnlyAnswersToWhatItAsks(t *testing.T) {
	l := single(t, nil, HardState{}, preVote)
	must(t, l.nodes[1].Campaign())
	l.settle(1)
	l.expectState(PreCandidate, 0, None)
	l.answers(Message{Type: MsgPreVoteResp, From: 2, To: 1, Term: 1})
	l.expectState(Candidate, 1, None)
	// A late answer to the pre-vote is no vote.
	l.answers(Message{Type: MsgPreVoteResp, From: 3, To: 1, Term: 1})
	l.expectState(Candidate, 1, None)
}

// Its own vote is as much a vote as any other: it counts when it is durable.
func TestACandidateAsksAndCountsItselfOnlyWhenItsVoteIsDurable(t *testing.T) {
	l := newLab(t, 1)
	must(t, l.nodes[1].Campaign())
	l.ready(1)
	l.expectState(Candidate, 1, None)
	l.persist(1)
	l.expectState(Leader, 1, 1)

	l = single(t, nil, HardState{})
	must(t, l.nodes[1].Campaign())
	l.ready(1)
	if len(l.wire) != 0 {
		t.Errorf("asked before its vote was durable: %v", l.wire)
	}
	l.persist(1)
	if len(l.wire) != 2 {
		t.Errorf("asked %v", l.wire)
	}
}

func TestACandidateFollowsTheLeaderOfItsTerm(t *testing.T) {
	for _, change := range []func(*nodeConfig){preVote, func(*nodeConfig) {}} {
		for _, kind := range []MessageType{MsgApp, MsgHeartbeat} {
			l := single(t, nil, HardState{Term: 1}, change)
			must(t, l.nodes[1].Campaign())
			l.settle(1)
			if err := l.nodes[1].Propose([]byte("a")); !errors.Is(err, ErrProposalDropped) {
				t.Errorf("a candidate took a proposal: %v", err)
			}
			if err := l.nodes[1].ReadIndex([]byte("r")); !errors.Is(err, ErrReadDropped) {
				t.Errorf("a candidate took a read: %v", err)
			}
			term := l.nodes[1].Status().Term
			l.answers(Message{Type: kind, From: 2, To: 1, Term: term})
			l.expectState(Follower, term, 2)
		}
	}
}

func TestEachCampaignDrawsItsTimeoutAnew(t *testing.T) {
	for _, change := range []func(*nodeConfig){preVote, func(*nodeConfig) {}} {
		l := single(t, nil, HardState{}, change)
		drawn := make(map[int]bool)
		for range 40 {
			must(t, l.nodes[1].Campaign())
			drawn[l.nodes[1].raft.electionTimeout] = true
		}
		if len(drawn) < 8 {
			t.Errorf("40 campaigns drew only %d time-outs", len(drawn))
		}
	}
}

func TestANodeCampaignsWhenItsPatienceEnds(t *testing.T) {
	l := single(t, nil, HardState{})
	l.nodes[1].raft.electionTimeout = 13
	l.tick(1, 12)
	l.expectState(Follower, 0, None)
	l.tick(1, 1)
	l.expectState(Candidate, 1, None)
}

func TestAFollowerThatHearsFromItsLeaderDoesNotCampaign(t *testing.T) {
	for _, m := range []Message{
		{Type: MsgHeartbeat},
		{Type: MsgApp},
		{Type: MsgApp, Index: 7, LogTerm: 1}, // refused, but a sign of life
	} {
		l := single(t, nil, HardState{Term: 1})
		m.From, m.To, m.Term = 2, 1, 1
		l.answers(m)
		for range 5 {
			l.tick(1, 9)
			l.answers(m)
		}
		l.expectState(Follower, 1, 2)
	}
}

func TestMessagesThatNoCorrectNodeSendsAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		m    Message
		want error
	}{
		"a local event":              {Message{Type: MsgHup, From: 2, To: 1}, ErrStepLocalMsg},
		"a type that is none":        {Message{Type: 99, From: 2, To: 1, Term: 1}, ErrUnsupported},
		"no snapshot":                {Message{Type: MsgSnap, From: 2, To: 1, Term: 1}, ErrMalformed},
		"a snapshot of a later term": {Message{Type: MsgSnap, From: 2, To: 1, Term: 1, Snapshot: &Snapshot{Metadata: SnapshotMetadata{Index: 3, Term: 2}}}, ErrMalformed},
		"an order to a thread":       {Message{Type: MsgStorageAppend, From: 2, To: 1}, ErrStepLocalMsg},
		"a thread's word":            {Message{Type: MsgStorageAppendResp, From: 2, To: 1}, ErrStepLocalMsg},
		"a thread that campaigns":    {Message{Type: MsgVote, From: LocalAppendThread, To: 1, Term: 1}, ErrStepLocalMsg},
		"a stranger's answer":        {Message{Type: MsgVoteResp, From: 7, To: 1, Term: 1}, ErrStepPeerNotFound},
		"nobody":                     {Message{Type: MsgVote, To: 1, Term: 1}, ErrMalformed},
		"itself":                     {Message{Type: MsgVote, From: 1, To: 1, Term: 1}, ErrMalformed},
		"for another":                {Message{Type: MsgVoteResp, From: 2, To: 3, Term: 1}, ErrMisdirected},
		"a vote in no term":          {Message{Type: MsgVote, From: 2, To: 1}, ErrMalformed},
		"the last term":              {Message{Type: MsgVote, From: 2, To: 1, Term: ^uint64(0)}, ErrMalformed},
		"a proposal in a term":       {Message{Type: MsgProp, From: 2, To: 1, Term: 1, Entries: []Entry{{}}}, ErrMalformed},
		"a proposal of nothing":      {Message{Type: MsgProp, From: 2, To: 1}, ErrMalformed},
		"a read without name":        {Message{Type: MsgReadIndex, From: 2, To: 1}, ErrMalformed},
		"an answer without name":     {Message{Type: MsgReadIndexResp, From: 2, To: 1, Term: 1}, ErrMalformed},
		"a gap before entries":       {Message{Type: MsgApp, From: 2, To: 1, Term: 1, Entries: []Entry{{Index: 2, Term: 1}}}, ErrMalformed},
		"a gap in entries":           {Message{Type: MsgApp, From: 2, To: 1, Term: 1, Entries: []Entry{{Index: 1, Term: 1}, {Index: 3, Term: 1}}}, ErrMalformed},
		"a term that falls":          {Message{Type: MsgApp, From: 2, To: 1, Term: 3, Entries: []Entry{{Index: 1, Term: 2}, {Index: 2, Term: 1}}}, ErrMalformed},
		"a term after the leader's":  {Message{Type: MsgApp, From: 2, To: 1, Term: 1, Entries: []Entry{{Index: 1, Term: 2}}}, ErrMalformed},
		"an entry of no term":        {Message{Type: MsgApp, From: 2, To: 1, Term: 1, Entries: []Entry{{Index: 1}}}, ErrMalformed},
		"an index without term":      {Message{Type: MsgApp, From: 2, To: 1, Term: 1, Index: 4}, ErrMalformed},
		"more entries than can be":   {Message{Type: MsgApp, From: 2, To: 1, Term: 1, Index: ^uint64(0), LogTerm: 1, Entries: []Entry{{Term: 1}}}, ErrMalformed},
		"what comes before is later": {Message{Type: MsgApp, From: 2, To: 1, Term: 1, Index: 1, LogTerm: 2}, ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			l := single(t, nil, HardState{})
			if err := l.nodes[1].Step(test.m); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if l.nodes[1].HasReady() {
				t.Error("it left a trace")
			}
		})
	}
}
