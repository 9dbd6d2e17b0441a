package disk

import (
	"encoding/binary"
	"fmt"
	"slices"

	"capsize/raftnode/internal/varint"
	"capsize/raftnode/raft"
	"capsize/raftnode/wal"
)

// replayed is the log as far as it has been read.
type replayed struct {
	// begins: nothing was released between base and the entries. Else base is only where those
	// that are left begin; whether a snapshot stands for the others is seen at the end.
	begins  bool
	base    uint64
	entries []raft.Entry // after base
}

func (r *replayed) last() uint64 { return r.base + uint64(len(r.entries)) }

// head is what each segment of the log begins with: all that is not in entries.
func (d *Disk) head() [][]byte {
	b := binary.AppendUvarint([]byte{recordHead}, d.incarnation)
	return [][]byte{appendPosition(appendHardState(b, d.hard), d.snapshot)}
}

func (d *Disk) replay(number uint64, record []byte) error {
	in := varint.NewReader(record[1:])
	switch record[0] {
	case recordHead:
		return d.replayHead(number, in)
	case recordBoot:
		incarnation := in.Next()
		if err := end(in); err != nil || incarnation != d.incarnation+1 {
			return fmt.Errorf("%w: start number %d follows %d", wal.ErrCorrupt, incarnation, d.incarnation)
		}
		d.incarnation = incarnation
		return nil
	case recordSnapshot:
		taken := readPosition(in)
		if err := end(in); err != nil || taken.index <= d.snapshot.index {
			return fmt.Errorf("%w: a snapshot at %d follows one at %d", wal.ErrCorrupt, taken.index, d.snapshot.index)
		}
		d.snapshot = taken
		return nil
	case recordWrite:
		w, err := decodeWrite(record)
		if err != nil {
			return fmt.Errorf("%w: %w", wal.ErrCorrupt, err)
		}
		return d.replayWrite(number, w)
	}
	return fmt.Errorf("%w: record of unknown kind %d", wal.ErrCorrupt, record[0])
}

// replayHead takes what the first head says of segments that were released. Every later one
// repeats what was read already.
func (d *Disk) replayHead(number uint64, in *varint.Reader) error {
	incarnation, hard, snapshot := in.Next(), readHardState(in), readPosition(in)
	if err := end(in); err != nil {
		return fmt.Errorf("%w: head: %w", wal.ErrCorrupt, err)
	}
	first := len(d.segments) == 0
	d.note(number, 0)
	if first {
		d.replayed.begins = number == 1
		d.incarnation, d.hard, d.snapshot = incarnation, hard, snapshot
		return nil
	}
	if incarnation != d.incarnation || hard != d.hard || snapshot != d.snapshot {
		return fmt.Errorf("%w: the head says start number %d, %+v and snapshot %d; what stands before it %d, %+v and %d",
			wal.ErrCorrupt, incarnation, hard, snapshot.index, d.incarnation, d.hard, d.snapshot.index)
	}
	return nil
}

func (d *Disk) replayWrite(number uint64, w write) error {
	r := &d.replayed
	if w.hard != (raft.HardState{}) {
		d.hard = w.hard
	}
	if w.installed != (position{}) {
		d.snapshot = w.installed
		*r = replayed{begins: true, base: w.installed.index}
	}
	if len(w.entries) == 0 {
		return nil
	}
	first := w.entries[0].Index
	d.note(number, w.entries[len(w.entries)-1].Index)
	if !r.begins && (first <= r.base || len(r.entries) == 0) {
		r.base, r.entries = first-1, nil
	}
	if first <= r.base || first > r.last()+1 {
		return fmt.Errorf("%w: entry %d follows a log of entries %d to %d", wal.ErrCorrupt, first, r.base+1, r.last())
	}
	r.entries = append(r.entries[:first-r.base-1], w.entries...)
	return nil
}

// restore makes a storage of what was read.
func (d *Disk) restore() (*raft.MemoryStorage, error) {
	r, storage := &d.replayed, raft.NewMemoryStorage()
	if !r.begins && len(r.entries) == 0 {
		r.base = d.snapshot.index
	}
	switch {
	case r.base > d.snapshot.index:
		return nil, fmt.Errorf("%w: it begins with entry %d, and the snapshot stands for entries up to %d: some are missing", wal.ErrCorrupt, r.base+1, d.snapshot.index)
	case d.snapshot.index > r.last():
		return nil, fmt.Errorf("%w: it ends with entry %d, before its snapshot at %d", wal.ErrCorrupt, r.last(), d.snapshot.index)
	case d.hard.Commit > r.last():
		return nil, fmt.Errorf("%w: it ends with entry %d, and says that %d is committed", wal.ErrCorrupt, r.last(), d.hard.Commit)
	}
	if d.snapshot.index > 0 {
		snapshot, content, err := d.LoadSnapshot(d.snapshot.index)
		if err != nil {
			return nil, err
		}
		if err := content.Close(); err != nil {
			return nil, err
		}
		if term := snapshot.Metadata.Term; term != d.snapshot.term {
			return nil, fmt.Errorf("%w: snapshot %d is of term %d, the log says %d", wal.ErrCorrupt, d.snapshot.index, term, d.snapshot.term)
		}
		if err := storage.ApplySnapshot(snapshot); err != nil {
			return nil, err
		}
	}
	hard := d.hard
	// The commit index alone is not always synced: the snapshot may know better.
	hard.Commit = max(hard.Commit, d.snapshot.index)
	storage.SetHardState(hard)
	// Clone: what the snapshot stands for need not stay in memory.
	return storage, storage.Append(slices.Clone(r.entries[d.snapshot.index-r.base:]))
}
