package raft

import (
	"fmt"
	"slices"
)

// RawNode is one node's consensus core. It is not safe for concurrent use: whoever owns
// it feeds it and carries out its Readys.
type RawNode struct {
	raft   *raft
	hard   HardState // as handed out last
	soft   SoftState // as handed out last
	write  uint64    // number of the last write handed out
	queued [][]Message
}

// NewRawNode makes a node that goes on from what its storage holds.
func NewRawNode(c Config) (*RawNode, error) {
	r, err := newRaft(c)
	if err != nil {
		return nil, err
	}
	return &RawNode{raft: r, hard: r.hardState(), soft: r.softState()}, nil
}

func (r *raft) hardState() HardState { return HardState{r.term, r.vote, r.log.committed} }
func (r *raft) softState() SoftState { return SoftState{r.leader, r.role} }

// Tick advances the node's time by one tick.
func (n *RawNode) Tick() { n.raft.tick(n.raft) }

// Campaign starts an election now.
func (n *RawNode) Campaign() error { return n.raft.Step(Message{Type: MsgHup}) }

// Propose asks for data to be appended to the log. A nil error promises nothing: the
// proposal may be lost without notice.
func (n *RawNode) Propose(data []byte) error {
	return n.raft.Step(Message{Type: MsgProp, From: n.raft.config.ID, Entries: []Entry{{Data: data}}})
}

// ReadIndex asks for an index at which a read of everything committed until now may be
// served; it comes as a ReadState with the same context, or is lost without notice.
func (n *RawNode) ReadIndex(context []byte) error {
	return n.raft.Step(Message{Type: MsgReadIndex, From: n.raft.config.ID, Entries: []Entry{{Data: context}}})
}

// ReportUnreachable tells that messages to a node may have been lost.
func (n *RawNode) ReportUnreachable(id uint64) {
	_ = n.raft.Step(Message{Type: MsgUnreachable, From: id}) // a node that is no member needs no report
}

// Step takes a message from another node.
func (n *RawNode) Step(m Message) error {
	switch m.Type {
	case MsgHup, MsgBeat, MsgUnreachable, MsgSnapStatus, MsgCheckQuorum:
		return fmt.Errorf("%w: %s", ErrStepLocalMessage, m.Type)
	}
	if n.raft.progress[m.From] == nil || m.From == n.raft.config.ID {
		return fmt.Errorf("%w: %d", ErrUnknownPeer, m.From)
	}
	return n.raft.Step(m)
}

// HasReady reports whether Ready has anything to say.
func (n *RawNode) HasReady() bool {
	r := n.raft
	return len(r.messages)+len(r.afterPersist)+len(r.selfResponse)+len(r.readStates)+len(r.log.unwritten()) > 0 ||
		r.hardState() != n.hard || r.softState() != n.soft || r.log.given < min(r.log.committed, r.log.offset-1)
}

// Ready returns what to do next. It counts as taken: the next Ready goes on from there,
// and may be asked for while writes are in flight.
func (n *RawNode) Ready() Ready {
	r := n.raft
	rd := Ready{Entries: slices.Clone(r.log.unwritten()), Messages: r.messages, AfterPersist: r.afterPersist, ReadStates: r.readStates}
	r.messages, r.afterPersist, r.readStates = nil, nil, nil
	if hard := r.hardState(); hard != n.hard {
		rd.HardState = hard
		rd.MustSync = hard.Term != n.hard.Term || hard.Vote != n.hard.Vote
		n.hard = hard
	}
	rd.MustSync = rd.MustSync || len(rd.Entries) > 0
	if soft := r.softState(); soft != n.soft {
		rd.SoftState = &soft
		n.soft = soft
	}
	// What waits for durability waits for every write in flight, not only for this one's.
	waits := len(rd.AfterPersist)+len(r.selfResponse) > 0
	if len(rd.Entries) > 0 || rd.HardState != (HardState{}) || waits {
		n.write++
		rd.Write = n.write
		r.log.beginWrite(n.write)
		n.queued = append(n.queued, r.selfResponse)
		r.selfResponse = nil
	}
	var err error
	if rd.Committed, err = r.log.nextCommitted(r.config.MaxCommittedSizePerReady); err != nil {
		r.failure = err
	}
	if last := len(rd.Committed); last > 0 {
		r.log.given = rd.Committed[last-1].Index
	}
	return rd
}

// Err returns why the node can no longer work: its storage failed. It must be looked at
// after each Ready, and nothing may be sent once it is set.
func (n *RawNode) Err() error { return n.raft.failure }

// Persisted tells that a write is durable: its entries and hard state are in Storage.
// Writes finish in the order of their numbers. The node's own votes and acknowledgements
// count from here on.
func (n *RawNode) Persisted(write uint64) error {
	if !n.raft.log.endWrite(write) {
		return fmt.Errorf("raft: write %d finished out of order", write)
	}
	own := n.queued[0]
	n.queued = n.queued[1:]
	for _, m := range own {
		// An acknowledgement of entries that were replaced meanwhile came from an older term,
		// and Step ignores it.
		if err := n.raft.Step(m); err != nil {
			return err
		}
	}
	return nil
}

// AppliedTo tells that everything up to index is applied.
func (n *RawNode) AppliedTo(index uint64) error {
	log := n.raft.log
	if index < log.applied || index > log.given {
		return fmt.Errorf("raft: applied index %d is not in [%d, %d]", index, log.applied, log.given)
	}
	if n.raft.role == Leader {
		n.raft.reduceUncommitted(log.applied, index)
	}
	log.applied = index
	return nil
}

// reduceUncommitted gives the applied entries' share of the limit back.
func (r *raft) reduceUncommitted(from, to uint64) {
	if r.config.MaxUncommittedEntriesSize == 0 {
		return
	}
	entries, err := r.log.slice(from+1, to+1, ^uint64(0))
	if err != nil {
		r.failure = err
		return
	}
	for _, e := range entries {
		r.uncommittedSize -= min(r.uncommittedSize, uint64(len(e.Data)))
	}
}

// Status is how a node sees itself.
type Status struct {
	ID uint64
	HardState
	SoftState
	Applied   uint64
	LastIndex uint64
	Progress  []Progress // of every voter, by ID; on the leader only
}

// Progress is what a leader knows of one node's log.
type Progress struct {
	ID, Match, Next uint64
	Replicating     bool
}

// Status returns how the node sees itself.
func (n *RawNode) Status() Status {
	r := n.raft
	s := Status{ID: r.config.ID, HardState: r.hardState(), SoftState: r.softState(), Applied: r.log.applied, LastIndex: r.log.lastIndex()}
	if r.role == Leader {
		for _, id := range r.voters {
			p := r.progress[id]
			s.Progress = append(s.Progress, Progress{id, p.match, p.next, p.state == replicate})
		}
	}
	return s
}
