package transactions

import (
	"fmt"
	"slices"
)

// The versions of a register are ordered by what transactions read before they wrote only.
// Where a model with sessions or real time is to be refuted, it may be taken for true and its
// consequence used: seen by one who returned before another was called, a version is no newer
// than what the other sees. What then turns up as a cycle contradicts that model.

// observation is what a transaction saw first of a register and left in it at last.
type observation struct {
	key, txn    int32
	first, last int32 // the transactions that wrote these versions; none: never written
}

// succession is that the version of one transaction (none: never written) comes before that
// of another, since one transaction saw the former, and another one later the latter.
type succession struct {
	key         int32
	from, to    int32
	earlier, in int32 // the transactions that saw them
}

// reason tells why versions succeed each other.
type reason struct{ earlier, later int32 }

// observe returns what transactions saw and wrote of registers, by key, and of each key in
// the order of their calls.
func (c *check) observe() []observation {
	if c.observed != nil {
		return c.observed
	}
	c.observed = []observation{}
	for k := range c.keys {
		key := &c.keys[k]
		if key.left != "" || key.list || c.over() {
			continue
		}
		from := len(c.observed)
		for _, at := range key.reads {
			if c.own[at] != none || c.seen[at] != none {
				continue
			}
			if v, known := c.versionRead(at); known && v != c.of[at] {
				c.observed = append(c.observed, observation{key: int32(k), txn: c.of[at], first: v, last: v})
			}
		}
		reads := len(c.observed)
		for _, w := range c.registerWriters(int32(k)) {
			i, found := slices.BinarySearchFunc(c.observed[from:reads], w.txn, func(o observation, t int32) int { return int(o.txn) - int(t) })
			if found {
				c.observed[from+i].last = w.txn
			} else {
				c.observed = append(c.observed, observation{key: int32(k), txn: w.txn, first: w.txn, last: w.txn})
			}
		}
		slices.SortStableFunc(c.observed[from:], func(a, b observation) int { return compare(c.txns[a.txn].Call, c.txns[b.txn].Call) })
		c.step(len(c.observed) - from)
	}
	return c.observed
}

func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// returned is when a transaction certainly had taken effect.
func (c *check) returned(t int32) int64 {
	if c.txns[t].Type == OK {
		return c.txns[t].Return
	}
	return Never
}

// processVersions orders the versions that each process sees of a register as it sees them.
func (c *check) processVersions() []succession {
	type session struct {
		key     int32
		process int
	}
	var found []succession
	before := make(map[session]observation)
	for _, o := range c.observe() {
		if !c.step(1) {
			break
		}
		in := session{o.key, c.txns[o.txn].Process}
		if last, any := before[in]; any && c.returned(last.txn) < c.txns[o.txn].Call {
			found = c.succeed(found, last, o)
		}
		if c.txns[o.txn].Type == OK {
			before[in] = o
		}
	}
	return found
}

// realtimeVersions orders the versions of a register by real time. The frontier is what had
// returned when the next was called, without what all of it came after.
func (c *check) realtimeVersions() []succession {
	var found []succession
	observed := c.observe()
	for len(observed) > 0 && !c.over() {
		n := 1
		for n < len(observed) && observed[n].key == observed[0].key {
			n++
		}
		of := observed[:n]
		observed = observed[n:]
		returns := slices.Clone(of)
		slices.SortStableFunc(returns, func(a, b observation) int { return compare(c.returned(a.txn), c.returned(b.txn)) })
		var frontier []observation
		for _, o := range of {
			called := c.txns[o.txn].Call
			for len(returns) > 0 && c.returned(returns[0].txn) < called {
				next := returns[0]
				returns = returns[1:]
				frontier = slices.DeleteFunc(frontier, func(f observation) bool { return c.returned(f.txn) < c.txns[next.txn].Call })
				frontier = append(frontier, next)
			}
			for _, f := range frontier {
				found = c.succeed(found, f, o)
			}
			if !c.step(1 + len(frontier)) {
				break
			}
		}
	}
	return found
}

// succeed adds that what one saw last is older than what another saw first.
func (c *check) succeed(found []succession, earlier, later observation) []succession {
	if earlier.last == later.first || !c.take(bytesPerEdge) {
		return found
	}
	return append(found, succession{key: later.key, from: earlier.last, to: later.first, earlier: earlier.txn, in: later.txn})
}

