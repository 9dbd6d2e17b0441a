package raft

// The leader's side of log replication: Raft paper 5.3.

// handleAppendResponse learns what a follower holds, or where to look for it.
func (r *raft) handleAppendResponse(m Message, p *progress) {
	p.active = true
	if m.Reject {
		hint := m.RejectHint
		if m.LogTerm > 0 {
			// The follower's log has term LogTerm at the hint, and no lower one after it. Where this
			// log's terms are higher than that, the two cannot agree.
			hint = r.log.lastNotAfterTerm(min(hint, r.log.lastIndex()), m.LogTerm)
		}
		if p.refuse(m.Index, hint) {
			r.sendAppend(m.From, true)
		}
		return
	}
	if m.Index > r.log.lastIndex() || !p.acknowledge(m.Index) {
		return // no follower of this term holds more than its leader; or it says nothing new
	}
	if r.commitByQuorum() {
		r.afterCommit()
	} else if p.lacksCommit(r.log.committed) {
		// Others had made the commit index rise while this follower was behind.
		r.sendAppend(m.From, true)
	}
	for r.sendAppend(m.From, false) {
	}
}

// handleHeartbeatResponse sends again what may have been lost. An answer to the heartbeat
// is the sign that the follower is there, whatever became of the messages before it.
func (r *raft) handleHeartbeatResponse(m Message, p *progress) {
	p.active, p.paused = true, false
	if p.match < r.log.lastIndex() || p.state == StateProbe {
		r.sendAppend(m.From, true)
	}
	r.confirmReads(m)
}

func (r *raft) broadcastAppend() {
	for _, id := range r.voters {
		if id != r.config.ID {
			r.sendAppend(id, true)
		}
	}
}

// sendAppend sends the entries that a follower lacks, as many as one message takes. It
// reports whether it sent anything. Where evenEmpty says so, a message without entries is
// sent too: it tells the commit index, and a follower that lacks what came before it
// refuses it. For that reason it is also what is sent when the window is full: if
// everything in the window was lost, nothing else would bring it to light.
func (r *raft) sendAppend(to uint64, evenEmpty bool) bool {
	p := r.progress[to]
	if p.paused {
		return false
	}
	var entries []Entry
	switch {
	case p.state == StateProbe:
		// One entry is enough to find out. A follower that was stopped answers hundreds of
		// heartbeats at once when it goes on, and each answer sends a probe: full ones would
		// keep the leader busy for as long as an election takes.
		entries = r.log.slice(p.next, r.log.lastIndex()+1, 0)
	case !p.inflight.full():
		entries = r.log.slice(p.next, r.log.lastIndex()+1, r.config.MaxSizePerMsg)
	}
	if len(entries) == 0 && !evenEmpty {
		return false
	}
	assert(p.match < p.next, "node %d matches at %d, but %d is to be sent next", to, p.match, p.next)
	prev := p.next - 1
	r.send(Message{
		Type: MsgApp, To: to, Index: prev, LogTerm: r.log.term(prev),
		Entries: entries, Commit: r.log.committed,
	})
	p.sent(len(entries), r.log.committed)
	return r.log.failure == nil
}

// broadcastHeartbeat tells every follower that this node leads, and with it the newest
// read round that waits for answers.
func (r *raft) broadcastHeartbeat() {
	context := r.reads.context()
	for _, id := range r.voters {
		if id == r.config.ID {
			continue
		}
		p := r.progress[id]
		// Never beyond what is known to match: the follower's log may differ after that.
		commit := min(p.match, r.log.committed)
		r.send(Message{Type: MsgHeartbeat, To: id, Commit: commit, Context: context})
		p.sentCommit = max(p.sentCommit, commit)
	}
}
