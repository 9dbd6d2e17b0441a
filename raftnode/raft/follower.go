package raft

import (
	"fmt"

	"capsize/raftnode/raft/membership"
)

// stepFollower is the role function of followers.
func stepFollower(r *raft, m Message) error {
	switch m.Type {
	case MsgProp:
		if r.leader == None || r.config.DisableProposalForwarding {
			return ErrProposalDropped
		}
		r.passOn(m)
	case MsgReadIndex:
		if r.leader == None {
			return ErrReadDropped
		}
		r.passOn(m)
	case MsgTransferLeader:
		if r.leader != None {
			m.Term = 0 // this node's own, if it was passed on to it
			r.passOn(m)
		}
	case MsgReadIndexResp:
		r.finishRead(m.Index, m.Entries[0].Data)
	case MsgApp:
		r.follow(m.From)
		r.handleAppend(m)
	case MsgHeartbeat:
		r.follow(m.From)
		r.handleHeartbeat(m)
	case MsgSnap:
		r.follow(m.From)
		r.handleSnapshot(m)
	case MsgTimeoutNow:
		r.hup(true)
	case MsgForgetLeader:
		// Its user knows that the leader is gone: now it may vote at once, also in this term.
		r.leader = None
	}
	return nil
}

// passOn sends a request to the leader, in the name of who made it: that is who the
// leader answers. A request cannot go round in circles: the leader that a follower knows
// of has that follower's term, and if it follows another leader by now, that one's term is
// higher.
func (r *raft) passOn(m Message) {
	m.To = r.leader
	r.send(m)
}

func (r *raft) follow(leader uint64) {
	r.electionElapsed = 0
	r.leader = leader
}

// handleAppend is the follower's side of log replication (Raft paper 5.3).
func (r *raft) handleAppend(m Message) {
	log := r.log
	if m.Index < log.committed {
		// A late message. What is committed is equal, whatever it says.
		r.send(Message{Type: MsgAppResp, To: m.From, Index: log.committed})
		return
	}
	if !log.matches(m.Index, m.LogTerm) {
		if m.Index == log.committed && log.failure == nil {
			// A leader's log holds all that is committed. This one, or this node, has lost what it
			// had acknowledged.
			own, _ := log.term(m.Index)
			log.fail(fmt.Errorf("raft: entry %d is committed with term %d, but leader %d has it with term %d: was a log lost?",
				m.Index, own, m.From, m.LogTerm))
			return
		}
		hint, hintTerm := log.lastNotAfterTerm(min(m.Index, log.lastIndex()), m.LogTerm)
		r.send(Message{
			Type: MsgAppResp, To: m.From, Index: m.Index,
			Reject: true, RejectHint: hint, LogTerm: hintTerm,
		})
		return
	}
	// Only what conflicts is discarded. A late message, with fewer entries than came since,
	// must not cut off what this node has acknowledged.
	r.appendEntries(log.missing(m.Entries))
	last := m.Index + uint64(len(m.Entries))
	// What lies beyond the message may differ from the leader's log.
	r.commitTo(min(m.Commit, last))
	r.send(Message{Type: MsgAppResp, To: m.From, Index: last})
}

func (r *raft) handleHeartbeat(m Message) {
	r.commitTo(m.Commit)
	r.send(Message{Type: MsgHeartbeatResp, To: m.From, Context: m.Context})
}

// handleSnapshot takes a snapshot in place of entries that the leader no longer has.
func (r *raft) handleSnapshot(m Message) {
	if r.restore(m.Snapshot) {
		r.send(Message{Type: MsgAppResp, To: m.From, Index: r.log.lastIndex()})
		return
	}
	r.send(Message{Type: MsgAppResp, To: m.From, Index: r.log.committed})
}

// restore replaces log and configuration by a snapshot. It reports false where that is not
// needed, or wrong.
func (r *raft) restore(s *Snapshot) bool {
	meta := s.Metadata
	if meta.Index <= r.log.committed {
		return false
	}
	members, err := membership.Restore(meta.ConfState)
	if err != nil {
		r.logger.Errorf("node %d ignores the snapshot at %d: %v", r.config.ID, meta.Index, err)
		return false
	}
	if !members.Contains(r.config.ID) {
		r.logger.Warningf("node %d ignores the snapshot at %d: it is no member there: %v", r.config.ID, meta.Index, members)
		return false
	}
	if r.log.matches(meta.Index, meta.Term) {
		// The log holds all of it. To throw away what follows could lose what is acknowledged.
		r.commitTo(meta.Index)
		return false
	}
	r.log.restore(s)
	r.progress = nil
	r.trace(Event{Kind: EventRestore, Term: r.term, Index: meta.Index, LogTerm: meta.Term, Snapshot: s})
	r.adopt(members)
	r.logger.Infof("node %d takes the snapshot at %d of term %d in place of its log", r.config.ID, meta.Index, meta.Term)
	return true
}

// appendEntries puts entries at the end of the log, after whatever they replace.
func (r *raft) appendEntries(entries []Entry) {
	if len(entries) == 0 {
		return
	}
	if first := entries[0].Index; first <= r.log.lastIndex() {
		assert(r.role != Leader, "a leader replaces its entry %d", first)
		r.trace(Event{Kind: EventTruncate, Index: first, Term: r.term})
	}
	r.log.append(entries)
	if r.config.Trace == nil {
		return
	}
	for _, e := range entries {
		event := Event{Kind: EventAppend, Index: e.Index, LogTerm: e.Term, Term: r.term, Entry: e}
		if e.isConfChange() {
			event.Conf = r.members.State()
		}
		r.trace(event)
	}
}

func (r *raft) commitTo(index uint64) {
	if r.log.commitTo(index) {
		r.trace(Event{Kind: EventCommit, Index: index, Term: r.term, Role: r.role})
	}
}
