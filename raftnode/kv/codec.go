package kv

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const codecVersion = 2

// Encode returns the entry data of a command:
//
//	version 2 | op | set of fields | the fields of the set, in the order of its bits
//
// where a string is its length and its bytes, a list its length and its elements, and
// all numbers are varints. A field that is zero is not in the set. So each command has
// one encoding, and Decode takes no other.
func (c Command) Encode() []byte {
	b := make([]byte, 0, c.size())
	have := c.fields()
	step := c.action()
	b = append(b, codecVersion)
	b = step.append(b, have)
	if have&hasExpected != 0 {
		b = c.Expected.append(b)
	}
	if have&hasOwner != 0 {
		b = appendString(b, c.Owner)
	}
	if have&hasToken != 0 {
		b = binary.AppendUvarint(b, c.Token)
	}
	if have&hasFence != 0 {
		b = appendString(b, c.Fence.Lock)
		b = binary.AppendUvarint(b, c.Fence.Token)
	}
	if have&hasCompares != 0 {
		b = binary.AppendUvarint(b, uint64(len(c.Compares)))
		for i := range c.Compares {
			b = appendString(b, c.Compares[i].Key)
			b = c.Compares[i].append(b)
		}
	}
	if have&hasThen != 0 {
		b = appendActions(b, c.Then)
	}
	if have&hasElse != 0 {
		b = appendActions(b, c.Else)
	}
	if have&hasSession != 0 {
		b = appendString(b, c.Session)
	}
	if have&hasSequence != 0 {
		b = binary.AppendUvarint(b, c.Sequence)
	}
	return b
}

func (a *Action) append(b []byte, have fields) []byte {
	b = append(b, byte(a.Op))
	b = binary.AppendUvarint(b, uint64(have))
	if have&hasKey != 0 {
		b = appendString(b, a.Key)
	}
	if have&hasEnd != 0 {
		b = appendString(b, a.End)
	}
	if have&hasValue != 0 {
		b = appendString(b, a.Value)
	}
	if have&hasLimit != 0 {
		b = binary.AppendUvarint(b, uint64(a.Limit))
	}
	return b
}

func appendActions(b []byte, actions []Action) []byte {
	b = binary.AppendUvarint(b, uint64(len(actions)))
	for i := range actions {
		b = actions[i].append(b, actions[i].fields())
	}
	return b
}

func (e *Expectation) append(b []byte) []byte {
	b = append(b, byte(e.Kind))
	switch e.Kind {
	case KindValue:
		b = appendString(b, e.Value)
	case KindVersion, KindModRevision:
		b = binary.AppendUvarint(b, e.Number)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Decode is the inverse of Encode. It accepts valid commands only.
func Decode(data []byte) (Command, error) {
	var c Command
	if err := c.decode(string(data)); err != nil {
		return Command{}, fmt.Errorf("decode command: %w", err)
	}
	return c, nil
}

// decode fills in a zero command, whose strings then share the memory of data.
func (c *Command) decode(data string) error {
	if len(data) > MaxCommandBytes {
		return fmt.Errorf("%d bytes: want at most %d", len(data), MaxCommandBytes)
	}
	d := decoder{rest: data}
	if version := d.byte(); version != codecVersion {
		return fmt.Errorf("version %d of %d bytes; this program reads version %d", version, len(data), codecVersion)
	}
	var step Action
	have := d.action(&step)
	c.Op, c.Key, c.End, c.Value, c.Limit = step.Op, step.Key, step.End, step.Value, step.Limit
	if have&hasExpected != 0 {
		c.Expected = d.expectation()
	}
	if have&hasOwner != 0 {
		c.Owner = d.string(MaxKeyBytes)
	}
	if have&hasToken != 0 {
		c.Token = d.uvarint()
	}
	if have&hasFence != 0 {
		c.Fence = Fence{Lock: d.string(MaxKeyBytes), Token: d.uvarint()}
	}
	if have&hasCompares != 0 {
		c.Compares = make([]Compare, d.count(MaxCompares, 2))
		for i := range c.Compares {
			c.Compares[i] = Compare{Key: d.string(MaxKeyBytes), Expectation: d.expectation()}
		}
	}
	if have&hasThen != 0 {
		c.Then = d.actions()
	}
	if have&hasElse != 0 {
		c.Else = d.actions()
	}
	if have&hasSession != 0 {
		c.Session = d.string(MaxSessionBytes)
	}
	if have&hasSequence != 0 {
		c.Sequence = d.uvarint()
	}
	if d.failed || d.rest != "" {
		return fmt.Errorf("malformed at byte %d of %d", len(data)-len(d.rest), len(data))
	}
	if have != c.fields() {
		return errors.New("a field is said to be there and is zero or unknown")
	}
	return c.Validate()
}

// decoder reads fields until one is malformed; then it yields zeros.
type decoder struct {
	rest   string
	failed bool
}

func (d *decoder) fail() {
	d.failed = true
	d.rest = ""
}

func (d *decoder) byte() byte {
	if d.rest == "" {
		d.fail()
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

// uvarint refuses a number that is longer than it needs to be: there must be one
// encoding of each thing.
func (d *decoder) uvarint() uint64 {
	var v uint64
	for i := range len(d.rest) {
		b := d.rest[i]
		if i == binary.MaxVarintLen64-1 && b > 1 || i > 0 && b == 0 {
			break
		}
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			d.rest = d.rest[i+1:]
			return v
		}
	}
	d.fail()
	return 0
}

func (d *decoder) string(most int) string {
	length := d.uvarint()
	if length > uint64(most) || length > uint64(len(d.rest)) {
		d.fail()
		return ""
	}
	s := d.rest[:length]
	d.rest = d.rest[length:]
	return s
}

// count reads the length of a list whose elements take least bytes each, or more: so what
// was read bounds what is allocated.
func (d *decoder) count(most, least int) int {
	n := d.uvarint()
	if n > uint64(most) || n > uint64(len(d.rest)/least) {
		d.fail()
		return 0
	}
	return int(n)
}

// action returns the set of fields that is said to be there. Whether each of them is one
// that exists and is not zero is seen when it is compared with what was read.
func (d *decoder) action(a *Action) fields {
	a.Op = Op(d.byte())
	have := fields(d.uvarint())
	if have&hasKey != 0 {
		a.Key = d.string(MaxKeyBytes)
	}
	if have&hasEnd != 0 {
		a.End = d.string(MaxKeyBytes)
	}
	if have&hasValue != 0 {
		a.Value = d.string(MaxValueBytes)
	}
	if have&hasLimit != 0 {
		a.Limit = int(min(d.uvarint(), MaxRange+1)) // what is too much stays so
	}
	return have
}

func (d *decoder) actions() []Action {
	actions := make([]Action, d.count(MaxActions, 2))
	for i := range actions {
		if have := d.action(&actions[i]); have != actions[i].fields() {
			d.fail()
		}
	}
	return actions
}

func (d *decoder) expectation() Expectation {
	e := Expectation{Kind: Kind(d.byte())}
	switch e.Kind {
	case KindValue:
		e.Value = d.string(MaxValueBytes)
	case KindVersion, KindModRevision:
		e.Number = d.uvarint()
	}
	return e
}
