package transactions

import (
	"fmt"
	"slices"
)

// within looks at each committed transaction by itself: whether it read what it wrote, and
// the same when it read again. Adya (4.2) asks of every history that a transaction which
// wrote an object reads its own last write of it; that what it read once stays so is asked
// from snapshot isolation on.
func (c *check) within() {
	for k := range c.keys {
		key := &c.keys[k]
		if key.left != "" {
			continue
		}
		for _, at := range key.reads {
			if !c.step(1) {
				return
			}
			if key.list {
				c.step(len(c.micro(at).List) / 16)
				c.withinList(at)
			} else {
				c.withinRegister(at)
			}
		}
	}
}

func (c *check) withinRegister(at int32) {
	m, own, seen := c.micro(at), c.own[at], c.seen[at]
	switch {
	case own != none:
		if m.Nil || m.Value != c.micro(own).Value {
			c.reportInternal(at, fmt.Sprintf("after it had written %d", c.micro(own).Value))
		}
	case seen != none:
		if before := c.micro(seen); before.Nil != m.Nil || !m.Nil && before.Value != m.Value {
			c.reportNonRepeatable(at, seen)
		}
	}
}

func (c *check) withinList(at int32) {
	list, own, seen := c.micro(at).List, c.own[at], c.seen[at]
	if own != none {
		appended := c.micro(own).Value
		if len(list) == 0 || list[len(list)-1] != appended {
			c.reportInternal(at, fmt.Sprintf("after it had appended %d", appended))
			return
		}
	}
	if seen == none {
		return
	}
	// What it read before and appended since is the whole list, or somebody came in between.
	before := c.micro(seen).List
	rest := len(list)
	for ; own > seen; own = c.own[own] {
		if rest == 0 || list[rest-1] != c.micro(own).Value {
			break
		}
		rest--
	}
	if own > seen || !slices.Equal(list[:rest], before) {
		c.reportNonRepeatable(at, seen)
	}
}

func (c *check) reportInternal(at int32, when string) {
	c.report(Internal, ReadCommitted, func() Anomaly {
		t := c.of[at]
		return Anomaly{Key: c.keyOf(at), Txns: []int{int(t)}, Text: fmt.Sprintf("%s %s %s", c.name(t), c.read(at), when)}
	})
}

func (c *check) reportNonRepeatable(at, before int32) {
	c.report(NonRepeatableRead, SnapshotIsolation, func() Anomaly {
		t := c.of[at]
		return Anomaly{Key: c.keyOf(at), Txns: []int{int(t)}, Text: fmt.Sprintf("%s %s, and then %s", c.name(t), c.read(before), c.read(at))}
	})
}
