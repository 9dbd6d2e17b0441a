// Package replica is one node of the replicated key-value store as a deterministic
// machine: consensus core, state machine and client requests in one.
//
// It has no clock, goroutine, file or socket. Its inputs are [Replica.Tick],
// [Replica.Receive], [Replica.Request] and [Replica.Persisted]; after each of them, or a
// handful, the caller takes [Replica.Output] while [Replica.HasOutput] and carries it
// out: first the trace, then disk writes, messages and replies, in any order among these.
// The same inputs give the same outputs. Package server drives a replica in real time, a
// simulator drives the same one in virtual time.
//
// Every request gets exactly one [Reply], by its deadline at the latest. A reply says
// [Refused] only where the request took no effect and never will.
package replica

import (
	"fmt"

	"capsize/raftnode/kv"
	"capsize/raftnode/raft"
	"capsize/raftnode/trace"
)

// Config is what a replica is made of.
type Config struct {
	ID            uint64
	Voters        []uint64
	Incarnation   uint64 // differs at each start of the node: what an earlier one asked for is not mistaken for this one's
	ElectionTick  int    // ticks; see raft.Config
	HeartbeatTick int
	Seed          uint64
	// Storage is what the node's disk holds. The replica keeps it up to date from then on:
	// it mirrors what is durable.
	Storage *raft.MemoryStorage
	Trace   bool // fill Output.Events
}

// Bounds. A request beyond MaxWaiting is refused.
const (
	MaxWaiting           = 4096 // writes and reads not yet replied to
	maxRounds            = 4    // read rounds in flight
	maxSizePerMsg        = 256 << 10
	maxInflightMsgs      = 1024
	maxUncommittedBytes  = 16 << 20
	maxCommittedPerReady = 1 << 20
)

// Output is what to do next.
type Output struct {
	// Events explain everything else in the Output: they are recorded first.
	Events []trace.Event
	// Writes go to the disk in order. Persisted is told of each when it is durable.
	Writes   []Write
	Messages []raft.Message
	Replies  []Reply
}

// Write is one disk write.
type Write struct {
	Number    uint64
	HardState raft.HardState // zero: unchanged
	Entries   []raft.Entry   // they replace whatever is stored at or after the first one's index
	// Sync says that it must be synced. Else it counts as durable as soon as all writes before
	// it are: only the commit index changed, or nothing did.
	Sync bool
}

// Replica is the machine. It is not safe for concurrent use.
type Replica struct {
	config  Config
	node    *raft.RawNode
	store   *kv.Store
	leader  uint64
	now     int // ticks since the start
	failure error

	writes  writes
	reads   reads
	number  uint64         // of the last disk write
	pending []pendingWrite // handed out and not yet durable, oldest first
	out     Output
	tracer  tracer
}

// pendingWrite is a disk write in flight with the messages that rest on it.
type pendingWrite struct {
	Write
	responses []raft.Message
}

// New returns a replica that goes on from what its storage holds. Its state machine is
// empty at first: committed entries are applied again from the first.
func New(config Config) (*Replica, error) {
	r := &Replica{config: config, store: kv.New()}
	if err := r.tracer.init(r); err != nil {
		return nil, err
	}
	config.Storage.SetConfState(raft.ConfState{Voters: config.Voters})
	c := raft.Config{
		ID: config.ID, ElectionTick: config.ElectionTick, HeartbeatTick: config.HeartbeatTick,
		Storage: config.Storage, AsyncStorageWrites: true, MaxSizePerMsg: maxSizePerMsg, MaxInflightMsgs: maxInflightMsgs,
		MaxUncommittedEntriesSize: maxUncommittedBytes, MaxCommittedSizePerReady: maxCommittedPerReady,
		PreVote: true, CheckQuorum: true, Seed: config.Seed,
	}
	if config.Trace {
		c.Trace = r.tracer.core
	}
	var err error
	if r.node, err = raft.NewRawNode(c); err != nil {
		return nil, err
	}
	return r, nil
}

// Err returns why the replica can go on no more. Once it is set there is no Output: what
// it would say rests on a state that is wrong.
func (r *Replica) Err() error { return r.failure }

func (r *Replica) fail(err error) {
	if r.failure == nil && err != nil {
		r.failure = fmt.Errorf("replica %d: %w", r.config.ID, err)
		r.out = Output{}
	}
}

// Tick advances time by one tick.
func (r *Replica) Tick() {
	if r.failure != nil {
		return
	}
	r.now++
	r.node.Tick()
	r.expireWrites()
	r.expireReads()
	r.checkCore()
}

