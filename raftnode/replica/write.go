package replica

import (
	"encoding/binary"

	"capsize/raftnode/internal/varint"
	"capsize/raftnode/kv"
	"capsize/raftnode/raft"
)

// writes are the changes that clients wait for.
type writes struct {
	last     uint64 // number of the last one
	byNumber map[uint64]*write
	order    []*write // by number; those replied to are dropped now and then
	fresh    []*write // not proposed yet
}

type write struct {
	id       uint64
	number   uint64
	data     []byte
	deadline int
	proposed int // the tick of the last proposal
	// repeatable: a session makes sure that it applies once.
	repeatable bool
	replied    bool
}

// tag stands before the command in an entry's data. It tells the replica that proposed
// the entry which of its requests that was.
type tag struct{ node, incarnation, number uint64 }

func (t tag) appendTo(b []byte) []byte {
	b = binary.AppendUvarint(b, t.node)
	b = binary.AppendUvarint(b, t.incarnation)
	return binary.AppendUvarint(b, t.number)
}

// splitTag separates an entry's tag from its command. An entry that has none yields no
// tag, and a command that the state machine takes for nothing or for malformed.
func splitTag(data []byte) (t tag, command []byte) {
	in := varint.NewReader(data)
	t = tag{in.Next(), in.Next(), in.Next()}
	if in.Bad() || len(in.Rest()) == 0 {
		return tag{}, data
	}
	return t, in.Rest()
}

func (r *Replica) addWrite(q Request, deadline int) {
	r.writes.last++
	w := &write{
		id: q.ID, number: r.writes.last, deadline: deadline, proposed: r.now, repeatable: q.Command.Session != "",
	}
	w.data = append(tag{r.config.ID, r.config.Incarnation, w.number}.appendTo(nil), q.Command.Encode()...)
	if r.writes.byNumber == nil {
		r.writes.byNumber = make(map[uint64]*write)
	}
	r.writes.byNumber[w.number] = w
	r.writes.order = append(r.writes.order, w)
	r.writes.fresh = append(r.writes.fresh, w)
}

// proposeFresh proposes all writes that came since the last time, together: they travel
// in one message, and are replicated in one.
func (r *Replica) proposeFresh() {
	fresh := r.writes.fresh
	if len(fresh) == 0 {
		return
	}
	batch := make([][]byte, len(fresh))
	for i, w := range fresh {
		batch[i] = w.data
	}
	// The core takes proposals into its log, or sends them to the leader, or refuses them.
	// Nothing of a refused one is left anywhere.
	if err := r.node.ProposeBatch(batch); err != nil {
		reason := r.refusal()
		for _, w := range fresh {
			r.finishWrite(w, Reply{ID: w.id, Outcome: Refused, Err: reason})
		}
	}
	clear(fresh)
	r.writes.fresh = fresh[:0]
}

// refusal is why the core did not take a request.
func (r *Replica) refusal() error {
	if r.node.BasicStatus().Lead == raft.None {
		return ErrNoLeader
	}
	return ErrOverloaded
}

func (r *Replica) replyToWrite(number uint64, result kv.Result) {
	w := r.writes.byNumber[number]
	if w == nil {
		return // replied to when it was applied first, or timed out
	}
	known := ofStatus[result.Status]
	r.finishWrite(w, Reply{ID: w.id, Outcome: known.outcome, Err: known.err, Result: result})
}

func (r *Replica) finishWrite(w *write, reply Reply) {
	w.replied = true
	delete(r.writes.byNumber, w.number)
	r.reply(reply)
	if len(r.writes.order) > 2*len(r.writes.byNumber)+64 {
		r.dropReplied()
	}
}

func (r *Replica) dropReplied() {
	kept := r.writes.order[:0]
	for _, w := range r.writes.order {
		if !w.replied {
			kept = append(kept, w)
		}
	}
	clear(r.writes.order[len(kept):])
	r.writes.order = kept
}

// expireWrites gives up what has passed its deadline, and proposes again what seems to
// be lost. Whatever waits here was proposed, or is about to be, so it may take effect at
// any later time.
func (r *Replica) expireWrites() {
	for i := 0; i < len(r.writes.order); i++ {
		if w := r.writes.order[i]; !w.replied && r.now >= w.deadline {
			w.replied = true
			delete(r.writes.byNumber, w.number)
			r.reply(Reply{ID: w.id, Outcome: Unknown, Err: ErrTimeout})
		}
	}
	r.dropReplied()
	r.proposeAgain(func(w *write) bool { return r.now-w.proposed >= r.config.ElectionTick })
}

// proposeAgain repeats the proposals that need it, where that is safe.
func (r *Replica) proposeAgain(needed func(*write) bool) {
	var batch [][]byte
	for _, w := range r.writes.order {
		if !w.replied && w.repeatable && needed(w) {
			w.proposed = r.now
			batch = append(batch, w.data)
		}
	}
	if len(batch) > 0 {
		_ = r.node.ProposeBatch(batch) // refused: the next time-out tries again
	}
}
