package raft

import (
	"errors"
	"fmt"
)

// The leader's side of log replication: Raft paper 5.3; snapshots: 7.

// handleAppendResponse learns what a member holds, or where to look for it.
func (r *raft) handleAppendResponse(m Message, p *progress) {
	p.active = true
	if m.Reject {
		hint := m.RejectHint
		if m.LogTerm > 0 {
			// The follower's log has term LogTerm at the hint, and no lower one after it. Where this
			// log's terms are higher than that, the two cannot agree.
			hint, _ = r.log.lastNotAfterTerm(hint, m.LogTerm)
		}
		if p.refuse(m.Index, hint) {
			if p.state == StateReplicate {
				p.becomeProbe()
			}
			r.traceProgress(p)
			r.sendAppend(p, true)
		}
		return
	}
	if m.Index > r.log.lastIndex() {
		return // no follower of this term holds more than its leader
	}
	if !p.acknowledge(m.Index) && (p.match != m.Index || p.state != StateProbe) {
		return // it says nothing new
	}
	switch {
	case p.state == StateProbe,
		// Whatever became of the snapshot: its log joins this one now.
		p.state == StateSnapshot && p.match+1 >= r.log.firstIndex():
		p.becomeReplicate()
	case p.state == StateReplicate:
		p.inflight.free(m.Index)
	}
	r.traceProgress(p)
	self := p.id == r.config.ID
	if r.commitByQuorum() {
		r.afterCommit()
	} else if !self && p.lacksCommit(r.log.committed) {
		// Others had made the commit index rise while this follower was behind.
		r.sendAppend(p, true)
	}
	if self {
		return
	}
	for r.sendAppend(p, false) {
	}
	if p.id == r.transferee && p.match == r.log.lastIndex() {
		r.send(Message{Type: MsgTimeoutNow, To: p.id})
	}
}

// handleHeartbeatResponse sends again what may have been lost. An answer to the heartbeat
// is the sign that the follower is there, whatever became of the messages before it.
func (r *raft) handleHeartbeatResponse(m Message, p *progress) {
	p.active, p.paused = true, false
	if p.match < r.log.lastIndex() || p.state == StateProbe {
		r.sendAppend(p, true)
	}
	r.confirmReads(m, p)
}

// handleSnapshotStatus learns from this node's user what became of a snapshot.
func (r *raft) handleSnapshotStatus(m Message, p *progress) {
	if p.state != StateSnapshot {
		return
	}
	if m.Reject {
		p.snapshot = 0 // first: what follows it is not what to send next
	}
	p.becomeProbe()
	// After a success its acknowledgement is on the way; after a failure one more try a
	// heartbeat is enough.
	p.paused = true
}

func (r *raft) broadcastAppend() {
	for _, p := range r.progress {
		if p.id != r.config.ID {
			r.sendAppend(p, true)
		}
	}
}

// sendAppend sends the entries that a follower lacks, as many as one message takes, or a
// snapshot where they are compacted. It reports whether it sent anything. Where evenEmpty
// says so, a message without entries is sent too: it tells the commit index, and a
// follower that lacks what came before it refuses it. For that reason it is also what is
// sent when the window is full: if everything in the window was lost, nothing else would
// bring it to light.
func (r *raft) sendAppend(p *progress, evenEmpty bool) bool {
	if p.isPaused() {
		return false
	}
	prev := p.next - 1
	prevTerm, known := r.log.term(prev)
	if !known {
		return r.sendSnapshot(p)
	}
	var entries []Entry
	var err error
	switch {
	case p.state == StateProbe:
		// One entry is enough to find out. A follower that was stopped answers hundreds of
		// heartbeats at once when it goes on, and each answer sends a probe: full ones would
		// keep the leader busy for as long as an election takes.
		entries, err = r.log.slice(p.next, r.log.lastIndex()+1, 0)
	case !p.inflight.full():
		entries, err = r.log.slice(p.next, r.log.lastIndex()+1, r.config.MaxSizePerMsg)
	}
	switch {
	case errors.Is(err, ErrCompacted):
		return r.sendSnapshot(p)
	case err != nil:
		r.log.fail(err)
		return false
	case len(entries) == 0 && !evenEmpty:
		return false
	}
	assert(p.match < p.next, "node %d matches at %d, but %d is to be sent next", p.id, p.match, p.next)
	r.send(Message{
		Type: MsgApp, To: p.id, Index: prev, LogTerm: prevTerm,
		Entries: entries, Commit: r.log.committed,
	})
	p.sentEntries(entries)
	p.sentCommit = r.log.committed
	return true
}

// sendSnapshot sends the newest snapshot, if the follower is there to take it.
func (r *raft) sendSnapshot(p *progress) bool {
	if !p.active || r.log.failure != nil {
		return false
	}
	prev := p.next - 1
	s := r.log.unstable.snapshot
	if s == nil {
		var err error
		if s, err = r.config.Storage.Snapshot(); errors.Is(err, ErrSnapshotTemporarilyUnavailable) {
			return false
		} else if err != nil {
			r.log.fail(fmt.Errorf("raft: read the snapshot: %w", err))
			return false
		} else if s == nil || s.Metadata.Index < prev {
			r.log.fail(fmt.Errorf("raft: entry %d is compacted, but no snapshot stands for it", prev))
			return false
		}
	}
	p.becomeSnapshot(s.Metadata.Index)
	r.logger.Debugf("node %d sends node %d the snapshot at %d", r.config.ID, p.id, s.Metadata.Index)
	r.send(Message{Type: MsgSnap, To: p.id, Snapshot: s})
	return true
}

// broadcastHeartbeat tells every follower that this node leads, and with it the newest
// read round that waits for answers.
func (r *raft) broadcastHeartbeat() {
	context := r.reads.context()
	for _, p := range r.progress {
		if p.id == r.config.ID {
			continue
		}
		// Never beyond what is known to match: the follower's log may differ after that.
		commit := min(p.match, r.log.committed)
		r.send(Message{Type: MsgHeartbeat, To: p.id, Commit: commit, Context: context})
		p.sentCommit = commit
	}
}
