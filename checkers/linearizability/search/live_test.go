package search

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/anishathalye/porcupine"

	"capsize/checkers/internal/soak"
)

// stopsAt feeds a history to a Live and returns the number of returns after which there was
// no order any more, or -1.
func stopsAt(l *Live, h []porcupine.Operation) (Outcome, int) {
	type event struct {
		at      int64
		op      int
		returns bool
	}
	var events []event
	for i, op := range h {
		events = append(events, event{op.Call, i, false})
		if op.Return != Never {
			events = append(events, event{op.Return, i, true})
		}
	}
	slices.SortStableFunc(events, func(a, b event) int {
		if c := cmp.Compare(a.at, b.at); c != 0 || a.returns == b.returns {
			return c
		}
		if b.returns {
			return -1
		}
		return 1
	})
	slot, count := make([]int, len(h)), 0
	for _, e := range events {
		if !e.returns {
			slot[e.op] = l.Add(h[e.op], h[e.op].Return != Never)
			continue
		}
		count++
		if outcome := l.Return(slot[e.op]); outcome != Linearizable {
			return outcome, count
		}
	}
	return Linearizable, -1
}

// possible reports whether a history has an order as it stood after so many returns. What began
// later is not there; what returned later may have taken effect already, with the answer that
// it got then, or not.
func possible(o object, h []porcupine.Operation, returns int) bool {
	var ends []int64
	for _, op := range h {
		if op.Return != Never {
			ends = append(ends, op.Return)
		}
	}
	slices.Sort(ends)
	last := ends[returns-1]
	var sure, open []porcupine.Operation
	for _, op := range h {
		switch {
		case op.Call > last:
		case op.Return > last && op.Return != Never:
			op.Return = Never
			open = append(open, op)
		default:
			sure = append(sure, op)
		}
	}
	for subset := range 1 << len(open) {
		list := slices.Clone(sure)
		for i, op := range open {
			if subset>>i&1 == 1 {
				list = append(list, op)
			}
		}
		if porcupine.CheckOperations(o.model, list) {
			return true
		}
	}
	return false
}

func TestLiveStopsWhereThereIsNoOrderAnyMore(t *testing.T) {
	for _, o := range objects() {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(7, uint64(len(o.name))))
			stopped := 0
			for i := range soak.Count(t, 3000) {
				h := history(r, o, 2+r.IntN(8))
				outcome, at := stopsAt(NewLive(o.known(i), 10_000), h)
				if want := porcupine.CheckOperations(o.model, h); want != (outcome == Linearizable) {
					t.Fatalf("history %d: %s, Porcupine says %v\n%s", i, outcome, want, show(h))
				}
				if outcome != Illegal {
					continue
				}
				stopped++
				distinct := map[int64]bool{}
				for _, op := range h {
					distinct[op.Return] = true
				}
				if len(distinct) < len(h) || at < 2 {
					continue // returns at one moment have no order to cut at
				}
				if !possible(o, h, at-1) {
					t.Fatalf("history %d: it was impossible before return %d already\n%s", i, at, show(h))
				}
				if possible(o, h, at) {
					t.Fatalf("history %d: it is possible still after return %d\n%s", i, at, show(h))
				}
			}
			if stopped == 0 {
				t.Error("no history was impossible")
			}
		})
	}
}

func TestLiveGivesUpAtItsLimits(t *testing.T) {
	model := Model{Model: objects()[3].model}
	if outcome, _ := stopsAt(NewLive(model, 100), hard(20)); outcome != Unknown {
		t.Errorf("%s with 20 operations in flight", outcome)
	}
	l := NewLive(model, 100)
	for range 65 {
		l.Add(porcupine.Operation{Input: call{f: "append", lost: true}}, false)
	}
	if got := l.Return(0); got != Unknown || l.ways != nil {
		t.Errorf("%s with 65 operations of unknown outcome", got)
	}
}
