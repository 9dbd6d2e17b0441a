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
	"cmp"
	"errors"
	"fmt"
	"slices"

	"capsize/raftnode/kv"
	"capsize/raftnode/raft"
	"capsize/raftnode/trace"
)

// Config is what a replica is made of.
type Config struct {
	ID uint64
	// Members are the first members of a new cluster, this one too, by ID from 1: the same list
	// on each. They count where the storage is empty. Without them a new node waits until a
	// leader brings it into its cluster.
	Members       []Member
	Incarnation   uint64 // differs at each start of the node: what an earlier one asked for is not mistaken for this one's
	ElectionTick  int    // ticks; see raft.Config
	HeartbeatTick int
	Seed          uint64
	// Storage is what the node's disk holds. The replica keeps it up to date from then on:
	// it mirrors what is durable.
	Storage *raft.MemoryStorage
	// Store is the state machine as of the storage's snapshot; nil where there is none.
	Store *kv.Store
	// A snapshot is taken after so many entries, or bytes of entries; KeepEntries before it stay
	// in the log, for members that are a little behind. 0 means the defaults.
	SnapshotEntries, SnapshotBytes, KeepEntries uint64
	Trace                                       bool // fill Output.Events
}

const (
	defaultSnapshotEntries = 100_000
	defaultSnapshotBytes   = 64 << 20
	defaultKeepEntries     = 10_000
)

// Bounds. A request beyond MaxWaiting is refused.
const (
	MaxWaiting           = 4096 // requests not yet replied to
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
	// Sends are MsgSnaps: the saved snapshot's content goes with each, as a stream.
	// SnapshotSent is told what came of it.
	Sends   []raft.Message
	Replies []Reply
	// Members, unless nil, are those there are from now on, to be reached at their addresses.
	Members *Members
	// Take is a snapshot to save; SnapshotSaved is told. There is one at a time.
	Take *Snapshot
	// Compact, unless it is 0, is up to where the log is needed no more.
	Compact uint64
}

// Write is one disk write.
type Write struct {
	Number    uint64
	HardState raft.HardState // zero: unchanged
	// Snapshot, if there is one, replaces the whole log. Its content is saved already.
	Snapshot *raft.Snapshot
	Entries  []raft.Entry // they replace whatever is stored at or after the first one's index
	// Sync says that it must be synced. Else it counts as durable as soon as all writes before
	// it are: only the commit index changed, or nothing did.
	Sync bool
}

// Replica is the machine. It is not safe for concurrent use.
type Replica struct {
	config  Config
	node    *raft.RawNode
	store   *kv.Store
	state   state
	joint   tag // whose change made the configuration joint that is in force
	leader  uint64
	now     int // ticks since the start
	failure error

	writes    writes
	reads     reads
	errands   []*errand
	snapshots snapshots
	number    uint64         // of the last disk write
	pending   []pendingWrite // handed out and not yet durable, oldest first
	out       Output
	tracer    tracer
}

// pendingWrite is a disk write in flight with the messages that rest on it.
type pendingWrite struct {
	Write
	content   *arrival // of its snapshot
	responses []raft.Message
}

// New returns a replica that goes on from what its storage holds. Committed entries after
// the storage's snapshot are applied again.
func New(config Config) (*Replica, error) {
	config.SnapshotEntries = cmp.Or(config.SnapshotEntries, defaultSnapshotEntries)
	config.SnapshotBytes = cmp.Or(config.SnapshotBytes, defaultSnapshotBytes)
	config.KeepEntries = cmp.Or(config.KeepEntries, defaultKeepEntries)
	r := &Replica{config: config}
	if err := r.restore(); err != nil {
		return nil, fmt.Errorf("replica %d: %w", config.ID, err)
	}
	if err := r.tracer.init(r); err != nil {
		return nil, err
	}
	c := raft.Config{
		ID: config.ID, ElectionTick: config.ElectionTick, HeartbeatTick: config.HeartbeatTick,
		Storage: config.Storage, AsyncStorageWrites: true, MaxSizePerMsg: maxSizePerMsg, MaxInflightMsgs: maxInflightMsgs,
		MaxUncommittedEntriesSize: maxUncommittedBytes, MaxCommittedSizePerReady: maxCommittedPerReady,
		PreVote: true, CheckQuorum: true, StepDownOnRemoval: true, Seed: config.Seed,
	}
	if config.Trace {
		c.Trace = r.tracer.core
	}
	var err error
	if r.node, err = raft.NewRawNode(c); err != nil {
		return nil, err
	}
	if fresh, err := r.fresh(); err != nil || !fresh || len(config.Members) == 0 {
		return r, err
	}
	r.tracer.bootstrapping = true
	err = r.node.Bootstrap(bootstrap(config.Members))
	r.tracer.bootstrapping = false
	return r, err
}

