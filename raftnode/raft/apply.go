package raft

import "fmt"

// applying meters what is given out to be applied, so that a slow state machine does not
// make a backlog pile up in memory.
type applying struct {
	most    uint64  // bytes given out and not yet applied
	given   uint64  // the last index given out
	applied uint64  // the last index reported as applied
	batches []batch // given out and not yet applied, oldest first
	bytes   uint64  // in batches
}

type batch struct{ last, bytes uint64 }

// has reports whether take would return something, were the log readable up to index to.
func (a *applying) has(to uint64) bool {
	return a.given < to && (a.bytes == 0 || a.bytes < a.most)
}

// take gives out what may be applied next.
func (a *applying) take(log *raftLog) []Entry {
	to := log.applicable()
	if !a.has(to) {
		return nil
	}
	entries := log.slice(a.given+1, to+1, a.most-min(a.most, a.bytes))
	if len(entries) == 0 {
		return nil // storage failed
	}
	var size uint64
	for _, e := range entries {
		size += entrySize(e)
	}
	a.given = entries[len(entries)-1].Index
	a.batches = append(a.batches, batch{a.given, size})
	a.bytes += size
	return entries
}

// done notes that everything up to index is applied.
func (a *applying) done(index uint64) error {
	if index < a.applied || index > a.given {
		return fmt.Errorf("raft: applied index %d is not in [%d, %d], the last applied and the last given out", index, a.applied, a.given)
	}
	a.applied = index
	for len(a.batches) > 0 && a.batches[0].last <= index {
		a.bytes -= a.batches[0].bytes
		a.batches = a.batches[1:]
	}
	return nil
}

// backlog is how much of its own term a leader has appended that is not applied yet.
type backlog struct {
	first uint64   // index of sizes[0]
	sizes []uint64 // bytes of data of each entry
	bytes uint64
}

// admits reports whether size more bytes may be appended. Entries without data always may:
// what the leader appends of its own accord must never be held up. So may a single
// proposal of any size, or it could never pass.
func (b *backlog) admits(size, most uint64) bool {
	return most == 0 || size == 0 || b.bytes == 0 || b.bytes+size <= most
}

func (b *backlog) add(e Entry) {
	if len(b.sizes) == 0 {
		b.first = e.Index
	}
	b.sizes = append(b.sizes, uint64(len(e.Data)))
	b.bytes += uint64(len(e.Data))
}

// applied gives back the share of everything up to index.
func (b *backlog) applied(index uint64) {
	for len(b.sizes) > 0 && b.first <= index {
		b.bytes -= b.sizes[0]
		b.sizes = b.sizes[1:]
		b.first++
	}
}
