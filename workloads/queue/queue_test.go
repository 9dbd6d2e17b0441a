package queue

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"capsize/checkers"
	"capsize/histories"
	"capsize/workloads/internal/play"
	"capsize/workloads/rolling"
)

// memory is a store of queues. bug changes what a dequeue does from the hundredth operation on.
type memory struct {
	queues map[string][]int64
	count  int
	bug    func(list []int64) (taken int64, left []int64)
}

func (m *memory) Enqueue(_ context.Context, key string, element int64) (histories.Reply, error) {
	m.count++
	m.queues[key] = append(slices.Clone(m.queues[key]), element)
	return histories.Reply{}, nil
}

func (m *memory) Dequeue(_ context.Context, key string) (histories.Reply, error) {
	m.count++
	list := m.queues[key]
	if len(list) == 0 {
		return histories.Reply{}, nil
	}
	taken, left := list[0], list[1:]
	if m.bug != nil && m.count > 100 && len(list) > 1 {
		if taken, left = m.bug(list); taken < 0 {
			m.queues[key] = left
			return histories.Reply{}, errors.New("no answer")
		}
	}
	m.queues[key] = left
	return histories.Reply{Value: histories.Int(taken)}, nil
}

func (m *memory) Queued(_ context.Context, key string) (histories.Reply, error) {
	return histories.Reply{Value: histories.Ints(m.queues[key]...)}, nil
}

func judged(t *testing.T, bug func([]int64) (int64, []int64)) map[string]checkers.Result {
	t.Helper()
	w, err := New(rolling.Limits{Keys: 2, Ops: 60})
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{queues: make(map[string][]int64), bug: bug}
	play.Misuse(t, w, m)
	return play.Judge(t, w, play.Run(t, w, 7, 500, func(int) any { return m }))
}

func TestARightQueueIsValid(t *testing.T) {
	for name, result := range judged(t, nil) {
		if result.Verdict != checkers.Valid {
			t.Errorf("%s: %s: %s", name, result.Verdict, result.Summary)
		}
	}
	unknown := func(list []int64) (int64, []int64) { return -1, list[1:] }
	for name, result := range judged(t, unknown) {
		if result.Verdict != checkers.Valid {
			t.Errorf("with dequeues of unknown outcome: %s: %s: %s", name, result.Verdict, result.Summary)
		}
	}
}

func TestWrongQueuesAreFound(t *testing.T) {
	for name, c := range map[string]struct {
		bug  func([]int64) (int64, []int64)
		says string // by the elements checker; empty: it finds nothing
	}{
		"an element is taken twice": {func(list []int64) (int64, []int64) { return list[0], list }, "was taken out by process"},
		"an element is lost":        {func(list []int64) (int64, []int64) { return list[0], list[2:] }, "nobody took it out"},
		"the newest is taken":       {func(list []int64) (int64, []int64) { return list[len(list)-1], list[:len(list)-1] }, ""},
		"it makes elements up":      {func(list []int64) (int64, []int64) { return 99999, list }, "was put in by nobody"},
	} {
		results := judged(t, c.bug)
		if r := results["linearizability"]; r.Verdict != checkers.Invalid {
			t.Errorf("%s: %s", name, r.Verdict)
		}
		if r := results["elements"]; (r.Verdict == checkers.Invalid) != (c.says != "") || !strings.Contains(r.Summary, c.says) {
			t.Errorf("%s: %s: %s", name, r.Verdict, r.Summary)
		}
	}
}

func TestWhatCannotBeIsNamed(t *testing.T) {
	if _, err := New(rolling.Limits{Keys: -1}); err == nil || !strings.Contains(err.Error(), "-1 keys") {
		t.Error(err)
	}
}
