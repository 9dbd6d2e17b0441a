package raft

import "capsize/raftnode/raft/membership"

// Aliases, so that a user of the core needs one package.
type (
	ConfChangeType   = membership.ChangeType
	ConfChangeSingle = membership.Change
)

const (
	ConfChangeAddNode        = membership.AddNode
	ConfChangeRemoveNode     = membership.RemoveNode
	ConfChangeUpdateNode     = membership.UpdateNode
	ConfChangeAddLearnerNode = membership.AddLearnerNode
)

// ConfChangeI is a change of membership, in the form of either version.
type ConfChangeI interface {
	AsV2() ConfChangeV2
	// entry returns the entry that proposes the change.
	entry() Entry
}

// ConfChange changes one node (dissertation 4.1).
type ConfChange struct {
	ID      uint64 // the user's
	Type    ConfChangeType
	NodeID  uint64 // 0: nothing happens
	Context []byte // the user's: an address, for example
}

// AsV2 implements ConfChangeI.
func (c ConfChange) AsV2() ConfChangeV2 {
	return ConfChangeV2{Changes: []ConfChangeSingle{{Type: c.Type, NodeID: c.NodeID}}, Context: c.Context}
}

func (c ConfChange) entry() Entry {
	return Entry{Type: EntryConfChange, Data: EncodeConfChange(nil, c)}
}

// ConfChangeTransition says whether a change goes through a joint configuration, and who
// leaves it.
type ConfChangeTransition int32

const (
	// TransitionAuto: joint only where more than one node changes; the leader leaves it.
	TransitionAuto ConfChangeTransition = 0
	// TransitionJointImplicit: joint in any case; the leader leaves it.
	TransitionJointImplicit ConfChangeTransition = 1
	// TransitionJointExplicit: joint in any case; left when an empty change is proposed.
	TransitionJointExplicit ConfChangeTransition = 2
)

// ConfChangeV2 changes any number of nodes at once (Raft paper 6). With no changes it
// leaves a joint configuration.
type ConfChangeV2 struct {
	Transition ConfChangeTransition
	Changes    []ConfChangeSingle
	Context    []byte // the user's
}

// AsV2 implements ConfChangeI.
func (c ConfChangeV2) AsV2() ConfChangeV2 { return c }

func (c ConfChangeV2) entry() Entry {
	return Entry{Type: EntryConfChangeV2, Data: EncodeConfChangeV2(nil, c)}
}

// entersJoint reports whether the change goes through a joint configuration, and whether
// the leader leaves that of its own accord.
func (c ConfChangeV2) entersJoint() (autoLeave, joint bool) {
	if c.Transition == TransitionAuto && len(c.Changes) <= 1 {
		return false, false
	}
	return c.Transition != TransitionJointExplicit, true
}

// leavesJoint reports whether the change leaves a joint configuration.
func (c ConfChangeV2) leavesJoint() bool {
	return c.Transition == TransitionAuto && len(c.Changes) == 0
}

// Next returns the configuration that the change makes of the present one, or why it
// cannot be made.
func (c ConfChangeV2) Next(present membership.Config) (membership.Config, error) {
	if c.leavesJoint() {
		return present.LeaveJoint()
	}
	if autoLeave, joint := c.entersJoint(); joint {
		return present.EnterJoint(autoLeave, c.Changes...)
	}
	return present.Simple(c.Changes...)
}

// isConfChange reports whether the entry changes the membership.
func (e Entry) isConfChange() bool { return e.Type == EntryConfChange || e.Type == EntryConfChangeV2 }

// DecodeConfChangeEntry returns the change of membership that an entry of type
// EntryConfChange or EntryConfChangeV2 holds.
func DecodeConfChangeEntry(e Entry) (ConfChangeI, error) {
	if e.Type == EntryConfChange {
		return DecodeConfChange(e.Data)
	}
	return DecodeConfChangeV2(e.Data)
}
