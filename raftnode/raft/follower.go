package raft

import "fmt"

// stepFollower is the role function of followers.
func stepFollower(r *raft, m Message) error {
	switch m.Type {
	case MsgProp:
		if r.leader == None {
			return ErrProposalDropped
		}
		m.To = r.leader
		r.send(m)
	case MsgReadIndex:
		if r.leader == None {
			return ErrReadDropped
		}
		m.To = r.leader
		r.send(m)
	case MsgReadIndexResp:
		if len(m.Entries) == 1 {
			r.readStates = append(r.readStates, ReadState{Index: m.Index, Context: m.Entries[0].Data})
		}
	case MsgApp:
		r.follow(m.From)
		r.handleAppend(m)
	case MsgHeartbeat:
		r.follow(m.From)
		r.commitTo(m.Commit)
		r.send(Message{Type: MsgHeartbeatResp, To: m.From, Context: m.Context})
	}
	return nil
}

func (r *raft) follow(leader uint64) {
	r.electionElapsed = 0
	r.leader = leader
}

// handleAppend is the follower's side of log replication (Raft paper 5.3).
func (r *raft) handleAppend(m Message) {
	if m.Index < r.log.committed {
		r.send(Message{Type: MsgAppResp, To: m.From, Index: r.log.committed})
		return
	}
	if !r.log.matches(m.Index, m.LogTerm) {
		// The hint skips all entries that cannot match, a term at a time, instead of one entry
		// a round trip (Raft paper 5.3, end).
		hint := r.log.findConflictByTerm(min(m.Index, r.log.lastIndex()), m.LogTerm)
		r.send(Message{Type: MsgAppResp, To: m.From, Index: m.Index, Reject: true, RejectHint: hint, LogTerm: r.log.termOrZero(hint)})
		return
	}
	last := m.Index + uint64(len(m.Entries))
	if from := r.log.firstConflict(m.Entries); from > 0 {
		entries := m.Entries[from-m.Index-1:]
		if from <= r.log.lastIndex() {
			r.trace(Event{Kind: EventTruncate, Index: from, Term: r.term})
		}
		r.appendEntries(entries)
	}
	r.commitTo(min(m.Commit, last))
	r.send(Message{Type: MsgAppResp, To: m.From, Index: last})
}

// appendEntries puts entries at the end of the log, after whatever they replace.
func (r *raft) appendEntries(entries []Entry) {
	if len(entries) == 0 {
		return
	}
	if first := entries[0].Index; first <= r.log.committed {
		r.failure = fmt.Errorf("raft: told to replace entry %d, but everything up to %d is committed", first, r.log.committed)
		return
	}
	r.log.append(entries)
	for _, e := range entries {
		r.trace(Event{Kind: EventAppend, Index: e.Index, LogTerm: e.Term, Term: r.term, Entry: e})
	}
}

func (r *raft) commitTo(index uint64) {
	if index > r.log.lastIndex() {
		// A leader never tells more than it knows to match here: this node had acknowledged
		// entries that it no longer has. To go on would be to vote without them.
		r.failure = fmt.Errorf("raft: told that entry %d is committed, but the log ends at %d: was the log lost?", index, r.log.lastIndex())
		return
	}
	if index > r.log.committed {
		r.log.committed = index
		r.trace(Event{Kind: EventCommit, Index: index, Term: r.term, Role: r.role})
	}
}
