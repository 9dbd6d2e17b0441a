package raft

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync"
)

// Storage is what is durable. The core only reads it; its owner writes to it what a Ready
// says, before it reports that as written.
type Storage interface {
	// InitialState returns the hard state stored last, zero on a first start, and the
	// configuration of the snapshot stored last.
	InitialState() (HardState, ConfState, error)
	// Entries returns entries from lo on, below hi, as many as fit maxBytes, at least one. The
	// caller does not change them, nor do later writes.
	Entries(lo, hi, maxBytes uint64) ([]Entry, error)
	// Term returns the term of the entry at i, which lies in [FirstIndex-1, LastIndex]; else
	// ErrCompacted or ErrUnavailable. The term of the entry at 0, which is none, is 0.
	Term(i uint64) (uint64, error)
	FirstIndex() (uint64, error) // 1 in a log that was never compacted
	LastIndex() (uint64, error)  // FirstIndex-1 in an empty log
	// Snapshot returns the newest snapshot, or ErrSnapshotTemporarilyUnavailable: then it is
	// asked for again later.
	Snapshot() (*Snapshot, error)
}

// Errors of a Storage.
var (
	// ErrCompacted: the entry is no longer in the log, a snapshot stands for it.
	ErrCompacted = errors.New("raft: entry is compacted")
	// ErrUnavailable: the entry is not in the log yet.
	ErrUnavailable = errors.New("raft: entry not in storage")
	// ErrSnapOutOfDate: the snapshot is older than the one that is there.
	ErrSnapOutOfDate = errors.New("raft: snapshot is older than the present one")
	// ErrSnapshotTemporarilyUnavailable: there is a snapshot, but not now.
	ErrSnapshotTemporarilyUnavailable = errors.New("raft: snapshot is temporarily unavailable")
)

// MemoryStorage is a Storage that mirrors in memory what its owner has written to disk. It
// may be used by several goroutines: a Node reads it in one of its own.
type MemoryStorage struct {
	mu       sync.Mutex
	hard     HardState
	conf     ConfState // before the first snapshot
	snapshot *Snapshot // nil: none yet
	// The log's entries after compacted, whose own term is compactedTerm.
	compacted     uint64
	compactedTerm uint64
	entries       []Entry // entries[i].Index is compacted+1+i
}

// NewMemoryStorage returns an empty storage.
func NewMemoryStorage() *MemoryStorage { return &MemoryStorage{} }

// SetHardState replaces the hard state.
func (s *MemoryStorage) SetHardState(h HardState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hard = h
}

// SetConfState sets the configuration in which the log begins, for a cluster whose members
// are configured instead of being added by entries (see RawNode.Bootstrap).
func (s *MemoryStorage) SetConfState(c ConfState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conf = c
}

// Append puts entries into the log after discarding whatever stands at or after the first
// one's index. Entries that a snapshot stands for are skipped. It refuses entries that
// would leave a gap.
func (s *MemoryStorage) Append(entries []Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(entries) == 0 {
		return nil
	}
	last := s.last()
	if first := entries[0].Index; first == 0 || first > last+1 {
		return fmt.Errorf("raft: append entry %d to a log that ends at %d: a gap", first, last)
	}
	for i, e := range entries {
		if want := entries[0].Index + uint64(i); e.Index != want {
			return fmt.Errorf("raft: append entry %d after %d: a gap", e.Index, want-1)
		}
	}
	if skip := s.compacted + 1 - min(s.compacted+1, entries[0].Index); skip >= uint64(len(entries)) {
		return nil
	} else if skip > 0 {
		entries = entries[skip:]
	}
	keep := s.entries[:entries[0].Index-s.compacted-1]
	if len(keep) < len(s.entries) {
		keep = slices.Clip(keep) // who was given what is replaced still holds it
	}
	s.entries = append(keep, entries...)
	return nil
}

// InitialState implements Storage.
func (s *MemoryStorage) InitialState() (HardState, ConfState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.snapshot == nil {
		return s.hard, s.conf, nil
	}
	return s.hard, s.snapshot.Metadata.ConfState, nil
}

// Entries implements Storage.
func (s *MemoryStorage) Entries(lo, hi, maxBytes uint64) ([]Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.last()
	switch {
	case lo <= s.compacted:
		return nil, fmt.Errorf("%w: [%d, %d) of a log that begins at %d", ErrCompacted, lo, hi, s.compacted+1)
	case lo >= hi || hi > last+1:
		return nil, fmt.Errorf("%w: [%d, %d) of a log that ends at %d", ErrUnavailable, lo, hi, last)
	}
	from, to := lo-s.compacted-1, hi-s.compacted-1
	return limitSize(s.entries[from:to:to], maxBytes), nil
}

