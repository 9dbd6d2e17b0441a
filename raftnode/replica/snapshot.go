package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"capsize/raftnode/internal/varint"
	"capsize/raftnode/kv"
	"capsize/raftnode/raft"
	"capsize/raftnode/raft/membership"
	"capsize/raftnode/trace"
)

// Snapshot is a snapshot to save: what raft knows of it, and the content, which is to be
// written with View.WriteTo by whatever goroutine.
type Snapshot struct {
	*raft.Snapshot
	View  *kv.View
	state state // which its data encodes
}

// state is what the replica keeps beside the state machine, as of the last applied entry.
// It is the data of a raft snapshot.
type state struct {
	hash    uint64 // of the log so far
	members Members
	conf    raft.ConfState
}

// nextConf returns the configuration after a change: a function of the log alone, which the
// core's is not while a new cluster begins.
func (s *state) nextConf(change raft.ConfChangeV2) (raft.ConfState, error) {
	var present membership.Config
	if len(s.conf.Voters) > 0 {
		var err error
		if present, err = membership.Restore(s.conf); err != nil {
			return raft.ConfState{}, err
		}
	}
	next, err := change.Next(present)
	return next.State(), err
}

func (s *state) encode() []byte {
	b := binary.LittleEndian.AppendUint64(nil, s.hash)
	b = binary.AppendUvarint(b, s.members.Last)
	return appendMembers(b, s.members.List)
}

func decodeState(s *raft.Snapshot) (state, error) {
	b := s.Data
	if len(b) < 8 {
		return state{}, errors.New("snapshot without a chain hash")
	}
	decoded := state{hash: binary.LittleEndian.Uint64(b), conf: s.Metadata.ConfState}
	in := varint.NewReader(b[8:])
	last := in.Next()
	list, err := decodeMembers(in)
	if err != nil {
		return state{}, err
	}
	decoded.members = Members{List: list, Last: last}
	return decoded, nil
}

// snapshots says when the next one is due.
type snapshots struct {
	taken   uint64 // index of the last one that is durable
	entries uint64 // applied since the last one was begun
	bytes   uint64
	saving  *Snapshot // handed out, not yet durable
	// arrived are the contents of those that the core may take in its next Ready: mostly one.
	arrived []*arrival
}

// arrival returns the content of a snapshot that the core takes.
func (q *snapshots) arrival(index uint64) *arrival {
	for _, a := range q.arrived {
		if a.index == index {
			return a
		}
	}
	panic(fmt.Sprintf("replica: the core takes a snapshot at %d that never arrived", index))
}

type arrival struct {
	index uint64
	state state
	store *kv.Store
}

// takeSnapshot begins a snapshot of the present state if one is due, or wanted. It costs
// constant time: the view is written out by others while the replica goes on.
func (r *Replica) takeSnapshot(wanted bool) {
	q := &r.snapshots
	due := q.entries >= r.config.SnapshotEntries || q.bytes >= r.config.SnapshotBytes
	index := r.store.Applied()
	if !due && !wanted || q.saving != nil || index <= q.taken {
		return
	}
	term, err := r.config.Storage.Term(index)
	if err != nil {
		r.fail(fmt.Errorf("take a snapshot at %d: %w", index, err))
		return
	}
	q.entries, q.bytes = 0, 0
	q.saving = &Snapshot{
		Snapshot: &raft.Snapshot{
			Data:     r.state.encode(),
			Metadata: raft.SnapshotMetadata{Index: index, Term: term, ConfState: r.state.conf},
		},
		View: r.store.View(), state: r.state,
	}
	r.out.Take = q.saving
}

// SnapshotSaved tells that the snapshot in Output.Take is durable. The log then loses the
// entries that no node is likely to need any more.
func (r *Replica) SnapshotSaved() {
	saved := r.snapshots.saving
	r.snapshots.saving = nil
	if r.failure != nil || saved == nil {
		return
	}
	meta := saved.Metadata
	if meta.Index <= r.snapshots.taken {
		return // a newer one came from the leader meanwhile
	}
	if _, err := r.config.Storage.CreateSnapshot(meta.Index, meta.ConfState, saved.Data); err != nil {
		r.fail(err)
		return
	}
	r.snapshots.taken = meta.Index
	r.tracer.snapshot(trace.SnapTake, meta, saved.state.hash, saved.View.Digest())
	r.compact(meta.Index - min(meta.Index, r.config.KeepEntries))
	r.finishErrands(func(e *errand) bool { return e.kind == TakeSnapshot }, Reply{Outcome: Done})
}

// compact drops the entries up to index.
func (r *Replica) compact(index uint64) {
	first, err := r.config.Storage.FirstIndex()
	if err == nil && index >= first {
		err = r.config.Storage.Compact(index)
	}
	if err != nil {
		r.fail(err)
		return
	}
	if index >= first {
		r.out.Compact = index
		r.tracer.compacted(index)
	}
}

// ReceiveSnapshot takes a MsgSnap whose content has arrived: store is what it made. It is
// durable, to be found by its index.
func (r *Replica) ReceiveSnapshot(m raft.Message, store *kv.Store) {
	if r.failure != nil || m.To != r.config.ID || m.From == r.config.ID || m.Type != raft.MsgSnap || m.Snapshot == nil {
		return
	}
	state, err := decodeState(m.Snapshot)
	if index := m.Snapshot.Metadata.Index; err == nil && store.Applied() == index {
		r.snapshots.arrived = append(r.snapshots.arrived, &arrival{index: index, state: state, store: store})
		// What the core does not take it does not need: it is behind no more, or the sender leads
		// no more.
		_ = r.node.Step(m)
		r.checkCore()
	}
}

// sendSnapshot has a snapshot sent, unless it is older than its receiver's membership: in a
// configuration without itself a node refuses it. A new one is taken then, and the core
// asks again.
func (r *Replica) sendSnapshot(m raft.Message) {
	if members, err := membership.Restore(m.Snapshot.Metadata.ConfState); err == nil && members.Contains(m.To) {
		r.out.Sends = append(r.out.Sends, m)
		return
	}
	r.takeSnapshot(true)
	r.SnapshotSent(m.To, false)
}

// SnapshotSent tells what became of a message in Output.Sends.
func (r *Replica) SnapshotSent(to uint64, arrived bool) {
	if r.failure != nil {
		return
	}
	status := raft.SnapshotFailure
	if arrived {
		status = raft.SnapshotFinish
	}
	r.node.ReportSnapshot(to, status)
	r.checkCore()
}

func (r *Replica) tellMembers() {
	members := r.state.members
	r.out.Members = &members
}

// install puts the state of a snapshot in force that is durable by now.
func (r *Replica) install(s *raft.Snapshot, a *arrival) {
	if err := r.config.Storage.ApplySnapshot(s); err != nil {
		r.fail(err)
		return
	}
	r.store, r.state = a.store, a.state
	r.snapshots.taken, r.snapshots.entries, r.snapshots.bytes = s.Metadata.Index, 0, 0
	r.tellMembers()
}
