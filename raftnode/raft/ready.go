package raft

// Ready is what a node wants done. Nothing in it may be changed.
type Ready struct {
	// Write numbers what must be written: 1, 2, 3 … 0: nothing. When it is durable, and every
	// write before it, the caller says so with Persisted. A write may hold nothing but
	// AfterPersist, which then waits for the writes before it.
	Write     uint64
	HardState HardState // zero: unchanged
	Entries   []Entry   // to append; whatever is stored at or after the first one's index is discarded
	// MustSync: Entries, or Term or Vote in HardState, changed, so the write must reach the
	// disk. Entries must get there no later than a Commit that covers them.
	MustSync bool

	// Messages may leave at once: a leader sends entries in parallel with its own disk write
	// (dissertation 10.2.1).
	Messages []Message
	// AfterPersist are responses, votes and requests for votes. They may leave only when Write
	// is durable.
	AfterPersist []Message

	// Committed are committed and durable here, in order, never twice. They are to be applied,
	// then reported with AppliedTo.
	Committed  []Entry
	ReadStates []ReadState
	SoftState  *SoftState // nil: unchanged
}

// ReadState answers a ReadIndex: once Index is applied, a read sees everything that was
// committed when it was asked. Context is what it was asked with.
type ReadState struct {
	Index   uint64
	Context []byte
}

// SoftState is what need not survive a crash.
type SoftState struct {
	Leader uint64 // None where none is known
	Role   Role
}

// outbox is what the node has to say and has not yet said. Persist before reply is a
// matter of which list a message stands in.
type outbox struct {
	atOnce       []Message
	afterPersist []Message
	own          []Message // votes for itself: stepped, not sent, when their write is durable
	readStates   []ReadState
}

func (o *outbox) empty() bool {
	return len(o.atOnce)+len(o.afterPersist)+len(o.own)+len(o.readStates) == 0
}

// send puts a message where its type belongs.
//
// An answer promises that what it rests on will not be forgotten. So does a request for
// votes, which is a candidate's vote for itself: were it to leave before that vote is
// durable, the others alone might elect a node that then crashes and forgets the election.
// It could win the same term again, with a log that lacks what it had replicated as the
// term's first leader, and put other entries under the same index and term.
//
// A request for pre-votes promises nothing. Entries and heartbeats come from a leader,
// whose term is durable since it asked for votes; a heartbeat's answer says only that its
// sender had seen no later term by then.
func (r *raft) send(m Message) {
	if m.From == None {
		m.From = r.config.ID // else it is passed on for another node
	}
	if m.Term == 0 && m.Type != MsgProp && m.Type != MsgReadIndex {
		m.Term = r.term
	}
	own := m.To == r.config.ID
	switch m.Type {
	case MsgVoteResp, MsgPreVoteResp:
		if own {
			r.out.own = append(r.out.own, m)
			return
		}
		r.out.afterPersist = append(r.out.afterPersist, m)
	case MsgAppResp, MsgVote:
		assert(!own, "a node sends no %v to itself", m.Type)
		r.out.afterPersist = append(r.out.afterPersist, m)
	default:
		assert(!own, "a node sends no %v to itself", m.Type)
		r.out.atOnce = append(r.out.atOnce, m)
	}
}
