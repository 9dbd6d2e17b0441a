package raft

import (
	"errors"
	"fmt"
	"slices"
)

// raftLog is the log: what storage holds durably, and after it what is not durable yet.
type raftLog struct {
	storage   Storage
	unstable  []Entry // from offset on
	offset    uint64  // the first index that is not durable
	handed    uint64  // the last index of unstable that a Ready handed out to be written
	writes    []write // in flight, oldest first
	committed uint64
	given     uint64 // the last index given out to be applied
	applied   uint64
}

// write is a disk write in flight. Its last index is cut down when entries that it holds
// are replaced meanwhile: when it finishes it makes durable only what is still the log.
// That an entry is replaced and an equal index comes again (A, B, A) can therefore not
// be confused.
type write struct {
	number uint64
	last   uint64
}

func newLog(storage Storage, committed, applied uint64) (*raftLog, error) {
	first, err := storage.FirstIndex()
	if err != nil {
		return nil, fmt.Errorf("raft: read the first index: %w", err)
	}
	last, err := storage.LastIndex()
	if err != nil {
		return nil, fmt.Errorf("raft: read the last index: %w", err)
	}
	committed = max(committed, first-1)
	if committed > last {
		return nil, fmt.Errorf("raft: the stored commit index %d lies beyond the last index %d", committed, last)
	}
	applied = max(applied, first-1)
	if applied > committed {
		return nil, fmt.Errorf("raft: Applied %d lies beyond the stored commit index %d", applied, committed)
	}
	return &raftLog{storage: storage, offset: last + 1, handed: last, committed: committed, given: applied, applied: applied}, nil
}

func (l *raftLog) lastIndex() uint64 { return l.offset + uint64(len(l.unstable)) - 1 }

func (l *raftLog) lastTerm() uint64 { return l.termOrZero(l.lastIndex()) }

// termOrZero returns the term of an entry; 0 where there is none.
func (l *raftLog) termOrZero(i uint64) uint64 {
	if i > l.lastIndex() {
		return 0
	}
	if i >= l.offset {
		return l.unstable[i-l.offset].Term
	}
	term, err := l.storage.Term(i)
	if err != nil {
		return 0
	}
	return term
}

func (l *raftLog) matches(i, term uint64) bool { return i <= l.lastIndex() && l.termOrZero(i) == term }

// isUpToDate compares logs as voters do (Raft paper 5.4.1).
func (l *raftLog) isUpToDate(index, term uint64) bool {
	mine := l.lastTerm()
	return term > mine || term == mine && index >= l.lastIndex()
}

// firstConflict returns the index of the first entry that the log does not hold; 0 if it
// holds all of them.
func (l *raftLog) firstConflict(entries []Entry) uint64 {
	for _, e := range entries {
		if !l.matches(e.Index, e.Term) {
			return e.Index
		}
	}
	return 0
}

// findConflictByTerm returns the last index not above i whose term is not above term.
func (l *raftLog) findConflictByTerm(i, term uint64) uint64 {
	for ; i > 0 && l.termOrZero(i) > term; i-- {
	}
	return i
}

// append puts entries at the end, after discarding whatever stands at or after the first.
func (l *raftLog) append(entries []Entry) {
	first := entries[0].Index
	if first < l.offset {
		l.offset, l.unstable = first, nil
	}
	keep := l.unstable[:first-l.offset]
	if len(keep) < len(l.unstable) {
		keep = slices.Clip(keep) // messages on their way still hold what is replaced
	}
	l.unstable = append(keep, entries...)
	l.handed = min(l.handed, first-1)
	for i := range l.writes {
		l.writes[i].last = min(l.writes[i].last, first-1)
	}
}

// unwritten returns the entries that no write holds yet.
func (l *raftLog) unwritten() []Entry {
	from := max(l.handed+1, l.offset)
	return l.unstable[from-l.offset:]
}

func (l *raftLog) beginWrite(number uint64) {
	l.handed = l.lastIndex()
	l.writes = append(l.writes, write{number, l.handed})
}

// endWrite makes durable what the write holds. It reports false for a number that is not
// the oldest in flight.
func (l *raftLog) endWrite(number uint64) bool {
	if len(l.writes) == 0 || l.writes[0].number != number {
		return false
	}
	last := l.writes[0].last
	l.writes = l.writes[1:]
	if last >= l.offset {
		l.unstable = l.unstable[last+1-l.offset:]
		l.offset = last + 1
	}
	return true
}

