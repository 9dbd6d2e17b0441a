package replica

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"capsize/raftnode/kv"
	"capsize/raftnode/raft"
)

const electionTick = 10

// bench is one replica under test; the test plays its peers, 2 and 3, and its disk.
type bench struct {
	t *testing.T
	*Replica
	messages []raft.Message
	replies  []Reply
	writes   []Write
	sends    []raft.Message
	// taken is the last snapshot that was taken; slowSnapshots leaves it unsaved.
	taken         *Snapshot
	slowSnapshots bool
	compacted     uint64
}

func newBench(t *testing.T, incarnation uint64) *bench {
	t.Helper()
	storage := raft.NewMemoryStorage()
	storage.SetConfState(raft.ConfState{Voters: []uint64{1, 2, 3}})
	r, err := New(Config{
		ID: 1, Incarnation: incarnation, ElectionTick: electionTick, HeartbeatTick: 1, Storage: storage, Trace: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &bench{t: t, Replica: r}
}

// settle takes all output, and finishes all disk writes if the disk works.
func (b *bench) settle(diskWorks bool) {
	b.t.Helper()
	for b.HasOutput() || diskWorks && len(b.writes) > 0 {
		out := b.Output()
		b.messages = append(b.messages, out.Messages...)
		b.replies = append(b.replies, out.Replies...)
		b.writes = append(b.writes, out.Writes...)
		b.sends = append(b.sends, out.Sends...)
		b.compacted = max(b.compacted, out.Compact)
		if out.Take != nil {
			b.taken = out.Take
			if !b.slowSnapshots {
				b.SnapshotSaved()
			}
		}
		if diskWorks && len(b.writes) > 0 {
			number := b.writes[0].Number
			b.writes = b.writes[1:]
			b.Persisted(number)
		}
	}
	if err := b.Err(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) sent(kind raft.MessageType) (found []raft.Message) {
	for _, m := range b.messages {
		if m.Type == kind {
			found = append(found, m)
		}
	}
	return found
}

// hear delivers a message from a peer.
func (b *bench) hear(m raft.Message) {
	b.t.Helper()
	m.To = 1
	b.Receive(m)
	b.settle(true)
}

func (b *bench) follow(leader, term uint64) {
	b.t.Helper()
	b.hear(raft.Message{Type: raft.MsgHeartbeat, From: leader, Term: term})
	b.messages = nil
}

func (b *bench) ask(q Request) {
	b.t.Helper()
	b.Request(q)
	b.settle(true)
}

func (b *bench) ticks(n int) {
	b.t.Helper()
	for range n {
		b.Tick()
		b.settle(true)
	}
}

func (b *bench) wantReplies(want ...Reply) {
	b.t.Helper()
	if len(b.replies) != len(want) {
		b.t.Fatalf("got %+v, want %+v", b.replies, want)
	}
	for i, got := range b.replies {
		if !errors.Is(got.Err, want[i].Err) {
			b.t.Errorf("got %v, want %v", got.Err, want[i].Err)
		}
		if got.ID != want[i].ID || got.Outcome != want[i].Outcome || got.Result.Entry.Value != want[i].Result.Entry.Value {
			b.t.Errorf("got %+v, want %+v", got, want[i])
		}
	}
	b.replies = nil
}

// get reads x.
func get(id uint64, ticks int) Request {
	return Request{ID: id, Kind: Read, Command: kv.Command{Op: kv.Get, Key: "x"}, Ticks: ticks}
}

var put = Request{ID: 7, Command: kv.Command{Op: kv.Put, Key: "x", Value: "1", Session: "s", Sequence: 1}, Ticks: 1000}

func TestWithoutALeaderRequestsAreRefusedAtOnce(t *testing.T) {
	b := newBench(t, 1)
	b.ask(put)
	b.wantReplies(Reply{ID: 7, Outcome: Refused, Err: ErrNoLeader})
	b.ask(get(8, 5))
	b.wantReplies(Reply{ID: 8, Outcome: Refused, Err: ErrNoLeader})
	b.ask(Request{ID: 9, Kind: Read, Command: kv.Command{Op: kv.Get}, Ticks: 5})
	b.wantReplies(Reply{ID: 9, Outcome: Refused, Err: ErrInvalid})
}

func TestAForwardedChangeThatIsNotAppliedInTimeIsUnknown(t *testing.T) {
	b := newBench(t, 1)
	b.follow(2, 5)
	q := put
	q.Ticks = 3
	b.ask(q)
	b.ticks(2)
	b.wantReplies()
	b.ticks(1)
	b.wantReplies(Reply{ID: 7, Outcome: Unknown, Err: ErrTimeout})
	if got := len(b.sent(raft.MsgProp)); got != 1 {
		t.Errorf("it was forwarded %d times", got)
	}
}

func TestAnUnansweredReadIsAskedAgainAndThenRefused(t *testing.T) {
	b := newBench(t, 1)
	b.follow(2, 5)
	b.ask(get(1, electionTick+5))
	for range electionTick + 5 {
		b.ticks(1)
		b.hear(raft.Message{Type: raft.MsgHeartbeat, From: 2, Term: 5})
	}
	b.wantReplies(Reply{ID: 1, Outcome: Refused, Err: ErrTimeout})
	asked := b.sent(raft.MsgReadIndex)
	if len(asked) != 2 || bytes.Equal(asked[0].Entries[0].Data, asked[1].Entries[0].Data) {
		t.Errorf("asked the leader %d times: want twice, in rounds of different names", len(asked))
	}
}

func TestAChangeOfASessionIsProposedAgainAndAnotherIsNot(t *testing.T) {
	for _, c := range []struct {
		session  string
		sequence uint64
		want     int
	}{{"s", 1, 3}, {"", 0, 1}} {
		b := newBench(t, 1)
		b.follow(2, 5)
		q := put
		q.Command.Session, q.Command.Sequence = c.session, c.sequence
		b.ask(q)
		forwarded := len(b.sent(raft.MsgProp))
		b.follow(3, 6) // a new leader
		b.settle(true)
		b.Tick()
		b.settle(true)
		forwarded += len(b.sent(raft.MsgProp))
		b.messages = nil
		b.Receive(raft.Message{Type: raft.MsgHeartbeat, From: 2, To: 1, Term: 7})
		b.settle(true)
		forwarded += len(b.sent(raft.MsgProp))
		if c.session == "" && forwarded != 1 {
			t.Errorf("without a session it was proposed %d times", forwarded)
		}
		if c.session != "" && forwarded < 2 {
			t.Errorf("with a session it was proposed %d times", forwarded)
		}
	}
}

// Both proposals of one request are committed; each is applied, one takes effect, and
// there is one reply.
func TestARepeatedProposalIsRepliedToOnce(t *testing.T) {
	b := newBench(t, 1)
	b.follow(2, 5)
	b.ask(put)
	data := b.sent(raft.MsgProp)[0].Entries[0].Data
	entries := []raft.Entry{{Term: 5, Index: 1}, {Term: 5, Index: 2, Data: data}, {Term: 5, Index: 3, Data: data}}
	b.hear(raft.Message{Type: raft.MsgApp, From: 2, Term: 5, Entries: entries, Commit: 3})
	b.wantReplies(Reply{ID: 7, Outcome: Done})
	if s := b.Status(); s.Applied != 3 || s.Waiting != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestAProposalOfAnEarlierIncarnationIsNotTakenForOnesOwn(t *testing.T) {
	old := newBench(t, 1)
	old.follow(2, 5)
	old.ask(put)
	data := old.sent(raft.MsgProp)[0].Entries[0].Data

	b := newBench(t, 2)
	b.follow(2, 5)
	b.ask(Request{ID: 1, Command: kv.Command{Op: kv.Put, Key: "y"}, Ticks: 1000})
	b.hear(raft.Message{Type: raft.MsgApp, From: 2, Term: 5, Entries: []raft.Entry{{Term: 5, Index: 1, Data: data}}, Commit: 1})
	b.wantReplies()
}

func TestAReadIsServedWhenItsIndexIsApplied(t *testing.T) {
	b := newBench(t, 1)
	b.follow(2, 5)
	b.ask(get(1, 1000))
	round := b.sent(raft.MsgReadIndex)[0].Entries
	b.hear(raft.Message{Type: raft.MsgReadIndexResp, From: 2, Term: 5, Index: 1, Entries: round})
	b.wantReplies() // confirmed at 1, but nothing is applied
	command := kv.Command{Op: kv.Put, Key: "x", Value: "4"}
	data := append(tag{2, 1, 1}.appendTo(nil), command.Encode()...)
	b.hear(raft.Message{Type: raft.MsgApp, From: 2, Term: 5, Entries: []raft.Entry{{Term: 5, Index: 1, Data: data}}, Commit: 1})
	b.wantReplies(Reply{ID: 1, Outcome: Done, Result: kv.Result{Found: kv.Found{Entry: kv.Entry{Value: "4"}}}})
}

// The counter-example: a node asks, restarts, asks again in a round that has the same
// number, and the answer to the first question arrives, with an index of then.
func TestALateAnswerToAnEarlierIncarnationConfirmsNoRead(t *testing.T) {
	old := newBench(t, 1)
	old.follow(2, 5)
	old.ask(get(1, 1000))
	b := newBench(t, 2)
	b.follow(2, 5)
	b.ask(get(1, 1000))
	late := old.sent(raft.MsgReadIndex)[0].Entries
	b.hear(raft.Message{Type: raft.MsgReadIndexResp, From: 2, Term: 5, Index: 0, Entries: late})
	b.wantReplies()
	right := b.sent(raft.MsgReadIndex)[0].Entries
	b.hear(raft.Message{Type: raft.MsgReadIndexResp, From: 2, Term: 5, Index: 0, Entries: right})
	b.wantReplies(Reply{ID: 1, Outcome: Done})
}

func TestManyReadsShareFewRounds(t *testing.T) {
	b := newBench(t, 1)
	b.follow(2, 5)
	for i := range 500 {
		b.ask(get(uint64(i), 1000))
	}
	rounds := b.sent(raft.MsgReadIndex)
	if len(rounds) != maxRounds {
		t.Fatalf("%d rounds are on their way, want %d", len(rounds), maxRounds)
	}
	for _, m := range rounds {
		b.hear(raft.Message{Type: raft.MsgReadIndexResp, From: 2, Term: 5, Entries: m.Entries})
	}
	if len(b.replies) != maxRounds { // one read in each of the first rounds
		t.Errorf("%d reads were served", len(b.replies))
	}
	for _, m := range b.sent(raft.MsgReadIndex)[maxRounds:] {
		b.hear(raft.Message{Type: raft.MsgReadIndexResp, From: 2, Term: 5, Entries: m.Entries})
	}
	if len(b.replies) != 500 || len(b.sent(raft.MsgReadIndex)) != maxRounds+1 {
		t.Errorf("%d reads were served in %d rounds", len(b.replies), len(b.sent(raft.MsgReadIndex)))
	}
}

func TestRequestsBeyondTheBoundAreRefused(t *testing.T) {
	b := newBench(t, 1)
	b.follow(2, 5)
	for i := range MaxWaiting {
		q := get(uint64(i), 1000)
		if i%2 == 0 {
			q = Request{ID: uint64(i), Command: kv.Command{Op: kv.Put, Key: "x"}, Ticks: 1000}
		}
		b.Request(q)
	}
	b.settle(true)
	b.wantReplies()
	b.ask(get(1<<40, 1000))
	b.wantReplies(Reply{ID: 1 << 40, Outcome: Refused, Err: ErrOverloaded})
}

// campaign makes the replica ask for votes, up to the point where its disk must write.
func (b *bench) campaign() {
	b.t.Helper()
	for len(b.sent(raft.MsgPreVote)) == 0 {
		b.ticks(1)
	}
	m := b.sent(raft.MsgPreVote)[0]
	b.Receive(raft.Message{Type: raft.MsgPreVoteResp, From: m.To, To: 1, Term: m.Term})
	b.settle(false)
}

func TestARequestForAVoteWaitsForTheOwnVoteToBeDurable(t *testing.T) {
	b := newBench(t, 1)
	b.campaign()
	if len(b.writes) == 0 || len(b.sent(raft.MsgVote)) != 0 {
		t.Fatalf("%d writes, %d requests for votes before they are durable", len(b.writes), len(b.sent(raft.MsgVote)))
	}
	b.settle(true)
	if len(b.sent(raft.MsgVote)) != 2 {
		t.Errorf("%d requests for votes after the write, want 2", len(b.sent(raft.MsgVote)))
	}
}

func TestAnAcknowledgementWaitsForItsWrite(t *testing.T) {
	b := newBench(t, 1)
	b.Receive(raft.Message{Type: raft.MsgApp, From: 2, To: 1, Term: 5, Entries: []raft.Entry{{Term: 5, Index: 1}}})
	b.settle(false)
	if len(b.writes) != 1 || !b.writes[0].Sync || len(b.sent(raft.MsgAppResp)) != 0 {
		t.Fatalf("writes %+v, acknowledged %d times", b.writes, len(b.sent(raft.MsgAppResp)))
	}
	b.settle(true)
	if len(b.sent(raft.MsgAppResp)) != 1 {
		t.Error("not acknowledged after the write")
	}
}

func TestAfterAFailureNothingComesOut(t *testing.T) {
	b := newBench(t, 1)
	b.Persisted(5)
	if b.Err() == nil {
		t.Fatal("a write that was never asked for finishes without complaint")
	}
	b.Tick()
	b.Request(put)
	if out := b.Output(); b.HasOutput() || len(out.Replies)+len(out.Messages)+len(out.Writes) > 0 {
		t.Errorf("output %+v", out)
	}
}

func FuzzSplitTag(f *testing.F) {
	f.Add(append(tag{1, 2, 3}.appendTo(nil), "command"...))
	f.Add([]byte{})
	f.Add([]byte{0x80})
	f.Fuzz(func(t *testing.T, data []byte) {
		got, command := splitTag(data)
		if got == (tag{}) {
			return
		}
		if again, rest := splitTag(append(got.appendTo(nil), command...)); again != got || !bytes.Equal(rest, command) {
			t.Fatal(fmt.Sprint(got, again))
		}
	})
}
