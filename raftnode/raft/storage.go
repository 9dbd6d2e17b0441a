package raft

import (
	"errors"
	"fmt"
	"slices"
)

// Storage is what is durable. The core only reads it; its owner writes to it what a Ready
// says, before it calls Persisted.
type Storage interface {
	// InitialState returns the hard state stored last; zero on a first start.
	InitialState() (HardState, error)
	// Entries returns entries from lo on, below hi, as many as fit maxBytes, at least one. The
	// caller does not change them, nor do later writes.
	Entries(lo, hi, maxBytes uint64) ([]Entry, error)
	// Term returns the term of the entry at i, which lies in [FirstIndex-1, LastIndex]. The
	// term of the entry at 0, which is none, is 0.
	Term(i uint64) (uint64, error)
	FirstIndex() (uint64, error) // 1 in a log that was never cut at the front
	LastIndex() (uint64, error)  // FirstIndex-1 in an empty log
}

// ErrUnavailable: storage does not hold that entry.
var ErrUnavailable = errors.New("raft: entry not in storage")

// MemoryStorage is a Storage that mirrors in memory what its owner has written to disk. It
// is not safe for concurrent use.
type MemoryStorage struct {
	hard    HardState
	entries []Entry // entries[i].Index is i+1
}

// NewMemoryStorage returns an empty storage.
func NewMemoryStorage() *MemoryStorage { return &MemoryStorage{} }

// SetHardState replaces the hard state.
func (s *MemoryStorage) SetHardState(h HardState) { s.hard = h }

// Append puts entries into the log after discarding whatever stands at or after the first
// one's index. It refuses entries that would leave a gap.
func (s *MemoryStorage) Append(entries []Entry) error {
	if len(entries) == 0 {
		return nil
	}
	first := entries[0].Index
	if first == 0 || first > uint64(len(s.entries))+1 {
		return fmt.Errorf("raft: append entry %d to a log that ends at %d: a gap", first, len(s.entries))
	}
	for i, e := range entries {
		if e.Index != first+uint64(i) {
			return fmt.Errorf("raft: append entry %d after %d: a gap", e.Index, first+uint64(i)-1)
		}
	}
	keep := s.entries[:first-1]
	if len(keep) < len(s.entries) {
		keep = slices.Clip(keep) // who was given what is replaced still holds it
	}
	s.entries = append(keep, entries...)
	return nil
}

// InitialState implements Storage.
func (s *MemoryStorage) InitialState() (HardState, error) { return s.hard, nil }

// Entries implements Storage.
func (s *MemoryStorage) Entries(lo, hi, maxBytes uint64) ([]Entry, error) {
	if lo == 0 || lo >= hi || hi > uint64(len(s.entries))+1 {
		return nil, fmt.Errorf("%w: [%d, %d) of a log that ends at %d", ErrUnavailable, lo, hi, len(s.entries))
	}
	return limitSize(s.entries[lo-1:hi-1:hi-1], maxBytes), nil
}

// Term implements Storage.
func (s *MemoryStorage) Term(i uint64) (uint64, error) {
	if i == 0 {
		return 0, nil
	}
	if i > uint64(len(s.entries)) {
		return 0, fmt.Errorf("%w: %d of a log that ends at %d", ErrUnavailable, i, len(s.entries))
	}
	return s.entries[i-1].Term, nil
}

// FirstIndex implements Storage.
func (s *MemoryStorage) FirstIndex() (uint64, error) { return 1, nil }

// LastIndex implements Storage.
func (s *MemoryStorage) LastIndex() (uint64, error) { return uint64(len(s.entries)), nil }

// limitSize returns the first entries that together take at most maxBytes, at least one.
func limitSize(entries []Entry, maxBytes uint64) []Entry {
	var size uint64
	for i, e := range entries {
		size += entrySize(e)
		if i > 0 && size > maxBytes {
			return entries[:i:i]
		}
	}
	return entries
}

// entryOverhead is what an entry takes in a message besides its data, at most in practice.
const entryOverhead = 24

func entrySize(e Entry) uint64 { return uint64(len(e.Data)) + entryOverhead }
