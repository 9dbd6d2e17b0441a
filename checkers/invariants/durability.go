package invariants

import (
	"fmt"
	"slices"
)

// What is durable, and what was said to others on the strength of it: I12, I13.

// cut is a piece of log that was discarded. Disk writes overlap with what happens in
// memory, so a write that finishes after a cut may be one from before it. It is known to be
// a later one when it ends with an entry that was not in the log before the cut.
type cut struct {
	from     uint64
	gone     []id   // the entries that were discarded
	first    uint64 // index of the first of them
	snapshot uint64 // a snapshot at that index took their place; 0: none did
	lasting  bool   // only the next start ends it
}

// cutsMost bounds the cuts that no write has caught up with.
const cutsMost = 16

// cut discards the log from an index on.
func (c *Checker) cut(n *node, from uint64) {
	if n.log.known() {
		n.excused = max(n.excused, n.log.last())
	}
	gone := n.log.truncate(from)
	n.cutAt(cut{from: from, first: from, gone: gone})
	n.durable = min(n.durable, from-1)
	n.dropConfEntries(from)
}

func (n *node) cutAt(k cut) {
	n.cuts = append(n.cuts, k)
	n.required.index = min(n.required.index, k.from-1)
	if len(n.cuts) <= cutsMost {
		return
	}
	n.cuts = []cut{{from: n.lowestCut(), lasting: true}}
}

func (n *node) lowestCut() uint64 {
	lowest := uint64(indexMost)
	for _, k := range n.cuts {
		lowest = min(lowest, k.from)
	}
	return lowest
}

// settleCuts forgets the cuts that the disk has seen, given that the present log is durable
// up to an index and holds that version there.
func (n *node) settleCuts(upTo uint64, which id) {
	for len(n.cuts) > 0 {
		k := n.cuts[0]
		if k.lasting || upTo < max(k.from, k.snapshot) || k.had(upTo, which) {
			return
		}
		n.cuts = n.cuts[1:]
	}
	n.cuts = nil
}

func (k *cut) had(index uint64, which id) bool {
	return index >= k.first && index-k.first < uint64(len(k.gone)) && k.gone[index-k.first] == which
}

// mayHold reports whether the disk may hold that version: it is in the log, or was before
// a cut that the disk may not have seen.
func (n *node) mayHold(index uint64, which id) bool {
	return n.log.at(index) == which || slices.ContainsFunc(n.cuts, func(k cut) bool { return k.lasting || k.had(index, which) })
}

// require notes that a crash must not take back entries up to an index.
func (n *node) require(index uint64, p place) {
	n.required.raise(min(index, n.durable, n.lowestCut()-1), p)
}

func (c *Checker) boot(n *node, e *Event) {
	c.durableTerm(n, e)
	c.bootVote(n, e)
	log := c.bootLog(n, e)
	c.bootRequired(n, e, &log)
	common := n.log.common(&log)
	fresh := node{
		name: n.name, number: n.number, incarnation: n.incarnation, seq: n.seq, tells: n.tells,
		term: n.term, termPlace: n.termPlace, log: log, walked: min(n.walked, common), durable: e.Last, upTo: e.Last, required: n.required,
		low: Position{e.LastTerm, e.Last}, commit: max(e.Commit, e.SnapIndex), applied: max(e.Applied, e.SnapIndex),
		snapshot: e.SnapIndex, conf: e.Conf, confEntries: n.confEntries,
	}
	*n = fresh
	n.dropConfEntries(common + 1)
	if e.Conf != nil {
		n.confs = []confAt{{n.applied, e.Conf}}
		if n.applied > 0 {
			c.snapshots = append(c.snapshots, snapshotMark{index: n.applied, conf: e.Conf, place: n.at(e)})
		}
	}
}

func (c *Checker) bootVote(n *node, e *Event) {
	before := c.ballots[nodeTerm{n.number, e.Term}]
	if before != nil {
		c.checks[Durability]++
	}
	switch {
	case before != nil && e.Vote != before.candidate && c.unkept[e.owner()] != "": // see takenBack
	case before != nil && e.Vote != before.candidate:
		vote := c.event(before.place)
		vote.Term, vote.Candidate = e.Term, before.candidate
		c.violated(Durability, []Event{*e, vote}, "%s voted for %s in term %d, and had forgotten it when it started again: its vote is %q.", n.name, before.candidate, e.Term, e.Vote)
	case before == nil && e.Vote != "":
		c.durableVote(n, e.Term, e.Vote, n.at(e))
	}
}

