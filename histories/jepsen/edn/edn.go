// Package edn reads and writes EDN, Clojure's notation of data (github.com/edn-format/edn), as
// far as Jepsen's histories need it, and forgives what Clojure prints beyond it: hexadecimal
// numbers, maps with a namespace (#:ns{…}), records, #object and #error.
//
// A [Reader] yields one form after the other, and steps into a list that holds them all, so
// that a long history need not be held as one value. Nesting and the length of tokens are
// bounded; a document that is wrong is an error that names its line, never a panic.
package edn

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Kind says what a Value is.
type Kind uint8

// What a Value can be, and which of its fields say it.
const (
	Nil     Kind = iota
	Bool         // Int is 0 or 1
	Int          // Int
	Number       // Text, as written: an integer beyond 64 bits, a fraction, or with a point, an exponent, M; also ##NaN and ##Inf
	Char         // Text, one character
	String       // Text
	Symbol       // Text
	Keyword      // Text, without the colon
	List         // Items
	Vector       // Items
	Set          // Items
	Map          // Items: key, value, key, value …
	Tagged       // Text is the tag without its #; Items holds the one value
)

var kindNames = [...]string{"nil", "boolean", "integer", "number", "character", "string", "symbol", "keyword", "list", "vector", "set", "map", "tagged value"}

// String returns the name of the kind.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "Kind(" + strconv.Itoa(int(k)) + ")"
}

// Value is one form. The zero Value is nil.
type Value struct {
	Kind  Kind
	Int   int64
	Text  string
	Items []Value
}

// Key makes a keyword.
func Key(name string) Value { return Value{Kind: Keyword, Text: name} }

// Text makes a string.
func Text(s string) Value { return Value{Kind: String, Text: s} }

// Integer makes an integer.
func Integer(n int64) Value { return Value{Kind: Int, Int: n} }

// Get returns the value of a keyword in a map, and whether it is there.
func (v Value) Get(keyword string) (Value, bool) {
	if v.Kind != Map {
		return Value{}, false
	}
	for i := 0; i+1 < len(v.Items); i += 2 {
		if k := &v.Items[i]; k.Kind == Keyword && k.Text == keyword {
			return v.Items[i+1], true
		}
	}
	return Value{}, false
}

// Sequence reports whether v is a list or a vector.
func (v Value) Sequence() bool { return v.Kind == List || v.Kind == Vector }

// String returns v in EDN.
func (v Value) String() string { return string(v.Append(nil)) }

// Append appends v in EDN. Nesting that a [Reader] would refuse is cut off.
func (v Value) Append(b []byte) []byte { return v.append(b, depthMost) }

func (v Value) append(b []byte, depth int) []byte {
	if depth == 0 {
		return append(b, "nil"...)
	}
	switch v.Kind {
	case Bool:
		return strconv.AppendBool(b, v.Int != 0)
	case Int:
		return strconv.AppendInt(b, v.Int, 10)
	case Number, Symbol:
		return append(b, v.Text...)
	case Char:
		return appendChar(b, v.Text)
	case String:
		return appendString(b, v.Text)
	case Keyword:
		return append(append(b, ':'), v.Text...)
	case List:
		return v.appendItems(b, "(", ")", depth)
	case Vector:
		return v.appendItems(b, "[", "]", depth)
	case Set:
		return v.appendItems(b, "#{", "}", depth)
	case Map:
		return v.appendItems(b, "{", "}", depth)
	case Tagged:
		return v.appendItems(append(append(b, '#'), v.Text...), " ", "", depth)
	default:
		return append(b, "nil"...)
	}
}

func (v Value) appendItems(b []byte, from, to string, depth int) []byte {
	b = append(b, from...)
	for i, item := range v.Items {
		switch {
		case i > 0 && v.Kind == Map && i%2 == 0:
			b = append(b, ',', ' ')
		case i > 0:
			b = append(b, ' ')
		}
		b = item.append(b, depth-1)
	}
	return append(b, to...)
}

// charNames are the characters that have a name behind the backslash.
var charNames = map[string]string{"newline": "\n", "return": "\r", "space": " ", "tab": "\t", "formfeed": "\f", "backspace": "\b"}

func appendChar(b []byte, text string) []byte {
	b = append(b, '\\')
	for name, char := range charNames {
		if text == char {
			return append(b, name...)
		}
	}
	if r, _ := utf8.DecodeRuneInString(text); r < ' ' {
		return appendUnicode(b[:len(b)-1], r)
	}
	return append(b, text...)
}

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r == '\r':
			b = append(b, '\\', 'r')
		case r == '\t':
			b = append(b, '\\', 't')
		case r < ' ':
			b = appendUnicode(b, r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

func appendUnicode(b []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	return append(b, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
}

// number reads a token that begins like a number.
func number(token string) (Value, bool) {
	digits := strings.TrimSuffix(token, "N")
	if hexadecimal := strings.TrimPrefix(strings.TrimLeft(token, "+-"), "0x"); len(hexadecimal) < len(token) && strings.Contains(token, "0x") {
		digits = token // N is no digit of it, nor an end
	} else if unsigned := strings.TrimLeft(digits, "+-"); len(unsigned) > 1 && unsigned[0] == '0' && decimal(unsigned) {
		return Value{}, false // EDN has no leading zeros, and Clojure would read them as octal
	}
	if n, err := strconv.ParseInt(digits, 0, 64); err == nil && !strings.Contains(digits, "_") {
		return Integer(n), true
	}
	unsigned := strings.TrimLeft(digits, "+-")
	if len(digits)-len(unsigned) > 1 {
		return Value{}, false
	}
	whole, part, fraction := strings.Cut(unsigned, "/")
	switch {
	case fraction && decimal(whole) && decimal(part), decimal(unsigned):
	case token == digits && floating(strings.TrimSuffix(unsigned, "M")):
	default:
		return Value{}, false
	}
	return Value{Kind: Number, Text: token}, true
}

func decimal(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

func floating(s string) bool {
	if strings.ContainsAny(s, "xXpP_iInN") {
		return false
	}
	f, err := strconv.ParseFloat(s, 64)
	return err == nil || math.IsInf(f, 0) // too great for 64 bits is a number still
}
