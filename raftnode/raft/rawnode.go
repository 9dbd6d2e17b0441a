package raft

import (
	"errors"
	"fmt"
)

// RawNode is one node's consensus core. It is not safe for concurrent use: whoever owns
// it feeds it and carries out its Readys.
type RawNode struct {
	raft      *raft
	hard      HardState // as handed out last
	soft      SoftState // as handed out last
	onAdvance []Message // what the Ready at hand makes this node tell itself
	advancing bool      // a Ready is taken, Advance is to come
}

// NewRawNode makes a node that goes on from what its storage holds. It refuses a storage
// that has lost what it must hold.
func NewRawNode(c Config) (*RawNode, error) {
	r, err := newRaft(c)
	if err != nil {
		return nil, err
	}
	return &RawNode{raft: r, hard: r.hardState(), soft: r.softState()}, nil
}

func (n *RawNode) async() bool { return n.raft.config.AsyncStorageWrites }

// Err returns why the node stands still; nil while it works. A node never works again
// once it stands still.
func (n *RawNode) Err() error { return n.raft.log.failure }

// Peer is a member of a new cluster.
type Peer struct {
	ID      uint64
	Context []byte // goes into the entry that adds it: an address, for example
}

// Bootstrap makes a new node one of a new cluster: its log begins with one entry for each
// member, committed. Every member must be given the same list.
func (n *RawNode) Bootstrap(peers []Peer) error {
	r := n.raft
	if len(peers) == 0 {
		return errors.New("raft: bootstrap a cluster without members")
	}
	if last := r.log.lastIndex(); last != 0 {
		return fmt.Errorf("raft: bootstrap a node whose log ends at %d: it is not new", last)
	}
	n.hard = HardState{} // all of it is news
	r.becomeFollower(1, None)
	entries := make([]Entry, len(peers))
	for i, peer := range peers {
		change := ConfChange{Type: ConfChangeAddNode, NodeID: peer.ID, Context: peer.Context}
		entries[i] = change.entry()
		entries[i].Term, entries[i].Index = 1, uint64(i)+1
	}
	r.appendEntries(entries)
	r.commitTo(uint64(len(entries)))
	// They are in force now, so that the node knows its peers before its user applies them, which
	// changes nothing any more.
	for _, peer := range peers {
		change := ConfChange{Type: ConfChangeAddNode, NodeID: peer.ID}
		if err := r.applyConfChange(change.AsV2()); err != nil {
			return fmt.Errorf("raft: bootstrap node %d: %w", peer.ID, err)
		}
	}
	return n.Err()
}

// Tick advances the node's time by one tick.
func (n *RawNode) Tick() {
	if n.Err() == nil {
		n.raft.tick(n.raft)
	}
}

// TickQuiesced advances the time that counts towards an election, and does nothing else. It
// is for nodes that sleep because nothing happens.
func (n *RawNode) TickQuiesced() { n.raft.electionElapsed++ }

// Campaign starts an election now. On a leader, and on a node that cannot lead, it does
// nothing.
func (n *RawNode) Campaign() error {
	return n.raft.Step(Message{Type: MsgHup, From: n.raft.config.ID})
}

// Propose asks for data to be appended to the log: here on a leader, else by passing it on.
// The node keeps data. An error says that it never will be appended; nil promises nothing,
// since the proposal may be lost without notice.
func (n *RawNode) Propose(data []byte) error {
	return n.raft.Step(Message{Type: MsgProp, From: n.raft.config.ID, Entries: []Entry{{Data: data}}})
}

// ProposeBatch proposes several data at once: all of them are taken, next to each other, or
// none. The node keeps every one of them, but not the list.
func (n *RawNode) ProposeBatch(data [][]byte) error {
	entries := make([]Entry, len(data))
	for i := range data {
		entries[i].Data = data[i]
	}
	return n.raft.Step(Message{Type: MsgProp, From: n.raft.config.ID, Entries: entries})
}

// ProposeConfChange proposes a change of membership. Where it cannot be made now, an empty
// entry takes its place; it may also be lost without notice. When it is committed its
// entry is among those to apply, and is then put into force by ApplyConfChange.
func (n *RawNode) ProposeConfChange(change ConfChangeI) error {
	return n.raft.Step(Message{Type: MsgProp, From: n.raft.config.ID, Entries: []Entry{change.entry()}})
}

