package histories

import (
	"math/bits"
	"time"
)

// canonical reads a line in exactly the form that AppendJSON writes: the fields in that
// order, no spaces, no escapes in strings. It reports whether the line was that; then e
// is what decodeEvent would have made of it.
func (d *decoder) canonical(line []byte, e *Event) bool {
	c := cursor{rest: line, decoder: d}
	*e = Event{}
	c.must(`{"index":`)
	e.Index = int(c.integer())
	c.must(`,"time":`)
	e.Time = time.Duration(c.integer())
	c.must(`,"process":`)
	c.process(e)
	c.must(`,"type":"`)
	c.kind(e)
	c.must(`","f":`)
	e.F = c.text()
	if c.skip(`,"key":`) {
		e.Key = c.text()
	}
	if c.skip(`,"value":`) {
		e.Value = c.value()
	}
	if c.skip(`,"revision":`) {
		e.Revision = c.integer()
	}
	if !c.skip(`,"node":`) { // nearly every event goes on with it
		e.Stale = c.skip(`,"stale":true`)
		e.Refused = c.skip(`,"refused":true`)
		if c.skip(`,"node":`) {
			e.Node = c.text()
		}
	} else {
		e.Node = c.text()
	}
	if c.skip(`}`) { // and nearly every one ends here
		return !c.bad && len(c.rest) == 0
	}
	if c.skip(`,"error":`) {
		e.Error = c.text()
	}
	if c.skip(`,"attempts":`) {
		e.Attempts = int(c.integer())
	}
	e.Final = c.skip(`,"final":true`)
	c.must(`}`)
	return !c.bad && len(c.rest) == 0
}

// cursor walks over one line. After the first surprise it is bad and stays so.
type cursor struct {
	rest    []byte
	decoder *decoder
	bad     bool
}

func (c *cursor) skip(s string) bool {
	if len(c.rest) < len(s) || string(c.rest[:len(s)]) != s {
		return false
	}
	c.rest = c.rest[len(s):]
	return true
}

func (c *cursor) must(s string) {
	if !c.skip(s) {
		c.bad = true
	}
}

func (c *cursor) process(e *Event) {
	if len(c.rest) > 0 && c.rest[0] != '"' {
		e.Process = int(c.integer())
		c.bad = c.bad || e.Process < 0
		return
	}
	switch {
	case c.skip(`"nemesis"`):
		e.Process = Nemesis
	case c.skip(`"observer"`):
		e.Process = Observer
	default:
		c.bad = true
	}
}

func (c *cursor) kind(e *Event) {
	switch {
	case c.skip("invoke"):
		e.Type = Invoke
	case c.skip("ok"):
		e.Type = OK
	case c.skip("fail"):
		e.Type = Fail
	case c.skip("info"):
		e.Type = Info
	default:
		c.bad = true
	}
}

// integer reads a number of at most 18 digits, which no int64 overflows.
func (c *cursor) integer() int64 {
	digits := c.rest
	negative := len(digits) > 0 && digits[0] == '-'
	if negative {
		digits = digits[1:]
	}
	n, i := int64(0), 0
	for i < len(digits) && digits[i]-'0' <= 9 {
		n = 10*n + int64(digits[i]-'0')
		i++
		if i > 18 {
			c.bad = true
			return 0
		}
	}
	// JSON knows no number without a digit or with a leading zero.
	if i == 0 || i > 1 && digits[0] == '0' {
		c.bad = true
	}
	c.rest = digits[i:]
	if negative {
		return -n
	}
	return n
}

// text reads a string of printable ASCII without escapes.
func (c *cursor) text() string {
	if len(c.rest) < 2 || c.rest[0] != '"' {
		c.bad = true
		return ""
	}
	raw, hash := c.rest[1:], uint32(0)
	for i, b := range raw {
		switch {
		case b == '"':
			c.rest = raw[i+1:]
			return c.decoder.texts.intern(raw[:i], hash)
		case b-' ' > '~'-' ' || b == '\\':
			c.bad = true
			return ""
		}
		hash = hash*31 + uint32(b)
	}
	c.bad = true
	return ""
}

func (c *cursor) value() Value {
	if c.skip("[[") {
		return c.micros()
	}
	return c.plain()
}

// plain reads a value that is no list of micro-operations.
func (c *cursor) plain() Value {
	switch {
	case c.skip("["):
		return c.integers()
	case c.skip("null"):
		return Nil
	default:
		return Int(c.integer())
	}
}

// listChunk is how many integers share an allocation. A value that is kept keeps those of
// its chunk, so it is not much.
const listChunk = 512

// integers reads the rest of a list of integers, from behind its bracket.
func (c *cursor) integers() Value {
	if c.skip("]") {
		return Ints()
	}
	list := c.decoder.lists
	start := len(list)
	for more := true; more; more = !c.bad && c.skip(",") {
		if len(list) == cap(list) {
			moved := make([]int64, len(list)-start, max(listChunk, 2*(len(list)-start)))
			copy(moved, list[start:])
			list, start = moved, 0
		}
		list = append(list, c.integer())
	}
	c.must("]")
	c.decoder.lists = list
	return Ints(list[start:len(list):len(list)]...)
}

// micros reads the rest of a list of micro-operations, from within the first.
func (c *cursor) micros() Value {
	var list []Micro
	for first := true; !c.bad && (first || c.skip(",[")); first = false {
		var m Micro
		m.F = c.text()
		c.must(",")
		m.Key = c.text()
		c.must(",")
		m.Value = c.plain()
		if c.skip(",") {
			m.Revision = c.integer()
		}
		c.must("]")
		list = append(list, m)
	}
	c.must("]")
	return Micros(list...)
}

// texts keeps one copy of each key, node and function name, so that a million events do not
// hold a million of them. What it keeps is bounded, as error texts can all differ.
type texts struct {
	recent [textsRecent]string // by hash; a look at it takes a fifth of one at the map
	all    map[string]string
}

const (
	textsRecent = 1 << 10
	textsMost   = 1 << 16 // in the map
)

// intern returns raw as a string. The hash is any function of its bytes.
func (t *texts) intern(raw []byte, hash uint32) string {
	// Multiplied by 2^32 over the golden ratio and cut from the top (Knuth, TAOCP 3, §6.4), so
	// that keys which differ in their last digits only fall on different places.
	slot := &t.recent[hash*0x9e3779b9>>(32-bits.Len(textsRecent-1))]
	if string(raw) == *slot {
		return *slot
	}
	s, known := t.all[string(raw)]
	if !known {
		s = string(raw)
		if t.all == nil {
			t.all = make(map[string]string)
		}
		if len(t.all) < textsMost {
			t.all[s] = s
		}
	}
	*slot = s
	return s
}
