package disk

import (
	"encoding/binary"
	"errors"
	"fmt"

	"capsize/raftnode/internal/varint"
	"capsize/raftnode/raft"
)

// The log holds records of these kinds, told apart by their first byte:
//
//	boot      incarnation
//	head      incarnation | term, vote, commit | index and term of the snapshot, or zeros
//	write     flags 1 | term, vote, commit (if flagged) | index and term of a snapshot that
//	          replaced the log (if flagged) | number of entries | each: length, entry
//	snapshot  index and term of one that was taken of the state machine
//
// where numbers are varints and entries are in their wire form. One write is one record, or
// several where it is large: then the hard state stands in the last, so that it is never
// durable without the entries that it speaks of.
const (
	recordBoot     = 1
	recordWrite    = 2
	recordSnapshot = 3
	recordHead     = 4

	flagHardState = 1
	flagInstalled = 2
	// maxRecordBytes is where a write is split. It bounds what is read back at once.
	maxRecordBytes = 4 << 20
)

// position is where a snapshot stands in the log; zero for none.
type position struct{ index, term uint64 }

// write is what a write record holds.
type write struct {
	hard      raft.HardState // zero: unchanged
	installed position       // not zero: the log was replaced by that snapshot, before the entries
	entries   []raft.Entry
}

// encodeWrite turns a write into records and emits each; buf is scratch space.
func encodeWrite(buf *[]byte, w write, emit func(record []byte) error) error {
	entries := w.entries
	for {
		n, size := 0, 0
		// What replaces the log must not be durable without its hard state: it is never split.
		for n < len(entries) && (n == 0 || size+len(entries[n].Data) < maxRecordBytes || w.installed != position{}) {
			size += len(entries[n].Data) + 32
			n++
		}
		last := n == len(entries)
		part := write{entries: entries[:n]}
		if last {
			part.hard, part.installed = w.hard, w.installed
		}
		if n == 0 && part.hard == (raft.HardState{}) && part.installed == (position{}) {
			return nil // only messages wait for this write, not data
		}
		*buf = appendWrite((*buf)[:0], part)
		if err := emit(*buf); err != nil {
			return err
		}
		if last {
			return nil
		}
		entries = entries[n:]
	}
}

func appendWrite(b []byte, w write) []byte {
	b = append(b, recordWrite, 0)
	flags := len(b) - 1
	if w.hard != (raft.HardState{}) {
		b[flags] |= flagHardState
		b = appendHardState(b, w.hard)
	}
	if w.installed != (position{}) {
		b[flags] |= flagInstalled
		b = appendPosition(b, w.installed)
	}
	b = binary.AppendUvarint(b, uint64(len(w.entries)))
	var scratch [128]byte
	for _, e := range w.entries {
		encoded := raft.EncodeEntry(scratch[:0], e)
		b = binary.AppendUvarint(b, uint64(len(encoded)))
		b = append(b, encoded...)
	}
	return b
}

func appendHardState(b []byte, h raft.HardState) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(b, h.Term), h.Vote), h.Commit)
}

func appendPosition(b []byte, p position) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, p.index), p.term)
}

var errRecord = errors.New("malformed record")

func readHardState(in *varint.Reader) raft.HardState {
	return raft.HardState{Term: in.Next(), Vote: in.Next(), Commit: in.Next()}
}

func readPosition(in *varint.Reader) position { return position{in.Next(), in.Next()} }

// end is an error unless everything was well formed and read.
func end(in *varint.Reader) error {
	if !in.Complete() {
		return errRecord
	}
	return nil
}

// decodeWrite is the inverse of appendWrite. The entries do not refer to the record.
func decodeWrite(record []byte) (w write, err error) {
	if len(record) < 2 || record[1]&^(flagHardState|flagInstalled) != 0 {
		return write{}, errRecord
	}
	in := varint.NewReader(record[2:])
	if record[1]&flagHardState != 0 {
		w.hard = readHardState(in)
	}
	if record[1]&flagInstalled != 0 {
		w.installed = readPosition(in)
	}
	count := in.Next()
	w.entries = make([]raft.Entry, 0, min(count, 1024))
	for range count {
		encoded := in.Bytes(len(record))
		if in.Bad() {
			return write{}, errRecord
		}
		e, err := raft.DecodeEntry(encoded)
		if err != nil {
			return write{}, fmt.Errorf("%w: %w", errRecord, err)
		}
		if n := len(w.entries); n > 0 && e.Index != w.entries[n-1].Index+1 {
			return write{}, fmt.Errorf("%w: entry %d after %d", errRecord, e.Index, w.entries[n-1].Index)
		}
		w.entries = append(w.entries, e)
	}
	return w, end(in)
}
