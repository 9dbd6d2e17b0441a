package transactions

import (
	"fmt"
	"slices"
)

// depend makes the edges of Adya's dependency graph (4.4.1): write, read and anti-dependencies.
func (c *check) depend() {
	c.nodes = int32(len(c.txns))
	for k := range c.keys {
		key := &c.keys[k]
		if c.over() {
			return
		}
		switch {
		case key.left != "":
		case key.list:
			c.programOrder(int32(k))
			c.dependList(int32(k))
		default:
			c.dependRegister(int32(k))
		}
	}
	switch c.options.Keys {
	case Sequential:
		c.promised(c.processVersions(), StrongSessionSerializable)
	case Linearizable:
		c.promised(c.realtimeVersions(), StrictSerializable)
	case Unordered:
	}
}

// dependList makes the edges of a list. The version of it that a read saw is the last element;
// the next version is the element behind it in the agreed order, and what nobody has read yet
// comes after the longest read.
func (c *check) dependList(k int32) {
	order := &c.lists[k]
	var list []int64
	if order.longest != none {
		list = c.list(order.longest)
	}
	var last []source // who saw the whole of it, and who wrote the last element
	writers := make([]int32, order.agreed)
	for i, value := range list[:order.agreed] {
		writers[i] = c.writes[c.writer(k, value)].txn
		if i > 0 {
			c.connect(edge{from: writers[i-1], to: writers[i], kind: ww, key: k, why: none})
		}
	}
	if order.agreed > 0 && order.whole {
		last = append(last, source{writers[order.agreed-1], ww})
	}
	updates := c.updates(k)
	read := make([]reading, 0, len(updates))
	for _, at := range c.keys[k].reads {
		if order.tainted[at] || !c.step(1) {
			continue
		}
		seen, t := c.list(at), c.of[at]
		from := none
		if len(seen) > 0 {
			from = c.dependRead(at, c.writer(k, seen[len(seen)-1]))
			if from == none {
				continue
			}
		}
		if len(seen) > order.agreed {
			continue // it is not known what comes next
		}
		if last, both := updates[t]; both && last == at {
			read = append(read, reading{version: int32(len(seen)), txn: t})
		}
		next := len(seen)
		for next < order.agreed && writers[next] == from {
			next++ // an intermediate read counts as one of all that its writer wrote
		}
		if next < order.agreed {
			c.connect(edge{from: t, to: writers[next], kind: rw, key: k, why: none})
		} else if order.whole {
			last = append(last, source{t, rw})
		}
	}
	c.lostUpdates(k, sortReadings(read))
	if order.whole {
		c.fan(distinctSources(last), c.unseen(k), k)
	}
}

// dependRead makes the edge from the transaction that wrote what was read, and returns that
// transaction; none where the read is of the transaction's own write.
func (c *check) dependRead(at, w int32) int32 {
	wrote, t := &c.writes[w], c.of[at]
	if wrote.txn == t {
		when := "before it wrote that itself"
		if c.own[at] != none {
			when = "with what it wrote itself in the wrong place"
		}
		c.reportInternal(at, when)
		return none
	}
	if !wrote.last {
		c.reportIntermediate(at, w)
	}
	c.connect(edge{from: wrote.txn, to: t, kind: wr, key: c.key[at], why: none})
	return wrote.txn
}

func (c *check) reportIntermediate(at, w int32) {
	c.report(G1b, ReadCommitted, func() Anomaly {
		t, writer := c.of[at], c.writes[w].txn
		return Anomaly{Key: c.keyOf(at), Txns: []int{int(t), int(writer)}, Text: fmt.Sprintf(
			"%s %s, but after %d %s wrote %s again", c.name(t), c.read(at), c.value(w), c.name(writer), c.keyOf(at))}
	})
}

// unseen returns who appended to a list what no read shows, and did happen.
func (c *check) unseen(k int32) []sink {
	var sinks []sink
	for _, w := range c.keys[k].writes {
		wrote := &c.writes[w]
		if wrote.at == none && c.happened[wrote.txn] && (len(sinks) == 0 || sinks[len(sinks)-1].txn != wrote.txn) {
			sinks = append(sinks, sink{wrote.txn, none})
		}
	}
	return sinks
}

