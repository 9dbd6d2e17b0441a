package histories

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Recorder writes the history of a run as it happens.
//
// An operation's Invoke must be recorded before its request is sent, and its completion
// after the answer was read. Index and time are given under one lock, so the order of
// indices is the order of times.
//
// A checker that is killed loses next to nothing: events are handed to the kernel in
// groups, without a timer. Whoever records while nobody writes becomes the writer, for
// its own event and for all that queue meanwhile, until none is left; so an event waits
// for at most the write under way. What is in the file after a kill is a prefix of what
// was recorded, perhaps with half a line, and a prefix of a history that a correct
// system could have produced is such a history too: what an operation saw was invoked,
// and so recorded, before that operation completed. A prefix that has the completion has
// the cause; and operations whose completions are lost count as of unknown outcome.
//
// Its methods may be called concurrently.
type Recorder struct {
	path  string
	file  output
	start time.Time

	mu      sync.Mutex
	room    sync.Cond // signalled when the writer took what was queued, and when it ends
	count   int       // events recorded: the next index
	last    time.Duration
	queued  []byte // lines that the writer has not taken yet
	spare   []byte // the buffer that it wrote last
	writing bool   // someone is the writer
	closed  bool
	err     error
	notify  func(Event)
}

// output is what a Recorder needs of a file.
type output interface {
	Write([]byte) (int, error)
	Sync() error
	Close() error
}

// queueMost bounds what waits for the disk. Callers of Record wait when it is reached:
// a stalled disk slows the clients down rather than filling the memory.
const queueMost = 1 << 20

// Create makes a new history file, writes its header, and starts the clock. The file
// must not exist.
func Create(path string, h Header) (*Recorder, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fmt.Errorf("create history: %w", err)
	}
	return newRecorder(path, file, h)
}

func newRecorder(path string, file output, h Header) (*Recorder, error) {
	r := &Recorder{path: path, file: file, start: time.Now(), queued: make([]byte, 0, 1<<16), spare: make([]byte, 0, 1<<16)}
	r.room.L = &r.mu
	if _, err := file.Write(append(appendHeader(nil, h), '\n')); err != nil {
		err = r.failed(err)
		return nil, errors.Join(err, file.Close())
	}
	return r, nil
}

// OnEvent calls notify with every event recorded from now on, in order of index, under
// the recorder's lock: it must be quick and must not call the Recorder.
func (r *Recorder) OnEvent(notify func(Event)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notify = notify
}

// Elapsed returns the time since the recorder was created, as Event.Time has it.
func (r *Recorder) Elapsed() time.Duration { return time.Since(r.start) }

// Record gives e the next index and the present time, records it, and returns it so. An
// error of the disk is in [Recorder.Err]; from then on nothing more is recorded.
func (r *Recorder) Record(e Event) Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.queued) >= queueMost && r.err == nil {
		r.room.Wait()
	}
	// Only now: a caller that waited for room must not carry an older time than those
	// that were recorded meanwhile.
	e.Index, e.Time = r.count, max(r.last, time.Since(r.start))
	r.count++
	r.last = e.Time
	if r.closed && r.err == nil {
		r.err = fmt.Errorf("record to history %s: it is closed already", r.path)
	}
	if r.err != nil {
		return e
	}
	r.queued = append(e.AppendJSON(r.queued), '\n')
	if r.notify != nil {
		r.notify(e)
	}
	if !r.writing {
		r.write()
	}
	return e
}

// write empties the queue, what joins it meanwhile included. It is called, and returns,
// with the lock held; during the writes it is free.
func (r *Recorder) write() {
	r.writing = true
	for len(r.queued) > 0 && r.err == nil {
		batch := r.queued
		r.queued = r.spare[:0]
		r.room.Broadcast()
		r.mu.Unlock()
		_, err := r.file.Write(batch)
		r.mu.Lock()
		r.spare = batch
		if err != nil {
			r.err = r.failed(err)
		}
	}
	r.writing = false
	r.room.Broadcast()
}

func (r *Recorder) failed(err error) error {
	return fmt.Errorf("write history %s: %w; nothing can be recorded any more: free space there, or put the runs on another disk; what was written until then can be judged", r.path, err)
}

// Err returns why recording ended, or nil while it goes on. It stays the same once it is
// not nil.
func (r *Recorder) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Close waits for what is being written, brings the file to the disk and closes it. It
// returns the error that ended the recording, if one did. Closing again does nothing.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return r.err
	}
	r.closed = true
	for r.writing {
		r.room.Wait()
	}
	if err := r.file.Sync(); err != nil && r.err == nil {
		r.err = r.failed(err)
	}
	if err := r.file.Close(); err != nil && r.err == nil {
		r.err = r.failed(err)
	}
	return r.err
}
