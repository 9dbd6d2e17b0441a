// Package sessions decides whether each client session sees the registers as a session
// should: the four guarantees of Terry et al., "Session Guarantees for Weakly Consistent
// Replicated Data" (PDIS 1994).
//
//	result := sessions.Check(ops, sessions.Options{})
//	for _, v := range result.Violations {
//		fmt.Println(v.Guarantee, v.Text)
//	}
//
// It is for what is weaker than linearizable by design, as reads that may be stale, and needs
// to know the order of versions: the revisions that the system gave, or an order that is
// known otherwise (see [Rank]). One pass, constant time for an operation.
//
// Each guarantee is checked as far as one session shows it: versions that it read or wrote,
// compared with those that it read or wrote before. That a write is ordered after
// another one on every server, for all readers, is not visible to the session; it is
// visible in the versions.
package sessions

import (
	"fmt"
	"math"
)

// Guarantee names one of the four.
type Guarantee string

const (
	// MonotonicReads: a read shows no older version than an earlier read of the session.
	MonotonicReads Guarantee = "monotonic-reads"
	// ReadYourWrites: a read shows no older version than an earlier write of the session.
	ReadYourWrites Guarantee = "read-your-writes"
	// MonotonicWrites: a write makes a newer version than an earlier write of the session.
	MonotonicWrites Guarantee = "monotonic-writes"
	// WritesFollowReads: a write makes a newer version than an earlier read of the session showed.
	WritesFollowReads Guarantee = "writes-follow-reads"
)

// Guarantees are all of them, in the order in which the paper has them.
var Guarantees = []Guarantee{ReadYourWrites, MonotonicReads, WritesFollowReads, MonotonicWrites}

// Unknown is the version of an operation that is to be left out: a write of unknown outcome,
// or anything whose place in the order of versions is not known.
const Unknown = math.MinInt64

// Op is one operation that happened. Those of one session are given in the order in which it
// made them, and none began before the last one ended. Sessions may be mixed in any way.
type Op struct {
	Session int
	Key     string
	Write   bool  // else it is a read
	Version int64 // which version was read or made; newer ones are greater, and one never written is least
}

// Options say how versions compare and what is checked.
type Options struct {
	// OneOrder: the versions of all keys are counted together, as the revisions of a store
	// are. Then a write must be newer than what the session read and wrote of other keys too.
	// Reads are compared key by key still: the newest version of a key may be an old one.
	OneOrder bool
	Skip     []Guarantee // those that the system does not promise
	Keep     int         // violations of a guarantee that are explained, others are counted only; 0: 10
}

// Violation is two operations of a session of which the later should have come first.
type Violation struct {
	Guarantee Guarantee `json:"guarantee"`
	Earlier   int       `json:"earlier"` // positions in what was given to Check
	Later     int       `json:"later"`
	Text      string    `json:"text"`
}

// Result is what a check found: nothing, where each session saw what it should.
type Result struct {
	Violations []Violation       `json:"violations,omitempty"`
	Counts     map[Guarantee]int `json:"counts,omitempty"`   // violations, those without explanation included
	Compared   map[Guarantee]int `json:"compared,omitempty"` // operations that had an earlier one to be compared with
}

// Check compares each operation with the earlier ones of its session. Each operation counts
// for a guarantee at most once, beside the one that it is farthest behind.
func Check(ops []Op, options Options) Result {
	c := &check{ops: ops, options: options, last: make(map[place]newest), skip: make(map[Guarantee]bool),
		found: Result{Counts: make(map[Guarantee]int), Compared: make(map[Guarantee]int)}}
	if c.options.Keep <= 0 {
		c.options.Keep = 10
	}
	for _, g := range options.Skip {
		c.skip[g] = true
	}
	for i := range ops {
		if ops[i].Version != Unknown {
			c.add(i)
		}
	}
	return c.found
}

// place is a key as a session sees it, or all its keys together.
type place struct {
	session int
	key     string
	all     bool
}

// newest are the operations of the greatest versions so far, counted from 1; 0: there is none.
type newest struct{ read, write int }

type check struct {
	ops     []Op
	options Options
	skip    map[Guarantee]bool
	last    map[place]newest
	found   Result
}

func (c *check) add(i int) {
	op := &c.ops[i]
	here := place{session: op.Session, key: op.Key}
	of := c.last[here]
	if op.Write {
		before := of
		if c.options.OneOrder {
			all := place{session: op.Session, all: true}
			before = c.last[all]
			c.last[all] = c.newer(before, i)
		}
		c.compare(WritesFollowReads, before.read, i)
		c.compare(MonotonicWrites, before.write, i)
	} else {
		if c.options.OneOrder {
			all := place{session: op.Session, all: true}
			c.last[all] = c.newer(c.last[all], i)
		}
		c.compare(ReadYourWrites, of.write, i)
		c.compare(MonotonicReads, of.read, i)
	}
	c.last[here] = c.newer(of, i)
}

// newer returns of with the operation in it, if none of its sort is newer.
func (c *check) newer(of newest, i int) newest {
	at := &of.read
	if c.ops[i].Write {
		at = &of.write
	}
	if *at == 0 || c.ops[*at-1].Version < c.ops[i].Version {
		*at = i + 1
	}
	return of
}

// compare holds a later operation against an earlier one: a read may show the same version,
// a write must make a newer one.
func (c *check) compare(g Guarantee, earlier, later int) {
	if earlier == 0 || c.skip[g] {
		return
	}
	c.found.Compared[g]++
	a, b := &c.ops[earlier-1], &c.ops[later]
	if a.Version < b.Version || a.Version == b.Version && !b.Write {
		return
	}
	c.found.Counts[g]++
	if c.found.Counts[g] > c.options.Keep {
		return
	}
	c.found.Violations = append(c.found.Violations, Violation{Guarantee: g, Earlier: earlier - 1, Later: later, Text: fmt.Sprintf(
		"session %d %s, and then %s", a.Session, a.text(), b.text())})
}

func (o *Op) text() string {
	if o.Write {
		return fmt.Sprintf("wrote version %d of %s", o.Version, o.Key)
	}
	return fmt.Sprintf("read version %d of %s", o.Version, o.Key)
}

// Rank returns the versions of values whose order is known, as that of the elements of a
// list: the first is of version 1, so that 0 is left for one never written. Of a value that is
// not among them, or there twice, the version is Unknown.
func Rank(order []int64) func(value int64) int64 {
	ranks := make(map[int64]int64, len(order))
	for i, value := range order {
		if _, twice := ranks[value]; twice {
			ranks[value] = Unknown
			continue
		}
		ranks[value] = int64(i) + 1
	}
	return func(value int64) int64 {
		if rank, known := ranks[value]; known {
			return rank
		}
		return Unknown
	}
}
