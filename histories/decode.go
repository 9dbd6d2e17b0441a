package histories

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// decoder reads the lines of one history. It keeps one copy of each key, node and
// function name, so that a million events do not hold a million of them.
type decoder struct{ known map[string]string }

func newDecoder() *decoder { return &decoder{known: make(map[string]string)} }

// event reads one line: the form that [Event.AppendJSON] writes by hand, any other JSON
// of the same meaning through encoding/json.
func (d *decoder) event(line []byte, e *Event) error {
	if d.canonical(line, e) {
		return nil
	}
	return decodeEvent(line, e)
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (e *Event) UnmarshalJSON(data []byte) error { return decodeEvent(data, e) }

func decodeEvent(line []byte, e *Event) error {
	var raw struct {
		Index    *int
		Time     *time.Duration
		Process  *process
		Type     *Type
		F        *string
		Key      string
		Value    Value
		Revision int64
		Stale    bool
		Refused  bool
		Node     string
		Error    string
		Attempts int
		Final    bool
		Fault    *Fault
		Status   *Status
	}
	if err := json.Unmarshal(line, &raw); err != nil {
		return err
	}
	for name, missing := range map[string]bool{
		"index": raw.Index == nil, "time": raw.Time == nil, "process": raw.Process == nil, "type": raw.Type == nil, "f": raw.F == nil,
	} {
		if missing {
			return fmt.Errorf("an event without %q", name)
		}
	}
	*e = Event{
		Index: *raw.Index, Time: *raw.Time, Process: int(*raw.Process), Type: *raw.Type, F: *raw.F,
		Key: raw.Key, Value: raw.Value, Revision: raw.Revision, Stale: raw.Stale, Refused: raw.Refused, Node: raw.Node, Error: raw.Error, Attempts: raw.Attempts,
		Final: raw.Final, Fault: raw.Fault, Status: raw.Status,
	}
	return nil
}

// process is a process number in JSON: a number from 0, or the words for the others.
type process int

// MarshalJSON writes the number or the word.
func (p process) MarshalJSON() ([]byte, error) { return appendProcess(nil, int(p)), nil }

// UnmarshalJSON is the inverse of MarshalJSON.
func (p *process) UnmarshalJSON(data []byte) error {
	switch string(data) {
	case `"nemesis"`:
		*p = Nemesis
	case `"observer"`:
		*p = Observer
	default:
		var n int
		if err := json.Unmarshal(data, &n); err != nil || n < 0 {
			return fmt.Errorf(`process %s: want a number from 0, "nemesis" or "observer"`, data)
		}
		*p = process(n)
	}
	return nil
}

var errNoHistory = errors.New(`not a Capsize history: its first line is not {"capsize":"history","version":1,…}`)

func decodeHeader(line []byte) (Header, error) {
	var raw struct {
		Capsize string
		Version int
		Run     string
		Started time.Time
	}
	if err := json.Unmarshal(line, &raw); err != nil {
		return Header{}, fmt.Errorf("%w: %w", errNoHistory, err)
	}
	if raw.Capsize != "history" {
		return Header{}, errNoHistory
	}
	if raw.Version != FormatVersion {
		return Header{}, fmt.Errorf("history format version %d: this Capsize reads version %d", raw.Version, FormatVersion)
	}
	return Header{Run: raw.Run, Started: raw.Started}, nil
}

// canonical reads a line in exactly the form that AppendJSON writes: the fields in that
// order, no spaces, no escapes in strings. It reports whether the line was that; then e
// is what decodeEvent would have made of it.
func (d *decoder) canonical(line []byte, e *Event) bool {
	c := cursor{rest: line, known: d.known}
	*e = Event{}
	c.must(`{"index":`)
	e.Index = int(c.integer())
	c.must(`,"time":`)
	e.Time = time.Duration(c.integer())
	c.must(`,"process":`)
	switch {
	case c.skip(`"nemesis"`):
		e.Process = Nemesis
	case c.skip(`"observer"`):
		e.Process = Observer
	default:
		e.Process = int(c.integer())
		c.bad = c.bad || e.Process < 0
	}
	c.must(`,"type":`)
	kind, err := ParseType(c.text())
	c.bad = c.bad || err != nil
	e.Type = kind
	c.must(`,"f":`)
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
	e.Stale = c.skip(`,"stale":true`)
	e.Refused = c.skip(`,"refused":true`)
	if c.skip(`,"node":`) {
		e.Node = c.text()
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
	rest  []byte
	known map[string]string
	bad   bool
}

func (c *cursor) skip(s string) bool {
	if len(c.rest) < len(s) || string(c.rest[:len(s)]) != s {
		return false
	}
	c.rest = c.rest[len(s):]
	return true
}

func (c *cursor) must(s string) { c.bad = !c.skip(s) || c.bad }

// integer reads a number of at most 18 digits, which no int64 overflows.
func (c *cursor) integer() int64 {
	negative := c.skip("-")
	n, i := int64(0), 0
	for i < len(c.rest) && c.rest[i]-'0' <= 9 {
		n = 10*n + int64(c.rest[i]-'0')
		if i++; i > 18 {
			c.bad = true
			return 0
		}
	}
	// JSON knows no number without a digit or with a leading zero.
	if i == 0 || i > 1 && c.rest[0] == '0' {
		c.bad = true
	}
	c.rest = c.rest[i:]
	if negative {
		return -n
	}
	return n
}

// text reads a string of printable ASCII without escapes.
func (c *cursor) text() string {
	c.must(`"`)
	end := bytes.IndexByte(c.rest, '"')
	if c.bad || end < 0 {
		c.bad = true
		return ""
	}
	raw := c.rest[:end]
	for _, b := range raw {
		if b < ' ' || b > '~' || b == '\\' {
			c.bad = true
			return ""
		}
	}
	c.rest = c.rest[end+1:]
	if s, ok := c.known[string(raw)]; ok {
		return s
	}
	s := string(raw)
	if len(c.known) < knownMost {
		c.known[s] = s
	}
	return s
}

// knownMost bounds the strings that a decoder keeps: error texts can all differ.
const knownMost = 1 << 16

func (c *cursor) value() Value {
	if c.skip("[[") {
		return c.micros()
	}
	return c.plain()
}

// plain reads a value that is no list of micro-operations.
func (c *cursor) plain() Value {
	if c.skip("null") {
		return Nil
	}
	if !c.skip("[") {
		return Int(c.integer())
	}
	if c.skip("]") {
		return Ints()
	}
	list := []int64{c.integer()}
	for !c.bad && c.skip(",") {
		list = append(list, c.integer())
	}
	c.must("]")
	return Ints(list...)
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
