package histories

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// Value is what an operation carries or returns: nothing, one integer, or a list of
// integers. The zero Value is nothing, written null: a register never written, the
// argument of a read. A compare-and-swap carries the list [old, new].
type Value struct {
	kind valueKind
	n    int64
	list []int64
}

type valueKind uint8

const (
	nothing valueKind = iota
	integer
	integers
)

// Nil is the value that is nothing.
var Nil = Value{}

// Int makes a Value of one integer.
func Int(n int64) Value { return Value{kind: integer, n: n} }

// Ints makes a Value of a list. It keeps the slice: the caller must not change it.
func Ints(list ...int64) Value { return Value{kind: integers, list: list} }

// IsNil reports whether v is nothing.
func (v Value) IsNil() bool { return v.kind == nothing }

// Int returns the integer, and whether v is one.
func (v Value) Int() (int64, bool) { return v.n, v.kind == integer }

// Ints returns the list, and whether v is one. The caller must not change it.
func (v Value) Ints() ([]int64, bool) { return v.list, v.kind == integers }

// Equal reports whether v and w are the same value.
func (v Value) Equal(w Value) bool {
	return v.kind == w.kind && v.n == w.n && slices.Equal(v.list, w.list)
}

// String returns v as it stands in a history file: null, 17 or [17,18].
func (v Value) String() string { return string(v.appendJSON(nil)) }

// MarshalJSON writes v as it stands in a history file.
func (v Value) MarshalJSON() ([]byte, error) { return v.appendJSON(nil), nil }

// UnmarshalJSON is the inverse of MarshalJSON.
func (v *Value) UnmarshalJSON(data []byte) error {
	var list []int64
	var n int64
	switch {
	case string(data) == "null":
		*v = Nil
	case len(data) > 0 && data[0] == '[':
		if err := json.Unmarshal(data, &list); err != nil {
			return fmt.Errorf("value %s: want null, an integer or a list of integers: %w", data, err)
		}
		*v = Ints(list...)
	default:
		if err := json.Unmarshal(data, &n); err != nil {
			return fmt.Errorf("value %s: want null, an integer or a list of integers: %w", data, err)
		}
		*v = Int(n)
	}
	return nil
}

func (v Value) appendJSON(b []byte) []byte {
	switch v.kind {
	case integer:
		return strconv.AppendInt(b, v.n, 10)
	case integers:
		b = append(b, '[')
		for i, n := range v.list {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, n, 10)
		}
		return append(b, ']')
	default:
		return append(b, "null"...)
	}
}
