package raft

import (
	"testing"

	etcd "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// BenchmarkCommit proposes 128 bytes on a leader and carries everything out on three nodes
// in memory until all of them have applied it; once for this package, once for
// go.etcd.io/raft, under the same driver.
func BenchmarkCommit(b *testing.B) {
	for name, atOnce := range map[string]int{"1 at a time": 1, "64 at a time": 64} {
		b.Run(name+"/capsize", func(b *testing.B) { benchmarkCommit(b, newOwnBenchNode, atOnce) })
		b.Run(name+"/etcd", func(b *testing.B) { benchmarkCommit(b, newShadowBenchNode, atOnce) })
	}
}

// benchNode is a node of either package with its storage.
type benchNode interface {
	HasReady() bool
	Campaign() error
	Propose(data []byte) error
	// carryOut does what one Ready says, and returns how many proposals that applied.
	carryOut(peers []benchNode) int
	// trim keeps the log short: a benchmark of millions must not measure the memory's growth.
	trim()
}

const (
	trimAt   = 20_000
	trimKeep = 1000
)

var benchVoters = []uint64{1, 2, 3}

func benchmarkCommit(b *testing.B, newNode func(b *testing.B, id uint64) benchNode, atOnce int) {
	nodes := make([]benchNode, len(benchVoters))
	for i, id := range benchVoters {
		nodes[i] = newNode(b, id)
	}
	settle := func() (applied int) {
		for busy := true; busy; {
			busy = false
			for _, node := range nodes {
				if node.HasReady() {
					applied += node.carryOut(nodes)
					busy = true
				}
			}
		}
		return applied
	}
	must(b, nodes[0].Campaign())
	settle()
	data := make([]byte, 128)
	applied := 0
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += atOnce {
		for range min(atOnce, b.N-n) {
			must(b, nodes[0].Propose(data))
		}
		applied += settle()
		for _, node := range nodes {
			node.trim()
		}
	}
	b.StopTimer()
	if want := len(nodes) * b.N; applied != want {
		b.Fatalf("%d proposals were applied, not %d", applied, want)
	}
}

type ownBenchNode struct {
	*RawNode
	disk *MemoryStorage
}

func newOwnBenchNode(b *testing.B, id uint64) benchNode {
	disk := NewMemoryStorage()
	disk.SetConfState(ConfState{Voters: benchVoters})
	node, err := NewRawNode(Config{
		ID: id, ElectionTick: 10, HeartbeatTick: 1, Storage: disk, MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 256,
	})
	must(b, err)
	return &ownBenchNode{node, disk}
}

func (n *ownBenchNode) carryOut(peers []benchNode) (applied int) {
	rd := n.Ready()
	if rd.HardState != (HardState{}) {
		n.disk.SetHardState(rd.HardState)
	}
	if err := n.disk.Append(rd.Entries); err != nil {
		panic(err)
	}
	for _, e := range rd.CommittedEntries {
		if len(e.Data) > 0 {
			applied++
		}
	}
	n.Advance()
	for _, m := range rd.Messages {
		_ = peers[m.To-1].(*ownBenchNode).Step(m) // refused: lost
	}
	return applied
}

func (n *ownBenchNode) trim() {
	applied := n.BasicStatus().Applied
	if first, _ := n.disk.FirstIndex(); applied > first+trimAt {
		_, _ = n.disk.CreateSnapshot(applied-trimKeep, ConfState{Voters: benchVoters}, nil)
		_ = n.disk.Compact(applied - trimKeep)
	}
}

type shadowBenchNode struct {
	*etcd.RawNode
	disk *etcd.MemoryStorage
}

func newShadowBenchNode(b *testing.B, id uint64) benchNode {
	disk := etcd.NewMemoryStorage()
	must(b, disk.ApplySnapshot(&raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		Index: proto.Uint64(1), Term: proto.Uint64(1), ConfState: &raftpb.ConfState{Voters: benchVoters},
	}}))
	node, err := etcd.NewRawNode(&etcd.Config{
		ID: id, ElectionTick: 10, HeartbeatTick: 1, Storage: disk, MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 256,
		Logger: discard{},
	})
	must(b, err)
	return &shadowBenchNode{node, disk}
}

func (n *shadowBenchNode) carryOut(peers []benchNode) (applied int) {
	rd := n.Ready()
	if !etcd.IsEmptyHardState(rd.HardState) {
		_ = n.disk.SetHardState(rd.HardState) // never fails
	}
	if err := n.disk.Append(rd.Entries); err != nil {
		panic(err)
	}
	for _, e := range rd.CommittedEntries {
		if len(e.GetData()) > 0 {
			applied++
		}
	}
	n.Advance(rd)
	for _, m := range rd.Messages {
		_ = peers[m.GetTo()-1].(*shadowBenchNode).Step(m) // refused: lost
	}
	return applied
}

func (n *shadowBenchNode) trim() {
	applied := n.BasicStatus().Applied
	if first, _ := n.disk.FirstIndex(); applied > first+trimAt {
		_, _ = n.disk.CreateSnapshot(applied-trimKeep, &raftpb.ConfState{Voters: benchVoters}, nil)
		_ = n.disk.Compact(applied - trimKeep)
	}
}
