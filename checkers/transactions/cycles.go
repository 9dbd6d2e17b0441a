package transactions

import "slices"

// cycles looks for cycles in the dependency graph: in that of the dependencies alone, with
// the order within processes, and with that of real time. A history without any is done with
// one search for strongly connected components; all others go on in these components only.
func (c *check) cycles() {
	dependencies := len(c.edges)
	c.processEdges()
	c.realtimeEdges()
	c.found.Edges = len(c.edges)
	for t := range c.txns {
		if c.happened[t] {
			c.found.Txns++
		}
	}
	c.search(every)
	c.searchByVersions(dependencies)
}

// searchByVersions looks for cycles again, with the order of versions that follows from
// sessions, or from real time, since these can refute the models that ask for them. The edges
// behind the first so many are those of sessions and time.
func (c *check) searchByVersions(dependencies int) {
	if c.violated(StrongSessionSerializable) || c.over() {
		return
	}
	ordered := slices.Clone(c.edges[dependencies:])
	with := func(found []succession) {
		c.edges = c.edges[:dependencies]
		c.follow(found)
		c.edges = append(c.edges, ordered...)
	}
	byTime := c.realtimeVersions()
	if len(byTime) == 0 {
		return
	}
	with(byTime)
	if len(c.circular(every[2])) == 0 {
		return // nor can there be a cycle by sessions, whose order is part of that of time
	}
	for _, by := range [...]struct {
		versions []succession
		levels   []level
	}{{c.processVersions(), every[1:2]}, {byTime, every[2:]}} {
		// That a read shows what was written over reads better than that the writes go in
		// circles; so what writes alone tell comes first.
		written := slices.DeleteFunc(slices.Clone(by.versions), func(s succession) bool { return s.to != s.in })
		for _, found := range [...][]succession{written, by.versions} {
			if c.violated(by.levels[0].rulesOut) || c.over() {
				return
			}
			with(found)
			c.search(by.levels)
		}
	}
}

// level is a set of orders that a cycle may use beside the dependencies, and the weakest
// model that forbids one which needs them.
type level struct {
	orders   kind
	suffix   Kind
	rulesOut Model // 0: as the cycle says
}

var every = []level{
	{0, "", 0},
	{process, "-process", StrongSessionSerializable},
	{process | realtime, "-realtime", StrictSerializable},
}

// shapes are the cycles from the worst on.
var shapes = []struct {
	walk     walk
	kind     Kind
	rulesOut Model
}{
	{walk{ww, plain}, G0, ReadUncommitted},
	{walk{ww | wr, plain}, G1c, ReadCommitted},
	{walk{ww | wr | rw, nonadjacent}, GNonadjacent, SnapshotIsolation},
	{walk{ww | wr | rw, plain}, G2Item, Serializable},
}

// processEdges makes the edges between the transactions of each process: from each that is
// known to have returned to the next ones, up to the next such one.
func (c *check) processEdges() {
	last := make(map[int]int32)
	for _, t := range c.byCall() {
		p := c.txns[t].Process
		if before, any := last[p]; any && c.returned(before) < c.txns[t].Call {
			c.connect(edge{from: before, to: t, kind: process, key: none, why: none})
		}
		if c.txns[t].Type == OK {
			last[p] = t
		}
	}
}

// byCall returns the transactions that happened in the order of their calls.
func (c *check) byCall() []int32 {
	var calls []int32
	for t := range c.txns {
		if c.happened[t] {
			calls = append(calls, int32(t))
		}
	}
	slices.SortStableFunc(calls, func(a, b int32) int { return compare(c.txns[a].Call, c.txns[b].Call) })
	return calls
}