// updates returns, of each committed transaction that wrote a key after it had read it, the
// last read before the first write.
func (c *check) updates(k int32) map[int32]int32 {
	updates := make(map[int32]int32)
	for _, w := range c.keys[k].writes {
		wrote := &c.writes[w]
		if at := c.seen[wrote.micro]; at != none && c.own[wrote.micro] == none && c.txns[wrote.txn].Type == OK {
			updates[wrote.txn] = at
		}
	}
	return updates
}

// reading is that a transaction read a version of the key that is being looked at.
type reading struct{ version, txn int32 }

// dependRegister makes the edges of a register. That To wrote over what From read is known
// where To read the same before it wrote, and where From read the register as never written.
// Adya allows a store to order the versions otherwise, but then the read and the write of To
// are a G1c, which rules out what an edge rw is used to rule out.
func (c *check) dependRegister(k int32) {
	updates := c.updates(k)
	var read []reading
	for _, at := range c.keys[k].reads {
		if c.own[at] != none || !c.step(1) {
			continue
		}
		from, known := c.versionRead(at)
		if !known {
			continue
		}
		t := c.of[at]
		if from != none {
			if from = c.dependRead(at, c.writer(k, c.micro(at).Value)); from == none {
				continue
			}
		}
		read = append(read, reading{from, t})
	}
	read = sortReadings(read)
	var rewrites []reading
	for _, r := range read {
		if at, ok := updates[r.txn]; ok {
			if from, known := c.versionRead(at); known && from == r.version {
				rewrites = append(rewrites, r)
			}
		}
	}
	c.lostUpdates(k, rewrites)
	for len(read) > 0 {
		of := read[0].version
		var readers []source
		for len(read) > 0 && read[0].version == of {
			readers, read = append(readers, source{read[0].txn, rw}), read[1:]
		}
		var writers []sink
		for len(rewrites) > 0 && rewrites[0].version == of {
			writers, rewrites = append(writers, sink{rewrites[0].txn, none}), rewrites[1:]
		}
		if of == none {
			writers = c.registerWriters(k)
		}
		c.fan(readers, writers, k)
	}
}

// versionRead returns which transaction's version of a register was read, none where it was
// never written, and whether that is known and may be.
func (c *check) versionRead(at int32) (from int32, known bool) {
	m := c.micro(at)
	if m.Nil {
		return none, true
	}
	w := c.writer(c.key[at], m.Value)
	if w == none || c.txns[c.writes[w].txn].Type == Fail {
		return none, false
	}
	return c.writes[w].txn, true
}

// registerWriters returns who wrote a register.
func (c *check) registerWriters(k int32) []sink {
	var sinks []sink
	for _, w := range c.keys[k].writes {
		if wrote := &c.writes[w]; wrote.last && c.happened[wrote.txn] {
			sinks = append(sinks, sink{wrote.txn, none})
		}
	}
	return sinks
}

// sortReadings sorts by version, then by transaction, and takes out what is there twice.
func sortReadings(read []reading) []reading {
	slices.SortFunc(read, func(a, b reading) int {
		if a.version != b.version {
			return int(a.version) - int(b.version)
		}
		return int(a.txn) - int(b.txn)
	})
	return slices.Compact(read)
}

func distinctSources(sources []source) []source {
	slices.SortFunc(sources, func(a, b source) int {
		if a.txn != b.txn {
			return int(a.txn) - int(b.txn)
		}
		return int(a.kind) - int(b.kind)
	})
	return slices.Compact(sources)
}

// lostUpdates reports the versions of a key that more than one transaction read and wrote
// over. The readings are sorted. Of two such, snapshot isolation commits only one.
func (c *check) lostUpdates(k int32, read []reading) {
	for len(read) > 0 {
		n := 1
		for n < len(read) && read[n].version == read[0].version {
			n++
		}
		if of := read[:n]; n > 1 {
			c.report(LostUpdate, SnapshotIsolation, func() Anomaly { return c.explainLostUpdate(k, of) })
		}
		read = read[n:]
	}
}
