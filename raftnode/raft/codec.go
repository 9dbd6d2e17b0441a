package raft

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Messages and entries on the wire are Protocol Buffers with the field numbers of
// etcd-raft's raftpb, so that the two understand each other.

const (
	entryTerm, entryIndex, entryType, entryData = 2, 3, 1, 4

	messageType, messageTo, messageFrom, messageTerm = 1, 2, 3, 4
	messageLogTerm, messageIndex, messageEntries     = 5, 6, 7
	messageCommit, messageReject, messageRejectHint  = 8, 10, 11
	messageContext                                   = 12
)

// EncodeEntry appends the entry's wire form to b.
func EncodeEntry(b []byte, e Entry) []byte {
	b = appendUint(b, entryType, uint64(e.Type))
	b = appendUint(b, entryTerm, e.Term)
	b = appendUint(b, entryIndex, e.Index)
	if len(e.Data) > 0 {
		b = protowire.AppendTag(b, entryData, protowire.BytesType)
		b = protowire.AppendBytes(b, e.Data)
	}
	return b
}

// EncodeMessage appends the message's wire form to b.
func EncodeMessage(b []byte, m Message) []byte {
	b = appendUint(b, messageType, uint64(m.Type))
	b = appendUint(b, messageTo, m.To)
	b = appendUint(b, messageFrom, m.From)
	b = appendUint(b, messageTerm, m.Term)
	b = appendUint(b, messageLogTerm, m.LogTerm)
	b = appendUint(b, messageIndex, m.Index)
	for _, e := range m.Entries {
		b = protowire.AppendTag(b, messageEntries, protowire.BytesType)
		b = protowire.AppendBytes(b, EncodeEntry(nil, e))
	}
	b = appendUint(b, messageCommit, m.Commit)
	b = appendUint(b, messageReject, protowire.EncodeBool(m.Reject))
	b = appendUint(b, messageRejectHint, m.RejectHint)
	if len(m.Context) > 0 {
		b = protowire.AppendTag(b, messageContext, protowire.BytesType)
		b = protowire.AppendBytes(b, m.Context)
	}
	return b
}

func appendUint(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// DecodeEntry reads an entry. Data refers to b.
func DecodeEntry(b []byte) (Entry, error) {
	var e Entry
	err := eachField(b, func(field protowire.Number, v uint64, data []byte) error {
		switch field {
		case entryType:
			e.Type = EntryType(v)
		case entryTerm:
			e.Term = v
		case entryIndex:
			e.Index = v
		case entryData:
			e.Data = data
		}
		return nil
	})
	if err != nil {
		return Entry{}, fmt.Errorf("decode entry: %w", err)
	}
	return e, nil
}

// DecodeMessage reads a message. Entries' data and the context refer to b.
func DecodeMessage(b []byte) (Message, error) {
	var m Message
	err := eachField(b, func(field protowire.Number, v uint64, data []byte) error {
		switch field {
		case messageType:
			m.Type = MessageType(v)
		case messageTo:
			m.To = v
		case messageFrom:
			m.From = v
		case messageTerm:
			m.Term = v
		case messageLogTerm:
			m.LogTerm = v
		case messageIndex:
			m.Index = v
		case messageEntries:
			e, err := DecodeEntry(data)
			if err != nil {
				return err
			}
			m.Entries = append(m.Entries, e)
		case messageCommit:
			m.Commit = v
		case messageReject:
			m.Reject = protowire.DecodeBool(v)
		case messageRejectHint:
			m.RejectHint = v
		case messageContext:
			m.Context = data
		}
		return nil
	})
	if err != nil {
		return Message{}, fmt.Errorf("decode message: %w", err)
	}
	return m, nil
}

// eachField calls do for each field: v for a number, data for bytes. Unknown wire types
// are skipped, as Protocol Buffers asks.
func eachField(b []byte, do func(field protowire.Number, v uint64, data []byte) error) error {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var v uint64
		var data []byte
		switch kind {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			data, n = protowire.ConsumeBytes(b)
		default:
			if n = protowire.ConsumeFieldValue(field, kind, b); n >= 0 {
				b = b[n:]
				continue
			}
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := do(field, v, data); err != nil {
			return err
		}
	}
	return nil
}
