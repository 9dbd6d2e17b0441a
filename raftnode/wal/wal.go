// Package wal is an append-only log of records that survives a crash at any moment.
//
// A log is a directory of numbered segments. [Open] replays every record and repairs
// what a crash may leave behind; [WAL.Append] queues records and [WAL.Sync] makes all of
// them durable with one write and one fsync (group commit). Space is allocated ahead, by
// writing zeros, so that most syncs change neither size nor blocks of a file.
//
// Each segment begins with a head: records that its owner gives, which say again what
// earlier segments said. So [WAL.Release] can remove these once nothing else in them
// matters.
//
// Guarantees: a record is whole or absent; a record for which Sync returned nil is there
// after any crash; records come back in the order of Append. A torn tail, which only a
// crash before the end of a Sync can leave, is cut off and reported. Damage anywhere
// else is refused, with file and offset: a node that has forgotten what it promised must
// not vote. After a failed write or fsync the log refuses all further work, since the
// kernel may have dropped the dirty pages and a second fsync would prove nothing.
package wal

import (
	"errors"
	"fmt"
	"path/filepath"

	"capsize/raftnode/files"
)

// Identity says whose log a directory holds. It stands in each segment's header.
type Identity struct {
	Cluster string // at most 64 bytes
	Node    uint64
}

// Options say where a log is.
type Options struct {
	FS       files.FS
	Dir      string
	Identity Identity
	// SegmentBytes: a new segment begins after the Sync that exceeds it; 0 means 16 MiB.
	SegmentBytes int64
	// AllocateBytes is how much space is allocated at a time; 0 means 256 KiB.
	AllocateBytes int64
	// Head returns the records with which a new segment begins; nil: none. They must stand
	// for all that was appended so far and is needed once earlier segments are released.
	Head func() [][]byte
}

// MaxRecordBytes bounds one record.
const MaxRecordBytes = 64 << 20

const (
	defaultSegmentBytes  = 16 << 20
	defaultAllocateBytes = 256 << 10
	flushBytes           = 1 << 20 // queued bytes at which Append writes without syncing
	suffix               = ".wal"
)

// Report says what Open found.
type Report struct {
	Created  bool // the directory held no log before
	Segments int
	Records  int
	Torn     *Torn // nil where the last shutdown left nothing half-written
}

// Torn is a tail that was cut off, because a crash came before it was durable.
type Torn struct {
	File   string
	Offset int64 // where the first incomplete record began
	Bytes  int64 // how many bytes were cut off
}

// String describes the repair.
func (t Torn) String() string {
	return fmt.Sprintf("cut %d bytes of a torn tail off %s at offset %d", t.Bytes, t.File, t.Offset)
}

// ErrCorrupt marks damage that no crash explains.
var ErrCorrupt = errors.New("corrupt log")

// ErrIdentity marks a directory that belongs to another node or cluster.
var ErrIdentity = errors.New("log of another node")

// WAL is an open log. It is not safe for concurrent use.
type WAL struct {
	opts      Options
	file      files.File
	path      string
	oldest    uint64 // segment
	segment   uint64 // the newest, which is written
	size      int64  // bytes of records handed to the file
	allocated int64  // the file's size; what is beyond size is zero
	durable   int64  // bytes known to be on disk
	buf       []byte // frames not yet handed to the file
	failed    error
}

// Append queues a record, which must not be empty. It is durable when Sync has returned
// nil. Append copies the record.
func (w *WAL) Append(record []byte) error {
	if w.failed != nil {
		return w.failed
	}
	if len(record) == 0 || len(record) > MaxRecordBytes {
		return fmt.Errorf("append to wal %s: a record of %d bytes; want 1 to %d", w.path, len(record), MaxRecordBytes)
	}
	offset := w.size + int64(len(w.buf))
	w.buf = appendFrame(w.buf, w.segment, offset, w.durable, record)
	if len(w.buf) >= flushBytes {
		return w.flush()
	}
	return nil
}

// flush hands what is queued to the file, and with it zeros up to the next multiple of the
// allocated size, where the file is too short.
func (w *WAL) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	end := w.size + int64(len(w.buf))
	if end > w.allocated {
		step := w.opts.AllocateBytes
		w.allocated = (end + step - 1) / step * step
		w.buf = append(w.buf, make([]byte, w.allocated-end)...)
	}
	if _, err := w.file.WriteAt(w.buf, w.size); err != nil {
		return w.fail("write", err)
	}
	w.size = end
	w.buf = w.buf[:0]
	return nil
}

// Sync makes every appended record durable.
func (w *WAL) Sync() error {
	if w.failed != nil {
		return w.failed
	}
	if err := w.flush(); err != nil {
		return err
	}
	if w.durable == w.size {
		return nil
	}
	if err := w.file.Sync(); err != nil {
		return w.fail("sync", err)
	}
	w.durable = w.size
	if w.size < w.opts.SegmentBytes {
		return nil
	}
	return w.roll()
}

// roll begins the next segment. It is called right after a sync, so that only the newest
// segment can ever have a torn tail. The old one loses what was allocated ahead: from then
// on every byte of it counts.
func (w *WAL) roll() error {
	if err := errors.Join(w.file.Truncate(w.size), w.file.Sync(), w.file.Close()); err != nil {
		return w.fail("finish", err)
	}
	if err := w.create(w.segment + 1); err != nil {
		return w.fail("create", err)
	}
	return nil
}

// create begins a segment. Its header, its head and its name are durable before it returns.
func (w *WAL) create(segment uint64) error {
	w.segment, w.path = segment, w.name(segment)
	var err error
	if w.file, err = w.opts.FS.Create(w.path); err != nil {
		return err
	}
	head := make([]byte, headerBytes)
	if w.opts.Head != nil {
		for _, record := range w.opts.Head() {
			head = appendFrame(head, segment, int64(len(head)), 0, record)
		}
	}
	encodeHeader(head, w.opts.Identity, segment)
	if _, err := w.file.WriteAt(head, 0); err != nil {
		return err
	}
	if err := w.file.Sync(); err != nil {
		return err
	}
	w.size = int64(len(head))
	w.durable, w.allocated = w.size, w.size
	return w.opts.FS.SyncDir(w.opts.Dir)
}

// Segment returns the number of the segment to which records go. It changes in Sync.
func (w *WAL) Segment() uint64 { return w.segment }

// Release removes the segments before that number, oldest first, each durably before the
// next: were a later one gone and an earlier one still there after a crash, that would look
// like a loss. The newest segment stays.
func (w *WAL) Release(before uint64) error {
	if w.failed != nil {
		return w.failed
	}
	for ; w.oldest < min(before, w.segment); w.oldest++ {
		if err := w.opts.FS.Remove(w.name(w.oldest)); err != nil {
			return w.fail("remove a segment of", err)
		}
		if err := w.opts.FS.SyncDir(w.opts.Dir); err != nil {
			return w.fail("sync the directory of", err)
		}
	}
	return nil
}

func (w *WAL) name(segment uint64) string {
	return filepath.Join(w.opts.Dir, fmt.Sprintf("%016x%s", segment, suffix))
}

func (w *WAL) fail(what string, err error) error {
	w.failed = fmt.Errorf("%s wal %s at offset %d: %w", what, w.path, w.size, err)
	return w.failed
}

// Close closes the log without syncing: what was not synced was promised to no one.
func (w *WAL) Close() error {
	if w.failed == nil {
		w.failed = fmt.Errorf("wal %s is closed", w.path)
	}
	if err := w.file.Close(); err != nil {
		return fmt.Errorf("close wal %s: %w", w.path, err)
	}
	return nil
}
