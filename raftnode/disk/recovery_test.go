package disk_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"capsize/raftnode/disk"
	"capsize/raftnode/files"
	"capsize/raftnode/files/crashfs"
	"capsize/raftnode/internal/race"
	"capsize/raftnode/kv"
	"capsize/raftnode/raft"
	"capsize/raftnode/replica"
)

// world is a cluster of three in virtual time. Each node has a disk; that of node 1 crashes
// at a chosen operation, and the node with it.
type world struct {
	t        *testing.T
	nodes    map[uint64]*machine
	wires    []raft.Message
	streams  []stream
	cut      bool // node 1 hears nothing and is not heard
	requests uint64
	promises promises
}

type stream struct {
	message raft.Message
	content []byte
}

type machine struct {
	id      uint64
	fs      *crashfs.FS
	disk    *disk.Disk
	replica *replica.Replica // nil: crashed
	log     map[uint64]uint64
}

// promises are what node 1 has said to others.
type promises struct {
	term  uint64            // the greatest that it acted in
	votes map[uint64]uint64 // by term
	acked map[uint64]uint64 // entries that it said it has, with their terms
}

var members = []replica.Member{{ID: 1, Name: "n1"}, {ID: 2, Name: "n2"}, {ID: 3, Name: "n3"}}

func newWorld(t *testing.T, fs *crashfs.FS) *world {
	w := &world{t: t, nodes: map[uint64]*machine{}, promises: promises{votes: map[uint64]uint64{}, acked: map[uint64]uint64{}}}
	for id := uint64(1); id <= 3; id++ {
		m := &machine{id: id, fs: crashfs.New(0)}
		if id == 1 {
			m.fs = fs
		}
		w.nodes[id] = m
		w.start(m)
	}
	return w
}

// start brings a node up; it stays down where its disk crashes meanwhile.
func (w *world) start(m *machine) {
	w.t.Helper()
	err := func() (err error) {
		m.disk, err = disk.Open(disk.Options{FS: files.FS(m.fs), Dir: "data", Cluster: "test", Node: m.id, SegmentBytes: 1500, AllocateBytes: 512})
		if err != nil {
			return err
		}
		var store *kv.Store
		m.log = map[uint64]uint64{}
		if s, err := m.disk.Storage().Snapshot(); err == nil {
			_, content, err := m.disk.LoadSnapshot(s.Metadata.Index)
			if err != nil {
				return err
			}
			if store, err = kv.Restore(content); err != nil {
				return err
			}
			m.log[s.Metadata.Index] = s.Metadata.Term
		}
		m.replica, err = replica.New(replica.Config{
			ID: m.id, Members: members, Incarnation: m.disk.Incarnation(), ElectionTick: 10, HeartbeatTick: 1, Seed: m.disk.Incarnation(),
			Storage: m.disk.Storage(), Store: store, SnapshotEntries: 12, KeepEntries: 4,
		})
		return err
	}()
	w.endure(m, err)
	w.drain(m)
}

// endure takes a crash for what it is, and nothing else.
func (w *world) endure(m *machine, err error) {
	w.t.Helper()
	if err != nil && !errors.Is(err, crashfs.ErrCrashed) {
		w.t.Fatalf("node %d: %v", m.id, err)
	}
	if err != nil {
		m.replica = nil
	}
}

func (w *world) drain(m *machine) {
	w.t.Helper()
	for m.replica != nil && m.replica.HasOutput() {
		w.endure(m, w.carryOut(m, m.replica.Output()))
	}
	if m.replica != nil && m.replica.Err() != nil {
		w.t.Fatalf("node %d: %v", m.id, m.replica.Err())
	}
}

