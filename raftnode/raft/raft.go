// Package raft is the consensus core: a deterministic state machine with no clock,
// goroutine, file, socket or randomness of its own.
//
// A [RawNode] is fed ticks, messages, proposals and finished disk writes, and is asked
// for what to do next by [RawNode.Ready]: what to write, what to send, what to apply. The
// same inputs give the same outputs, byte for byte.
//
// What must not leave before it is durable stands apart in [Ready].AfterPersist: persist
// before reply is a matter of data, not of discipline. The node's own vote and its own
// acknowledgement are counted when their write is reported as finished.
//
// The design is that of etcd-raft, after the Raft paper (Ongaro and Ousterhout, 2014) and
// Ongaro's dissertation. There are no lease-based reads: as commonly built they are not
// linearizable, since a deposed leader's check of its quorum may come an election
// time-out too late.
package raft

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
)

// Role is what a node is in its term.
type Role uint8

const (
	Follower Role = iota
	PreCandidate
	Candidate
	Leader
)

var roleNames = [...]string{"follower", "precandidate", "candidate", "leader"}

func (r Role) String() string { return roleNames[r] }

// Config is what a node is made of.
type Config struct {
	ID                        uint64
	Voters                    []uint64 // every voting member, this node included
	ElectionTick              int      // ticks without a leader before an election, at least; the real number is drawn from [ElectionTick, 2*ElectionTick)
	HeartbeatTick             int      // ticks between heartbeats
	Storage                   Storage
	Applied                   uint64 // on restart: the last index applied already
	MaxSizePerMsg             uint64 // bytes of entries in a MsgApp; one entry always fits
	MaxInflightMsgs           int    // MsgApp sent to a follower and not yet answered
	MaxUncommittedEntriesSize uint64 // bytes of proposals not yet committed; 0: no limit
	MaxCommittedSizePerReady  uint64 // bytes of committed entries in a Ready; 0: MaxSizePerMsg
	PreVote                   bool   // ask whether an election could be won before raising the term (dissertation 9.6)
	CheckQuorum               bool   // a leader that hears from no quorum for an election time-out steps down
	Seed                      uint64 // of the election time-outs; mixed with ID
	Trace                     func(Event)
}

// Validate names the first field that cannot be used.
func (c Config) Validate() error {
	switch {
	case c.ID == None:
		return errors.New("raft: ID is 0, which is no node")
	case !slices.Contains(c.Voters, c.ID):
		return fmt.Errorf("raft: ID %d is not among the voters %v", c.ID, c.Voters)
	case c.HeartbeatTick <= 0:
		return fmt.Errorf("raft: HeartbeatTick is %d: it must be more than 0", c.HeartbeatTick)
	case c.ElectionTick <= c.HeartbeatTick:
		return fmt.Errorf("raft: ElectionTick is %d: it must be more than HeartbeatTick, %d", c.ElectionTick, c.HeartbeatTick)
	case c.Storage == nil:
		return errors.New("raft: Storage is nil")
	case c.MaxInflightMsgs <= 0:
		return fmt.Errorf("raft: MaxInflightMsgs is %d: it must be more than 0", c.MaxInflightMsgs)
	}
	return nil
}

// Errors that a caller acts on.
var (
	// ErrProposalDropped: the proposal was not taken and never will be.
	ErrProposalDropped = errors.New("raft: proposal dropped")
	// ErrReadDropped: the read was not taken; ask again.
	ErrReadDropped = errors.New("raft: read dropped")
	// ErrStepLocalMessage: a message of a local type came from the network.
	ErrStepLocalMessage = errors.New("raft: local message from the network")
	// ErrUnknownPeer: a response came from a node that is no member.
	ErrUnknownPeer = errors.New("raft: message from an unknown peer")
)

// Ready is what a node wants done. Nothing in it may be changed.
type Ready struct {
	// Write numbers what must be written, from 1; 0: nothing. When it is durable, and every
	// write before it, the caller says so with Persisted.
	Write     uint64
	HardState HardState // zero: unchanged
	Entries   []Entry   // to append; whatever is stored at or after the first one's index is discarded
	MustSync  bool      // Entries, Term or Vote changed: the write must reach the disk
	// Messages may leave at once: a leader sends in parallel with its own disk write
	// (dissertation 10.2.1).
	Messages []Message
	// AfterPersist may leave only when Write is durable.
	AfterPersist []Message
	Committed    []Entry // durable here and committed; to apply in order, then AppliedTo
	ReadStates   []ReadState
	SoftState    *SoftState // nil: unchanged
}

// SoftState is what need not survive a crash.
type SoftState struct {
	Leader uint64
	Role   Role
}

// ReadState answers a ReadIndex: the read may be served once Index is applied.
type ReadState struct {
	Index   uint64
	Context []byte
}

// raft is the state of one node. One function field, step, differs by role; the term
// rules before it are common to all.
type raft struct {
	config Config
	term   uint64
	vote   uint64
	role   Role
	leader uint64
	log    *raftLog

	progress map[uint64]*progress // of every voter; meaningful on a leader
	voters   []uint64             // sorted
	votes    map[uint64]bool      // answers in this campaign; the first of each voter counts

	electionElapsed  int
	heartbeatElapsed int
	timeout          int // of this election period, in ticks
	random           *rand.Rand

	reads           readIndex
	uncommittedSize uint64

	messages     []Message // may leave at once
	afterPersist []Message // not before what they rest on is durable
	selfResponse []Message // this node's answers to itself: stepped when their write is durable
	readStates   []ReadState
	failure      error // of storage: nothing is done any more

	step func(*raft, Message) error
	tick func(*raft)
}

