package raft

import (
	"fmt"
	"math"

	"capsize/raftnode/raft/membership"
)

// None is the ID of no node.
const None uint64 = 0

// The two local threads that carry out storage work where Config.AsyncStorageWrites is
// set. No node may have such an ID.
const (
	LocalAppendThread uint64 = math.MaxUint64
	LocalApplyThread  uint64 = math.MaxUint64 - 1
)

// EntryType says what an entry's data is. The numbers are etcd-raft's on the wire.
type EntryType int32

const (
	EntryNormal       EntryType = 0
	EntryConfChange   EntryType = 1
	EntryConfChangeV2 EntryType = 2
)

// Entry is one slot of the replicated log.
type Entry struct {
	Type  EntryType
	Term  uint64
	Index uint64
	Data  []byte // empty in the entry that a new leader appends
}

// HardState is what must survive a crash besides the entries. Term and Vote must be
// durable before any message that rests on them leaves; Commit need not be.
type HardState struct {
	Term   uint64
	Vote   uint64
	Commit uint64
}

// ConfState is a configuration as it is stored and sent.
type ConfState = membership.State

// SnapshotMetadata says which prefix of the log a snapshot stands for, and the
// configuration at its end.
type SnapshotMetadata struct {
	ConfState ConfState
	Index     uint64
	Term      uint64
}

// Snapshot stands for the log up to an index. What Data holds is the user's matter.
type Snapshot struct {
	Data     []byte
	Metadata SnapshotMetadata
}

// MessageType names a message. The numbers are etcd-raft's on the wire. Local types
// never travel between nodes.
type MessageType int32

const (
	MsgHup               MessageType = 0 // local: start an election
	MsgBeat              MessageType = 1 // local: send heartbeats
	MsgProp              MessageType = 2
	MsgApp               MessageType = 3
	MsgAppResp           MessageType = 4
	MsgVote              MessageType = 5
	MsgVoteResp          MessageType = 6
	MsgSnap              MessageType = 7
	MsgHeartbeat         MessageType = 8
	MsgHeartbeatResp     MessageType = 9
	MsgUnreachable       MessageType = 10 // local
	MsgSnapStatus        MessageType = 11 // local
	MsgCheckQuorum       MessageType = 12 // local
	MsgTransferLeader    MessageType = 13
	MsgTimeoutNow        MessageType = 14
	MsgReadIndex         MessageType = 15
	MsgReadIndexResp     MessageType = 16
	MsgPreVote           MessageType = 17
	MsgPreVoteResp       MessageType = 18
	MsgStorageAppend     MessageType = 19 // local: to the append thread
	MsgStorageAppendResp MessageType = 20 // local: from the append thread
	MsgStorageApply      MessageType = 21 // local: to the apply thread
	MsgStorageApplyResp  MessageType = 22 // local: from the apply thread
	MsgForgetLeader      MessageType = 23
)

var messageTypeNames = [...]string{
	"MsgHup", "MsgBeat", "MsgProp", "MsgApp", "MsgAppResp", "MsgVote", "MsgVoteResp",
	"MsgSnap", "MsgHeartbeat", "MsgHeartbeatResp", "MsgUnreachable", "MsgSnapStatus",
	"MsgCheckQuorum", "MsgTransferLeader", "MsgTimeoutNow", "MsgReadIndex",
	"MsgReadIndexResp", "MsgPreVote", "MsgPreVoteResp", "MsgStorageAppend",
	"MsgStorageAppendResp", "MsgStorageApply", "MsgStorageApplyResp", "MsgForgetLeader",
}

// String returns the name of the constant.
func (t MessageType) String() string {
	if t >= 0 && int(t) < len(messageTypeNames) {
		return messageTypeNames[t]
	}
	return fmt.Sprintf("MessageType(%d)", int32(t))
}

// isLocal reports whether messages of that type never travel between nodes.
func (t MessageType) isLocal() bool {
	switch t {
	case MsgHup, MsgBeat, MsgUnreachable, MsgSnapStatus, MsgCheckQuorum,
		MsgStorageAppend, MsgStorageAppendResp, MsgStorageApply, MsgStorageApplyResp:
		return true
	}
	return false
}

// isResponse reports whether messages of that type answer another node's.
func (t MessageType) isResponse() bool {
	switch t {
	case MsgAppResp, MsgVoteResp, MsgHeartbeatResp, MsgReadIndexResp, MsgPreVoteResp:
		return true
	}
	return false
}

// Message is what nodes send each other, and what local events are turned into so that
// one function, Step, sees everything. Which fields mean something depends on Type.
type Message struct {
	Type       MessageType
	To, From   uint64
	Term       uint64    // 0 in local messages, MsgProp and MsgReadIndex
	LogTerm    uint64    // MsgApp: term of the entry before Entries; MsgVote, MsgPreVote: of the candidate's last; a rejecting MsgAppResp: of RejectHint; MsgStorageAppendResp: of Index
	Index      uint64    // MsgApp: index before Entries; MsgAppResp: last index matched or, with Reject, the one refused; votes: candidate's last; MsgReadIndexResp: the read index; MsgStorageAppendResp: last index that is durable now
	Entries    []Entry   // MsgApp, MsgProp, storage messages; MsgReadIndex and its response carry the read's name as the data of one entry
	Commit     uint64    // MsgApp, MsgHeartbeat, MsgStorageAppend
	Vote       uint64    // MsgStorageAppend: with Term and Commit the HardState to write, if any is not 0
	Snapshot   *Snapshot // MsgSnap, MsgStorageAppend and its response; else nil
	Reject     bool      // responses; MsgSnapStatus: the snapshot did not get there
	RejectHint uint64    // a rejecting MsgAppResp: where the logs may agree
	Context    []byte    // MsgHeartbeat and its response: the read round that it confirms; MsgVote: campaignTransfer
	Responses  []Message // storage messages: to be delivered when the work is done, in order
}
