package replica

import (
	"encoding/binary"
	"slices"

	"capsize/raftnode/kv"
	"capsize/raftnode/raft"
	"capsize/raftnode/trace"
)

// reads are what clients wait for that needs no entry. A read belongs to a round: one
// ReadIndex for all that came before it was asked. A round is confirmed at an index, and served when
// that is applied here.
type reads struct {
	last   uint64 // number of the last round
	queue  []read // in no round yet
	rounds []*round
}

type read struct {
	id       uint64
	kind     Kind
	command  kv.Command
	deadline int
}

type round struct {
	number    uint64
	reads     []read
	started   int // tick
	confirmed bool
	index     uint64
}

func (q *reads) waiting() int {
	n := len(q.queue)
	for _, round := range q.rounds {
		n += len(round.reads)
	}
	return n
}

func (r *Replica) addRead(q Request, deadline int) {
	r.reads.queue = append(r.reads.queue, read{q.ID, q.Kind, q.Command, deadline})
}

func (r *Replica) canStartRound() bool {
	return len(r.reads.queue) > 0 && len(r.reads.rounds) < maxRounds
}

// startRounds asks for an index for all reads that are in no round. A read refused here
// fails at once, which is certain: reads have no effect.
func (r *Replica) startRounds() {
	if !r.canStartRound() {
		return
	}
	waiting := r.reads.queue
	r.reads.queue = nil
	r.reads.last++
	fresh := &round{number: r.reads.last, reads: waiting, started: r.now}
	if err := r.node.ReadIndex(r.context(fresh.number)); err != nil {
		reason := r.refusal()
		for _, read := range waiting {
			r.reply(Reply{ID: read.id, Outcome: Refused, Err: reason})
		}
		return
	}
	r.reads.rounds = append(r.reads.rounds, fresh)
	r.tracer.emit(trace.Event{Kind: trace.ReadStart, ID: fresh.number})
}

// context names a round. The incarnation is part of it: an answer to a round of an
// earlier one, still on its way, must not confirm a round that has the same number.
func (r *Replica) context(number uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, r.config.Incarnation), number)
}

func (r *Replica) confirmRound(state raft.ReadState) {
	incarnation, n := binary.Uvarint(state.RequestCtx)
	if n <= 0 || incarnation != r.config.Incarnation {
		return
	}
	number, m := binary.Uvarint(state.RequestCtx[n:])
	if m <= 0 {
		return
	}
	for _, round := range r.reads.rounds {
		if round.number == number && !round.confirmed {
			round.confirmed, round.index = true, state.Index
			r.tracer.emit(trace.Event{Kind: trace.ReadIndex, ID: number, I: state.Index})
		}
	}
}

// serveReads answers the rounds whose index is applied.
func (r *Replica) serveReads() {
	applied := r.store.Applied()
	r.reads.rounds = slices.DeleteFunc(r.reads.rounds, func(round *round) bool {
		if !round.confirmed || applied < round.index {
			return false
		}
		r.tracer.emit(trace.Event{Kind: trace.ReadServe, ID: round.number, Applied: applied})
		for _, read := range round.reads {
			r.reply(Reply{ID: read.id, Outcome: Done, Result: r.look(read)})
		}
		return true
	})
}

// look reads the state machine.
func (r *Replica) look(read read) kv.Result {
	result, c := kv.Result{Revision: r.store.Revision()}, read.command
	switch {
	case read.kind == ReadLock:
		result.Lock, _ = r.store.Lock(c.Key)
	case c.Op == kv.Range:
		result.Entries, result.More = r.store.Range(c.Key, c.End, c.Limit)
	default:
		result.Entry, result.Present = r.store.Get(c.Key)
	}
	return result
}

// restartRounds puts the reads of rounds that are not confirmed back: the leader that was
// asked may be gone. A late answer to such a round is not recognized any more.
func (r *Replica) restartRounds() { r.restart(func(*round) bool { return true }) }

func (r *Replica) restart(lost func(*round) bool) {
	r.reads.rounds = slices.DeleteFunc(r.reads.rounds, func(round *round) bool {
		if round.confirmed || !lost(round) {
			return false
		}
		r.reads.queue = append(r.reads.queue, round.reads...)
		return true
	})
}

// expireReads fails the reads that have passed their deadline, and asks again for rounds
// that seem to be lost.
func (r *Replica) expireReads() {
	expire := func(reads []read) []read {
		return slices.DeleteFunc(reads, func(read read) bool {
			if r.now < read.deadline {
				return false
			}
			r.reply(Reply{ID: read.id, Outcome: Refused, Err: ErrTimeout})
			return true
		})
	}
	r.reads.queue = expire(r.reads.queue)
	for _, round := range r.reads.rounds {
		round.reads = expire(round.reads)
	}
	r.reads.rounds = slices.DeleteFunc(r.reads.rounds, func(round *round) bool { return len(round.reads) == 0 })
	r.restart(func(round *round) bool { return r.now-round.started >= r.config.ElectionTick })
}

// Changes returns the changes of keys after a revision, as [kv.Store.Changes] does; since is
// from where on they are known.
func (r *Replica) Changes(from, to string, after uint64) (list []kv.Change, upTo, since uint64, known bool) {
	list, upTo, known = r.store.Changes(from, to, after)
	return list, upTo, r.store.Since(), known
}