// Receive takes a message from another node. What is not for this node, or from none of
// its peers, is ignored.
func (r *Replica) Receive(m raft.Message) {
	if r.failure != nil || m.To != r.config.ID || m.From == r.config.ID {
		return
	}
	r.tracer.received(m)
	// The core says why it did not take a message: a stranger's, a proposal while there is no
	// leader. To the sender all of that is a message lost.
	_ = r.node.Step(m)
	r.checkCore()
}

func (r *Replica) checkCore() { r.fail(r.node.Err()) }

// Persisted tells that a write is durable. Writes become durable in the order of their
// numbers.
func (r *Replica) Persisted(number uint64) {
	if r.failure != nil {
		return
	}
	if len(r.pending) == 0 || r.pending[0].Number != number {
		r.fail(fmt.Errorf("disk write %d finished out of order", number))
		return
	}
	write := r.pending[0]
	r.pending = r.pending[1:]
	if write.HardState != (raft.HardState{}) {
		r.config.Storage.SetHardState(write.HardState)
	}
	if err := r.config.Storage.Append(write.Entries); err != nil {
		r.fail(err)
		return
	}
	r.tracer.persisted(write.Write)
	for _, m := range write.responses {
		if m.To != r.config.ID {
			r.send(m)
			continue
		}
		// The node's own votes and acknowledgements count from here on. What is not taken belongs
		// to a campaign or a term that is over.
		_ = r.node.Step(m)
	}
	r.checkCore()
}

func (r *Replica) send(m raft.Message) {
	r.tracer.sending(m)
	r.out.Messages = append(r.out.Messages, m)
}

// HasOutput reports whether Output has anything to say.
func (r *Replica) HasOutput() bool {
	return r.failure == nil && (r.node.HasReady() || r.canStartRound() || len(r.writes.fresh) > 0 ||
		len(r.out.Events)+len(r.out.Messages)+len(r.out.Replies) > 0)
}

// Output returns what to do next. It counts as taken. A node that has much to apply says
// it in several Outputs.
func (r *Replica) Output() Output {
	if r.failure != nil {
		return Output{}
	}
	r.proposeFresh()
	r.startRounds()
	if r.node.HasReady() {
		r.take(r.node.Ready())
		r.checkCore()
	}
	out := r.out
	r.out = Output{}
	return out
}

// take carries out what the core wants done, as far as that needs nobody else.
func (r *Replica) take(rd raft.Ready) {
	for _, m := range rd.Messages {
		switch m.Type {
		case raft.MsgStorageAppend:
			r.number++
			write := Write{Number: r.number, HardState: rd.HardState, Entries: rd.Entries, Sync: rd.MustSync}
			r.pending = append(r.pending, pendingWrite{write, m.Responses})
			r.out.Writes = append(r.out.Writes, write)
		case raft.MsgStorageApply:
			for _, e := range m.Entries {
				r.apply(e)
			}
			for _, response := range m.Responses {
				r.fail(r.node.Step(response))
			}
		default:
			r.send(m)
		}
	}
	for _, state := range rd.ReadStates {
		r.confirmRound(state)
	}
	r.serveReads()
	if rd.SoftState != nil {
		r.leaderChanged(rd.SoftState.Lead)
	}
}

func (r *Replica) apply(e raft.Entry) {
	tag, command := splitTag(e.Data)
	result := r.store.Apply(e.Index, command)
	r.tracer.applied(e, r.store.Digest())
	if tag.node == r.config.ID && tag.incarnation == r.config.Incarnation {
		r.replyToWrite(tag.number, result)
	}
}

// leaderChanged asks the new leader for what was asked of the old one: it may never have
// got it, or have lost it. Without a leader there is nobody to ask.
func (r *Replica) leaderChanged(leader uint64) {
	if leader == r.leader {
		return
	}
	r.leader = leader
	r.restartRounds()
	if leader != raft.None {
		r.proposeAgain(func(*write) bool { return true })
	}
}

// Status is how the replica sees itself and the cluster.
type Status struct {
	ID, Term, Leader, Commit, Applied uint64 // Leader is 0 where none is known
	Role                              raft.Role
	Waiting                           int // requests not replied to
}

// Status returns how the replica sees itself and the cluster.
func (r *Replica) Status() Status {
	s := r.node.BasicStatus()
	return Status{
		ID: s.ID, Term: s.Term, Leader: s.Lead, Commit: s.Commit, Applied: r.store.Applied(), Role: s.RaftState,
		Waiting: r.waiting(),
	}
}

// Digest returns the state machine's digest at Status.Applied.
func (r *Replica) Digest() uint64 { return r.store.Digest() }
