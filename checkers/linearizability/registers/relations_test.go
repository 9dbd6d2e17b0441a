package registers

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"capsize/checkers/internal/soak"
)

// transform applies a function to each moment and value of a history.
func transform(ops []Op, moment, value func(int64) int64) []Op {
	ops = slices.Clone(ops)
	for i := range ops {
		op := &ops[i]
		op.Value, op.Expected = value(op.Value), value(op.Expected)
		if op.Call != Early {
			op.Call = moment(op.Call)
		}
		if op.Return != Never {
			op.Return = moment(op.Return)
		}
	}
	return ops
}

func same(x int64) int64 { return x }

func TestAVerdictIsOfTheHistoryAndNotOfItsNumbers(t *testing.T) {
	for seed := range soak.Count(t, 20_000) {
		r := seeded(uint64(seed) + 1<<43)
		ops := randomHistory(r, 12)
		names := map[int64]int64{Nothing: Nothing}
		rename := func(value int64) int64 {
			if _, ok := names[value]; !ok {
				names[value] = int64(r.Uint64()>>1) - math.MaxInt64/2
			}
			return names[value]
		}
		shuffled := slices.Clone(ops)
		r.Shuffle(len(ops), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		want := Check(ops)
		for what, changed := range map[string][]Op{
			"renamed":              transform(ops, same, rename),
			"later":                transform(ops, func(t int64) int64 { return t + 1<<60 }, same),
			"earlier":              transform(ops, func(t int64) int64 { return t - 1<<62 }, same),
			"slower":               transform(ops, func(t int64) int64 { return 1000*t + 7 }, same),
			"in another order":     shuffled,
			"with a pending read":  append(slices.Clone(ops), Op{Kind: Read, Value: 4711, Call: 3, Return: Never}),
			"without unseen ones":  dropUnseen(ops),
			"with an unseen write": withUnseen(ops),
		} {
			got := Check(changed)
			if got.Outcome == Undecided || want.Outcome == Undecided {
				continue // another order of equals may be luckier
			}
			if got.Outcome != want.Outcome {
				t.Fatalf("history %d, %s: %v, was %v\n%s", seed, what, got, want, show(ops))
			}
		}
	}
}

// dropUnseen leaves out the writes of unknown outcome whose value nobody found. That is
// exact as long as no refused swap may have found it.
func dropUnseen(ops []Op) []Op {
	seen := map[int64]bool{}
	for i := range ops {
		switch ops[i].kind() {
		case Read:
			seen[ops[i].Value] = true
		case Swap:
			seen[ops[i].Expected] = true
		case Refused:
			return ops
		}
	}
	return slices.DeleteFunc(slices.Clone(ops), func(op Op) bool {
		return op.kind() == Write && op.Return == Never && !seen[op.Value]
	})
}

func withUnseen(ops []Op) []Op {
	if slices.ContainsFunc(ops, func(op Op) bool { return op.Kind == Refused }) {
		return ops
	}
	return append(slices.Clone(ops), write(5000, 2, Never), swap(Nothing, 5001, 2, Never))
}

// repeat makes some values of a history the same.
func repeat(r *rand.Rand, ops []Op) []Op {
	return transform(ops, same, func(value int64) int64 {
		if value != Nothing && value%3 == 0 {
			return 3
		}
		return value
	})
}

func TestAViolationInTheUnambiguousPartIsOne(t *testing.T) {
	n, violations, missed := soak.Count(t, 40_000), 0, 0
	for seed := range n {
		r := seeded(uint64(seed) + 1<<44)
		ops := repeat(r, randomHistory(r, 11))
		verdict := CheckUnambiguousPart(ops)
		legal := porcupineAccepts(ops)
		if verdict.Outcome == Violation {
			violations++
			if legal {
				t.Fatalf("history %d: called a violation (%v of %v), is none\n%s", seed, verdict.Reason, verdict.Core, show(ops))
			}
			if err := judgeCore(ops, verdict); err != nil {
				t.Fatalf("history %d: %v\n%s", seed, err, show(ops))
			}
		} else if verdict.Outcome != Undecided {
			t.Fatalf("history %d: %v", seed, verdict)
		} else if !legal {
			missed++
		}
		if first := Check(ops); producesTwice(ops) != (first.Outcome == Ambiguous) {
			t.Fatalf("history %d: a value repeats: %v, the check says %v\n%s", seed, producesTwice(ops), first.Outcome, show(ops))
		}
	}
	t.Logf("%d violations found, %d not", violations, missed)
	if violations < n/10 {
		t.Errorf("only %d violations in %d histories", violations, n)
	}
}

func TestTheTableOfValuesIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table, model := newValues(rapid.IntRange(0, 20).Draw(t, "room")), map[int64]int32{}
		value := rapid.OneOf(rapid.Int64Range(0, 40), rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64, -1, 1 << 32, 1 << 40}))
		for i := range rapid.IntRange(1, 200).Draw(t, "steps") {
			v := value.Draw(t, "value")
			old, known := model[v]
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				if !known {
					old = int32(i)
					model[v] = old
				}
				if got := table.add(v, int32(i)); got != old {
					t.Fatalf("add %d: %d, want %d", v, got, old)
				}
			case 1:
				table.remove(v)
				delete(model, v)
			}
			for v, want := range model {
				if got := table.get(v); got != want {
					t.Fatalf("get %d: %d, want %d", v, got, want)
				}
			}
			if v := value.Draw(t, "absent"); table.count != len(model) || table.get(v) != none && model[v] != table.get(v) {
				t.Fatalf("%d values, want %d, or one that was removed is there", table.count, len(model))
			}
		}
	})
}

func TestZonesAreSortedAndFoundFromAnyGuess(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var zones []zone
		for _, f := range rapid.SliceOf(rapid.Int64Range(0, 50)).Draw(t, "ends") {
			zones = append(zones, zone{f: f})
		}
		sortZones(zones)
		if !slices.IsSortedFunc(zones, func(a, b zone) int { return int(a.f - b.f) }) {
			t.Fatal("not sorted")
		}
		end, want := rapid.Int64Range(-1, 51).Draw(t, "end"), 0
		for _, z := range zones {
			if z.f < end {
				want++
			}
		}
		guess := rapid.IntRange(0, len(zones)).Draw(t, "guess")
		if got := endingBefore(zones, end, guess); got != want {
			t.Fatalf("%d end before %d, want %d", got, end, want)
		}
	})
}

func TestZonesInTheWorstOrderAreSortedToo(t *testing.T) {
	zones := make([]zone, 100_000)
	for i := range zones {
		zones[i].f = int64(-i)
	}
	sortZones(zones)
	for i := range zones {
		if zones[i].f != int64(i-len(zones)+1) {
			t.Fatalf("%d at %d", zones[i].f, i)
		}
	}
}
