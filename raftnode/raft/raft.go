// Package raft is the consensus core: a deterministic state machine with no clock, file,
// socket or randomness of its own.
//
// A [RawNode] is fed ticks, messages and proposals, and is asked for what to do next by
// [RawNode.Ready]: what to write, what to send, what to apply. The same inputs give the
// same outputs, byte for byte. It is not safe for concurrent use, and starts no
// goroutine. A [Node] is the same behind channels, with one goroutine that owns it.
//
//	for {
//		select {
//		case <-ticker.C:
//			node.Tick()
//		case rd := <-node.Ready():
//			save(rd.HardState, rd.Entries, rd.Snapshot) // durably, if rd.MustSync
//			send(rd.Messages)                           // only now
//			for _, e := range rd.CommittedEntries {
//				apply(e)                                // changes of membership also with node.ApplyConfChange
//			}
//			node.Advance()
//		}
//	}
//
// With [Config].AsyncStorageWrites the work for the disk and for the state machine comes
// as messages to two local threads, so that several writes may be in flight: see [Ready].
// There too, what must not leave before it is durable stands apart, as the responses of
// the write that it rests on: persist before reply is a matter of data, not of discipline.
//
// A node that finds its storage failing, or its log at odds with what was committed,
// stands still: it gives out nothing any more, and [RawNode.Err] says why.
//
// The design is that of etcd-raft, after the Raft paper (Ongaro and Ousterhout, extended
// version, 2014) and Ongaro's dissertation (2014). It differs where that is safer; each
// such place says why, and difference_test.go, which runs the two side by side, lists them.
//
// There are no lease-based reads. A lease must end before another node can be leader.
// The window of CheckQuorum does not do that: a deposed leader notices up to one election
// time-out after its last quorum, and a transfer of leadership, whose votes pass over
// every lease, makes a new leader at once. A lease that is sound needs clocks of bounded
// drift, and a core that has no clock cannot know that: ReadIndex costs one round of
// heartbeats, for any number of reads.
package raft

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"capsize/raftnode/raft/membership"
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
	// ErrStepLocalMsg: a message of a local type came from the network.
	ErrStepLocalMsg = errors.New("raft: local message from the network")
	// ErrStepPeerNotFound: a response came from a node that is no member.
	ErrStepPeerNotFound = errors.New("raft: response from a node that is no member")
	// ErrMisdirected: a message is for another node.
	ErrMisdirected = errors.New("raft: message for another node")
	// ErrMalformed: no correct node sends such a message.
	ErrMalformed = errors.New("raft: malformed message")
	// ErrUnsupported: the message is of a type that this program does not know.
	ErrUnsupported = errors.New("raft: unsupported message type")
)

// raft is the state machine proper. Roles differ by two functions, step and tick.
type raft struct {
	config   Config
	logger   Logger
	random   *rand.Rand
	log      *raftLog
	members  membership.Config
	progress tracker // of every member; it means something on a leader

	term   uint64
	vote   uint64
	role   Role
	leader uint64
	step   func(*raft, Message) error
	tick   func(*raft)

	electionElapsed  int // ticks; on a leader, since it last checked its quorum
	heartbeatElapsed int // ticks
	electionTimeout  int // ticks, of this election period

	votes map[uint64]quorum.Answer // in this campaign

	// On a leader.
	transferee  uint64 // to whom leadership is being handed; None: to nobody
	uncommitted uint64 // bytes of this term's proposals that are not applied
	// pendingConfIndex is where the newest change of membership may stand at most. Until that
	// is applied no other one is appended.
	pendingConfIndex uint64
	reads            readRounds
	scratch          []Entry // for appendOwn

	asked askedReads
	out   outbox
}

// outbox is what the node has to say and has not yet said. Persist before reply is a
// matter of which list a message stands in.
type outbox struct {
	atOnce []Message
	// afterPersist may leave, or come to this node itself, only when all that is unstable by
	// now is durable.
	afterPersist []Message
	readStates   []ReadState
}

