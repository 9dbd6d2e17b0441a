package histories

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// A history file is JSON lines: a [Header], then one [Event] a line, in order of index:
//
//	{"capsize":"history","version":1,"run":"…","started":"2026-01-02T15:04:05.123456789Z"}
//	{"index":0,"time":1234,"process":3,"type":"invoke","f":"write","key":"k3","value":17,"node":"n2"}
//	{"index":1,"time":5678,"process":3,"type":"info","f":"write","key":"k3","value":17,"node":"n2","error":"timed out"}
//	{"index":2,"time":6789,"process":"nemesis","type":"info","f":"pause","fault":{"id":1,"name":"pause","phase":"landed","nodes":["n2"]}}
//
// Times are nanoseconds. What is empty is left out.

// History is a history file, read back.
type History struct {
	Header Header
	Events []Event
	// Truncated describes a last line that was cut off in the middle and left out: the
	// checker was killed as it wrote. It is empty where the file is whole.
	Truncated string
}

// ReadFile reads a history file and checks it with [Validate]. A cut-off last line is no
// error; any other bad line is one that names file, line and byte offset.
func ReadFile(path string) (*History, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	defer func() { _ = file.Close() }() // only read
	h, err := read(file)
	if err != nil {
		return nil, fmt.Errorf("read history %s: %w", path, err)
	}
	return h, nil
}

// lineMost bounds a line. The longest are faults with their proofs and errors of clients,
// a few KiB.
const lineMost = 16 << 20

func read(r io.Reader) (*History, error) {
	lines := lineReader{r: bufio.NewReaderSize(r, 1<<20)}
	first, err := lines.next()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty: nothing was recorded")
	}
	if err != nil {
		return nil, err
	}
	if !lines.whole {
		return nil, errors.New("the first line is cut off: the run was killed as it began, nothing was recorded")
	}
	h := new(History)
	if h.Header, err = decodeHeader(first); err != nil {
		return nil, err
	}
	d := newDecoder()
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if !lines.whole {
			h.Truncated = lines.describe(line)
			break
		}
		var e Event
		if bad := d.event(line, &e); bad != nil {
			where, what := lines.where(), lines.describe(line)
			if _, err := lines.next(); errors.Is(err, io.EOF) {
				h.Truncated = what
				break
			}
			return nil, fmt.Errorf("%s is corrupt: %w", where, bad)
		}
		h.Events = append(h.Events, e)
	}
	if err := Validate(h.Events); err != nil {
		var invalid *InvalidError
		if errors.As(err, &invalid) {
			return nil, fmt.Errorf("line %d: %w", invalid.Position+2, err)
		}
		return nil, err
	}
	return h, nil
}

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
