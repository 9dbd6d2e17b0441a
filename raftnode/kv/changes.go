package kv

import "slices"

// Change is what became of one key at a revision.
type Change struct {
	Key      string
	Value    string
	Deleted  bool
	Revision uint64
}

// Bounds on the changes that are remembered. Older ones are forgotten.
const (
	MaxChanges      = 1 << 14
	MaxChangesBytes = 16 << 20 // about
)

// changes remembers the newest changes of keys, in order. It is no part of the state: no
// snapshot holds it, and a store that was restored remembers nothing from before.
type changes struct {
	list  []Change
	bytes int
	since uint64 // all changes after this revision are in the list
}

func (c *Change) size() int { return len(c.Key) + len(c.Value) + entryOverhead }

func (c *changes) add(change Change) {
	c.list = append(c.list, change)
	c.bytes += change.size()
}

// drop forgets the changes from a position of the list on: they were undone.
func (c *changes) drop(from int) {
	for i := range c.list[from:] {
		c.bytes -= c.list[from+i].size()
	}
	c.list = c.list[:from]
}

// trim forgets the oldest changes, those of one revision together, when there are too many.
func (c *changes) trim() {
	if len(c.list) < 2*MaxChanges && c.bytes <= MaxChangesBytes {
		return
	}
	gone := max(0, len(c.list)-MaxChanges)
	for i := range gone {
		c.bytes -= c.list[i].size()
	}
	for gone < len(c.list) && (c.bytes > MaxChangesBytes/2 || gone > 0 && c.list[gone].Revision == c.list[gone-1].Revision) {
		c.bytes -= c.list[gone].size()
		gone++
	}
	if gone > 0 {
		c.since = c.list[gone-1].Revision
	}
	c.list = slices.Clone(c.list[gone:]) // the rest is to be collected
}

// Changes returns the changes after a revision of the keys from from up to, not including, to,
// in the order in which they were made; an empty to is the end of all keys. They are all there
// are up to the revision upTo, which never cuts the changes of one command in two. known is
// false where changes after that revision are forgotten: Since says from where they are known.
func (s *Store) Changes(from, to string, after uint64) (list []Change, upTo uint64, known bool) {
	if after < s.changes.since {
		return nil, after, false
	}
	at, _ := slices.BinarySearchFunc(s.changes.list, after+1, func(c Change, revision uint64) int {
		return int(int64(c.Revision) - int64(revision)) // far below an overflow: see maxIndex
	})
	budget := MaxRangeBytes
	for _, c := range s.changes.list[at:] {
		if len(list) > 0 && (len(list) >= MaxRange || budget < 0) && c.Revision != upTo {
			return list, upTo, true
		}
		if upTo = c.Revision; c.Key >= from && (to == "" || c.Key < to) {
			list = append(list, c)
			budget -= c.size()
		}
	}
	return list, max(after, s.revision), true
}

// Since is the revision after which all changes are remembered.
func (s *Store) Since() uint64 { return s.changes.since }
