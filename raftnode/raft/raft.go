// Package raft is the consensus core: a deterministic state machine with no clock,
// goroutine, file, socket or randomness of its own.
//
// A [RawNode] is fed ticks, messages, proposals and finished disk writes, and is asked
// for what to do next by [RawNode.Ready]: what to write, what to send, what to apply. The
// same inputs give the same outputs, byte for byte.
//
//	for node.HasReady() {
//		rd := node.Ready()
//		// in any order, and while other writes are in flight:
//		// send rd.Messages; write rd.Entries and rd.HardState;
//		// apply rd.Committed, then node.AppliedTo; serve rd.ReadStates
//	}
//	// when the write is durable, and in Storage:
//	// send rd.AfterPersist; node.Persisted(rd.Write)
//
// What must not leave before it is durable stands apart in [Ready].AfterPersist: persist
// before reply is a matter of data, not of discipline. The node's own vote and its own
// acknowledgement count when their write is reported as finished, not before.
//
// A node that finds its storage failing, or its log at odds with what was committed,
// stands still: it gives out nothing any more, and [RawNode.Err] says why.
//
// The design is that of etcd-raft, after the Raft paper (Ongaro and Ousterhout, extended
// version, 2014) and Ongaro's dissertation (2014). There are no lease-based reads: as
// commonly built they are not linearizable, since a deposed leader's check of its quorum
// may come an election time-out too late.
package raft

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"capsize/raftnode/raft/quorum"
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

func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return fmt.Sprintf("Role(%d)", uint8(r))
}

// Errors that a caller acts on.
var (
	// ErrProposalDropped: the proposal was not taken and never will be.
	ErrProposalDropped = errors.New("raft: proposal dropped")
	// ErrReadDropped: the read was not taken; ask again.
	ErrReadDropped = errors.New("raft: read dropped")
	// ErrStepLocalMessage: a message of a local type came from the network.
	ErrStepLocalMessage = errors.New("raft: local message from the network")
	// ErrUnknownPeer: a message came from a node that is no other member.
	ErrUnknownPeer = errors.New("raft: message from an unknown peer")
	// ErrMisdirected: a message is for another node.
	ErrMisdirected = errors.New("raft: message for another node")
	// ErrMalformed: no correct node sends such a message.
	ErrMalformed = errors.New("raft: malformed message")
	// ErrUnsupported: the message is of a type that this node does not take part in.
	ErrUnsupported = errors.New("raft: unsupported message type")
)

// raft is the state machine proper. Roles differ by two functions, step and tick.
type raft struct {
	config Config
	random *rand.Rand
	log    *raftLog
	voters quorum.Majority

	term   uint64
	vote   uint64
	role   Role
	leader uint64
	step   func(*raft, Message) error
	tick   func(*raft)

	electionElapsed  int // ticks; on a leader, since it last checked its quorum
	heartbeatElapsed int // ticks
	electionTimeout  int // ticks, of this election period

	votes    map[uint64]quorum.Answer // in this campaign
	progress map[uint64]*progress     // of every voter; it means something on a leader

	applying applying
	backlog  backlog
	reads    readRounds
	asked    askedReads
	out      outbox
}

func newRaft(c Config) (*raft, HardState, error) {
	if err := c.Validate(); err != nil {
		return nil, HardState{}, err
	}
	if c.MaxCommittedSizePerReady == 0 {
		c.MaxCommittedSizePerReady = c.MaxSizePerMsg
	}
	hard, err := c.Storage.InitialState()
	if err != nil {
		return nil, HardState{}, fmt.Errorf("raft: read the hard state: %w", err)
	}
	log, err := newLog(c.Storage, hard.Commit, c.Applied)
	if err != nil {
		return nil, HardState{}, err
	}
	r := &raft{
		config: c,
		random: rand.New(rand.NewPCG(c.Seed, c.ID)),
		log:    log,
		voters: quorum.New(c.Voters),
		term:   hard.Term,
		vote:   hard.Vote,
	}
	first, err := c.Storage.FirstIndex()
	if err != nil {
		return nil, HardState{}, fmt.Errorf("raft: read the first index: %w", err)
	}
	applied := max(c.Applied, first-1)
	r.applying = applying{most: c.MaxCommittedSizePerReady, given: applied, applied: applied}
	r.becomeFollower(r.term, None)
	return r, hard, log.failure
}

// Step is the funnel that everything goes through: messages, and the node's own events,
// which are messages too. Terms are dealt with here, once for all roles; what is left is
// for the role's own function.
func (r *raft) Step(m Message) error {
	if r.log.failure != nil {
		return r.log.failure
	}
	var err error
	if r.stepTerm(m) {
		switch m.Type {
		case MsgHup:
			r.hup()
		case MsgVote, MsgPreVote:
			r.answerVote(m)
		default:
			err = r.step(r, m)
		}
	}
	if r.log.failure != nil {
		return r.log.failure
	}
	return err
}

// local steps an event of the node's own. Nobody waits for what becomes of it.
func (r *raft) local(t MessageType) {
	_ = r.Step(Message{Type: t, From: r.config.ID}) // a failure stays, and Err tells it
}

func (r *raft) becomeFollower(term, leader uint64) {
	if r.role == Leader {
		r.trace(Event{Kind: EventStepDown, Term: r.term})
	}
	r.role, r.step, r.tick = Follower, stepFollower, tickElection
	r.reset(term)
	r.leader = leader
}

// reset begins a term, or a new role in the same one. The vote is forgotten only with the
// term: forgetting it earlier would let a node vote twice in one term.
func (r *raft) reset(term uint64) {
	assert(term >= r.term, "the term falls from %d to %d", r.term, term)
	if r.term != term {
		r.term, r.vote = term, None
		r.trace(Event{Kind: EventTerm, Term: term})
	}
	r.leader = None
	r.electionElapsed, r.heartbeatElapsed = 0, 0
	r.drawElectionTimeout()
	r.votes = make(map[uint64]quorum.Answer, len(r.voters))
	r.progress = make(map[uint64]*progress, len(r.voters))
	for _, id := range r.voters {
		r.progress[id] = &progress{next: r.log.lastIndex() + 1, inflight: inflight{most: r.config.MaxInflightMsgs}}
	}
	r.backlog = backlog{}
	// What waited for this leader to confirm, or for another one to answer, is lost.
	r.reads = readRounds{}
	r.asked.open = nil
}

func (r *raft) drawElectionTimeout() {
	r.electionTimeout = r.config.ElectionTick + r.random.IntN(r.config.ElectionTick)
}

func (r *raft) hardState() HardState { return HardState{r.term, r.vote, r.log.committed} }
func (r *raft) softState() SoftState { return SoftState{r.leader, r.role} }

// assert stops a node in which something holds that nothing outside of it can cause.
func assert(holds bool, format string, args ...any) {
	if !holds {
		panic("raft: " + fmt.Sprintf(format, args...))
	}
}
