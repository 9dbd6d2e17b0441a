package kv

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Op is what a command does.
type Op uint8

const (
	// Put sets a key.
	Put Op = 1
	// CompareAndSwap sets a key that holds the expected value.
	CompareAndSwap Op = 2
)

// Bounds on what a client sends.
const (
	MaxKeyBytes     = 512
	MaxSessionBytes = 64
)

// Command is one change to the store. Session and Sequence make it apply once however
// often it is proposed; with an empty Session each proposal applies.
type Command struct {
	Op       Op
	Key      string
	Value    int64
	Expected int64 // CompareAndSwap only
	Session  string
	Sequence uint64
}

// Validate says what is wrong with a command that a client sent.
func (c Command) Validate() error {
	switch {
	case c.Op != Put && c.Op != CompareAndSwap:
		return fmt.Errorf("operation %d: want put or compare-and-swap", c.Op)
	case c.Key == "" || len(c.Key) > MaxKeyBytes:
		return fmt.Errorf("key of %d bytes: want 1 to %d", len(c.Key), MaxKeyBytes)
	case len(c.Session) > MaxSessionBytes:
		return fmt.Errorf("session of %d bytes: want at most %d", len(c.Session), MaxSessionBytes)
	case c.Session == "" && c.Sequence != 0:
		return errors.New("a sequence without a session")
	case c.Session != "" && c.Sequence == 0:
		return errors.New("a session without a sequence: want 1 or more")
	}
	return nil
}

const codecVersion = 1

// Encode returns the entry data of a command:
//
//	version 1 | op 1 | key | value | expected | session | sequence
//
// where a string is its length and its bytes, and all numbers are varints.
func (c Command) Encode() []byte {
	b := make([]byte, 0, 2+len(c.Key)+len(c.Session)+5*binary.MaxVarintLen64)
	b = append(b, codecVersion, byte(c.Op))
	b = appendString(b, c.Key)
	b = binary.AppendVarint(b, c.Value)
	b = binary.AppendVarint(b, c.Expected)
	b = appendString(b, c.Session)
	return binary.AppendUvarint(b, c.Sequence)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Decode is the inverse of Encode. It accepts valid commands only.
func Decode(data []byte) (Command, error) {
	if len(data) < 2 {
		return Command{}, fmt.Errorf("decode command: %d bytes are too few", len(data))
	}
	if data[0] != codecVersion {
		return Command{}, fmt.Errorf("decode command: version %d; this program reads version %d", data[0], codecVersion)
	}
	d := decoder{rest: data[2:]}
	c := Command{Op: Op(data[1])}
	c.Key = d.string(MaxKeyBytes)
	c.Value = d.varint()
	c.Expected = d.varint()
	c.Session = d.string(MaxSessionBytes)
	c.Sequence = d.uvarint()
	if d.failed || len(d.rest) != 0 {
		return Command{}, fmt.Errorf("decode command: malformed at byte %d of %d", len(data)-len(d.rest), len(data))
	}
	if err := c.Validate(); err != nil {
		return Command{}, fmt.Errorf("decode command: %w", err)
	}
	return c, nil
}

// decoder reads fields until one is malformed; then it yields zeros.
type decoder struct {
	rest   []byte
	failed bool
}

func (d *decoder) advance(n int) {
	if n <= 0 {
		d.failed, n = true, 0
	}
	d.rest = d.rest[n:]
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	d.advance(n)
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	d.advance(n)
	return v
}

func (d *decoder) string(most uint64) string {
	length := d.uvarint()
	if d.failed || length > most || length > uint64(len(d.rest)) {
		d.failed = true
		return ""
	}
	s := string(d.rest[:length])
	d.rest = d.rest[length:]
	return s
}
