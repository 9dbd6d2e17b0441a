// Package kv is the replicated state machine: string keys that hold a 64-bit integer or
// nothing, and client sessions that make a repeated command apply once.
//
// It is deterministic: the same commands at the same indexes give the same state, the
// same results and the same digest on every node, on every run. Time, randomness and
// map order have no part in it.
package kv

import (
	"container/list"
	"fmt"
	"hash/crc64"
)

// MaxSessions bounds the sessions that are remembered. Beyond it the session that was
// used longest ago, counted in log entries, is forgotten: a request that is repeated only
// after that many other clients came would apply again.
const MaxSessions = 1 << 17

// Status says what a command did.
type Status uint8

const (
	// Applied: the command took effect.
	Applied Status = iota
	// Mismatch: the compare-and-swap found another value and changed nothing.
	Mismatch
	// Superseded: a later sequence of the session was applied before. Whether this one
	// was applied before that is forgotten, so its outcome is unknown.
	Superseded
	// Reused: the sequence belongs to another command, so this one was not applied.
	Reused
	// Malformed: the entry is no command, so nothing was applied.
	Malformed
)

// Result is what a command did, and what it found.
type Result struct {
	Status  Status
	Value   int64 // of a Mismatch: what the key holds
	Present bool  // of a Mismatch: false where the key holds nothing
}

// Store is the state machine. It is not safe for concurrent use.
type Store struct {
	values   map[string]int64
	sessions map[string]*list.Element // of *session
	recent   *list.List               // sessions, the most recently used first
	bound    int
	applied  uint64
	digest   uint64
}

// session remembers the last command of a client: one is in flight at a time.
type session struct {
	id          string
	sequence    uint64
	fingerprint uint64 // of the command
	result      Result
}

// New returns an empty store, as it is before the first entry.
func New() *Store { return newStore(MaxSessions) }

func newStore(bound int) *Store {
	return &Store{values: map[string]int64{}, sessions: map[string]*list.Element{}, recent: list.New(), bound: bound}
}

// Get reads a key. present is false where it was never written.
func (s *Store) Get(key string) (value int64, present bool) {
	value, present = s.values[key]
	return value, present
}

// Applied returns the index of the last entry applied.
func (s *Store) Applied() uint64 { return s.applied }

// Digest returns a hash over everything that was applied and what it did. Two stores
// with the same Applied have the same digest unless one of them went astray.
func (s *Store) Digest() uint64 { return s.digest }

// Apply carries out the command of the entry at index, which must follow the last one.
// An entry without data, such as each new leader appends, changes nothing.
func (s *Store) Apply(index uint64, data []byte) Result {
	if index != s.applied+1 {
		panic(fmt.Sprintf("kv: apply entry %d after %d", index, s.applied))
	}
	s.applied = index
	if len(data) == 0 {
		s.extend(Result{}, Command{})
		return Result{}
	}
	command, err := Decode(data)
	if err != nil {
		result := Result{Status: Malformed}
		s.extend(result, Command{})
		return result
	}
	result := s.once(command, data)
	s.extend(result, command)
	return result
}

// once carries out a command unless its session shows that it was carried out before.
func (s *Store) once(command Command, data []byte) Result {
	if command.Session == "" {
		return s.do(command)
	}
	fingerprint := crc64.Checksum(data, crcTable)
	element, known := s.sessions[command.Session]
	if !known {
		result := s.do(command)
		s.remember(&session{command.Session, command.Sequence, fingerprint, result})
		return result
	}
	s.recent.MoveToFront(element)
	last := element.Value.(*session)
	switch {
	case command.Sequence < last.sequence:
		return Result{Status: Superseded}
	case command.Sequence == last.sequence && fingerprint != last.fingerprint:
		return Result{Status: Reused}
	case command.Sequence == last.sequence:
		return last.result
	}
	last.sequence, last.fingerprint, last.result = command.Sequence, fingerprint, s.do(command)
	return last.result
}

func (s *Store) remember(fresh *session) {
	s.sessions[fresh.id] = s.recent.PushFront(fresh)
	if s.recent.Len() > s.bound {
		oldest := s.recent.Remove(s.recent.Back()).(*session)
		delete(s.sessions, oldest.id)
	}
}

func (s *Store) do(command Command) Result {
	if command.Op == CompareAndSwap {
		value, present := s.values[command.Key]
		if !present || value != command.Expected {
			return Result{Status: Mismatch, Value: value, Present: present}
		}
	}
	s.values[command.Key] = command.Value
	return Result{Status: Applied}
}

var crcTable = crc64.MakeTable(crc64.ECMA)

// extend chains the digest: it covers the index, what was asked and what came of it.
func (s *Store) extend(result Result, command Command) {
	const prime = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio: spreads small numbers
	h := s.digest
	for _, n := range [...]uint64{s.applied, uint64(result.Status), uint64(result.Value), uint64(command.Op), uint64(command.Value)} {
		h = (h ^ n) * prime
		h ^= h >> 29
	}
	for i := range len(command.Key) {
		h = (h ^ uint64(command.Key[i])) * prime
		h ^= h >> 29
	}
	s.digest = h
}