// follow makes edges of successions: who wrote the older version, and who read it, come
// before who wrote the newer. Nothing is older than a register never written: that one who saw
// it came later is a cycle by the edge rw of that one, and needs no order of versions.
func (c *check) follow(found []succession) {
	found = slices.DeleteFunc(slices.Clone(found), func(s succession) bool { return s.to == none })
	slices.SortFunc(found, func(a, b succession) int {
		for _, d := range [...]int32{a.key - b.key, a.from - b.from, a.to - b.to} {
			if d != 0 {
				return int(d)
			}
		}
		return 0
	})
	found = slices.CompactFunc(found, func(a, b succession) bool { return a.key == b.key && a.from == b.from && a.to == b.to })
	var readers map[int32][]source
	for key := none; len(found) > 0 && !c.over(); {
		k, from := found[0].key, found[0].from
		if k != key {
			key, readers = k, c.readers(k)
		}
		sources := readers[from]
		if from != none {
			sources = append(sources, source{from, ww})
		}
		var sinks []sink
		for len(found) > 0 && found[0].key == k && found[0].from == from {
			sinks = append(sinks, sink{txn: found[0].to, why: int32(len(c.reasons))})
			c.reasons = append(c.reasons, reason{found[0].earlier, found[0].in})
			found = found[1:]
		}
		c.fan(sources, sinks, k)
	}
}

// readers returns who read which version of a register.
func (c *check) readers(k int32) map[int32][]source {
	readers := make(map[int32][]source)
	for _, at := range c.keys[k].reads {
		if c.own[at] != none || !c.step(1) {
			continue
		}
		if v, known := c.versionRead(at); known && v != c.of[at] {
			readers[v] = append(readers[v], source{c.of[at], rw})
		}
	}
	return readers
}

// promised takes the successions that Options.Keys promises for dependencies. A register
// whose versions succeed each other in a circle does not keep the promise, which rules out
// the model that makes it; its successions are of no use then.
func (c *check) promised(found []succession, rulesOut Model) {
	broken := make(map[int32]bool)
	var edges []edge
	for _, s := range found {
		switch {
		case s.to != none && s.from != none:
			edges = append(edges, edge{from: s.from, to: s.to, key: s.key})
		case s.to == none && !broken[s.key]:
			broken[s.key] = true
			c.report(CyclicVersions, rulesOut, func() Anomaly {
				return Anomaly{Key: c.keys[s.key].name, Txns: []int{int(s.earlier), int(s.in)}, Text: fmt.Sprintf(
					"register %s is not as promised: %s saw it written, and then %s as never written", c.keys[s.key].name, c.name(s.earlier), c.name(s.in))}
			})
		}
	}
	for _, o := range c.observe() {
		if o.first != o.last && o.first != none {
			edges = append(edges, edge{from: o.first, to: o.last, key: o.key})
		}
	}
	slices.SortStableFunc(edges, func(a, b edge) int { return int(a.key) - int(b.key) })
	for len(edges) > 0 && !c.over() {
		k, n := edges[0].key, 1
		for n < len(edges) && edges[n].key == k {
			n++
		}
		if circle := c.versionCircle(edges[:n]); circle != nil && !broken[k] {
			broken[k] = true
			c.report(CyclicVersions, rulesOut, func() Anomaly { return c.explainVersions(k, circle) })
		}
		edges = edges[n:]
	}
	c.follow(slices.DeleteFunc(found, func(s succession) bool { return broken[s.key] }))
}

// versionCircle returns the writers of versions of one register that succeed each other in a
// circle; nil where there is none.
func (c *check) versionCircle(edges []edge) (circle []int32) {
	place := make(map[int32]int32)
	var txns []int32
	for _, e := range edges {
		for _, t := range [...]int32{e.from, e.to} {
			if _, known := place[t]; !known {
				place[t] = int32(len(txns))
				txns = append(txns, t)
			}
		}
	}
	g := compress(edges, func(t int32) int32 { return place[t] }, txns)
	components := c.components(g, walk{})
	if len(components) == 0 {
		return nil
	}
	for _, at := range c.shortest(g, components[0], walk{}) {
		circle = append(circle, txns[place[edges[g.edge[at]].from]])
	}
	return circle
}

func (c *check) explainVersions(k int32, circle []int32) Anomaly {
	text := fmt.Sprintf("register %s is not as promised: of its values, each was seen and then the next, in a circle:", c.keys[k].name)
	a := Anomaly{Key: c.keys[k].name}
	for _, t := range circle {
		a.Txns = append(a.Txns, int(t))
		text += fmt.Sprintf(" %d (of %s)", c.wrote(t, k), c.name(t))
	}
	a.Text = text
	return a
}
