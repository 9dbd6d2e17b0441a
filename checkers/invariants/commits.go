package invariants

import (
	"maps"
	"slices"
)

// The commit rule (I9) and what leaders know of their followers (I18).

// claim is what a leader committed in a configuration, and on whose word.
type claim struct {
	index uint64
	place place
	reign *reign
	conf  *Conf
	// alternative is the configuration that was put into force right after: a commit that a
	// change of membership makes possible may be written before the change is.
	alternative *Conf
	self        bool // the leader's own log was durable up to index
	early       bool // as far as the leader knew, no quorum held it
}

// ack is the most that a node acknowledged to a leader in a term.
type ack struct {
	index uint64
	place place
}

// leaderCommits checks a leader's commit as far as its own trace tells, and keeps the rest
// for later.
func (c *Checker) leaderCommits(n *node, e *Event) {
	r := c.reignOf(n, e.Term)
	held := n.log.at(e.Index)
	if e.Index > r.commits.index {
		r.commits, r.version = mark{e.Index, n.at(e)}, held
	}
	switch {
	case n.blind != "":
		c.undecide(CommitRule, n.blind)
		return
	case n.reign != r:
		c.undecide(CommitRule, "no line tells that "+n.name+" leads the term in which it commits")
		return
	case n.conf == nil || len(n.conf.Voters) == 0:
		c.undecide(CommitRule, "the configuration in which "+n.name+" leads is not told")
		return
	}
	if held != unknown {
		c.checks[CommitRule]++
		if v := c.versions.get(e.Index, held); v.term != e.Term {
			c.violated(CommitRule, []Event{*e, c.versionEvent(e.Index, v)}, "%s, leader of term %d, committed up to entry %d, which is of term %d: only entries of its own term may be committed by counting copies.", n.name, e.Term, e.Index, v.term)
		}
	}
	n.pending = claim{index: e.Index, place: n.at(e), reign: r, conf: n.conf, self: n.durable >= e.Index}
}

// known reports whether, as far as the leader knows, a quorum holds what it committed.
func (k *claim) known(leader string) bool {
	holds := func(member string) bool {
		return member == leader && k.self || member != leader && k.reign.views[member].index >= k.index
	}
	return k.conf.quorum(holds) || k.alternative != nil && k.alternative.quorum(holds)
}

// settle keeps a commit for the end, with the configuration that came into force right
// after it, if one did. Of commits alike the highest is enough.
func (n *node) settle(next *Conf) {
	k := n.pending
	n.pending = claim{}
	k.alternative = next
	k.early = !k.known(n.name)
	claims := k.reign.claims
	for i := len(claims) - 1; i >= 0 && i >= len(claims)-claimsAlike; i-- {
		if o := &claims[i]; o.conf == k.conf && o.alternative == next && o.self == k.self && o.early == k.early {
			o.index, o.place = k.index, k.place
			return
		}
	}
	k.reign.claims = append(claims, k)
}

// claimsAlike is how many claims may differ in nothing but what they rest on.
const claimsAlike = 4

func (c *Checker) finishCommits(reigns []*reign) {
	var highest mark // of all leaders
	for _, r := range reigns {
		highest.raise(r.commits.index, r.commits.place)
		for i := range r.claims {
			c.finishClaim(r, &r.claims[i])
		}
	}
	if c.followed.index == 0 {
		return
	}
	c.checks[CommitRule]++
	if c.followed.index <= highest.index {
		return
	}
	if why := c.lacksAny(c.everybody()...); why != "" {
		c.undecide(CommitRule, why)
		return
	}
	e := c.indexEvent(c.followed)
	evidence := []Event{e}
	if highest.index > 0 {
		evidence = append(evidence, c.indexEvent(highest))
	}
	c.violated(CommitRule, evidence, "%s takes entry %d for committed, but no leader committed more than %d.", e.Node, e.Index, highest.index)
}

