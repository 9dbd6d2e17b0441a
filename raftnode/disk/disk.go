// Package disk is everything that a node has stored: its write-ahead log and its
// snapshots, as one thing that is consistent after a crash at any moment.
//
// [Open] gives back, as a raft.MemoryStorage, what was durable; from then on the owner keeps
// that storage up to date itself and hands each change to the Disk as well. A snapshot is
// first saved as a file ([Disk.SaveSnapshot]); it counts once the log names it, after
// [Disk.Taken] for one that was taken of the state machine here, after [Disk.Append] for one
// that replaced the log. Then [Disk.Compact] gives back the space of the entries that it
// stands for.
package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"capsize/raftnode/files"
	"capsize/raftnode/raft"
	"capsize/raftnode/snap"
	"capsize/raftnode/wal"
)

// Options say where a node's data is.
type Options struct {
	FS      files.FS
	Dir     string
	Cluster string // data of another cluster or node is refused
	Node    uint64
	// SegmentBytes and AllocateBytes are the log's; 0 means its defaults.
	SegmentBytes, AllocateBytes int64
}

// Disk is a node's durable state. SaveSnapshot and LoadSnapshot may be called by any
// goroutine at any time; everything else by one at a time.
type Disk struct {
	log       *wal.WAL
	snapshots *snap.Dir
	report    wal.Report
	buf       []byte

	// As of all that was appended so far.
	incarnation uint64
	hard        raft.HardState
	snapshot    position // the one that counts
	segments    []segment

	replayed replayed // while Open runs
	storage  *raft.MemoryStorage
}

// segment is a segment of the log that is still there, with the last entry that it holds.
type segment struct {
	number uint64
	last   uint64
}

// Open reads what is stored, and records a new start of the node, durably.
func Open(o Options) (*Disk, error) {
	d := &Disk{}
	if err := d.open(o); err != nil {
		if d.log != nil {
			err = errors.Join(err, d.log.Close())
		}
		return nil, fmt.Errorf("open data in %s: %w", o.Dir, err)
	}
	return d, nil
}

// Owner says whose data a directory holds: a node's ID. found is false where it holds none
// yet.
func Owner(fs files.FS, dir string) (node uint64, found bool, err error) {
	owner, found, err := wal.Owner(fs, logDir(dir))
	if err != nil {
		return 0, false, fmt.Errorf("find out whose data is in %s: %w", dir, err)
	}
	return owner.Node, found, nil
}

func logDir(dir string) string { return filepath.Join(dir, "log") }

func (d *Disk) open(o Options) error {
	var err error
	owner := fmt.Sprintf("node %d of cluster %q", o.Node, o.Cluster)
	if d.snapshots, err = snap.OpenDir(o.FS, filepath.Join(o.Dir, "snapshots"), owner); err != nil {
		return err
	}
	d.log, d.report, err = wal.Open(wal.Options{
		FS: o.FS, Dir: logDir(o.Dir), Identity: wal.Identity{Cluster: o.Cluster, Node: o.Node},
		SegmentBytes: o.SegmentBytes, AllocateBytes: o.AllocateBytes, Head: d.head,
	}, d.replay)
	if err != nil {
		return err
	}
	if d.storage, err = d.restore(); err != nil {
		return err
	}
	d.replayed = replayed{}
	if err := d.removeSnapshots(func(index uint64) bool { return index != d.snapshot.index }); err != nil {
		return err
	}
	d.incarnation++
	boot := binary.AppendUvarint([]byte{recordBoot}, d.incarnation)
	return errors.Join(d.log.Append(boot), d.Sync())
}

// Storage returns what was stored when the disk was opened.
func (d *Disk) Storage() *raft.MemoryStorage { return d.storage }

// Incarnation returns the number of this start of the node, from 1. Each is durable before
// Open returns.
func (d *Disk) Incarnation() uint64 { return d.incarnation }

// Report says what Open found in the log.
func (d *Disk) Report() wal.Report { return d.report }

