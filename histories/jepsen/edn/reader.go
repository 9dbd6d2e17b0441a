package edn

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// What a document may be, at most. Jepsen's own come nowhere near.
const (
	depthMost = 100      // forms within each other, tags and discards included
	tokenMost = 16 << 20 // bytes of a string, a name or a number
)

// Reader reads forms from a stream. It must not be used by several goroutines at once.
type Reader struct {
	in    *bufio.Reader
	line  int    // of the byte read last, from 1
	start int    // line where the form that Next returned begins
	token []byte // of the token that is being read
	ends  byte   // what closes the list that Enter stepped into; 0: none
	err   error
}

// NewReader returns a Reader of r. It reads ahead.
func NewReader(r io.Reader) *Reader {
	return &Reader{in: bufio.NewReaderSize(r, 1<<16), line: 1}
}

// Line is where the form that Next returned last begins, from 1.
func (r *Reader) Line() int { return r.start }

// Enter steps into the next form if that is a list or a vector, and reports whether it is:
// Next then returns what is in it, and io.EOF at its end. It is for the begin of a document.
func (r *Reader) Enter() (bool, error) {
	c, err := r.skipSpace()
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	if err != nil {
		return false, r.fail(err)
	}
	switch c {
	case '(':
		r.ends = ')'
	case '[':
		r.ends = ']'
	default:
		r.unread()
		return false, nil
	}
	return true, nil
}

// Next returns the next form, and io.EOF after the last one. Any other error names the line;
// it stays.
func (r *Reader) Next() (Value, error) {
	if r.err != nil {
		return Value{}, r.err
	}
	for {
		c, err := r.skipSpace()
		switch {
		case errors.Is(err, io.EOF) && r.ends != 0:
			return Value{}, r.fail(fmt.Errorf("the document ends before the %q of the list that it is", r.ends))
		case errors.Is(err, io.EOF):
			r.err = io.EOF
			return Value{}, io.EOF
		case err != nil:
			return Value{}, r.fail(err)
		case r.ends != 0 && c == r.ends:
			return Value{}, r.end()
		}
		r.start = r.line
		v, is, err := r.form(c, depthMost)
		if err != nil {
			return Value{}, r.fail(unexpected(err))
		}
		if is {
			return v, nil
		}
	}
}

// end makes sure that nothing follows the list that Enter stepped into.
func (r *Reader) end() error {
	for {
		c, err := r.skipSpace()
		if errors.Is(err, io.EOF) {
			r.err = io.EOF
			return io.EOF
		}
		if err == nil {
			var is bool
			if _, is, err = r.form(c, depthMost); err == nil && is {
				err = errors.New("there is something behind the list that the document is")
			}
		}
		if err != nil {
			return r.fail(unexpected(err))
		}
	}
}

func (r *Reader) fail(err error) error {
	r.err = fmt.Errorf("line %d: %w", r.line, err)
	return r.err
}

// unexpected makes an end in the middle of a form an error like others.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the document ends in the middle of a form")
	}
	return err
}

func (r *Reader) read() (byte, error) {
	c, err := r.in.ReadByte()
	if c == '\n' && err == nil {
		r.line++
	}
	return c, err
}

// unread gives back the byte read last.
func (r *Reader) unread() {
	_ = r.in.UnreadByte() // it cannot fail behind a read
	if next, err := r.in.Peek(1); err == nil && next[0] == '\n' {
		r.line--
	}
}

// skipSpace returns the first byte that is neither white space nor part of a comment.
func (r *Reader) skipSpace() (byte, error) {
	for {
		c, err := r.read()
		if err != nil {
			return 0, err
		}
		switch {
		case c == ';':
			for c != '\n' {
				if c, err = r.read(); err != nil {
					return 0, err
				}
			}
		case !space(c):
			return c, nil
		}
	}
}

// space reports white space, of which commas are in EDN.
func space(c byte) bool {
	return c == ' ' || c == ',' || c == '\n' || c == '\t' || c == '\r' || c == '\f' || c == '\v'
}

