package histories

import (
	"bufio"
	"fmt"
	"io"
)

// Writer writes a history whose events have happened before: one that is imported, made up or
// cut out of another. The history of a run is written by a [Recorder].
//
// A Writer must not be used by several goroutines at once.
type Writer struct {
	out   *bufio.Writer
	line  []byte
	check *validator
	err   error
}

// NewWriter writes the header. The caller must call Flush at the end.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	out := &Writer{out: bufio.NewWriterSize(w, 1<<16), check: newValidator()}
	out.line = append(appendHeader(nil, h), '\n')
	out.put()
	return out, out.err
}

// Write writes one event, with the index and the time that it has. An event that breaks a rule
// of [Validate] is refused with an [*InvalidError]; after an error nothing more is written.
func (w *Writer) Write(e *Event) error {
	if w.err != nil {
		return w.err
	}
	if w.err = w.check.event(e); w.err == nil {
		w.line = append(e.AppendJSON(w.line[:0]), '\n')
		w.put()
	}
	return w.err
}

func (w *Writer) put() {
	if _, err := w.out.Write(w.line); err != nil {
		w.err = fmt.Errorf("write history: %w", err)
	}
}

// Flush hands what is buffered to the underlying writer.
func (w *Writer) Flush() error {
	if w.err != nil {
		return w.err
	}
	if err := w.out.Flush(); err != nil {
		w.err = fmt.Errorf("write history: %w", err)
	}
	return w.err
}
