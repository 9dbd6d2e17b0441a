package server

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"capsize/raftnode/disk"
	"capsize/raftnode/replica"
)

// writer makes disk writes durable in a goroutine of its own. All writes that wait go to
// the disk together, with one fsync (group commit).
//
// Its queue is bounded by what the replica has in flight: a leader's uncommitted bytes, a
// follower's window.
type writer struct {
	disk    *disk.Disk
	done    atomic.Uint64 // number of the last durable write
	wake    chan struct{} // holds a token when done or err has changed
	elapsed func(time.Duration)

	mu     sync.Mutex
	more   sync.Cond
	queue  []job
	busy   bool // Run has the disk
	closed bool
	err    error
}

// job is a write, or something else that the disk is to do in its turn.
type job struct {
	replica.Write
	do func(*disk.Disk) error
}

// newWriter returns a writer that tells elapsed how long each sync took.
func newWriter(d *disk.Disk, elapsed func(time.Duration)) *writer {
	w := &writer{disk: d, wake: make(chan struct{}, 1), elapsed: elapsed}
	w.more.L = &w.mu
	return w
}

// Add queues writes. It never waits for the disk to sync. Writes that need no sync, and
// have none to wait for, are done when it returns: most commit indexes cost no change of
// goroutine.
func (w *writer) Add(writes []replica.Write) {
	if len(writes) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(writes) > 0 && !writes[0].Sync && !w.busy && len(w.queue) == 0 && w.err == nil {
		if err := w.append(writes[0]); err != nil {
			w.fail(err)
			return
		}
		w.done.Store(writes[0].Number)
		writes = writes[1:]
	}
	for _, write := range writes {
		w.queue = append(w.queue, job{Write: write})
	}
	if len(writes) > 0 {
		w.more.Signal()
	}
}

// Do has something else done by the disk, after the writes so far.
func (w *writer) Do(do func(*disk.Disk) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = append(w.queue, job{do: do})
	w.more.Signal()
}

func (w *writer) fail(err error) {
	w.err = fmt.Errorf("write to disk: %w", err)
	w.notify()
}

// Err returns why the disk no longer works.
func (w *writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Close makes Run return after the writes at hand.
func (w *writer) Close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.more.Signal()
}

// Run writes until Close, or until the disk fails.
func (w *writer) Run() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil {
		for len(w.queue) == 0 && !w.closed {
			w.more.Wait()
		}
		group := w.queue
		if len(group) == 0 {
			return
		}
		w.queue, w.busy = nil, true
		w.mu.Unlock()
		err := w.commit(group)
		w.mu.Lock()
		w.busy = false
		if err != nil {
			w.fail(err)
			return
		}
		for _, job := range group {
			w.done.Store(max(w.done.Load(), job.Number))
		}
		w.notify()
	}
}

func (w *writer) commit(group []job) error {
	sync, installed := false, false
	for _, job := range group {
		if job.do != nil {
			if err := job.do(w.disk); err != nil {
				return err
			}
			continue
		}
		if err := w.append(job.Write); err != nil {
			return err
		}
		sync, installed = sync || job.Sync, installed || job.Snapshot != nil
	}
	if !sync {
		return nil
	}
	began := time.Now()
	if err := w.disk.Sync(); err != nil {
		return err
	}
	w.elapsed(time.Since(began))
	if installed {
		return w.disk.Tidy()
	}
	return nil
}

func (w *writer) append(write replica.Write) error {
	return w.disk.Append(write.HardState, write.Snapshot, write.Entries)
}

func (w *writer) notify() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
