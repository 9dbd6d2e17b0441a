package raft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

const patience = 20 * time.Second

func nodeContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// hall is a cluster of Nodes, each with a goroutine that carries out its Readys, and
// channels between them. A message that finds no room is lost.
type hall struct {
	t       *testing.T
	async   bool
	nodes   map[uint64]Node
	inboxes map[uint64]chan Message
	mu      sync.Mutex
	applied map[uint64][]string
	more    *sync.Cond
	reads   chan ReadState
	running sync.WaitGroup
	done    chan struct{}
}

func newHall(t *testing.T, async bool, size uint64) *hall {
	h := &hall{
		t: t, async: async, nodes: make(map[uint64]Node), inboxes: make(map[uint64]chan Message), applied: make(map[uint64][]string),
		reads: make(chan ReadState, 16), done: make(chan struct{}),
	}
	h.more = sync.NewCond(&h.mu)
	var peers []Peer
	for id := uint64(1); id <= size; id++ {
		peers = append(peers, Peer{ID: id})
		h.inboxes[id] = make(chan Message, 1024)
	}
	for id := uint64(1); id <= size; id++ {
		storage := NewMemoryStorage()
		node, err := StartNode(hallConfig(id, storage, async), peers)
		must(t, err)
		h.nodes[id] = node
		h.running.Go(func() { h.drive(id, node, storage) })
	}
	t.Cleanup(h.close)
	return h
}

func hallConfig(id uint64, storage Storage, async bool) Config {
	return Config{
		ID: id, Storage: storage, ElectionTick: 10, HeartbeatTick: 1, MaxSizePerMsg: NoLimit, MaxInflightMsgs: 64,
		AsyncStorageWrites: async, PreVote: true, CheckQuorum: true, StepDownOnRemoval: true,
	}
}

func (h *hall) close() {
	close(h.done)
	for _, node := range h.nodes {
		node.Stop()
	}
	h.running.Wait()
}

func (h *hall) drive(id uint64, node Node, storage *MemoryStorage) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-h.done:
			return
		case <-ticker.C:
			node.Tick()
		case m := <-h.inboxes[id]:
			// A proposal that is passed on waits while no leader is known: not for long, or nothing
			// else would be taken in.
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
			_ = node.Step(ctx, m) // what is not taken is lost
			cancel()
		case rd := <-node.Ready():
			if rd.HardState != (HardState{}) {
				storage.SetHardState(rd.HardState)
			}
			if err := storage.Append(rd.Entries); err != nil {
				h.t.Error(err)
			}
			h.apply(id, node, rd.CommittedEntries)
			for _, read := range rd.ReadStates {
				h.reads <- read
			}
			for _, m := range rd.Messages {
				h.send(m)
			}
			if !h.async {
				node.Advance()
			}
		}
	}
}

func (h *hall) apply(id uint64, node Node, entries []Entry) {
	for _, e := range entries {
		if e.isConfChange() {
			change, err := DecodeConfChangeEntry(e)
			if err == nil {
				_, err = node.ApplyConfChange(change)
			}
			if err != nil && !errors.Is(err, ErrStopped) {
				h.t.Error(err)
			}
			continue
		}
		if len(e.Data) > 0 {
			h.mu.Lock()
			h.applied[id] = append(h.applied[id], string(e.Data))
			h.more.Broadcast()
			h.mu.Unlock()
		}
	}
}

// send delivers a message; one for a local thread is carried out by its responses.
func (h *hall) send(m Message) {
	if m.To >= LocalApplyThread {
		for _, response := range m.Responses {
			h.send(response)
		}
		return
	}
	select {
	case h.inboxes[m.To] <- m:
	default:
	}
}

// waitApplied waits until every one of these nodes has applied that many proposals, and
// returns those of the first.
func (h *hall) waitApplied(n int, ids ...uint64) []string {
	h.t.Helper()
	timeout := time.AfterFunc(patience, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.more.Broadcast()
	})
	defer timeout.Stop()
	deadline := time.Now().Add(patience)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		for len(h.applied[id]) < n {
			if time.Now().After(deadline) {
				h.t.Fatalf("node %d has applied %q", id, h.applied[id])
			}
			h.more.Wait()
		}
	}
	return h.applied[ids[0]][:n:n]
}

// leader waits for a node that leads.
func (h *hall) leader() uint64 {
	h.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for id, node := range h.nodes {
			if node.Status().RaftState == Leader {
				return id
			}
		}
	}
	h.t.Fatal("no node leads")
	return None
}

func TestThreeNodesAgreeOverChannels(t *testing.T) {
	for _, async := range []bool{false, true} {
		t.Run(fmt.Sprintf("async=%v", async), func(t *testing.T) {
			h := newHall(t, async, 3)
			ctx := nodeContext(t)
			h.leader()
			var proposers sync.WaitGroup
			for id, node := range h.nodes {
				proposers.Go(func() {
					for i := range 10 {
						if err := node.Propose(ctx, fmt.Appendf(nil, "%d.%d", id, i)); err != nil {
							t.Errorf("node %d: %v", id, err)
						}
					}
				})
			}
			proposers.Wait()
			first := h.waitApplied(30, 1, 2, 3)
			for _, id := range []uint64{2, 3} {
				if got := h.waitApplied(30, id); fmt.Sprint(got) != fmt.Sprint(first) {
					t.Errorf("node %d applied %q, node 1 %q", id, got, first)
				}
			}
			must(t, h.nodes[2].ReadIndex(ctx, []byte("read")))
			select {
			case read := <-h.reads:
				if string(read.RequestCtx) != "read" || read.Index < 30 {
					t.Errorf("got %+v", read)
				}
			case <-ctx.Done():
				t.Error("the read got no answer")
			}
		})
	}
}

