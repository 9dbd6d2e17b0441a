package raft

import "encoding/binary"

// Linearizable reads without writing to the log: dissertation 6.4.

// readsMost bounds the reads that wait on a leader; more are dropped, and asked again.
const readsMost = 4096

// readIndex holds the reads that a leader has not yet confirmed its leadership for. A
// read waits for a round of heartbeats that began after it arrived. Rounds have numbers
// of the leader's own: were they named by what the client sent, a late answer to an
// earlier round of the same name could confirm a newer read.
type readIndex struct {
	round   uint64
	newest  []byte // the newest round, as heartbeats carry it; nil: none
	pending []readRound
	early   []Message // reads that came before an entry of this term was committed
}

type readRound struct {
	number uint64
	index  uint64
	read   Message
	acks   map[uint64]bool
}

func (r *raft) startRead(m Message) error {
	if len(r.reads.pending)+len(r.reads.early) >= readsMost {
		return ErrReadDropped
	}
	if r.log.termOrZero(r.log.committed) != r.term {
		// A new leader does not know yet how far the log is committed.
		r.reads.early = append(r.reads.early, m)
		return nil
	}
	if len(r.voters) == 1 {
		r.answerRead(m, r.log.committed)
		return nil
	}
	r.reads.round++
	r.reads.newest = binary.BigEndian.AppendUint64(nil, r.reads.round)
	r.reads.pending = append(r.reads.pending, readRound{
		number: r.reads.round, index: r.log.committed, read: m, acks: map[uint64]bool{r.config.ID: true},
	})
	r.broadcastHeartbeat(r.reads.newest)
	return nil
}

// releaseReads starts the reads that waited for this term's first commit.
func (r *raft) releaseReads() {
	early := r.reads.early
	r.reads.early = nil
	for _, m := range early {
		_ = r.startRead(m) // one that is dropped is asked again
	}
}

// confirmReads counts a heartbeat's answer for its round and every earlier one.
func (r *raft) confirmReads(m Message) {
	if len(m.Context) != 8 {
		return
	}
	round := binary.BigEndian.Uint64(m.Context)
	confirmed := 0
	for i, p := range r.reads.pending {
		if p.number > round {
			break
		}
		p.acks[m.From] = true
		if len(p.acks) >= r.quorum() {
			confirmed = i + 1 // a quorum for a later round is one for all before it
		}
	}
	for _, p := range r.reads.pending[:confirmed] {
		r.answerRead(p.read, p.index)
	}
	r.reads.pending = r.reads.pending[confirmed:]
	if len(r.reads.pending) == 0 {
		r.reads.newest = nil
	}
}

func (r *raft) answerRead(m Message, index uint64) {
	if m.From == None || m.From == r.config.ID {
		r.readStates = append(r.readStates, ReadState{Index: index, Context: m.Entries[0].Data})
		return
	}
	r.send(Message{Type: MsgReadIndexResp, To: m.From, Index: index, Entries: m.Entries})
}
