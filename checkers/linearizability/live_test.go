package linearizability

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"capsize/checkers"
	"capsize/histories"
)

// watch feeds events to a Live and returns the index of the event at which it raised an alarm.
func watch(l checkers.Live, events []histories.Event) (index int, alarm *checkers.Alarm) {
	for i := range events {
		if alarm := l.Event(&events[i]); alarm != nil {
			return i, alarm
		}
	}
	return -1, nil
}

func TestALiveCheckStopsWhereTheHistoryBecomesImpossible(t *testing.T) {
	stopped := 0
	for seed := range uint64(4000 / share) {
		random := rand.New(rand.NewPCG(seed, 9))
		events := simulate(random, 2+random.IntN(3), 1, 20+random.IntN(60))
		corrupt(random, events)
		operations := histories.Operations(events)
		if len(operations) == 0 {
			continue
		}
		want := -1
		if !plainly(operations) {
			for i := range events {
				if !plainly(until(operations, i)) {
					want = i
					break
				}
			}
			stopped++
		}
		got, alarm := watch(ofRegisters().Live(), events)
		if got != want {
			t.Fatalf("seed %d: the live check stopped at event %d, the history became impossible at %d\n%s", seed, got, want, dump(operations))
		}
		if alarm != nil && (alarm.At != events[got].Time || !strings.Contains(alarm.Why, "no order explains")) {
			t.Fatalf("seed %d: %+v", seed, alarm)
		}
		// By the model it takes until all that was under way has completed, and what is under
		// way at the end is never judged.
		later, _ := watch(ofAnything().Live(), events)
		if later >= 0 && (want < 0 || later < want) {
			t.Fatalf("seed %d: by the model it stopped at event %d, the history became impossible at %d\n%s", seed, later, want, dump(operations))
		}
	}
	if stopped < 500/share {
		t.Errorf("%d histories became impossible", stopped)
	}
}

func TestALiveCheckByTheModelRaisesAnAlarmToo(t *testing.T) {
	events := script(t, "p1 n1 write 45\np1 ok\np2 n1 write 52\np2 ok\np8 n3 read\np8 ok 45")
	if at, alarm := watch(ofAnything().Live(), events); at != 5 || alarm == nil || !strings.Contains(alarm.Why, "key k17: no order explains what read by process 8 on n3") {
		t.Errorf("%d %+v", at, alarm)
	}
}

func TestALiveCheckHoldsNothingOfKeysLongPast(t *testing.T) {
	live := ofRegisters().Live().(*Live)
	var l log
	key := func(n int) {
		l.events = l.events[:0]
		easy(fmt.Sprint("k", n), &l, n)
		if _, alarm := watch(live, l.events); alarm != nil {
			t.Fatal(alarm)
		}
	}
	for n := range keysMost {
		key(n)
	}
	runtime.GC()
	before := heap()
	for n := range 10 * keysMost {
		key(keysMost + n)
	}
	runtime.GC()
	if grown := int64(heap()) - int64(before); len(live.keys.ring) > keysMost || grown > 8<<20 {
		t.Errorf("%d keys, the heap grew by %d bytes", len(live.keys.ring), grown)
	}
	// A key that comes back is not accused of what was forgotten.
	l.events = l.events[:0]
	l.add(histories.Event{Process: 1, F: "read", Key: "k1"})
	l.add(histories.Event{Process: 1, F: "read", Key: "k1", Type: histories.OK, Value: histories.Int(1)})
	if _, alarm := watch(live, l.events); alarm != nil {
		t.Errorf("%+v", alarm)
	}
	if list := live.Unjudged(); len(list) != 1 || !strings.Contains(list[0], "forgotten") {
		t.Error(list)
	}
}

func TestALiveCheckSaysWhatItDoesNotJudge(t *testing.T) {
	live := ofRegisters().Live()
	events := script(t, "p1 n1 write 1\np1 ok\np2 n1 write 1\np2 ok\np3 n1 read\np3 ok 7")
	if _, alarm := watch(live, events); alarm != nil {
		t.Errorf("%+v", alarm)
	}
	if list := live.Unjudged(); len(list) != 1 || !strings.Contains(list[0], "the value 1 was written twice") {
		t.Error(list)
	}
}

