package raft

import "fmt"

// RawNode is one node's consensus core. It is not safe for concurrent use: whoever owns
// it feeds it and carries out its Readys.
type RawNode struct {
	raft *raft
	hard HardState // as handed out last
	soft SoftState // as handed out last
	// write is the number of the last write handed out.
	write uint64
}

// NewRawNode makes a node that goes on from what its storage holds. It refuses a storage
// that has lost what it must hold.
func NewRawNode(c Config) (*RawNode, error) {
	r, hard, err := newRaft(c)
	if err != nil {
		return nil, err
	}
	return &RawNode{raft: r, hard: hard, soft: r.softState()}, nil
}

// Err returns why the node stands still; nil while it works. A node never works again
// once it stands still.
func (n *RawNode) Err() error { return n.raft.log.failure }

// Tick advances the node's time by one tick.
func (n *RawNode) Tick() {
	if n.Err() == nil {
		n.raft.tick(n.raft)
	}
}

// Campaign starts an election now. On a leader it does nothing.
func (n *RawNode) Campaign() error {
	return n.raft.Step(Message{Type: MsgHup, From: n.raft.config.ID})
}

// Propose asks for data to be appended to the log: here on a leader, else by passing it on.
// The node keeps data. An error says that it never will be appended; nil promises nothing,
// since the proposal may be lost without notice.
func (n *RawNode) Propose(data []byte) error {
	return n.raft.Step(Message{Type: MsgProp, From: n.raft.config.ID, Entries: []Entry{{Data: data}}})
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
	if id != n.raft.config.ID && n.raft.voters.Contains(id) {
		_ = n.raft.Step(Message{Type: MsgUnreachable, From: id}) // only a failure, which Err tells
	}
}

// Step takes a message from another node. It returns one of this package's errors where
// it does not take it: to the sender that is a message lost.
func (n *RawNode) Step(m Message) error {
	if err := n.raft.checkMessage(m); err != nil {
		return err
	}
	return n.raft.Step(m)
}

// HasReady reports whether Ready has anything to say.
func (n *RawNode) HasReady() bool {
	r := n.raft
	return r.log.failure == nil && (!r.out.empty() || len(r.log.tail.unwritten()) > 0 ||
		r.hardState() != n.hard || r.softState() != n.soft || r.applying.has(r.log.applicable()))
}

// Ready returns what to do next. It counts as taken: the next Ready goes on from there,
// and may be asked for while writes are in flight.
func (n *RawNode) Ready() Ready {
	r := n.raft
	if r.log.failure != nil {
		return Ready{}
	}
	rd := Ready{Messages: r.out.atOnce, AfterPersist: r.out.afterPersist, ReadStates: r.out.readStates}
	own := r.out.own
	r.out = outbox{}
	if unwritten := r.log.tail.unwritten(); len(unwritten) > 0 {
		rd.Entries = append(rd.Entries, unwritten...) // a copy: the tail's own may be overwritten
		rd.MustSync = true
	}
	if hard := r.hardState(); hard != n.hard {
		rd.HardState = hard
		rd.MustSync = rd.MustSync || hard.Term != n.hard.Term || hard.Vote != n.hard.Vote
		n.hard = hard
	}
	if soft := r.softState(); soft != n.soft {
		rd.SoftState = &soft
		n.soft = soft
	}
	// What waits for durability waits for every write in flight, not only for this one's: it
	// gets a number even where there is nothing new to write.
	if len(rd.Entries)+len(rd.AfterPersist)+len(own) > 0 || rd.HardState != (HardState{}) {
		n.write++
		rd.Write = n.write
		r.log.tail.begin(n.write, own)
	}
	rd.Committed = r.applying.take(r.log)
	if r.log.failure != nil {
		return Ready{}
	}
	return rd
}

// Persisted tells that a write is durable: the entries and the hard state of that Ready
// are in Storage, and would be after a crash. Writes finish in the order of their numbers.
// The node's own votes and acknowledgements count from here on.
func (n *RawNode) Persisted(write uint64) error {
	r := n.raft
	if r.log.failure != nil {
		return r.log.failure
	}
	own, inOrder := r.log.tail.finish(write)
	if !inOrder {
		return fmt.Errorf("raft: write %d is reported as finished, but it is not the oldest in flight", write)
	}
	for _, m := range own {
		// A vote of a campaign that is over by now is ignored, as one from another node would be.
		if err := r.Step(m); err != nil {
			return err
		}
	}
	if r.role == Leader {
		r.acknowledgeOwn()
	}
	return r.log.failure
}

// AppliedTo tells that everything up to index is applied.
func (n *RawNode) AppliedTo(index uint64) error {
	if n.Err() != nil {
		return n.Err()
	}
	if err := n.raft.applying.done(index); err != nil {
		return err
	}
	n.raft.backlog.applied(index)
	return nil
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

// Progress is what a leader knows of one voter's log.
type Progress struct {
	ID     uint64
	State  ProgressState
	Match  uint64 // the last index known to be durable there
	Next   uint64 // the first index to send
	Paused bool   // nothing is sent until it answers
	Active bool   // heard of since the quorum was last checked
}

// Status returns how the node sees itself. What it says need not be durable yet.
func (n *RawNode) Status() Status {
	r := n.raft
	s := Status{
		ID: r.config.ID, HardState: r.hardState(), SoftState: r.softState(),
		Applied: r.applying.applied, LastIndex: r.log.lastIndex(),
	}
	if r.role == Leader {
		for _, id := range r.voters {
			p := r.progress[id]
			s.Progress = append(s.Progress, Progress{
				ID: id, State: p.state, Match: p.match, Next: p.next,
				Paused: p.paused, Active: p.active || id == r.config.ID,
			})
		}
	}
	return s
}
