// Package varint reads what encoding/binary's AppendUvarint wrote, field after field.
//
// A [Reader] remembers that something was malformed, so a decoder reads all its fields and
// asks once; a loop whose count was read too asks in each turn. After a malformed field
// every other one is zero. A Reader never copies, never panics and never reads past its
// input, whatever stands there.
package varint

import "encoding/binary"

// Reader reads varints, and bytes behind their length.
type Reader struct {
	rest []byte
	bad  bool
}

// NewReader returns a reader of b, which must not change meanwhile.
func NewReader(b []byte) *Reader { return &Reader{rest: b} }

// Next returns the next number.
func (r *Reader) Next() uint64 {
	if r.bad {
		return 0
	}
	v, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.bad = true
		return 0
	}
	r.rest = r.rest[size:]
	return v
}

// Bytes returns the bytes behind the next number, which is their length: at most most, or it
// is malformed. They alias the input.
func (r *Reader) Bytes(most int) []byte {
	length := r.Next()
	if r.bad || length > uint64(most) || length > uint64(len(r.rest)) {
		r.bad = true
		return nil
	}
	b := r.rest[:length:length]
	r.rest = r.rest[length:]
	return b
}

// Bad reports whether something was malformed.
func (r *Reader) Bad() bool { return r.bad }

// Rest returns what is not read yet. It aliases the input.
func (r *Reader) Rest() []byte { return r.rest }

// Complete reports whether everything was well formed, and read.
func (r *Reader) Complete() bool { return !r.bad && len(r.rest) == 0 }
