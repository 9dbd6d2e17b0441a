package histories

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
)

// Scanner reads a history file one event after the other, checks each against those before
// it as [Validate] does, and keeps nothing of the past but the operations that are open and
// which processes are used up:
//
//	s, err := histories.Scan(path)
//	if err != nil {
//		return err
//	}
//	defer s.Close()
//	for s.Next() {
//		judge(s.Event())
//	}
//	return s.Err()
//
// A Scanner must not be used by several goroutines at once.
type Scanner struct {
	path   string   // empty where it reads no file of its own
	file   *os.File // likewise
	size   int64    // of the file in bytes; 0: not known
	lines  lineReader
	header Header
	decode *decoder
	check  *validator
	event  Event

	ended     bool
	truncated string
	err       error
}

// scanBuffer is how much is read at once. More is no faster, and would push other things out
// of the processor's cache.
const scanBuffer = 128 << 10

// Scan opens a history file and reads its header. The caller must close the Scanner. All
// errors of it name the file.
func Scan(path string) (*Scanner, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	s, err := newScanner(file, path)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	s.file = file
	if info, err := file.Stat(); err == nil {
		s.size = info.Size()
	}
	return s, nil
}

// NewScanner reads the header of a history from r.
func NewScanner(r io.Reader) (*Scanner, error) { return newScanner(r, "") }

func newScanner(r io.Reader, path string) (*Scanner, error) {
	s := &Scanner{path: path, lines: lineReader{r: bufio.NewReaderSize(r, scanBuffer)}, decode: newDecoder(), check: newValidator()}
	first, err := s.lines.next()
	switch {
	case errors.Is(err, io.EOF):
		err = errors.New("the file is empty: nothing was recorded")
	case err == nil && !s.lines.whole:
		err = errors.New("the first line is cut off: the run was killed as it began, nothing was recorded")
	case err == nil:
		s.header, err = decodeHeader(first)
	}
	if err != nil {
		return nil, s.wrap(err)
	}
	return s, nil
}

// Header is the file's first line.
func (s *Scanner) Header() Header { return s.header }

// Next goes on to the next event and reports whether there is one. After the last one, and
// after an error, it is false.
func (s *Scanner) Next() bool {
	if s.ended {
		return false
	}
	line, err := s.lines.next()
	switch {
	case errors.Is(err, io.EOF):
		s.ended = true
	case err != nil:
		s.fail(err)
	case !s.lines.whole:
		s.ended, s.truncated = true, s.lines.describe(line)
	default:
		if err := s.decode.event(line, &s.event); err != nil {
			s.corrupt(line, err)
		} else if err := s.check.event(&s.event); err != nil {
			s.fail(fmt.Errorf("line %d: %w", s.lines.number, err))
		}
	}
	return !s.ended
}

// corrupt deals with a line that is no event: the last one may be what a machine that lost
// its power left.
func (s *Scanner) corrupt(line []byte, bad error) {
	where, what := s.lines.where(), s.lines.describe(line)
	if _, err := s.lines.next(); errors.Is(err, io.EOF) {
		s.ended, s.truncated = true, what
		return
	}
	s.fail(fmt.Errorf("%s is corrupt: %w", where, bad))
}

// Left estimates how many events follow, judged by the length of the file that [Scan] opened
// and of the events until now. It is 0 where that is not known.
func (s *Scanner) Left() int {
	if s.lines.end == 0 || s.size <= s.lines.end {
		return 0
	}
	return int(float64(s.size-s.lines.end) / float64(s.lines.end) * float64(s.lines.number))
}

// Event returns the event that Next went to. The next call of Next overwrites it: copy it to
// keep it. What it points to, its value, its texts, its fault, stays as it is.
func (s *Scanner) Event() *Event { return &s.event }

// Truncated describes, at the end, a last line that was cut off in the middle and left out:
// the checker was killed as it wrote. It is empty where the file is whole.
func (s *Scanner) Truncated() string { return s.truncated }

// Err returns why Next ended before the end of the file; nil where it did not. A cut-off last
// line is no error; any other bad line is one that names line and byte offset, and an event
// that contradicts those before it is an [*InvalidError].
func (s *Scanner) Err() error { return s.err }

// Close closes the file that [Scan] opened.
func (s *Scanner) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

func (s *Scanner) fail(err error) { s.ended, s.err = true, s.wrap(err) }

func (s *Scanner) wrap(err error) error {
	if s.path == "" {
		return err
	}
	return fmt.Errorf("read history %s: %w", s.path, err)
}
