package replica

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"capsize/raftnode/kv"
	"capsize/raftnode/raft"
)

// alone returns a replica that is the only member of its cluster, and leads it.
func alone(t *testing.T, config Config) *bench {
	t.Helper()
	config.ID, config.Members = 1, []Member{{ID: 1, Name: "n1", Address: "here:1"}}
	config.Incarnation, config.ElectionTick, config.HeartbeatTick = 1, electionTick, 1
	config.Storage, config.Trace = raft.NewMemoryStorage(), true
	r, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, Replica: r}
	for b.Status().Role != raft.Leader {
		b.ticks(1)
	}
	return b
}

func (b *bench) fill(n int) {
	b.t.Helper()
	for i := range n {
		b.ask(Request{ID: uint64(1000 + i), Command: kv.Command{Op: kv.Put, Key: fmt.Sprint(i), Value: "v"}, Ticks: 100})
	}
	b.replies = nil
}

func names(list []MemberStatus) (names []string) {
	for _, m := range list {
		kind := ""
		if !m.Voter {
			kind = " learner"
		}
		names = append(names, fmt.Sprintf("%d %s%s", m.ID, m.Name, kind))
	}
	return names
}

func change(id uint64, changes ...Change) Request {
	return Request{ID: id, Kind: Reconfigure, Changes: changes, Ticks: 50}
}

func TestTheLeaderGivesNewMembersTheirIDsAndNoneTwice(t *testing.T) {
	b := alone(t, Config{})
	b.ask(change(1, Change{Op: AddLearner, Name: "n2", Address: "there:2"}))
	b.wantReplies(Reply{ID: 1, Outcome: Done})
	b.ask(change(2, Change{Op: Remove, Name: "n2"}))
	b.wantReplies(Reply{ID: 2, Outcome: Done})
	b.ask(change(3, Change{Op: AddLearner, Name: "n2", Address: "there:3"}, Change{Op: AddLearner, Name: "n3", Address: "there:4"}))
	b.wantReplies(Reply{ID: 3, Outcome: Done})
	if got, want := names(b.Members()), []string{"1 n1", "3 n2 learner", "4 n3 learner"}; !slices.Equal(got, want) {
		t.Errorf("members %v, want %v", got, want)
	}
	b.ask(change(4, Change{Op: Update, Name: "n2", Address: "elsewhere:9"}))
	b.wantReplies(Reply{ID: 4, Outcome: Done})
	if got := b.state.members.named("n2"); got.Address != "elsewhere:9" || got.ID != 3 {
		t.Errorf("after the update: %+v", got)
	}
	b.ask(change(5, Change{Op: Remove, Name: "n2"}, Change{Op: AddLearner, Name: "n2", Address: "fresh:1"}))
	b.wantReplies(Reply{ID: 5, Outcome: Done})
	if got, want := names(b.Members()), []string{"1 n1", "4 n3 learner", "5 n2 learner"}; !slices.Equal(got, want) {
		t.Errorf("members %v after one was replaced, want %v", got, want)
	}
}

func TestChangesOfMembershipThatCannotBeMadeAreRefused(t *testing.T) {
	b := alone(t, Config{})
	b.ask(change(1, Change{Op: AddLearner, Name: "n2", Address: "there:2"}))
	b.fill(promotable + 1)
	for i, c := range []struct {
		changes []Change
		err     error
		want    string
	}{
		{nil, ErrInvalid, "no changes"},
		{[]Change{{Op: AddVoter, Name: "n1", Address: "a:1"}}, ErrInvalid, "n1 is a member already"},
		{[]Change{{Op: Promote, Name: "n7"}}, ErrInvalid, "n7 is no member"},
		{[]Change{{Op: AddVoter, Name: "n3", Address: "a:1"}, {Op: AddVoter, Name: "n3", Address: "a:1"}}, ErrInvalid, "two members are named n3"},
		{[]Change{{Op: Remove, Name: "n2"}, {Op: Promote, Name: "n2"}}, ErrInvalid, "n2 is no member"},
		{[]Change{{Op: AddLearner, Name: "n2", Address: "a:1"}, {Op: Remove, Name: "n2"}}, ErrInvalid, "n2 is a member already"},
		{[]Change{{Op: Remove, Name: "n1"}}, ErrConfChange, "no voter would be left"},
		{[]Change{{Op: Promote, Name: "n2"}}, ErrNotCaughtUp, "n2 has entries up to 0"},
		{[]Change{{Op: AddVoter, Name: strings.Repeat("n", MaxNameBytes+1)}}, ErrInvalid, "1 to 63"},
		{[]Change{{Op: AddVoter, Name: "n3", Address: strings.Repeat("a", MaxAddressBytes+1)}}, ErrInvalid, "at most 255"},
	} {
		b.ask(change(uint64(i), c.changes...))
		if len(b.replies) != 1 || b.replies[0].Outcome != Refused || !errors.Is(b.replies[0].Err, c.err) || !strings.Contains(b.replies[0].Err.Error(), c.want) {
			t.Errorf("%+v: %+v, want %q", c.changes, b.replies, c.want)
		}
		b.replies = nil
	}
	follower := newBench(t, 1)
	follower.follow(2, 5)
	follower.ask(change(1, Change{Op: Remove, Name: "n2"}))
	follower.wantReplies(Reply{ID: 1, Outcome: Refused, Err: ErrNotLeader})
}

