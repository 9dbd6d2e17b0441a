// Package kv is the replicated state machine: ordered keys that hold bytes, locks with
// fencing tokens, and client sessions that make a repeated command apply once.
//
// A node calls Apply with each committed entry, in order, and Get, Range and Lock for
// reads that it serves outside the log. View gives a snapshot of the present moment that
// another goroutine writes out with WriteTo, and Restore reads it back.
//
// The store is deterministic: the same commands at the same indexes give the same state,
// the same results, the same snapshot and the same digest on every node, on every run.
// Time, randomness and map order have no part in it. So a lock has no time-out, for the
// log has no clock: the lock of a client that is gone is held until someone steals it,
// and fencing tokens then keep the old holder's late writes out.
package kv

import (
	"fmt"
	"hash/crc64"
	"strings"

	"github.com/tidwall/btree"
)

// Bounds on the sessions that are remembered. Beyond either, the session that was used
// longest ago, counted in log entries, is forgotten: a request that is repeated only
// after that many other clients came would apply again.
const (
	MaxSessions      = 1 << 17
	MaxSessionsBytes = 64 << 20 // of all their last results together
)

// Store is the state machine. It is not safe for concurrent use.
type Store struct {
	state
	changes          changes
	maxSessions      int
	maxSessionsBytes int
	changed          bool   // by the command that is being applied
	scratch          []byte // the encoded result
}

// state is what a snapshot holds. Copying it with its trees is O(1): nodes are shared
// until either side writes to them.
type state struct {
	keys     *btree.Map[string, record]
	locks    *btree.Map[string, Lock]
	sessions *btree.Map[string, *session]
	recent   *btree.Map[uint64, *session] // by the index of the entry that used them last
	applied  uint64
	digest   uint64
	// revision counts the commands that changed something, keys or locks. A token is the
	// revision of the command that granted it: so no token ever comes again, though
	// nothing is kept of a lock that was released.
	revision     uint64
	sessionBytes int
}

// record is what a key holds, with etcd's meaning of the three numbers.
type record struct {
	value    string
	created  uint64
	modified uint64
	version  uint64
}

// New returns an empty store, as it is before the first entry.
func New() *Store { return newStore(MaxSessions, MaxSessionsBytes) }

func newStore(maxSessions, maxSessionsBytes int) *Store {
	return &Store{
		state: state{
			keys:     new(btree.Map[string, record]),
			locks:    new(btree.Map[string, Lock]),
			sessions: new(btree.Map[string, *session]),
			recent:   new(btree.Map[uint64, *session]),
		},
		maxSessions:      maxSessions,
		maxSessionsBytes: maxSessionsBytes,
	}
}

// Applied returns the index of the last entry applied.
func (s *Store) Applied() uint64 { return s.applied }

// Revision returns how many commands changed something.
func (s *Store) Revision() uint64 { return s.revision }

// Len returns the number of keys.
func (s *Store) Len() int { return s.keys.Len() }

// Digest returns a hash over everything that was applied and what it did. Two stores
// with the same Applied have the same digest unless one of them went astray.
func (s *Store) Digest() uint64 { return s.digest }

// Get reads a key. present is false where it holds nothing.
func (s *Store) Get(key string) (entry Entry, present bool) {
	r, present := s.keys.Get(key)
	if !present {
		return Entry{}, false
	}
	return r.entry(key), true
}

// Range reads the keys from from up to, not including, to, in order; an empty to is the
// end of all keys. It returns at most limit entries, MaxRange where limit is 0 or more
// than that, and about MaxRangeBytes. more is true when it left some out.
func (s *Store) Range(from, to string, limit int) (entries []Entry, more bool) {
	budget := MaxRangeBytes
	return s.scan(from, to, limit, &budget)
}

// Lock returns who holds a lock.
func (s *Store) Lock(name string) (lock Lock, held bool) { return s.locks.Get(name) }

