package registers

import (
	"testing"
	"time"
)

func TestAStreamReportsAnEndingThatDoesNotFit(t *testing.T) {
	for sentence, misuse := range map[string]func(*Stream){
		"a read cannot be done":         func(s *Stream) { s.Done(s.Read()) },
		"a write finds nothing":         func(s *Stream) { s.Found(s.Write(1), 2) },
		"a write is not refused":        func(s *Stream) { s.Refused(s.Write(1)) },
		"no operation has this handle":  func(s *Stream) { s.Crashed(NoHandle) },
		"nor this one":                  func(s *Stream) { s.Failed(1 << 40) },
		"an operation ends once":        func(s *Stream) { h := s.Write(1); s.Done(h); s.Done(h) },
		"a crashed one has ended":       func(s *Stream) { h := s.Write(1); s.Crashed(h); s.Read(); s.Done(h) },
		"a handle is not another's now": func(s *Stream) { h := s.Read(); s.Failed(h); s.Read(); s.Found(h, Nothing) },
	} {
		s := NewStream()
		if misuse(s); s.Err() == nil {
			t.Errorf("%s: no error", sentence)
		}
		if s.alarm != nil {
			t.Errorf("%s: %+v", sentence, s.alarm)
		}
	}
}

func TestAStreamEndsTheCheckAtARepeatedValue(t *testing.T) {
	s := NewStream()
	s.Done(s.Write(1))
	h := s.Write(1)
	if value, ambiguous := s.Ambiguous(); value != 1 || !ambiguous {
		t.Errorf("%d %v", value, ambiguous)
	}
	if alarm := s.Done(h); alarm != nil {
		t.Error(alarm)
	}
	if alarm := s.Found(s.Read(), 99); alarm != nil || s.Err() != nil {
		t.Error(alarm, s.Err())
	}
	if other := NewStream(); other.Write(Nothing) == NoHandle || !other.ambiguous {
		t.Error("to write nothing is to repeat a value")
	}
}

func TestAnAlarmStandsAndNamesTheOperation(t *testing.T) {
	s := NewStream()
	s.Done(s.Write(1))
	h := s.Read()
	alarm := s.Found(h, 2)
	if alarm == nil || alarm.Reason != Gone || alarm.Handle != h || alarm.Values[0] != 2 {
		t.Fatalf("%+v", alarm)
	}
	if again := s.Done(s.Write(3)); again != alarm {
		t.Errorf("%+v", again)
	}
}

func TestASwapThatWasRefusedAfterItsValueWasReadIsAViolation(t *testing.T) {
	s := NewStream()
	swap := s.Swap(Nothing, 1)
	if alarm := s.Found(s.Read(), 1); alarm != nil {
		t.Fatal(alarm)
	}
	if alarm := s.Refused(swap); alarm == nil || alarm.Reason != Phantom {
		t.Errorf("%+v", alarm)
	}
}

// A crashed swap took effect early on, and only a stale read shows it, when the value that it
// expected is long forgotten. Nothing is wrong with that.
func TestAStaleReadOfWhatAForgottenValueBecameRaisesNoAlarm(t *testing.T) {
	s := NewStream()
	s.Done(s.Write(1))
	s.Crashed(s.Swap(1, 2))
	for value := int64(3); value < 200; value++ {
		s.Done(s.Write(value))
	}
	if s.known.get(1) != none {
		t.Fatal("1 is known still")
	}
	if alarm := s.Found(s.StaleRead(), 2); alarm != nil || s.Open() != 1 {
		t.Errorf("%+v, %d open", alarm, s.Open())
	}
	if alarm := s.Found(s.Read(), 2); alarm == nil {
		t.Error("a fresh read of it is wrong")
	}
}

// What one operation that hangs holds back is kept, but does not make the rest slow.
func TestAHangingReadDoesNotMakeAStreamSlow(t *testing.T) {
	const operations = 400_000
	s := NewStream()
	hung, start := s.Read(), time.Now()
	for value := range int64(operations / 2) {
		first, second := s.Write(value), s.Read()
		s.Done(first)
		if alarm := s.Found(second, value); alarm != nil {
			t.Fatal(alarm)
		}
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("%d operations took %v", operations, took)
	}
	if alarm := s.Found(hung, operations/4); alarm != nil {
		t.Errorf("it may have found any: %+v", alarm)
	}
	for range 100 {
		s.Found(s.Read(), operations/2-1)
	}
	if s.Held() > 100 {
		t.Errorf("%d held", s.Held())
	}
}

func TestAStreamAllocatesNothingInTheLongRun(t *testing.T) {
	s, value := NewStream(), int64(0)
	turn := func() {
		for range 1000 {
			value++
			write, swap, read := s.Write(value), s.Swap(value, -value), s.Read()
			s.Done(write)
			s.Done(swap)
			if s.Found(read, value) != nil {
				t.Fatal("alarm")
			}
		}
	}
	turn()
	if allocations := testing.AllocsPerRun(20, turn); allocations > 0 {
		t.Errorf("%v allocations for 3000 operations", allocations)
	}
}
