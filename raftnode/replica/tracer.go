package replica

import (
	"fmt"
	"slices"

	"capsize/raftnode/raft"
	"capsize/raftnode/trace"
)

// tracer turns what happens into trace events. Terms, votes and acknowledgements are
// traced when they are durable or leave, not when the core decides on them: what a crash
// takes back has not happened.
type tracer struct {
	replica *Replica
	hashes  []uint64 // by index: the log's chain; hashes[0] is the empty log's
	hard    raft.HardState
	last    raft.Entry // the last durable one; its data is not kept
	// asked remembers what the candidates of the newest term said of their logs.
	asked   map[uint64]candidacy // by candidate
	votes   []uint64             // who granted this node its vote in votesIn
	votesIn uint64
}

type candidacy struct{ term, last, lastTerm uint64 }

func (t *tracer) init(r *Replica) error {
	t.replica = r
	if !r.config.Trace {
		return nil
	}
	t.asked = make(map[uint64]candidacy)
	t.hashes = []uint64{0}
	var err error
	if t.hard, _, err = r.config.Storage.InitialState(); err != nil {
		return err
	}
	end, err := r.config.Storage.LastIndex()
	if err != nil {
		return err
	}
	if end > 0 {
		entries, err := r.config.Storage.Entries(1, end+1, ^uint64(0))
		if err != nil {
			return err
		}
		if uint64(len(entries)) != end {
			return fmt.Errorf("replica %d: storage gave %d of %d entries", r.config.ID, len(entries), end)
		}
		for _, e := range entries {
			t.extend(e)
		}
		t.last = raft.Entry{Index: end, Term: entries[end-1].Term}
	}
	t.emit(trace.Event{
		Kind: trace.Boot, T: t.hard.Term, Node: t.hard.Vote, Commit: t.hard.Commit,
		Last: t.last.Index, LastTerm: t.last.Term, Hash: t.hashes[end], Conf: r.config.Voters,
	})
	return nil
}

func (t *tracer) emit(e trace.Event) {
	if t.replica.config.Trace {
		t.replica.out.Events = append(t.replica.out.Events, e)
	}
}

func (t *tracer) extend(e raft.Entry) uint64 {
	h := trace.Chain(t.hashes[e.Index-1], e.Term, e.Data)
	t.hashes = append(t.hashes[:e.Index], h)
	return h
}

// core is told by the consensus core.
func (t *tracer) core(e raft.Event) {
	switch e.Kind {
	case raft.EventVoteSend:
		if !e.PreVote {
			t.asked[e.Peer] = candidacy{term: e.Term, last: e.Index, lastTerm: e.LogTerm}
		}
	case raft.EventLeader:
		voters := []uint64{t.replica.config.ID}
		if t.votesIn == e.Term {
			voters = append(voters, t.votes...)
		}
		slices.Sort(voters)
		t.emit(trace.Event{
			Kind: trace.Leader, T: e.Term, Last: e.Index, LastTerm: e.LogTerm,
			Conf: t.replica.config.Voters, Voters: slices.Compact(voters),
		})
	case raft.EventStepDown:
		t.emit(trace.Event{Kind: trace.StepDown, T: e.Term})
	case raft.EventAppend:
		t.emit(trace.Event{Kind: trace.Append, I: e.Entry.Index, T: e.Entry.Term, Hash: t.extend(e.Entry)})
	case raft.EventTruncate:
		t.emit(trace.Event{Kind: trace.Truncate, I: e.Index})
	case raft.EventCommit:
		t.emit(trace.Event{Kind: trace.Commit, I: e.Index, Role: e.Role.String(), T: e.Term})
	}
}

// received notes the votes that this node is given.
func (t *tracer) received(m raft.Message) {
	if m.Type != raft.MsgVoteResp || m.Reject {
		return
	}
	if m.Term > t.votesIn {
		t.votes, t.votesIn = nil, m.Term
	}
	if m.Term == t.votesIn && !slices.Contains(t.votes, m.From) {
		t.votes = append(t.votes, m.From)
	}
}

func (t *tracer) persisted(w Write) {
	if n := len(w.Entries); n > 0 {
		t.last = raft.Entry{Index: w.Entries[n-1].Index, Term: w.Entries[n-1].Term}
	}
	before := t.hard
	if w.HardState != (raft.HardState{}) {
		t.hard = w.HardState
	}
	if !w.Sync {
		return // a commit index that was not synced may be forgotten
	}
	if t.hard.Term != before.Term {
		t.emit(trace.Event{Kind: trace.Term, T: t.hard.Term})
	}
	t.emit(trace.Event{
		Kind: trace.Persist, Last: t.last.Index, LastTerm: t.last.Term,
		T: t.hard.Term, Node: t.hard.Vote, Commit: t.hard.Commit,
	})
	if t.hard.Vote == raft.None || (t.hard.Term == before.Term && t.hard.Vote == before.Vote) {
		return
	}
	t.emit(trace.Event{Kind: trace.VotePersist, T: t.hard.Term, Node: t.hard.Vote})
	if t.hard.Vote == t.replica.config.ID {
		t.emit(trace.Event{
			Kind: trace.VoteSend, T: t.hard.Term, Node: t.hard.Vote, Granted: true,
			Last: t.last.Index, LastTerm: t.last.Term,
		})
	}
}

func (t *tracer) sending(m raft.Message) {
	switch {
	case m.Type == raft.MsgVoteResp:
		asked := t.asked[m.To]
		if asked.term != m.Term {
			asked = candidacy{} // it has asked again meanwhile
		}
		t.emit(trace.Event{
			Kind: trace.VoteSend, T: m.Term, Node: m.To, Granted: !m.Reject,
			Last: asked.last, LastTerm: asked.lastTerm,
		})
	case m.Type == raft.MsgAppResp && !m.Reject && m.Index > 0:
		t.emit(trace.Event{Kind: trace.AckSend, Node: m.To, T: m.Term, I: m.Index})
	}
}

func (t *tracer) applied(e raft.Entry, digest uint64) {
	if t.replica.config.Trace {
		t.emit(trace.Event{Kind: trace.Apply, I: e.Index, T: e.Term, Hash: t.hashes[e.Index], Digest: digest})
	}
}
