package registers

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"

	"capsize/checkers/internal/soak"
)

// A feeding plays a history to a stream, event by event, and knows at each what a batch
// check would be given.
type feeding struct {
	stream *Stream
	ops    []Op // what is known by now: operations in flight are of unknown outcome
	place  map[int]int
	handle map[int]Handle
}

// An event is the beginning or the ending of a planned operation.
type event struct {
	at  int64
	end bool
	op  int
}

// A planned operation is what a client does: it may attempt a swap that turns out to be a
// read or refused, or a write that fails.
type planned struct {
	Op
	attempt int64 // the value that a swap which does not happen would have written, or 0
	fails   bool
}

// plan makes clients' operations of a random history.
func plan(r *rand.Rand, ops []Op) (plans []planned, events []event) {
	for i, op := range ops {
		p := planned{Op: op}
		if op.Kind == Refused || op.Kind == Read && r.IntN(6) == 0 && op.Call != Early {
			p.attempt = int64(500 + i)
		}
		if op.Kind == Write || op.Kind == Swap {
			p.fails = r.IntN(40) == 0 && op.Return != Never
		}
		call := op.Call
		if call == Early { // asked at some time before it returned
			call = op.Return - r.Int64N(4)
			if op.Return == Never {
				call = r.Int64N(20)
			}
		}
		plans = append(plans, p)
		events = append(events, event{at: call, op: i})
		if op.Return != Never {
			events = append(events, event{at: op.Return, end: true, op: i})
		} else if r.IntN(2) == 0 {
			events = append(events, event{at: call + r.Int64N(10), end: true, op: i})
		}
	}
	slices.SortStableFunc(events, func(a, b event) int {
		if a.at != b.at || a.end == b.end {
			return cmp.Compare(a.at, b.at)
		}
		if b.end {
			return -1
		}
		return 1
	})
	return plans, events
}

func newFeeding() *feeding {
	return &feeding{stream: NewStream(), place: map[int]int{}, handle: map[int]Handle{}}
}

func (f *feeding) feed(p planned, e event, time int64) *Alarm {
	if !e.end {
		f.begin(p, e.op, time)
		return nil
	}
	h, known := f.handle[e.op], &f.ops[f.place[e.op]]
	if p.Return == Never {
		return f.stream.Crashed(h)
	}
	known.Return = time
	switch {
	case p.fails:
		known.Kind, known.Expected = Refused, -77 // says nothing
		return f.stream.Failed(h)
	case p.Kind == Read:
		known.Kind, known.Value = Read, p.Value
		return f.stream.Found(h, p.Value)
	case p.Kind == Refused:
		known.Kind = Refused
		return f.stream.Refused(h)
	default:
		return f.stream.Done(h)
	}
}

func (f *feeding) begin(p planned, i int, time int64) {
	op := p.Op
	op.Call, op.Return = time, Never
	switch {
	case p.Kind == Read && p.attempt == 0 && p.Call == Early:
		op.Call = Early
		f.handle[i] = f.stream.StaleRead()
	case p.Kind == Read && p.attempt == 0:
		f.handle[i] = f.stream.Read()
	case p.attempt != 0:
		op.Kind, op.Value = Swap, p.attempt
		f.handle[i] = f.stream.Swap(op.Expected, op.Value)
	case p.Kind == Write:
		f.handle[i] = f.stream.Write(op.Value)
	default:
		f.handle[i] = f.stream.Swap(op.Expected, op.Value)
	}
	f.place[i] = len(f.ops)
	f.ops = append(f.ops, op)
}

func TestAStreamStopsAtTheSmallestIllegalPrefix(t *testing.T) {
	n := soak.Count(t, 30_000)
	prefixes, alarms, reasons, open := 0, 0, map[Reason]int{}, 0
	for seed := range n {
		r := seeded(uint64(seed) + 1<<41)
		plans, events := plan(r, randomHistory(r, 10))
		eager, external := r.IntN(4) > 0, seed%8 == 0
		f := newFeeding()
		for at, e := range events {
			alarm := f.feed(plans[e.op], e, int64(at+1))
			prefixes++
			verdict := Check(f.ops)
			if external && (verdict.Outcome == Linearizable) != porcupineAccepts(f.ops) && verdict.Outcome != Undecided {
				t.Fatalf("history %d: Porcupine does not call the prefix %v\n%s", seed, verdict.Outcome, show(f.ops))
			}
			stale := slices.ContainsFunc(f.ops, func(op Op) bool { return op.Call == Early })
			if illegal := verdict.Outcome == Violation && verdict.Reason != Unreplaced; illegal != (alarm != nil) {
				if alarm != nil || !stale || f.stream.Open() == 0 {
					t.Fatalf("history %d: at event %d the stream says %+v, the check %v (%v)\n%s", seed, at, alarm, verdict.Outcome, verdict.Reason, show(f.ops))
				}
				open++
				break // a violation that only the whole history shows
			}
			if value, ambiguous := f.stream.Ambiguous(); ambiguous != (verdict.Outcome == Ambiguous) {
				t.Fatalf("history %d: ambiguous %v %d, the check says %v\n%s", seed, ambiguous, value, verdict.Outcome, show(f.ops))
			}
			if alarm != nil {
				alarms++
				reasons[alarm.Reason]++
				judgeAlarm(t, f, alarm, f.handle[e.op])
				break
			}
			if eager {
				f.stream.forget()
			}
		}
		if f.stream.Err() != nil {
			t.Fatalf("history %d: %v", seed, f.stream.Err())
		}
	}
	t.Logf("%d prefixes, %d alarms %v, %d violations left open for stale reads", prefixes, alarms, reasons, open)
	if alarms < n/5 || open > alarms/25 {
		t.Errorf("%d histories gave %d alarms, and left %d open", n, alarms, open)
	}
	for _, reason := range []Reason{Phantom, DoubleSwap, SwapCycle, ChainOrder, Overlap, Held, Gone} {
		if reasons[reason] < n/3000 {
			t.Errorf("only %d alarms of %d are %v", reasons[reason], n, reason)
		}
	}
}

func judgeAlarm(t *testing.T, f *feeding, alarm *Alarm, ended Handle) {
	t.Helper()
	if alarm.Handle != ended {
		t.Fatalf("the alarm %+v is not of the operation that ended last", alarm)
	}
	concerned := pick(f.ops, Concerning(f.ops, alarm.Values))
	if verdict := Check(concerned); verdict.Outcome != Violation {
		t.Fatalf("alarm %+v: the operations concerned are %v\n%s\nof\n%s", alarm, verdict.Outcome, show(concerned), show(f.ops))
	}
	if again := f.stream.Failed(f.stream.Read()); again != alarm {
		t.Fatalf("after the alarm %+v the next ending says %+v", alarm, again)
	}
}
