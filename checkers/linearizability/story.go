package linearizability

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"capsize/checkers"
	"capsize/histories"
)

// story tells in plain words why a core of register operations is impossible. It knows
// the common shapes; what it says of them is true of the core, by the reasons given here
// and without another search.
type story struct {
	core []histories.Operation // in order of invoke
	all  []histories.Operation // of the key, failures included
}

func (s *story) tell() string {
	for _, shape := range []func() string{s.neverWritten, s.twoSwaps, s.wrongOrder} {
		if text := shape(); text != "" {
			return text
		}
	}
	var phrases []string
	for _, op := range s.core {
		phrases = append(phrases, act(op))
	}
	return fmt.Sprintf("no order explains these %d operations: %s", len(s.core), strings.Join(phrases, "; "))
}

// neverWritten: a value was found that was never written, or not yet, or by a write that
// certainly failed.
func (s *story) neverWritten() string {
	for _, op := range s.core {
		value, finds := found(op)
		if !finds || op.Type != histories.OK && !op.Refused {
			continue
		}
		write, how := s.writeOf(value)
		switch {
		case how == unwritten:
			return fmt.Sprintf("%s, but nobody ever wrote %d to it", phrase(op), value)
		case how == failed:
			return fmt.Sprintf("%s, but %s had failed for certain (%s): an aborted write was seen", phrase(op), act(write), write.Error)
		case write.Invoked > op.Returned:
			return fmt.Sprintf("%s, before %s began", phrase(op), act(write))
		}
	}
	return ""
}

type writeState int

const (
	unwritten writeState = iota // nobody invoked a write of the value
	failed                      // a write of it was invoked, and failed for certain
	possible                    // one took effect, or may have
)

// writeOf returns the operation that writes a value, if one does.
func (s *story) writeOf(value int64) (write histories.Operation, how writeState) {
	for _, op := range s.all {
		v, writes := produced(op)
		if !writes || v != value {
			continue
		}
		if op.Type != histories.Fail {
			return op, possible
		}
		write, how = op, failed
	}
	return write, how
}

// twoSwaps: two compare-and-swaps took the same value away, which was there once only.
func (s *story) twoSwaps() string {
	swaps := make(map[int64]histories.Operation)
	for _, op := range s.core {
		from, swap := expected(op)
		if !swap || op.Type != histories.OK {
			continue
		}
		if other, twice := swaps[from]; twice {
			return fmt.Sprintf("two compare-and-swaps from %d both succeeded, though it was written only once: %s and %s; one update was lost", from, act(other), act(op))
		}
		swaps[from] = op
	}
	return ""
}

// A value's block is its write and all that found the value. In a legal order blocks stand
// one after the other, since each value is written once. So one operation of A that ended
// before one of B began puts all of A before all of B; if also B must stand before A,
// there is no order.

// block is a value that the register held, and who showed that.
type block struct {
	name    string // the value
	initial bool   // nothing: never written; before every other block
	value   int64
	members []histories.Operation
}

func (s *story) blocks() []*block {
	byName := make(map[string]*block)
	var blocks []*block
	add := func(v histories.Value, op histories.Operation) {
		b := byName[v.String()]
		if b == nil {
			value, ok := v.Int()
			b = &block{name: v.String(), initial: !ok, value: value}
			byName[b.name] = b
			blocks = append(blocks, b)
		}
		b.members = append(b.members, op)
	}
	for _, op := range s.core {
		if value, ok := produced(op); ok {
			add(histories.Int(value), op)
		}
		if value, ok := found(op); ok {
			add(histories.Int(value), op)
		} else if looks(op) && op.Output.IsNil() {
			add(histories.Nil, op)
		}
	}
	return blocks
}

// conflict is two blocks that must each stand before the other.
type conflict struct {
	old, new     *block
	first, next  *histories.Operation // of old, ended before next, of new, began; nil where old comes first by itself
	between      *histories.Operation // of new, ended before again began
	again        histories.Operation  // of old
	swappedFirst bool                 // old was replaced by new with a compare-and-swap
}

func (s *story) wrongOrder() string {
	c := s.conflict()
	if c == nil {
		return ""
	}
	for _, shape := range []func(*conflict) string{s.lostWrite, s.oppositeOrders, s.backAgain} {
		if text := shape(c); text != "" {
			return text
		}
	}
	return c.stale()
}