// delimits reports what ends a name or a number.
func delimits(c byte) bool {
	switch c {
	case '(', ')', '[', ']', '{', '}', '"', ';':
		return true
	default:
		return space(c)
	}
}

// form reads the form that begins with c. It reports false where that was a discarded one.
func (r *Reader) form(c byte, depth int) (Value, bool, error) {
	if depth == 0 {
		return Value{}, false, fmt.Errorf("more than %d forms are nested", depthMost)
	}
	var v Value
	var err error
	switch c {
	case '(':
		v, err = r.items(List, ')', depth)
	case '[':
		v, err = r.items(Vector, ']', depth)
	case '{':
		v, err = r.items(Map, '}', depth)
	case ')', ']', '}':
		err = fmt.Errorf("a %q closes nothing", c)
	case '"':
		v, err = r.text()
	case '\\':
		v, err = r.char()
	case '#':
		return r.dispatch(depth)
	default:
		if err = r.rest(c); err == nil {
			v, err = atom(string(r.token))
		}
	}
	return v, err == nil, err
}

func (r *Reader) items(kind Kind, end byte, depth int) (Value, error) {
	v := Value{Kind: kind}
	for {
		c, err := r.skipSpace()
		if err != nil {
			return v, err
		}
		if c == end {
			break
		}
		item, is, err := r.form(c, depth-1)
		if err != nil {
			return v, err
		}
		if is {
			v.Items = append(v.Items, item)
		}
	}
	if kind == Map && len(v.Items)%2 != 0 {
		return v, errors.New("a map has a key without a value")
	}
	return v, nil
}

// rest reads the token that begins with c.
func (r *Reader) rest(c byte) error {
	r.token = append(r.token[:0], c)
	for {
		c, err := r.read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if delimits(c) {
			r.unread()
			return nil
		}
		if len(r.token) > tokenMost {
			return fmt.Errorf("a token is longer than %d MiB", tokenMost>>20)
		}
		r.token = append(r.token, c)
	}
}

// dispatch reads what begins with #.
func (r *Reader) dispatch(depth int) (Value, bool, error) {
	c, err := r.read()
	if err != nil {
		return Value{}, false, err
	}
	switch {
	case c == '{':
		v, err := r.items(Set, '}', depth)
		return v, err == nil, err
	case c == '_':
		_, err := r.required(depth)
		return Value{}, false, err
	case c == '#':
		if err := r.rest('#'); err != nil {
			return Value{}, false, err
		}
		switch name := "#" + string(r.token); name {
		case "##NaN", "##Inf", "##-Inf":
			return Value{Kind: Number, Text: name}, true, nil
		default:
			return Value{}, false, fmt.Errorf("%.60q is no number", name)
		}
	case delimits(c):
		return Value{}, false, fmt.Errorf("#%c begins nothing", c)
	}
	if err := r.rest(c); err != nil {
		return Value{}, false, err
	}
	tag := string(r.token)
	inner, err := r.required(depth)
	if err != nil {
		return Value{}, false, err
	}
	if ns, is := strings.CutPrefix(tag, ":"); is && inner.Kind == Map {
		return inNamespace(inner, ns), true, nil
	}
	return Value{Kind: Tagged, Text: tag, Items: []Value{inner}}, true, nil
}

// required reads the form that must follow a tag or a discard.
func (r *Reader) required(depth int) (Value, error) {
	for {
		c, err := r.skipSpace()
		if err != nil {
			return Value{}, err
		}
		if v, is, err := r.form(c, depth-1); err != nil || is {
			return v, err
		}
	}
}

// inNamespace is the map that #:ns{…} stands for.
func inNamespace(v Value, ns string) Value {
	for i := 0; i < len(v.Items); i += 2 {
		k := &v.Items[i]
		if k.Kind != Keyword && k.Kind != Symbol || strings.HasPrefix(k.Text, "/") {
			continue
		}
		if bare, out := strings.CutPrefix(k.Text, "_/"); out {
			k.Text = bare
		} else if !strings.Contains(k.Text, "/") {
			k.Text = ns + "/" + k.Text
		}
	}
	return v
}

