package raft

import (
	"fmt"
	"hash/fnv"
	"slices"
)

// oracle watches a whole cluster and knows what Raft promises. It hears every event of
// every node, every message that leaves, every write that reaches a disk and every entry
// applied. Logs are compared by chained hashes: equal hashes at an index mean equal logs up
// to there, data included.
type oracle struct {
	members map[uint64]*member
	quorum  int

	leaders map[uint64]uint64    // by term
	votes   map[[2]uint64]uint64 // by node and term: for whom
	chains  map[[2]uint64]chain  // by index and term
	elected []election           // in the order of events

	committed []committedEntry // [i] is entry i
	failures  []string
}

type chain uint64

// chainLink extends a chain by an entry.
func chainLink(before chain, e Entry) chain {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%d %d %d ", before, e.Term, e.Type) // a hash takes everything
	_, _ = h.Write(e.Data)
	return chain(h.Sum64())
}

type election struct {
	term uint64
	log  []chain // of the leader, when it was elected
}

type committedEntry struct {
	chain chain
	term  uint64 // of the leader that committed it first
}

func newOracle(members map[uint64]*member) *oracle {
	return &oracle{
		members: members, quorum: len(members)/2 + 1,
		leaders: make(map[uint64]uint64), votes: make(map[[2]uint64]uint64), chains: make(map[[2]uint64]chain),
		committed: make([]committedEntry, 1),
	}
}

func (o *oracle) fail(format string, args ...any) {
	o.failures = append(o.failures, fmt.Sprintf(format, args...))
}

// commitIndex is the highest index that any leader has committed.
func (o *oracle) commitIndex() uint64 { return uint64(len(o.committed)) - 1 }

// started is told that a node has come up with what is on its disk.
func (o *oracle) started(m *member) {
	s := m.node.Status()
	if s.Term < m.termSent {
		o.fail("terms: node %d spoke in term %d and comes back in %d", m.id, m.termSent, s.Term)
	}
	m.term, m.commit, m.leading = s.Term, s.Commit, false
	m.log = slices.Clone(m.disk)
	o.checkCommitted(m, 1, s.Commit)
}

func (o *oracle) event(m *member, e Event) {
	switch e.Kind {
	case EventTerm:
		if e.Term <= m.term {
			o.fail("terms: node %d goes from term %d to %d", m.id, m.term, e.Term)
		}
		m.term = e.Term
	case EventLeader:
		o.leader(m, e)
	case EventStepDown:
		m.leading = false
	case EventTruncate:
		if m.leading {
			o.fail("leader append-only: leader %d of term %d discards entry %d", m.id, e.Term, e.Index)
		}
		if e.Index <= m.commit {
			o.fail("commit safety: node %d discards entry %d of %d committed", m.id, e.Index, m.commit)
		}
		m.log = m.log[:e.Index]
	case EventAppend:
		o.append(m, e)
	case EventCommit:
		o.commit(m, e)
	case EventVote, EventVoteSend: // what counts is what leaves
	}
}

func (o *oracle) leader(m *member, e Event) {
	if other, ok := o.leaders[e.Term]; ok {
		// Not even the same node twice: it would have forgotten the first time.
		o.fail("election safety: %d and %d become leader of term %d", other, m.id, e.Term)
	}
	o.leaders[e.Term] = m.id
	o.vote(m.id, e.Term, m.id)
	m.leading = true
	won := election{e.Term, slices.Clone(m.log)}
	o.elected = append(o.elected, won)
	for i := uint64(1); i <= o.commitIndex(); i++ {
		o.checkComplete(won, i)
	}
}

// checkComplete checks that an elected leader holds a committed entry. One that a leader of
// a later term commits is not asked of it.
func (o *oracle) checkComplete(won election, index uint64) {
	c := o.committed[index]
	if c.term < won.term && (index >= uint64(len(won.log)) || won.log[index] != c.chain) {
		o.fail("leader completeness: the leader of term %d lacks entry %d, committed in term %d", won.term, index, c.term)
	}
}

func (o *oracle) append(m *member, e Event) {
	if e.Index != uint64(len(m.log)) {
		o.fail("log: node %d appends entry %d after %d", m.id, e.Index, len(m.log)-1)
		return
	}
	if m.leading && e.LogTerm != e.Term {
		o.fail("leader append-only: leader %d of term %d makes an entry of term %d", m.id, e.Term, e.LogTerm)
	}
	m.log = append(m.log, chainLink(m.log[e.Index-1], e.Entry))
	o.checkMatching(m, e.Index, e.LogTerm, m.log[e.Index])
}

