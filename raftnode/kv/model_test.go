package kv

import (
	"bytes"
	"maps"
	"slices"
	"sort"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// model is an independent, naive account of what the store must do: plain maps, copied
// whole before each command, and searched from end to end.
type model struct {
	keys        map[string]Entry
	locks       map[string]Lock
	revision    uint64
	wrote       bool           // the present command did, whatever is left of it
	sessions    []modelSession // the least recently used first
	maxSessions int
}

type modelSession struct {
	id       string
	sequence uint64
	command  []byte
	result   Result
}

func newModel(maxSessions int) *model {
	return &model{keys: map[string]Entry{}, locks: map[string]Lock{}, maxSessions: maxSessions}
}

func (m *model) apply(c Command) Result {
	if c.Session == "" {
		return m.do(c)
	}
	at := slices.IndexFunc(m.sessions, func(s modelSession) bool { return s.id == c.Session })
	if at < 0 {
		result := m.do(c)
		m.sessions = append(m.sessions, modelSession{c.Session, c.Sequence, c.Encode(), result})
		if len(m.sessions) > m.maxSessions {
			m.sessions = m.sessions[1:]
		}
		return result
	}
	last := m.sessions[at]
	m.sessions = append(slices.Delete(m.sessions, at, at+1), last)
	newest := &m.sessions[len(m.sessions)-1]
	switch {
	case c.Sequence < last.sequence:
		return Result{Status: Superseded, Revision: m.revision}
	case c.Sequence == last.sequence && bytes.Equal(c.Encode(), last.command):
		return last.result
	case c.Sequence == last.sequence:
		return Result{Status: Reused, Revision: m.revision}
	}
	result := m.do(c)
	newest.sequence, newest.command, newest.result = c.Sequence, c.Encode(), result
	return result
}

func (m *model) do(c Command) Result {
	keys, locks := maps.Clone(m.keys), maps.Clone(m.locks)
	m.revision++
	m.wrote = false
	result := m.step(c)
	if result.Status == TooLarge {
		m.keys, m.wrote = keys, false
	}
	if !m.wrote && maps.Equal(locks, m.locks) {
		m.revision--
	}
	result.Revision = m.revision
	return result
}

func (m *model) step(c Command) Result {
	if c.Fence.Lock != "" && m.locks[c.Fence.Lock].Token != c.Fence.Token {
		return Result{Status: Fenced, Lock: m.locks[c.Fence.Lock]}
	}
	lock, held := m.locks[c.Key]
	switch c.Op {
	case Acquire:
		if held && lock.Owner == c.Owner {
			return Result{Lock: lock}
		} else if held {
			return Result{Status: Held, Lock: lock}
		}
		m.locks[c.Key] = Lock{c.Owner, m.revision}
		return Result{Lock: m.locks[c.Key]}
	case Steal:
		m.locks[c.Key] = Lock{c.Owner, m.revision}
		return Result{Lock: m.locks[c.Key]}
	case Release:
		if lock.Owner != c.Owner || lock.Token != c.Token {
			return Result{Status: NotHeld, Lock: lock}
		}
		delete(m.locks, c.Key)
		return Result{}
	case CompareAndSwap:
		if !m.holds(Compare{c.Key, c.Expected}) {
			entry, present := m.keys[c.Key]
			return Result{Status: Mismatch, Found: Found{Entry: entry, Present: present}}
		}
		m.write(c.Key, c.Value)
		return Result{}
	case DeleteRange:
		names, _ := m.names(c.Key, c.End, 0)
		for _, name := range names {
			delete(m.keys, name)
			m.wrote = true
		}
		return Result{Found: Found{Deleted: uint64(len(names))}}
	case Txn:
		result, actions := Result{Succeeded: true}, c.Then
		for _, compare := range c.Compares {
			if !m.holds(compare) {
				result.Succeeded, actions = false, c.Else
			}
		}
		for _, a := range actions {
			found, fits := m.act(a)
			if !fits {
				return Result{Status: TooLarge}
			}
			result.Answers = append(result.Answers, found)
		}
		return result
	}
	found, fits := m.act(c.action())
	if !fits {
		return Result{Status: TooLarge}
	}
	return Result{Found: found}
}

func (m *model) act(a Action) (found Found, fits bool) {
	switch a.Op {
	case Put:
		m.write(a.Key, a.Value)
	case Append:
		if len(m.keys[a.Key].Value+a.Value) > MaxValueBytes {
			return Found{}, false
		}
		m.write(a.Key, m.keys[a.Key].Value+a.Value)
	case Delete:
		if _, present := m.keys[a.Key]; present {
			delete(m.keys, a.Key)
			m.wrote = true
			return Found{Deleted: 1}, true
		}
	case Get:
		found.Entry, found.Present = m.keys[a.Key]
	case Range:
		names, more := m.names(a.Key, a.End, a.Limit)
		for _, name := range names {
			found.Entries = append(found.Entries, m.keys[name])
		}
		found.More = more
	}
	return found, true
}

func (m *model) write(key, value string) {
	m.wrote = true
	entry, present := m.keys[key]
	if !present {
		entry.CreateRevision = m.revision
	}
	m.keys[key] = Entry{key, value, entry.CreateRevision, m.revision, entry.Version + 1}
}

func (m *model) holds(c Compare) bool {
	entry, present := m.keys[c.Key]
	return map[Kind]bool{
		KindAbsent:      !present,
		KindPresent:     present,
		KindValue:       present && entry.Value == c.Value,
		KindVersion:     entry.Version == c.Number,
		KindModRevision: entry.ModRevision == c.Number,
	}[c.Kind]
}

func (m *model) names(from, to string, limit int) (names []string, more bool) {
	for name := range m.keys {
		if name >= from && (to == "" || name < to) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	if limit > 0 && len(names) > limit {
		return names[:limit], true
	}
	return names, false
}

// restored returns the store as it is after a snapshot and its restoration.
func (a applier) restored(t interface{ Fatalf(string, ...any) }) applier {
	var snapshot bytes.Buffer
	if _, err := a.View().WriteTo(&snapshot); err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	s, err := restore(&snapshot, a.maxSessions, a.maxSessionsBytes)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return applier{s}
}

// A store that never stops and one that is restored from its snapshots at any moment
// both do what the model does, and agree in their digests and snapshots.
func TestStoresDoWhatTheModelDoesAlsoAcrossSnapshots(t *testing.T) {
	const maxSessions = 2 // of three that are drawn: so some are forgotten
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(maxSessions)
		steady, moved := applier{newStore(maxSessions, MaxSessionsBytes)}, applier{newStore(maxSessions, MaxSessionsBytes)}
		highest := map[string]uint64{} // token of each lock
		for range rapid.IntRange(1, 60).Draw(t, "commands") {
			c := validCommand.Draw(t, "command")
			if c.Op == Put && rapid.IntRange(0, 2).Draw(t, "large") == 0 {
				c.Value = string(make([]byte, MaxValueBytes)) // the next append is too large
			}
			want := m.apply(c)
			for _, s := range []applier{steady, moved} {
				if diff := cmp.Diff(want, s.do(c)); diff != "" {
					t.Fatalf("%+v: (-want +got)\n%s", c, diff)
				}
			}
			for name, lock := range m.locks {
				if lock.Token < highest[name] {
					t.Fatalf("lock %s: token %d after %d", name, lock.Token, highest[name])
				}
				highest[name] = lock.Token
			}
			if rapid.IntRange(0, 4).Draw(t, "restore") == 0 {
				moved = moved.restored(t)
			}
			if steady.Digest() != moved.Digest() {
				t.Fatalf("digests differ after %+v", c)
			}
		}
		agree(t, m, steady)
		agree(t, m, moved)
		if !bytes.Equal(snapshotOf(t, steady), snapshotOf(t, moved)) {
			t.Fatal("the same state has two snapshots")
		}
	})
}