// atom reads a token that is neither text nor a list.
func atom(token string) (Value, error) {
	switch token {
	case "nil":
		return Value{}, nil
	case "true":
		return Value{Kind: Bool, Int: 1}, nil
	case "false":
		return Value{Kind: Bool}, nil
	}
	if name, is := strings.CutPrefix(token, ":"); is {
		name = strings.TrimPrefix(name, ":") // ::a is a keyword of the namespace where it is read
		if name == "" {
			return Value{}, errors.New("a keyword without a name")
		}
		return Key(name), nil
	}
	digits := strings.TrimLeft(token, "+-")
	if len(token)-len(digits) <= 1 && digits != "" && digits[0] >= '0' && digits[0] <= '9' {
		v, is := number(token)
		if !is {
			return Value{}, fmt.Errorf("%.60q is no number", token)
		}
		return v, nil
	}
	return Value{Kind: Symbol, Text: token}, nil
}

// text reads the rest of a string.
func (r *Reader) text() (Value, error) {
	r.token = r.token[:0]
	for {
		c, err := r.read()
		if err != nil {
			return Value{}, err
		}
		switch {
		case c == '"':
			return Text(string(r.token)), nil
		case c == '\\':
			if err := r.escape(); err != nil {
				return Value{}, err
			}
		case len(r.token) > tokenMost:
			return Value{}, fmt.Errorf("a string is longer than %d MiB", tokenMost>>20)
		default:
			r.token = append(r.token, c)
		}
	}
}

// escape reads what follows a backslash in a string.
func (r *Reader) escape() error {
	c, err := r.read()
	if err != nil {
		return err
	}
	if at := strings.IndexByte(`tnrbf"\`, c); at >= 0 {
		r.token = append(r.token, "\t\n\r\b\f\"\\"[at])
		return nil
	}
	if c != 'u' {
		return fmt.Errorf("a string has \\%c, which stands for nothing", c)
	}
	first, err := r.unicode()
	if err != nil {
		return err
	}
	if high := first >= 0xd800 && first < 0xdc00; high { // of a pair, as Java has it
		if next, err := r.in.Peek(2); err == nil && string(next) == `\u` {
			_, _ = r.in.Discard(2) // they were just seen
			second, err := r.unicode()
			if err != nil {
				return err
			}
			if second >= 0xdc00 && second < 0xe000 {
				r.token = utf8.AppendRune(r.token, (first-0xd800)<<10+(second-0xdc00)+0x10000)
				return nil
			}
			r.token = utf8.AppendRune(r.token, first)
			first = second
		}
	}
	r.token = utf8.AppendRune(r.token, first)
	return nil
}

// unicode reads four hexadecimal digits.
func (r *Reader) unicode() (rune, error) {
	var digits [4]byte
	for i := range digits {
		c, err := r.read()
		if err != nil {
			return 0, err
		}
		digits[i] = c
	}
	n, err := strconv.ParseUint(string(digits[:]), 16, 16)
	if err != nil {
		return 0, fmt.Errorf("\\u%s is no character: want four hexadecimal digits", digits)
	}
	return rune(n), nil
}

// char reads a character from behind its backslash.
func (r *Reader) char() (Value, error) {
	c, err := r.read()
	if err != nil {
		return Value{}, err
	}
	if err := r.rest(c); err != nil { // the first may be a delimiter: \( is a character
		return Value{}, err
	}
	token := string(r.token)
	if utf8.RuneCountInString(token) == 1 {
		return Value{Kind: Char, Text: token}, nil
	}
	if named, is := charNames[token]; is {
		return Value{Kind: Char, Text: named}, nil
	}
	base, size := 16, 16
	digits, is := strings.CutPrefix(token, "u")
	if !is {
		base, size = 8, 8
		digits, is = strings.CutPrefix(token, "o")
	}
	n, err := strconv.ParseUint(digits, base, size)
	if !is || err != nil {
		return Value{}, fmt.Errorf("%.60q is no character", `\`+token)
	}
	return Value{Kind: Char, Text: string(rune(n))}, nil
}
