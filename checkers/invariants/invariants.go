// Package invariants checks what Raft promises at every step against the traces of a
// cluster's nodes: one leader a term, logs that match, nothing acknowledged that a crash
// can take back, and so on, eighteen promises in all (see [Invariant]).
//
// Make a [Checker], give it every line of every node's trace, and ask it:
//
//	c := invariants.New(invariants.Options{})
//	for _, node := range nodes {
//		if err := invariants.Read(ctx, path, node, c.Add); err != nil {
//			c.Incomplete(node, err.Error())
//		}
//	}
//	report := c.Finish()
//
// The lines of one node must come in the order in which it wrote them. How the nodes'
// lines are interleaved does not matter, so traces are checked without comparing clocks:
// what needs another node's lines waits for [Checker.Finish]. Only what Options.OneClock
// asks for needs the real order.
//
// It never cries wolf: what a correct node may do after a crash, with late or repeated
// messages, or in the middle of a change of membership, is no violation, and a check that
// rests on a missing line is said to be undecided. The price is that some checks come too
// late to see that something happened too early. What some published invariants claim and
// correct runs break is not checked: that a commit index is durable or never falls over a
// restart, that one leader exists at a time, and that a leader holds what is committed by
// the term of the entry, rather than by the term in which it was committed.
//
// Every trace must reach to the end of the run, or messages seem to have been answered
// that never were: stop the nodes before taking their traces, and call
// [Checker.Incomplete] for a host that lost power.
package invariants

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Options say what is checked beyond the invariants that need only the traces.
type Options struct {
	// OneClock: events are added in the order in which they happened, on all nodes together.
	// Only then is a read's index compared with what other nodes had committed (I16).
	OneClock bool
	// LivenessBound is how long after a heal (see [Checker.Healed]) a leader must have
	// committed something: some election time-outs. 0: not checked.
	LivenessBound time.Duration
}

// Checker is fed events and finds what broke the invariants. It is for one goroutine. An
// event costs constant time, amortised; memory grows by about 100 bytes for each index of
// the log, and by what terms, votes and changes of membership there are.
type Checker struct {
	options Options
	ledger
	nodes    []*node
	byName   map[string]*node
	newest   *node             // the one that the last event was of
	holes    map[string]string // node to what its trace lacks
	unkept   map[string]string // owner of a trace to why its node may forget what was durable
	versions versions

	leaders   map[uint64]Event // by term
	ballots   map[nodeTerm]*ballot
	granted   map[link]place // votes sent
	reigns    map[nodeTerm]*reign
	acks      map[link]ack
	followed  mark // the highest index that a node committed because it was told to
	confs     map[uint64]confMark
	snapshots []snapshotMark

	committed mark // the highest index committed so far, in the order of Add
	heals     []heal
	latest    int64 // Unix nanoseconds
}

// nodeTerm is a node in a term.
type nodeTerm struct {
	node uint16
	term uint64
}

// link is what one node sends another in a term.
type link struct {
	from uint16
	to   string
	term uint64
}

// mark is an index and the event that gave it.
type mark struct {
	index uint64
	place place
}

func (m *mark) raise(index uint64, p place) {
	if index > m.index {
		*m = mark{index, p}
	}
}

// New makes a checker that has seen nothing.
func New(options Options) *Checker {
	return &Checker{
		options: options, byName: make(map[string]*node), holes: make(map[string]string), unkept: make(map[string]string), versions: newVersions(),
		leaders: make(map[uint64]Event), ballots: make(map[nodeTerm]*ballot), granted: make(map[link]place),
		reigns: make(map[nodeTerm]*reign), acks: make(map[link]ack), confs: make(map[uint64]confMark),
	}
}

// Incomplete says that lines of a node's trace are missing, though the lines that are
// there do not show it, and why: as when its host lost power.
func (c *Checker) Incomplete(node, why string) {
	if _, known := c.holes[node]; !known {
		c.holes[node] = why
	}
}

