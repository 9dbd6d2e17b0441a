package replica

import (
	"errors"
	"fmt"
	"slices"

	"capsize/raftnode/raft"
)

// An errand is a request that concerns the cluster, not its keys: who its members are, who
// leads it, a snapshot. It is done once and never repeated.
type errand struct {
	id       uint64
	kind     Kind
	deadline int
	number   uint64 // Reconfigure: in the tag of the entry
	target   uint64 // Transfer
}

// ChangeOp is what a change does to a member.
type ChangeOp uint8

const (
	AddVoter   ChangeOp = iota // of a new member
	AddLearner                 // of a new member
	Promote                    // a learner, to a voter
	Demote                     // a voter, to a learner
	Remove
	Update // its address
)

// confChangeTypes says what each ChangeOp is to the core.
var confChangeTypes = [...]raft.ConfChangeType{
	AddVoter: raft.ConfChangeAddNode, AddLearner: raft.ConfChangeAddLearnerNode, Promote: raft.ConfChangeAddNode,
	Demote: raft.ConfChangeAddLearnerNode, Remove: raft.ConfChangeRemoveNode, Update: raft.ConfChangeUpdateNode,
}

// Change is one change of the members. Several at once take effect together, by way of a
// joint configuration (Raft paper 6).
type Change struct {
	Op      ChangeOp
	Name    string
	Address string // AddVoter, AddLearner, Update
}

// promotable is how many entries a learner may lack to be made a voter: a voter that has
// little of the log would halt the cluster as soon as it was needed for a majority.
const promotable = 1024

func (r *Replica) addErrand(q Request, deadline int) {
	e := &errand{id: q.ID, kind: q.Kind, deadline: deadline}
	var err error
	switch q.Kind {
	case Reconfigure:
		err = r.reconfigure(e, q.Changes)
	case Transfer:
		err = r.transfer(e, q.To)
	case TakeSnapshot:
		if r.store.Applied() == r.snapshots.taken {
			r.reply(Reply{ID: q.ID, Outcome: Done})
			return
		}
		r.errands = append(r.errands, e)
		r.takeSnapshot(true)
		return
	}
	if err != nil {
		r.reply(Reply{ID: q.ID, Outcome: Refused, Err: err})
		return
	}
	r.errands = append(r.errands, e)
	r.finishTransfers() // that node may lead already
}

// finishTransfers answers those who wanted the present leader.
func (r *Replica) finishTransfers() {
	r.finishErrands(func(e *errand) bool { return e.kind == Transfer && e.target == r.leader }, Reply{Outcome: Done})
}

// reconfigure proposes a change of the members. Only the leader does: it alone knows whether
// one can be made now, and which ID comes next.
func (r *Replica) reconfigure(e *errand, changes []Change) error {
	if r.node.BasicStatus().RaftState != raft.Leader {
		return ErrNotLeader
	}
	change, told, err := r.resolve(changes)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if _, err := r.state.members.next(change, told); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := r.node.CheckConfChange(change); err != nil {
		return fmt.Errorf("%w: %w", ErrConfChange, err)
	}
	if err := r.caughtUp(change); err != nil {
		return err
	}
	r.writes.last++
	e.number = r.writes.last
	change.Context = encodeContext(tag{r.config.ID, r.config.Incarnation, e.number}, told)
	if err := r.node.ProposeConfChange(change); err != nil {
		return r.refusal()
	}
	return nil
}

// resolve gives names their IDs, and new members theirs.
func (r *Replica) resolve(changes []Change) (change raft.ConfChangeV2, told []Member, err error) {
	if len(changes) == 0 {
		return change, nil, errors.New("no changes")
	}
	next := r.state.members.Last
	removed := map[string]bool{} // by this very change: the name is free for another member
	for _, c := range changes {
		member := r.state.members.named(c.Name)
		fresh := c.Op == AddVoter || c.Op == AddLearner
		switch {
		case fresh && member != nil && !removed[c.Name]:
			return change, nil, fmt.Errorf("%s is a member already", c.Name)
		case !fresh && (member == nil || removed[c.Name]):
			return change, nil, fmt.Errorf("%s is no member", c.Name)
		case c.Op == Remove:
			removed[c.Name] = true
		case fresh:
			next++
			member = &Member{ID: next, Name: c.Name, Address: c.Address}
			told = append(told, *member)
		case c.Op == Update:
			told = append(told, Member{ID: member.ID, Name: c.Name, Address: c.Address})
		}
		change.Changes = append(change.Changes, raft.ConfChangeSingle{Type: confChangeTypes[c.Op], NodeID: member.ID})
	}
	return change, told, nil
}