// CheckConfChange says why this node, if it leads, would not take a change of membership
// now; nil if it would. ProposeConfChange itself says nothing of that.
func (n *RawNode) CheckConfChange(change ConfChangeI) error {
	v2 := change.AsV2()
	if reason := n.raft.refusal(v2); reason != "" {
		return errors.New(reason)
	}
	_, err := v2.Next(n.raft.members)
	return err
}

// ApplyConfChange puts a committed change of membership into force, and returns the
// configuration, which snapshots must hold from then on. It must be called when the entry
// is applied, unless the user decides against the change: then nothing happens, on any
// node. An error says that the change cannot be made to the configuration, which stays;
// it is the same on every node.
func (n *RawNode) ApplyConfChange(change ConfChangeI) (ConfState, error) {
	err := n.raft.applyConfChange(change.AsV2())
	return n.raft.members.State(), err
}

// TransferLeader asks the leader to hand leadership to transferee.
func (n *RawNode) TransferLeader(transferee uint64) {
	_ = n.raft.Step(Message{Type: MsgTransferLeader, From: transferee}) // only a failure, which Err tells
}

// ForgetLeader makes a follower forget who leads, without leaving the term: it may then
// vote at once. Its user knows that the leader is dead. The leader's next message brings
// it back.
func (n *RawNode) ForgetLeader() error {
	return n.raft.Step(Message{Type: MsgForgetLeader, From: n.raft.config.ID})
}

// ReadIndex asks for an index at which a read sees everything that is committed by now. It
// comes as a ReadState with the same context, or is lost without notice: then ask again. A
// read that is asked for with the context of an earlier one replaces that one. A context
// must not be one that was used before the node's last restart.
func (n *RawNode) ReadIndex(context []byte) error {
	name := n.raft.asked.ask(context)
	err := n.raft.Step(Message{Type: MsgReadIndex, From: n.raft.config.ID, Entries: []Entry{{Data: name}}})
	if err != nil {
		n.raft.asked.take(name)
		return err
	}
	n.raft.asked.forgetOldest()
	return nil
}

// ReportUnreachable tells that messages to a node may have been lost.
func (n *RawNode) ReportUnreachable(id uint64) {
	_ = n.raft.Step(Message{Type: MsgUnreachable, From: id}) // only a failure, which Err tells
}

// SnapshotStatus says what became of a snapshot that was to be sent.
type SnapshotStatus int

const (
	SnapshotFinish  SnapshotStatus = 1
	SnapshotFailure SnapshotStatus = 2
)

// ReportSnapshot tells what became of the snapshot in a MsgSnap to that node. It must be
// called, above all after a failure: nothing is sent to the node until then.
func (n *RawNode) ReportSnapshot(id uint64, status SnapshotStatus) {
	_ = n.raft.Step(Message{Type: MsgSnapStatus, From: id, Reject: status == SnapshotFailure})
}

// Step takes a message from another node, or a response from a local thread. It returns
// one of this package's errors where it does not take it: to the sender that is a message
// lost.
func (n *RawNode) Step(m Message) error {
	if err := n.raft.checkMessage(m); err != nil {
		return err
	}
	return n.raft.Step(m)
}

// HasReady reports whether Ready has anything to say.
func (n *RawNode) HasReady() bool {
	r := n.raft
	log := r.log
	return log.failure == nil && (len(r.out.atOnce)+len(r.out.afterPersist)+len(r.out.readStates) > 0 ||
		len(log.unstable.next()) > 0 || log.unstable.nextSnapshot() != nil ||
		r.hardState() != n.hard || r.softState() != n.soft || log.hasNextCommitted(!n.async()))
}

// Ready returns what to do next. It counts as taken: without AsyncStorageWrites, Advance
// must be called before the next one.
func (n *RawNode) Ready() Ready {
	rd := n.readyWithoutAccept()
	n.accept(rd)
	return rd
}

// Advance tells that the last Ready is carried out. It panics with AsyncStorageWrites,
// where responses tell that.
func (n *RawNode) Advance() {
	assert(!n.async(), "Advance is called with AsyncStorageWrites")
	n.advancing = false
	for _, m := range n.onAdvance {
		_ = n.raft.Step(m) // only a failure, which Err tells
	}
	n.onAdvance = n.onAdvance[:0]
}