// conflict returns the two blocks whose contradiction ends last: that is where it became
// impossible.
func (s *story) conflict() *conflict {
	var worst *conflict
	blocks := s.blocks()
	for _, a := range blocks {
		for _, b := range blocks {
			if a == b || b.initial {
				continue
			}
			c := &conflict{old: a, new: b, swappedFirst: s.swapped(a, b)}
			first, next := endsFirst(a.members), beginsLast(b.members)
			if !a.initial && !c.swappedFirst {
				if end(first) > next.Invoked {
					continue
				}
				c.first, c.next = &first, &next
			}
			between := endsFirst(b.members)
			c.between, c.again = &between, beginsLast(a.members)
			if end(between) > c.again.Invoked {
				continue
			}
			if worst == nil || c.again.Invoked > worst.again.Invoked {
				worst = c
			}
		}
	}
	return worst
}

// swapped reports whether a chain of compare-and-swaps in the core leads from a to b.
func (s *story) swapped(a, b *block) bool {
	if a.initial {
		return false
	}
	value := b.value
	for range s.core {
		i := slices.IndexFunc(s.core, func(op histories.Operation) bool {
			v, ok := produced(op)
			return ok && v == value && op.F == "cas"
		})
		if i < 0 {
			return false
		}
		if value, _ = expected(s.core[i]); value == a.value {
			return true
		}
	}
	return false
}

// endsFirst returns the operation that ended first; one that did not end is last.
func endsFirst(operations []histories.Operation) histories.Operation {
	return slices.MinFunc(operations, func(a, b histories.Operation) int { return end(a) - end(b) })
}

func end(op histories.Operation) int {
	if op.Type == histories.Info {
		return math.MaxInt
	}
	return op.Returned
}

func beginsLast(operations []histories.Operation) histories.Operation {
	return slices.MaxFunc(operations, func(a, b histories.Operation) int { return a.Invoked - b.Invoked })
}

// stale: what was there before the newer value was found again.
func (c *conflict) stale() string {
	text := fmt.Sprintf("%s, but %s", phrase(c.again), c.established())
	switch {
	case c.old.initial:
	case c.swappedFirst:
		text += fmt.Sprintf("; %s is the newer, since it replaced %s by compare-and-swap", c.new.name, c.old.name)
	default:
		text += fmt.Sprintf("; %s is the newer, since %s had ended before %s began", c.new.name, act(*c.first), act(*c.next))
	}
	return text
}

// established says how the newer value was there before the older was found again.
func (c *conflict) established() string {
	if value, writes := produced(*c.between); writes && value == c.new.value {
		return fmt.Sprintf("%s had been written and acknowledged before it began (%s)", c.new.name, where(*c.between))
	}
	return fmt.Sprintf("%s had been seen before it began, by %s", c.new.name, act(*c.between))
}

// lostWrite: an acknowledged write that nothing ever found, while later reads, again and
// again, found what was there before.
func (s *story) lostWrite(c *conflict) string {
	value, writes := produced(*c.between)
	if !writes || value != c.new.value || anyFinds(s.all, c.new.value) {
		return ""
	}
	later := s.readsAfter(*c.between, c.old)
	if len(later) < 2 {
		return ""
	}
	return fmt.Sprintf("%s was acknowledged and then lost: no read ever returned %d, and %d later reads, on %s, returned the older %s; the first that no order explains is %s",
		act(*c.between), value, len(later), strings.Join(nodesOf(later), ", "), c.old.name, act(c.again))
}

// oppositeOrders: some saw A and then B, others B and then A.
func (s *story) oppositeOrders(c *conflict) string {
	if c.first == nil || c.first.F != "read" || c.next.F != "read" || c.between.F != "read" || c.again.F != "read" || c.between.Invoked == c.next.Invoked {
		return ""
	}
	return fmt.Sprintf("two writes were seen in opposite orders: %s and then %s by %s and %s, but %s and then %s by %s and %s",
		c.old.name, c.new.name, act(*c.first), act(*c.next), c.new.name, c.old.name, act(*c.between), act(c.again))
}

// backAgain: a value was there, was overwritten, and was there again to stay, as when a
// write takes effect twice.
func (s *story) backAgain(c *conflict) string {
	if c.old.initial || c.again.F != "read" {
		return ""
	}
	write, how := s.writeOf(c.old.value)
	stayed := len(nodesOf(s.readsAfter(*c.between, c.old))) > 1
	if how != possible || !stayed && write.Attempts < 2 {
		return ""
	}
	text := fmt.Sprintf("%s came back after it had been overwritten: %s, but %s", c.old.name, phrase(c.again), c.established())
	if write.Attempts > 1 {
		return text + fmt.Sprintf("; %s was sent %d times and may have taken effect twice", act(write), write.Attempts)
	}
	return text + fmt.Sprintf("; %s may have taken effect twice", act(write))
}

// readsAfter returns the reads that began after an operation ended and returned a block's
// value.
func (s *story) readsAfter(op histories.Operation, b *block) []histories.Operation {
	var reads []histories.Operation
	for _, r := range s.all {
		if r.F == "read" && r.Type == histories.OK && r.Invoked > op.Returned && r.Output.String() == b.name {
			reads = append(reads, r)
		}
	}
	return reads
}

