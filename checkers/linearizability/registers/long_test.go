package registers

import (
	"slices"
	"testing"

	"capsize/checkers/internal/soak"
)

var busyMixes = []mix{
	{writes: 50, crashed: 10},
	{writes: 5, swaps: 5, crashed: 20},
	{swaps: 50, crashed: 10},
	{writes: 25, swaps: 25, crashed: 30},
	{writes: 20, swaps: 20, stale: 20, crashed: 10},
}

// A wrong answer is planted in a long history of a correct register. The stream must stop at
// the very event after which the batch check finds the history so far impossible.
func TestAStreamStopsWhereALongHistoryFirstBecomesImpossible(t *testing.T) {
	alarms, reasons := 0, map[Reason]int{}
	n := soak.Count(t, 100_000) / 100
	for seed := range n {
		r := seeded(uint64(seed) + 1<<42)
		clients := 2 + r.IntN(20)
		m := busyMixes[r.IntN(len(busyMixes))]
		source, stream, l := newBusy(uint64(seed), clients, m, r.IntN(2) == 0), NewStream(), newLog(clients)
		handles := make([]Handle, clients)
		wrong := 100 + r.IntN(1000)
		var seen []int64
		for event := range wrong + 400 {
			a := source.next()
			if event > wrong && a.what == found && len(seen) > 3 { // an older value
				a.value, wrong = seen[max(len(seen)-2-r.IntN(12), 0)], 1<<30
			}
			if a.what == found || a.what == done {
				seen = append(seen, a.value)
			}
			before := slices.Clone(l.ops)
			l.add(a, int64(event))
			alarm := a.play(stream, handles)
			if alarm == nil {
				continue
			}
			alarms++
			reasons[alarm.Reason]++
			if verdict := Check(l.ops); verdict.Outcome != Violation {
				t.Fatalf("history %d: %+v at event %d, the check says %v", seed, alarm, event, verdict.Outcome)
			} else if err := judgeCore(l.ops, verdict); err != nil {
				t.Fatalf("history %d: %v\n%s", seed, err, show(pick(l.ops, verdict.Core)))
			}
			if verdict := Check(before); verdict.Outcome == Violation {
				t.Fatalf("history %d: %+v at event %d is late: %+v", seed, alarm, event, verdict)
			}
			if verdict := Check(pick(l.ops, Concerning(l.ops, alarm.Values))); verdict.Outcome != Violation {
				t.Fatalf("history %d: what %+v concerns is %v", seed, alarm, verdict.Outcome)
			}
			break
		}
		if stream.alarm == nil && stream.Open() == 0 {
			if verdict := Check(l.ops); verdict.Outcome != Linearizable {
				t.Fatalf("history %d: no alarm, the check says %v", seed, verdict)
			}
			order, _ := Order(l.ops)
			if err := Replay(l.ops, order); err != nil {
				t.Fatalf("history %d: %v", seed, err)
			}
		}
	}
	t.Logf("%d alarms in %d histories: %v", alarms, n, reasons)
	if alarms < n/4 || alarms > n-n/20 {
		t.Errorf("%d alarms in %d histories", alarms, n)
	}
}

func TestALongCorrectHistoryRaisesNoAlarmAndHoldsLittle(t *testing.T) {
	const clients = 20
	for _, m := range append(busyMixes, mix{writes: 50, crashed: 1}, mix{writes: 30, swaps: 20, refused: 10, crashed: 1}) {
		source, stream, handles := newBusy(1, clients, m, false), NewStream(), make([]Handle, clients)
		lost, most := 0, 0
		for range soak.Count(t, 100_000) * 3 {
			a := source.next()
			if alarm := a.play(stream, handles); alarm != nil {
				t.Fatalf("%+v: %+v", m, alarm)
			}
			if a.what == crashed {
				lost++
			}
			most = max(most, stream.Held()-lost)
		}
		t.Logf("%+v: %d crashed, %d held, at most %d more than crashed, %d open", m, lost, stream.Held(), most, stream.Open())
		if most > 40*clients {
			t.Errorf("%+v: held %d values and operations more than crashed ones", m, most)
		}
		if stream.Err() != nil || stream.ambiguous {
			t.Error(stream.Err(), stream.ambiguous)
		}
	}
}

// Refused swaps that do not say what they found need an order that has a place for each.
func TestALongCorrectHistoryWithRefusedSwapsIsDecided(t *testing.T) {
	for seed, m := range busyMixes {
		for _, clients := range []int{3, 20} {
			source, l := newBusy(uint64(seed), clients, m, false), newLog(clients)
			for event := range 100_000 {
				l.add(source.next(), int64(event))
			}
			order, _ := Order(l.ops)
			if err := Replay(l.ops, order); err != nil {
				t.Errorf("%+v, %d clients: %v: %v", m, clients, Check(l.ops).Outcome, err)
			}
		}
	}
}