// checkMatching checks that logs which share an entry's index and term are equal up to it.
func (o *oracle) checkMatching(m *member, index, term uint64, c chain) {
	key := [2]uint64{index, term}
	if other, ok := o.chains[key]; ok && other != c {
		o.fail("log matching: node %d has another log up to entry %d of term %d", m.id, index, term)
	}
	o.chains[key] = c
}

func (o *oracle) commit(m *member, e Event) {
	if e.Role == Leader {
		o.leaderCommit(m, e)
	}
	o.checkCommitted(m, m.commit+1, e.Index)
	m.commit = e.Index
}

func (o *oracle) leaderCommit(m *member, e Event) {
	if last, _ := m.node.raft.log.term(e.Index); last != e.Term {
		o.fail("commit rule: the leader of term %d commits entry %d of term %d", e.Term, e.Index, last)
	}
	for index := o.commitIndex() + 1; index <= e.Index; index++ {
		c := committedEntry{m.log[index], e.Term}
		o.committed = append(o.committed, c)
		holders := 0
		for _, other := range o.members {
			if index < uint64(len(other.disk)) && other.disk[index] == c.chain {
				holders++
			}
		}
		if holders < o.quorum {
			o.fail("durability: leader %d commits entry %d, which is on %d disks of %d", m.id, index, holders, len(o.members))
		}
		for _, won := range o.elected { // later leaders that were elected before this came out
			o.checkComplete(won, index)
		}
	}
}

func (o *oracle) checkCommitted(m *member, from, to uint64) {
	if to > o.commitIndex() {
		o.fail("commit safety: node %d takes entry %d for committed, no leader has committed more than %d", m.id, to, o.commitIndex())
		return
	}
	for i := from; i <= to; i++ {
		if i >= uint64(len(m.log)) || m.log[i] != o.committed[i].chain {
			o.fail("commit safety: node %d takes another entry %d for committed", m.id, i)
			return
		}
	}
}

// sent is told of each message that leaves a node.
func (o *oracle) sent(m Message) {
	from := o.members[m.From]
	switch {
	case m.Type == MsgVoteResp && !m.Reject:
		o.vote(m.From, m.Term, m.To)
	case m.Type == MsgVote:
		o.vote(m.From, m.Term, m.From)
	case m.Type == MsgAppResp && !m.Reject && m.Index >= uint64(len(from.disk)) && m.Index < uint64(len(from.log)):
		o.fail("durability: node %d acknowledges entry %d, its disk ends at %d", m.From, m.Index, len(from.disk)-1)
	}
	if m.Term != 0 && m.Type != MsgPreVote && (m.Type != MsgPreVoteResp || m.Reject) && persistsBefore(m.Type) {
		from.termSent = max(from.termSent, m.Term)
	}
}

// persistsBefore reports whether a message rests on its term being durable.
func persistsBefore(t MessageType) bool {
	return t == MsgVote || t == MsgVoteResp || t == MsgAppResp || t == MsgApp
}

func (o *oracle) vote(node, term, candidate uint64) {
	key := [2]uint64{node, term}
	if other, ok := o.votes[key]; ok && other != candidate {
		o.fail("one vote a term: node %d votes for %d and %d in term %d", node, other, candidate, term)
	}
	o.votes[key] = candidate
}

func (o *oracle) applied(m *member, e Entry) {
	if e.Index != m.applied+1 {
		o.fail("apply order: node %d applies entry %d after %d", m.id, e.Index, m.applied)
	}
	m.machine = append(m.machine[:min(e.Index, uint64(len(m.machine)))], chainLink(m.machine[min(e.Index, uint64(len(m.machine)))-1], e))
	if e.Index > o.commitIndex() || m.machine[e.Index] != o.committed[e.Index].chain {
		o.fail("commit safety: node %d applies another entry %d than was committed", m.id, e.Index)
	}
	if e.Index >= uint64(len(m.disk)) || m.disk[e.Index] != m.machine[e.Index] {
		o.fail("durability: node %d applies entry %d, which is not on its disk", m.id, e.Index)
	}
}
