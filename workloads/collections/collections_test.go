package collections

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"capsize/checkers"
	"capsize/histories"
	"capsize/workloads"
	"capsize/workloads/internal/play"
)

// memory is a store that answers at once. bug, if there is one, may change the list of a key
// before an operation, or say that it is done already.
type memory struct {
	lists map[string][]int64
	count int
	bug   func(m *memory, write bool, list []int64, element int64) (changed []int64, done bool)
}

func (m *memory) write(key string, element int64) (histories.Reply, error) {
	m.count++
	if m.bug != nil {
		if list, done := m.bug(m, true, m.lists[key], element); done {
			m.lists[key] = list
			return histories.Reply{Value: histories.Int(int64(len(list)))}, nil
		}
	}
	m.lists[key] = append(slices.Clone(m.lists[key]), element)
	return histories.Reply{Value: histories.Int(int64(len(m.lists[key])))}, nil
}

func (m *memory) read(key string) []int64 {
	m.count++
	if m.bug != nil {
		if list, done := m.bug(m, false, m.lists[key], 0); done {
			return list
		}
	}
	return m.lists[key]
}

func (m *memory) Append(_ context.Context, key string, element int64) (histories.Reply, error) {
	return m.write(key, element)
}

func (m *memory) List(_ context.Context, key string) (histories.Reply, error) {
	return histories.Reply{Value: histories.Ints(m.read(key)...)}, nil
}

func (m *memory) AddElement(_ context.Context, key string, element int64) (histories.Reply, error) {
	return m.write(key, element)
}

func (m *memory) Elements(_ context.Context, key string) (histories.Reply, error) {
	return histories.Reply{Value: histories.Ints(m.read(key)...)}, nil
}

func (m *memory) AddTo(_ context.Context, key string, delta int64) (histories.Reply, error) {
	return m.write(key, delta)
}

func (m *memory) Sum(_ context.Context, key string) (histories.Reply, error) {
	return histories.Reply{Value: histories.Int(int64(len(m.read(key))))}, nil
}

// played performs a workload's operations on one store.
func played(t testing.TB, w *Workload, seed uint64, store *memory, count int) []histories.Event {
	t.Helper()
	return play.Run(t, w, seed, count, func(int) any { return store })
}

func all(t testing.TB) []*Workload {
	t.Helper()
	var list []*Workload
	for _, make := range []func(Options) (*Workload, error){NewLists, NewSets, NewCounters} {
		w, err := make(Options{Keys: 2, OpsPerKey: 50})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, w)
	}
	return list
}

func TestARightStoreIsValid(t *testing.T) {
	for _, w := range all(t) {
		events := played(t, w, 7, &memory{lists: map[string][]int64{}}, 500)
		result := play.Judge(t, w, events)["linearizability"]
		if methods := fmt.Sprint(result.Linearizability.Methods); result.Verdict != checkers.Valid || !strings.Contains(methods, "map[forced order:") {
			t.Errorf("%s: %s by %s: %s", w.Name(), result.Verdict, methods, result.Summary)
		}
	}
}

func TestWrongStoresAreFound(t *testing.T) {
	const when = 100 // operations before the bug shows
	bugs := map[string]func(m *memory, write bool, list []int64, element int64) ([]int64, bool){
		"a write is lost": func(m *memory, write bool, list []int64, _ int64) ([]int64, bool) {
			return list, write && m.count >= when && len(list) > 0 && m.count%7 == 0
		},
		"a read is stale": func(m *memory, write bool, list []int64, _ int64) ([]int64, bool) {
			if write || m.count < when || len(list) == 0 {
				return nil, false
			}
			return list[:len(list)-1], true
		},
		"a write is done twice": func(m *memory, write bool, list []int64, element int64) ([]int64, bool) {
			return append(slices.Clone(list), element, element), write && m.count >= when
		},
		"what was never written is there": func(m *memory, write bool, list []int64, _ int64) ([]int64, bool) {
			return append(slices.Clone(list), 99999), !write && m.count >= when
		},
	}
	for name, bug := range bugs {
		for _, w := range all(t) {
			store := &memory{lists: map[string][]int64{}, bug: bug}
			result := play.Judge(t, w, played(t, w, 7, store, 500))["linearizability"]
			if result.Verdict != checkers.Invalid {
				t.Errorf("%s, %s: %s", w.Name(), name, result.Verdict)
				continue
			}
			if v := result.Linearizability.Violations[0]; !strings.HasPrefix(v.Verified, "Porcupine finds no order") {
				t.Errorf("%s, %s: %s: %s", w.Name(), name, v.Explanation, v.Verified)
			}
		}
	}
}

func TestTheSameSeedGivesTheSameOperations(t *testing.T) {
	for _, w := range all(t) {
		a := played(t, w, 7, &memory{lists: map[string][]int64{}}, 300)
		b := played(t, w, 7, &memory{lists: map[string][]int64{}}, 300)
		c := played(t, w, 8, &memory{lists: map[string][]int64{}}, 300)
		alike := cmp.Comparer(histories.Value.Equal)
		if !cmp.Equal(a, b, alike) || cmp.Equal(a, c, alike) {
			t.Errorf("%s: a seed does not decide what is done", w.Name())
		}
	}
}

func TestWhatCannotBeIsNamed(t *testing.T) {
	for says, o := range map[string]Options{"keys": {Keys: -1}, "operations per key": {OpsPerKey: -5}, "0 reads": {Writes: 3}} {
		if _, err := NewSets(o); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %q", o, err, says)
		}
	}
	for _, w := range all(t) {
		if err := w.Fits(&memory{}); err != nil {
			t.Error(err)
		}
		if err := w.Fits("text"); err == nil || !strings.Contains(err.Error(), w.Name()) {
			t.Errorf("%s: %v", w.Name(), err)
		}
		_, err := w.Perform(context.Background(), &memory{}, workloads.Op{F: "pop", Value: histories.Int(1)})
		if histories.Outcome(err) != histories.Fail {
			t.Errorf("%s: %v", w.Name(), err)
		}
	}
}