// Unkept says that a fault took from a node what it had made durable, or may have, and why:
// its files were changed or emptied. Such a node may come back with less than it had, or
// number its incarnations anew; that is the fault's doing. What it then does is checked
// as ever: a second vote in a term is one, whoever made it forget the first.
func (c *Checker) Unkept(owner, why string) { c.unkept[owner] = why }

// indexMost keeps sums of indexes from overflowing. No log is as long.
const indexMost = 1 << 60

func (e *Event) plausible() bool {
	highest := max(e.Index, e.From, e.Last, e.SnapIndex, e.UpTo, e.Commit, e.Applied, e.Match, e.Next, e.CandLast.Index)
	return highest < indexMost && e.Incarnation < math.MaxUint32 && e.missing() == ""
}

// Add takes the next event of its node. It keeps the configurations that e points to.
func (c *Checker) Add(e Event) {
	n := c.node(e.Node)
	if !c.inSequence(n, &e) {
		return
	}
	if n.pending.index > 0 && e.Kind != ConfApply {
		n.settle(nil)
	}
	c.latest = max(c.latest, e.Time)
	switch e.Kind {
	case Boot:
		c.boot(n, &e)
	case Term:
		c.durableTerm(n, &e)
	case VotePersist:
		c.durableTerm(n, &e)
		c.durableVote(n, e.Term, e.Candidate, n.at(&e))
	case Campaign:
		c.campaign(n, &e)
	case VoteSend:
		c.voteSend(n, &e)
	case Leader:
		c.leader(n, &e)
	case StepDown:
		n.reign = nil
	case Append:
		c.append(n, &e)
	case ConfAppend:
		c.confAppend(n, &e)
	case Truncate:
		c.truncate(n, &e)
	case Persist:
		c.persist(n, &e)
	case AckSend:
		c.ackSend(n, &e)
	case Commit:
		c.commit(n, &e)
	case Apply:
		c.apply(n, &e)
	case ConfApply:
		c.confApply(n, &e)
	case SnapTake:
		c.snapTake(n, &e)
	case SnapInstall:
		c.snapInstall(n, &e)
	case Compact:
		c.compact(n, &e)
	case Progress:
		c.progress(n, &e)
	case ReadStart, ReadIndex, ReadServe:
		c.read(n, &e)
	case Other:
	}
}

// Finish makes the checks that need the traces of all nodes and returns what was found.
// The checker is spent afterwards.
func (c *Checker) Finish() Report {
	for _, n := range c.nodes {
		if n.pending.index > 0 {
			n.settle(nil)
		}
	}
	reigns := c.reignsByTerm()
	c.finishElections(reigns)
	c.finishCompleteness(reigns)
	c.finishCommits(reigns)
	c.finishProgress(reigns)
	c.finishSnapshots()
	c.finishLiveness()
	report := c.report()
	if len(c.holes) > 0 {
		report.Incomplete = c.holes
	}
	return report
}

// node returns what is known of a node.
func (c *Checker) node(name string) *node {
	if c.newest != nil && c.newest.name == name {
		return c.newest
	}
	n := c.byName[name]
	if n == nil {
		n = &node{name: name, number: uint16(len(c.nodes))}
		c.nodes = append(c.nodes, n)
		c.byName[name] = n
	}
	c.newest = n
	return n
}

