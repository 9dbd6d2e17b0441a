// Package membership is the arithmetic of configurations: who votes, who learns, and how
// one configuration becomes the next without a moment in which two disjoint majorities
// could decide.
//
// A [Config] is a value; each change returns a new one. Changes of one voter are simple
// (dissertation 4.1): any two majorities before and after share a node. Others go through
// a joint configuration, in which both the incoming and the outgoing majority must agree
// (Raft paper 6, dissertation 4.3). Everything here is a pure function.
package membership

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"capsize/raftnode/raft/quorum"
)

// State is a configuration as it is stored in snapshots and sent to other nodes.
type State struct {
	Voters         []uint64 // the incoming half, while joint
	Learners       []uint64
	VotersOutgoing []uint64 // empty unless joint
	LearnersNext   []uint64 // voters of the outgoing half that become learners when it is left
	AutoLeave      bool     // the leader leaves the joint configuration of its own accord
}

// Equivalent reports whether both describe the same configuration, in whatever order.
func (s State) Equivalent(other State) bool {
	same := func(a, b []uint64) bool { return slices.Equal(quorum.New(a), quorum.New(b)) }
	return same(s.Voters, other.Voters) && same(s.Learners, other.Learners) &&
		same(s.VotersOutgoing, other.VotersOutgoing) && same(s.LearnersNext, other.LearnersNext) &&
		s.AutoLeave == other.AutoLeave
}

// ChangeType says what a change does to a node. The numbers are etcd-raft's on the wire.
type ChangeType int32

const (
	AddNode        ChangeType = 0 // makes it a voter; promotes a learner
	RemoveNode     ChangeType = 1
	UpdateNode     ChangeType = 2 // changes nothing here; its context means something to the user
	AddLearnerNode ChangeType = 3 // makes it a learner; demotes a voter
)

var changeNames = [...]string{"AddNode", "RemoveNode", "UpdateNode", "AddLearnerNode"}

func (t ChangeType) String() string {
	if t >= 0 && int(t) < len(changeNames) {
		return changeNames[t]
	}
	return fmt.Sprintf("ChangeType(%d)", int32(t))
}

// Change is one step of a change of membership.
type Change struct {
	Type   ChangeType
	NodeID uint64 // 0: the user decided against it, nothing happens
}

// Config is a configuration. Its parts are sorted, hold nobody twice, and are never
// changed in place.
type Config struct {
	Voters       quorum.Joint // the outgoing half is empty unless joint
	Learners     quorum.Majority
	LearnersNext quorum.Majority
	AutoLeave    bool
}

// Joint reports whether the configuration is one in which two majorities decide.
func (c Config) Joint() bool { return len(c.Voters[1]) > 0 }

// Members returns everybody, sorted: voters of both halves and learners.
func (c Config) Members() []uint64 {
	return quorum.New(slices.Concat(c.Voters[0], c.Voters[1], c.Learners))
}

// Contains reports whether id is a voter of either half, or a learner.
func (c Config) Contains(id uint64) bool { return c.Voters.Contains(id) || c.Learners.Contains(id) }

// State returns the configuration as it is stored.
func (c Config) State() State {
	return State{
		Voters: slices.Clone(c.Voters[0]), VotersOutgoing: slices.Clone(c.Voters[1]),
		Learners: slices.Clone(c.Learners), LearnersNext: slices.Clone(c.LearnersNext),
		AutoLeave: c.AutoLeave,
	}
}

// Restore returns the configuration that was stored.
func Restore(s State) (Config, error) {
	c := Config{
		Voters:   quorum.Joint{quorum.New(s.Voters), quorum.New(s.VotersOutgoing)},
		Learners: quorum.New(s.Learners), LearnersNext: quorum.New(s.LearnersNext),
		AutoLeave: s.AutoLeave,
	}
	if err := c.check(); err != nil {
		return Config{}, fmt.Errorf("restore configuration %v: %w", c, err)
	}
	return c, nil
}

// Errors of changes that cannot be made to a configuration.
var (
	ErrJoint    = errors.New("the configuration is joint already: leave it first")
	ErrNotJoint = errors.New("the configuration is not joint: there is nothing to leave")
	ErrNoVoter  = errors.New("no voter would be left")
	ErrTooMuch  = errors.New("more than one voter would change outside a joint configuration")
)

// Simple makes changes that touch one voter at most.
func (c Config) Simple(changes ...Change) (Config, error) {
	if c.Joint() {
		return c, ErrJoint
	}
	next, err := c.apply(changes)
	if err != nil {
		return c, err
	}
	if difference(c.Voters[0], next.Voters[0]) > 1 {
		return c, ErrTooMuch
	}
	return next, next.check()
}

