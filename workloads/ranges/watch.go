package ranges

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"capsize/checkers"
	"capsize/histories"
)

// watchChecker decides whether watchers were told the truth: every change between the
// revision that they gave and the one that they got, each once, in order, the same to all of
// them, and nothing that nobody did. A watch may be late; what it has not told yet is not missed.
type watchChecker struct{}

// Name is "watch".
func (*watchChecker) Name() string { return "watch" }

const toldToWatchers = "changes told to watchers"

// Check judges each space by itself.
func (*watchChecker) Check(_ context.Context, run *checkers.Run) checkers.Result {
	found := checkers.NewFindings(run, toldToWatchers)
	spaces := make(map[string]*space)
	var order []*space
	for _, op := range histories.Operations(run.History) {
		s := spaces[op.Key]
		if s == nil {
			s = &space{found: found, puts: make(map[int64]histories.Operation), changes: make(map[place]change), byValue: make(map[int64]place)}
			spaces[op.Key] = s
			order = append(order, s)
		}
		s.note(op)
	}
	for _, s := range order {
		s.judge()
	}
	return found.Result()
}

// place is where a change stands: the changes of one command share a revision.
type place struct {
	revision int64
	item     string
}

// change is what became of an item, and who says so.
type change struct {
	deleted bool
	value   int64
	told    histories.Operation
}

func (c change) String() string {
	if c.deleted {
		return "deleted"
	}
	return fmt.Sprintf("set to %d", c.value)
}

// space is what is known of one.
type space struct {
	found   *checkers.Findings
	puts    map[int64]histories.Operation // by value
	watches []histories.Operation
	changes map[place]change
	order   []place // of the changes, sorted
	byValue map[int64]place
}

func (s *space) note(op histories.Operation) {
	two, pair := op.Input.Ints()
	item, single := op.Input.Int()
	switch {
	case op.F == Watch && op.Type == histories.OK:
		s.watches = append(s.watches, op)
	case op.F == Put && pair && len(two) == 2:
		s.puts[two[1]] = op
		if op.Type == histories.OK && op.Revision > 0 {
			s.learn(place{op.Revision, fmt.Sprint(two[0])}, change{value: two[1], told: op})
		}
	case op.F == Delete && single && op.Type == histories.OK && op.Revision > 0:
		s.learn(place{op.Revision, fmt.Sprint(item)}, change{deleted: true, told: op})
	}
}

// learn takes in what somebody says of a place; others may have said something else.
func (s *space) learn(at place, c change) {
	before, known := s.changes[at]
	if !known {
		s.changes[at] = c
		return
	}
	if before.deleted != c.deleted || before.value != c.value {
		s.found.Add("contradiction", []histories.Operation{before.told, c.told}, "%s says that item %s of %s was %s at revision %d, %s that it was %s",
			who(before.told), at.item, c.told.Key, before, at.revision, who(c.told), c)
	}
}

// who names the client that was told something.
func who(op histories.Operation) string {
	if op.F == Watch {
		return fmt.Sprintf("the watch of process %d on %s", op.Process, op.Node)
	}
	return fmt.Sprintf("the answer to process %d from %s", op.Process, op.Node)
}

func (s *space) judge() {
	for _, w := range s.watches {
		s.told(w)
	}
	for at := range s.changes {
		s.order = append(s.order, at)
	}
	slices.SortFunc(s.order, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.revision, b.revision), cmp.Compare(a.item, b.item))
	})
	for _, w := range s.watches {
		s.whole(w)
	}
}

// told judges each change that one watch told, and the order of them.
func (s *space) told(w histories.Operation) {
	after, _ := w.Input.Int()
	list, _ := w.Output.Micros()
	here := make(map[place]bool)
	last := after
	for _, m := range list {
		at := place{m.Revision, m.Key}
		switch {
		case m.Revision <= after || m.Revision > w.Revision:
			s.found.Add("change out of bounds", []histories.Operation{w}, "%s told of revision %d of %s, and was asked for what came after %d and up to %d", who(w), m.Revision, w.Key, after, w.Revision)
		case m.Revision < last:
			s.found.Add("changes out of order", []histories.Operation{w}, "%s told of revision %d of %s after revision %d", who(w), m.Revision, w.Key, last)
		case here[at]:
			s.found.Add("change told twice", []histories.Operation{w}, "%s told twice of the change of item %s of %s at revision %d", who(w), m.Key, w.Key, m.Revision)
		}
		last = max(last, m.Revision)
		here[at] = true
		value, _ := m.Value.Int()
		c := change{deleted: m.F == Delete, value: value, told: w}
		s.learn(at, c)
		if !c.deleted {
			s.written(at, c)
		}
		s.found.Count(toldToWatchers, 1)
	}
}

// written judges a value that a watch told of.
func (s *space) written(at place, c change) {
	put, known := s.puts[c.value]
	w := c.told
	switch {
	case !known:
		s.found.Add("change from nowhere", []histories.Operation{w}, "%s told that item %s of %s was set to %d, which nobody did", who(w), at.item, w.Key, c.value)
	case put.Type == histories.Fail:
		s.found.Add("change from nowhere", []histories.Operation{put, w}, "%s told that item %s of %s was set to %d, of which the node had said that it was not done and never will be: %s", who(w), at.item, w.Key, c.value, put.Error)
	case put.Invoked > w.Returned:
		s.found.Add("change from nowhere", []histories.Operation{w, put}, "%s told that item %s of %s was set to %d before anyone asked for that", who(w), at.item, w.Key, c.value)
	}
	if before, again := s.byValue[c.value]; again && before != at {
		s.found.Add("change told twice", []histories.Operation{s.changes[before].told, w}, "that an item of %s was set to %d is told of revision %d (item %s) and of revision %d (item %s)", w.Key, c.value, before.revision, before.item, at.revision, at.item)
	}
	s.byValue[c.value] = at
}

// whole looks for changes that a watch left out, though it told of a later one or said that it
// had told all up to there.
func (s *space) whole(w histories.Operation) {
	after, _ := w.Input.Int()
	from, _ := slices.BinarySearchFunc(s.order, after+1, byRevision)
	to, _ := slices.BinarySearchFunc(s.order, w.Revision+1, byRevision)
	list, _ := w.Output.Micros()
	there := make(map[place]bool, len(list))
	for _, m := range list {
		there[place{m.Revision, m.Key}] = true
	}
	for _, at := range s.order[from:max(from, to)] {
		if !there[at] {
			c := s.changes[at]
			s.found.Add("missed change", []histories.Operation{c.told, w}, "%s was told all changes of %s after revision %d and up to %d, but not that item %s was %s at revision %d, as %s says",
				who(w), w.Key, after, w.Revision, at.item, c, at.revision, who(c.told))
			return
		}
	}
}

func byRevision(at place, revision int64) int { return cmp.Compare(at.revision, revision) }