// carryOut does what package server does, one after the other.
func (w *world) carryOut(m *machine, out replica.Output) error {
	for _, message := range out.Messages {
		w.send(m, message)
	}
	for _, message := range out.Sends {
		_, content, err := m.disk.LoadSnapshot(message.Snapshot.Metadata.Index)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(content)
		if err != nil {
			return err
		}
		w.streams = append(w.streams, stream{message, data})
	}
	for _, write := range out.Writes {
		if err := m.disk.Append(write.HardState, write.Snapshot, write.Entries); err != nil {
			return err
		}
		if write.Sync {
			if err := m.disk.Sync(); err != nil {
				return err
			}
		}
		if write.Snapshot != nil {
			if err := m.disk.Tidy(); err != nil {
				return err
			}
		}
		w.remember(m, write)
		m.replica.Persisted(write.Number)
	}
	if out.Take != nil {
		write := func(to io.Writer) error { _, err := out.Take.View.WriteTo(to); return err }
		if err := errors.Join(m.disk.SaveSnapshot(out.Take.Snapshot, write), m.disk.Taken(out.Take.Metadata)); err != nil {
			return err
		}
		m.replica.SnapshotSaved()
	}
	if out.Compact > 0 {
		return m.disk.Compact(out.Compact)
	}
	return nil
}

// remember keeps the terms of a node's log, and what it takes back of its promises with it.
func (w *world) remember(m *machine, write replica.Write) {
	if s := write.Snapshot; s != nil {
		m.log = map[uint64]uint64{s.Metadata.Index: s.Metadata.Term}
		if m.id == 1 {
			clear(w.promises.acked)
		}
	}
	for i, e := range write.Entries {
		if i == 0 && m.id == 1 {
			for index := range w.promises.acked {
				if index >= e.Index {
					delete(w.promises.acked, index) // a later leader replaced it
				}
			}
		}
		m.log[e.Index] = e.Term
	}
}

func (w *world) send(m *machine, message raft.Message) {
	if m.id == 1 {
		p := &w.promises
		switch message.Type {
		case raft.MsgVote, raft.MsgVoteResp, raft.MsgApp, raft.MsgAppResp, raft.MsgHeartbeat, raft.MsgSnap:
			p.term = max(p.term, message.Term) // the others promise nothing
		}
		switch {
		case message.Type == raft.MsgVoteResp && !message.Reject:
			p.votes[message.Term] = message.To
		case message.Type == raft.MsgVote:
			p.votes[message.Term] = 1
		case message.Type == raft.MsgAppResp && !message.Reject && message.Index > 0:
			for index, term := range m.log {
				if index <= message.Index {
					p.acked[index] = term
				}
			}
		}
	}
	w.wires = append(w.wires, message)
}

func (w *world) tick() {
	wires, streams := w.wires, w.streams
	w.wires, w.streams = nil, nil
	for _, message := range wires {
		if to := w.nodes[message.To]; to.replica != nil && !(w.cut && (message.From == 1 || message.To == 1)) {
			to.replica.Receive(message)
			w.drain(to)
		}
	}
	for _, s := range streams {
		w.arrive(s)
	}
	for id := uint64(1); id <= 3; id++ {
		if m := w.nodes[id]; m.replica != nil {
			m.replica.Tick()
			w.drain(m)
		}
	}
}

func (w *world) arrive(s stream) {
	to, from := w.nodes[s.message.To], w.nodes[s.message.From]
	arrived := to.replica != nil && !(w.cut && (to.id == 1 || from.id == 1))
	if arrived {
		var store *kv.Store
		err := to.disk.SaveSnapshot(s.message.Snapshot, func(out io.Writer) error { _, err := out.Write(s.content); return err })
		if err == nil {
			_, content, openErr := to.disk.LoadSnapshot(s.message.Snapshot.Metadata.Index)
			if openErr != nil {
				w.t.Fatal(openErr)
			}
			if store, err = kv.Restore(content); err != nil {
				w.t.Fatal(err)
			}
		}
		w.endure(to, err)
		if arrived = to.replica != nil; arrived {
			to.replica.ReceiveSnapshot(s.message, store)
			w.drain(to)
		}
	}
	if from.replica != nil {
		from.replica.SnapshotSent(to.id, arrived)
		w.drain(from)
	}
}