// EnterJoint makes the present voters the outgoing half and applies the changes to the
// incoming one. autoLeave is noted for the leader.
func (c Config) EnterJoint(autoLeave bool, changes ...Change) (Config, error) {
	if c.Joint() {
		return c, ErrJoint
	}
	if len(c.Voters[0]) == 0 {
		return c, ErrNoVoter
	}
	joint := c
	joint.Voters[1] = c.Voters[0]
	next, err := joint.apply(changes)
	if err != nil {
		return c, err
	}
	next.AutoLeave = autoLeave
	return next, next.check()
}

// LeaveJoint drops the outgoing half; who was only waiting to become a learner is one.
func (c Config) LeaveJoint() (Config, error) {
	if !c.Joint() {
		return c, ErrNotJoint
	}
	next := Config{
		Voters:   quorum.Joint{c.Voters[0], nil},
		Learners: quorum.New(slices.Concat(c.Learners, c.LearnersNext)),
	}
	return next, next.check()
}

func (c Config) apply(changes []Change) (Config, error) {
	for _, change := range changes {
		id := change.NodeID
		if id == 0 {
			continue
		}
		switch change.Type {
		case AddNode:
			c = c.without(id)
			c.Voters[0] = with(c.Voters[0], id)
		case AddLearnerNode:
			if c.Learners.Contains(id) || c.LearnersNext.Contains(id) {
				continue
			}
			c = c.without(id)
			// A node cannot vote in the outgoing half and be a learner at once: it waits.
			if c.Voters[1].Contains(id) {
				c.LearnersNext = with(c.LearnersNext, id)
			} else {
				c.Learners = with(c.Learners, id)
			}
		case RemoveNode:
			c = c.without(id)
		case UpdateNode:
		default:
			return c, fmt.Errorf("change of node %d: unknown type %v", id, change.Type)
		}
	}
	if len(c.Voters[0]) == 0 {
		return c, ErrNoVoter
	}
	return c, nil
}

// without takes a node out of everything but the outgoing half, which is never changed.
func (c Config) without(id uint64) Config {
	c.Voters[0] = without(c.Voters[0], id)
	c.Learners = without(c.Learners, id)
	c.LearnersNext = without(c.LearnersNext, id)
	return c
}

func with(set quorum.Majority, id uint64) quorum.Majority {
	return quorum.New(append(slices.Clone(set), id))
}

func without(set quorum.Majority, id uint64) quorum.Majority {
	if !set.Contains(id) {
		return set
	}
	return slices.DeleteFunc(slices.Clone(set), func(other uint64) bool { return other == id })
}

// difference counts the nodes that are in one set only.
func difference(a, b quorum.Majority) int {
	n := 0
	for _, id := range a {
		if !b.Contains(id) {
			n++
		}
	}
	for _, id := range b {
		if !a.Contains(id) {
			n++
		}
	}
	return n
}

// check says what is wrong with a configuration in itself.
func (c Config) check() error {
	for _, set := range []quorum.Majority{c.Voters[0], c.Voters[1], c.Learners, c.LearnersNext} {
		if set.Contains(0) {
			return errors.New("0 names no node")
		}
	}
	for _, id := range c.Learners {
		if c.Voters.Contains(id) {
			return fmt.Errorf("node %d is a learner and a voter at once", id)
		}
	}
	for _, id := range c.LearnersNext {
		if !c.Voters[1].Contains(id) || c.Voters[0].Contains(id) {
			return fmt.Errorf("node %d is to become a learner, so it must vote in the outgoing half only", id)
		}
	}
	if !c.Joint() && c.AutoLeave {
		return errors.New("it is to be left, but is not joint")
	}
	return nil
}

// String writes the configuration as in "voters=(1 2 3)&&(1 2 4) learners=(5)".
func (c Config) String() string {
	var b strings.Builder
	b.WriteString("voters=")
	writeSet(&b, c.Voters[0])
	if c.Joint() {
		b.WriteString("&&")
		writeSet(&b, c.Voters[1])
	}
	if len(c.Learners) > 0 {
		b.WriteString(" learners=")
		writeSet(&b, c.Learners)
	}
	if len(c.LearnersNext) > 0 {
		b.WriteString(" learners_next=")
		writeSet(&b, c.LearnersNext)
	}
	if c.AutoLeave {
		b.WriteString(" autoleave")
	}
	return b.String()
}

func writeSet(b *strings.Builder, set quorum.Majority) {
	b.WriteByte('(')
	for i, id := range set {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprint(b, id)
	}
	b.WriteByte(')')
}