func TestANodeThatIsRemovedTakesNoProposals(t *testing.T) {
	h := newHall(t, false, 3)
	ctx := nodeContext(t)
	leader := h.leader()
	gone := leader%3 + 1
	// A leader tells a member nothing any more when its removal is in force. One that lags
	// by then never hears of it.
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		s := h.nodes[leader].Status()
		if i := slices.IndexFunc(s.Progress, func(p Progress) bool { return p.ID == gone }); i >= 0 && s.Progress[i].Match == s.LastIndex {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the node does not catch up")
		}
	}
	must(t, h.nodes[leader].ProposeConfChange(ctx, ConfChange{Type: ConfChangeRemoveNode, NodeID: gone}))
	for deadline := time.Now().Add(patience); h.nodes[gone].Status().Config.Contains(gone); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the node has not heard of its removal")
		}
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := h.nodes[gone].Propose(short, []byte("late")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	must(t, h.nodes[leader].Propose(ctx, []byte("x")))
	h.waitApplied(1, leader)
	other := 6 - leader - gone
	h.nodes[leader].TransferLeadership(ctx, leader, other)
	for deadline := time.Now().Add(patience); h.leader() != other; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("leadership was not handed over")
		}
	}
}

// lone is a node that nobody drives.
func lone(t *testing.T) Node {
	t.Helper()
	node, err := StartNode(hallConfig(1, NewMemoryStorage(), false), []Peer{{ID: 1}, {ID: 2}})
	must(t, err)
	t.Cleanup(node.Stop)
	return node
}

func TestProposeWaitsForALeaderAsLongAsItsContext(t *testing.T) {
	node := lone(t)
	ctx, cancel := context.WithTimeout(nodeContext(t), 30*time.Millisecond)
	defer cancel()
	if err := node.Propose(ctx, []byte("x")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	must(t, node.Step(nodeContext(t), Message{Type: MsgHeartbeat, From: 2, To: 1, Term: 2}))
	must(t, node.Propose(nodeContext(t), []byte("x"))) // passed on
}

func TestAReadyThatIsNotTakenGrows(t *testing.T) {
	storage := NewMemoryStorage()
	node, err := StartNode(hallConfig(1, storage, false), []Peer{{ID: 1}, {ID: 2}})
	must(t, err)
	t.Cleanup(node.Stop)
	ctx := nodeContext(t)
	first := <-node.Ready() // the members' entries, which are committed from the start
	must(t, storage.Append(first.Entries))
	node.Advance()
	for term := uint64(2); term < 5; term++ {
		must(t, node.Step(ctx, Message{Type: MsgVote, From: 2, To: 1, Term: term, Index: 9, LogTerm: 1}))
		node.Status() // the message has been taken by then
	}
	rd := <-node.Ready()
	if len(rd.Messages) != 3 || rd.HardState.Term != 4 || !rd.MustSync {
		t.Errorf("got %+v", rd)
	}
	select {
	case more := <-node.Ready():
		t.Errorf("another Ready before Advance: %+v", more)
	case <-time.After(20 * time.Millisecond):
	}
	node.Advance()
}

func TestTicksNeverWaitAndAreBounded(t *testing.T) {
	node := lone(t)
	node.Stop()
	for range 2 * maxQueuedTicks {
		node.Tick()
	}
}

func TestAStoppedNodeSaysSo(t *testing.T) {
	n := lone(t)
	n.Stop()
	n.Stop()
	ctx := nodeContext(t)
	_, changed := n.ApplyConfChange(ConfChange{})
	for what, err := range map[string]error{
		"propose": n.Propose(ctx, nil), "step": n.Step(ctx, Message{}), "campaign": n.Campaign(ctx), "read": n.ReadIndex(ctx, nil),
		"change": n.ProposeConfChange(ctx, ConfChange{}), "forget": n.ForgetLeader(ctx), "apply a change": changed, "err": n.Err(),
	} {
		if !errors.Is(err, ErrStopped) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	n.Advance()
	n.ReportUnreachable(2)
	n.ReportSnapshot(2, SnapshotFinish)
	n.TransferLeadership(ctx, 1, 2)
}

func TestANewClusterHasMembers(t *testing.T) {
	if _, err := StartNode(hallConfig(1, NewMemoryStorage(), false), nil); err == nil {
		t.Error("a node was started without peers")
	}
	storage := NewMemoryStorage()
	must(t, storage.Append([]Entry{{Index: 1, Term: 1}}))
	if _, err := StartNode(hallConfig(1, storage, false), []Peer{{ID: 1}}); err == nil {
		t.Error("a node that has a log was bootstrapped")
	}
	node, err := RestartNode(hallConfig(1, storage, false))
	must(t, err)
	node.Stop()
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

func TestReadysAreTakenOneAtATimeUnlessStorageIsAsynchronous(t *testing.T) {
	fresh := func(async bool) *RawNode {
		n, err := NewRawNode(hallConfig(1, NewMemoryStorage(), async))
		must(t, err)
		must(t, n.Bootstrap([]Peer{{ID: 1}}))
		return n
	}
	n := fresh(false)
	n.Ready()
	if !panics(func() { n.Ready() }) {
		t.Error("a second Ready was taken before Advance")
	}
	n = fresh(true)
	n.Ready()
	n.Ready()
	if !panics(n.Advance) {
		t.Error("Advance was taken with AsyncStorageWrites")
	}
}