// finishClaim checks that a quorum had said to hold what was committed.
func (c *Checker) finishClaim(r *reign, k *claim) {
	leader := c.nodes[r.node].name
	e := c.indexEvent(mark{k.index, k.place})
	e.Term, e.Role = r.term, "leader"
	c.checks[CommitRule]++
	if k.early && c.nodes[r.node].tells {
		c.violated(CommitRule, []Event{e}, "%s, leader of term %d, committed entry %d before it knew that a quorum of %v holds it.", leader, r.term, k.index, k.conf)
		return
	}
	evidence := []Event{e}
	var silent []string
	acknowledged := func(member string) bool {
		if member == leader {
			return k.self
		}
		if n := c.byName[member]; n != nil {
			if a := c.acks[link{n.number, leader, r.term}]; a.index >= k.index {
				return true
			} else if a.index > 0 {
				evidence = append(evidence, c.ackEvent(a, leader, r.term))
			}
		}
		silent = append(silent, member)
		return false
	}
	if k.conf.quorum(acknowledged) || k.alternative != nil && k.alternative.quorum(acknowledged) {
		return
	}
	if why := c.lacksAny(silent...); why != "" {
		c.undecide(CommitRule, why)
		return
	}
	own := ""
	if !k.self {
		own = ", nor had it itself"
	}
	c.violated(CommitRule, evidence, "%s, leader of term %d, committed entry %d, which %v never acknowledged%s: the others are no quorum of %v.", leader, r.term, k.index, silent, own, k.conf)
}

func (c *Checker) ackEvent(a ack, to string, term uint64) Event {
	e := c.event(a.place)
	e.To, e.Term, e.Index = to, term, a.index
	return e
}

func (c *Checker) progress(n *node, e *Event) {
	c.checks[ReplicationView]++
	if e.Match >= e.Next {
		c.violated(ReplicationView, []Event{*e}, "%s knows %s to match up to %d, but would send from %d on.", n.name, e.Peer, e.Match, e.Next)
	}
	r := n.reign
	if r == nil || r.term != e.Term {
		return
	}
	n.tells = true
	before := r.views[e.Peer]
	if e.Match < before.index {
		earlier := c.event(before.place)
		earlier.Peer, earlier.Match = e.Peer, before.index
		c.violated(ReplicationView, []Event{*e, earlier}, "%s knew %s to match up to %d, and later in term %d only up to %d.", n.name, e.Peer, before.index, e.Term, e.Match)
	}
	if e.Peer == n.name && n.blind == "" && e.Match > n.durable {
		c.violated(ReplicationView, []Event{*e}, "%s counts its own log as durable up to %d, but only %d is.", n.name, e.Match, n.durable)
	}
	if e.Match <= before.index {
		return
	}
	if r.views == nil {
		r.views, r.matches = make(map[string]mark), make(map[string]mark)
	}
	known := mark{e.Match, n.at(e)}
	r.views[e.Peer] = known
	if known.index > r.matches[e.Peer].index {
		r.matches[e.Peer] = known
	}
}

// finishProgress checks that leaders know of nothing that was not acknowledged.
func (c *Checker) finishProgress(reigns []*reign) {
	for _, r := range reigns {
		for _, peer := range slices.Sorted(maps.Keys(r.matches)) {
			if peer != c.nodes[r.node].name {
				c.finishMatch(r, peer, r.matches[peer])
			}
		}
	}
}

func (c *Checker) finishMatch(r *reign, peer string, m mark) {
	leader := c.nodes[r.node].name
	c.checks[ReplicationView]++
	var a ack
	if n := c.byName[peer]; n != nil {
		a = c.acks[link{n.number, leader, r.term}]
	}
	if m.index <= a.index {
		return
	}
	if why := c.lacks(peer); why != "" {
		c.undecide(ReplicationView, why)
		return
	}
	e := c.event(m.place)
	e.Term, e.Peer, e.Match = r.term, peer, m.index
	evidence := []Event{e}
	if a.index > 0 {
		evidence = append(evidence, c.ackEvent(a, leader, r.term))
	}
	c.violated(ReplicationView, evidence, "%s, leader of term %d, knows %s to match up to %d, but %s never acknowledged more than %d.", leader, r.term, peer, m.index, peer, a.index)
}
