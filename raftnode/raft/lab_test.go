package raft

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"capsize/raftnode/raft/membership"
)

// lab is a cluster whose every step a test takes by hand: each Ready, each finished disk
// write and each message delivered. What happens is written down.
type lab struct {
	t     testing.TB
	ids   []uint64
	nodes map[uint64]*labNode
	wire  []Message // sent, not delivered, oldest first
	log   strings.Builder
}

type labNode struct {
	*pipelined
	config  nodeConfig
	storage *MemoryStorage
	disk    []work // written, not durable
	applied uint64
	reads   []ReadState
	data    []string // applied entries' data, without the empty ones
}

// newLab makes a cluster of empty nodes. Each may change the configuration.
func newLab(t testing.TB, size int, change ...func(*nodeConfig)) *lab {
	l := &lab{t: t, nodes: make(map[uint64]*labNode)}
	voters := make([]uint64, size)
	for i := range voters {
		voters[i] = uint64(i) + 1
	}
	for _, id := range voters {
		l.add(labConfig(id, voters, change...), nil, HardState{})
	}
	return l
}

func labConfig(id uint64, voters []uint64, change ...func(*nodeConfig)) nodeConfig {
	c := nodeConfig{Voters: voters, Config: Config{
		ID: id, ElectionTick: 10, HeartbeatTick: 1,
		MaxSizePerMsg: NoLimit, MaxInflightMsgs: 256, Seed: 1,
	}}
	for _, f := range change {
		f(&c)
	}
	return c
}

// add makes a node whose log has entries of these terms.
func (l *lab) add(c nodeConfig, terms []uint64, hard HardState) {
	storage := NewMemoryStorage()
	first := uint64(1)
	if c.Snapshot != nil {
		must(l.t, storage.ApplySnapshot(c.Snapshot))
		first = c.Snapshot.Metadata.Index + 1
		hard.Commit = max(hard.Commit, c.Snapshot.Metadata.Index)
	}
	var entries []Entry
	for i, term := range terms {
		entries = append(entries, Entry{Term: term, Index: first + uint64(i)})
	}
	must(l.t, storage.Append(entries))
	storage.SetHardState(hard)
	c.Storage = storage
	l.ids = append(l.ids, c.ID)
	l.nodes[c.ID] = &labNode{config: c, storage: storage, applied: hard.Commit}
	l.start(c.ID)
}