func BenchmarkLive(b *testing.B) {
	var l log
	for key := range 250 {
		for _, e := range simulate(rand.New(rand.NewPCG(uint64(key), 4)), 3, 1, 360) {
			e.Key, e.Process = fmt.Sprint("k", key), e.Process+1000*key
			l.add(e)
		}
	}
	for b.Loop() {
		if _, alarm := watch(ofRegisters().Live(), l.events); alarm != nil {
			b.Fatal(alarm)
		}
	}
	b.ReportMetric(float64(len(l.events)/2)*float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

func TestKeysWithOperationsUnderWayAreNotForgotten(t *testing.T) {
	const many = keysMost + 500
	live := ofRegisters().Live().(*Live)
	var l log
	name := func(n int) string { return fmt.Sprint("k", n) }
	for n := range many {
		l.add(histories.Event{Process: n, F: "write", Key: name(n), Value: histories.Int(1)})
	}
	for n := range many {
		l.add(histories.Event{Process: n, F: "write", Key: name(n), Type: histories.OK, Value: histories.Int(1)})
	}
	if _, alarm := watch(live, l.events); alarm != nil || len(live.Unjudged()) > 0 {
		t.Fatal(alarm, live.Unjudged())
	}
	if len(live.keys.ring) != many {
		t.Errorf("%d keys are known, %d have operations under way", len(live.keys.ring), many)
	}
	// The next key makes room. The one used last stays, and is still judged.
	l.events = l.events[:0]
	easy("another", &l, 3)
	if _, alarm := watch(live, l.events); alarm != nil || len(live.keys.ring) > keysMost {
		t.Errorf("%+v, %d keys", alarm, len(live.keys.ring))
	}
	l.events = l.events[:0]
	l.add(histories.Event{Process: 1, F: "read", Key: "another"})
	l.add(histories.Event{Process: 1, F: "read", Key: "another", Type: histories.OK, Value: histories.Int(77)})
	if _, alarm := watch(live, l.events); alarm == nil || alarm.Key != "another" {
		t.Errorf("%+v", alarm)
	}
}

func TestKeysThatShareAPlaceAreToldApart(t *testing.T) {
	live := ofRegisters().Live().(*Live)
	var l log
	easy("first", &l, 1)
	for n := range 3 * keysMost {
		easy(fmt.Sprintf("%06d-same", n), &l, 1)
	}
	if _, alarm := watch(live, l.events); alarm != nil || len(live.Unjudged()) > 0 {
		t.Fatal(alarm, live.Unjudged())
	}
	// One whose place nobody took is forgotten, too.
	l.events = l.events[:0]
	easy("first", &l, 1)
	if _, alarm := watch(live, l.events); alarm != nil || len(live.Unjudged()) != 1 || !strings.Contains(live.Unjudged()[0], "forgotten") {
		t.Error(alarm, live.Unjudged())
	}
	l.events = l.events[:0]
	easy("a-same", &l, 1)
	l.add(histories.Event{Process: 1, F: "read", Key: "b-same"})
	last := l.add(histories.Event{Process: 1, F: "read", Key: "b-same", Type: histories.OK, Value: histories.Int(1)})
	if at, alarm := watch(live, l.events); at != last || alarm == nil {
		t.Errorf("%d %+v", at, alarm)
	}
}

func TestItDoesNotMatterWhichNumbersProcessesHave(t *testing.T) {
	alarms := 0
	for seed := range uint64(400 / share) {
		random := rand.New(rand.NewPCG(seed, 10))
		events := simulate(random, 2+random.IntN(6), 1+random.IntN(3), 60)
		corrupt(random, events)
		for _, checker := range []*Checker{ofRegisters(), ofAnything()} {
			want, _ := watch(checker.Live(), events)
			others := slices.Clone(events)
			for i := range others { // two places for all of them
				others[i].Process = others[i].Process*processesRecent + others[i].Process%2
			}
			live := checker.Live().(*Live)
			got, _ := watch(live, others)
			if got != want {
				t.Fatalf("seed %d: an alarm at event %d, with other numbers at %d", seed, want, got)
			}
			if got < 0 && len(live.processes.others) > open(others) {
				t.Fatalf("seed %d: %d operations are held, %d are under way", seed, len(live.processes.others), open(others))
			}
			if got >= 0 {
				alarms++
			}
		}
	}
	if alarms < 100/share {
		t.Errorf("%d alarms", alarms)
	}
}

// open counts the operations that have no completion.
func open(events []histories.Event) int {
	n := 0
	for _, op := range histories.Operations(events) {
		if op.Returned < 0 {
			n++
		}
	}
	return n
}
