package replica

import (
	"maps"
	"slices"

	"capsize/raftnode/raft"
	"capsize/raftnode/raft/membership"
	"capsize/raftnode/trace"
)

// tracer turns what happens into trace events. Terms, votes and acknowledgements are
// traced when they are durable or leave, not when the core decides on them: what a crash
// takes back has not happened.
type tracer struct {
	replica *Replica
	base    uint64   // index of hashes[0]
	hashes  []uint64 // the log's chain, from the entry at base on; that at 0 is the empty log's
	hard    raft.HardState
	last    raft.Entry // the last durable one; its data is not kept
	// asked remembers what the candidates of the newest terms said of their logs.
	asked   map[candidate]candidacy
	votes   []uint64 // who granted this node its vote in votesIn
	votesIn uint64
	// bootstrapping: what is appended and committed is the beginning of a new cluster.
	bootstrapping bool
}

type (
	candidate struct{ id, term uint64 }
	candidacy struct{ last, lastTerm uint64 }
)

// termsAsked is for how many terms back candidacies are remembered: an answer leaves when
// it is durable, and terms may have passed by then.
const termsAsked = 16

func (t *tracer) init(r *Replica) error {
	t.replica = r
	if !r.config.Trace {
		return nil
	}
	t.asked = make(map[candidate]candidacy)
	storage := r.config.Storage
	var err error
	if t.hard, _, err = storage.InitialState(); err != nil {
		return err
	}
	first, err := storage.FirstIndex()
	if err != nil {
		return err
	}
	t.base, t.hashes = first-1, []uint64{r.state.hash}
	term, err := storage.Term(t.base)
	if err != nil {
		return err
	}
	boot := trace.Event{
		Kind: trace.Boot, T: t.hard.Term, Node: t.hard.Vote, Commit: t.hard.Commit, Applied: t.base,
		Snap: t.base, SnapTerm: term, Conf: conf(r.state.conf),
	}
	t.last = raft.Entry{Index: t.base, Term: term}
	end, err := storage.LastIndex()
	if err != nil {
		return err
	}
	if end > t.base {
		entries, err := storage.Entries(first, end+1, ^uint64(0))
		if err != nil {
			return err
		}
		for _, e := range entries {
			t.extend(e)
		}
		t.last = raft.Entry{Index: end, Term: entries[len(entries)-1].Term}
	}
	boot.Last, boot.LastTerm, boot.Hash = t.last.Index, t.last.Term, t.hash(end)
	t.emit(boot)
	return nil
}

func conf(c raft.ConfState) trace.Conf {
	return trace.Conf{Voters: c.Voters, Outgoing: c.VotersOutgoing, Learners: c.Learners, Next: c.LearnersNext, Auto: c.AutoLeave}
}

func (t *tracer) emit(e trace.Event) {
	if t.replica.config.Trace {
		t.replica.out.Events = append(t.replica.out.Events, e)
	}
}

func (t *tracer) hash(index uint64) uint64 { return t.hashes[index-t.base] }

func (t *tracer) extend(e raft.Entry) uint64 {
	h := trace.Chain(t.hash(e.Index-1), e.Term, e.Data)
	t.hashes = append(t.hashes[:e.Index-t.base], h)
	return h
}

// core is told by the consensus core.
func (t *tracer) core(e raft.Event) {
	switch e.Kind {
	case raft.EventVoteSend:
		if !e.PreVote {
			t.asked[candidate{e.Peer, e.Term}] = candidacy{last: e.Index, lastTerm: e.LogTerm}
			maps.DeleteFunc(t.asked, func(c candidate, _ candidacy) bool { return c.term+termsAsked < e.Term })
		}
	case raft.EventVote:
		if e.Peer == t.replica.config.ID {
			t.emit(trace.Event{Kind: trace.Campaign, T: e.Term})
		}
	case raft.EventLeader:
		voters := []uint64{t.replica.config.ID}
		if t.votesIn == e.Term {
			voters = append(voters, t.votes...)
		}
		slices.Sort(voters)
		t.emit(trace.Event{
			Kind: trace.Leader, T: e.Term, Last: e.Index, LastTerm: e.LogTerm, Hash: t.hash(e.Index),
			Conf: conf(e.Conf), Voters: slices.Compact(voters),
		})
	case raft.EventStepDown:
		t.emit(trace.Event{Kind: trace.StepDown, T: e.Term})
	case raft.EventAppend:
		t.emit(trace.Event{Kind: trace.Append, I: e.Entry.Index, T: e.Entry.Term, Hash: t.extend(e.Entry)})
		if e.Entry.Type != raft.EntryNormal {
			t.confAppended(e)
		}
	case raft.EventTruncate:
		t.emit(trace.Event{Kind: trace.Truncate, I: e.Index})
	case raft.EventCommit:
		role := e.Role.String()
		if t.bootstrapping {
			role = trace.Bootstrap
		}
		t.emit(trace.Event{Kind: trace.Commit, I: e.Index, Role: role, T: e.Term})
	case raft.EventRestore:
		a := t.replica.snapshots.arrival(e.Index)
		t.base, t.hashes = e.Index, []uint64{a.state.hash}
		t.snapshot(trace.SnapInstall, e.Snapshot.Metadata, a.state.hash, a.store.Digest())
	case raft.EventProgress:
		t.emit(trace.Event{Kind: trace.Progress, T: e.Term, Node: e.Peer, Last: e.Index, Next: e.Next})
	}
}

// confAppended tells what an entry makes of the configuration, as far as that can be told
// before the entries between are applied.
func (t *tracer) confAppended(e raft.Event) {
	event := trace.Event{Kind: trace.ConfAppend, I: e.Entry.Index, Conf: conf(e.Conf)}
	change, err := raft.DecodeConfChangeEntry(e.Entry)
	if err == nil && !t.bootstrapping {
		if present, err := membership.Restore(e.Conf); err == nil {
			if next, err := change.AsV2().Next(present); err == nil {
				after := conf(next.State())
				event.New = &after
			}
		}
	}
	t.emit(event)
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
	if w.Snapshot != nil {
		t.last = raft.Entry{Index: w.Snapshot.Metadata.Index, Term: w.Snapshot.Metadata.Term}
	}
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
		asked := t.asked[candidate{m.To, m.Term}]
		t.emit(trace.Event{
			Kind: trace.VoteSend, T: m.Term, Node: m.To, Granted: !m.Reject,
			Last: asked.last, LastTerm: asked.lastTerm,
		})
	case m.Type == raft.MsgAppResp && !m.Reject && m.Index > 0:
		t.emit(trace.Event{Kind: trace.AckSend, Node: m.To, T: m.Term, I: m.Index})
	}
}

func (t *tracer) applied(e raft.Entry, hash, digest uint64) {
	t.emit(trace.Event{Kind: trace.Apply, I: e.Index, T: e.Term, Hash: hash, Digest: digest})
}

func (t *tracer) confApplied(index uint64) {
	t.emit(trace.Event{Kind: trace.ConfApply, I: index, Conf: conf(t.replica.state.conf)})
}

func (t *tracer) snapshot(kind trace.Kind, s raft.SnapshotMetadata, hash, digest uint64) {
	t.emit(trace.Event{Kind: kind, I: s.Index, T: s.Term, Hash: hash, Digest: digest, Conf: conf(s.ConfState)})
}

func (t *tracer) compacted(index uint64) {
	t.emit(trace.Event{Kind: trace.Compact, I: index})
	if t.replica.config.Trace && index > t.base {
		t.hashes = append([]uint64(nil), t.hashes[index-t.base:]...) // lets go of the array
		t.base = index
	}
}
