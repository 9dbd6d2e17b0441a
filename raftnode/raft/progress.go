package raft

import "fmt"

// ProgressState is how a leader sends entries to a follower.
type ProgressState uint8

const (
	// StateProbe: where the logs agree is not known. One message is sent at a time, and the
	// next one after its answer or a heartbeat's.
	StateProbe ProgressState = iota
	// StateReplicate: the logs agree. Entries are sent without waiting for answers.
	StateReplicate
)

func (s ProgressState) String() string {
	switch s {
	case StateProbe:
		return "probe"
	case StateReplicate:
		return "replicate"
	}
	return fmt.Sprintf("ProgressState(%d)", uint8(s))
}

// progress is what a leader knows of one voter's log. It holds that match < next, and that
// match never falls in a term.
type progress struct {
	state ProgressState
	match uint64 // the last index known to be durable there, and equal
	next  uint64 // the first index to send
	// paused: nothing is sent until an answer comes. A heartbeat's answer will do, for the
	// one to the message itself may be lost.
	paused   bool
	inflight inflight
	active   bool // heard of since the quorum was last checked
	// sentCommit is the highest commit index that it was told, be the message lost or not:
	// what is sent again tells it again, and heartbeats do.
	sentCommit uint64
	readRound  uint64 // the newest read round that it has answered
}

// inflight is the window of messages with entries that are sent and not answered.
type inflight struct {
	most int
	ends []uint64 // the last index of each message, oldest first
}

func (f *inflight) full() bool { return len(f.ends) >= f.most }

func (f *inflight) free(upTo uint64) {
	for len(f.ends) > 0 && f.ends[0] <= upTo {
		f.ends = f.ends[1:]
	}
}

func (p *progress) become(state ProgressState) {
	p.state, p.next, p.paused = state, p.match+1, false
	p.inflight.ends = nil
}

// sent notes that a message with so many entries left.
func (p *progress) sent(entries int, commit uint64) {
	p.sentCommit = max(p.sentCommit, commit)
	if p.state == StateProbe {
		p.paused = true
		return
	}
	if entries > 0 {
		p.next += uint64(entries)
		p.inflight.ends = append(p.inflight.ends, p.next-1)
	}
	p.paused = p.inflight.full()
}

// acknowledge notes that everything up to index is durable there. It reports whether that
// tells anything new.
func (p *progress) acknowledge(index uint64) bool {
	if index < p.match || index == p.match && p.state != StateProbe {
		return false
	}
	p.match = index
	p.next = max(p.next, index+1)
	p.paused = false
	if p.state == StateProbe {
		p.become(StateReplicate)
		return true
	}
	p.inflight.free(index)
	return true
}

// refuse notes that the message whose entries come after rejected was refused, and that
// the logs can agree at hint at most. It reports false for an answer that is out of date.
func (p *progress) refuse(rejected, hint uint64) bool {
	if p.state == StateReplicate {
		if rejected <= p.match {
			return false // it had matched there, later than it answered this
		}
		// A message before this one was lost. What is known to match is where to start again.
		p.become(StateProbe)
		return true
	}
	if p.next-1 != rejected {
		return false // not the answer to the one probe that is on its way
	}
	p.next = max(min(rejected, hint+1), p.match+1)
	p.paused = false
	return true
}

// lacksCommit reports whether a message that says nothing but commit would tell something
// new: the follower was sent more entries than it was told to be committed.
func (p *progress) lacksCommit(commit uint64) bool {
	return commit > p.sentCommit && p.sentCommit < p.next-1
}