// Nobody answers for the new voter: the change is not committed, and the next one must wait.
func TestOneChangeOfMembershipIsUnderWayAtATime(t *testing.T) {
	b := alone(t, Config{})
	b.ask(change(1, Change{Op: AddVoter, Name: "n2", Address: "there:2"}))
	b.wantReplies(Reply{ID: 1, Outcome: Done})
	b.ask(change(2, Change{Op: AddLearner, Name: "n3", Address: "there:3"}))
	b.wantReplies() // two of two voters are needed now
	b.ask(change(3, Change{Op: AddLearner, Name: "n4", Address: "there:4"}))
	b.wantReplies(Reply{ID: 3, Outcome: Refused, Err: ErrConfChange})
	b.ticks(50)
	b.wantReplies(Reply{ID: 2, Outcome: Unknown, Err: ErrTimeout})
}

// An entry that an older leader appended may be refused by all who apply it: a node that was
// removed and has lost its data must not come back under its old ID.
func TestAMemberThatWasRemovedIsNotBroughtBackByALateEntry(t *testing.T) {
	now := Members{List: []Member{{ID: 1, Name: "n1"}, {ID: 4, Name: "n4"}}, Last: 4}
	for _, c := range []struct {
		kind raft.ConfChangeType
		id   uint64
		told []Member
		want string // names, or an error
	}{
		{raft.ConfChangeAddNode, 5, []Member{{ID: 5, Name: "n5"}}, "n1 n4 n5"},
		{raft.ConfChangeAddNode, 2, []Member{{ID: 2, Name: "n2"}}, "cannot become one again"},
		{raft.ConfChangeAddLearnerNode, 5, nil, "cannot become one again"},
		{raft.ConfChangeUpdateNode, 5, []Member{{ID: 5, Name: "n5"}}, "cannot become one again"},
		{raft.ConfChangeAddNode, 5, []Member{{ID: 5, Name: "n4"}}, "two members are named n4"},
		{raft.ConfChangeRemoveNode, 4, nil, "n1"},
		{raft.ConfChangeRemoveNode, 2, nil, "node 2 is no member"},
		{raft.ConfChangeAddNode, 4, nil, "n1 n4"}, // a promotion
	} {
		next, err := now.next(raft.ConfChangeV2{Changes: []raft.ConfChangeSingle{{Type: c.kind, NodeID: c.id}}}, c.told)
		var got []string
		for _, m := range next.List {
			got = append(got, m.Name)
		}
		if err != nil && !strings.Contains(err.Error(), c.want) || err == nil && strings.Join(got, " ") != c.want {
			t.Errorf("%v %d %v: %v, %v; want %s", c.kind, c.id, c.told, got, err, c.want)
		}
	}
	if len(now.List) != 2 || now.Last != 4 {
		t.Errorf("the members themselves were changed: %+v", now)
	}
}

func TestASnapshotIsTakenAfterSoManyEntriesOrBytesOrAtOnce(t *testing.T) {
	for what, config := range map[string]Config{
		"entries": {SnapshotEntries: 50, KeepEntries: 10},
		"bytes":   {SnapshotBytes: 1000, KeepEntries: 10},
	} {
		b := alone(t, config)
		b.fill(120)
		if s := b.Status(); s.Snapshot < 40 {
			t.Errorf("%s: the newest snapshot is at %d of %d", what, s.Snapshot, s.Applied)
		}
		if b.compacted != b.Status().Snapshot-10 {
			t.Errorf("%s: compacted up to %d, with a snapshot at %d", what, b.compacted, b.Status().Snapshot)
		}
	}
	b := alone(t, Config{KeepEntries: 1})
	b.fill(20)
	b.ask(Request{ID: 1, Kind: TakeSnapshot, Ticks: 10})
	b.wantReplies(Reply{ID: 1, Outcome: Done})
	if s := b.Status(); s.Snapshot != s.Applied || s.Snapshot == 0 {
		t.Errorf("%+v", s)
	}
	b.ask(Request{ID: 2, Kind: TakeSnapshot, Ticks: 10}) // nothing new
	b.wantReplies(Reply{ID: 2, Outcome: Done})
}

