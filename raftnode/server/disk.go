package server

import (
	"encoding/binary"
	"errors"
	"fmt"

	"capsize/raftnode/raft"
	"capsize/raftnode/replica"
	"capsize/raftnode/wal"
)

// The log holds two kinds of records, told apart by their first byte:
//
//	boot   incarnation
//	write  flags 1 | term, vote, commit (if flagged) | number of entries | each: length, entry
//
// where numbers are varints and entries are in their wire form. One disk write of the
// replica is one record, or several where it is large: then the hard state stands in the
// last, so that it is never durable without the entries that it speaks of.
const (
	recordBoot  = 1
	recordWrite = 2

	flagHardState = 1
	// maxRecordBytes is where a write is split. It bounds what is read back at once.
	maxRecordBytes = 4 << 20
)

// disk is what the node has stored: the log, and its content in memory.
type disk struct {
	log         *wal.WAL
	storage     *raft.MemoryStorage
	incarnation uint64 // of this start
	report      wal.Report
	buf         []byte
}

// openDisk opens the log, replays it, and records a new incarnation, durably.
func openDisk(fs wal.FS, dir string, identity wal.Identity) (*disk, error) {
	d := &disk{storage: raft.NewMemoryStorage()}
	var err error
	d.log, d.report, err = wal.Open(wal.Options{FS: fs, Dir: dir, Identity: identity}, d.replay)
	if err != nil {
		return nil, err
	}
	d.incarnation++
	boot := binary.AppendUvarint([]byte{recordBoot}, d.incarnation)
	if err := errors.Join(d.log.Append(boot), d.log.Sync()); err != nil {
		return nil, errors.Join(err, d.log.Close())
	}
	return d, nil
}

func (d *disk) replay(record []byte) error {
	switch record[0] {
	case recordBoot:
		incarnation, n := binary.Uvarint(record[1:])
		if n <= 0 || n != len(record)-1 || incarnation != d.incarnation+1 {
			return fmt.Errorf("start number %d follows %d", incarnation, d.incarnation)
		}
		d.incarnation = incarnation
		return nil
	case recordWrite:
		hard, entries, err := decodeWrite(record)
		if err != nil {
			return err
		}
		if err := d.storage.Append(entries); err != nil {
			return err
		}
		if hard != (raft.HardState{}) {
			d.storage.SetHardState(hard)
		}
		return nil
	}
	return fmt.Errorf("record of unknown kind %d", record[0])
}

// append hands a write to the log. It is not durable yet.
func (d *disk) append(w replica.Write) error {
	return encodeWrite(&d.buf, w, d.log.Append)
}

// encodeWrite turns a write into records and emits each; buf is scratch space.
func encodeWrite(buf *[]byte, w replica.Write, emit func(record []byte) error) error {
	entries := w.Entries
	for {
		n, size := 0, 0
		for n < len(entries) && (n == 0 || size+len(entries[n].Data) < maxRecordBytes) {
			size += len(entries[n].Data) + 32
			n++
		}
		last := n == len(entries)
		hard := raft.HardState{}
		if last {
			hard = w.HardState
		}
		if n == 0 && hard == (raft.HardState{}) {
			return nil // only messages wait for this write, not data
		}
		*buf = appendWrite((*buf)[:0], hard, entries[:n])
		if err := emit(*buf); err != nil {
			return err
		}
		if last {
			return nil
		}
		entries = entries[n:]
	}
}

func appendWrite(b []byte, hard raft.HardState, entries []raft.Entry) []byte {
	b = append(b, recordWrite, 0)
	if hard != (raft.HardState{}) {
		b[len(b)-1] = flagHardState
		b = binary.AppendUvarint(b, hard.Term)
		b = binary.AppendUvarint(b, hard.Vote)
		b = binary.AppendUvarint(b, hard.Commit)
	}
	b = binary.AppendUvarint(b, uint64(len(entries)))
	var scratch [128]byte
	for _, e := range entries {
		encoded := raft.EncodeEntry(scratch[:0], e)
		b = binary.AppendUvarint(b, uint64(len(encoded)))
		b = append(b, encoded...)
	}
	return b
}

var errRecord = errors.New("malformed write record")

// decodeWrite is the inverse of appendWrite. The entries do not refer to the record.
func decodeWrite(record []byte) (hard raft.HardState, entries []raft.Entry, err error) {
	if len(record) < 2 || record[1]&^flagHardState != 0 {
		return hard, nil, errRecord
	}
	rest := append([]byte(nil), record[2:]...)
	bad := false
	next := func() uint64 {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			bad = true
			return 0
		}
		rest = rest[n:]
		return v
	}
	if record[1] == flagHardState {
		hard = raft.HardState{Term: next(), Vote: next(), Commit: next()}
	}
	count := next()
	for range count {
		length := next()
		if bad || length > uint64(len(rest)) {
			return raft.HardState{}, nil, errRecord
		}
		e, err := raft.DecodeEntry(rest[:length:length])
		if err != nil {
			return raft.HardState{}, nil, fmt.Errorf("%w: %w", errRecord, err)
		}
		rest = rest[length:]
		if n := len(entries); n > 0 && e.Index != entries[n-1].Index+1 {
			return raft.HardState{}, nil, fmt.Errorf("%w: entry %d after %d", errRecord, e.Index, entries[n-1].Index)
		}
		entries = append(entries, e)
	}
	if bad || len(rest) > 0 {
		return raft.HardState{}, nil, errRecord
	}
	return hard, entries, nil
}
