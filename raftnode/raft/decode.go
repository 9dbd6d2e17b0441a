package raft

import (
	"bytes"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

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
// skipped, and so are Responses: messages that have any never travel.
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
			err = decodeInto(&m.Entries, f, DecodeEntry)
		case fieldCommit:
			m.Commit, err = f.uint64()
		case fieldReject:
			m.Reject, err = f.bool()
		case fieldRejectHint:
			m.RejectHint, err = f.uint64()
		case fieldContext:
			m.Context, err = f.copied()
		case fieldVote:
			m.Vote, err = f.uint64()
		case fieldSnapshot:
			m.Snapshot, err = decodeField(f, DecodeSnapshot)
		}
		return err
	})
	if err != nil {
		return Message{}, fmt.Errorf("raft: decode message: %w", err)
	}
	return m, nil
}

// DecodeSnapshot reads a snapshot. It keeps nothing of b.
func DecodeSnapshot(b []byte) (*Snapshot, error) {
	s := new(Snapshot)
	err := eachField(b, func(f wireField) (err error) {
		switch f.number {
		case fieldSnapshotData:
			s.Data, err = f.copied()
		case fieldSnapshotMetadata:
			s.Metadata, err = decodeField(f, decodeMetadata)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("raft: decode snapshot: %w", err)
	}
	return s, nil
}

func decodeMetadata(b []byte) (SnapshotMetadata, error) {
	var m SnapshotMetadata
	err := eachField(b, func(f wireField) (err error) {
		switch f.number {
		case fieldMetadataConfState:
			m.ConfState, err = decodeField(f, DecodeConfState)
		case fieldMetadataIndex:
			m.Index, err = f.uint64()
		case fieldMetadataTerm:
			m.Term, err = f.uint64()
		}
		return err
	})
	return m, err
}

// DecodeConfState reads a configuration. Whether it is a possible one is not looked at.
func DecodeConfState(b []byte) (ConfState, error) {
	var c ConfState
	err := eachField(b, func(f wireField) (err error) {
		switch f.number {
		case fieldConfVoters:
			err = f.appendTo(&c.Voters)
		case fieldConfLearners:
			err = f.appendTo(&c.Learners)
		case fieldConfVotersOutgoing:
			err = f.appendTo(&c.VotersOutgoing)
		case fieldConfLearnersNext:
			err = f.appendTo(&c.LearnersNext)
		case fieldConfAutoLeave:
			c.AutoLeave, err = f.bool()
		}
		return err
	})
	if err != nil {
		return ConfState{}, fmt.Errorf("raft: decode configuration: %w", err)
	}
	return c, nil
}

// DecodeConfChange reads a change of membership.
func DecodeConfChange(b []byte) (ConfChange, error) {
	var c ConfChange
	err := eachField(b, func(f wireField) (err error) {
		switch f.number {
		case fieldChangeID:
			c.ID, err = f.uint64()
		case fieldChangeType:
			c.Type, err = f.changeType()
		case fieldChangeNodeID:
			c.NodeID, err = f.uint64()
		case fieldChangeContext:
			c.Context, err = f.copied()
		}
		return err
	})
	if err != nil {
		return ConfChange{}, fmt.Errorf("raft: decode change of membership: %w", err)
	}
	return c, nil
}

// DecodeConfChangeV2 reads a change of membership.
func DecodeConfChangeV2(b []byte) (ConfChangeV2, error) {
	var c ConfChangeV2
	err := eachField(b, func(f wireField) (err error) {
		switch f.number {
		case fieldChangeV2Transition:
			var t int32
			if t, err = f.int32(); err == nil && t > int32(TransitionJointExplicit) {
				err = fmt.Errorf("field %d is %d: no transition has that number", f.number, t)
			}
			c.Transition = ConfChangeTransition(t)
		case fieldChangeV2Changes:
			err = decodeInto(&c.Changes, f, decodeSingle)
		case fieldChangeV2Context:
			c.Context, err = f.copied()
		}
		return err
	})
	if err != nil {
		return ConfChangeV2{}, fmt.Errorf("raft: decode change of membership: %w", err)
	}
	return c, nil
}

func decodeSingle(b []byte) (ConfChangeSingle, error) {
	var c ConfChangeSingle
	err := eachField(b, func(f wireField) (err error) {
		switch f.number {
		case fieldSingleType:
			c.Type, err = f.changeType()
		case fieldSingleNodeID:
			c.NodeID, err = f.uint64()
		}
		return err
	})
	return c, err
}

func decodeField[T any](f wireField, decode func([]byte) (T, error)) (v T, err error) {
	data, err := f.bytes()
	if err != nil {
		return v, err
	}
	return decode(data)
}

func decodeInto[T any](list *[]T, f wireField, decode func([]byte) (T, error)) error {
	v, err := decodeField(f, decode)
	if err == nil {
		*list = append(*list, v)
	}
	return err
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

func (f wireField) bool() (bool, error) {
	v, err := f.uint64()
	return protowire.DecodeBool(v), err
}

func (f wireField) changeType() (ConfChangeType, error) {
	t, err := f.int32()
	if err == nil && t > int32(ConfChangeAddLearnerNode) {
		err = fmt.Errorf("field %d is %d: no kind of change has that number", f.number, t)
	}
	return ConfChangeType(t), err
}

// appendTo reads a number, or several that are packed into one field.
func (f wireField) appendTo(numbers *[]uint64) error {
	if f.kind == protowire.VarintType {
		*numbers = append(*numbers, f.varint)
		return nil
	}
	packed, err := f.bytes()
	for err == nil && len(packed) > 0 {
		v, n := protowire.ConsumeVarint(packed)
		if n < 0 {
			return fmt.Errorf("field %d: %w", f.number, protowire.ParseError(n))
		}
		*numbers, packed = append(*numbers, v), packed[n:]
	}
	return err
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
