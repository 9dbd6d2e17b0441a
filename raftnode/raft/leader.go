package raft

import "capsize/raftnode/raft/quorum"

// Leaders: Raft paper 5.3 and 5.4.2.

func (r *raft) becomeLeader() {
	assert(r.role == Candidate, "a %v becomes leader", r.role)
	r.role, r.step, r.tick = Leader, stepLeader, tickHeartbeat
	r.reset(r.term)
	r.leader = r.config.ID
	r.logger.Infof("node %d is leader in term %d", r.config.ID, r.term)
	r.trace(Event{
		Kind: EventLeader, Term: r.term, Index: r.log.lastIndex(), LogTerm: r.log.lastTerm(), Conf: r.members.State(),
	})
	own := r.progress.of(r.config.ID)
	own.becomeReplicate()
	own.active = true
	// Which of the log's changes of membership are applied everywhere is not known yet. The
	// last entry is the most that has to be waited for.
	r.pendingConfIndex = r.log.lastIndex()
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
		if r.role == Leader {
			r.transferee = None // it did not take over in time
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
		return nil
	case MsgCheckQuorum:
		r.checkQuorum()
		return nil
	case MsgProp:
		return r.propose(m.Entries)
	case MsgReadIndex:
		return r.startRead(m)
	}
	p := r.progress.of(m.From)
	if p == nil {
		return nil // no member, or none any more
	}
	switch m.Type {
	case MsgAppResp:
		r.handleAppendResponse(m, p)
	case MsgHeartbeatResp:
		r.handleHeartbeatResponse(m, p)
	case MsgSnapStatus:
		r.handleSnapshotStatus(m, p)
	case MsgUnreachable:
		// What is on its way may be lost: sending more of it would be in vain.
		if p.state == StateReplicate && p.id != r.config.ID {
			p.becomeProbe()
		}
	case MsgTransferLeader:
		r.transfer(p)
	}
	return nil
}

// checkQuorum steps down when no quorum was heard of since the last check. The term stays:
// nobody else may have been elected.
func (r *raft) checkQuorum() {
	result := r.members.Voters.Vote(func(id uint64) quorum.Answer {
		if r.progress.of(id).active {
			return quorum.Yes
		}
		return quorum.No
	})
	if result != quorum.Won {
		r.logger.Warningf("node %d has not heard of a quorum and steps down in term %d", r.config.ID, r.term)
		r.becomeFollower(r.term, None)
		return
	}
	for _, p := range r.progress {
		p.active = p.id == r.config.ID
	}
}

func (r *raft) propose(entries []Entry) error {
	switch {
	case len(entries) == 0:
		return ErrMalformed
	case r.progress.of(r.config.ID) == nil:
		return ErrProposalDropped // this leader is no member any more
	case r.transferee != None:
		return ErrProposalDropped // or the other one's log would never be complete
	}
	pending := r.pendingConfIndex
	entries, err := r.vetConfChanges(entries)
	if err != nil {
		return err
	}
	if !r.appendOwn(entries) {
		r.pendingConfIndex = pending
		return ErrProposalDropped
	}
	r.broadcastAppend()
	return nil
}

// appendOwn appends entries of the leader's own making, unless too much is uncommitted
// already. Entries without data are always taken: what the leader appends of its own
// accord must never be held up. So is a single proposal of any size, or it could never
// pass.
func (r *raft) appendOwn(entries []Entry) bool {
	size := payloadSize(entries)
	if r.uncommitted > 0 && size > 0 && r.uncommitted+size > r.config.MaxUncommittedEntriesSize {
		return false
	}
	r.uncommitted += size
	last := r.log.lastIndex()
	own := append(r.scratch[:0], entries...) // they may be someone else's, too
	for i := range own {
		own[i].Term, own[i].Index = r.term, last+1+uint64(i)
	}
	r.appendEntries(own)
	clear(own)
	r.scratch = own[:0]
	// This node acknowledges its own entries when they are durable, like any other.
	r.send(Message{Type: MsgAppResp, To: r.config.ID, Index: r.log.lastIndex()})
	return true
}

// commitByQuorum advances the commit index to what a quorum holds durably, if that is an
// entry of the leader's own term. Counting copies of an earlier term's entry proves
// nothing: a node that lacks it may still be elected, by its own later term, and replace
// it everywhere (Raft paper 5.4.2, figure 8).
func (r *raft) commitByQuorum() bool {
	index := r.members.Voters.Reached(func(id uint64) uint64 { return r.progress.of(id).match })
	if index <= r.log.committed || !r.log.matches(index, r.term) {
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

// transfer hands leadership to another voter (dissertation 3.10): it is brought up to date,
// then told to campaign at once. Proposals are refused meanwhile.
func (r *raft) transfer(p *progress) {
	switch {
	case r.members.Learners.Contains(p.id), p.id == r.transferee:
		return
	case p.id == r.config.ID:
		r.transferee = None // it keeps what it was about to hand over
		return
	}
	r.logger.Infof("node %d hands leadership to node %d in term %d", r.config.ID, p.id, r.term)
	r.transferee = p.id // whoever was asked before may still campaign: that is harmless
	r.electionElapsed = 0
	if p.match == r.log.lastIndex() {
		r.send(Message{Type: MsgTimeoutNow, To: p.id})
		return
	}
	r.sendAppend(p, true)
}

// finishApply notes that entries have been applied.
func (r *raft) finishApply(m Message) {
	if len(m.Entries) == 0 {
		return
	}
	r.appliedTo(m.Entries[len(m.Entries)-1].Index, entriesSize(m.Entries))
	r.uncommitted -= min(r.uncommitted, payloadSize(m.Entries))
}

// finishAppend notes that a write is durable.
func (r *raft) finishAppend(m Message) {
	if m.Index != 0 {
		r.log.unstable.durableTo(m.Index, m.LogTerm)
	}
	if m.Snapshot != nil {
		r.snapshotApplied(m.Snapshot)
	}
}

func (r *raft) snapshotApplied(s *Snapshot) {
	r.log.unstable.snapshotDurable(s.Metadata.Index)
	r.appliedTo(s.Metadata.Index, 0)
}

func (r *raft) appliedTo(index, bytes uint64) {
	assert(index <= r.log.committed, "entry %d is applied, but only %d is committed", index, r.log.committed)
	r.log.apply.done(index, bytes)
	if r.role == Leader && r.members.AutoLeave && r.log.apply.applied >= r.pendingConfIndex {
		// The joint configuration is in force: now it can be left. Where a transfer of leadership
		// stands against it, the next entry that is applied, or the next leader, tries again.
		if err := r.propose([]Entry{{Type: EntryConfChangeV2}}); err != nil {
			r.logger.Infof("node %d does not leave the joint configuration yet: %v", r.config.ID, err)
		}
	}
}
