package raft

import (
	"context"
	"errors"
	"sync"
)

// ErrStopped: the node has been stopped.
var ErrStopped = errors.New("raft: node is stopped")

// Node is a RawNode that a goroutine owns: all its methods may be called from any
// goroutine. Whoever takes its Readys carries them out.
type Node interface {
	// Tick advances the node's time by one tick. It never waits: a node that is far behind
	// loses the tick.
	Tick()
	// Campaign makes the node start an election.
	Campaign(ctx context.Context) error
	// Propose asks for data to be appended to the log. It waits while no leader is known. An
	// error other than the context's says that it never will be appended; nil promises nothing.
	Propose(ctx context.Context, data []byte) error
	// ProposeConfChange proposes a change of membership. It does not wait for what becomes of
	// that: see RawNode.ProposeConfChange.
	ProposeConfChange(ctx context.Context, change ConfChangeI) error
	// Step takes a message from another node, or a response from a local thread. What no other
	// node may send is ignored.
	Step(ctx context.Context, m Message) error
	// Ready hands out what to do next. Committed entries must not be applied before those of
	// the Ready before are.
	Ready() <-chan Ready
	// Advance tells that the last Ready is carried out; it is not called with
	// AsyncStorageWrites.
	Advance()
	// ApplyConfChange puts a committed change of membership into force; see
	// RawNode.ApplyConfChange.
	ApplyConfChange(change ConfChangeI) (ConfState, error)
	// TransferLeadership asks the leader to hand leadership to transferee: who leads now, if
	// that is another one than lead.
	TransferLeadership(ctx context.Context, lead, transferee uint64)
	// ForgetLeader makes a follower forget who leads; see RawNode.ForgetLeader.
	ForgetLeader(ctx context.Context) error
	// ReadIndex asks for an index at which a read sees everything that is committed by now; see
	// RawNode.ReadIndex.
	ReadIndex(ctx context.Context, rctx []byte) error
	// Status returns how the node sees itself and the cluster.
	Status() Status
	// ReportUnreachable tells that messages to a node may have been lost.
	ReportUnreachable(id uint64)
	// ReportSnapshot tells what became of a snapshot that was to be sent.
	ReportSnapshot(id uint64, status SnapshotStatus)
	// Err returns why the node stands still; nil while it works.
	Err() error
	// Stop ends the node, and returns when it has ended. It may be called again.
	Stop()
}

// maxQueuedTicks is how many ticks wait for a node that is busy. What is beyond that is
// lost: a node that was stopped does not catch up with the clock.
const maxQueuedTicks = 128

// StartNode starts a node of a new cluster. Every member must be given the same peers.
func StartNode(c Config, peers []Peer) (Node, error) {
	raw, err := NewRawNode(c)
	if err != nil {
		return nil, err
	}
	if err := raw.Bootstrap(peers); err != nil {
		return nil, err
	}
	return startNode(raw), nil
}

// RestartNode starts a node that goes on from what its storage holds, or that waits to be
// added to a cluster.
func RestartNode(c Config) (Node, error) {
	raw, err := NewRawNode(c)
	if err != nil {
		return nil, err
	}
	return startNode(raw), nil
}

// node implements Node. Whatever needs the core is a function that its goroutine calls.
type node struct {
	raw       *RawNode // the goroutine's own
	proposals chan call
	calls     chan call
	ticks     chan struct{}
	ready     chan Ready
	advance   chan struct{}
	stop      chan struct{}
	stopOnce  sync.Once
	done      chan struct{}
	removed   bool // it has been a member, and is none
}

// call is work for the goroutine. done, unless it is nil, is told the result and has room
// for it.
type call struct {
	do   func(*RawNode) error
	done chan<- error
}

func startNode(raw *RawNode) Node {
	n := &node{
		raw: raw, proposals: make(chan call), calls: make(chan call), ticks: make(chan struct{}, maxQueuedTicks),
		ready: make(chan Ready), advance: make(chan struct{}), stop: make(chan struct{}), done: make(chan struct{}),
	}
	go n.run()
	return n
}

