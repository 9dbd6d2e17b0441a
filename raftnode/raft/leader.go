package raft

import (
	"slices"

	"capsize/raftnode/raft/quorum"
)

// Leaders: Raft paper 5.3 and 5.4.2.

func (r *raft) becomeLeader() {
	assert(r.role == Candidate, "a %v becomes leader", r.role)
	r.role, r.step, r.tick = Leader, stepLeader, tickHeartbeat
	r.reset(r.term)
	r.leader = r.config.ID
	r.trace(Event{Kind: EventLeader, Term: r.term, Index: r.log.lastIndex(), LogTerm: r.log.lastTerm()})
	own := r.progress[r.config.ID]
	own.match = r.log.tail.durable()
	own.become(StateReplicate)
	// Entries of earlier terms are committed only through one of the leader's own term (see
	// commitByQuorum): an empty one makes that happen at once.
	r.appendOwn([]Entry{{}})
	r.broadcastAppend()
}

func tickHeartbeat(r *raft) {
	r.heartbeatElapsed++
	r.electionElapsed++
	if r.electionElapsed >= r.config.ElectionTick {
		r.electionElapsed = 0
		if r.config.CheckQuorum {
			r.local(MsgCheckQuorum)
		}
	}
	if r.role == Leader && r.heartbeatElapsed >= r.config.HeartbeatTick {
		r.heartbeatElapsed = 0
		r.local(MsgBeat)
	}
}

// stepLeader is the role function of leaders.
func stepLeader(r *raft, m Message) error {
	switch m.Type {
	case MsgBeat:
		r.broadcastHeartbeat()
	case MsgCheckQuorum:
		r.checkQuorum()
	case MsgProp:
		return r.propose(m.Entries)
	case MsgReadIndex:
		return r.startRead(m)
	case MsgAppResp:
		r.handleAppendResponse(m, r.progress[m.From])
	case MsgHeartbeatResp:
		r.handleHeartbeatResponse(m, r.progress[m.From])
	case MsgUnreachable:
		// What is on its way may be lost: sending more of it would be in vain.
		if p := r.progress[m.From]; p.state == StateReplicate {
			p.become(StateProbe)
		}
	}
	return nil
}

// checkQuorum steps down when no quorum was heard of since the last check. The term stays:
// nobody else may have been elected.
func (r *raft) checkQuorum() {
	result := r.voters.Vote(func(id uint64) quorum.Answer {
		if id == r.config.ID || r.progress[id].active {
			return quorum.Yes
		}
		return quorum.No
	})
	if result != quorum.Won {
		r.becomeFollower(r.term, None)
		return
	}
	for _, id := range r.voters {
		r.progress[id].active = false
	}
}

func (r *raft) propose(entries []Entry) error {
	var size uint64
	for _, e := range entries {
		size += uint64(len(e.Data))
	}
	if !r.backlog.admits(size, r.config.MaxUncommittedEntriesSize) {
		return ErrProposalDropped
	}
	r.appendOwn(slices.Clone(entries))
	r.broadcastAppend()
	return nil
}

// appendOwn appends entries of the leader's own making. They count as acknowledged by this
// node when Persisted tells that they are durable.
func (r *raft) appendOwn(entries []Entry) {
	last := r.log.lastIndex()
	for i := range entries {
		entries[i].Term, entries[i].Index = r.term, last+1+uint64(i)
		r.backlog.add(entries[i])
	}
	r.appendEntries(entries)
}

// acknowledgeOwn notes what has become durable on the leader itself.
func (r *raft) acknowledgeOwn() {
	own := r.progress[r.config.ID]
	if own.acknowledge(r.log.tail.durable()) && r.commitByQuorum() {
		r.afterCommit()
	}
}

// commitByQuorum advances the commit index to what a quorum holds durably, if that is an
// entry of the leader's own term. Counting copies of an earlier term's entry proves
// nothing: a node that lacks it may still be elected, by its own later term, and replace
// it everywhere (Raft paper 5.4.2, figure 8).
func (r *raft) commitByQuorum() bool {
	index := r.voters.Reached(func(id uint64) uint64 { return r.progress[id].match })
	if index <= r.log.committed || r.log.term(index) != r.term {
		return false
	}
	r.commitTo(index)
	return true
}

// afterCommit lets go on what waited for the commit index to rise.
func (r *raft) afterCommit() {
	r.releaseReads()
	r.broadcastAppend()
}
