package transact

import (
	"context"
	"slices"
	"strings"
	"testing"

	"capsize/checkers"
	"capsize/histories"
	"capsize/workloads/internal/play"
	"capsize/workloads/rolling"
)

// memory is a store of lists and registers. old, from the hundredth transaction on, makes reads
// see what was there some transactions ago.
type memory struct {
	lists map[string][]int64
	past  []map[string][]int64
	old   int
	drop  bool // the second write of each transaction from then on
}

func (m *memory) transact(micros []histories.Micro, read func(list []int64) histories.Value) (histories.Reply, error) {
	seen := m.lists
	if m.old > 0 && len(m.past) > 100 {
		seen = m.past[len(m.past)-m.old]
	}
	next := make(map[string][]int64)
	for key, list := range m.lists {
		next[key] = list
	}
	done, writes := slices.Clone(micros), 0
	for i, d := range done {
		if d.F == Read {
			list := next[d.Key]
			if m.old > 0 && len(m.past) > 100 {
				list = seen[d.Key]
			}
			done[i].Value = read(list)
			continue
		}
		if writes++; m.drop && writes > 1 && len(m.past) > 100 {
			continue
		}
		value, _ := d.Value.Int()
		next[d.Key] = append(slices.Clone(next[d.Key]), value)
	}
	m.past = append(m.past, next)
	m.lists = next
	return histories.Reply{Value: histories.Micros(done...)}, nil
}

func (m *memory) TransactLists(_ context.Context, micros []histories.Micro) (histories.Reply, error) {
	return m.transact(micros, func(list []int64) histories.Value { return histories.Ints(list...) })
}

func (m *memory) TransactRegisters(_ context.Context, micros []histories.Micro) (histories.Reply, error) {
	return m.transact(micros, func(list []int64) histories.Value {
		if len(list) == 0 {
			return histories.Nil
		}
		return histories.Int(list[len(list)-1])
	})
}

func judged(t *testing.T, m *memory) map[string]checkers.Result {
	t.Helper()
	results := make(map[string]checkers.Result)
	for _, make := range []func(rolling.Limits) (*Workload, error){NewLists, NewRegisters} {
		w, err := make(rolling.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		m.lists, m.past = nil, nil
		play.Misuse(t, w, m)
		results[w.Name()] = play.Judge(t, w, play.Run(t, w, 7, 400, func(int) any { return m }))["transactions"]
	}
	return results
}

func TestTransactionsOneAfterTheOtherAreValid(t *testing.T) {
	for name, r := range judged(t, &memory{}) {
		if r.Verdict != checkers.Valid || !strings.Contains(r.Summary, "are strict-serializable") {
			t.Errorf("%s: %s: %s", name, r.Verdict, r.Summary)
		}
	}
}

func TestWrongTransactionsAreFound(t *testing.T) {
	for name, m := range map[string]*memory{"old reads": {old: 3}, "lost writes": {drop: true}} {
		for workload, r := range judged(t, m) {
			if r.Verdict != checkers.Invalid || len(r.Findings.Violations) == 0 || len(r.Findings.Violations[0].Core) == 0 {
				t.Errorf("%s, %s: %s: %s", workload, name, r.Verdict, r.Summary)
			}
		}
	}
}
