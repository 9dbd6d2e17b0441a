package invariants

import (
	"cmp"
	"maps"
	"slices"
)

// Terms, votes and leaders: I1 to I5, I10, and of I13 what concerns votes.

// ballot is a vote that is durable.
type ballot struct {
	candidate string
	place     place
	// low is the least position that the voter's log can have ended at when it decided.
	low      Position
	lowKnown bool
}

func (c *Checker) durableTerm(n *node, e *Event) {
	c.checks[TermMonotone]++
	if e.Term < n.term {
		before := c.event(n.termPlace)
		before.Term = n.term
		c.violated(TermMonotone, []Event{*e, before}, "%s was in term %d durably, and then in term %d.", n.name, n.term, e.Term)
	}
	if e.Term != n.term {
		n.term, n.termPlace = e.Term, n.at(e)
	}
}

// actsIn notes that the node acted in a term, which need not be durable.
func (c *Checker) actsIn(n *node, e *Event) {
	c.checks[TermMonotone]++
	if e.Term < max(n.term, n.memoryTerm) {
		before := c.event(n.termPlace)
		before.Term = n.term
		c.violated(TermMonotone, []Event{*e, before}, "%s acts in term %d, after it was in term %d.", n.name, e.Term, max(n.term, n.memoryTerm))
	}
	n.memoryTerm = max(n.memoryTerm, e.Term)
}

func (c *Checker) durableVote(n *node, term uint64, candidate string, at place) {
	key := nodeTerm{n.number, term}
	c.checks[OneVote]++
	before := c.ballots[key]
	if before == nil {
		c.ballots[key] = &ballot{candidate: candidate, place: at, low: n.low, lowKnown: n.blind == ""}
		return
	}
	if before.candidate != candidate {
		now := c.event(at)
		now.Term, now.Candidate = term, candidate
		c.votedTwice(n, now, candidate, before)
	}
}

func (c *Checker) votedTwice(n *node, now Event, candidate string, before *ballot) {
	earlier := c.event(before.place)
	earlier.Term, earlier.Candidate = now.Term, before.candidate
	c.violated(OneVote, []Event{now, earlier}, "%s voted for both %s and %s in term %d.", n.name, before.candidate, candidate, now.Term)
}

func (c *Checker) voteSend(n *node, e *Event) {
	b := c.ballots[nodeTerm{n.number, e.Term}]
	switch {
	case n.blind != "":
		c.undecide(PersistBeforeSend, n.blind)
	case n.term < e.Term:
		c.checks[PersistBeforeSend]++
		before := c.event(n.termPlace)
		before.Term = n.term
		c.violated(PersistBeforeSend, []Event{*e, before}, "%s answered %s's request for a vote in term %d, but only term %d is durable.", n.name, e.To, e.Term, n.term)
	case e.Granted && b == nil:
		c.checks[PersistBeforeSend]++
		c.violated(PersistBeforeSend, []Event{*e}, "%s gave %s its vote in term %d, but no vote in that term is durable.", n.name, e.To, e.Term)
	default:
		c.checks[PersistBeforeSend]++
	}
	if !e.Granted {
		return
	}
	key := link{n.number, e.To, e.Term}
	if _, known := c.granted[key]; !known {
		c.granted[key] = n.at(e)
	}
	if b == nil {
		c.durableVote(n, e.Term, e.To, n.at(e)) // or a second one would go unseen
		return
	}
	c.checks[OneVote]++
	if b.candidate != e.To {
		c.votedTwice(n, *e, e.To, b)
		return
	}
	c.upToDate(n, e, b)
}

// upToDate compares the candidate's log with the voter's (Raft paper 5.4.1). The answer
// leaves when the vote is durable, and by then another leader of the term may have
// added to the voter's log. So what counts is what the log can have been when the vote
// was decided on.
func (c *Checker) upToDate(n *node, e *Event, b *ballot) {
	if e.To == n.name || e.CandLast == (Position{}) {
		return
	}
	if !b.lowKnown {
		if n.blind != "" {
			c.undecide(UpToDateVotes, n.blind)
		}
		return
	}
	c.checks[UpToDateVotes]++
	if e.CandLast.less(b.low) {
		vote := c.event(b.place)
		vote.Term, vote.Candidate = e.Term, b.candidate
		c.violated(UpToDateVotes, []Event{*e, vote}, "%s gave %s its vote in term %d, whose log ended with entry %d of term %d; its own ended with entry %d of term %d.",
			n.name, e.To, e.Term, e.CandLast.Index, e.CandLast.Term, b.low.Index, b.low.Term)
	}
}

// reign is a node's leadership of a term.
type reign struct {
	nodeTerm
	event   *Event // nil: the line is missing
	last    id     // the version at event.Last
	commits mark   // the highest index it committed
	version id     // at that index, in its log
	claims  []claim
	views   map[string]mark // by follower: the match it knows of
	matches map[string]mark // the highest ones, of members that were removed too
}

func (r *reign) confs() []*Conf {
	var confs []*Conf
	if r.event != nil && r.event.Conf != nil {
		confs = append(confs, r.event.Conf)
	}
	for _, claim := range r.claims {
		if claim.conf != nil {
			confs = append(confs, claim.conf)
		}
	}
	return confs
}

func (c *Checker) reignOf(n *node, term uint64) *reign {
	if n.reign != nil && n.reign.term == term {
		return n.reign
	}
	key := nodeTerm{n.number, term}
	r := c.reigns[key]
	if r == nil {
		r = &reign{nodeTerm: key, last: unknown, version: unknown}
		c.reigns[key] = r
	}
	return r
}

