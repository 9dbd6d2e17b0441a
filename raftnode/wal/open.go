package wal

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"capsize/raftnode/files"
)

// Open opens the log in opts.Dir, creates it where there is none, and calls replay with
// each record in order, heads included, and the number of its segment. replay must not keep
// the slice. An error of replay ends Open.
func Open(opts Options, replay func(segment uint64, record []byte) error) (*WAL, Report, error) {
	if opts.SegmentBytes == 0 {
		opts.SegmentBytes = defaultSegmentBytes
	}
	if opts.AllocateBytes == 0 {
		opts.AllocateBytes = defaultAllocateBytes
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

func (w *WAL) open(replay func(uint64, []byte) error) (Report, error) {
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
		if newest && unfinished(data, segment) {
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
		report.Segments, w.oldest = 1, 1
		return report, w.create(1)
	}
	report.Segments, w.oldest = len(segments), segments[0]
	return report, w.resume(segments[len(segments)-1])
}

// list returns the numbers of the segments. None may be missing between the oldest and the
// newest; that none is before the oldest which should be there, only the owner can tell.
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
		if want := segments[0] + uint64(i); segment != want {
			return nil, fmt.Errorf("%w: segment %s is missing", ErrCorrupt, w.name(want))
		}
	}
	return segments, nil
}

// removeNewest removes a segment whose header and head were never synced: no record can be
// in it, since records are written only after that.
func (w *WAL) removeNewest(segment uint64) error {
	if err := w.opts.FS.Remove(w.name(segment)); err != nil {
		return err
	}
	return w.opts.FS.SyncDir(w.opts.Dir)
}

func (w *WAL) replaySegment(segment uint64, data []byte, newest bool, report *Report, replay func(uint64, []byte) error) error {
	path := w.name(segment)
	if err := checkHeader(data, w.opts.Identity, segment); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	offset := int64(headerBytes)
	for offset < int64(len(data)) {
		f, err := decodeFrame(data, segment, offset)
		if err != nil {
			if newest && allZero(data[offset:]) {
				break // allocated ahead, nothing more was written
			}
			if !newest {
				return fmt.Errorf("%w: %s: %w at offset %d", ErrCorrupt, path, err, offset)
			}
			if witness, found := provesDurable(data, segment, offset); found {
				return fmt.Errorf("%w: %s: %w at offset %d, though the record at offset %d was written after it was durable", ErrCorrupt, path, err, offset, witness)
			}
			report.Torn = &Torn{File: path, Offset: offset, Bytes: int64(len(data)) - offset}
			break
		}
		if err := replay(segment, f.payload); err != nil {
			return fmt.Errorf("%s: record at offset %d: %w", path, offset, err)
		}
		report.Records++
		offset = f.end
	}
	w.size = offset
	return nil
}

// resume opens the newest segment for appending, without whatever stands behind its last
// record. Records that a killed process wrote but did not sync were replayed too, so they
// are synced before anyone acts on them.
func (w *WAL) resume(segment uint64) error {
	w.segment, w.path = segment, w.name(segment)
	var err error
	if w.file, err = w.opts.FS.OpenFile(w.path); err != nil {
		return err
	}
	if err := w.file.Truncate(w.size); err != nil {
		return err
	}
	if err := w.file.Sync(); err != nil {
		return err
	}
	w.durable, w.allocated = w.size, w.size
	return w.opts.FS.SyncDir(w.opts.Dir)
}

// Owner says whose log a directory holds; found is false where it holds none yet.
func Owner(fs files.FS, dir string) (owner Identity, found bool, err error) {
	w := &WAL{opts: Options{FS: fs, Dir: dir}}
	if err := fs.MkdirAll(dir); err != nil {
		return Identity{}, false, err
	}
	segments, err := w.list()
	if err != nil || len(segments) == 0 {
		return Identity{}, false, err
	}
	// The oldest one only is unfinished where it is the only one, and then there is no log.
	data, err := fs.ReadFile(w.name(segments[0]))
	if err != nil || unfinished(data, segments[0]) {
		return Identity{}, false, err
	}
	if owner, err = readHeader(data, segments[0]); err != nil {
		return Identity{}, false, fmt.Errorf("%s: %w", w.name(segments[0]), err)
	}
	return owner, true, nil
}