// While a snapshot is written out, the replica goes on.
func TestTheReplicaGoesOnWhileASnapshotIsSaved(t *testing.T) {
	b := alone(t, Config{SnapshotEntries: 10})
	b.slowSnapshots = true
	b.fill(100)
	if s := b.Status(); s.Applied < 100 || s.Snapshot != 0 || b.taken == nil {
		t.Fatalf("%+v", s)
	}
	index := b.taken.View.Applied()
	if index > 20 || index != b.taken.Metadata.Index {
		t.Errorf("the view moved on to %d", index)
	}
	b.SnapshotSaved()
	if s := b.Status(); s.Snapshot != index {
		t.Errorf("%+v", s)
	}
}

// received makes a snapshot that a leader in term 5 may send to node 1.
func received(t *testing.T, index uint64, conf raft.ConfState) (raft.Message, *kv.Store) {
	t.Helper()
	store := kv.New()
	for i := range index {
		store.Apply(i+1, kv.Command{Op: kv.Put, Key: "x", Value: fmt.Sprint(i + 1)}.Encode())
	}
	state := state{hash: 77, members: Members{List: []Member{{1, "n1", "a:1"}, {2, "n2", "a:2"}, {3, "n3", "a:3"}}, Last: 3}}
	return raft.Message{
		Type: raft.MsgSnap, From: 2, To: 1, Term: 5,
		Snapshot: &raft.Snapshot{Data: state.encode(), Metadata: raft.SnapshotMetadata{Index: index, Term: 4, ConfState: conf}},
	}, store
}

func TestAReceivedSnapshotReplacesStateMembersAndLog(t *testing.T) {
	b := newBench(t, 1)
	b.follow(2, 5)
	m, store := received(t, 40, raft.ConfState{Voters: []uint64{1, 2, 3}})
	b.ReceiveSnapshot(m, store)
	b.settle(false)
	if b.Status().Applied != 0 || len(b.sent(raft.MsgAppResp)) != 0 || len(b.writes) != 1 || b.writes[0].Snapshot == nil {
		t.Fatalf("before it is durable: %+v, %d writes", b.Status(), len(b.writes))
	}
	b.settle(true)
	if s := b.Status(); s.Applied != 40 || s.Commit != 40 || s.Snapshot != 40 || b.Digest() != store.Digest() {
		t.Errorf("after it is durable: %+v", s)
	}
	if acks := b.sent(raft.MsgAppResp); len(acks) != 1 || acks[0].Index != 40 {
		t.Errorf("acknowledged %+v", acks)
	}
	if got, want := names(b.Members()), []string{"1 n1", "2 n2", "3 n3"}; !slices.Equal(got, want) || b.state.hash != 77 {
		t.Errorf("members %v, hash %d", got, b.state.hash)
	}
	b.hear(raft.Message{Type: raft.MsgApp, From: 2, Term: 5, Index: 40, LogTerm: 4, Entries: []raft.Entry{{Term: 5, Index: 41}}, Commit: 41})
	if s := b.Status(); s.Applied != 41 {
		t.Errorf("it does not go on: %+v", s)
	}
}

// The second is of an older term: the core takes the first, with the first one's content.
func TestTwoSnapshotsThatArriveTogetherAreNotMistakenForEachOther(t *testing.T) {
	b := newBench(t, 1)
	b.follow(2, 5)
	first, store := received(t, 40, raft.ConfState{Voters: []uint64{1, 2, 3}})
	late, other := received(t, 50, raft.ConfState{Voters: []uint64{1, 2, 3}})
	late.Term = 4
	b.ReceiveSnapshot(first, store)
	b.ReceiveSnapshot(late, other)
	b.settle(true)
	if s := b.Status(); s.Applied != 40 || b.Digest() != store.Digest() {
		t.Errorf("%+v", s)
	}
}

func TestASnapshotThatDoesNotFitIsIgnored(t *testing.T) {
	all := raft.ConfState{Voters: []uint64{1, 2, 3}}
	for what, spoil := range map[string]func(*raft.Message, **kv.Store){
		"content of another index":   func(_ *raft.Message, s **kv.Store) { *s = kv.New() },
		"data that is none":          func(m *raft.Message, _ **kv.Store) { m.Snapshot.Data = []byte("?") },
		"for another node":           func(m *raft.Message, _ **kv.Store) { m.To = 2 },
		"no snapshot":                func(m *raft.Message, _ **kv.Store) { m.Snapshot = nil },
		"an older term":              func(m *raft.Message, _ **kv.Store) { m.Term = 4 },
		"a configuration without us": func(m *raft.Message, _ **kv.Store) { m.Snapshot.Metadata.ConfState.Voters = []uint64{2, 3} },
	} {
		b := newBench(t, 1)
		b.follow(2, 5)
		m, store := received(t, 40, all)
		spoil(&m, &store)
		b.ReceiveSnapshot(m, store)
		b.settle(true)
		if s := b.Status(); s.Applied != 0 || s.Snapshot != 0 {
			t.Errorf("%s: %+v", what, s)
		}
	}
	b := newBench(t, 1)
	b.follow(2, 5)
	m, _ := received(t, 40, all)
	b.hear(m) // without its content
	if s := b.Status(); s.Applied != 0 || s.Term != 5 {
		t.Errorf("a snapshot came as a message: %+v", s)
	}
}