// bootLog is what the node found on its disk: some state that its memory went through.
func (c *Checker) bootLog(n *node, e *Event) nodeLog {
	if e.Last > 0 && e.Hash == 0 {
		c.Incomplete(n.name, "it does not tell what the node found on its disk")
		return newLog(e.Last, unknown)
	}
	which := c.hold(n, e, e.Last, e.LastTerm, unknown)
	if c.unkept[e.owner()] == "" && e.Last > e.SnapIndex && !n.mayHold(e.Last, which) {
		c.Incomplete(n.name, fmt.Sprintf("incarnation %d began with entries of which no line tells", e.Incarnation))
	}
	log := nodeLog{floor: e.Last, held: []id{which}}
	for log.floor > e.SnapIndex && which != unknown {
		which = c.versions.get(log.floor, which).parent
		log.floor--
		log.held = append(log.held, which)
	}
	if log.floor == 0 {
		log.held[len(log.held)-1] = empty
	}
	slices.Reverse(log.held)
	return log
}

func (c *Checker) bootRequired(n *node, e *Event, log *nodeLog) {
	needed := n.required.index
	if needed == 0 {
		return
	}
	said := c.indexEvent(n.required)
	before, after := n.log.at(needed), log.at(needed)
	switch {
	case e.SnapIndex >= needed:
	case e.Last < needed:
		c.violated(Durability, []Event{*e, said}, "%s had said that entry %d is durable, and started again with a log that ends at %d.", n.name, needed, e.Last)
		n.required = mark{}
	case before != unknown && after != unknown && before != after:
		c.violated(Durability, []Event{*e, said, c.versionEvent(needed, c.versions.get(needed, before))}, "%s had said that entry %d is durable, and started again with another entry there.", n.name, needed)
		n.required = mark{}
	case after == unknown:
		c.undecide(Durability, "what "+n.name+" held at the start of an incarnation is not told")
		return
	}
	c.checks[Durability]++
}

func (c *Checker) persist(n *node, e *Event) {
	c.durableTerm(n, e)
	if e.Vote != "" {
		c.durableVote(n, e.Term, e.Vote, n.at(e))
	}
	n.upTo = e.UpTo
	if n.blind != "" || !n.log.known() {
		return
	}
	which := n.log.at(e.UpTo)
	if which == unknown || c.versions.get(e.UpTo, which).term != e.UpToTerm && e.UpTo > 0 {
		n.durable = max(n.durable, c.sharedWith(n, e.UpTo, e.UpToTerm))
		return
	}
	n.durable = max(n.durable, e.UpTo)
	n.settleCuts(e.UpTo, which)
	if n.reign != nil && e.UpToTerm == n.reign.term {
		// Its own entries cannot have been replaced and put back since: it counts them.
		n.require(e.UpTo, n.at(e))
	}
	if p, known := c.lastPosition(n); known && len(n.cuts) == 0 && p.Index == e.UpTo {
		n.low = p
	}
	c.confEntriesPersisted(n, e)
}

// sharedWith is how far the log on the disk, which memory has left behind already, agrees
// with the one in memory.
func (c *Checker) sharedWith(n *node, index, term uint64) uint64 {
	which := c.versions.ofTerm(index, term)
	for ; which != unknown && index > n.log.floor; index-- {
		if n.log.at(index) == which {
			return index
		}
		which = c.versions.get(index, which).parent
	}
	return 0
}

// ackSend checks that what is acknowledged is durable (I13; Raft paper 5.3). The log may
// have been cut since the acknowledgement was decided on: then the write that it waited for
// holds what a leader of a higher term put in the place of those entries, and that
// higher term.
func (c *Checker) ackSend(n *node, e *Event) {
	key := link{n.number, e.To, e.Term}
	if e.Index > c.acks[key].index {
		c.acks[key] = ack{e.Index, n.at(e)}
	}
	if n.blind != "" {
		c.undecide(PersistBeforeSend, n.blind)
		return
	}
	c.checks[PersistBeforeSend]++
	durable := max(n.durable, n.upTo)
	if which := n.log.at(e.Index); which != unknown && c.versions.get(e.Index, which).term == e.Term {
		durable = n.durable // it speaks of this very entry, which its leader made
	}
	excused := e.Index <= n.excused && e.Term < n.term
	switch {
	case n.term < e.Term:
		before := c.event(n.termPlace)
		before.Term = n.term
		c.violated(PersistBeforeSend, []Event{*e, before}, "%s acknowledged entry %d in term %d, but only term %d is durable.", n.name, e.Index, e.Term, n.term)
	case e.Index > durable && !excused:
		c.violated(PersistBeforeSend, []Event{*e}, "%s acknowledged entry %d, but only entry %d is durable.", n.name, e.Index, durable)
		return
	}
	n.require(e.Index, n.at(e))
}
