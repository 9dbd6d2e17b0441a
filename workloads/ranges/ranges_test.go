package ranges

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"capsize/checkers"
	"capsize/histories"
	"capsize/workloads/internal/play"
	"capsize/workloads/rolling"
)

// memory is a store of spaces that remembers all changes.
type memory struct {
	revision int64
	items    map[string]map[int64]int64
	changes  map[string][]histories.Micro
	// bug, if there is one, changes what a read or a watch returns, once enough has happened.
	bug func(list []histories.Micro) []histories.Micro
	// blind makes every second watch answer as if all changes were forgotten.
	blind bool
	asked int
}

func newMemory() *memory {
	return &memory{items: make(map[string]map[int64]int64), changes: make(map[string][]histories.Micro)}
}

func (m *memory) change(space, f string, item, value int64) {
	if m.items[space] == nil {
		m.items[space] = make(map[int64]int64)
	}
	c := histories.Micro{F: f, Key: fmt.Sprint(item), Revision: m.revision}
	if f == Put {
		m.items[space][item] = value
		c.Value = histories.Int(value)
	} else {
		delete(m.items[space], item)
	}
	m.changes[space] = append(m.changes[space], c)
}

func (m *memory) PutItem(_ context.Context, space string, item, value int64) (histories.Reply, error) {
	m.revision++
	m.change(space, Put, item, value)
	return histories.Reply{Revision: m.revision}, nil
}

func (m *memory) DeleteItem(ctx context.Context, space string, item int64) (histories.Reply, error) {
	return m.DeleteItems(ctx, space, item, item+1)
}

func (m *memory) DeleteItems(_ context.Context, space string, from, to int64) (histories.Reply, error) {
	var there []int64
	for item := from; item < to; item++ {
		if _, is := m.items[space][item]; is {
			there = append(there, item)
		}
	}
	if len(there) == 0 {
		return histories.Reply{}, nil
	}
	m.revision++
	for _, item := range there {
		m.change(space, Delete, item, 0)
	}
	return histories.Reply{Revision: m.revision}, nil
}

func (m *memory) wrong(list []histories.Micro) []histories.Micro {
	if m.bug != nil && m.revision > 60 && len(list) > 1 {
		return m.bug(slices.Clone(list))
	}
	return list
}

func (m *memory) Items(_ context.Context, space string, from, to int64) (histories.Reply, error) {
	var list []histories.Micro
	for item := from; item < to; item++ {
		if value, there := m.items[space][item]; there {
			list = append(list, histories.Micro{F: "r", Key: fmt.Sprint(item), Value: histories.Int(value)})
		}
	}
	return histories.Reply{Value: histories.Micros(m.wrong(list)...)}, nil
}

func (m *memory) Watch(_ context.Context, space string, after int64) (histories.Reply, error) {
	if m.asked++; m.blind && m.asked%2 == 0 {
		return histories.Reply{}, &histories.Refusal{Found: histories.Int(m.revision), Said: true}
	}
	var list []histories.Micro
	for _, c := range m.changes[space] {
		if c.Revision > after {
			list = append(list, c)
		}
	}
	return histories.Reply{Value: histories.Micros(m.wrong(list)...), Revision: max(after, m.revision)}, nil
}

func judged(t *testing.T, make func(rolling.Limits) (*Workload, error), m *memory) checkers.Result {
	t.Helper()
	w, err := make(rolling.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	play.Misuse(t, w, m)
	for _, result := range play.Judge(t, w, play.Run(t, w, 7, 600, func(int) any { return m })) {
		return result
	}
	return checkers.Result{}
}

func TestRightSpacesAreValid(t *testing.T) {
	for _, make := range []func(rolling.Limits) (*Workload, error){New, NewWatch} {
		if r := judged(t, make, newMemory()); r.Verdict != checkers.Valid {
			t.Errorf("%s: %s: %s", r.Checker, r.Verdict, r.Summary)
		}
	}
	forgetful := newMemory()
	forgetful.blind = true
	if r := judged(t, NewWatch, forgetful); r.Verdict != checkers.Valid {
		t.Errorf("a watch that forgets and says so: %s: %s", r.Verdict, r.Summary)
	}
}

func TestWrongSpacesAreFound(t *testing.T) {
	set := func(value, revision int64) func([]histories.Micro) []histories.Micro {
		return func(list []histories.Micro) []histories.Micro {
			last := &list[len(list)-1]
			last.F, last.Value = Put, histories.Int(value)
			last.Revision += revision
			return list
		}
	}
	for name, c := range map[string]struct {
		bug          func([]histories.Micro) []histories.Micro
		watch, items string // what is said; empty: nothing
	}{
		"one is left out":   {func(l []histories.Micro) []histories.Micro { return slices.Delete(l, 0, 1) }, "but not that item", "has no legal order"},
		"one is told twice": {func(l []histories.Micro) []histories.Micro { return append(l, l[len(l)-1]) }, "told twice", "has no legal order"},
		"out of order": {func(l []histories.Micro) []histories.Micro {
			slices.Reverse(l)
			return l
		}, "after revision", "has no legal order"},
		"made up":       {set(99999, 0), "", "has no legal order"},
		"of the future": {set(99999, 1000), "was asked for what came after", ""},
	} {
		m := newMemory()
		m.bug = c.bug
		if r := judged(t, NewWatch, m); r.Verdict != checkers.Invalid || !strings.Contains(r.Summary, c.watch) {
			t.Errorf("watch, %s: %s: %s", name, r.Verdict, r.Summary)
		}
		m = newMemory()
		m.bug = c.bug
		if r := judged(t, New, m); c.items != "" && r.Verdict != checkers.Invalid {
			t.Errorf("ranges, %s: %s: %s", name, r.Verdict, r.Summary)
		}
	}
}

// A watch that tells nothing tests nothing.
func TestAWatchOfNothingIsUnknown(t *testing.T) {
	w, err := NewWatch(rolling.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	m := newMemory()
	m.bug = func([]histories.Micro) []histories.Micro { return nil }
	var silent []histories.Event
	for _, e := range play.Run(t, w, 7, 100, func(int) any { return m }) {
		if e.F == Watch && e.Type == histories.OK {
			e.Value, e.Revision = histories.Nil, 0
		}
		silent = append(silent, e)
	}
	if r := play.Judge(t, w, silent)["watch"]; r.Verdict != checkers.Unknown {
		t.Errorf("%s: %s", r.Verdict, r.Summary)
	}
}
