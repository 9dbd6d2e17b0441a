package raft

import "google.golang.org/protobuf/encoding/protowire"

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
	fieldSnapshot   protowire.Number = 9
	fieldReject     protowire.Number = 10
	fieldRejectHint protowire.Number = 11
	fieldContext    protowire.Number = 12
	fieldVote       protowire.Number = 13
	fieldResponses  protowire.Number = 14

	fieldSnapshotData     protowire.Number = 1
	fieldSnapshotMetadata protowire.Number = 2

	fieldMetadataConfState protowire.Number = 1
	fieldMetadataIndex     protowire.Number = 2
	fieldMetadataTerm      protowire.Number = 3

	fieldConfVoters         protowire.Number = 1
	fieldConfLearners       protowire.Number = 2
	fieldConfVotersOutgoing protowire.Number = 3
	fieldConfLearnersNext   protowire.Number = 4
	fieldConfAutoLeave      protowire.Number = 5

	fieldChangeID      protowire.Number = 1
	fieldChangeType    protowire.Number = 2
	fieldChangeNodeID  protowire.Number = 3
	fieldChangeContext protowire.Number = 4

	fieldChangeV2Transition protowire.Number = 1
	fieldChangeV2Changes    protowire.Number = 2
	fieldChangeV2Context    protowire.Number = 3

	fieldSingleType   protowire.Number = 1
	fieldSingleNodeID protowire.Number = 2
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
		b = appendMessage(b, fieldEntries, scratch)
	}
	b = appendNumber(b, fieldCommit, m.Commit)
	if m.Snapshot != nil {
		b = appendMessage(b, fieldSnapshot, EncodeSnapshot(nil, m.Snapshot))
	}
	b = appendNumber(b, fieldReject, protowire.EncodeBool(m.Reject))
	b = appendNumber(b, fieldRejectHint, m.RejectHint)
	b = appendBytes(b, fieldContext, m.Context)
	b = appendNumber(b, fieldVote, m.Vote)
	for _, response := range m.Responses {
		b = appendMessage(b, fieldResponses, EncodeMessage(nil, response))
	}
	return b
}

// EncodeSnapshot appends the snapshot's wire form to b.
func EncodeSnapshot(b []byte, s *Snapshot) []byte {
	b = appendBytes(b, fieldSnapshotData, s.Data)
	meta := appendMessage(nil, fieldMetadataConfState, EncodeConfState(nil, s.Metadata.ConfState))
	meta = appendNumber(meta, fieldMetadataIndex, s.Metadata.Index)
	meta = appendNumber(meta, fieldMetadataTerm, s.Metadata.Term)
	return appendMessage(b, fieldSnapshotMetadata, meta)
}

// EncodeConfState appends the configuration's wire form to b.
func EncodeConfState(b []byte, c ConfState) []byte {
	b = appendNumbers(b, fieldConfVoters, c.Voters)
	b = appendNumbers(b, fieldConfLearners, c.Learners)
	b = appendNumbers(b, fieldConfVotersOutgoing, c.VotersOutgoing)
	b = appendNumbers(b, fieldConfLearnersNext, c.LearnersNext)
	return appendNumber(b, fieldConfAutoLeave, protowire.EncodeBool(c.AutoLeave))
}

// EncodeConfChange appends the change's wire form to b.
func EncodeConfChange(b []byte, c ConfChange) []byte {
	b = appendNumber(b, fieldChangeID, c.ID)
	b = appendNumber(b, fieldChangeType, uint64(c.Type))
	b = appendNumber(b, fieldChangeNodeID, c.NodeID)
	return appendBytes(b, fieldChangeContext, c.Context)
}

// EncodeConfChangeV2 appends the change's wire form to b. That of a change that leaves a
// joint configuration is empty.
func EncodeConfChangeV2(b []byte, c ConfChangeV2) []byte {
	b = appendNumber(b, fieldChangeV2Transition, uint64(c.Transition))
	for _, change := range c.Changes {
		single := appendNumber(nil, fieldSingleType, uint64(change.Type))
		b = appendMessage(b, fieldChangeV2Changes, appendNumber(single, fieldSingleNodeID, change.NodeID))
	}
	return appendBytes(b, fieldChangeV2Context, c.Context)
}

func appendNumber(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// appendNumbers writes each number as a field of its own, as Protocol Buffers 2 does.
func appendNumbers(b []byte, field protowire.Number, numbers []uint64) []byte {
	for _, n := range numbers {
		b = protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), n)
	}
	return b
}

// appendMessage writes a message within a message: an empty one is one, too.
func appendMessage(b []byte, field protowire.Number, message []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), message)
}

func appendBytes(b []byte, field protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}