// Term implements Storage.
func (s *MemoryStorage) Term(i uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.term(i)
}

func (s *MemoryStorage) term(i uint64) (uint64, error) {
	switch {
	case i == s.compacted:
		return s.compactedTerm, nil
	case i < s.compacted:
		return 0, ErrCompacted
	case i > s.last():
		return 0, ErrUnavailable
	}
	return s.entries[i-s.compacted-1].Term, nil
}

// FirstIndex implements Storage.
func (s *MemoryStorage) FirstIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.compacted + 1, nil
}

// LastIndex implements Storage.
func (s *MemoryStorage) LastIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last(), nil
}

func (s *MemoryStorage) last() uint64 { return s.compacted + uint64(len(s.entries)) }

// Snapshot implements Storage.
func (s *MemoryStorage) Snapshot() (*Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.snapshot == nil {
		return nil, ErrSnapshotTemporarilyUnavailable
	}
	return s.snapshot, nil
}

// ApplySnapshot replaces everything but the hard state by a snapshot.
func (s *MemoryStorage) ApplySnapshot(snapshot *Snapshot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	meta := snapshot.Metadata
	if s.snapshot != nil && meta.Index <= s.snapshot.Metadata.Index {
		return fmt.Errorf("%w: index %d, the present one's is %d", ErrSnapOutOfDate, meta.Index, s.snapshot.Metadata.Index)
	}
	s.snapshot = snapshot
	s.compacted, s.compactedTerm, s.entries = meta.Index, meta.Term, nil
	return nil
}

// CreateSnapshot notes a snapshot that the owner took at index, which the log holds. The
// log stays as it is: Compact shortens it.
func (s *MemoryStorage) CreateSnapshot(index uint64, conf ConfState, data []byte) (*Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.snapshot != nil && index <= s.snapshot.Metadata.Index {
		return nil, fmt.Errorf("%w: index %d, the present one's is %d", ErrSnapOutOfDate, index, s.snapshot.Metadata.Index)
	}
	term, err := s.term(index)
	if err != nil {
		return nil, fmt.Errorf("raft: create a snapshot at %d: %w", index, err)
	}
	s.snapshot = &Snapshot{Data: data, Metadata: SnapshotMetadata{ConfState: conf, Index: index, Term: term}}
	return s.snapshot, nil
}

// Compact drops the entries up to index. A snapshot must stand for them, or nodes that
// lack them could never be brought up to date.
func (s *MemoryStorage) Compact(index uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if index <= s.compacted {
		return fmt.Errorf("%w: up to %d, asked for %d", ErrCompacted, s.compacted, index)
	}
	if s.snapshot == nil || index > s.snapshot.Metadata.Index {
		return fmt.Errorf("raft: compact up to %d: no snapshot stands for that", index)
	}
	term, err := s.term(index)
	if err != nil {
		return fmt.Errorf("raft: compact up to %d: %w", index, err)
	}
	s.entries = append([]Entry(nil), s.entries[index-s.compacted:]...) // lets go of the array
	s.compacted, s.compactedTerm = index, term
	return nil
}

// limitSize returns the first entries that together take at most maxBytes on the wire, at
// least one.
func limitSize(entries []Entry, maxBytes uint64) []Entry {
	var size uint64
	for i := range entries {
		size += entrySize(&entries[i])
		if i > 0 && size > maxBytes {
			return entries[:i:i]
		}
	}
	return entries
}

// entrySize is what an entry takes on the wire by itself, with every field written out.
func entrySize(e *Entry) uint64 {
	n := uint64(len(e.Data))
	size := 2 + 1 + varintSize(e.Term) + 1 + varintSize(e.Index)
	if n > 0 {
		size += 1 + varintSize(n) + n
	}
	return size
}

func varintSize(v uint64) uint64 { return uint64(bits.Len64(v|1)+6) / 7 }

func entriesSize(entries []Entry) (size uint64) {
	for i := range entries {
		size += entrySize(&entries[i])
	}
	return size
}

// payloadSize is what counts against Config.MaxUncommittedEntriesSize.
func payloadSize(entries []Entry) (size uint64) {
	for i := range entries {
		size += uint64(len(entries[i].Data))
	}
	return size
}
