package raft

// EventKind names a protocol event.
type EventKind uint8

const (
	EventTerm     EventKind = iota // a new term began here
	EventVote                      // the node decided for Peer in Term; not durable yet
	EventVoteSend                  // an answer to Peer's request, whose last entry is (Index, LogTerm)
	EventLeader                    // the node became leader; its last entry is (Index, LogTerm)
	EventStepDown                  // the node stopped leading Term
	EventAppend                    // Entry was appended
	EventTruncate                  // everything from Index on was discarded
	EventCommit                    // the commit index rose to Index
)

// Event is one thing that happened in the protocol, for whoever checks it.
type Event struct {
	Kind    EventKind
	Term    uint64
	Peer    uint64
	Index   uint64
	LogTerm uint64
	Granted bool
	PreVote bool
	Role    Role
	Entry   Entry
}