func (c *Checker) reignsByTerm() []*reign {
	return slices.SortedFunc(maps.Values(c.reigns), func(a, b *reign) int {
		return cmp.Or(cmp.Compare(a.term, b.term), cmp.Compare(c.nodes[a.node].name, c.nodes[b.node].name))
	})
}

func (c *Checker) leader(n *node, e *Event) {
	c.actsIn(n, e)
	c.healedBy(e)
	c.checks[ElectionSafety]++
	if other, had := c.leaders[e.Term]; !had {
		c.leaders[e.Term] = *e
	} else if other.Node == e.Node {
		c.violated(ElectionSafety, []Event{*e, other}, "%s became leader of term %d twice.", n.name, e.Term)
	} else {
		c.violated(ElectionSafety, []Event{*e, other}, "%s and %s both became leader of term %d.", e.Node, other.Node, e.Term)
	}
	r := c.reignOf(n, e.Term)
	last := n.log.at(e.Last)
	if e.Hash != 0 || e.Last == 0 {
		last = c.hold(n, e, e.Last, e.LastTerm, n.log.at(max(e.Last, 1)-1))
	}
	if r.event == nil {
		event := *e
		r.event, r.last = &event, last
	}
	n.reign = r
	if e.Conf != nil && (n.conf == nil || !n.conf.equal(e.Conf)) {
		n.conf = e.Conf
	}
}

// finishElections checks each election against the votes that were sent (I3).
func (c *Checker) finishElections(reigns []*reign) {
	for _, r := range reigns {
		if r.event == nil {
			continue
		}
		conf, name := r.event.Conf, r.event.Node
		if conf == nil || len(conf.Voters) == 0 {
			c.undecide(VoteQuorum, "the configuration in which "+name+" was elected is not told")
			continue
		}
		if !conf.votes(name) {
			c.checks[VoteQuorum]++
			c.violated(VoteQuorum, []Event{*r.event}, "%s became leader of term %d, but is no voter in its configuration.", name, r.term)
			continue
		}
		evidence := []Event{*r.event}
		gave := func(voter string) bool {
			_, sent := c.vote(voter, name, r.term)
			return sent && slices.Contains(r.event.Voters, voter)
		}
		for _, voter := range r.event.Voters {
			if at, sent := c.vote(voter, name, r.term); sent {
				e := c.event(at)
				e.Term, e.To, e.Granted = r.term, name, true
				evidence = append(evidence, e)
			}
		}
		if !conf.quorum(gave) {
			var silent []string
			for _, voter := range r.event.Voters {
				if !gave(voter) {
					silent = append(silent, voter)
				}
			}
			if why := c.lacksAny(silent...); why != "" {
				c.undecide(VoteQuorum, why)
				continue
			}
			c.violated(VoteQuorum, evidence, "%s became leader of term %d with the votes of %v: they are no quorum of its configuration, or did not all vote for it.", name, r.term, r.event.Voters)
		}
		c.checks[VoteQuorum]++
	}
}

func (c *Checker) vote(voter, candidate string, term uint64) (at place, sent bool) {
	n := c.byName[voter]
	if n == nil {
		return place{}, false
	}
	at, sent = c.granted[link{n.number, candidate, term}]
	return at, sent
}

// finishCompleteness checks that each leader held, when it was elected, all that leaders of
// lower terms ever committed (I10; Raft paper 5.4.3). The term that counts is the one in
// which it was committed: an entry of term 2 that the leader of term 4 commits may be
// missing from the log of a leader of term 3 that was cut off before it came.
func (c *Checker) finishCompleteness(reigns []*reign) {
	var highest *reign // of lower terms, by what it committed
	for i := 0; i < len(reigns); {
		end := i
		for end < len(reigns) && reigns[end].term == reigns[i].term {
			end++
		}
		for _, r := range reigns[i:end] {
			if r.event != nil && highest != nil {
				c.complete(r, highest)
			}
		}
		for _, r := range reigns[i:end] {
			if r.commits.index > 0 && (highest == nil || r.commits.index > highest.commits.index) {
				highest = r
			}
		}
		i = end
	}
}

func (c *Checker) complete(r, before *reign) {
	at := before.commits.index
	committed := c.indexEvent(before.commits)
	committed.Term, committed.Role = before.term, "leader"
	evidence := []Event{*r.event, committed}
	if r.event.Last < at {
		c.checks[LeaderCompleteness]++
		c.violated(LeaderCompleteness, evidence, "%s became leader of term %d with a log that ends at %d, but %s had committed entry %d in term %d.",
			r.event.Node, r.term, r.event.Last, committed.Node, at, before.term)
		return
	}
	held := unknown
	if r.last != unknown {
		held = c.versions.ancestor(r.event.Last, r.last, at)
	}
	if held == unknown || before.version == unknown {
		why := c.lacksAny(r.event.Node, committed.Node)
		if why == "" {
			why = "what " + r.event.Node + " held when it was elected is not told"
		}
		c.undecide(LeaderCompleteness, why)
		return
	}
	c.checks[LeaderCompleteness]++
	if held != before.version {
		evidence = append(evidence, c.versionEvent(at, c.versions.get(at, held)), c.versionEvent(at, c.versions.get(at, before.version)))
		c.violated(LeaderCompleteness, evidence, "%s became leader of term %d with another entry at %d than %s had committed in term %d.",
			r.event.Node, r.term, at, committed.Node, before.term)
	}
}
