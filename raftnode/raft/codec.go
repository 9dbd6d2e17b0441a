package raft

import (
	"bytes"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Messages and entries on the wire are Protocol Buffers with the field numbers of
// etcd-raft's raftpb. Fields that are zero or empty are left out.

const (
	fieldEntryType  protowire.Number = 1
	fieldEntryTerm  protowire.Number = 2
	fieldEntryIndex protowire.Number = 3
	fieldEntryData  protowire.Number = 4

	fieldType       protowire.Number = 1
	fieldTo         protowire.Number = 2
	fieldFrom       protowire.Number = 3
	fieldTerm       protowire.Number = 4
	fieldLogTerm    protowire.Number = 5
	fieldIndex      protowire.Number = 6
	fieldEntries    protowire.Number = 7
	fieldCommit     protowire.Number = 8
	fieldReject     protowire.Number = 10
	fieldRejectHint protowire.Number = 11
	fieldContext    protowire.Number = 12
)

// EncodeEntry appends the entry's wire form to b.
func EncodeEntry(b []byte, e Entry) []byte {
	b = appendNumber(b, fieldEntryType, uint64(e.Type))
	b = appendNumber(b, fieldEntryTerm, e.Term)
	b = appendNumber(b, fieldEntryIndex, e.Index)
	return appendBytes(b, fieldEntryData, e.Data)
}

// EncodeMessage appends the message's wire form to b.
func EncodeMessage(b []byte, m Message) []byte {
	b = appendNumber(b, fieldType, uint64(m.Type))
	b = appendNumber(b, fieldTo, m.To)
	b = appendNumber(b, fieldFrom, m.From)
	b = appendNumber(b, fieldTerm, m.Term)
	b = appendNumber(b, fieldLogTerm, m.LogTerm)
	b = appendNumber(b, fieldIndex, m.Index)
	var scratch []byte
	for _, e := range m.Entries {
		scratch = EncodeEntry(scratch[:0], e)
		b = protowire.AppendTag(b, fieldEntries, protowire.BytesType)
		b = protowire.AppendBytes(b, scratch) // an empty entry is an entry
	}
	b = appendNumber(b, fieldCommit, m.Commit)
	b = appendNumber(b, fieldReject, protowire.EncodeBool(m.Reject))
	b = appendNumber(b, fieldRejectHint, m.RejectHint)
	return appendBytes(b, fieldContext, m.Context)
}

func appendNumber(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func appendBytes(b []byte, field protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

// DecodeEntry reads an entry. It keeps nothing of b. Fields that it does not know are
// skipped.
func DecodeEntry(b []byte) (Entry, error) {
	var e Entry
	err := eachField(b, func(f wireField) (err error) {
		switch f.number {
		case fieldEntryType:
			var t int32
			t, err = f.int32()
			e.Type = EntryType(t)
		case fieldEntryTerm:
			e.Term, err = f.uint64()
		case fieldEntryIndex:
			e.Index, err = f.uint64()
		case fieldEntryData:
			e.Data, err = f.copied()
		}
		return err
	})
	if err != nil {
		return Entry{}, fmt.Errorf("raft: decode entry: %w", err)
	}
	return e, nil
}

// DecodeMessage reads a message. It keeps nothing of b. Fields that it does not know are
// skipped.
func DecodeMessage(b []byte) (Message, error) {
	var m Message
	err := eachField(b, func(f wireField) (err error) {
		switch f.number {
		case fieldType:
			var t int32
			t, err = f.int32()
			m.Type = MessageType(t)
		case fieldTo:
			m.To, err = f.uint64()
		case fieldFrom:
			m.From, err = f.uint64()
		case fieldTerm:
			m.Term, err = f.uint64()
		case fieldLogTerm:
			m.LogTerm, err = f.uint64()
		case fieldIndex:
			m.Index, err = f.uint64()
		case fieldEntries:
			err = decodeEntryInto(&m, f)
		case fieldCommit:
			m.Commit, err = f.uint64()
		case fieldReject:
			var v uint64
			v, err = f.uint64()
			m.Reject = protowire.DecodeBool(v)
		case fieldRejectHint:
			m.RejectHint, err = f.uint64()
		case fieldContext:
			m.Context, err = f.copied()
		}
		return err
	})
	if err != nil {
		return Message{}, fmt.Errorf("raft: decode message: %w", err)
	}
	return m, nil
}

func decodeEntryInto(m *Message, f wireField) error {
	data, err := f.bytes()
	if err != nil {
		return err
	}
	e, err := DecodeEntry(data)
	if err != nil {
		return err
	}
	m.Entries = append(m.Entries, e)
	return nil
}

// wireField is one field as it stands on the wire.
type wireField struct {
	number protowire.Number
	kind   protowire.Type
	varint uint64
	data   []byte
}

func (f wireField) uint64() (uint64, error) {
	if f.kind != protowire.VarintType {
		return 0, fmt.Errorf("field %d has wire type %d, not a number's", f.number, f.kind)
	}
	return f.varint, nil
}

// int32 reads the number of an enumeration. One that does not fit is refused: cut off, it
// could become another constant's.
func (f wireField) int32() (int32, error) {
	v, err := f.uint64()
	if err == nil && v > math.MaxInt32 {
		err = fmt.Errorf("field %d is %d: no constant has that number", f.number, v)
	}
	return int32(v), err
}

func (f wireField) bytes() ([]byte, error) {
	if f.kind != protowire.BytesType {
		return nil, fmt.Errorf("field %d has wire type %d, not that of bytes", f.number, f.kind)
	}
	return f.data, nil
}

// copied returns the field's bytes as the caller's own: an entry outlives the buffer that
// it came in. Empty bytes are nil, as in a field left out.
func (f wireField) copied() ([]byte, error) {
	data, err := f.bytes()
	if len(data) == 0 {
		return nil, err
	}
	return bytes.Clone(data), err
}

func eachField(b []byte, do func(wireField) error) error {
	for at := 0; len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("tag at byte %d: %w", at, protowire.ParseError(n))
		}
		b, at = b[n:], at+n
		f := wireField{number: number, kind: kind}
		switch kind {
		case protowire.VarintType:
			f.varint, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.data, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return fmt.Errorf("field %d at byte %d: %w", number, at, protowire.ParseError(n))
		}
		b, at = b[n:], at+n
		if err := do(f); err != nil {
			return err
		}
	}
	return nil
}
