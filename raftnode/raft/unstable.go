package raft

// unstable is the end of the log that is not known to be durable: a snapshot that is to
// replace the log, entries, or both. Part of it may have been handed out for writing.
//
// Writes overlap: a later one is handed out before an earlier one is finished, and a new
// leader may have entries replaced meanwhile. So a report that "entry 5 of term 1 is
// written" does not mean that entry 5 of term 1 is durable, not even where the log holds
// just that entry again:
//
//	write 1 puts entry 5 of term 1   (A)
//	write 2 replaces it by term 2's  (B)
//	write 3 puts term 1's back       (A: the leader of term 3 had it)
//
// When write 1 finishes, the disk will still go through B. A crash there would lose the
// entry, though this node would have acknowledged it. So each write bears the term in
// which it was handed out, and speaks for nothing once the node's term has moved on: within
// one term no entry is replaced twice.
type unstable struct {
	snapshot           *Snapshot // nil: none
	snapshotInProgress bool      // it has been handed out
	offset             uint64    // index of entries[0]; everything before it is durable, or in snapshot
	entries            []Entry
	handed             uint64 // entries up to here have been handed out; at least offset-1
}

func (u *unstable) lastIndex() uint64 { return u.offset + uint64(len(u.entries)) - 1 }

// append puts entries at the end, after discarding whatever stands at or after the first
// one. There is at least one, and it leaves no gap.
func (u *unstable) append(entries []Entry) {
	first := entries[0].Index
	switch {
	case first == u.offset+uint64(len(u.entries)):
	case first <= u.offset:
		u.offset, u.entries = first, nil
	default:
		// Who was given what is replaced still holds it: its array must stay as it is.
		u.entries = u.entries[: first-u.offset : first-u.offset]
	}
	u.entries = append(u.entries, entries...)
	u.handed = min(u.handed, first-1)
}

// next returns the entries that have not been handed out.
func (u *unstable) next() []Entry {
	from := u.handed + 1 - u.offset
	return u.entries[from:len(u.entries):len(u.entries)]
}

// nextSnapshot returns the snapshot, unless it has been handed out.
func (u *unstable) nextSnapshot() *Snapshot {
	if u.snapshotInProgress {
		return nil
	}
	return u.snapshot
}

// accept notes that all there is has been handed out.
func (u *unstable) accept() {
	u.handed = u.lastIndex()
	u.snapshotInProgress = u.snapshot != nil
}

// durableTo notes that entries up to index, whose term there is term, are durable.
func (u *unstable) durableTo(index, term uint64) {
	if index < u.offset || index > u.lastIndex() || u.entries[index-u.offset].Term != term {
		return // replaced since, or known already
	}
	u.entries = u.entries[index+1-u.offset:]
	u.offset = index + 1
	u.handed = max(u.handed, index)
	switch {
	case len(u.entries) == 0:
		u.entries = nil // lets go of the array
	case len(u.entries)*2 < cap(u.entries):
		u.entries = append([]Entry(nil), u.entries...) // of most of it
	}
}

// snapshotDurable notes that the snapshot of that index is durable.
func (u *unstable) snapshotDurable(index uint64) {
	if u.snapshot != nil && u.snapshot.Metadata.Index == index {
		u.snapshot, u.snapshotInProgress = nil, false
	}
}

// restore replaces everything by a snapshot.
func (u *unstable) restore(s *Snapshot) {
	*u = unstable{snapshot: s, offset: s.Metadata.Index + 1, handed: s.Metadata.Index}
}
