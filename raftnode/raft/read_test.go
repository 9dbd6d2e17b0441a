package raft

import (
	"errors"
	"fmt"
	"testing"
)

func TestASingleVoterAnswersReadsAtOnce(t *testing.T) {
	l := newLab(t, 1)
	l.elect(1)
	must(t, l.nodes[1].ReadIndex([]byte("r")))
	l.settle(1)
	reads := l.nodes[1].reads
	if len(reads) != 1 || reads[0].Index != 1 || string(reads[0].RequestCtx) != "r" {
		t.Errorf("got %v", reads)
	}
}

func TestALeaderRefusesReadsBeyondItsBound(t *testing.T) {
	for name, ready := range map[string]bool{"its term has a commit": true, "its term has none yet": false} {
		t.Run(name, func(t *testing.T) {
			l := single(t, nil, HardState{})
			must(t, l.nodes[1].Campaign())
			l.settle(1)
			must(t, l.nodes[1].Step(Message{Type: MsgVoteResp, From: 2, To: 1, Term: 1}))
			l.settle(1)
			if ready {
				must(t, l.nodes[1].Step(Message{Type: MsgAppResp, From: 2, To: 1, Term: 1, Index: 1}))
			}
			for i := range maxWaitingReads {
				must(t, l.nodes[1].ReadIndex(fmt.Append(nil, i)))
			}
			if err := l.nodes[1].ReadIndex([]byte("one more")); !errors.Is(err, ErrReadDropped) {
				t.Errorf("got %v", err)
			}
			if open := len(l.nodes[1].raft.asked.open); open != maxWaitingReads {
				t.Errorf("%d reads are open: the refused one stayed", open)
			}
		})
	}
}

func TestAFollowerForgetsTheOldestOfItsOwnReadsBeyondTheBound(t *testing.T) {
	var q askedReads
	first := q.ask([]byte("first"))
	var last []byte
	for i := range maxAskedReads {
		last = q.ask(fmt.Append(nil, i))
		q.forgetOldest()
	}
	if len(q.open) != maxAskedReads {
		t.Errorf("%d are open", len(q.open))
	}
	if _, open := q.take(first); open {
		t.Error("the oldest is still there")
	}
	if _, open := q.take(last); !open {
		t.Error("the newest is gone")
	}
}

func TestAReadIsAnsweredOnceAndOnlyByItsOwnName(t *testing.T) {
	var q askedReads
	a := q.ask([]byte("a"))
	b := q.ask([]byte("b"))
	wrong := append([]byte(nil), a...)
	wrong[8] = 'x' // the number of an earlier life of the node, with another context
	for _, name := range [][]byte{wrong, nil, []byte("short"), append(b, 'b')} {
		if _, open := q.take(name); open {
			t.Errorf("%q was taken for an answer", name)
		}
	}
	if context, open := q.take(a); !open || string(context) != "a" {
		t.Errorf("got %q, %v", context, open)
	}
	if _, open := q.take(a); open {
		t.Error("the same answer counted twice")
	}
	again := q.ask([]byte("b"))
	if _, open := q.take(b); open {
		t.Error("the answer to an earlier read was taken for the later one's")
	}
	if _, open := q.take(again); !open {
		t.Error("the later read has no answer")
	}
}

// Each round is confirmed by voters that answered it or a later one: not by one voter's
// answers to several, and not by answers to what was never asked.
func TestARoundNeedsAQuorumOfVoters(t *testing.T) {
	l := newLab(t, 5)
	l.elect(1)
	n := l.nodes[1]
	must(t, n.ReadIndex([]byte("r1")))
	must(t, n.ReadIndex([]byte("r2")))
	answer := func(from uint64, round byte) {
		t.Helper()
		must(t, n.Step(Message{Type: MsgHeartbeatResp, From: from, To: 1, Term: 1, Context: []byte{0, 0, 0, 0, 0, 0, 0, round}}))
		l.settle(1)
	}
	answer(2, 1)
	answer(2, 2)
	answer(2, 2)
	answer(3, 9)
	if len(n.reads) != 0 {
		t.Fatalf("two of five confirmed %v", n.reads)
	}
	answer(3, 1)
	if len(n.reads) != 1 || string(n.reads[0].RequestCtx) != "r1" {
		t.Fatalf("round 1 has a quorum, served %v", n.reads)
	}
	answer(2, 1) // late, and says nothing against its later answer
	answer(4, 2)
	if len(n.reads) != 2 || string(n.reads[1].RequestCtx) != "r2" {
		t.Fatalf("round 2 has a quorum, served %v", n.reads)
	}
	if n.raft.reads.context() != nil {
		t.Error("heartbeats still bear a round")
	}
}

func TestStepDownClearsReads(t *testing.T) {
	l := newLab(t, 3)
	l.elect(1)
	n := l.nodes[1]
	must(t, n.ReadIndex([]byte("r")))
	must(t, n.Step(Message{Type: MsgHeartbeat, From: 2, To: 1, Term: 9}))
	if r := n.raft; len(r.reads.waiting)+len(r.reads.early)+len(r.asked.open) != 0 || r.reads.last != 0 {
		t.Errorf("left over: %+v, %+v", r.reads, r.asked)
	}
	if n.raft.asked.last == 0 {
		t.Error("numbers of reads begin anew: an old answer could be taken for a new read's")
	}
}
