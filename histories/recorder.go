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
// A checker that is killed loses nothing that it acted upon: Record returns when the
// kernel has the event. Callers that come while one of them writes queue, and the first
// of them to wake writes for all: groups form without a timer. So the file after a kill
// is a prefix of what was recorded, perhaps with half a line, and lacks at most one event
// of each thread. And a prefix of a history that a correct system could have produced is
// such a history too: what an operation saw was invoked, and so recorded, before that
// operation completed, so a prefix that has the completion has the cause; operations whose
// completions are lost count as of unknown outcome.
//
// A slow disk slows the callers down; what waits is never more than one event of each.
//
// Its methods may be called concurrently.
type Recorder struct {
	path  string
	file  output
	start time.Time

	mu      sync.Mutex
	turn    sync.Cond // signalled when a group was written
	last    time.Duration
	count   int    // events recorded: the next index
	written int    // events that the kernel has
	queued  []byte // the lines of those between
	spare   []byte // the buffer of the group before
	writing bool   // a caller writes; the lock is free meanwhile
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
	r.turn.L = &r.mu
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
	e.Index, e.Time = r.count, max(r.last, time.Since(r.start))
	r.last = e.Time
	r.count++
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
	for r.written <= e.Index && r.err == nil {
		if r.writing {
			r.turn.Wait()
		} else {
			r.writeGroup()
		}
	}
	return e
}

// writeGroup writes what is queued. It is called, and returns, with the lock held; during
// the write it is free.
func (r *Recorder) writeGroup() {
	group, upTo := r.queued, r.count
	r.queued, r.spare, r.writing = r.spare[:0], nil, true
	r.mu.Unlock()
	_, err := r.file.Write(group)
	r.mu.Lock()
	r.spare, r.writing = group, false
	if err != nil {
		r.err = r.failed(err)
	} else {
		r.written = upTo
	}
	r.turn.Broadcast()
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
	for r.writing || r.written < r.count && r.err == nil {
		r.turn.Wait()
	}
	if err := r.file.Sync(); err != nil && r.err == nil {
		r.err = r.failed(err)
	}
	if err := r.file.Close(); err != nil && r.err == nil {
		r.err = r.failed(err)
	}
	return r.err
}