// start starts a node from what its disk holds; what was on the way there is lost.
func (l *lab) start(id uint64) {
	n := l.nodes[id]
	c := n.config
	c.Applied = n.applied
	node, err := newPipelined(c)
	must(l.t, err)
	n.pipelined, n.disk = node, nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (l *lab) printf(format string, args ...any) { fmt.Fprintf(&l.log, format+"\n", args...) }

// ready carries out one Ready of the node, up to its write being durable.
func (l *lab) ready(id uint64) {
	n := l.nodes[id]
	if !n.HasReady() {
		return
	}
	rd := n.Ready()
	l.printReady(id, rd)
	l.wire = append(l.wire, rd.Messages...)
	if rd.Write != 0 {
		n.disk = append(n.disk, rd)
	}
	for _, e := range rd.Committed {
		l.applyChange(id, e)
		if e.Index != n.applied+1 {
			l.t.Errorf("node %d was told to apply %d after %d", id, e.Index, n.applied)
		}
		n.applied = e.Index
		if len(e.Data) > 0 && !e.isConfChange() {
			n.data = append(n.data, string(e.Data))
		}
	}
	if len(rd.Committed) > 0 {
		must(l.t, n.AppliedTo(n.applied))
	}
	n.reads = append(n.reads, rd.ReadStates...)
}

// applyChange puts a change of membership into force.
func (l *lab) applyChange(id uint64, e Entry) {
	if !e.isConfChange() {
		return
	}
	change, err := DecodeConfChangeEntry(e)
	must(l.t, err)
	if _, err := l.nodes[id].ApplyConfChange(change); err != nil {
		l.printf("%d cannot make the change of entry %d: %v", id, e.Index, err)
		return
	}
	l.printf("%d is in %v", id, l.nodes[id].raft.members)
}

// persist makes the node's oldest write durable.
func (l *lab) persist(id uint64) {
	n := l.nodes[id]
	if len(n.disk) == 0 {
		return
	}
	rd := n.disk[0]
	n.disk = n.disk[1:]
	l.printf("%d durable: write %d", id, rd.Write)
	if rd.Snapshot != nil {
		must(l.t, n.storage.ApplySnapshot(rd.Snapshot))
		n.applied = rd.Snapshot.Metadata.Index
	}
	must(l.t, n.storage.Append(rd.Entries))
	if rd.HardState != (HardState{}) {
		n.storage.SetHardState(rd.HardState)
	}
	for _, m := range rd.AfterPersist {
		l.printf("%d sends %s", id, describe(m))
	}
	l.wire = append(l.wire, rd.AfterPersist...)
	must(l.t, n.Persisted(rd.Write))
}

// settle carries out every Ready and write of the node.
func (l *lab) settle(id uint64) {
	n := l.nodes[id]
	for n.HasReady() || len(n.disk) > 0 {
		for n.HasReady() {
			l.ready(id)
		}
		l.persist(id)
	}
}

// deliver takes from the wire what is wanted now, and steps it, in order.
func (l *lab) deliver(wanted func(Message) bool) int {
	var now []Message
	l.wire = slices.DeleteFunc(l.wire, func(m Message) bool {
		if wanted(m) {
			now = append(now, m)
			return true
		}
		return false
	})
	for _, m := range now {
		l.step(m)
	}
	return len(now)
}

func (l *lab) step(m Message) {
	if l.nodes[m.To] == nil {
		l.printf("nobody receives %s", describe(m))
		return
	}
	l.printf("%d receives %s", m.To, describe(m))
	if err := l.nodes[m.To].Step(m); err != nil {
		l.printf("%d: %v", m.To, err)
	}
}

// stabilize carries everything out among these nodes, all if none are named, until
// nothing is left to do. Messages to others stay on the wire.
func (l *lab) stabilize(ids ...uint64) {
	if len(ids) == 0 {
		ids = l.ids
	}
	for range 1000 {
		for _, id := range ids {
			l.settle(id)
		}
		if l.deliver(func(m Message) bool { return slices.Contains(ids, m.To) && slices.Contains(ids, m.From) }) == 0 {
			return
		}
	}
	l.t.Error("the cluster does not come to rest")
}

// drop loses what is on the wire and not wanted.
func (l *lab) drop(unwanted func(Message) bool) { l.wire = slices.DeleteFunc(l.wire, unwanted) }

func everything(Message) bool { return true }

// elect makes a node leader of a quiet cluster.
func (l *lab) elect(id uint64) {
	l.t.Helper()
	must(l.t, l.nodes[id].Campaign())
	l.stabilize()
	if role := l.nodes[id].Status().RaftState; role != Leader {
		l.t.Fatalf("node %d is %v, not leader", id, role)
	}
}

func (l *lab) tick(id uint64, times int) {
	for range times {
		l.nodes[id].Tick()
	}
}

func (l *lab) terms(id uint64) string {
	r := l.nodes[id].raft
	var terms []string
	entries, err := r.log.slice(r.log.firstIndex(), r.log.lastIndex()+1, NoLimit)
	must(l.t, err)
	if first := r.log.firstIndex(); first > 1 {
		terms = append(terms, fmt.Sprintf("(snapshot up to %d)", first-1))
	}
	for _, e := range entries {
		terms = append(terms, fmt.Sprint(e.Term))
	}
	return strings.Join(terms, " ")
}

func (l *lab) printReady(id uint64, rd work) {
	if rd.SoftState != nil {
		l.printf("%d is %v, leader %s", id, rd.SoftState.RaftState, nodeName(rd.SoftState.Lead))
	}
	if rd.Write != 0 {
		line := fmt.Sprintf("%d writes %d:", id, rd.Write)
		if h := rd.HardState; h != (HardState{}) {
			line += fmt.Sprintf(" term %d vote %s commit %d", h.Term, nodeName(h.Vote), h.Commit)
		}
		if rd.Snapshot != nil {
			line += " " + describeSnapshot(rd.Snapshot)
		}
		if len(rd.Entries) > 0 {
			line += " entries " + describeEntries(rd.Entries)
		}
		if len(rd.AfterPersist) > 0 {
			line += fmt.Sprintf(" then sends %d", len(rd.AfterPersist))
		}
		if rd.MustSync {
			line += " (sync)"
		}
		l.printf("%s", line)
	}
	for _, m := range rd.Messages {
		l.printf("%d sends %s", id, describe(m))
	}
	if len(rd.Committed) > 0 {
		l.printf("%d applies %s", id, describeEntries(rd.Committed))
	}
	for _, read := range rd.ReadStates {
		l.printf("%d may serve read %q at %d", id, read.RequestCtx, read.Index)
	}
}

func nodeName(id uint64) string {
	if id == None {
		return "none"
	}
	return fmt.Sprint(id)
}

func describeEntries(entries []Entry) string {
	words := make([]string, len(entries))
	for i, e := range entries {
		words[i] = fmt.Sprintf("%d/%d", e.Index, e.Term)
		if e.isConfChange() {
			words[i] += " " + describeChange(e)
		} else if len(e.Data) > 0 {
			words[i] += fmt.Sprintf(" %q", e.Data)
		}
	}
	return "[" + strings.Join(words, ", ") + "]"
}

func describeChange(e Entry) string {
	change, err := DecodeConfChangeEntry(e)
	if err != nil {
		return "no change"
	}
	v2 := change.AsV2()
	if v2.leavesJoint() {
		return "leave"
	}
	words := make([]string, len(v2.Changes))
	for i, c := range v2.Changes {
		words[i] = fmt.Sprintf("%v(%d)", c.Type, c.NodeID)
	}
	return strings.Join(words, "+")
}

func describeSnapshot(s *Snapshot) string {
	conf, err := membership.Restore(s.Metadata.ConfState)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("snapshot %d/%d %v", s.Metadata.Index, s.Metadata.Term, conf)
}

// describe writes a message as index/term pairs and words.
func describe(m Message) string {
	s := fmt.Sprintf("%d->%d %v term %d", m.From, m.To, m.Type, m.Term)
	switch m.Type {
	case MsgApp:
		s += fmt.Sprintf(" after %d/%d %s commit %d", m.Index, m.LogTerm, describeEntries(m.Entries), m.Commit)
	case MsgAppResp:
		if m.Reject {
			return s + fmt.Sprintf(" refuses %d, hint %d/%d", m.Index, m.RejectHint, m.LogTerm)
		}
		s += fmt.Sprintf(" holds %d", m.Index)
	case MsgVote, MsgPreVote:
		s += fmt.Sprintf(" log ends at %d/%d", m.Index, m.LogTerm)
	case MsgSnap:
		s += " " + describeSnapshot(m.Snapshot)
	case MsgVoteResp, MsgPreVoteResp:
		if m.Reject {
			return s + " refused"
		}
		s += " granted"
	case MsgHeartbeat:
		s += fmt.Sprintf(" commit %d", m.Commit)
	case MsgReadIndex:
		s = fmt.Sprintf("%d->%d %v %q", m.From, m.To, m.Type, m.Entries[0].Data)
	case MsgReadIndexResp:
		s += fmt.Sprintf(" %q at %d", m.Entries[0].Data, m.Index)
	case MsgProp:
		s = fmt.Sprintf("%d->%d %v %s", m.From, m.To, m.Type, describeEntries(m.Entries))
	}
	if string(m.Context) == campaignTransfer {
		return s + " for a transfer"
	}
	if len(m.Context) > 0 {
		s += fmt.Sprintf(" round %d", m.Context)
	}
	return s
}
