package raft

// stepTerm compares the message's term with the node's (Raft paper 5.1). It reports
// whether the message has more to say.
func (r *raft) stepTerm(m Message) bool {
	switch {
	case m.Term == 0: // the node's own event, or a request passed on
		return true
	case m.Term > r.term:
		return r.stepHigherTerm(m)
	case m.Term < r.term:
		r.stepLowerTerm(m)
		return false
	}
	return true
}

func (r *raft) stepHigherTerm(m Message) bool {
	switch m.Type {
	case MsgVote, MsgPreVote:
		// A node that hears from a leader helps nobody to depose it, and does not even answer: a
		// node that was cut off, or removed, must not disturb the others when it returns
		// (dissertation 4.2.3). The limit is the shortest time-out, not this node's own, which
		// is when some node may rightly campaign.
		// Whom the leader itself has asked to take over, everybody may elect.
		leased := r.config.CheckQuorum && r.leader != None && r.electionElapsed < r.config.ElectionTick
		if leased && string(m.Context) != campaignTransfer {
			return false
		}
		if m.Type == MsgVote {
			r.becomeFollower(m.Term, None)
		}
		// To ask whether an election could be won changes no term.
	case MsgPreVoteResp:
		// A granted pre-vote bears the term that the election would have, which nobody is in yet.
		if m.Reject {
			r.becomeFollower(m.Term, None)
		}
	case MsgApp, MsgHeartbeat, MsgSnap:
		r.becomeFollower(m.Term, m.From)
	default:
		r.becomeFollower(m.Term, None)
	}
	return true
}

// stepLowerTerm answers where silence would leave somebody stuck, and nobody else.
func (r *raft) stepLowerTerm(m Message) {
	switch m.Type {
	case MsgApp, MsgHeartbeat:
		// A node that was cut off has raised its term by campaigning, and returns. Its requests
		// for votes are ignored because everybody hears from the leader, and it ignores the
		// leader, whose term is lower. So it tells the leader its term, which makes it step down
		// and an election possible. Without CheckQuorum and PreVote its requests would do that.
		if r.config.CheckQuorum || r.config.PreVote {
			r.send(Message{Type: MsgAppResp, To: m.From})
		}
	case MsgPreVote:
		// While a cluster goes over to pre-votes, a node may campaign at a lower term with a
		// longer log, another at a higher term with a shorter one. If neither learns of the
		// other's term, nobody ever wins.
		r.send(Message{Type: MsgPreVoteResp, To: m.From, Term: r.term, Reject: true})
	case MsgStorageAppendResp:
		// What was handed out in an earlier term may have been replaced since (see unstable), so
		// it counts for nothing; a later write speaks for it. A snapshot is never replaced.
		if m.Snapshot != nil {
			r.snapshotApplied(m.Snapshot)
		}
	}
}
