package trace

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"
	"time"
)

// Writer appends the events of one incarnation to a file. It is not safe for concurrent
// use.
type Writer struct {
	file   *os.File
	prefix []byte // of every line: inc and node
	names  Names
	now    func() time.Time
	seq    uint64
	buf    []byte
	failed error
}

// Open opens or creates the trace file of a node. Half a line at its end, which a killed
// process may leave, is cut off; repaired says how many bytes that were.
func Open(path string, self uint64, incarnation uint64, names Names) (w *Writer, repaired int64, err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, 0, fmt.Errorf("open trace: %w", err)
	}
	repaired, err = cutHalfLine(file)
	if err != nil {
		return nil, 0, fmt.Errorf("repair trace %s: %w", path, errors.Join(err, file.Close()))
	}
	w = &Writer{file: file, names: maps.Clone(names), now: time.Now}
	w.prefix = append(strconv.AppendUint([]byte(`,"inc":`), incarnation, 10), `,"node":`...)
	w.prefix = strconv.AppendQuote(w.prefix, names[self])
	return w, repaired, nil
}

// cutHalfLine truncates the file behind its last newline.
func cutHalfLine(file *os.File) (cut int64, err error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	const block = 64 << 10
	buf := make([]byte, block)
	for end := info.Size(); end > 0; {
		start := max(0, end-block)
		n, err := file.ReadAt(buf[:end-start], start)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			keep := start + int64(i) + 1
			if keep == info.Size() {
				return 0, nil
			}
			return info.Size() - keep, file.Truncate(keep)
		}
		end = start
	}
	if info.Size() == 0 {
		return 0, nil
	}
	return info.Size(), file.Truncate(0)
}

// Name gives a node a name from now on.
func (w *Writer) Name(id uint64, name string) { w.names[id] = name }

// Write appends events to the file with one write(2). They stand there, safe from the end
// of this process, when it returns nil. After an error it writes nothing more: a trace
// with a hole would accuse an innocent node.
func (w *Writer) Write(events []Event) error {
	if w.failed != nil || len(events) == 0 {
		return w.failed
	}
	now := w.now().UnixNano()
	b := w.buf[:0]
	for _, e := range events {
		w.seq++
		b = append(b, `{"seq":`...)
		b = strconv.AppendUint(b, w.seq, 10)
		b = append(b, `,"time":`...)
		b = strconv.AppendInt(b, now, 10)
		b = append(b, w.prefix...)
		b = append(b, ',')
		b = e.AppendJSON(b, w.names)
		b = append(b, '}', '\n')
	}
	if _, err := w.file.Write(b); err != nil {
		w.failed = fmt.Errorf("write trace %s: %w", w.file.Name(), err)
	}
	const keepMost = 1 << 20 // a replay of the whole log must not be paid for ever
	if w.buf = b; cap(b) > keepMost {
		w.buf = nil
	}
	return w.failed
}

// Close closes the file.
func (w *Writer) Close() error {
	if err := w.file.Close(); err != nil {
		return fmt.Errorf("close trace: %w", err)
	}
	return nil
}