// A node refuses a configuration without itself: what it gets must be newer than its
// membership.
func TestANewMemberIsSentASnapshotThatKnowsIt(t *testing.T) {
	b := alone(t, Config{SnapshotEntries: 1000, KeepEntries: 1})
	b.fill(20)
	b.ask(Request{ID: 1, Kind: TakeSnapshot, Ticks: 10})
	b.ask(change(2, Change{Op: AddLearner, Name: "n2", Address: "there:2"}))
	b.replies, b.sends = nil, nil
	for range 5 * electionTick {
		b.ticks(1)
		b.hear(raft.Message{Type: raft.MsgHeartbeatResp, From: 2, Term: b.Status().Term})
		b.hear(raft.Message{Type: raft.MsgAppResp, From: 2, Term: b.Status().Term, Index: 22, Reject: true})
		if len(b.sends) > 0 {
			break
		}
	}
	if len(b.sends) == 0 {
		t.Fatal("no snapshot is sent")
	}
	if conf := b.sends[0].Snapshot.Metadata.ConfState; !slices.Contains(conf.Learners, 2) {
		t.Errorf("sent a snapshot of %+v to node 2", conf)
	}
}

func TestATransferIsAnsweredWhenTheOtherLeads(t *testing.T) {
	b := newBench(t, 1)
	b.state.members = Members{List: []Member{{1, "n1", "a:1"}, {2, "n2", "a:2"}, {3, "n3", "a:3"}}, Last: 3}
	b.state.conf = raft.ConfState{Voters: []uint64{1, 2}, Learners: []uint64{3}}
	b.ask(Request{ID: 1, Kind: Transfer, To: "n2", Ticks: 5})
	b.wantReplies(Reply{ID: 1, Outcome: Refused, Err: ErrNoLeader})
	b.follow(3, 5)
	b.ask(Request{ID: 2, Kind: Transfer, To: "n2", Ticks: 5})
	if asked := b.sent(raft.MsgTransferLeader); len(asked) != 1 || asked[0].To != 3 || asked[0].From != 2 {
		t.Errorf("asked %+v", asked)
	}
	b.wantReplies()
	b.follow(2, 6)
	b.wantReplies(Reply{ID: 2, Outcome: Done})
	b.ask(Request{ID: 3, Kind: Transfer, To: "n2", Ticks: 5})
	b.wantReplies(Reply{ID: 3, Outcome: Done}) // it leads already
	b.ask(Request{ID: 4, Kind: Transfer, To: "n3", Ticks: 5})
	b.wantReplies(Reply{ID: 4, Outcome: Refused, Err: ErrInvalid}) // a learner
	b.ask(Request{ID: 5, Kind: Transfer, To: "n1", Ticks: 5})
	b.ticks(5)
	b.wantReplies(Reply{ID: 5, Outcome: Unknown, Err: ErrTimeout})
}

func FuzzDecodeContext(f *testing.F) {
	f.Add(encodeContext(tag{1, 2, 3}, []Member{{1, "n1", "host:1"}, {2, "n2", ""}}))
	f.Add(encodeContext(tag{}, nil))
	f.Add([]byte{1, 1, 1, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, data []byte) {
		tag, told, err := decodeContext(data)
		if err != nil {
			return
		}
		again, toldAgain, err := decodeContext(encodeContext(tag, told))
		if err != nil || again != tag || !reflect.DeepEqual(told, toldAgain) {
			t.Fatalf("%+v %+v became %+v %+v, %v", tag, told, again, toldAgain, err)
		}
	})
}

func FuzzDecodeState(f *testing.F) {
	full := state{hash: 7, members: Members{List: []Member{{1, "n1", "host:1"}}, Last: 3}}
	f.Add(full.encode())
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeState(&raft.Snapshot{Data: data})
		if err != nil {
			return
		}
		again, err := decodeState(&raft.Snapshot{Data: s.encode()})
		if err != nil || !reflect.DeepEqual(s, again) || len(data) < len(bytes.TrimRight(s.encode(), "\x00")) {
			t.Fatalf("%+v became %+v, %v", s, again, err)
		}
	})
}
