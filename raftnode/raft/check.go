package raft

import "fmt"

// checkMessage refuses what must not come from the network: whatever it holds, a message
// that passes cannot make a node break its own data.
func (r *raft) checkMessage(m Message) error {
	switch m.Type {
	case MsgHup, MsgBeat, MsgUnreachable, MsgSnapStatus, MsgCheckQuorum:
		return fmt.Errorf("%w: %v from node %d", ErrStepLocalMessage, m.Type, m.From)
	case MsgProp, MsgReadIndex, MsgReadIndexResp, MsgApp, MsgAppResp, MsgVote, MsgVoteResp,
		MsgPreVote, MsgPreVoteResp, MsgHeartbeat, MsgHeartbeatResp:
	default:
		return fmt.Errorf("%w: %v from node %d", ErrUnsupported, m.Type, m.From)
	}
	if m.To != r.config.ID {
		return fmt.Errorf("%w: %v from node %d to node %d, this is node %d", ErrMisdirected, m.Type, m.From, m.To, r.config.ID)
	}
	if m.From == r.config.ID || !r.voters.Contains(m.From) {
		return fmt.Errorf("%w: %v from node %d", ErrUnknownPeer, m.Type, m.From)
	}
	if flaw := flaw(m); flaw != "" {
		return fmt.Errorf("%w: %v from node %d: %s", ErrMalformed, m.Type, m.From, flaw)
	}
	return nil
}

// flaw returns what is wrong with a message in itself; "" if nothing is.
func flaw(m Message) string {
	requested := m.Type == MsgProp || m.Type == MsgReadIndex // passed on, in no term
	switch {
	case requested && m.Term != 0:
		return fmt.Sprintf("it has term %d, but belongs to none", m.Term)
	case !requested && m.Term == 0:
		return "it has no term"
	case m.Term == ^uint64(0):
		return "no term could follow its term"
	}
	switch m.Type {
	case MsgApp:
		return appendFlaw(m)
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
