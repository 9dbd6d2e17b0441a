// Package wal is an append-only log of records that survives a crash at any moment.
//
// A log is a directory of numbered segments. [Open] replays every record and repairs
// what a crash may leave behind; [WAL.Append] queues records and [WAL.Sync] makes all of
// them durable with one write and one fsync (group commit).
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
	"slices"
	"strings"
)

// Identity says whose log a directory holds. It stands in each segment's header.
type Identity struct {
	Cluster string // at most 64 bytes
	Node    uint64
}

// Options say where a log is.
type Options struct {
	FS           FS
	Dir          string
	Identity     Identity
	SegmentBytes int64 // a new segment begins after the Sync that exceeds it; 0 means 16 MiB
}

// MaxRecordBytes bounds one record.
const MaxRecordBytes = 64 << 20

const (
	defaultSegmentBytes = 16 << 20
	flushBytes          = 1 << 20 // queued bytes at which Append writes without syncing
	suffix              = ".wal"
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
	opts    Options
	file    File
	path    string
	segment uint64
	size    int64  // bytes handed to the file
	durable int64  // bytes of the file known to be on disk
	buf     []byte // frames not yet handed to the file
	failed  error
}

// Open opens the log in opts.Dir, creates it where there is none, and calls replay with
// each record in order. replay must not keep the slice. An error of replay ends Open.
func Open(opts Options, replay func(record []byte) error) (*WAL, Report, error) {
	if opts.SegmentBytes == 0 {
		opts.SegmentBytes = defaultSegmentBytes
	}
	if len(opts.Identity.Cluster) > maxClusterBytes {
		return nil, Report{}, fmt.Errorf("open wal %s: cluster id %q is longer than %d bytes", opts.Dir, opts.Identity.Cluster, maxClusterBytes)
	}
	w := &WAL{opts: opts}
	report, err := w.open(replay)
	if err != nil {
		if w.file != nil {
			_ = w.file.Close() // the error that matters is already there
		}
		return nil, report, fmt.Errorf("open wal %s: %w", opts.Dir, err)
	}
	return w, report, nil
}

func (w *WAL) open(replay func([]byte) error) (Report, error) {
	if err := w.opts.FS.MkdirAll(w.opts.Dir); err != nil {
		return Report{}, err
	}
	segments, err := w.list()
	if err != nil {
		return Report{}, err
	}
	report := Report{Created: len(segments) == 0}
	for i, segment := range segments {
		newest := i == len(segments)-1
		data, err := w.opts.FS.ReadFile(w.name(segment))
		if err != nil {
			return report, err
		}
		if newest && unfinishedHeader(data) {
			report.Torn = &Torn{File: w.name(segment), Bytes: int64(len(data))}
			if err := w.removeNewest(segment); err != nil {
				return report, err
			}
			segments = segments[:i]
			break
		}
		if err := w.replaySegment(segment, data, newest, &report, replay); err != nil {
			return report, err
		}
	}
	if len(segments) == 0 {
		report.Segments = 1
		return report, w.create(1)
	}
	report.Segments = len(segments)
	return report, w.resume(segments[len(segments)-1], report.Torn)
}

// list returns the numbers of the segments, which must be 1 to n.
func (w *WAL) list() ([]uint64, error) {
	names, err := w.opts.FS.List(w.opts.Dir)
	if err != nil {
		return nil, err
	}
	var segments []uint64
	for _, name := range names {
		digits, isSegment := strings.CutSuffix(name, suffix)
		if !isSegment {
			continue
		}
		var segment uint64
		if _, err := fmt.Sscanf(digits, "%016x", &segment); err != nil || w.name(segment) != filepath.Join(w.opts.Dir, name) {
			return nil, fmt.Errorf("%w: %s is no segment's name", ErrCorrupt, name)
		}
		segments = append(segments, segment)
	}
	slices.Sort(segments)
	for i, segment := range segments {
		if segment != uint64(i)+1 {
			return nil, fmt.Errorf("%w: segment %s is missing", ErrCorrupt, w.name(uint64(i)+1))
		}
	}
	return segments, nil
}

func (w *WAL) name(segment uint64) string {
	return filepath.Join(w.opts.Dir, fmt.Sprintf("%016x%s", segment, suffix))
}

// removeNewest removes a segment whose header was never synced: no record can be in it,
// since records are written only after that.
func (w *WAL) removeNewest(segment uint64) error {
	if err := w.opts.FS.Remove(w.name(segment)); err != nil {
		return err
	}
	return w.opts.FS.SyncDir(w.opts.Dir)
}

func (w *WAL) replaySegment(segment uint64, data []byte, newest bool, report *Report, replay func([]byte) error) error {
	path := w.name(segment)
	if err := checkHeader(data, w.opts.Identity, segment); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	offset := int64(headerBytes)
	for offset < int64(len(data)) {
		f, err := decodeFrame(data, segment, offset)
		if err != nil {
			if !newest {
				return fmt.Errorf("%w: %s: %w at offset %d", ErrCorrupt, path, err, offset)
			}
			if witness, found := provesDurable(data, segment, offset); found {
				return fmt.Errorf("%w: %s: %w at offset %d, though the record at offset %d was written after it was durable", ErrCorrupt, path, err, offset, witness)
			}
			report.Torn = &Torn{File: path, Offset: offset, Bytes: int64(len(data)) - offset}
			break
		}
		if err := replay(f.payload); err != nil {
			return fmt.Errorf("%s: record at offset %d: %w", path, offset, err)
		}
		report.Records++
		offset = f.end
	}
	w.size = offset
	return nil
}

// resume opens the newest segment for appending. Records that a killed process wrote but
// did not sync were replayed too, so they are synced before anyone acts on them.
func (w *WAL) resume(segment uint64, torn *Torn) error {
	w.segment, w.path = segment, w.name(segment)
	var err error
	if w.file, err = w.opts.FS.Append(w.path); err != nil {
		return err
	}
	if torn != nil && torn.File == w.path {
		if err := w.file.Truncate(torn.Offset); err != nil {
			return err
		}
	}
	if err := w.file.Sync(); err != nil {
		return err
	}
	w.durable = w.size
	return w.opts.FS.SyncDir(w.opts.Dir)
}

// create begins a segment. Its header and its name are durable before it returns.
func (w *WAL) create(segment uint64) error {
	w.segment, w.path = segment, w.name(segment)
	var err error
	if w.file, err = w.opts.FS.Create(w.path); err != nil {
		return err
	}
	if _, err := w.file.Write(encodeHeader(w.opts.Identity, segment)); err != nil {
		return err
	}
	if err := w.file.Sync(); err != nil {
		return err
	}
	w.size, w.durable = headerBytes, headerBytes
	return w.opts.FS.SyncDir(w.opts.Dir)
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

func (w *WAL) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	if _, err := w.file.Write(w.buf); err != nil {
		return w.fail("write", err)
	}
	w.size += int64(len(w.buf))
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
// segment can ever have a torn tail.
func (w *WAL) roll() error {
	if err := w.file.Close(); err != nil {
		return w.fail("close", err)
	}
	if err := w.create(w.segment + 1); err != nil {
		return w.fail("create", err)
	}
	return nil
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
