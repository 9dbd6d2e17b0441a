package histories

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
)

// A history file is JSON lines: a [Header], then one [Event] a line, in order of index:
//
//	{"capsize":"history","version":1,"run":"…","started":"2026-01-02T15:04:05.123456789Z"}
//	{"index":0,"time":1234,"process":3,"type":"invoke","f":"write","key":"k3","value":17,"node":"n2"}
//	{"index":1,"time":2345,"process":4,"type":"invoke","f":"read","key":"k3","value":null,"stale":true,"node":"n1"}
//	{"index":2,"time":3456,"process":4,"type":"ok","f":"read","key":"k3","value":16,"revision":9,"node":"n1"}
//	{"index":3,"time":5678,"process":3,"type":"info","f":"write","key":"k3","value":17,"node":"n2","error":"timed out"}
//	{"index":4,"time":5789,"process":4,"type":"invoke","f":"cas","key":"k3","value":[15,18],"node":"n1"}
//	{"index":5,"time":5890,"process":4,"type":"fail","f":"cas","key":"k3","value":16,"revision":9,"refused":true,"node":"n1","error":"refused: it holds 16"}
//	{"index":6,"time":6012,"process":5,"type":"invoke","f":"txn","value":[["r","k1",null],["append","k2",19]],"node":"n3"}
//	{"index":7,"time":6123,"process":5,"type":"ok","f":"txn","value":[["r","k1",[17,18],9],["append","k2",19]],"revision":10,"node":"n3","attempts":2}
//	{"index":8,"time":6789,"process":"nemesis","type":"info","f":"pause","fault":{"id":1,"name":"pause","phase":"landed","nodes":["n2"]}}
//
// Times are nanoseconds. A value is null, an integer, a list of integers, or a list of
// micro-operations ([Micro]): [f, key, value], with the revision behind it where there is
// one. What is empty, false or zero is left out, but for a client's value. A process is a
// number, "nemesis" or "observer". What each field means is said at [Event], [Fault] and
// [Status]; fields that a reader does not know it ignores.

// History is a history file, read back.
type History struct {
	Header Header
	Events []Event
	// Truncated describes a last line that was cut off in the middle and left out: the
	// checker was killed as it wrote. It is empty where the file is whole.
	Truncated string
}

// ReadFile reads a history file as a whole, as [Scan] does it.
func ReadFile(path string) (*History, error) {
	s, err := Scan(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }() // only read
	return s.all()
}

// Read reads a history as a whole, as [NewScanner] does it.
func Read(r io.Reader) (*History, error) {
	s, err := NewScanner(r)
	if err != nil {
		return nil, err
	}
	return s.all()
}

// all reads what is left.
func (s *Scanner) all() (*History, error) {
	h := &History{Header: s.Header()}
	for s.Next() {
		if n := len(h.Events); n == cap(h.Events) {
			h.Events = slices.Grow(h.Events, s.room(n))
		}
		h.Events = append(h.Events, *s.Event())
	}
	h.Truncated = s.Truncated()
	return h, s.Err()
}

// room is for how many more events to make room. Early guesses are kept small.
func (s *Scanner) room(events int) int {
	const atFirst = 1024
	left := int(float64(s.Left()) * 1.02)
	if events < atFirst || left == 0 {
		return max(atFirst, events/2)
	}
	return max(atFirst, left)
}

// lineMost bounds a line. The longest are faults with their proofs and errors of clients,
// a few KiB.
const lineMost = 16 << 20

// lineReader reads lines and knows where it is.
type lineReader struct {
	r      *bufio.Reader
	long   []byte // a line that does not fit the reader's buffer
	number int    // of the line last read, from 1
	offset int64  // of its first byte
	end    int64  // offset of the byte after it
	whole  bool   // it ended with a newline
}

// next returns the next line without its end; the slice is good until the next call. It
// returns io.EOF after the last one.
func (l *lineReader) next() ([]byte, error) {
	l.number++
	l.offset = l.end
	l.long = l.long[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		l.end += int64(len(part))
		if len(l.long) > 0 || errors.Is(err, bufio.ErrBufferFull) {
			l.long = append(l.long, part...)
			part = l.long
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			if len(l.long) > lineMost {
				return nil, fmt.Errorf("%s is longer than %d MiB: this is no history", l.where(), lineMost>>20)
			}
		case err == nil:
			l.whole = true
			return part[:len(part)-1], nil
		case errors.Is(err, io.EOF) && len(part) > 0:
			l.whole = false
			return part, nil
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		default:
			return nil, fmt.Errorf("%s: %w", l.where(), err)
		}
	}
}

func (l *lineReader) where() string { return fmt.Sprintf("line %d at byte %d", l.number, l.offset) }

func (l *lineReader) describe(line []byte) string {
	const shown = 60
	text := line[:min(len(line), shown)]
	dots := ""
	if len(line) > shown {
		dots = "…"
	}
	return fmt.Sprintf("%s, %d bytes: %s%s", l.where(), len(line), bytes.ToValidUTF8(text, []byte("?")), dots)
}
