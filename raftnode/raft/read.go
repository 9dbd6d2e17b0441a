package raft

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// Linearizable reads that write nothing to the log: dissertation 6.4.
//
// A leader that was asked for a read notes its commit index, and answers with it when a
// quorum has answered a heartbeat that was sent after the read was asked for: then no
// later leader can have committed anything before that.
//
// Rounds of heartbeats, and the reads that a node itself asks for, bear numbers that the
// core gives, not the context that the user gives. Were a round named by the context, then
// a late answer to the first round of a context that is tried again would confirm the
// second one, which began after it.

// Bounds. A leader refuses a read beyond the first one; a node forgets the oldest of its
// own beyond the second, as if its answer were lost.
const (
	maxWaitingReads = 4096
	maxAskedReads   = 4096
)

// readRounds is what a leader knows of the reads that it was asked for. The number of the
// newest round that each voter answered stands in its progress.
type readRounds struct {
	last    uint64        // number of the newest round; each read begins one
	waiting []waitingRead // for their round to be confirmed, oldest first
	// early came before an entry of this term was committed: a new leader does not know yet
	// how far its log is committed, though it holds all that is (Raft paper 8).
	early []Message
}

type waitingRead struct {
	round   uint64
	index   uint64
	request Message
}

// context is what heartbeats bear: the newest round, if any read waits.
func (q *readRounds) context() []byte {
	if len(q.waiting) == 0 {
		return nil
	}
	return binary.BigEndian.AppendUint64(nil, q.last)
}

// startRead takes a read that this leader was asked for, by a follower or by its own user.
func (r *raft) startRead(m Message) error {
	if len(r.reads.waiting)+len(r.reads.early) >= maxWaitingReads {
		return ErrReadDropped
	}
	if !r.log.matches(r.log.committed, r.term) {
		r.reads.early = append(r.reads.early, m)
		return nil
	}
	r.beginRound(m)
	r.broadcastHeartbeat()
	r.answerConfirmed() // a single voter is a quorum
	return nil
}

func (r *raft) beginRound(m Message) {
	r.reads.last++
	if own := r.progress.of(r.config.ID); own != nil {
		own.readRound = r.reads.last
	}
	r.reads.waiting = append(r.reads.waiting, waitingRead{r.reads.last, r.log.committed, m})
}

// releaseReads starts the reads that waited for this term's first commit.
func (r *raft) releaseReads() {
	if len(r.reads.early) == 0 {
		return
	}
	for _, m := range r.reads.early {
		r.beginRound(m)
	}
	r.reads.early = nil
	r.broadcastHeartbeat() // one will do: the newest round confirms all before it
	r.answerConfirmed()
}

// confirmReads counts a heartbeat's answer for its round and so for every earlier one.
func (r *raft) confirmReads(m Message, p *progress) {
	if len(m.Context) != 8 {
		return // the heartbeat bore no round
	}
	round := binary.BigEndian.Uint64(m.Context)
	if round > r.reads.last {
		return // no heartbeat of this term bore that
	}
	p.readRound = max(p.readRound, round)
	r.answerConfirmed()
}

// answerConfirmed answers the reads whose round a quorum has answered.
func (r *raft) answerConfirmed() {
	confirmed := r.members.Voters.Reached(func(id uint64) uint64 { return r.progress.of(id).readRound })
	for len(r.reads.waiting) > 0 && r.reads.waiting[0].round <= confirmed {
		read := r.reads.waiting[0]
		r.reads.waiting = r.reads.waiting[1:]
		if read.request.From == r.config.ID {
			r.finishRead(read.index, read.request.Entries[0].Data)
			continue
		}
		r.send(Message{Type: MsgReadIndexResp, To: read.request.From, Index: read.index, Entries: read.request.Entries})
	}
}

// askedReads are the reads that this node's user asked for and that are not answered.
type askedReads struct {
	last uint64 // number of the last one; never used again
	open []askedRead
}

type askedRead struct {
	number  uint64
	context []byte
}

// ask notes a read and returns its name, by which the leader answers: its number, and
// the context. The context is there for the time after a restart, when numbers begin anew
// and answers to the node's earlier life may be on their way still.
//
// A context that is asked with again is a new read. The earlier one is forgotten, or its
// answer, which may be older than the new read, would be taken for the new one's.
func (q *askedReads) ask(context []byte) (name []byte) {
	q.open = slices.DeleteFunc(q.open, func(a askedRead) bool { return bytes.Equal(a.context, context) })
	q.last++
	q.open = append(q.open, askedRead{q.last, bytes.Clone(context)})
	return append(binary.BigEndian.AppendUint64(nil, q.last), context...)
}

// forgetOldest keeps the open reads within their bound.
func (q *askedReads) forgetOldest() {
	if len(q.open) > maxAskedReads {
		q.open = q.open[1:]
	}
}

// take returns the context of the open read of that name, which is then answered.
func (q *askedReads) take(name []byte) (context []byte, open bool) {
	if len(name) < 8 {
		return nil, false
	}
	number := binary.BigEndian.Uint64(name)
	i, found := slices.BinarySearchFunc(q.open, number, func(a askedRead, n uint64) int {
		if a.number < n {
			return -1
		}
		return int(min(a.number-n, 1))
	})
	if !found || !bytes.Equal(q.open[i].context, name[8:]) {
		return nil, false
	}
	context = q.open[i].context
	q.open = slices.Delete(q.open, i, i+1)
	return context, true
}

// finishRead answers the user. An answer that came twice, or too late, is nobody's.
func (r *raft) finishRead(index uint64, name []byte) {
	if context, open := r.asked.take(name); open {
		r.out.readStates = append(r.out.readStates, ReadState{Index: index, RequestCtx: context})
	}
}
