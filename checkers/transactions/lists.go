package transactions

import (
	"fmt"
	"slices"
)

// listOrder is what the reads of a list tell of the order of its elements. All reads that
// show nothing impossible must be beginnings of the longest. Where they are not, only what they
// agree on is taken for the order, so that no dependency rests on a read that may be wrong.
type listOrder struct {
	longest int32          // the read; none where there is no read to be trusted
	agreed  int            // how many elements of it no read contradicts
	whole   bool           // all reads are beginnings of the longest: what it lacks comes after it
	tainted map[int32]bool // reads that show what cannot be
}

// list returns what a read shows of a list, without what its own transaction had appended
// at the end. That part is no version that anybody else can see: a store may keep it apart until the
// commit and put it elsewhere in the list then, which only snapshot isolation forbids.
func (c *check) list(at int32) []int64 {
	list := c.micro(at).List
	for own := c.own[at]; own != none && len(list) > 0 && list[len(list)-1] == c.micro(own).Value; own = c.own[own] {
		list = list[:len(list)-1]
	}
	return list
}

// orders finds the order of each list, and which transactions of unknown outcome happened.
func (c *check) orders() {
	c.lists = make([]listOrder, len(c.keys))
	for k := range c.keys {
		if c.over() {
			return
		}
		key := &c.keys[k]
		switch {
		case key.left != "":
		case key.list:
			c.orderList(int32(k))
		default:
			for _, at := range key.reads {
				c.meet(at)
			}
		}
	}
}

func (c *check) orderList(k int32) {
	reads := slices.Clone(c.keys[k].reads)
	slices.SortStableFunc(reads, func(a, b int32) int { return len(c.list(b)) - len(c.list(a)) })
	order := listOrder{longest: none, whole: true, tainted: make(map[int32]bool)}
	var list []int64
	for _, at := range reads {
		this := c.list(at)
		if !c.step(1 + len(this)/16) {
			return
		}
		if c.own[at] != none && len(this) == len(c.micro(at).List) {
			order.tainted[at], order.whole = true, false // see withinList
			continue
		}
		if order.longest != none && slices.Equal(list[:len(this)], this) {
			continue
		}
		if !c.possible(at) {
			order.tainted[at], order.whole = true, false
			continue
		}
		if order.longest == none {
			order.longest, list, order.agreed = at, this, len(this)
			continue
		}
		order.whole = false
		common := 0
		for common < len(this) && this[common] == list[common] {
			common++
		}
		order.agreed = min(order.agreed, common)
		c.reportIncompatible(k, order.longest, at, common)
	}
	for i, value := range list[:order.agreed] {
		c.writes[c.writer(k, value)].at = int32(i)
	}
	c.lists[k] = order
}

// possible reports whether a read of a list shows only what it may: elements that were
// appended by transactions that did not fail, each once. It reports the anomaly where not, and
// notes which transactions happened since their elements are seen.
func (c *check) possible(at int32) bool {
	k, reader := c.key[at], c.of[at]
	list := c.micro(at).List
	if !c.step(1 + len(list)) {
		return false
	}
	clean, aborted := true, none
	for i, value := range list {
		w := c.writer(k, value)
		if w == none {
			c.reportPhantom(at, value)
			return false
		}
		wrote := &c.writes[w]
		if wrote.mark == at {
			c.report(DuplicateElements, ReadUncommitted, func() Anomaly {
				return Anomaly{Key: c.keyOf(at), Txns: []int{int(reader)}, Text: fmt.Sprintf(
					"%s %s: it shows %d twice, which was appended once, by %s", c.name(reader), c.readAround(at, i), value, c.name(wrote.txn))}
			})
			return false
		}
		wrote.mark = at
		switch c.txns[wrote.txn].Type {
		case Fail:
			if aborted == none {
				c.reportAborted(at, w)
			}
			clean, aborted = false, w
		case Info:
			c.happened[wrote.txn] = true
		case OK:
			if aborted != none {
				c.reportDirtyUpdate(at, aborted, w)
				return false
			}
		}
	}
	return clean
}

// meet is possible of a register's read.
func (c *check) meet(at int32) {
	m := c.micro(at)
	if m.Nil || c.own[at] != none || !c.step(1) {
		return
	}
	w := c.writer(c.key[at], m.Value)
	if w == none {
		c.reportPhantom(at, m.Value)
		return
	}
	switch wrote := &c.writes[w]; c.txns[wrote.txn].Type {
	case Fail:
		c.reportAborted(at, w)
	case Info:
		c.happened[wrote.txn] = true
	case OK:
	}
}

