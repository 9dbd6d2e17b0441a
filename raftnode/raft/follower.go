package raft

import "fmt"

// stepFollower is the role function of followers.
func stepFollower(r *raft, m Message) error {
	switch m.Type {
	case MsgProp:
		if r.leader == None {
			return ErrProposalDropped
		}
		r.passOn(m)
	case MsgReadIndex:
		if r.leader == None {
			return ErrReadDropped
		}
		r.passOn(m)
	case MsgReadIndexResp:
		r.finishRead(m.Index, m.Entries[0].Data)
	case MsgApp:
		r.follow(m.From)
		r.handleAppend(m)
	case MsgHeartbeat:
		r.follow(m.From)
		r.handleHeartbeat(m)
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
	if m.Index < r.log.committed {
		// A late message. What is committed is equal, whatever it says.
		r.send(Message{Type: MsgAppResp, To: m.From, Index: r.log.committed})
		return
	}
	if !r.log.matches(m.Index, m.LogTerm) {
		if m.Index == r.log.committed {
			// A leader's log holds all that is committed. This one, or this node, has lost what it
			// had acknowledged.
			r.log.fail(fmt.Errorf("raft: entry %d is committed with term %d, but leader %d has it with term %d: was a log lost?",
				m.Index, r.log.term(m.Index), m.From, m.LogTerm))
			return
		}
		hint := r.log.lastNotAfterTerm(min(m.Index, r.log.lastIndex()), m.LogTerm)
		r.send(Message{
			Type: MsgAppResp, To: m.From, Index: m.Index,
			Reject: true, RejectHint: hint, LogTerm: r.log.term(hint),
		})
		return
	}
	// Only what conflicts is discarded. A late message, with fewer entries than came since,
	// must not cut off what this node has acknowledged.
	r.appendEntries(r.log.missing(m.Entries))
	last := m.Index + uint64(len(m.Entries))
	// What lies beyond the message may differ from the leader's log.
	r.commitTo(min(m.Commit, last))
	r.send(Message{Type: MsgAppResp, To: m.From, Index: last})
}

func (r *raft) handleHeartbeat(m Message) {
	r.commitTo(m.Commit)
	r.send(Message{Type: MsgHeartbeatResp, To: m.From, Context: m.Context})
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
	for _, e := range entries {
		r.trace(Event{Kind: EventAppend, Index: e.Index, LogTerm: e.Term, Term: r.term, Entry: e})
	}
}

func (r *raft) commitTo(index uint64) {
	if r.log.commitTo(index) {
		r.trace(Event{Kind: EventCommit, Index: index, Term: r.term, Role: r.role})
	}
}
