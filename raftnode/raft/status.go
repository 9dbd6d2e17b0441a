package raft

import (
	"fmt"
	"strings"

	"capsize/raftnode/raft/membership"
)

// BasicStatus is how a node sees itself, in what is cheap to tell. It need not be durable
// yet.
type BasicStatus struct {
	ID uint64
	HardState
	SoftState
	Applied        uint64
	LeadTransferee uint64
}

// Status is how a node sees itself and the cluster.
type Status struct {
	BasicStatus
	LastIndex uint64
	Config    membership.Config
	Progress  []Progress // of every member, by ID; on the leader only
}

// Progress is what a leader knows of one member's log.
type Progress struct {
	ID              uint64
	State           ProgressState
	Match           uint64 // the last index known to be durable there
	Next            uint64 // the first index to send
	Paused          bool   // nothing is sent until it answers
	RecentActive    bool   // heard of since the quorum was last checked
	PendingSnapshot uint64 // in StateSnapshot: the index of the one on its way
	Inflight        int    // messages with entries that are not answered
	InflightFull    bool
	IsLearner       bool
}

// String writes the progress as in "replicate match=5 next=6".
func (p Progress) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v match=%d next=%d", p.State, p.Match, p.Next)
	if p.IsLearner {
		b.WriteString(" learner")
	}
	if p.Paused {
		b.WriteString(" paused")
	}
	if p.PendingSnapshot > 0 {
		fmt.Fprintf(&b, " snapshot=%d", p.PendingSnapshot)
	}
	if !p.RecentActive {
		b.WriteString(" inactive")
	}
	if p.Inflight > 0 {
		fmt.Fprintf(&b, " inflight=%d", p.Inflight)
	}
	if p.InflightFull {
		b.WriteString(" full")
	}
	return b.String()
}

// BasicStatus returns how the node sees itself.
func (n *RawNode) BasicStatus() BasicStatus {
	r := n.raft
	return BasicStatus{
		ID: r.config.ID, HardState: r.hardState(), SoftState: r.softState(),
		Applied: r.log.apply.applied, LeadTransferee: r.transferee,
	}
}

// Status returns how the node sees itself and the cluster.
func (n *RawNode) Status() Status {
	s := Status{BasicStatus: n.BasicStatus(), LastIndex: n.raft.log.lastIndex(), Config: n.raft.members}
	if n.raft.role == Leader {
		n.WithProgress(func(p Progress) { s.Progress = append(s.Progress, p) })
	}
	return s
}

// WithProgress calls visit with the progress of each member, by ID. It means something on
// the leader only.
func (n *RawNode) WithProgress(visit func(Progress)) {
	r := n.raft
	for _, p := range r.progress {
		visit(Progress{
			ID: p.id, State: p.state, Match: p.match, Next: p.next, Paused: p.isPaused(),
			RecentActive: p.active, PendingSnapshot: p.snapshot,
			Inflight: p.inflight.count, InflightFull: p.inflight.count > 0 && p.inflight.full(),
			IsLearner: r.members.Learners.Contains(p.id),
		})
	}
}
