package invariants

// What stands in the logs, and what of it is committed and applied: I6 to I9, I11, I18.

// hold notes that a node holds an entry, and compares it with what is known of that index
// and term (I6).
func (c *Checker) hold(n *node, e *Event, index, term uint64, parent id) id {
	c.checks[LogMatching]++
	which, rival := c.versions.put(index, term, e.Hash, parent, n.at(e))
	if rival != nil {
		c.violated(LogMatching, []Event{*e, c.versionEvent(index, rival)}, "Two logs differ though both have an entry %d of term %d.", index, term)
	}
	return which
}

func (c *Checker) append(n *node, e *Event) {
	if n.log.known() && e.Index > n.log.last()+1 {
		c.violated(LogMatching, []Event{*e}, "%s appended entry %d to a log that ended at %d.", n.name, e.Index, n.log.last())
		n.log = newLog(e.Index-1, unknown)
	}
	if n.reign != nil {
		c.checks[LeaderAppendOnly]++
		switch {
		case n.log.known() && e.Index <= n.log.last():
			c.violated(LeaderAppendOnly, []Event{*e, *n.reign.event}, "%s replaced its entry %d while it led term %d.", n.name, e.Index, n.reign.term)
		case e.Term != n.reign.term:
			c.violated(LeaderAppendOnly, []Event{*e, *n.reign.event}, "%s appended an entry of term %d while it led term %d.", n.name, e.Term, n.reign.term)
		}
	}
	switch {
	case !n.log.known():
		n.log = newLog(e.Index-1, unknown)
	case e.Index <= n.log.last():
		c.cut(n, e.Index)
	}
	n.log.push(c.hold(n, e, e.Index, e.Term, n.log.at(e.Index-1)))
}

func (c *Checker) truncate(n *node, e *Event) {
	if n.reign != nil {
		c.checks[LeaderAppendOnly]++
		c.violated(LeaderAppendOnly, []Event{*e, *n.reign.event}, "%s discarded its log from %d on while it led term %d.", n.name, e.From, n.reign.term)
	}
	if n.blind == "" {
		c.checks[CommitSafety]++
		if e.From <= n.commit {
			c.violated(CommitSafety, []Event{*e}, "%s discarded its log from %d on, though it knew %d to be committed.", n.name, e.From, n.commit)
		}
	}
	c.cut(n, e.From)
	if p, known := c.lastPosition(n); known {
		n.lower(p)
	} else {
		n.low = Position{}
	}
}

func (n *node) lower(p Position) {
	if p.less(n.low) {
		n.low = p
	}
}

func (c *Checker) commit(n *node, e *Event) {
	c.actsIn(n, e)
	if n.blind == "" {
		c.checks[CommitSafety]++
		switch {
		case e.Index < n.commit:
			c.violated(CommitSafety, []Event{*e}, "The commit index of %s fell from %d to %d.", n.name, n.commit, e.Index)
		case n.log.known() && e.Index > n.log.last():
			c.violated(CommitSafety, []Event{*e}, "%s takes entry %d for committed, but its log ends at %d.", n.name, e.Index, n.log.last())
		}
	}
	c.agree(n, e)
	n.commit = max(n.commit, e.Index)
	c.committed.raise(e.Index, n.at(e))
	switch e.Role {
	case "leader":
	case "bootstrap":
		return // with these entries the cluster begins: every node has them, and no leader committed them
	default:
		c.followed.raise(e.Index, n.at(e))
		return
	}
	c.leaderCommits(n, e)
	c.healedBy(e)
}

// agree compares what the node newly takes for committed with what others do (I8). A first
// difference is told; the entries after it differ too.
func (c *Checker) agree(n *node, e *Event) {
	if !n.log.known() {
		return
	}
	end := min(e.Index, n.log.last())
	for index := max(n.walked, n.log.floor) + 1; index <= end; index++ {
		if !c.committedAs(index, n.log.at(index), e, n) {
			break
		}
	}
	n.walked = max(n.walked, end)
}

func (c *Checker) committedAs(index uint64, which id, e *Event, n *node) bool {
	c.checks[CommitSafety]++
	s := c.versions.slot(index)
	if s.committedAt.kind == Other {
		s.committed, s.committedAt = which, n.at(e)
		return true
	}
	if s.committed == which {
		return true
	}
	other := c.indexEvent(mark{index, s.committedAt})
	c.violated(CommitSafety, []Event{*e, other, c.versionEvent(index, c.versions.get(index, which)), c.versionEvent(index, c.versions.get(index, s.committed))},
		"%s committed another entry at %d than %s/%d had.", n.name, index, other.Node, other.Incarnation)
	return false
}

func (c *Checker) apply(n *node, e *Event) {
	if n.blind != "" {
		c.undecide(StateMachine, n.blind)
	} else {
		c.checks[StateMachine]++
		switch {
		case e.Index != n.applied+1:
			c.violated(StateMachine, []Event{*e}, "%s applied entry %d right after entry %d.", n.name, e.Index, n.applied)
		case e.Index > n.commit:
			c.violated(StateMachine, []Event{*e}, "%s applied entry %d, but knew only %d to be committed.", n.name, e.Index, n.commit)
		}
	}
	n.applied = e.Index
	which, held := c.versions.find(e.Index, e.Term, e.Hash), n.log.at(e.Index)
	switch {
	case held == unknown:
		which, _ = c.versions.put(e.Index, e.Term, e.Hash, unknown, n.at(e))
		c.committedAs(e.Index, which, e, n)
	case held != which:
		c.violated(StateMachine, []Event{*e, c.versionEvent(e.Index, c.versions.get(e.Index, held))}, "%s applied another entry %d than its log holds.", n.name, e.Index)
	}
	c.digest(n, e)
}

// digest compares the state after an entry on all nodes.
func (c *Checker) digest(n *node, e *Event) {
	if e.Digest == 0 {
		return
	}
	c.checks[StateMachine]++
	s := c.versions.slot(e.Index)
	if s.digestAt.kind == Other {
		s.digest, s.digestAt = e.Digest, n.at(e)
		return
	}
	if s.digest != e.Digest {
		s.disputed = true
		other := c.event(s.digestAt)
		other.Index, other.Digest = e.Index, s.digest
		c.violated(StateMachine, []Event{*e, other}, "The states of %s and %s differ after entry %d.", n.name, other.Node, e.Index)
	}
}
