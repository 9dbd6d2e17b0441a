package raft

import (
	"testing"
)

func TestAReadyIsTakenOnReturn(t *testing.T) {
	l := newLab(t, 3)
	l.elect(1)
	n := l.nodes[1]
	must(t, n.Propose([]byte("a")))
	first := n.Ready()
	if n.HasReady() {
		t.Error("what was handed out is handed out again")
	}
	must(t, n.Propose([]byte("b")))
	second := n.Ready() // the first write is still in flight
	if first.Write == 0 || second.Write != first.Write+1 || len(second.Entries) != 1 || string(second.Entries[0].Data) != "b" {
		t.Errorf("writes %d and %d, the second of %v", first.Write, second.Write, second.Entries)
	}
	if n.Persisted(second.Write) == nil {
		t.Error("the second write finished before the first")
	}
	must(t, n.storage.Append(first.Entries))
	must(t, n.Persisted(first.Write))
	if match := n.Status().Progress[0].Match; match != first.Entries[0].Index {
		t.Errorf("the leader holds %d durably, not %d", match, first.Entries[0].Index)
	}
	if n.Persisted(first.Write) == nil {
		t.Error("the first write finished twice")
	}
}

func TestAnAnswerWithNothingToWriteWaitsForTheWritesBeforeIt(t *testing.T) {
	l := single(t, nil, HardState{Term: 1})
	n := l.nodes[1]
	must(t, n.Step(Message{Type: MsgApp, From: 2, To: 1, Term: 1, Entries: []Entry{{Index: 1, Term: 1}}}))
	first := n.Ready()
	must(t, n.Step(Message{Type: MsgApp, From: 2, To: 1, Term: 1, Index: 1, LogTerm: 1}))
	second := n.Ready()
	if second.Write != first.Write+1 || len(second.AfterPersist) != 1 || len(second.Messages) != 0 || second.MustSync {
		t.Errorf("got %+v", second)
	}
}

func TestOnlyEntriesTermAndVoteMustBeSynced(t *testing.T) {
	l := single(t, []uint64{1}, HardState{Term: 1})
	n := l.nodes[1]
	for _, test := range []struct {
		m    Message
		sync bool
	}{
		{Message{Type: MsgVote, From: 2, Term: 1, Index: 1, LogTerm: 1}, true},
		{Message{Type: MsgApp, From: 2, Term: 1, Index: 1, LogTerm: 1, Entries: []Entry{{Index: 2, Term: 1}}}, true},
		{Message{Type: MsgApp, From: 2, Term: 1, Index: 1, LogTerm: 1, Commit: 1}, false},
		{Message{Type: MsgHeartbeat, From: 2, Term: 2}, true},
	} {
		test.m.To = 1
		must(t, n.Step(test.m))
		if rd := n.Ready(); rd.Write == 0 || rd.MustSync != test.sync {
			t.Errorf("%s: write %d, sync %v", describe(test.m), rd.Write, rd.MustSync)
		}
	}
}

// What must wait for the disk, and what need not (the leader's entries do not).
func TestWhatWaitsForTheDisk(t *testing.T) {
	l := newLab(t, 3, preVote)
	l.elect(1)
	must(t, l.nodes[1].Propose([]byte("a")))
	rd := l.nodes[1].Ready()
	if len(rd.Messages) != 2 || rd.Messages[0].Type != MsgApp {
		t.Errorf("a leader's entries wait: %+v", rd)
	}
	for _, test := range []struct {
		m     Message
		waits bool
	}{
		{Message{Type: MsgApp, From: 1, Term: 1, Index: 1, LogTerm: 1}, true},
		{Message{Type: MsgApp, From: 1, Term: 1, Index: 7, LogTerm: 1}, true}, // refused
		{Message{Type: MsgHeartbeat, From: 1, Term: 1}, false},
		{Message{Type: MsgPreVote, From: 3, Term: 2, Index: 1, LogTerm: 1}, true},
		{Message{Type: MsgVote, From: 3, Term: 2, Index: 1, LogTerm: 1}, true},
		{Message{Type: MsgVote, From: 1, Term: 2, Index: 1, LogTerm: 1}, true}, // refused
	} {
		test.m.To = 2
		must(t, l.nodes[2].Step(test.m))
		rd := l.nodes[2].Ready()
		if waits := len(rd.AfterPersist) == 1; len(rd.Messages)+len(rd.AfterPersist) != 1 || waits != test.waits || waits && rd.Write == 0 {
			t.Errorf("the answer to %s: %+v", describe(test.m), rd)
		}
	}
}

func TestAMessageIsPassedOnInTheNameOfWhoSentIt(t *testing.T) {
	l := single(t, nil, HardState{Term: 1})
	l.answers(Message{Type: MsgHeartbeat, From: 2, To: 1, Term: 1})
	for _, kind := range []MessageType{MsgProp, MsgReadIndex} {
		answers := l.answers(Message{Type: kind, From: 3, To: 1, Entries: []Entry{{Data: []byte("x")}}})
		if len(answers) != 1 || answers[0].From != 3 || answers[0].To != 2 || answers[0].Term != 0 || string(answers[0].Entries[0].Data) != "x" {
			t.Errorf("passed on as %v", answers)
		}
	}
}

func TestARestartedNodeDoesNotApplyAgain(t *testing.T) {
	l := newLab(t, 1)
	l.elect(1)
	must(t, l.nodes[1].Propose([]byte("a")))
	l.settle(1)
	l.start(1)
	l.elect(1)
	if got := l.nodes[1].data; len(got) != 1 {
		t.Errorf("applied %q", got)
	}
}

func TestNamesAreReadable(t *testing.T) {
	for got, want := range map[string]string{
		Follower.String(): "follower", PreCandidate.String(): "precandidate", Candidate.String(): "candidate", Leader.String(): "leader",
		Role(9).String():       "Role(9)",
		EventCommit.String():   "commit",
		EventKind(99).String(): "EventKind(99)",
		StateProbe.String():    "probe", StateReplicate.String(): "replicate", ProgressState(9).String(): "ProgressState(9)",
		MsgPreVoteResp.String(): "MsgPreVoteResp", MessageType(-1).String(): "MessageType(-1)",
	} {
		if got != want {
			t.Errorf("%q is not %q", got, want)
		}
	}
}
