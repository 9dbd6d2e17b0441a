package bank

import (
	"context"
	"strings"
	"testing"

	"capsize/checkers"
	"capsize/histories"
	"capsize/workloads/internal/play"
	"capsize/workloads/rolling"
)

// memory is a store of integers. bug may change what is written from the hundredth change on.
type memory struct {
	values map[string]int64
	count  int
	bug    func(m *memory, written []histories.Micro) []histories.Micro
}

func (m *memory) GetAll(_ context.Context, keys []string) (histories.Reply, error) {
	var found []histories.Micro
	for _, key := range keys {
		one := histories.Micro{F: "r", Key: key}
		if value, there := m.values[key]; there {
			one.Value = histories.Int(value)
		}
		found = append(found, one)
	}
	return histories.Reply{Value: histories.Micros(found...)}, nil
}

func (m *memory) SwapAll(ctx context.Context, expected, written []histories.Micro) (histories.Reply, error) {
	m.count++
	for _, e := range expected {
		found, _ := m.GetAll(ctx, []string{e.Key})
		if list, _ := found.Value.Micros(); !list[0].Value.Equal(e.Value) {
			return histories.Reply{}, &histories.Refusal{}
		}
	}
	if m.bug != nil && m.count > 100 {
		written = m.bug(m, written)
	}
	for _, w := range written {
		m.values[w.Key], _ = w.Value.Int()
	}
	return histories.Reply{}, nil
}

func judged(t *testing.T, bug func(*memory, []histories.Micro) []histories.Micro) map[string]checkers.Result {
	t.Helper()
	w, err := New(rolling.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{values: make(map[string]int64), bug: bug}
	play.Misuse(t, w, m)
	return play.Judge(t, w, play.Run(t, w, 7, 600, func(int) any { return m }))
}

func TestARightBankIsValid(t *testing.T) {
	for name, result := range judged(t, nil) {
		if result.Verdict != checkers.Valid {
			t.Errorf("%s: %s: %s", name, result.Verdict, result.Summary)
		}
	}
}

func TestWrongBanksAreFound(t *testing.T) {
	for name, c := range map[string]struct {
		bug   func(*memory, []histories.Micro) []histories.Micro
		total string // what the check of totals says; empty: it finds nothing
	}{
		"half a transfer is done": {func(_ *memory, w []histories.Micro) []histories.Micro { return w[:1] }, "in all accounts together"},
		"a transfer is lost":      {func(*memory, []histories.Micro) []histories.Micro { return nil }, ""},
		"an account is overdrawn": {func(m *memory, w []histories.Micro) []histories.Micro {
			from, _ := w[0].Value.Int()
			to, _ := w[1].Value.Int()
			return []histories.Micro{{Key: w[0].Key, Value: histories.Int(from - 300)}, {Key: w[1].Key, Value: histories.Int(to + 300)}}
		}, "below 0"},
	} {
		results := judged(t, c.bug)
		if r := results["linearizability"]; r.Verdict != checkers.Invalid {
			t.Errorf("%s: %s: %s", name, r.Verdict, r.Summary)
		}
		if r := results["bank-total"]; (r.Verdict == checkers.Invalid) != (c.total != "") || !strings.Contains(r.Summary, c.total) {
			t.Errorf("%s: %s: %s", name, r.Verdict, r.Summary)
		}
	}
}