// run lets time pass, with a write every other tick on whichever node is up.
func (w *world) run(ticks int) {
	for i := range ticks {
		if m := w.nodes[1+uint64(i)%3]; i%2 == 0 && m.replica != nil {
			w.requests++
			m.replica.Request(replica.Request{
				ID: w.requests, Ticks: 20,
				Command: kv.Command{Op: kv.Put, Key: fmt.Sprint(w.requests % 5), Value: fmt.Sprint(w.requests)},
			})
			w.drain(m)
		}
		w.tick()
	}
}

// script makes node 1 do all that its disk knows: elections, following, a snapshot of its
// own, one of a leader's, a restart.
func (w *world) script() {
	w.run(60)
	w.cut = true
	w.run(60) // the others go on without it
	w.cut = false
	w.run(60) // a snapshot brings it back
	if m := w.nodes[1]; m.replica != nil {
		w.endure(m, m.disk.Close())
		w.start(m) // a restart in good order
	}
	w.run(60)
}

// broken says which promise of node 1 its disk does not keep.
func (w *world) broken() string {
	m, p := w.nodes[1], w.promises
	hard, _, err := m.disk.Storage().InitialState()
	if err != nil {
		return err.Error()
	}
	if hard.Term < p.term {
		return fmt.Sprintf("it is back in term %d, and has acted in term %d", hard.Term, p.term)
	}
	if voted, did := p.votes[hard.Term]; did && voted != hard.Vote {
		return fmt.Sprintf("in term %d it voted for %d, and remembers %d", hard.Term, voted, hard.Vote)
	}
	first, _ := m.disk.Storage().FirstIndex()
	for index, term := range p.acked {
		got, err := m.disk.Storage().Term(index)
		if index >= first && (err != nil || got != term) {
			return fmt.Sprintf("it acknowledged entry %d of term %d, and has term %d, %v", index, term, got, err)
		}
	}
	return ""
}

// settled reports whether all nodes have applied the same.
func (w *world) settled() bool {
	first := w.nodes[1].replica
	for _, m := range w.nodes {
		s := m.replica.Status()
		if s.Leader == raft.None || s.Applied < 40 || s.Applied != s.Commit || s.Applied != first.Status().Applied || m.replica.Digest() != first.Digest() {
			return false
		}
	}
	return true
}

// The node crashes in the middle of each write, sync, creation, renaming and removal of its
// life. Whatever the disk then holds, the node starts again, keeps every promise that it had
// made to others, and takes part again.
func TestANodeThatCrashesAtAnyOperationKeepsItsPromisesAndRejoins(t *testing.T) {
	dry := crashfs.New(0)
	newWorld(t, dry).script()
	operations := dry.Operations()
	if operations < 150 {
		t.Fatalf("only %d operations to crash at", operations)
	}
	step := 1
	if race.Enabled {
		step = 7 // CI runs all of them without the race detector, too
	}
	installed := 0
	for at := 1; at <= operations; at += step {
		for seed := range uint64(2) {
			fs := crashfs.New(seed)
			fs.CrashAt(at)
			w := newWorld(t, fs)
			w.script()
			if w.nodes[1].replica != nil {
				t.Fatalf("crash at %d, seed %d: it did not crash", at, seed)
			}
			fs.Restart()
			w.start(w.nodes[1])
			if broken := w.broken(); broken != "" {
				t.Fatalf("crash at %d, seed %d: %s", at, seed, broken)
			}
			for ticks := 0; !w.settled(); ticks++ {
				if ticks == 400 {
					t.Fatalf("crash at %d, seed %d: the cluster did not come together again", at, seed)
				}
				w.tick()
			}
			if w.nodes[1].replica.Status().Snapshot > 0 {
				installed++
			}
		}
	}
	t.Logf("%d operations; %d lives went on with a snapshot", operations, installed)
	if installed == 0 {
		t.Error("no life had a snapshot")
	}
}
