package raft

import "fmt"

// EventKind names a protocol event.
type EventKind uint8

const (
	EventTerm     EventKind = iota // Term began here
	EventVote                      // the node decided to vote for Peer in Term; not durable yet
	EventVoteSend                  // the node decided on Peer's request, whose log ends at (Index, LogTerm): Granted, in Term; PreVote for a pre-vote
	EventLeader                    // the node became leader of Term; its log ends at (Index, LogTerm)
	EventStepDown                  // the node stopped leading Term
	EventAppend                    // Entry was appended, at Index with LogTerm; not durable yet
	EventTruncate                  // everything from Index on was discarded
	EventCommit                    // the commit index rose to Index, on a node of that Role
	EventRestore                   // Snapshot, at Index with LogTerm, replaced the log; not durable yet
	EventProgress                  // a leader learnt how far Peer's log matches its own: up to Index; Next is to be sent next
)

var eventNames = [...]string{"term", "vote", "voteSend", "leader", "stepDown", "append", "truncate", "commit", "restore", "progress"}

func (k EventKind) String() string {
	if int(k) < len(eventNames) {
		return eventNames[k]
	}
	return fmt.Sprintf("EventKind(%d)", uint8(k))
}

// Event is one thing that happened in the protocol, for whoever checks it. Which fields
// mean something depends on Kind.
type Event struct {
	Kind    EventKind
	Term    uint64 // of the node; in a granting EventVoteSend, the one asked for
	Peer    uint64
	Index   uint64
	LogTerm uint64
	Granted bool
	PreVote bool
	Role    Role
	Entry   Entry
	// Conf is the configuration in force, in EventLeader and in the EventAppend of a change of
	// membership.
	Conf     ConfState
	Snapshot *Snapshot
	Next     uint64
}

func (r *raft) trace(e Event) {
	// A node whose storage failed stands still: what it seems to decide has no effect.
	if r.config.Trace != nil && r.log.failure == nil {
		r.config.Trace(e)
	}
}

func (r *raft) traceProgress(p *progress) {
	r.trace(Event{Kind: EventProgress, Term: r.term, Peer: p.id, Index: p.match, Next: p.next})
}
