package kv

import "strings"

// do carries out a command. All its changes bear one revision, the next one, which the
// store takes on only if there are any. A transaction that writes a key and deletes it
// again has changed something, as in etcd.
func (s *Store) do(c *Command) Result {
	s.changed = false
	result := s.fenced(c)
	if s.changed {
		s.revision++
		s.changes.trim()
	}
	result.Revision = s.revision
	return result
}

func (s *Store) fenced(c *Command) Result {
	if c.Fence != (Fence{}) {
		lock, held := s.locks.Get(c.Fence.Lock)
		if !held || lock.Token != c.Fence.Token {
			return Result{Status: Fenced, Lock: lock}
		}
	}
	switch c.Op {
	case CompareAndSwap:
		return s.compareAndSwap(c)
	case DeleteRange:
		return Result{Found: Found{Deleted: s.deleteRange(c.Key, c.End)}}
	case Txn:
		return s.transact(c)
	case Acquire, Steal:
		return s.acquire(c)
	case Release:
		return s.release(c)
	default:
		step, budget := c.action(), MaxRangeBytes
		found, fits := s.act(&step, &budget)
		if !fits {
			return Result{Status: TooLarge}
		}
		return Result{Found: found}
	}
}

// act does what is both a command of its own and a step of a transaction. It changes
// nothing and says that it does not fit where an append makes a value too large.
func (s *Store) act(a *Action, budget *int) (found Found, fits bool) {
	switch a.Op {
	case Put:
		old, _ := s.keys.Get(a.Key)
		s.write(a.Key, "", a.Value, old)
	case Append:
		old, _ := s.keys.Get(a.Key)
		if len(old.value)+len(a.Value) > MaxValueBytes {
			return Found{}, false
		}
		s.write(a.Key, old.value, a.Value, old)
	case Delete:
		if _, present := s.keys.Delete(a.Key); present {
			s.deleted(a.Key)
			found.Deleted = 1
		}
	case Get:
		found.Entry, found.Present = s.Get(a.Key)
	case Range:
		found.Entries, found.More = s.scan(a.Key, a.End, a.Limit, budget)
	}
	return found, true
}

// write sets a key to head followed by tail. The key and its value are put in memory of
// their own: as parts of the command they would keep all of it.
func (s *Store) write(key, head, tail string, old record) {
	kept := key + head + tail
	fresh := record{value: kept[len(key):], created: old.created, modified: s.revision + 1, version: old.version + 1}
	if old.version == 0 {
		fresh.created = s.revision + 1
	}
	s.keys.Set(kept[:len(key)], fresh)
	s.changes.add(Change{Key: kept[:len(key)], Value: fresh.value, Revision: fresh.modified})
	s.changed = true
}

// deleted notes that a key was deleted.
func (s *Store) deleted(key string) {
	s.changes.add(Change{Key: strings.Clone(key), Deleted: true, Revision: s.revision + 1})
	s.changed = true
}

func (s *Store) compareAndSwap(c *Command) Result {
	old, present := s.keys.Get(c.Key)
	if !c.Expected.holds(old, present) {
		result := Result{Status: Mismatch}
		if present {
			result.Entry, result.Present = old.entry(c.Key), true
		}
		return result
	}
	s.write(c.Key, "", c.Value, old)
	return Result{}
}

func (e *Expectation) holds(r record, present bool) bool {
	switch e.Kind {
	case KindAbsent:
		return !present
	case KindPresent:
		return present
	case KindValue:
		return present && r.value == e.Value
	case KindVersion:
		return r.version == e.Number
	default:
		return r.modified == e.Number
	}
}

// deleteRange deletes in batches, for the tree must not change while it is walked, and a
// list of all the keys may be long.
func (s *Store) deleteRange(from, to string) (deleted uint64) {
	const batch = 1024
	var keys []string
	for {
		keys = keys[:0]
		s.keys.Ascend(from, func(key string, _ record) bool {
			if to != "" && key >= to || len(keys) == batch {
				return false
			}
			keys = append(keys, key)
			return true
		})
		for _, key := range keys {
			s.keys.Delete(key)
			s.deleted(key)
		}
		deleted += uint64(len(keys))
		if len(keys) < batch {
			return deleted
		}
	}
}

func (s *Store) transact(c *Command) Result {
	result := Result{Succeeded: true}
	for i := range c.Compares {
		r, present := s.keys.Get(c.Compares[i].Key)
		if !c.Compares[i].holds(r, present) {
			result.Succeeded = false
			break
		}
	}
	actions := c.Then
	if !result.Succeeded {
		actions = c.Else
	}
	if len(actions) == 0 {
		return result
	}
	before, known := s.keys, len(s.changes.list)
	if canFail(actions) {
		s.keys = before.Copy()
	}
	budget := MaxRangeBytes
	result.Answers = make([]Found, len(actions))
	for i := range actions {
		found, fits := s.act(&actions[i], &budget)
		if !fits {
			s.keys, s.changed = before, false
			s.changes.drop(known)
			return Result{Status: TooLarge}
		}
		result.Answers[i] = found
	}
	return result
}

// canFail says whether a transaction may have to be undone. Only then is it worth the
// copies of tree nodes that undoing costs.
func canFail(actions []Action) bool {
	for i := range actions {
		if actions[i].Op == Append {
			return true
		}
	}
	return false
}

func (s *Store) acquire(c *Command) Result {
	lock, held := s.locks.Get(c.Key)
	switch {
	case held && c.Op == Acquire && lock.Owner != c.Owner:
		return Result{Status: Held, Lock: lock}
	case held && c.Op == Acquire:
		return Result{Lock: lock}
	}
	kept := c.Key + c.Owner
	lock = Lock{Owner: kept[len(c.Key):], Token: s.revision + 1}
	s.locks.Set(kept[:len(c.Key)], lock)
	s.changed = true
	return Result{Lock: lock}
}

func (s *Store) release(c *Command) Result {
	lock, held := s.locks.Get(c.Key)
	if !held || lock != (Lock{Owner: c.Owner, Token: c.Token}) {
		return Result{Status: NotHeld, Lock: lock}
	}
	s.locks.Delete(c.Key)
	s.changed = true
	return Result{}
}

// scan reads a range within its limit and what is left of budget.
func (s *state) scan(from, to string, limit int, budget *int) (entries []Entry, more bool) {
	if limit <= 0 || limit > MaxRange {
		limit = MaxRange
	}
	s.keys.Ascend(from, func(key string, r record) bool {
		if to != "" && key >= to {
			return false
		}
		cost := len(key) + len(r.value) + entryOverhead
		if len(entries) == limit || len(entries) > 0 && cost > *budget {
			more = true
			return false
		}
		*budget = max(*budget-cost, 0)
		entries = append(entries, r.entry(key))
		return true
	})
	return entries, more
}

func (r *record) entry(key string) Entry {
	return Entry{Key: key, Value: r.value, CreateRevision: r.created, ModRevision: r.modified, Version: r.version}
}
