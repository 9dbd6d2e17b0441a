package invariants

import (
	"maps"
	"slices"
)

// Changes of membership: I15. A change is in force from when it is applied, as in
// etcd-raft. Three rules make that safe: a leader appends none before it has applied the one
// before; nobody campaigns with one committed and not applied; and who makes a change has
// durably noted that the one before is committed (etcd issue 7625).

// confMark is a configuration that came into force with an entry.
type confMark struct {
	conf  *Conf
	place place
}

func (n *node) dropConfEntries(from uint64) {
	for i, m := range n.confEntries {
		if m.index >= from {
			n.confEntries = n.confEntries[:i]
			return
		}
	}
}

func (c *Checker) confAppend(n *node, e *Event) {
	if n.reign != nil && n.blind == "" {
		c.checks[Membership]++
		if len(n.confEntries) > 0 {
			if before := n.confEntries[len(n.confEntries)-1]; before.index > n.applied && before.index < e.Index {
				c.violated(Membership, []Event{*e, c.indexEvent(before)}, "%s, leader of term %d, appended a change of membership at %d before it had applied the one at %d.", n.name, n.reign.term, e.Index, before.index)
			}
		}
		if e.Old != nil && e.New != nil {
			if why := e.New.follows(e.Old); why != "" {
				c.violated(Membership, []Event{*e}, "%s, leader of term %d, appended a change from %v to %v: %s.", n.name, n.reign.term, e.Old, e.New, why)
			}
		}
	}
	n.dropConfEntries(e.Index)
	n.confEntries = append(n.confEntries, mark{e.Index, n.at(e)})
}

func (c *Checker) campaign(n *node, e *Event) {
	c.actsIn(n, e)
	if n.blind != "" {
		c.undecide(Membership, n.blind)
		return
	}
	c.checks[Membership]++
	for _, m := range n.confEntries {
		if m.index > n.applied && m.index <= n.commit {
			c.violated(Membership, []Event{*e, c.indexEvent(m)}, "%s campaigns in term %d, though it knows the change of membership at %d to be committed and has applied only %d.", n.name, e.Term, m.index, n.applied)
			return
		}
	}
}

// confEntriesPersisted checks the changes of membership in the durable log, of which this
// node made the last one as the leader. Others may lack the commit index: a crash that tears
// a write may leave its entries without the commit index that came with them, and who is
// elected after that passes them on like this.
func (c *Checker) confEntriesPersisted(n *node, e *Event) {
	for len(n.confEntries) > 1 && n.confEntries[1].index <= min(e.Commit, n.applied, e.UpTo) {
		n.confEntries = n.confEntries[1:]
	}
	if n.reign == nil {
		return
	}
	for i := len(n.confEntries) - 1; i > 0; i-- {
		later, before := n.confEntries[i], n.confEntries[i-1]
		if later.index > e.UpTo {
			continue
		}
		which := n.log.at(later.index)
		if which == unknown || c.versions.get(later.index, which).term != n.reign.term {
			return
		}
		c.checks[Membership]++
		if before.index > max(e.Commit, n.snapshot) { // what a snapshot stands for is committed
			c.violated(Membership, []Event{*e, c.indexEvent(later), c.indexEvent(before)}, "The changes of membership at %d and %d are both durable on %s, which made the later one, but it is durable only that %d is committed.", before.index, later.index, n.name, e.Commit)
		}
		return
	}
}

func (c *Checker) confApply(n *node, e *Event) {
	c.checks[Membership]++
	known, had := c.confs[e.Index]
	switch {
	case !had:
		known = confMark{e.Conf, n.at(e)}
		c.confs[e.Index] = known
	case !known.conf.equal(e.Conf):
		c.violated(Membership, []Event{*e, c.confEvent(e.Index, known)}, "%s and %s have different configurations after entry %d: %v and %v.", n.name, c.nodes[known.place.node].name, e.Index, e.Conf, known.conf)
		known.conf = e.Conf
	}
	if n.conf != nil && len(n.conf.Voters) > 0 && n.blind == "" {
		if why := known.conf.follows(n.conf); why != "" {
			c.violated(Membership, []Event{*e}, "%s went from configuration %v to %v: %s.", n.name, n.conf, e.Conf, why)
		}
	}
	if n.pending.index > 0 {
		n.settle(known.conf)
	}
	n.conf = known.conf
	n.confs = append(n.confs, confAt{e.Index, known.conf})
	if n.reign != nil {
		for peer := range n.reign.views {
			if !known.conf.members(peer) {
				delete(n.reign.views, peer) // should it come back, it begins anew
			}
		}
	}
}

func (c *Checker) confEvent(index uint64, m confMark) Event {
	e := c.event(m.place)
	e.Index, e.Conf = index, m.conf
	return e
}

// changeBefore returns which of the changes, by index, made the configuration that was in
// force after an index.
func changeBefore(changes []uint64, index uint64) (at uint64, known bool) {
	i, exact := slices.BinarySearch(changes, index)
	if exact {
		return index, true
	}
	if i == 0 {
		return 0, false
	}
	return changes[i-1], true
}

func (c *Checker) confChanges() []uint64 { return slices.Sorted(maps.Keys(c.confs)) }