// realtimeEdges makes the order of real time with a number of edges that is linear: a chain of
// auxiliary nodes stands for time, where a node is between returns and calls; a transaction that
// returned leads to the next node, and the node that is the last before a call leads to the
// transaction called.
func (c *check) realtimeEdges() {
	calls := c.byCall()
	returns := slices.Clone(calls)
	slices.SortStableFunc(returns, func(a, b int32) int { return compare(c.returned(a), c.returned(b)) })
	now, used := none, true // the last node, and whether a transaction was called since it was made
	for _, t := range calls {
		for len(returns) > 0 && c.returned(returns[0]) < c.txns[t].Call {
			if used {
				next := c.auxiliary()
				if now != none {
					c.connect(edge{from: now, to: next, key: none, why: none})
				}
				now, used = next, false
			}
			c.connect(edge{from: returns[0], to: now, kind: realtime, key: none, why: none})
			returns = returns[1:]
		}
		if now != none {
			c.connect(edge{from: now, to: t, key: none, why: none})
			used = true
		}
	}
}

// search reports the cycles of the graph by the levels given, each component of which some
// cycle was reported only once: those with fewer orders and of worse shape come first and
// rule out all that others of the component would.
func (c *check) search(levels []level) {
	components := c.circular(levels[len(levels)-1])
	if len(components) == 0 {
		return
	}
	// One graph of all that is in components: the parts do not reach each other in circles.
	place := make([]int32, c.nodes)
	for v := range place {
		place[v] = none
	}
	var inside []int32
	for _, nodes := range components {
		for _, v := range nodes {
			place[v] = int32(len(inside))
			inside = append(inside, c.txnOf(v))
		}
	}
	g := compress(c.edges, func(v int32) int32 { return place[v] }, inside)
	reported := make([]bool, len(inside))
	for _, l := range levels {
		for _, s := range shapes {
			w := walk{s.walk.kinds | l.orders, s.walk.mode}
			for _, nodes := range c.components(g, w) {
				if w.mode == nonadjacent {
					nodes = placesToNodes(nodes)
				}
				if slices.ContainsFunc(nodes, func(v int32) bool { return reported[v] }) {
					continue
				}
				for _, v := range nodes {
					reported[v] = true
				}
				rulesOut := s.rulesOut
				if l.rulesOut != 0 {
					rulesOut = l.rulesOut
				}
				c.reportCycle(g, nodes, w, s.kind, l.suffix, rulesOut)
			}
		}
	}
}

// circular returns the components of the whole graph in which there are cycles of any shape,
// on a level.
func (c *check) circular(l level) [][]int32 {
	if !c.take(int64(c.nodes)*16) || c.over() {
		return nil
	}
	txn := make([]int32, c.nodes)
	for v := range txn {
		txn[v] = c.txnOf(int32(v))
	}
	whole := compress(c.edges, func(v int32) int32 { return v }, txn)
	return c.components(whole, walk{l.orders | ww | wr | rw, plain})
}

// txnOf returns the transaction of a node; none for an auxiliary one.
func (c *check) txnOf(v int32) int32 {
	if int(v) < len(c.txns) {
		return v
	}
	return none
}

// placesToNodes returns the nodes of places.
func placesToNodes(places []int32) []int32 {
	nodes := make([]int32, len(places))
	for i, p := range places {
		nodes[i] = p / 2
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// reportCycle reports a shortest cycle of a component. That of a nonadjacent walk is a
// G-single where one has only one edge rw.
func (c *check) reportCycle(g *csr, nodes []int32, w walk, k, suffix Kind, rulesOut Model) {
	var cycle []int32
	if k == GNonadjacent {
		if cycle = c.shortest(g, nodes, walk{w.kinds, single}); cycle != nil {
			k = GSingle
		}
	}
	if cycle == nil {
		cycle = c.shortest(g, nodes, w)
	}
	if cycle == nil {
		return // the time ended; components found it, but a cycle is not to be had
	}
	steps := c.stepsOf(g, cycle)
	if rulesOut == ReadUncommitted && !c.certain(steps) {
		rulesOut = ReadCommitted
	}
	c.report(k+suffix, rulesOut, func() Anomaly { return c.explainCycle(k+suffix, steps) })
}

// certain reports whether a cycle of writes rests on committed transactions and on the order
// of elements only. Where one is of unknown outcome, that its write was seen may be an
// aborted read, and the order of a register's versions is inferred from reads: both hold
// where nothing uncommitted is read.
func (c *check) certain(steps []step) bool {
	return !slices.ContainsFunc(steps, func(s step) bool {
		return c.txns[s.from].Type != OK || s.key != none && !c.keys[s.key].list
	})
}
