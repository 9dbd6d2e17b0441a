package transactions

import (
	"slices"
)

// A brute force decides small histories by their definitions alone: it looks for an order, or
// an interleaving, of the transactions in which a store gives all the answers that they got.

// store is what the brute force runs transactions on: a list of what was appended, or
// the one value that was written last, of each key.
type store map[string][]int64

// run runs a committed transaction at a snapshot and reports whether it gets its answers. It
// returns what it wrote: the store after it, of the keys that it wrote.
func run(txn *Txn, snapshot store) (store, bool) {
	wrote := make(store)
	for i := range txn.Micros {
		m := &txn.Micros[i]
		now, mine := wrote[m.Key]
		if !mine {
			now = snapshot[m.Key]
		}
		switch m.F {
		case "append":
			wrote[m.Key] = append(slices.Clone(now), m.Value)
		case "w":
			wrote[m.Key] = []int64{m.Value}
		case "r":
			if txn.Type != OK {
				continue
			}
			want := m.List
			if want == nil && !m.Nil {
				want = []int64{m.Value}
			}
			if !slices.Equal(now, want) {
				return nil, false
			}
		}
	}
	return wrote, true
}

// serial reports whether the transactions can have run in some order that keeps what before
// says. What failed did not run, and what is of unknown outcome may have or not.
func serial(txns []Txn, before func(a, b *Txn) bool) bool {
	done := make([]bool, len(txns))
	var search func(now store) bool
	search = func(now store) bool {
		missing := false
		for i := range txns {
			missing = missing || txns[i].Type == OK && !done[i]
		}
		if !missing {
			return true
		}
		for i := range txns {
			if done[i] || txns[i].Type == Fail {
				continue
			}
			// What never returned precedes nothing.
			early := false
			for j := range txns {
				early = early || !done[j] && j != i && txns[j].Type == OK && before(&txns[j], &txns[i])
			}
			if early {
				continue
			}
			wrote, ok := run(&txns[i], now)
			if !ok {
				continue
			}
			next := make(store, len(now)+1)
			for k, list := range now {
				next[k] = list
			}
			for k, list := range wrote {
				next[k] = list
			}
			done[i] = true
			if search(next) {
				return true
			}
			done[i] = false
		}
		return false
	}
	return search(store{})
}

func anyOrder(_, _ *Txn) bool { return false }

func sessionOrder(a, b *Txn) bool { return a.Process == b.Process && realtimeOrder(a, b) }

func realtimeOrder(a, b *Txn) bool { return a.Type == OK && a.Return < b.Call }

// snapshots reports whether the transactions can have run in some interleaving of starts and
// commits, each reading of the store as it was at its start, where of two that overlap no
// more than one writes a key.
func snapshots(txns []Txn) bool {
	type running struct {
		snapshot store
		since    int
	}
	open := make(map[int]running)
	done := make([]bool, len(txns))
	var search func(now store, changed map[string]int, clock int) bool
	search = func(now store, changed map[string]int, clock int) bool {
		missing := false
		for i := range txns {
			missing = missing || txns[i].Type == OK && !done[i]
		}
		if !missing {
			return true
		}
		for i := range txns {
			if done[i] || txns[i].Type == Fail {
				continue
			}
			at, started := open[i]
			if !started {
				if _, ok := run(&txns[i], now); !ok {
					continue
				}
				open[i] = running{now, clock}
				if search(now, changed, clock) {
					return true
				}
				delete(open, i)
				continue
			}
			wrote, _ := run(&txns[i], at.snapshot)
			conflict := false
			next, versions := make(store), make(map[string]int)
			for k, list := range now {
				next[k], versions[k] = list, changed[k]
			}
			for k, list := range wrote {
				conflict = conflict || changed[k] > at.since
				next[k], versions[k] = list, clock+1
			}
			if conflict {
				continue
			}
			delete(open, i)
			done[i] = true
			if search(next, versions, clock+1) {
				return true
			}
			done[i] = false
			open[i] = at
		}
		return false
	}
	return search(store{}, map[string]int{}, 0)
}
