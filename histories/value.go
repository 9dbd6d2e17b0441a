package histories

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// Value is what an operation carries or returns: nothing, one integer, a list of integers,
// or a list of micro-operations. The zero Value is nothing, written null: a register never
// written, the argument of a read. A compare-and-swap carries the list [old, new], a
// transaction its micro-operations.
type Value struct {
	kind   valueKind
	n      int64
	list   []int64
	micros *[]Micro // apart, since most values are none and a history holds many
}

type valueKind uint8

const (
	nothing valueKind = iota
	integer
	integers
	micros
)

// Nil is the value that is nothing.
var Nil = Value{}

// Int makes a Value of one integer.
func Int(n int64) Value { return Value{kind: integer, n: n} }

// Ints makes a Value of a list. It keeps the slice: the caller must not change it.
func Ints(list ...int64) Value { return Value{kind: integers, list: list} }

// Micros makes a Value of the micro-operations of a transaction, of a range or of a watch.
// It keeps the slice. Of none it makes the empty list, since an empty list has no kind.
func Micros(list ...Micro) Value {
	if len(list) == 0 {
		return Ints()
	}
	return Value{kind: micros, micros: &list}
}

// IsNil reports whether v is nothing.
func (v Value) IsNil() bool { return v.kind == nothing }

// Int returns the integer, and whether v is one.
func (v Value) Int() (int64, bool) { return v.n, v.kind == integer }

// Ints returns the list, and whether v is one. The caller must not change it.
func (v Value) Ints() ([]int64, bool) { return v.list, v.kind == integers }

// Elements returns what a list or a set holds, and whether v is that; nothing stands for no
// element. The caller must not change it.
func (v Value) Elements() ([]int64, bool) { return v.list, v.kind == integers || v.kind == nothing }

// Micros returns the micro-operations, and whether v is a list of them; the empty list is.
// The caller must not change it.
func (v Value) Micros() ([]Micro, bool) {
	if v.kind == micros {
		return *v.micros, true
	}
	return nil, v.kind == integers && len(v.list) == 0
}

// Equal reports whether v and w are the same value.
func (v Value) Equal(w Value) bool {
	if v.kind != w.kind || v.n != w.n || !slices.Equal(v.list, w.list) {
		return false
	}
	return v.kind != micros || slices.EqualFunc(*v.micros, *w.micros, Micro.Equal)
}

// String returns v as it stands in a history file: null, 17, [17,18] or [["w","k1",17]].
func (v Value) String() string { return string(v.appendJSON(nil)) }

// MarshalJSON writes v as it stands in a history file.
func (v Value) MarshalJSON() ([]byte, error) { return v.appendJSON(nil), nil }

// UnmarshalJSON is the inverse of MarshalJSON.
func (v *Value) UnmarshalJSON(data []byte) error {
	var err error
	switch {
	case string(data) == "null":
		*v = Nil
	case len(data) > 1 && data[0] == '[' && bytes.HasPrefix(bytes.TrimLeft(data[1:], " \t\r\n"), []byte("[")):
		var list []Micro
		err = json.Unmarshal(data, &list)
		*v = Micros(list...)
	case len(data) > 0 && data[0] == '[':
		var list []int64
		err = json.Unmarshal(data, &list)
		*v = Ints(list...)
	default:
		var n int64
		err = json.Unmarshal(data, &n)
		*v = Int(n)
	}
	if err != nil {
		return fmt.Errorf("value %s: want null, an integer, a list of integers or a list of micro-operations: %w", data, err)
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
	case micros:
		b = append(b, '[')
		for i, m := range *v.micros {
			if i > 0 {
				b = append(b, ',')
			}
			b = m.appendJSON(b)
		}
		return append(b, ']')
	default:
		return append(b, "null"...)
	}
}

// Micro is one step of a transaction (Jepsen calls it a micro-operation), one entry of a
// range, or one event of a watch. In a history file it is the list [f, key, value], with the
// revision behind it where there is one.
type Micro struct {
	F        string // "r" reads, "w" writes, "append" appends to a list; others as the workload says
	Key      string
	Value    Value // an integer, a list of integers, or nothing: what is written, or what was read
	Revision int64 // of the entry or event, as the system gave it; 0: none
}

// Equal reports whether m and o are the same step.
func (m Micro) Equal(o Micro) bool {
	return m.F == o.F && m.Key == o.Key && m.Revision == o.Revision && m.Value.Equal(o.Value)
}

// MarshalJSON writes m as it stands in a history file.
func (m Micro) MarshalJSON() ([]byte, error) { return m.appendJSON(nil), nil }

// UnmarshalJSON is the inverse of MarshalJSON.
func (m *Micro) UnmarshalJSON(data []byte) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(data, &parts); err != nil {
		return err
	}
	if len(parts) != 3 && len(parts) != 4 {
		return fmt.Errorf("micro-operation %s: want [f, key, value] or [f, key, value, revision]", data)
	}
	*m = Micro{}
	into := []any{&m.F, &m.Key, &m.Value, &m.Revision}
	for i, part := range parts {
		if err := json.Unmarshal(part, into[i]); err != nil {
			return fmt.Errorf("micro-operation %s: %w", data, err)
		}
	}
	if m.Value.kind == micros {
		return fmt.Errorf("micro-operation %s: its value holds micro-operations itself", data)
	}
	return nil
}

func (m Micro) appendJSON(b []byte) []byte {
	b = appendString(append(b, '['), m.F)
	b = appendString(append(b, ','), m.Key)
	b = m.Value.appendJSON(append(b, ','))
	if m.Revision != 0 {
		b = strconv.AppendInt(append(b, ','), m.Revision, 10)
	}
	return append(b, ']')
}