func newRaft(c Config) (*raft, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.MaxCommittedSizePerReady == 0 {
		c.MaxCommittedSizePerReady = c.MaxSizePerMsg
	}
	hard, err := c.Storage.InitialState()
	if err != nil {
		return nil, fmt.Errorf("raft: read the hard state: %w", err)
	}
	log, err := newLog(c.Storage, hard.Commit, c.Applied)
	if err != nil {
		return nil, err
	}
	r := &raft{
		config: c, term: hard.Term, vote: hard.Vote, log: log,
		voters: slices.Sorted(slices.Values(c.Voters)),
		random: rand.New(rand.NewPCG(c.Seed, c.ID)),
	}
	r.becomeFollower(r.term, None)
	return r, nil
}

// reset begins a term, or a new role in the same one. The vote is forgotten only with the
// term: forgetting it earlier would let a node vote twice in one term.
func (r *raft) reset(term uint64) {
	if r.term != term {
		r.term = term
		r.vote = None
		r.trace(Event{Kind: EventTerm, Term: term})
	}
	r.leader = None
	r.electionElapsed, r.heartbeatElapsed = 0, 0
	r.drawTimeout()
	r.votes = make(map[uint64]bool)
	r.progress = make(map[uint64]*progress, len(r.voters))
	for _, id := range r.voters {
		r.progress[id] = &progress{next: r.log.lastIndex() + 1, window: r.config.MaxInflightMsgs}
	}
	r.uncommittedSize = 0
	r.reads = readIndex{}
}

func (r *raft) drawTimeout() {
	r.timeout = r.config.ElectionTick + r.random.IntN(r.config.ElectionTick)
}

func (r *raft) quorum() int { return len(r.voters)/2 + 1 }

// Step takes a message. Terms are dealt with here, once for all roles; what is left is
// for the role's own function.
func (r *raft) Step(m Message) error {
	if proceed := r.stepTerm(m); !proceed {
		return nil
	}
	switch m.Type {
	case MsgHup:
		r.hup()
		return nil
	case MsgVote, MsgPreVote:
		r.answerVote(m)
		return nil
	}
	return r.step(r, m)
}

// stepTerm compares the message's term with the node's. It reports whether the message
// has more to say.
func (r *raft) stepTerm(m Message) bool {
	switch {
	case m.Term == 0: // local, or a forwarded request
		return true
	case m.Term > r.term:
		return r.stepHigherTerm(m)
	case m.Term < r.term:
		r.stepLowerTerm(m)
		return false
	}
	return true
}

func (r *raft) stepHigherTerm(m Message) bool {
	if m.Type == MsgVote || m.Type == MsgPreVote {
		// A node that hears from a leader helps nobody to depose it: a node that was cut off,
		// or removed, must not disturb the others when it returns (dissertation 4.2.3).
		if r.config.CheckQuorum && r.leader != None && r.electionElapsed < r.config.ElectionTick {
			return false
		}
	}
	switch {
	case m.Type == MsgPreVote:
		// Asking whether an election could be won changes no term.
	case m.Type == MsgPreVoteResp && !m.Reject:
		// A granted pre-vote carries the term that the campaign would have.
	case m.Type == MsgApp || m.Type == MsgHeartbeat:
		r.becomeFollower(m.Term, m.From)
	default:
		r.becomeFollower(m.Term, None)
	}
	return true
}

func (r *raft) stepLowerTerm(m Message) {
	switch {
	case (m.Type == MsgApp || m.Type == MsgHeartbeat) && (r.config.CheckQuorum || r.config.PreVote):
		// A leader of an old term must learn of the new one even though we, having no
		// lease-breaking votes to send, would otherwise stay silent and stuck (T6).
		r.send(Message{Type: MsgAppResp, To: m.From})
	case m.Type == MsgPreVote:
		// Without an answer two nodes of different terms can wait for each other forever (T7).
		r.send(Message{Type: MsgPreVoteResp, To: m.From, Term: r.term, Reject: true})
	}
}

// send queues a message. Answers that rest on what this node has written wait until it is
// durable; a message to itself is never sent but stepped then.
func (r *raft) send(m Message) {
	m.From = r.config.ID
	if m.Term == 0 && m.Type != MsgProp && m.Type != MsgReadIndex {
		m.Term = r.term
	}
	switch m.Type {
	case MsgAppResp, MsgVoteResp, MsgPreVoteResp:
		if m.To == r.config.ID {
			r.selfResponse = append(r.selfResponse, m)
			return
		}
		r.afterPersist = append(r.afterPersist, m)
	case MsgVote:
		// A candidate's own term and vote come first (Raft paper, figure 2). Were they lost in
		// a crash after a quorum of others had elected it, it could win the same term again,
		// with a log that lacks what it replicated the first time: two different entries of
		// one index and term.
		r.afterPersist = append(r.afterPersist, m)
	default:
		if m.To == r.config.ID {
			panic("raft: " + m.Type.String() + " to itself")
		}
		r.messages = append(r.messages, m)
	}
}

func (r *raft) trace(e Event) {
	if r.config.Trace != nil {
		r.config.Trace(e)
	}
}

func (r *raft) becomeFollower(term, leader uint64) {
	if r.role == Leader {
		r.trace(Event{Kind: EventStepDown, Term: r.term})
	}
	r.role, r.step, r.tick = Follower, stepFollower, tickElection
	r.reset(term)
	r.leader = leader
}