// Apply carries out the command of the entry at index, which must follow the last one.
// An entry without a command, such as each new leader appends or a change of the
// configuration, is applied with nil data and changes nothing. The store keeps nothing
// of data.
func (s *Store) Apply(index uint64, data []byte) Result {
	if index != s.applied+1 {
		panic(fmt.Sprintf("kv: apply entry %d after %d", index, s.applied))
	}
	s.applied = index
	var result Result
	var fingerprint uint64
	var command Command
	switch {
	case len(data) == 0:
		result = Result{Revision: s.revision}
		s.scratch = result.append(s.scratch[:0])
	case command.decode(string(data)) != nil:
		fingerprint = crc64.Checksum(data, crcTable)
		result = Result{Status: Malformed, Revision: s.revision}
		s.scratch = result.append(s.scratch[:0])
	default:
		fingerprint = crc64.Checksum(data, crcTable)
		result = s.once(&command, fingerprint)
	}
	s.extend(fingerprint)
	if cap(s.scratch) > maxIdleScratch {
		s.scratch = nil
	}
	return result
}

// maxIdleScratch is what an encoded result may leave allocated for the next one.
const maxIdleScratch = 64 << 10

var crcTable = crc64.MakeTable(crc64.ECMA)

// extend chains the digest over the index, the checksum of what was asked, and what came
// of it, which is in scratch.
func (s *Store) extend(fingerprint uint64) {
	h := mix(s.digest, s.applied)
	h = mix(h, fingerprint)
	s.digest = mix(h, crc64.Checksum(s.scratch, crcTable))
}

// mix makes the chain depend on the order of what it covers. Each step is a bijection of
// either argument, so one difference is never lost.
func mix(h, n uint64) uint64 {
	const prime = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio: spreads small numbers
	h = (h ^ n) * prime
	return h ^ h>>29
}

// session remembers the last command of a client: one is in flight at a time. It is
// replaced, never changed, for views share it.
type session struct {
	id          string
	used        uint64 // index of the last entry that named it
	sequence    uint64
	fingerprint uint64 // of the command
	result      string // encoded
}

// once carries out a command unless its session shows that it was carried out before. It
// leaves the encoded result in scratch.
func (s *Store) once(c *Command, fingerprint uint64) Result {
	if c.Session == "" {
		result := s.do(c)
		s.scratch = result.append(s.scratch[:0])
		return result
	}
	last, known := s.sessions.Get(c.Session)
	if known && c.Sequence <= last.sequence {
		return s.again(c, fingerprint, last)
	}
	result := s.do(c)
	s.scratch = result.append(s.scratch[:0])
	fresh := &session{used: s.applied, sequence: c.Sequence, fingerprint: fingerprint, result: string(s.scratch)}
	if known {
		fresh.id = last.id
	} else {
		fresh.id = strings.Clone(c.Session) // its own memory: a session must not keep the whole command
	}
	s.remember(last, fresh)
	s.forget()
	return result
}

// again answers a command whose sequence is not new.
func (s *Store) again(c *Command, fingerprint uint64, last *session) Result {
	touched := *last
	touched.used = s.applied
	s.remember(last, &touched)
	result := Result{Revision: s.revision}
	switch {
	case c.Sequence < last.sequence:
		result.Status = Superseded
	case fingerprint != last.fingerprint:
		result.Status = Reused
	default:
		var err error
		if result, err = decodeResult(last.result); err != nil {
			// Only append makes these, and Restore has tried each that it let in.
			panic(fmt.Sprintf("kv: session %q: %v", last.id, err))
		}
	}
	s.scratch = result.append(s.scratch[:0])
	return result
}

// remember puts fresh in the place of last, which is nil for a new session.
func (s *state) remember(last, fresh *session) {
	if last != nil {
		s.recent.Delete(last.used)
		s.sessionBytes -= len(last.result)
	}
	s.sessions.Set(fresh.id, fresh)
	s.recent.Set(fresh.used, fresh)
	s.sessionBytes += len(fresh.result)
}

// forget drops the sessions used longest ago while there are too many. The one just used
// stays in any case, and a single result is far smaller than the bound on all.
func (s *Store) forget() {
	for s.sessions.Len() > s.maxSessions || s.sessionBytes > s.maxSessionsBytes && s.sessions.Len() > 1 {
		_, oldest, _ := s.recent.PopMin()
		s.sessions.Delete(oldest.id)
		s.sessionBytes -= len(oldest.result)
	}
}
