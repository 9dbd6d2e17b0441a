package raft

import "slices"

// Leaders: Raft paper 5.3 and 5.4.2.

func (r *raft) becomeLeader() {
	r.role, r.step, r.tick = Leader, stepLeader, tickHeartbeat
	r.reset(r.term)
	r.leader = r.config.ID
	r.trace(Event{Kind: EventLeader, Term: r.term, Index: r.log.lastIndex(), LogTerm: r.log.lastTerm()})
	for _, p := range r.progress {
		p.active = true // a fresh leader gives everybody one election time-out to answer
	}
	// Entries of earlier terms are committed only through one of the leader's own term
	// (Raft paper 5.4.2, figure 8): an empty one makes that happen at once.
	r.appendOwn([]Entry{{}})
	r.broadcastAppend()
}

// appendOwn appends the leader's own entries and acknowledges them to itself, which
// counts when they are durable.
func (r *raft) appendOwn(entries []Entry) {
	last := r.log.lastIndex()
	for i := range entries {
		entries[i].Term, entries[i].Index = r.term, last+1+uint64(i)
	}
	r.appendEntries(entries)
	r.send(Message{Type: MsgAppResp, To: r.config.ID, Index: r.log.lastIndex()})
}

func tickHeartbeat(r *raft) {
	r.heartbeatElapsed++
	r.electionElapsed++
	if r.electionElapsed >= r.config.ElectionTick {
		r.electionElapsed = 0
		if r.config.CheckQuorum && !r.quorumActive() {
			r.becomeFollower(r.term, None)
			return
		}
	}
	if r.heartbeatElapsed >= r.config.HeartbeatTick {
		r.heartbeatElapsed = 0
		r.broadcastHeartbeat(r.reads.newest)
	}
}

// quorumActive reports whether a quorum has been heard of since the last call.
func (r *raft) quorumActive() bool {
	active := 0
	for id, p := range r.progress {
		if p.active || id == r.config.ID {
			active++
		}
		p.active = false
	}
	return active >= r.quorum()
}

// stepLeader is the role function of leaders.
func stepLeader(r *raft, m Message) error {
	switch m.Type {
	case MsgProp:
		return r.propose(m)
	case MsgReadIndex:
		return r.startRead(m)
	case MsgAppResp, MsgHeartbeatResp, MsgUnreachable:
		p := r.progress[m.From]
		if p == nil {
			return ErrUnknownPeer
		}
		r.stepProgress(m, p)
	}
	return nil
}

func (r *raft) propose(m Message) error {
	var size uint64
	for _, e := range m.Entries {
		size += uint64(len(e.Data))
	}
	most := r.config.MaxUncommittedEntriesSize
	if most > 0 && r.uncommittedSize > 0 && r.uncommittedSize+size > most {
		return ErrProposalDropped
	}
	r.uncommittedSize += size
	r.appendOwn(slices.Clone(m.Entries))
	r.broadcastAppend()
	return nil
}

func (r *raft) stepProgress(m Message, p *progress) {
	switch m.Type {
	case MsgUnreachable:
		if p.state == replicate {
			p.becomeProbe()
		}
	case MsgHeartbeatResp:
		p.active, p.paused = true, false
		if p.match < r.log.lastIndex() || p.state == probe {
			r.sendAppend(m.From, p, true)
		}
		r.confirmReads(m)
	case MsgAppResp:
		p.active = true
		if m.Reject {
			next := m.RejectHint
			if m.LogTerm > 0 {
				next = r.log.findConflictByTerm(m.RejectHint, m.LogTerm)
			}
			if p.decreaseTo(m.Index, next) {
				r.sendAppend(m.From, p, true)
			}
			return
		}
		r.acknowledged(m, p)
	}
}

// acknowledged notes what a node holds durably, and commits what a quorum holds.
func (r *raft) acknowledged(m Message, p *progress) {
	if m.Index > r.log.lastIndex() {
		return // an answer to a leader of this term can't be longer than its log
	}
	before := p.match
	p.acknowledge(m.Index)
	if m.From == r.config.ID {
		p.next = p.match + 1
	}
	if p.match == before && p.state == replicate && m.From != r.config.ID && p.next > r.log.lastIndex() {
		return
	}
	if r.maybeCommit() {
		r.releaseReads()
		r.broadcastAppend()
	} else if m.From != r.config.ID {
		r.sendAppend(m.From, p, p.sentCommit < r.log.committed && p.sentCommit < p.next-1)
	}
	if m.From != r.config.ID {
		for p.state == replicate && p.next <= r.log.lastIndex() && r.sendAppend(m.From, p, false) {
		}
	}
}

// maybeCommit advances the commit index to what a quorum holds, if that is an entry of
// the leader's own term. Counting copies of an earlier term's entry proves nothing: it
// can still be replaced (Raft paper 5.4.2, figure 8).
func (r *raft) maybeCommit() bool {
	match := make([]uint64, 0, len(r.voters))
	for _, id := range r.voters {
		match = append(match, r.progress[id].match)
	}
	slices.Sort(match)
	index := match[len(match)-r.quorum()]
	if index <= r.log.committed || r.log.termOrZero(index) != r.term {
		return false
	}
	r.commitTo(index)
	return true
}

func (r *raft) broadcastAppend() {
	for _, id := range r.voters {
		if id != r.config.ID {
			r.sendAppend(id, r.progress[id], true)
		}
	}
}

// sendAppend sends the entries that a follower lacks, as many as one message takes. It
// reports whether it sent anything.
func (r *raft) sendAppend(to uint64, p *progress, evenEmpty bool) bool {
	if p.isPaused() {
		return false
	}
	entries, err := r.log.slice(p.next, r.log.lastIndex()+1, r.config.MaxSizePerMsg)
	if err != nil {
		r.failure = err
		return false
	}
	if len(entries) == 0 && !evenEmpty {
		return false
	}
	prev := p.next - 1
	r.send(Message{Type: MsgApp, To: to, Index: prev, LogTerm: r.log.termOrZero(prev), Entries: entries, Commit: r.log.committed})
	p.sent(len(entries))
	p.sentCommit = r.log.committed
	return true
}

func (r *raft) broadcastHeartbeat(round []byte) {
	for _, id := range r.voters {
		if id == r.config.ID {
			continue
		}
		// Never beyond what is known to match: the follower's log may differ after that.
		r.send(Message{Type: MsgHeartbeat, To: id, Commit: min(r.progress[id].match, r.log.committed), Context: round})
	}
}