func nodesOf(operations []histories.Operation) []string {
	var nodes []string
	for _, op := range operations {
		nodes = append(nodes, op.Node)
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// phrase is a clause that says what an operation did, for the one that cannot be explained.
func phrase(op histories.Operation) string {
	who := fmt.Sprintf("at %s by process %d on %s", checkers.Clock(op.Call), op.Process, op.Node)
	value, swap := expected(op)
	switch {
	case op.Refused:
		pair, _ := op.Input.Ints()
		return fmt.Sprintf("compare-and-swap %s from %d was refused since it found %s", who, pair[0], what(op.Output))
	case op.F == "read" && op.Output.IsNil():
		return fmt.Sprintf("read %s returned nothing, as if never written", who)
	case op.F == "read":
		return fmt.Sprintf("read %s returned %s", who, op.Output)
	case swap:
		replacement, _ := produced(op)
		return fmt.Sprintf("compare-and-swap %s found %d and replaced it by %d", who, value, replacement)
	default:
		return fmt.Sprintf("%s %s of %s", op.F, who, op.Input)
	}
}

// act is a noun for an operation, with what it takes to find it in the history.
func act(op histories.Operation) string {
	value, swap := expected(op)
	switch {
	case op.Refused:
		return fmt.Sprintf("the refused %s that found %s (%s)", op.F, what(op.Output), where(op))
	case op.F == "read" && op.Output.IsNil():
		return fmt.Sprintf("the read of nothing (%s)", where(op))
	case op.F == "read":
		return fmt.Sprintf("the read of %s (%s)", brief(op.Output), where(op))
	case op.Type == histories.OK && !op.Output.Equal(op.Input):
		return fmt.Sprintf("the %s of %s that returned %s (%s)", op.F, brief(op.Input), brief(op.Output), where(op))
	case swap:
		replacement, _ := produced(op)
		return fmt.Sprintf("the compare-and-swap from %d to %d (%s)", value, replacement, where(op))
	case op.Input.IsNil():
		return fmt.Sprintf("the %s (%s)", op.F, where(op))
	default:
		return fmt.Sprintf("the %s of %s (%s)", op.F, brief(op.Input), where(op))
	}
}

// what is what a refused compare-and-swap found.
func what(found histories.Value) string {
	if found.IsNil() {
		return "nothing"
	}
	if _, unsaid := found.Ints(); unsaid {
		return "something else"
	}
	return found.String()
}

// brief writes a value, and of a long list its ends.
func brief(v histories.Value) string {
	const shown = 3 // at either end
	list, _ := v.Ints()
	if len(list) <= 3*shown {
		return v.String()
	}
	first, last := histories.Ints(list[:shown]...).String(), histories.Ints(list[len(list)-shown:]...).String()
	return fmt.Sprintf("%d elements, %s … %s", len(list), strings.TrimSuffix(first, "]"), strings.TrimPrefix(last, "["))
}

// where says who performed an operation, on which node, from when to when.
func where(op histories.Operation) string {
	text := fmt.Sprintf("process %d on %s, %s", op.Process, op.Node, lasted(op))
	if op.Type == histories.Info {
		text += ", outcome unknown"
	}
	return text
}

// lasted says from when to when an operation was under way.
func lasted(op histories.Operation) string {
	if op.Return == histories.Forever {
		return "from " + checkers.Clock(op.Call)
	}
	return fmt.Sprintf("%.3f–%s", op.Call.Seconds(), checkers.Clock(op.Return))
}

// produced returns the value that an operation writes if it happens.
func produced(op histories.Operation) (int64, bool) {
	switch op.F {
	case "write":
		return op.Input.Int()
	case "cas":
		if pair, ok := op.Input.Ints(); ok && len(pair) == 2 && !op.Refused {
			return pair[1], true
		}
	}
	return 0, false
}

// expected returns the value that a compare-and-swap found if it happened.
func expected(op histories.Operation) (int64, bool) {
	if pair, ok := op.Input.Ints(); ok && op.F == "cas" && len(pair) == 2 && !op.Refused {
		return pair[0], true
	}
	return 0, false
}

// looks reports whether an operation only looked at what is there, as a read does, and a
// compare-and-swap that was refused.
func looks(op histories.Operation) bool {
	return op.F == "read" && op.Type == histories.OK || op.Refused
}

// found returns the value that an operation which happened found in the register. A look
// that found nothing there is not ok.
func found(op histories.Operation) (int64, bool) {
	if op.F == "read" || op.Refused {
		return op.Output.Int()
	}
	return expected(op)
}
