package raft

import (
	"errors"
	"fmt"
	"math"
)

// raftLog is the log: what storage holds durably, and its end that is on the way there.
//
// Where storage fails, the log keeps the first error and stands still: its node gives out
// nothing any more, so that no answer rests on what could not be read.
type raftLog struct {
	storage   Storage
	unstable  unstable
	committed uint64
	apply     applyWindow
	failure   error
}

// newLog returns the log that storage holds, known to be committed up to committed, or to
// applied if that is more.
func newLog(storage Storage, committed, applied, maxApplyingBytes uint64) (*raftLog, error) {
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
	case applied != 0 && applied < first-1:
		return nil, fmt.Errorf("raft: Config.Applied is %d, but the log begins at %d: restore the state machine from the snapshot first", applied, first)
	}
	applied = max(applied, first-1)
	return &raftLog{
		storage:   storage,
		unstable:  unstable{offset: last + 1, handed: last},
		committed: max(committed, applied),
		apply:     applyWindow{most: maxApplyingBytes, given: applied, applied: applied},
	}, nil
}

// fail makes the log stand still. The first reason stays.
func (l *raftLog) fail(err error) {
	if l.failure == nil {
		l.failure = err
	}
}

func (l *raftLog) firstIndex() uint64 {
	if s := l.unstable.snapshot; s != nil {
		return s.Metadata.Index + 1
	}
	first, err := l.storage.FirstIndex()
	if err != nil {
		l.fail(fmt.Errorf("raft: read the first index: %w", err))
		return math.MaxUint64
	}
	return first
}

func (l *raftLog) lastIndex() uint64 { return l.unstable.lastIndex() }

func (l *raftLog) lastTerm() uint64 {
	term, _ := l.term(l.lastIndex())
	return term
}

// term returns the term of the entry at i. known is false where the log does not hold it
// any more, or not yet.
func (l *raftLog) term(i uint64) (term uint64, known bool) {
	u := &l.unstable
	if i >= u.offset {
		if i > u.lastIndex() {
			return 0, false
		}
		return u.entries[i-u.offset].Term, true
	}
	if u.snapshot != nil {
		if i == u.snapshot.Metadata.Index {
			return u.snapshot.Metadata.Term, true
		}
		return 0, false // the snapshot replaces what storage holds
	}
	term, err := l.storage.Term(i)
	switch {
	case err == nil:
		return term, true
	case errors.Is(err, ErrCompacted):
		return 0, false
	}
	l.fail(fmt.Errorf("raft: read the term of entry %d: %w", i, err))
	return 0, false
}

// matches reports whether the log holds an entry of that index and term; then it is equal
// to the log that it was taken from, up to there (Raft paper 5.3, Log Matching).
func (l *raftLog) matches(i, term uint64) bool {
	own, known := l.term(i)
	return known && own == term
}

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

// lastNotAfterTerm returns the last index up to i whose entry's term is at most term, and
// that entry's term. When two logs disagree at i, and the other one's term there is term,
// they disagree at every index after that, because terms never fall along a log: a whole
// term is skipped in one round trip (Raft paper 5.3, end). Where the log does not reach
// back that far, its first unknown index comes back, with term 0.
func (l *raftLog) lastNotAfterTerm(i, term uint64) (index, termThere uint64) {
	for ; i > 0; i-- {
		own, known := l.term(i)
		if !known {
			return i, 0
		}
		if own <= term {
			return i, own
		}
	}
	return 0, 0
}

// append puts entries at the end, after discarding whatever stands at or after the first.
func (l *raftLog) append(entries []Entry) {
	first := entries[0].Index
	assert(first > l.committed, "entry %d is replaced, but everything up to %d is committed", first, l.committed)
	assert(first <= l.lastIndex()+1, "entry %d is appended to a log that ends at %d", first, l.lastIndex())
	l.unstable.append(entries)
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

// restore replaces the log by a snapshot, which is committed.
func (l *raftLog) restore(s *Snapshot) {
	l.committed = s.Metadata.Index
	l.unstable.restore(s)
}

// applicable returns the last index that may be applied. What is committed need not be
// durable here: where the same Ready has it written first, it may be applied, too.
func (l *raftLog) applicable(allowUnstable bool) uint64 {
	if allowUnstable {
		return l.committed
	}
	return min(l.committed, l.unstable.offset-1)
}

// hasNextCommitted reports whether nextCommitted would return something.
func (l *raftLog) hasNextCommitted(allowUnstable bool) bool {
	return l.unstable.snapshot == nil && l.apply.has(l.applicable(allowUnstable))
}

// nextCommitted returns what may be applied next. Nothing may while a snapshot is on its
// way: the state machine is about to be replaced.
func (l *raftLog) nextCommitted(allowUnstable bool) []Entry {
	if !l.hasNextCommitted(allowUnstable) {
		return nil
	}
	entries, err := l.slice(l.apply.given+1, l.applicable(allowUnstable)+1, l.apply.room())
	if err != nil {
		l.fail(err) // compacted before it was applied, or unreadable
	}
	return entries
}

// acceptCommitted notes that entries have been given out to be applied.
func (l *raftLog) acceptCommitted(entries []Entry, allowUnstable bool) {
	last := entries[len(entries)-1].Index
	l.apply.accept(last, entriesSize(entries), last < l.applicable(allowUnstable))
}

// slice returns the entries in [lo, hi), as many as fit maxBytes, at least one if there is
// one. Nobody may change them. The error is ErrCompacted or one of the storage's.
func (l *raftLog) slice(lo, hi, maxBytes uint64) ([]Entry, error) {
	if lo >= hi {
		return nil, nil
	}
	u := &l.unstable
	if lo >= u.offset {
		return limitSize(u.entries[lo-u.offset:hi-u.offset:hi-u.offset], maxBytes), nil
	}
	end := min(hi, u.offset)
	stored, err := l.storage.Entries(lo, end, maxBytes)
	if err == nil && (len(stored) == 0 || uint64(len(stored)) > end-lo || stored[0].Index != lo) {
		err = fmt.Errorf("storage gave %d other entries", len(stored))
	}
	if err != nil {
		return nil, fmt.Errorf("raft: read entries %d to %d: %w", lo, end-1, err)
	}
	if lo+uint64(len(stored)) < end || hi <= u.offset {
		return stored, nil
	}
	both := make([]Entry, 0, hi-lo)
	return limitSize(append(append(both, stored...), u.entries[:hi-u.offset]...), maxBytes), nil
}

// applyWindow meters what is given out to be applied, so that a slow state machine does
// not make a backlog pile up in memory.
type applyWindow struct {
	most    uint64 // bytes given out and not yet applied
	given   uint64 // the last index given out
	applied uint64 // the last index reported as applied
	bytes   uint64 // given out and not yet applied
	paused  bool
}

func (w *applyWindow) has(to uint64) bool { return !w.paused && w.given < to }

func (w *applyWindow) room() uint64 { return w.most - min(w.most, w.bytes) }

// accept notes what was given out. more says that it was not all there is, for lack of
// room: then nothing follows until room is made, or each Ready would hold one entry.
func (w *applyWindow) accept(last, bytes uint64, more bool) {
	w.given = last
	w.bytes += bytes
	w.paused = w.bytes >= w.most || more
}

// done notes that everything up to index is applied.
func (w *applyWindow) done(index, bytes uint64) {
	w.applied = max(w.applied, index)
	w.given = max(w.given, index)
	w.bytes -= min(bytes, w.bytes)
	w.paused = w.bytes >= w.most
}
