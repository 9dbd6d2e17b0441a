package raft

// Elections: Raft paper 5.2 and 5.4.1, pre-vote after dissertation 9.6.

func tickElection(r *raft) {
	r.electionElapsed++
	if r.electionElapsed >= r.timeout {
		r.electionElapsed = 0
		r.hup()
	}
}

// hup starts an election, unless this node leads already.
func (r *raft) hup() {
	if r.role == Leader {
		return
	}
	if r.config.PreVote {
		r.becomePreCandidate()
		r.campaign(MsgPreVote, r.term+1)
		return
	}
	r.becomeCandidate()
	r.campaign(MsgVote, r.term)
}

// becomePreCandidate changes neither term nor vote: a node that cannot win must not
// disturb who can. The time-out is drawn anew, or nodes that once collided would go on
// colliding.
func (r *raft) becomePreCandidate() {
	r.role, r.step, r.tick = PreCandidate, stepCandidate, tickElection
	r.votes = make(map[uint64]bool)
	r.leader = None
	r.drawTimeout()
}

func (r *raft) becomeCandidate() {
	r.role, r.step, r.tick = Candidate, stepCandidate, tickElection
	r.reset(r.term + 1)
	r.vote = r.config.ID
	r.trace(Event{Kind: EventVote, Term: r.term, Peer: r.vote})
}

// campaign asks every voter. Its own vote counts, like any other, only when the write
// that holds it is durable.
func (r *raft) campaign(kind MessageType, term uint64) {
	lastTerm := r.log.lastTerm()
	for _, id := range r.voters {
		if id == r.config.ID {
			r.send(Message{Type: voteResponse(kind), To: id, Term: term})
			continue
		}
		r.send(Message{Type: kind, To: id, Term: term, Index: r.log.lastIndex(), LogTerm: lastTerm})
	}
}

func voteResponse(kind MessageType) MessageType {
	if kind == MsgPreVote {
		return MsgPreVoteResp
	}
	return MsgVoteResp
}

// answerVote grants or refuses a vote or pre-vote. A vote is granted to one candidate a
// term, whose log is at least as up to date (Raft paper 5.4.1).
func (r *raft) answerVote(m Message) {
	can := r.vote == m.From ||
		(r.vote == None && r.leader == None) ||
		(m.Type == MsgPreVote && m.Term > r.term)
	if !can || !r.log.isUpToDate(m.Index, m.LogTerm) {
		r.trace(Event{Kind: EventVoteSend, Term: r.term, Peer: m.From, Index: m.Index, LogTerm: m.LogTerm, PreVote: m.Type == MsgPreVote})
		r.send(Message{Type: voteResponse(m.Type), To: m.From, Term: r.term, Reject: true})
		return
	}
	if m.Type == MsgVote {
		r.electionElapsed = 0
		if r.vote != m.From {
			r.vote = m.From
			r.trace(Event{Kind: EventVote, Term: r.term, Peer: r.vote})
		}
	}
	r.trace(Event{Kind: EventVoteSend, Term: m.Term, Peer: m.From, Index: m.Index, LogTerm: m.LogTerm, Granted: true, PreVote: m.Type == MsgPreVote})
	r.send(Message{Type: voteResponse(m.Type), To: m.From, Term: m.Term})
}

// stepCandidate is the role function of candidates and pre-candidates.
func stepCandidate(r *raft, m Message) error {
	switch m.Type {
	case MsgProp:
		return ErrProposalDropped
	case MsgReadIndex:
		return ErrReadDropped
	case MsgApp, MsgHeartbeat:
		// A leader of this very term exists.
		r.becomeFollower(m.Term, m.From)
		return r.step(r, m)
	case MsgVoteResp, MsgPreVoteResp:
		if (m.Type == MsgPreVoteResp) == (r.role == PreCandidate) {
			r.countVote(m.From, !m.Reject)
		}
	}
	return nil
}

// countVote counts an answer, the first of each voter only.
func (r *raft) countVote(from uint64, granted bool) {
	if _, voted := r.votes[from]; voted || r.progress[from] == nil {
		return
	}
	r.votes[from] = granted
	yes, no := 0, 0
	for _, id := range r.voters {
		switch granted, voted := r.votes[id]; {
		case granted:
			yes++
		case voted:
			no++
		}
	}
	switch {
	case yes >= r.quorum() && r.role == PreCandidate:
		r.becomeCandidate()
		r.campaign(MsgVote, r.term)
	case yes >= r.quorum():
		r.becomeLeader()
	case len(r.voters)-no < r.quorum():
		r.becomeFollower(r.term, None)
	}
}
