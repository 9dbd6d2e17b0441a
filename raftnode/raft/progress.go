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
	// StateSnapshot: a snapshot is on its way. Nothing is sent.
	StateSnapshot
)

func (s ProgressState) String() string {
	switch s {
	case StateProbe:
		return "probe"
	case StateReplicate:
		return "replicate"
	case StateSnapshot:
		return "snapshot"
	}
	return fmt.Sprintf("ProgressState(%d)", uint8(s))
}

// progress is what a leader knows of one member's log. It holds that match < next, and
// that match never falls in a term.
type progress struct {
	id    uint64
	state ProgressState
	match uint64 // the last index known to be durable there, and equal
	next  uint64 // the first index to send
	// paused: nothing is sent until an answer comes. A heartbeat's answer will do, for the
	// one to the message itself may be lost.
	paused   bool
	inflight inflight
	active   bool // heard of since the quorum was last checked
	// snapshot is, in StateSnapshot, the index of the one that is on its way.
	snapshot uint64
	// sentCommit is the commit index that it was told last, be the message lost or not.
	sentCommit uint64
	readRound  uint64 // the newest read round that it has answered
}

func (p *progress) isPaused() bool { return p.paused || p.state == StateSnapshot }

func (p *progress) reset(state ProgressState) {
	p.state, p.paused, p.snapshot = state, false, 0
	p.inflight.reset()
}

func (p *progress) becomeProbe() {
	// After a snapshot that got there, what follows it is to be sent; its acknowledgement may
	// come later than the news.
	next := max(p.match, p.snapshot) + 1
	p.reset(StateProbe)
	p.next = next
	p.sentCommit = min(p.sentCommit, p.next-1)
}

func (p *progress) becomeReplicate() {
	p.reset(StateReplicate)
	p.next = p.match + 1
}

func (p *progress) becomeSnapshot(index uint64) {
	p.reset(StateSnapshot)
	p.snapshot = index
	p.next = index + 1
	p.sentCommit = index
}

// sentEntries notes that a message with these entries left.
func (p *progress) sentEntries(entries []Entry) {
	switch p.state {
	case StateReplicate:
		if len(entries) > 0 {
			p.next += uint64(len(entries))
			p.inflight.add(p.next-1, payloadSize(entries))
		}
		p.paused = p.inflight.full()
	case StateProbe:
		if len(entries) > 0 {
			p.paused = true
		}
	case StateSnapshot:
		assert(false, "entries are sent to node %d, which a snapshot is on its way to", p.id)
	}
}

// acknowledge notes that everything up to index is durable there. It reports whether that
// is more than was known.
func (p *progress) acknowledge(index uint64) bool {
	if index <= p.match {
		return false
	}
	p.match = index
	p.next = max(p.next, index+1)
	p.paused = false
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
		p.next = p.match + 1
		p.sentCommit = min(p.sentCommit, p.next-1)
		return true
	}
	if p.next-1 != rejected {
		return false // not the answer to the one probe that is on its way
	}
	p.next = max(min(rejected, hint+1), p.match+1)
	p.sentCommit = min(p.sentCommit, p.next-1)
	p.paused = false
	return true
}

// lacksCommit reports whether a message that says nothing but commit would tell something
// new: the follower was sent more entries than it was told to be committed.
func (p *progress) lacksCommit(commit uint64) bool {
	return commit > p.sentCommit && p.sentCommit < p.next-1
}

// inflight is the window of messages with entries that are sent and not answered.
type inflight struct {
	mostMessages int
	mostBytes    uint64
	bytes        uint64
	queue        []inflightMessage // a ring of the oldest first, beginning at head
	head, count  int
}

type inflightMessage struct{ last, bytes uint64 }

func newInflight(mostMessages int, mostBytes uint64) inflight {
	return inflight{mostMessages: mostMessages, mostBytes: mostBytes}
}

func (f *inflight) full() bool { return f.count >= f.mostMessages || f.bytes >= f.mostBytes }

func (f *inflight) reset() { f.head, f.count, f.bytes = 0, 0, 0 }

func (f *inflight) add(last, bytes uint64) {
	assert(!f.full(), "a message beyond the window of %d", f.mostMessages)
	if f.count == len(f.queue) {
		f.grow()
	}
	f.queue[(f.head+f.count)%len(f.queue)] = inflightMessage{last, bytes}
	f.count++
	f.bytes += bytes
}

// grow doubles the ring: most followers never need all of it.
func (f *inflight) grow() {
	larger := make([]inflightMessage, min(max(2*len(f.queue), 8), f.mostMessages))
	n := copy(larger, f.queue[f.head:])
	copy(larger[n:], f.queue[:f.head])
	f.queue, f.head = larger, 0
}

// free forgets the messages that end at index or before.
func (f *inflight) free(index uint64) {
	for f.count > 0 && f.queue[f.head].last <= index {
		f.bytes -= f.queue[f.head].bytes
		f.head = (f.head + 1) % len(f.queue)
		f.count--
	}
}

// tracker is the progress of every member, sorted by ID.
type tracker []*progress

// of returns the progress of a node; nil if it is no member. Clusters are small: looking
// along the list is faster than a map.
func (t tracker) of(id uint64) *progress {
	for _, p := range t {
		if p.id == id {
			return p
		}
	}
	return nil
}