// caughtUp refuses to make a voter of a learner that lacks much.
func (r *Replica) caughtUp(change raft.ConfChangeV2) (err error) {
	status := r.node.Status()
	for _, c := range change.Changes {
		for _, p := range status.Progress {
			if c.Type == raft.ConfChangeAddNode && p.ID == c.NodeID && p.IsLearner && p.Match+promotable < status.LastIndex {
				err = fmt.Errorf("%w: %s has entries up to %d of %d", ErrNotCaughtUp, r.state.members.find(p.ID).Name, p.Match, status.LastIndex)
			}
		}
	}
	return err
}

// transfer asks the leader to hand over to another voter.
func (r *Replica) transfer(e *errand, to string) error {
	member := r.state.members.named(to)
	switch {
	case member == nil:
		return fmt.Errorf("%w: %s is no member", ErrInvalid, to)
	case !slices.Contains(r.state.conf.Voters, member.ID):
		return fmt.Errorf("%w: %s is no voter", ErrInvalid, to)
	case r.leader == raft.None:
		return ErrNoLeader
	}
	e.target = member.ID
	if r.leader != member.ID {
		r.node.TransferLeader(member.ID)
	}
	return nil
}

// HandOver asks for another leader if this node leads, since it is about to go. It reports
// whether there is one to ask.
func (r *Replica) HandOver() bool {
	if r.failure != nil || r.node.BasicStatus().RaftState != raft.Leader {
		return false
	}
	var best raft.Progress
	for _, p := range r.node.Status().Progress {
		if p.ID != r.config.ID && !p.IsLearner && p.RecentActive && p.Match >= best.Match {
			best = p
		}
	}
	if best.ID == raft.None {
		return false
	}
	r.node.TransferLeader(best.ID)
	r.checkCore()
	return true
}

func (r *Replica) finishErrands(done func(*errand) bool, reply Reply) {
	r.errands = slices.DeleteFunc(r.errands, func(e *errand) bool {
		if !done(e) {
			return false
		}
		reply.ID = e.id
		r.reply(reply)
		return true
	})
}

// expireErrands gives up what has passed its deadline. A snapshot is taken or not, whatever
// is said of it: nothing depends on that.
func (r *Replica) expireErrands() {
	r.finishErrands(func(e *errand) bool { return r.now >= e.deadline }, Reply{Outcome: Unknown, Err: ErrTimeout})
}

// applyConfChange puts a change of membership into force, or none where it cannot be made,
// on every node alike.
func (r *Replica) applyConfChange(e raft.Entry) {
	change, err := raft.DecodeConfChangeEntry(e)
	if err != nil {
		r.fail(fmt.Errorf("apply entry %d: %w", e.Index, err))
		return
	}
	v2 := change.AsV2()
	asked, told, err := decodeContext(v2.Context)
	if len(v2.Changes) == 0 {
		asked, told, err = r.joint, nil, nil // a joint configuration is left
	}
	var next Members
	if err == nil {
		next, err = r.state.members.next(v2, told)
	}
	var conf raft.ConfState
	if err == nil {
		conf, err = r.state.nextConf(v2)
	}
	if err == nil {
		_, err = r.node.ApplyConfChange(change)
	}
	if err == nil {
		r.state.members, r.state.conf = next, conf
		r.tellMembers()
		r.tracer.confApplied(e.Index)
	}
	mine := func(d *errand) bool {
		return d.kind == Reconfigure && asked == (tag{r.config.ID, r.config.Incarnation, d.number})
	}
	switch {
	case err != nil:
		r.finishErrands(mine, Reply{Outcome: Refused, Err: fmt.Errorf("%w: %w", ErrConfChange, err)})
	case len(r.state.conf.VotersOutgoing) > 0:
		r.joint = asked // it is done when that configuration is left
	default:
		r.finishErrands(mine, Reply{Outcome: Done})
	}
}