// Append hands a write to the log: it is durable after Sync. A hard state of zero is
// unchanged. If installed is not nil, that snapshot, which was saved before, replaces the
// whole log; then entries follow, which replace whatever stands at or after the first one's
// index.
func (d *Disk) Append(hard raft.HardState, installed *raft.Snapshot, entries []raft.Entry) error {
	w := write{hard: hard, entries: entries}
	if installed != nil {
		w.installed = position{installed.Metadata.Index, installed.Metadata.Term}
		d.snapshot = w.installed
	}
	if hard != (raft.HardState{}) {
		d.hard = hard
	}
	if n := len(entries); n > 0 {
		d.note(d.log.Segment(), entries[n-1].Index)
	}
	return encodeWrite(&d.buf, w, d.log.Append)
}

// note keeps in mind that a segment is there, and holds entries up to last.
func (d *Disk) note(number, last uint64) {
	if n := len(d.segments); n == 0 || d.segments[n-1].number != number {
		d.segments = append(d.segments, segment{number: number})
	}
	s := &d.segments[len(d.segments)-1]
	s.last = max(s.last, last)
}

// Sync makes durable what was appended.
func (d *Disk) Sync() error { return d.log.Sync() }

// Taken records, durably, that a saved snapshot stands for the log up to its index, and
// removes older ones. One that is older itself than what counts by now is only removed.
func (d *Disk) Taken(s raft.SnapshotMetadata) error {
	if s.Index <= d.snapshot.index {
		return d.Tidy()
	}
	d.snapshot = position{s.Index, s.Term}
	record := appendPosition([]byte{recordSnapshot}, d.snapshot)
	if err := errors.Join(d.log.Append(record), d.log.Sync()); err != nil {
		return err
	}
	return d.Tidy()
}

// Tidy removes the snapshots that are older than the one that counts, which must be
// durable in the log.
func (d *Disk) Tidy() error {
	return d.removeSnapshots(func(index uint64) bool { return index < d.snapshot.index })
}

// Compact gives back the space of entries up to index, as far as whole segments hold
// nothing else. A snapshot must stand for them.
func (d *Disk) Compact(index uint64) error {
	if index > d.snapshot.index {
		return fmt.Errorf("compact the log up to %d: the snapshot stands for %d only", index, d.snapshot.index)
	}
	kept := d.segments
	for len(kept) > 0 && kept[0].last <= index && kept[0].number < d.log.Segment() {
		kept = kept[1:]
	}
	d.segments = kept
	first := d.log.Segment()
	if len(kept) > 0 {
		first = kept[0].number
	}
	return d.log.Release(first)
}

func (d *Disk) removeSnapshots(obsolete func(index uint64) bool) error {
	indexes, err := d.snapshots.List()
	if err != nil {
		return err
	}
	for _, index := range indexes {
		if obsolete(index) {
			if err := d.snapshots.Remove(index); err != nil {
				return err
			}
		}
	}
	return nil
}

// SaveSnapshot writes a snapshot to a file: what raft knows of it, and its content.
func (d *Disk) SaveSnapshot(s *raft.Snapshot, content func(io.Writer) error) error {
	return d.snapshots.Save(s.Metadata.Index, raft.EncodeSnapshot(nil, s), content)
}

// LoadSnapshot opens the saved snapshot of that index. Its content, to be read and closed,
// is checked as it is read.
func (d *Disk) LoadSnapshot(index uint64) (*raft.Snapshot, io.ReadCloser, error) {
	meta, content, err := d.snapshots.Open(index)
	if err != nil {
		return nil, nil, err
	}
	s, err := raft.DecodeSnapshot(meta)
	if err != nil || s.Metadata.Index != index {
		err = fmt.Errorf("%w: snapshot %d speaks of another one: %w", snap.ErrCorrupt, index, err)
		return nil, nil, errors.Join(err, content.Close())
	}
	return s, content, nil
}

// Close closes the log without syncing.
func (d *Disk) Close() error { return d.log.Close() }
