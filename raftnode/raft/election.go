package raft

import "capsize/raftnode/raft/quorum"

// Elections: Raft paper 5.2 and 5.4.1; pre-votes: dissertation 9.6.

// campaignTransfer is the context of a MsgVote whose sender was asked by the leader to take
// over.
const campaignTransfer = "CampaignTransfer"

func tickElection(r *raft) {
	r.electionElapsed++
	if r.promotable() && r.electionElapsed >= r.electionTimeout {
		r.electionElapsed = 0
		r.local(MsgHup)
	}
}

// promotable reports whether this node could lead: it is a voter, and its log is not about
// to be replaced.
func (r *raft) promotable() bool {
	id := r.config.ID
	return r.members.Voters.Contains(id) && r.log.unstable.snapshot == nil
}

// hup starts an election, unless this node leads already or must not.
func (r *raft) hup(transfer bool) {
	switch {
	case r.role == Leader:
	case !r.promotable():
		r.logger.Warningf("node %d cannot lead and does not campaign", r.config.ID)
	case r.hasUnappliedConfChange():
		// It would count votes by a configuration that is not the present one: two majorities
		// that share no node could elect two leaders.
		r.logger.Warningf("node %d has changes of membership to apply and does not campaign", r.config.ID)
	case transfer:
		// The leader has asked for it: there is no need to ask whether it can be won.
		r.becomeCandidate()
		r.campaign(MsgVote, []byte(campaignTransfer))
	case r.config.PreVote:
		r.becomePreCandidate()
		r.campaign(MsgPreVote, nil)
	default:
		r.becomeCandidate()
		r.campaign(MsgVote, nil)
	}
}

// scanBytes bounds what is read at once when the log is looked through.
const scanBytes = 1 << 20

// hasUnappliedConfChange reports whether a change of membership is committed and not
// applied. It is asked of a promotable node, whose log is not about to be replaced.
func (r *raft) hasUnappliedConfChange() bool {
	log := r.log
	for from := log.apply.applied + 1; from <= log.committed; {
		entries, err := log.slice(from, log.committed+1, scanBytes)
		if err != nil {
			log.fail(err)
			return true
		}
		for _, e := range entries {
			if e.isConfChange() {
				return true
			}
		}
		from += uint64(len(entries))
	}
	return false
}

// becomePreCandidate changes neither term nor vote: a node that cannot win must not
// disturb who can. The time-out is drawn anew, or nodes that once collided would go on
// colliding.
func (r *raft) becomePreCandidate() {
	assert(r.role != Leader, "a leader becomes pre-candidate")
	r.role, r.step, r.tick = PreCandidate, stepCandidate, tickElection
	r.leader = None
	r.votes = make(map[uint64]quorum.Answer, len(r.progress))
	r.drawElectionTimeout()
	r.logger.Infof("node %d is pre-candidate in term %d", r.config.ID, r.term)
}

func (r *raft) becomeCandidate() {
	assert(r.role != Leader, "a leader becomes candidate")
	r.role, r.step, r.tick = Candidate, stepCandidate, tickElection
	r.reset(r.term + 1)
	r.vote = r.config.ID
	r.trace(Event{Kind: EventVote, Term: r.term, Peer: r.vote})
	r.logger.Infof("node %d is candidate in term %d", r.config.ID, r.term)
}

// campaign asks every voter, itself included: of both halves, while the configuration is
// joint.
func (r *raft) campaign(request MessageType, context []byte) {
	term := r.term
	if request == MsgPreVote {
		term++
	}
	index, logTerm := r.log.lastIndex(), r.log.lastTerm()
	for _, id := range r.members.Voters.Voters() {
		if id == r.config.ID {
			r.send(Message{Type: voteResponse(request), To: id, Term: term})
			continue
		}
		r.send(Message{Type: request, To: id, Term: term, Index: index, LogTerm: logTerm, Context: context})
	}
}

func voteResponse(request MessageType) MessageType {
	if request == MsgPreVote {
		return MsgPreVoteResp
	}
	return MsgVoteResp
}

// answerVote grants or refuses a vote or pre-vote. A vote goes to one candidate a term,
// and only to one whose log holds all that may be committed. Learners vote too: a node
// may have been promoted and not know it yet, and then the election may need its vote.
func (r *raft) answerVote(m Message) {
	pre := m.Type == MsgPreVote
	free := r.vote == m.From || // asked again, its answer was lost
		r.vote == None && r.leader == None || // else the term has a leader already
		pre && m.Term > r.term
	answer := Event{
		Kind: EventVoteSend, Term: r.term, Peer: m.From, Index: m.Index, LogTerm: m.LogTerm, PreVote: pre,
	}
	if !free || !r.log.isUpToDate(m.Index, m.LogTerm) {
		r.trace(answer)
		r.send(Message{Type: voteResponse(m.Type), To: m.From, Term: r.term, Reject: true})
		return
	}
	if !pre {
		r.electionElapsed = 0
		if r.vote != m.From {
			r.vote = m.From
			r.trace(Event{Kind: EventVote, Term: r.term, Peer: r.vote})
		}
	}
	// A granted pre-vote bears the term asked for: the asker is not in it, nor is this node.
	answer.Term, answer.Granted = m.Term, true
	r.trace(answer)
	r.send(Message{Type: voteResponse(m.Type), To: m.From, Term: m.Term})
}

// stepCandidate is the role function of candidates and pre-candidates.
func stepCandidate(r *raft, m Message) error {
	switch m.Type {
	case MsgProp:
		return ErrProposalDropped
	case MsgReadIndex:
		return ErrReadDropped
	case MsgApp, MsgHeartbeat, MsgSnap:
		r.becomeFollower(m.Term, m.From) // this very term has a leader
		return r.step(r, m)
	case MsgVoteResp:
		if r.role == Candidate {
			r.countVote(m)
		}
	case MsgPreVoteResp:
		if r.role == PreCandidate {
			r.countVote(m)
		}
	}
	return nil
}

// countVote counts an answer, the first of each voter only.
func (r *raft) countVote(m Message) {
	if r.votes[m.From] != quorum.Silent {
		return
	}
	r.votes[m.From] = quorum.Yes
	if m.Reject {
		r.votes[m.From] = quorum.No
	}
	switch r.members.Voters.Vote(func(id uint64) quorum.Answer { return r.votes[id] }) {
	case quorum.Won:
		if r.role == PreCandidate {
			r.becomeCandidate()
			r.campaign(MsgVote, nil)
			return
		}
		r.becomeLeader()
	case quorum.Lost:
		r.becomeFollower(r.term, None)
	case quorum.Pending:
	}
}
