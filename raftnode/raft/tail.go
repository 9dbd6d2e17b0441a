package raft

// tail is the end of the log that is not known to be durable, and the disk writes in
// flight that will make it so.
//
// Writes overlap: a later one is handed out before an earlier one is finished, and a new
// leader may have entries replaced meanwhile. So "write 1, which ended at entry 5 of term
// 1, is finished" does not mean that entry 5 of term 1 is durable, not even where the log
// holds just that entry again:
//
//	write 1 puts entry 5 of term 1   (A)
//	write 2 replaces it by term 2's  (B)
//	write 3 puts term 1's back       (A: the leader of term 3 had it)
//
// When write 1 finishes, the disk will still go through B. A crash there would lose the
// entry, though this node would have acknowledged it. Comparing index and term, as one
// would with a message that reports the write, cannot tell the two A apart. Here nothing
// is compared: each write in flight knows the last index for which it speaks, and what
// replaces entries cuts that down at once. When write 1 finishes it speaks for entry 4.
type tail struct {
	offset  uint64  // index of entries[0]; every entry before it is durable
	entries []Entry // not known to be durable
	handed  uint64  // the last index that a write, in flight or finished, holds
	writes  []write // in flight, oldest first
}

// write is a disk write in flight.
type write struct {
	number uint64
	last   uint64    // it makes the log durable up to here
	own    []Message // this node's votes for itself, which count when the write is finished
}

func (t *tail) lastIndex() uint64 { return t.offset + uint64(len(t.entries)) - 1 }

// durable returns the last index up to which the log is durable.
func (t *tail) durable() uint64 { return t.offset - 1 }

// append puts entries at the end, after discarding whatever stands at or after the first
// one. There is at least one, and it leaves no gap.
func (t *tail) append(entries []Entry) {
	first := entries[0].Index
	if first < t.offset {
		t.offset, t.entries = first, nil
	}
	t.entries = append(t.entries[:first-t.offset], entries...)
	t.handed = min(t.handed, first-1)
	for i := range t.writes {
		t.writes[i].last = min(t.writes[i].last, first-1)
	}
}

// unwritten returns the entries that no write holds yet.
func (t *tail) unwritten() []Entry {
	return t.entries[max(t.handed+1, t.offset)-t.offset:]
}

// begin starts a write of everything unwritten.
func (t *tail) begin(number uint64, own []Message) {
	t.handed = t.lastIndex()
	t.writes = append(t.writes, write{number: number, last: t.handed, own: own})
}

// finish takes the oldest write out of flight and makes durable what it speaks for. It
// reports false, and does nothing, if number is not the oldest.
func (t *tail) finish(number uint64) (own []Message, inOrder bool) {
	if len(t.writes) == 0 || t.writes[0].number != number {
		return nil, false
	}
	w := t.writes[0]
	t.writes = t.writes[1:]
	if w.last >= t.offset {
		t.entries = t.entries[w.last+1-t.offset:]
		t.offset = w.last + 1
	}
	if len(t.entries) == 0 {
		t.entries = nil // lets go of the array
	}
	return w.own, true
}
