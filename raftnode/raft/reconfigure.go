package raft

import (
	"slices"

	"capsize/raftnode/raft/membership"
)

// Changes of membership: Raft paper 6, dissertation 4. A configuration is in force from
// when its entry is applied, not from when it is appended: that is etcd-raft's rule. It is
// safe because no node campaigns with a change that is committed and not applied, and a
// leader appends no change before it has applied the one before.

// vetConfChanges replaces changes of membership that cannot be made now by empty entries.
func (r *raft) vetConfChanges(entries []Entry) ([]Entry, error) {
	copied := false
	for i := range entries {
		if !entries[i].isConfChange() {
			continue
		}
		change, err := DecodeConfChangeEntry(entries[i])
		if err != nil {
			return nil, err
		}
		reason := r.refusal(change.AsV2())
		if reason == "" || r.config.DisableConfChangeValidation {
			r.pendingConfIndex = r.log.lastIndex() + uint64(i) + 1
			continue
		}
		r.logger.Infof("node %d ignores a change of membership: %s", r.config.ID, reason)
		if !copied {
			entries, copied = slices.Clone(entries), true
		}
		entries[i] = Entry{}
	}
	return entries, nil
}

// refusal says why a change of membership cannot be made now; "" if it can.
func (r *raft) refusal(change ConfChangeV2) string {
	leaving := len(change.Changes) == 0
	switch {
	case r.pendingConfIndex > r.log.apply.applied:
		return "an earlier one may not be applied yet"
	case r.members.Joint() && !leaving:
		return "the joint configuration must be left first"
	case !r.members.Joint() && leaving:
		return "there is no joint configuration to leave"
	}
	return ""
}

// applyConfChange makes the change that a committed entry holds.
func (r *raft) applyConfChange(change ConfChangeV2) error {
	next, err := change.Next(r.members)
	if err != nil {
		return err
	}
	r.adopt(next)
	return nil
}

// adopt puts a configuration into force.
func (r *raft) adopt(members membership.Config) {
	r.members = members
	ids := members.Members()
	progress := make(tracker, len(ids))
	for i, id := range ids {
		if progress[i] = r.progress.of(id); progress[i] != nil {
			continue
		}
		progress[i] = r.newProgress(id, max(r.log.lastIndex(), 1))
		// It gets the time of a check of the quorum to be heard of: or it would count as silent
		// before it was asked anything.
		progress[i].active = true
	}
	r.progress = progress
	if r.role != Leader {
		return
	}
	if !members.Voters.Contains(r.config.ID) {
		if r.config.StepDownOnRemoval {
			r.becomeFollower(r.term, None)
		}
		return
	}
	if r.commitByQuorum() { // fewer may have to agree now
		r.afterCommit()
	} else {
		for _, p := range r.progress {
			if p.id != r.config.ID {
				r.sendAppend(p, false) // new ones need not wait for a heartbeat
			}
		}
	}
	r.answerConfirmed()
	if r.transferee != None && !members.Voters.Contains(r.transferee) {
		r.transferee = None
	}
}