// inSequence reports whether the event is the next one of its node, or a later one: then
// what the node did between is not known.
func (c *Checker) inSequence(n *node, e *Event) bool {
	began := e.Kind == Boot && e.Seq == 1
	switch {
	case !e.plausible():
		c.lose(n, fmt.Sprintf("incarnation %d, line %d is not plausible", e.Incarnation, e.Seq))
		return false
	case began && n.seq > 0 && c.takenBack(n, e):
		c.undecide(Durability, c.unkept[e.owner()])
		n.forget(c.unkept[e.owner()])
		n.term = 0
	case e.Incarnation < n.incarnation || e.Incarnation == n.incarnation && e.Seq <= n.seq:
		c.lose(n, fmt.Sprintf("incarnation %d, line %d is out of order", e.Incarnation, e.Seq))
		return false
	case e.Kind == Boot && e.Seq != 1:
		c.lose(n, fmt.Sprintf("line %d of incarnation %d says that it begins", e.Seq, e.Incarnation))
		return false
	case began && (e.Incarnation == n.incarnation+1 || n.seq > 0 && c.unchanged(n, e)):
	case began:
		c.lose(n, fmt.Sprintf("incarnation %d and what comes before are missing", e.Incarnation-1))
	case e.Incarnation != n.incarnation:
		c.lose(n, fmt.Sprintf("the beginning of incarnation %d is missing", e.Incarnation))
	case e.Seq != n.seq+1:
		c.lose(n, fmt.Sprintf("incarnation %d, lines %d to %d are missing", e.Incarnation, n.seq+1, e.Seq-1))
	}
	n.incarnation, n.seq = e.Incarnation, e.Seq
	return true
}

// takenBack reports whether a node starts with other than what it had, and a fault may have
// done that.
func (c *Checker) takenBack(n *node, boot *Event) bool {
	if _, may := c.unkept[boot.owner()]; !may {
		return false
	}
	vote := c.ballots[nodeTerm{n.number, boot.Term}]
	return boot.Incarnation != n.incarnation+1 || boot.Term < n.term || boot.Last < n.required.index || vote != nil && vote.candidate != boot.Vote
}

// unchanged reports whether a node starts with what it had when it wrote its last line. A start
// is counted before it is told, and told before the node says anything to anyone; so one that
// was killed in between has a number and no lines, and leaves everything as it was. That the
// log is one the node had is checked at every start.
func (c *Checker) unchanged(n *node, boot *Event) bool {
	vote := c.ballots[nodeTerm{n.number, boot.Term}]
	return boot.Incarnation > n.incarnation && boot.Term == n.term && (boot.Vote == "" || vote != nil && vote.candidate == boot.Vote)
}

// lose notes that lines of a node are missing, and forgets what they may have changed.
func (c *Checker) lose(n *node, what string) {
	c.Incomplete(n.name, what)
	n.forget("the trace of " + n.name + " is incomplete: " + what)
}

// lacks says why a node's trace cannot prove that something did not happen; "" if it can.
func (c *Checker) lacks(node string) string {
	if what, incomplete := c.holes[node]; incomplete {
		return "the trace of " + node + " is incomplete: " + what
	}
	if n := c.byName[node]; n == nil || n.seq == 0 {
		return "there is no trace of " + node
	}
	return ""
}

// lacksAny is the same of several nodes.
func (c *Checker) lacksAny(nodes ...string) string {
	for _, node := range nodes {
		if why := c.lacks(node); why != "" {
			return why
		}
	}
	return ""
}

// everybody returns all nodes that wrote or that a configuration names, sorted.
func (c *Checker) everybody() []string {
	var names []string
	for _, n := range c.nodes {
		names = append(names, n.name)
	}
	for _, r := range c.reigns {
		for _, conf := range r.confs() {
			names = append(names, conf.Voters...)
			names = append(names, conf.Outgoing...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// event makes an event of a place, for evidence. The caller adds the fields that matter.
func (c *Checker) event(p place) Event {
	return Event{Node: c.nodes[p.node].name, Incarnation: uint64(p.incarnation), Seq: p.seq, Kind: p.kind}
}

func (c *Checker) indexEvent(m mark) Event {
	e := c.event(m.place)
	if e.Kind == Persist {
		e.UpTo = m.index
	} else {
		e.Index = m.index
	}
	return e
}

func (c *Checker) versionEvent(index uint64, v *version) Event {
	e := c.event(v.seen)
	e.Hash = v.hash
	switch e.Kind {
	case Boot, Leader:
		e.Last, e.LastTerm = index, v.term
	default:
		e.Index, e.Term = index, v.term
	}
	return e
}