// slice returns the entries in [lo, hi), as many as fit, at least one if there is one.
func (l *raftLog) slice(lo, hi, most uint64) ([]Entry, error) {
	if lo >= hi {
		return nil, nil
	}
	var entries []Entry
	if lo < l.offset {
		stored, err := l.storage.Entries(lo, min(hi, l.offset), max(most, 1))
		if err != nil {
			return nil, fmt.Errorf("raft: read entries %d to %d: %w", lo, hi, err)
		}
		if uint64(len(stored)) < min(hi, l.offset)-lo || hi <= l.offset {
			return stored, nil
		}
		entries = stored
	}
	from := max(lo, l.offset)
	return limitSize(append(slices.Clip(entries), l.unstable[from-l.offset:hi-l.offset]...), most), nil
}

// nextCommitted returns what is committed, durable here, and not given out yet.
func (l *raftLog) nextCommitted(most uint64) ([]Entry, error) {
	return l.slice(l.given+1, min(l.committed, l.offset-1)+1, most)
}

func limitSize(entries []Entry, most uint64) []Entry {
	var size uint64
	for i, e := range entries {
		size += entrySize(e)
		if i > 0 && size > most {
			return entries[:i]
		}
	}
	return entries
}

func entrySize(e Entry) uint64 { return uint64(len(e.Data)) + 24 }

// Storage is what is durable. The core only reads it.
type Storage interface {
	InitialState() (HardState, error)
	// Entries returns entries in [lo, hi), at least one, as many as fit maxBytes.
	Entries(lo, hi, maxBytes uint64) ([]Entry, error)
	// Term returns the term of the entry at i, which lies in [FirstIndex-1, LastIndex].
	Term(i uint64) (uint64, error)
	FirstIndex() (uint64, error)
	LastIndex() (uint64, error)
}

// ErrUnavailable: storage does not hold that entry.
var ErrUnavailable = errors.New("raft: entry not in storage")

// MemoryStorage is a Storage that mirrors in memory what its owner has written to disk.
type MemoryStorage struct {
	hard    HardState
	entries []Entry // entries[0].Index is 1
}

// NewMemoryStorage returns an empty storage.
func NewMemoryStorage() *MemoryStorage { return &MemoryStorage{} }

// SetHardState replaces the hard state.
func (s *MemoryStorage) SetHardState(h HardState) { s.hard = h }

// Append appends entries, after discarding whatever stands at or after the first.
func (s *MemoryStorage) Append(entries []Entry) error {
	if len(entries) == 0 {
		return nil
	}
	first := entries[0].Index
	if first == 0 || first > uint64(len(s.entries))+1 {
		return fmt.Errorf("raft: append entry %d after %d: a gap", first, len(s.entries))
	}
	keep := s.entries[:first-1]
	if len(keep) < len(s.entries) {
		keep = slices.Clip(keep) // messages on their way still hold what is replaced
	}
	s.entries = append(keep, entries...)
	return nil
}

// InitialState returns the hard state.
func (s *MemoryStorage) InitialState() (HardState, error) { return s.hard, nil }

// Entries implements Storage.
func (s *MemoryStorage) Entries(lo, hi, maxBytes uint64) ([]Entry, error) {
	if lo == 0 || hi > uint64(len(s.entries))+1 || lo >= hi {
		return nil, fmt.Errorf("%w: [%d, %d) of %d", ErrUnavailable, lo, hi, len(s.entries))
	}
	return limitSize(s.entries[lo-1:hi-1:hi-1], maxBytes), nil
}

// Term implements Storage.
func (s *MemoryStorage) Term(i uint64) (uint64, error) {
	if i == 0 {
		return 0, nil
	}
	if i > uint64(len(s.entries)) {
		return 0, fmt.Errorf("%w: %d of %d", ErrUnavailable, i, len(s.entries))
	}
	return s.entries[i-1].Term, nil
}

// FirstIndex implements Storage.
func (s *MemoryStorage) FirstIndex() (uint64, error) { return 1, nil }

// LastIndex implements Storage.
func (s *MemoryStorage) LastIndex() (uint64, error) { return uint64(len(s.entries)), nil }
