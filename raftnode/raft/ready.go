package raft

// Ready is what a node wants done. Nothing in it may be changed.
//
// Without Config.AsyncStorageWrites: write Entries, HardState and Snapshot, in that order
// or at once, durably if MustSync; then send Messages; apply Snapshot and then
// CommittedEntries; then call Advance.
//
// With it, Messages is all there is to do; the other fields say what is in it. A
// MsgStorageAppend, to LocalAppendThread, has Entries, a HardState in Term, Vote and Commit
// if one of them is not 0, and a Snapshot to write. When that is durable its Responses are
// to be delivered, to other nodes and to this one. A MsgStorageApply, to LocalApplyThread,
// has entries to apply; then its Responses are to be delivered. Messages to the same thread
// are carried out in order. A write that has no Responses need not be durable.
type Ready struct {
	*SoftState           // nil: unchanged
	HardState  HardState // zero: unchanged

	// ReadStates answer ReadIndex.
	ReadStates []ReadState

	// Entries are to be appended; whatever is stored at or after the first one's index is
	// discarded.
	Entries []Entry
	// Snapshot, unless it is nil, replaces the whole log and the state machine.
	Snapshot *Snapshot
	// CommittedEntries are to be applied, in order, never twice in a node's life, and not
	// before those of earlier Readys and their snapshot are.
	CommittedEntries []Entry
	Messages         []Message
	// MustSync: Entries, or Term or Vote in HardState, changed, or there is a Snapshot, so the
	// write must reach the disk before a message leaves.
	MustSync bool
}

// ReadState answers a ReadIndex: once Index is applied, a read sees everything that was
// committed when it was asked. RequestCtx is what it was asked with.
type ReadState struct {
	Index      uint64
	RequestCtx []byte
}

// SoftState is what need not survive a crash.
type SoftState struct {
	Lead      uint64 // None where none is known
	RaftState Role
}

// readyWithoutAccept says what there is to do, and changes nothing.
func (n *RawNode) readyWithoutAccept() Ready {
	r := n.raft
	if r.log.failure != nil {
		return Ready{}
	}
	rd := Ready{
		Entries:          r.log.unstable.next(),
		Snapshot:         r.log.unstable.nextSnapshot(),
		CommittedEntries: r.log.nextCommitted(!n.async()),
		Messages:         r.out.atOnce,
		ReadStates:       r.out.readStates,
	}
	if r.log.failure != nil {
		return Ready{}
	}
	if soft := r.softState(); soft != n.soft {
		rd.SoftState = &soft
	}
	hard := r.hardState()
	if hard != n.hard {
		rd.HardState = hard
	}
	rd.MustSync = len(rd.Entries) > 0 || rd.Snapshot != nil || hard.Term != n.hard.Term || hard.Vote != n.hard.Vote
	rd.Messages = rd.Messages[:len(rd.Messages):len(rd.Messages)]
	if n.async() {
		if rd.needsAppend() || len(r.out.afterPersist) > 0 {
			rd.Messages = append(rd.Messages, n.storageAppend(rd))
		}
		if len(rd.CommittedEntries) > 0 {
			rd.Messages = append(rd.Messages, n.storageApply(rd))
		}
		return rd
	}
	for _, m := range r.out.afterPersist {
		if m.To != r.config.ID {
			rd.Messages = append(rd.Messages, m)
		}
	}
	return rd
}

func (rd *Ready) needsAppend() bool {
	return len(rd.Entries) > 0 || rd.Snapshot != nil || rd.HardState != HardState{}
}

// storageAppend is the order to the append thread.
func (n *RawNode) storageAppend(rd Ready) Message {
	r := n.raft
	m := Message{
		Type: MsgStorageAppend, To: LocalAppendThread, From: r.config.ID, Entries: rd.Entries, Snapshot: rd.Snapshot,
		Term: rd.HardState.Term, Vote: rd.HardState.Vote, Commit: rd.HardState.Commit,
	}
	m.Responses = r.out.afterPersist[:len(r.out.afterPersist):len(r.out.afterPersist)]
	if response, needed := n.appendResponse(rd.Snapshot); needed {
		m.Responses = append(m.Responses, response)
	}
	return m
}

// appendResponse is by which the node learns that a write is durable. It speaks for all
// that is unstable by now, in this write or an earlier one: they are carried out in order.
func (n *RawNode) appendResponse(snapshot *Snapshot) (response Message, needed bool) {
	r := n.raft
	response = Message{
		Type: MsgStorageAppendResp, To: r.config.ID, From: LocalAppendThread, Term: r.term, Snapshot: snapshot,
	}
	if len(r.log.unstable.entries) > 0 {
		response.Index, response.LogTerm = r.log.lastIndex(), r.log.lastTerm()
	}
	return response, response.Index != 0 || snapshot != nil
}

// storageApply is the order to the apply thread.
func (n *RawNode) storageApply(rd Ready) Message {
	id := n.raft.config.ID
	return Message{
		Type: MsgStorageApply, To: LocalApplyThread, From: id, Entries: rd.CommittedEntries,
		Responses: []Message{{Type: MsgStorageApplyResp, To: id, From: LocalApplyThread, Entries: rd.CommittedEntries}},
	}
}

// accept counts a Ready as taken: the next one goes on from there.
func (n *RawNode) accept(rd Ready) {
	r := n.raft
	if r.log.failure != nil {
		return
	}
	if rd.SoftState != nil {
		n.soft = *rd.SoftState
	}
	if rd.HardState != (HardState{}) {
		n.hard = rd.HardState
	}
	if !n.async() {
		assert(!n.advancing, "a Ready is taken before Advance was called for the one before")
		n.advancing = true
		n.onAdvance = n.onAdvance[:0]
		for _, m := range r.out.afterPersist {
			if m.To == r.config.ID {
				n.onAdvance = append(n.onAdvance, m)
			}
		}
		if response, needed := n.appendResponse(rd.Snapshot); needed {
			n.onAdvance = append(n.onAdvance, response)
		}
		if len(rd.CommittedEntries) > 0 {
			n.onAdvance = append(n.onAdvance, n.storageApply(rd).Responses...)
		}
	}
	r.out.next()
	r.log.unstable.accept()
	if len(rd.CommittedEntries) > 0 {
		r.log.acceptCommitted(rd.CommittedEntries, !n.async())
	}
}