// next empties the outbox, whose lists are in other hands now. Under load the next Ready is
// about as long as this one: room for it is made at once.
func (o *outbox) next() {
	const few = 8
	sent, waiting := len(o.atOnce), len(o.afterPersist)
	*o = outbox{}
	if sent > few {
		o.atOnce = make([]Message, 0, sent)
	}
	if waiting > few {
		o.afterPersist = make([]Message, 0, waiting)
	}
}

func newRaft(c Config) (*raft, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c.setDefaults()
	hard, conf, err := c.Storage.InitialState()
	if err != nil {
		return nil, fmt.Errorf("raft: read the initial state: %w", err)
	}
	log, err := newLog(c.Storage, hard.Commit, c.Applied, c.MaxCommittedSizePerReady)
	if err != nil {
		return nil, err
	}
	members, err := membership.Restore(conf)
	if err != nil {
		return nil, fmt.Errorf("raft: %w", err)
	}
	r := &raft{
		config: c, logger: c.Logger, random: rand.New(rand.NewPCG(c.Seed, c.ID)), log: log,
		term: hard.Term, vote: hard.Vote,
	}
	r.adopt(members)
	r.becomeFollower(r.term, None)
	return r, log.failure
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
			r.hup(false)
		case MsgVote, MsgPreVote:
			r.answerVote(m)
		case MsgStorageAppendResp:
			r.finishAppend(m)
		case MsgStorageApplyResp:
			r.finishApply(m)
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

// send puts a message into the outbox, on the list where it belongs.
func (r *raft) send(m Message) {
	if m.From == None {
		m.From = r.config.ID
	}
	switch m.Type {
	case MsgVote, MsgVoteResp, MsgPreVote, MsgPreVoteResp:
		assert(m.Term != 0, "%v is sent without a term", m.Type)
	case MsgProp, MsgReadIndex:
		assert(m.Term == 0, "%v is sent with term %d, but belongs to none", m.Type, m.Term)
	default:
		assert(m.Term == 0, "%v is sent with term %d, not the node's own", m.Type, m.Term)
		m.Term = r.term
	}
	switch m.Type {
	case MsgAppResp, MsgVoteResp, MsgPreVoteResp:
		// Refusals too: they bear a term that a crash must not take back.
		r.out.afterPersist = append(r.out.afterPersist, m)
	case MsgVote:
		// Figure 2 of the Raft paper has a candidate vote for itself and only then ask. In five
		// nodes, a candidate that asks first may be elected by three others, have one of them
		// append an entry, crash, and come back without the term. The others, who have voted for
		// it in that term already, do so again, and it leads the same term a second time, with
		// another entry at that index.
		r.out.afterPersist = append(r.out.afterPersist, m)
	default:
		assert(m.To != r.config.ID, "%v is sent to the node itself", m.Type)
		r.out.atOnce = append(r.out.atOnce, m)
	}
}

func (r *raft) becomeFollower(term, leader uint64) {
	if r.role == Leader {
		r.trace(Event{Kind: EventStepDown, Term: r.term})
	}
	r.role, r.step, r.tick = Follower, stepFollower, tickElection
	r.reset(term)
	r.leader = leader
	r.logger.Infof("node %d is follower in term %d", r.config.ID, term)
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
	r.transferee = None
	r.votes = make(map[uint64]quorum.Answer, len(r.progress))
	for i, p := range r.progress {
		r.progress[i] = r.newProgress(p.id, r.log.lastIndex()+1)
		if p.id == r.config.ID {
			r.progress[i].match = r.log.unstable.offset - 1
		}
	}
	r.pendingConfIndex = 0
	r.uncommitted = 0
	// What waited for this leader to confirm, or for another one to answer, is lost.
	r.reads = readRounds{}
	r.asked.open = nil
}

func (r *raft) newProgress(id, next uint64) *progress {
	return &progress{id: id, next: next, inflight: newInflight(r.config.MaxInflightMsgs, r.config.MaxInflightBytes)}
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
