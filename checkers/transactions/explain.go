package transactions

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// step is an edge between transactions, auxiliary nodes left out.
type step struct {
	from, to int32 // transactions
	kind     kind
	key      int32
	why      int32
}

// stepsOf returns the steps of a cycle of edges that begins at a transaction.
func (c *check) stepsOf(g *csr, cycle []int32) []step {
	var steps []step
	for _, at := range cycle {
		e := &c.edges[g.edge[at]]
		if int(e.from) < len(c.txns) {
			steps = append(steps, step{from: e.from, kind: e.kind, key: e.key, why: none})
		}
		last := &steps[len(steps)-1]
		last.to = e.to
		if e.why != none {
			last.why = e.why
		}
	}
	return steps
}

func (c *check) explainCycle(k Kind, steps []step) Anomaly {
	a := Anomaly{}
	// The step with what should not be, an edge rw if there is one, reads best as the first.
	if i := slices.IndexFunc(steps, func(s step) bool { return s.kind == rw }); i > 0 {
		steps = slices.Concat(steps[i:], steps[:i])
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s: none of %d transactions can come first.", k, len(steps))
	same := true
	for _, s := range steps {
		one := Step{From: int(s.from), To: int(s.to), Kind: s.kind.String(), Text: c.explainStep(s)}
		if s.key != none {
			one.Key = c.keys[s.key].name
		}
		same = same && s.key != none && s.key == steps[0].key
		a.Txns = append(a.Txns, int(s.from))
		a.Cycle = append(a.Cycle, one)
		text.WriteString("\n  ")
		text.WriteString(one.Text)
	}
	if same {
		a.Key = a.Cycle[0].Key
	}
	a.Text = text.String()
	return a
}

// explainStep says in words why one transaction must come before the other.
func (c *check) explainStep(s step) string {
	from, to := c.name(s.from), c.name(s.to)
	so := fmt.Sprintf("so %s must come before %s", from, to)
	switch {
	case s.kind == process:
		return fmt.Sprintf("process %d ran %s before %s, %s", c.txns[s.from].Process, from, to, so)
	case s.kind == realtime:
		return fmt.Sprintf("%s returned before %s was called, %s", from, to, so)
	case s.why != none:
		return c.explainSuccession(s) + ", " + so
	case c.keys[s.key].list:
		return c.explainListStep(s) + ", " + so
	case s.kind == wr:
		return fmt.Sprintf("%s wrote what %s %s, %s", from, to, c.read(c.readFrom(s)), so)
	}
	at := c.firstRead(s.from, s.key)
	if also := c.firstRead(s.to, s.key); also != none && !c.micro(at).Nil {
		return fmt.Sprintf("%s %s; %s read that too, and then wrote %s = %d, %s", from, c.read(at), to, c.keys[s.key].name, c.wrote(s.to, s.key), so)
	}
	return fmt.Sprintf("%s %s, and %s wrote %s = %d, %s", from, c.read(at), to, c.keys[s.key].name, c.wrote(s.to, s.key), so)
}

func (c *check) explainSuccession(s step) string {
	why := c.reasons[s.why]
	did := "wrote"
	if s.kind == rw {
		did = "read"
	}
	return fmt.Sprintf("%s %s an older value of %s than the %d that %s wrote: %s saw it, or a later one, and had returned before %s was called, which saw %d",
		c.name(s.from), did, c.keys[s.key].name, c.wrote(s.to, s.key), c.name(s.to), c.name(why.earlier), c.name(why.later), c.wrote(s.to, s.key))
}

func (c *check) explainListStep(s step) string {
	from, to, key := c.name(s.from), c.name(s.to), c.keys[s.key].name
	switch s.kind {
	case wr:
		at := c.readFrom(s)
		list := c.list(at)
		return fmt.Sprintf("%s appended %d to %s, and %s %s", from, list[len(list)-1], key, to, c.readAround(at, len(list)-1))
	case rw:
		at, missing := c.readWithout(s)
		return fmt.Sprintf("%s %s, which does not have the %d that %s appended", from, c.readAround(at, len(c.micro(at).List)), missing, to)
	}
	before, after := c.neighbours(s)
	if c.writes[after].at == none {
		return fmt.Sprintf("%s appended %d to %s, the last that any read shows, and %s appended %d", from, c.value(before), key, to, c.value(after))
	}
	longest := c.lists[s.key].longest
	return fmt.Sprintf("%s appended %d to %s right before the %d of %s, as %s %s", from, c.value(before), key, c.value(after), to,
		c.name(c.of[longest]), c.readAround(longest, int(c.writes[after].at)))
}

// readFrom returns the read of an edge wr: the one that shows last what From wrote.
func (c *check) readFrom(s step) int32 {
	for at := c.first[s.to]; at < c.first[s.to+1]; at++ {
		m := c.micro(at)
		if m.F != "r" || c.key[at] != s.key {
			continue
		}
		value := m.Value
		if c.keys[s.key].list {
			list := c.list(at)
			if len(list) == 0 {
				continue
			}
			value = list[len(list)-1]
		} else if m.Nil || c.own[at] != none {
			continue
		}
		if w := c.writer(s.key, value); w != none && c.writes[w].txn == s.from {
			return at
		}
	}
	return none
}

// readWithout returns the read of an edge rw of a list, and an element of To that it lacks.
func (c *check) readWithout(s step) (at int32, missing int64) {
	for at := c.first[s.from]; at < c.first[s.from+1]; at++ {
		if c.micro(at).F != "r" || c.key[at] != s.key || c.lists[s.key].tainted[at] {
			continue
		}
		for w := c.first[s.to]; w < c.first[s.to+1]; w++ {
			if m := c.micro(w); m.F == "append" && c.key[w] == s.key && !slices.Contains(c.micro(at).List, m.Value) {
				return at, m.Value
			}
		}
	}
	return none, 0
}

// neighbours returns the writes of an edge ww of a list: elements next to each other in the
// order, or the last of it and one that nobody read.
func (c *check) neighbours(s step) (before, after int32) {
	order := &c.lists[s.key]
	list := c.list(order.longest)[:order.agreed]
	for at := c.first[s.to]; at < c.first[s.to+1]; at++ {
		m := c.micro(at)
		if m.F != "append" || c.key[at] != s.key {
			continue
		}
		after = c.writer(s.key, m.Value)
		place := c.writes[after].at
		if place == none && order.whole {
			place = int32(order.agreed)
		}
		if place > 0 {
			if before = c.writer(s.key, list[place-1]); c.writes[before].txn == s.from {
				return before, after
			}
		}
	}
	return none, none
}

func (c *check) firstRead(t, k int32) int32 {
	for at := c.first[t]; at < c.first[t+1]; at++ {
		if c.key[at] == k && c.micro(at).F == "r" && c.own[at] == none {
			return at
		}
	}
	return none
}

// wrote returns what a transaction left in a register.
func (c *check) wrote(t, k int32) (value int64) {
	for at := c.first[t]; at < c.first[t+1]; at++ {
		if m := c.micro(at); c.key[at] == k && m.F != "r" {
			value = m.Value
		}
	}
	return value
}

func (c *check) keyOf(at int32) string { return c.keys[c.key[at]].name }

// read says what a micro-operation read: read x = 3.
func (c *check) read(at int32) string { return c.readAround(at, len(c.micro(at).List)) }

// readOf is read, and of a long list that part with an element.
func (c *check) readOf(at int32, value int64) string {
	return c.readAround(at, max(0, slices.Index(c.micro(at).List, value)))
}

// shownMost is how many elements of a list texts show.
const shownMost = 8

// readAround is read, and of a long list that part around a position.
func (c *check) readAround(at int32, position int) string {
	m, key := c.micro(at), c.keyOf(at)
	if !c.keys[c.key[at]].list {
		if m.Nil {
			return fmt.Sprintf("read %s as never written", key)
		}
		return fmt.Sprintf("read %s = %d", key, m.Value)
	}
	list := m.List
	from := max(0, min(position-shownMost/2, len(list)-shownMost))
	to := min(len(list), from+shownMost)
	var words []string
	if from > 0 {
		words = append(words, "…")
	}
	for _, value := range list[from:to] {
		words = append(words, strconv.FormatInt(value, 10))
	}
	if to < len(list) {
		words = append(words, "…")
	}
	text := fmt.Sprintf("read %s = [%s]", key, strings.Join(words, " "))
	if to-from < len(list) {
		text += fmt.Sprintf(" (%d elements)", len(list))
	}
	return text
}

func (c *check) explainLostUpdate(k int32, of []reading) Anomaly {
	a := Anomaly{Key: c.keys[k].name}
	var words []string
	for _, r := range of[:min(len(of), shownMost)] {
		a.Txns = append(a.Txns, int(r.txn))
		words = append(words, fmt.Sprintf("%s wrote %d", c.name(r.txn), c.wrote(r.txn, k)))
	}
	a.Text = fmt.Sprintf("%d transactions %s, and all of them wrote it: %s", len(of), c.read(c.updates(k)[of[0].txn]), strings.Join(words, ", "))
	return a
}