// programOrder reports elements of one transaction that are not in the order in which it
// appended them: both are in the agreed order, the other way round, or only the later one is.
// It reports elements too that the transaction saw before it appended them.
func (c *check) programOrder(k int32) {
	order := &c.lists[k]
	for _, w := range c.keys[k].writes {
		wrote := &c.writes[w]
		if wrote.at == none || c.txns[wrote.txn].Type == Fail {
			continue
		}
		if before := c.own[wrote.micro]; before != none {
			earlier := c.writer(k, c.micro(before).Value)
			if at := c.writes[earlier].at; at == none || at > wrote.at {
				c.reportProgramOrder(order.longest, earlier, w)
			}
		} else if read := c.seen[wrote.micro]; read != none && c.txns[wrote.txn].Type == OK && !order.tainted[read] {
			list := c.list(read)
			if last := len(list) - 1; last > int(wrote.at) && c.writes[c.writer(k, list[last])].txn != wrote.txn {
				c.reportInternal(read, fmt.Sprintf("before it appended %d itself", list[wrote.at]))
			}
		}
	}
}

func (c *check) reportProgramOrder(longest, earlier, later int32) {
	c.report(IncompatibleOrder, ReadCommitted, func() Anomaly {
		t, reader := c.writes[later].txn, c.of[longest]
		return Anomaly{Key: c.keyOf(longest), Txns: []int{int(t), int(reader)}, Text: fmt.Sprintf(
			"%s appended %d and then %d to %s, but %s %s, where %d does not stand before %d", c.name(t), c.value(earlier), c.value(later),
			c.keyOf(longest), c.name(reader), c.readOf(longest, c.value(later)), c.value(earlier), c.value(later))}
	})
}

func (c *check) reportPhantom(at int32, value int64) {
	c.report(Phantom, ReadUncommitted, func() Anomaly {
		t := c.of[at]
		return Anomaly{Key: c.keyOf(at), Txns: []int{int(t)}, Text: fmt.Sprintf(
			"%s %s: it shows %d, which nobody wrote", c.name(t), c.readOf(at, value), value)}
	})
}

func (c *check) reportAborted(at, w int32) {
	c.report(G1a, ReadCommitted, func() Anomaly {
		t, failed := c.of[at], c.writes[w].txn
		return Anomaly{Key: c.keyOf(at), Txns: []int{int(t), int(failed)}, Text: fmt.Sprintf(
			"%s %s: it shows %d, which %s wrote, and that failed", c.name(t), c.readOf(at, c.value(w)), c.value(w), c.name(failed))}
	})
}

func (c *check) reportDirtyUpdate(at, aborted, w int32) {
	c.report(DirtyUpdate, ReadCommitted, func() Anomaly {
		t, failed, wrote := c.of[at], c.writes[aborted].txn, c.writes[w].txn
		return Anomaly{Key: c.keyOf(at), Txns: []int{int(wrote), int(failed), int(t)}, Text: fmt.Sprintf(
			"%s appended %d to %s after the %d of %s, which failed: %s %s", c.name(wrote), c.value(w), c.keyOf(at), c.value(aborted), c.name(failed),
			c.name(t), c.readOf(at, c.value(w)))}
	})
}

// reportIncompatible reports two reads that part after so many elements in common. Where one
// shows what a transaction of unknown outcome appended, that may have been undone: then it is
// an aborted read, which only read uncommitted allows.
func (c *check) reportIncompatible(k, longest, at int32, common int) {
	rulesOut := ReadUncommitted
	for _, list := range [...][]int64{c.list(longest)[common:], c.list(at)[common:]} {
		for _, value := range list {
			if c.txns[c.writes[c.writer(k, value)].txn].Type == Info {
				rulesOut = ReadCommitted
			}
		}
	}
	c.report(IncompatibleOrder, rulesOut, func() Anomaly {
		one, other := c.of[longest], c.of[at]
		return Anomaly{Key: c.keys[k].name, Txns: []int{int(one), int(other)}, Text: fmt.Sprintf(
			"%s %s and %s %s: neither begins with the other, they part at position %d", c.name(one), c.readAround(longest, common),
			c.name(other), c.readAround(at, common), common)}
	})
}