func agree(t *rapid.T, m *model, s applier) {
	entries, more := s.Range("", "", 0)
	names, _ := m.names("", "", 0)
	if len(entries) != len(names) || more || s.Revision() != m.revision {
		t.Fatalf("%d keys at revision %d, want %d at %d", len(entries), s.Revision(), len(names), m.revision)
	}
	for _, e := range entries {
		if got, present := s.Get(e.Key); e != m.keys[e.Key] || got != e || !present {
			t.Fatalf("range gives %+v, get %+v, want %+v", e, got, m.keys[e.Key])
		}
	}
	for _, name := range []string{"l", "m"} {
		if lock, _ := s.Lock(name); lock != m.locks[name] {
			t.Fatalf("lock %s is %+v, want %+v", name, lock, m.locks[name])
		}
	}
	if s.sessions.Len() != len(m.sessions) || s.recent.Len() != len(m.sessions) {
		t.Fatalf("%d sessions, %d in order, want %d", s.sessions.Len(), s.recent.Len(), len(m.sessions))
	}
	size := 0
	for _, session := range m.sessions {
		size += len(session.result.append(nil))
	}
	if s.sessionBytes != size {
		t.Fatalf("results of %d bytes are counted as %d", size, s.sessionBytes)
	}
}

func TestStoresThatApplyTheSameAgreeAndOthersDoNot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		commands := rapid.SliceOfN(validCommand, 1, 30).Draw(t, "commands")
		a, b, c := applier{New()}, applier{New()}, applier{New()}
		other := rapid.IntRange(0, len(commands)-1).Draw(t, "other")
		for i, command := range commands {
			a.do(command)
			b.do(command)
			if a.Digest() != b.Digest() {
				t.Fatal("digests differ for the same commands")
			}
			if i == other {
				c.Apply(c.Applied()+1, nil)
			} else {
				c.do(command)
			}
			if i >= other && c.Digest() == a.Digest() {
				t.Fatal("digests agree after different commands")
			}
		}
		if !bytes.Equal(snapshotOf(t, a), snapshotOf(t, b)) {
			t.Fatal("snapshots differ for the same commands")
		}
	})
}

func TestTheDigestCoversWhatCameOfACommandToo(t *testing.T) {
	healthy, astray := applier{New()}, applier{New()}
	healthy.do(put("x", "1"))
	astray.do(put("x", "1"))
	astray.keys.Set("x", record{value: "2", created: 1, modified: 1, version: 1}) // a bit that flipped in memory
	for _, s := range []applier{healthy, astray} {
		s.do(Command{Op: Get, Key: "x"})
	}
	if healthy.Digest() == astray.Digest() {
		t.Error("digests agree though the same read found different values")
	}
}
