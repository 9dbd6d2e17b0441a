package kv

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Status says what a command did.
type Status uint8

const (
	// Applied: the command took effect, or read what it asked for.
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
	// Fenced: the lock of the fence is not held under its token, so nothing was applied.
	Fenced
	// Held: another owner holds the lock, so it was not acquired.
	Held
	// NotHeld: the lock is not held by this owner under this token, so nothing was released.
	NotHeld
	// TooLarge: an append would make a value larger than MaxValueBytes, so nothing was
	// applied, of a transaction neither.
	TooLarge
)

var statusNames = [...]string{"applied", "mismatch", "superseded", "reused", "malformed", "fenced", "held",
	"not held", "too large"}

// String names the status.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// Entry is a key with what it holds.
type Entry struct {
	Key            string
	Value          string
	CreateRevision uint64 // when the key came to be
	ModRevision    uint64 // when it was last written
	Version        uint64 // how often it was written since it came to be
}

// Lock is who holds a lock, and under which fencing token. The zero Lock is held by none.
type Lock struct {
	Owner string
	Token uint64
}

// Found is what an operation on keys came upon.
type Found struct {
	Entry   Entry   // Get, and CompareAndSwap when it is a Mismatch
	Present bool    // there is an Entry
	Entries []Entry // Range
	More    bool    // Range: there are more entries than the limit lets through
	Deleted uint64  // Delete, DeleteRange: keys that were there
}

// Result is what a command did, and what it found.
type Result struct {
	Status   Status
	Revision uint64 // of the store, after the command
	Found
	Lock      Lock    // lock operations, and what is Fenced: who holds the lock now
	Succeeded bool    // Txn: all compares held
	Answers   []Found // Txn: one for each action that was done
}

const (
	isPresent = 1 << iota
	hasEntries
	hasMore
	hasDeleted
)

func (f *Found) append(b []byte) []byte {
	var flags byte
	if f.Present {
		flags |= isPresent
	}
	if len(f.Entries) > 0 {
		flags |= hasEntries
	}
	if f.More {
		flags |= hasMore
	}
	if f.Deleted > 0 {
		flags |= hasDeleted
	}
	b = append(b, flags)
	if f.Present {
		b = f.Entry.append(b)
	}
	if len(f.Entries) > 0 {
		b = binary.AppendUvarint(b, uint64(len(f.Entries)))
		for i := range f.Entries {
			b = f.Entries[i].append(b)
		}
	}
	if f.Deleted > 0 {
		b = binary.AppendUvarint(b, f.Deleted)
	}
	return b
}

func (e *Entry) append(b []byte) []byte {
	b = binary.AppendUvarint(b, e.CreateRevision)
	b = binary.AppendUvarint(b, e.ModRevision)
	b = binary.AppendUvarint(b, e.Version)
	b = appendString(b, e.Key)
	return appendString(b, e.Value)
}

func (d *decoder) entry() Entry {
	return Entry{
		CreateRevision: d.uvarint(),
		ModRevision:    d.uvarint(),
		Version:        d.uvarint(),
		Key:            d.string(MaxKeyBytes),
		Value:          d.string(MaxValueBytes),
	}
}

func (d *decoder) found() (f Found) {
	flags := d.byte()
	if flags&isPresent != 0 {
		f.Present, f.Entry = true, d.entry()
	}
	if flags&hasEntries != 0 {
		f.Entries = make([]Entry, d.count(MaxRange, 2))
		for i := range f.Entries {
			f.Entries[i] = d.entry()
		}
	}
	f.More = flags&hasMore != 0
	if flags&hasDeleted != 0 {
		f.Deleted = d.uvarint()
	}
	return f
}

const (
	hasFound = 1 << iota
	hasLock
	hasSucceeded
	hasAnswers
)

// append adds the encoding of a result, which sessions keep and the digest covers.
func (r *Result) append(b []byte) []byte {
	var flags byte
	if r.Present || r.More || len(r.Entries) > 0 || r.Deleted > 0 {
		flags |= hasFound
	}
	if r.Lock != (Lock{}) {
		flags |= hasLock
	}
	if r.Succeeded {
		flags |= hasSucceeded
	}
	if len(r.Answers) > 0 {
		flags |= hasAnswers
	}
	b = append(b, byte(r.Status), flags)
	b = binary.AppendUvarint(b, r.Revision)
	if flags&hasFound != 0 {
		b = r.Found.append(b)
	}
	if flags&hasLock != 0 {
		b = appendString(b, r.Lock.Owner)
		b = binary.AppendUvarint(b, r.Lock.Token)
	}
	if flags&hasAnswers != 0 {
		b = binary.AppendUvarint(b, uint64(len(r.Answers)))
		for i := range r.Answers {
			b = r.Answers[i].append(b)
		}
	}
	return b
}

// decodeResult is the inverse of Result.append.
func decodeResult(data string) (Result, error) {
	d := decoder{rest: data}
	r := Result{Status: Status(d.byte())}
	flags := d.byte()
	r.Revision = d.uvarint()
	if flags&hasFound != 0 {
		r.Found = d.found()
	}
	if flags&hasLock != 0 {
		r.Lock = Lock{Owner: d.string(MaxKeyBytes), Token: d.uvarint()}
	}
	r.Succeeded = flags&hasSucceeded != 0
	if flags&hasAnswers != 0 {
		r.Answers = make([]Found, d.count(MaxActions, 1))
		for i := range r.Answers {
			r.Answers[i] = d.found()
		}
	}
	switch {
	case d.failed || d.rest != "" || flags > 2*hasAnswers-1:
		return Result{}, fmt.Errorf("result of %d bytes is malformed", len(data))
	case int(r.Status) >= len(statusNames):
		return Result{}, fmt.Errorf("result with unknown status %d", r.Status)
	case string(r.append(make([]byte, 0, len(data)))) != data:
		return Result{}, errors.New("result is not encoded in its one way")
	}
	return r, nil
}

// MaxRangeBytes bounds what one command reads in its ranges, counting keys, values and
// entryOverhead for each entry. Past it a range stops as at its limit, yet never before
// its first entry: a reader that goes on from where a range ended gets to the end.
const MaxRangeBytes = 1 << 20

// entryOverhead is more than an encoded entry takes beside its key and value.
const entryOverhead = 48

// maxResultBytes bounds an encoded result: one entry of the largest size for each action
// and compare-and-swap, and what ranges find within MaxRangeBytes.
const maxResultBytes = MaxRangeBytes + (MaxActions+1)*(MaxKeyBytes+MaxValueBytes+2*entryOverhead)
