package raft

import "fmt"

// checkMessage refuses what must not come from outside: whatever it holds, a message that
// passes cannot make a node break its own data. Requests may come from nodes that this one
// does not know: it may lack the entry by which they joined, or not be in the
// configuration itself yet.
func (r *raft) checkMessage(m Message) error {
	fromThread := m.From == LocalAppendThread || m.From == LocalApplyThread
	switch {
	case m.Type < 0 || int(m.Type) >= len(messageTypeNames):
		return fmt.Errorf("%w: %v from node %d", ErrUnsupported, m.Type, m.From)
	case m.Type == MsgStorageAppend || m.Type == MsgStorageApply,
		m.Type.isLocal() && !fromThread, fromThread && !m.Type.isLocal():
		return fmt.Errorf("%w: %v from node %d", ErrStepLocalMsg, m.Type, m.From)
	case m.To != r.config.ID:
		return fmt.Errorf("%w: %v from node %d to node %d, this is node %d", ErrMisdirected, m.Type, m.From, m.To, r.config.ID)
	case fromThread:
		return nil
	case m.From == None:
		return fmt.Errorf("%w: %v from no node", ErrMalformed, m.Type)
	case m.Type.isResponse() && r.progress.of(m.From) == nil:
		return fmt.Errorf("%w: %v from node %d", ErrStepPeerNotFound, m.Type, m.From)
	case m.From == r.config.ID && m.Type != MsgAppResp && m.Type != MsgVoteResp && m.Type != MsgPreVoteResp &&
		m.Type != MsgTransferLeader: // its From is who is to lead
		return fmt.Errorf("%w: %v from this node itself", ErrMalformed, m.Type)
	}
	if flaw := flaw(m); flaw != "" {
		return fmt.Errorf("%w: %v from node %d: %s", ErrMalformed, m.Type, m.From, flaw)
	}
	return nil
}

// flaw returns what is wrong with a message in itself; "" if nothing is.
func flaw(m Message) string {
	requested := m.Type == MsgProp || m.Type == MsgReadIndex // passed on, in no term
	either := m.Type == MsgTransferLeader || m.Type == MsgForgetLeader
	switch {
	case requested && m.Term != 0:
		return fmt.Sprintf("it has term %d, but belongs to none", m.Term)
	case !requested && !either && m.Term == 0:
		return "it has no term"
	case m.Term == ^uint64(0):
		return "no term could follow its term"
	}
	switch m.Type {
	case MsgApp:
		return appendFlaw(m)
	case MsgSnap:
		return snapshotFlaw(m)
	case MsgProp:
		if len(m.Entries) == 0 {
			return "it proposes nothing"
		}
	case MsgReadIndex, MsgReadIndexResp:
		if len(m.Entries) != 1 {
			return fmt.Sprintf("it has %d entries, not one with the read's name", len(m.Entries))
		}
	}
	return ""
}

// appendFlaw checks that the entries continue the log that the message says they do: no
// gap, and terms that never fall nor exceed the leader's.
func appendFlaw(m Message) string {
	if m.Index > ^uint64(0)-uint64(len(m.Entries))-1 {
		return fmt.Sprintf("no %d entries could follow index %d", len(m.Entries), m.Index)
	}
	if m.LogTerm > m.Term || (m.Index == 0) != (m.LogTerm == 0) {
		return fmt.Sprintf("the entry before it, %d of term %d, cannot be in a log of term %d", m.Index, m.LogTerm, m.Term)
	}
	term := m.LogTerm
	for i, e := range m.Entries {
		if want := m.Index + 1 + uint64(i); e.Index != want {
			return fmt.Sprintf("entry %d stands where %d must", e.Index, want)
		}
		if e.Term == 0 || e.Term < term || e.Term > m.Term {
			return fmt.Sprintf("entry %d of term %d follows term %d in a log of term %d", e.Index, e.Term, term, m.Term)
		}
		term = e.Term
	}
	return ""
}

func snapshotFlaw(m Message) string {
	switch {
	case m.Snapshot == nil || m.Snapshot.Metadata.Index == 0:
		return "it has no snapshot"
	case m.Snapshot.Metadata.Index == ^uint64(0):
		return "no entry could follow its snapshot"
	case m.Snapshot.Metadata.Term == 0 || m.Snapshot.Metadata.Term > m.Term:
		return fmt.Sprintf("its snapshot ends in term %d, but it is of term %d", m.Snapshot.Metadata.Term, m.Term)
	}
	return ""
}