func (n *node) run() {
	defer close(n.done)
	var rd Ready
	var ready chan Ready      // n.ready while rd is to be handed out
	var advance chan struct{} // n.advance while a Ready is being carried out
	for {
		if advance == nil && n.raw.HasReady() {
			// Made anew each time: until it is taken, there is more and more to do.
			rd, ready = n.raw.readyWithoutAccept(), n.ready
		}
		var proposals chan call // nobody proposes while there is no leader to propose to
		if n.raw.raft.leader != None && !n.removed || n.raw.Err() != nil {
			proposals = n.proposals
		}
		select {
		case c := <-proposals:
			n.serve(c)
		case c := <-n.calls:
			n.serve(c)
		case <-n.ticks:
			n.raw.Tick()
		case ready <- rd:
			n.raw.accept(rd)
			rd, ready = Ready{}, nil
			if !n.raw.async() {
				advance = n.advance
			}
		case <-advance:
			n.raw.Advance()
			advance = nil
		case <-n.stop:
			return
		}
	}
}

func (n *node) serve(c call) {
	member := n.raw.raft.members.Contains(n.raw.raft.config.ID)
	err := c.do(n.raw)
	n.removed = (n.removed || member) && !n.raw.raft.members.Contains(n.raw.raft.config.ID)
	if c.done != nil {
		c.done <- err
	}
}

// send gives the goroutine work. It waits until that is begun, and with wait until it is
// finished.
func (n *node) send(ctx context.Context, to chan<- call, wait bool, do func(*RawNode) error) error {
	c := call{do: do}
	var done chan error
	if wait {
		done = make(chan error, 1)
		c.done = done
	}
	select {
	case to <- c:
	case <-ctx.Done():
		return ctx.Err()
	case <-n.done:
		return ErrStopped
	}
	if !wait {
		return nil
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-n.done:
		return ErrStopped
	}
}

func (n *node) Tick() {
	select {
	case n.ticks <- struct{}{}:
	default:
		n.raw.raft.logger.Warningf("a tick is lost: the node is behind")
	}
}

func (n *node) Campaign(ctx context.Context) error {
	return n.send(ctx, n.calls, false, (*RawNode).Campaign)
}

func (n *node) Propose(ctx context.Context, data []byte) error {
	return n.send(ctx, n.proposals, true, func(raw *RawNode) error { return raw.Propose(data) })
}

func (n *node) ProposeConfChange(ctx context.Context, change ConfChangeI) error {
	return n.send(ctx, n.proposals, false, func(raw *RawNode) error { return raw.ProposeConfChange(change) })
}

func (n *node) Step(ctx context.Context, m Message) error {
	to := n.calls
	if m.Type == MsgProp {
		to = n.proposals
	}
	return n.send(ctx, to, m.Type == MsgProp, func(raw *RawNode) error { return raw.Step(m) })
}

func (n *node) Ready() <-chan Ready { return n.ready }

func (n *node) Advance() {
	select {
	case n.advance <- struct{}{}:
	case <-n.done:
	}
}

func (n *node) ApplyConfChange(change ConfChangeI) (ConfState, error) {
	var conf ConfState
	err := n.send(context.Background(), n.calls, true, func(raw *RawNode) (err error) {
		conf, err = raw.ApplyConfChange(change)
		return err
	})
	return conf, err
}

func (n *node) TransferLeadership(ctx context.Context, _, transferee uint64) {
	_ = n.send(ctx, n.calls, false, func(raw *RawNode) error { // the caller asked without wanting to know
		raw.TransferLeader(transferee)
		return nil
	})
}

func (n *node) ForgetLeader(ctx context.Context) error {
	return n.send(ctx, n.calls, false, (*RawNode).ForgetLeader)
}

func (n *node) ReadIndex(ctx context.Context, rctx []byte) error {
	return n.send(ctx, n.calls, false, func(raw *RawNode) error { return raw.ReadIndex(rctx) })
}

func (n *node) Status() Status {
	var s Status
	_ = n.send(context.Background(), n.calls, true, func(raw *RawNode) error {
		s = raw.Status()
		return nil
	}) // of a node that is stopped nothing is known
	return s
}

func (n *node) ReportUnreachable(id uint64) {
	_ = n.send(context.Background(), n.calls, false, func(raw *RawNode) error {
		raw.ReportUnreachable(id)
		return nil
	})
}

func (n *node) ReportSnapshot(id uint64, status SnapshotStatus) {
	_ = n.send(context.Background(), n.calls, false, func(raw *RawNode) error {
		raw.ReportSnapshot(id, status)
		return nil
	})
}

func (n *node) Err() error {
	return n.send(context.Background(), n.calls, true, (*RawNode).Err)
}

func (n *node) Stop() {
	n.stopOnce.Do(func() { close(n.stop) })
	<-n.done
}
