package invariants

// Snapshots: I14.

// snapshotMark is what a snapshot, or a node's start, says of the state at an index.
type snapshotMark struct {
	index, term  uint64
	hash, digest Hash
	conf         *Conf
	place        place
}

func (c *Checker) snapTake(n *node, e *Event) {
	c.noteSnapshot(n, e)
	if n.blind != "" {
		c.undecide(Snapshots, n.blind)
		return
	}
	c.checks[Snapshots]++
	if e.Index > n.applied {
		c.violated(Snapshots, []Event{*e}, "%s took a snapshot at %d, but had applied only %d.", n.name, e.Index, n.applied)
	}
	if own := n.confAt(e.Index); own != nil && e.Conf != nil && !own.equal(e.Conf) {
		c.violated(Snapshots, []Event{*e}, "The snapshot of %s at %d has configuration %v, but %v was in force there.", n.name, e.Index, e.Conf, own)
	}
	n.snapshot = max(n.snapshot, e.Index)
}

// confAt is the configuration that the node had after an index; nil if it is not known.
func (n *node) confAt(index uint64) *Conf {
	for i := len(n.confs) - 1; i >= 0; i-- {
		if n.confs[i].index <= index {
			return n.confs[i].conf
		}
	}
	return nil
}

func (c *Checker) noteSnapshot(n *node, e *Event) {
	c.snapshots = append(c.snapshots, snapshotMark{
		index: e.Index, term: e.Term, hash: e.Hash, digest: e.Digest, conf: e.Conf, place: n.at(e),
	})
}

func (c *Checker) snapInstall(n *node, e *Event) {
	c.noteSnapshot(n, e)
	if n.reign != nil {
		c.checks[LeaderAppendOnly]++
		c.violated(LeaderAppendOnly, []Event{*e, *n.reign.event}, "%s replaced its log by a snapshot while it led term %d.", n.name, n.reign.term)
	}
	if n.blind != "" {
		c.undecide(Snapshots, n.blind)
	} else {
		c.checks[Snapshots]++
		if e.Index <= n.commit {
			c.violated(Snapshots, []Event{*e}, "%s took a snapshot at %d in place of its log, though it knew %d to be committed.", n.name, e.Index, n.commit)
		}
	}
	if n.log.known() {
		n.excused = max(n.excused, n.log.last())
	}
	// What is beyond its commit index need not be in the snapshot, which need not be durable yet.
	n.cutAt(cut{from: n.commit + 1, first: n.log.floor, gone: n.log.held, snapshot: e.Index})
	which, _ := c.versions.put(e.Index, e.Term, e.Hash, unknown, n.at(e))
	n.log = newLog(e.Index, which)
	n.walked, n.durable = e.Index, e.Index
	n.commit, n.applied = e.Index, e.Index
	n.snapshot = max(n.snapshot, e.Index)
	n.lower(Position{e.Term, e.Index})
	n.confEntries = nil
	if e.Conf != nil {
		n.conf = e.Conf
		n.confs = []confAt{{e.Index, e.Conf}}
	}
}

func (c *Checker) compact(n *node, e *Event) {
	if n.blind != "" {
		c.undecide(Snapshots, n.blind)
	} else {
		c.checks[Snapshots]++
		if e.Index > min(n.snapshot, n.applied) {
			c.violated(Snapshots, []Event{*e}, "%s dropped entries up to %d from its log; its newest snapshot is at %d, and it has applied %d.", n.name, e.Index, n.snapshot, n.applied)
		}
	}
	n.log.compact(e.Index)
}

// finishSnapshots compares snapshots with what the nodes committed, applied and put into
// force.
func (c *Checker) finishSnapshots() {
	changes := c.confChanges()
	for i := range c.snapshots {
		s := &c.snapshots[i]
		e := c.event(s.place)
		e.Index, e.Term, e.Hash, e.Digest, e.Conf = s.index, s.term, s.hash, s.digest, s.conf
		if s.hash != 0 {
			c.snapshotState(s, e)
		}
		at, known := changeBefore(changes, s.index)
		if s.conf == nil || !known {
			continue
		}
		invariant := Snapshots
		if s.place.kind == Boot {
			invariant = Membership
		}
		c.checks[invariant]++
		if m := c.confs[at]; !m.conf.equal(s.conf) {
			if why := c.lacksAny(c.everybody()...); why != "" {
				c.undecide(invariant, why)
				continue
			}
			c.violated(invariant, []Event{e, c.confEvent(at, m)}, "The state of %s at %d has configuration %v, but %v was in force there.", e.Node, s.index, s.conf, m.conf)
		}
	}
}

func (c *Checker) snapshotState(s *snapshotMark, e Event) {
	slot := c.versions.slot(s.index)
	if slot.committedAt.kind != Other && slot.committed != unknown {
		c.checks[Snapshots]++
		if v := c.versions.get(s.index, slot.committed); v.hash != s.hash || v.term != s.term {
			c.violated(Snapshots, []Event{e, c.versionEvent(s.index, v)}, "The snapshot of %s at %d stands for another log than the committed one.", e.Node, s.index)
		}
	}
	if slot.digestAt.kind != Other && !slot.disputed && s.digest != 0 {
		c.checks[Snapshots]++
		if slot.digest != s.digest {
			other := c.event(slot.digestAt)
			other.Index, other.Digest = s.index, slot.digest
			c.violated(Snapshots, []Event{e, other}, "The snapshot of %s at %d holds another state than the one that %s had there.", e.Node, s.index, other.Node)
		}
	}
}