// restore takes what the storage's snapshot says.
func (r *Replica) restore() error {
	snapshot, err := r.config.Storage.Snapshot()
	if errors.Is(err, raft.ErrSnapshotTemporarilyUnavailable) {
		r.store = kv.New()
		return nil
	}
	if err != nil {
		return err
	}
	index := snapshot.Metadata.Index
	if r.config.Store == nil || r.config.Store.Applied() != index {
		return fmt.Errorf("the state machine is not that of the snapshot at %d", index)
	}
	r.store, r.snapshots.taken = r.config.Store, index
	if r.state, err = decodeState(snapshot); err != nil {
		return fmt.Errorf("snapshot at %d: %w", index, err)
	}
	r.tellMembers()
	return nil
}

// fresh reports whether the node has never stored anything.
func (r *Replica) fresh() (bool, error) {
	hard, _, err := r.config.Storage.InitialState()
	last, lastErr := r.config.Storage.LastIndex()
	return hard == raft.HardState{} && last == 0, errors.Join(err, lastErr)
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
	r.expireErrands()
	r.checkCore()
}

// Receive takes a message from another node. What is not for this node, or from none of
// its peers, is ignored. A snapshot comes with its content, by ReceiveSnapshot.
func (r *Replica) Receive(m raft.Message) {
	if r.failure != nil || m.To != r.config.ID || m.From == r.config.ID || m.Type == raft.MsgSnap {
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
	if write.Snapshot != nil {
		r.install(write.Snapshot, write.content)
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
		len(r.out.Events)+len(r.out.Messages)+len(r.out.Sends)+len(r.out.Replies) > 0 ||
		r.out.Members != nil || r.out.Take != nil || r.out.Compact > 0)
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
	r.snapshots.arrived = nil // the core has taken it by now, or does not need it
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
			write := Write{Number: r.number, HardState: rd.HardState, Snapshot: rd.Snapshot, Entries: rd.Entries, Sync: rd.MustSync}
			pending := pendingWrite{Write: write, responses: m.Responses}
			if rd.Snapshot != nil {
				pending.content = r.snapshots.arrival(rd.Snapshot.Metadata.Index)
			}
			r.pending = append(r.pending, pending)
			r.out.Writes = append(r.out.Writes, write)
		case raft.MsgStorageApply:
			for _, e := range m.Entries {
				r.apply(e)
			}
			for _, response := range m.Responses {
				r.fail(r.node.Step(response))
			}
			r.takeSnapshot(false)
		case raft.MsgSnap:
			r.sendSnapshot(m)
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
	if r.failure != nil {
		return
	}
	r.state.hash = trace.Chain(r.state.hash, e.Term, e.Data)
	r.snapshots.entries++
	r.snapshots.bytes += uint64(len(e.Data))
	if e.Type != raft.EntryNormal {
		r.store.Apply(e.Index, nil)
		r.tracer.applied(e, r.state.hash, r.store.Digest())
		r.applyConfChange(e)
		return
	}
	tag, command := splitTag(e.Data)
	result := r.store.Apply(e.Index, command)
	r.tracer.applied(e, r.state.hash, r.store.Digest())
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
	r.finishTransfers()
	r.restartRounds()
	if leader != raft.None {
		r.proposeAgain(func(*write) bool { return true })
	}
}

// Status is how the replica sees itself and the cluster.
type Status struct {
	ID, Term, Leader, Commit, Applied uint64 // Leader is 0 where none is known
	Role                              raft.Role
	Transferee                        uint64 // on the leader: whom it is handing over to, if to anybody
	Waiting                           int    // requests not replied to
	Snapshot                          uint64 // index of the newest one that is durable
}

// MemberStatus is a member, and what the leader knows of it.
type MemberStatus struct {
	Member
	Voter bool // else a learner
	// Joint: it is a voter before or after a change of membership that is under way, not both.
	Joint bool
	Match uint64 // on the leader: the last entry known to be durable there
}

// Status returns how the replica sees itself and the cluster.
func (r *Replica) Status() Status {
	s := r.node.BasicStatus()
	return Status{
		ID: s.ID, Term: s.Term, Leader: s.Lead, Commit: s.Commit, Applied: r.store.Applied(), Role: s.RaftState,
		Transferee: s.LeadTransferee, Waiting: r.waiting(), Snapshot: r.snapshots.taken,
	}
}

// Members returns the members as of the last applied entry.
func (r *Replica) Members() []MemberStatus {
	conf := r.state.conf
	match := map[uint64]uint64{}
	if r.node.BasicStatus().RaftState == raft.Leader {
		r.node.WithProgress(func(p raft.Progress) { match[p.ID] = p.Match })
	}
	list := make([]MemberStatus, len(r.state.members.List))
	for i, m := range r.state.members.List {
		now, before := slices.Contains(conf.Voters, m.ID), slices.Contains(conf.VotersOutgoing, m.ID)
		list[i] = MemberStatus{Member: m, Voter: now || before, Joint: len(conf.VotersOutgoing) > 0 && now != before, Match: match[m.ID]}
	}
	return list
}

// Digest returns the state machine's digest at Status.Applied.
func (r *Replica) Digest() uint64 { return r.store.Digest() }
