package raft

import "fmt"

// raftLog is the log: what storage holds durably, and its tail that is on the way there.
//
// Where storage fails, the log keeps the first error and stands still: its node gives out
// nothing any more, so that no answer rests on what could not be read.
type raftLog struct {
	storage   Storage
	tail      tail
	committed uint64
	failure   error
}

// newLog returns the log that storage holds, known to be committed up to committed, or to
// applied if that is more.
func newLog(storage Storage, committed, applied uint64) (*raftLog, error) {
	first, err := storage.FirstIndex()
	if err != nil {
		return nil, fmt.Errorf("raft: read the first index: %w", err)
	}
	last, err := storage.LastIndex()
	if err != nil {
		return nil, fmt.Errorf("raft: read the last index: %w", err)
	}
	switch {
	case committed > last:
		return nil, fmt.Errorf("raft: the stored commit index is %d, but the log ends at %d: entries were lost", committed, last)
	case applied > last:
		return nil, fmt.Errorf("raft: Config.Applied is %d, but the log ends at %d: entries were lost", applied, last)
	}
	return &raftLog{
		storage:   storage,
		tail:      tail{offset: last + 1, handed: last},
		committed: max(committed, applied, first-1),
	}, nil
}

// fail makes the log stand still. The first reason stays.
func (l *raftLog) fail(err error) {
	if l.failure == nil {
		l.failure = err
	}
}

func (l *raftLog) lastIndex() uint64 { return l.tail.lastIndex() }

func (l *raftLog) lastTerm() uint64 { return l.term(l.lastIndex()) }

// term returns the term of the entry at i; 0 where there is none.
func (l *raftLog) term(i uint64) uint64 {
	if i > l.lastIndex() {
		return 0
	}
	if i >= l.tail.offset {
		return l.tail.entries[i-l.tail.offset].Term
	}
	term, err := l.storage.Term(i)
	if err != nil {
		l.fail(fmt.Errorf("raft: read the term of entry %d: %w", i, err))
		return 0
	}
	return term
}

// matches reports whether the log holds an entry of that index and term; then it is equal
// to the log that it was taken from, up to there (Raft paper 5.3, Log Matching).
func (l *raftLog) matches(i, term uint64) bool { return i <= l.lastIndex() && l.term(i) == term }

// isUpToDate reports whether a log that ends at (index, term) holds everything that this
// one may know to be committed (Raft paper 5.4.1).
func (l *raftLog) isUpToDate(index, term uint64) bool {
	last := l.lastTerm()
	return term > last || term == last && index >= l.lastIndex()
}

// missing returns the entries from the first one on that the log does not hold.
func (l *raftLog) missing(entries []Entry) []Entry {
	for i, e := range entries {
		if !l.matches(e.Index, e.Term) {
			return entries[i:]
		}
	}
	return nil
}

// lastNotAfterTerm returns the last index up to i whose entry's term is at most term. When
// two logs disagree at i, and the other one's term there is term, they disagree at every
// index after that, because terms never fall along a log: a whole term is skipped in one
// round trip (Raft paper 5.3, end).
func (l *raftLog) lastNotAfterTerm(i, term uint64) uint64 {
	for i > 0 && l.term(i) > term {
		i--
	}
	return i
}

// append puts entries at the end, after discarding whatever stands at or after the first.
func (l *raftLog) append(entries []Entry) {
	first := entries[0].Index
	assert(first > l.committed, "entry %d is replaced, but everything up to %d is committed", first, l.committed)
	assert(first <= l.lastIndex()+1, "entry %d is appended to a log that ends at %d", first, l.lastIndex())
	l.tail.append(entries)
}

// commitTo notes that everything up to index is committed. It reports whether that is new.
func (l *raftLog) commitTo(index uint64) bool {
	if index <= l.committed {
		return false
	}
	if index > l.lastIndex() {
		// A leader tells no more than it knows to match: this node had acknowledged entries that
		// it does not have any more. To go on would be to vote without them.
		l.fail(fmt.Errorf("raft: told that entry %d is committed, but the log ends at %d: was the log lost?", index, l.lastIndex()))
		return false
	}
	l.committed = index
	return true
}

// applicable returns the last index that may be applied: committed, and durable here.
func (l *raftLog) applicable() uint64 { return min(l.committed, l.tail.durable()) }

// slice returns the entries in [lo, hi), as many as fit maxBytes, at least one if there is
// one. The slice is the caller's.
func (l *raftLog) slice(lo, hi, maxBytes uint64) []Entry {
	if lo >= hi {
		return nil
	}
	var entries []Entry
	if lo < l.tail.offset {
		end := min(hi, l.tail.offset)
		stored, err := l.storage.Entries(lo, end, maxBytes)
		if err == nil && (len(stored) == 0 || uint64(len(stored)) > end-lo || stored[0].Index != lo) {
			err = fmt.Errorf("storage gave %d other entries", len(stored))
		}
		if err != nil {
			l.fail(fmt.Errorf("raft: read entries %d to %d: %w", lo, end-1, err))
			return nil
		}
		entries = append(entries, stored...)
		if lo+uint64(len(stored)) < end {
			return entries // maxBytes is reached
		}
	}
	if hi > l.tail.offset {
		entries = append(entries, l.tail.entries[max(lo, l.tail.offset)-l.tail.offset:hi-l.tail.offset]...)
	}
	return limitSize(entries, maxBytes)
}
