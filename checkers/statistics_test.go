package checkers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"capsize/histories"
)

func statisticsOf(t *testing.T, minimum int, history func(l *timeline)) Result {
	t.Helper()
	var l timeline
	history(&l)
	return judged(t, &Stats{MinimumOK: minimum}, l.events)
}

func TestARunInWhichLittleWasOKIsUnknown(t *testing.T) {
	two := func(l *timeline) {
		l.asks("n1", 1, 2, histories.OK, false)
		l.asks("n1", 2, 3, histories.OK, false)
		l.asks("n1", 3, 4, histories.Info, false)
	}
	if result := statisticsOf(t, 2, two); result.Verdict != Valid {
		t.Errorf("%s: %s", result.Verdict, result.Summary)
	}
	if result := statisticsOf(t, 3, two); result.Verdict != Unknown || !strings.Contains(result.Summary, "only 2 operations were ok, fewer than 3: the run tested nothing") {
		t.Errorf("%s: %s", result.Verdict, result.Summary)
	}
	if result := statisticsOf(t, 1, func(*timeline) {}); result.Verdict != Unknown {
		t.Errorf("%s: %s", result.Verdict, result.Summary)
	}
}

func TestOutcomesAndLatenciesAreCounted(t *testing.T) {
	s := statisticsOf(t, 1, func(l *timeline) {
		at := 0.0
		for i := range 100 {
			latency := float64(i+1) / 1000
			l.asks("n1", at, at+latency, histories.OK, false)
			at += latency
		}
		l.asks("n1", at, at+5, histories.Fail, false)
		l.asks("n1", at+5, at+9, histories.Info, false)
		l.at(at+9, histories.Event{Process: l.next, F: "write", Node: "n1", Value: histories.Int(1)})
	}).Statistics
	ms := time.Millisecond
	want := map[string]Counts{
		"":      {OK: 100, Fail: 1, Info: 2, P50: 50 * ms, P90: 90 * ms, P99: 99 * ms, Max: 100 * ms},
		"read":  {OK: 100, Fail: 1, Info: 1, P50: 50 * ms, P90: 90 * ms, P99: 99 * ms, Max: 100 * ms},
		"write": {Info: 1},
	}
	near := cmp.Comparer(func(a, b time.Duration) bool { return (a - b).Abs() < time.Microsecond })
	if diff := cmp.Diff(want, s.Operations, near); diff != "" {
		t.Error(diff)
	}
}

func TestRatesAreSplitAtTheFaults(t *testing.T) {
	s := statisticsOf(t, 1, func(l *timeline) {
		l.asks("n1", 0, 1, histories.OK, false) // before
		l.fault(2, 1, histories.Inject, "n1")
		l.asks("n1", 2, 3, histories.OK, false) // during the first
		l.fault(3, 2, histories.Inject, "n2")
		l.fault(4, 1, histories.Healed, "n1")
		l.asks("n1", 4, 5, histories.OK, false) // during the second, which overlaps
		l.fault(6, 2, histories.Healed, "n2")
		l.asks("n1", 7, 8, histories.OK, false) // between
		l.fault(10, 3, histories.Inject, "n1")
		l.asks("n1", 10, 11, histories.Info, false)
		l.fault(12, 3, histories.Missed, "n1")
		l.asks("n1", 13, 14, histories.OK, true) // after
		l.asks("n1", 15, 16, histories.OK, true)
	}).Statistics
	got := make(map[string]string)
	for _, p := range s.Phases {
		got[p.Name] = fmt.Sprintf("%.0f–%.0f s: %d, %.2f/s", p.From.Seconds(), p.To.Seconds(), p.OK, p.PerSec)
	}
	want := map[string]string{
		"before faults":  "0–2 s: 1, 0.50/s",
		"during faults":  "2–12 s: 2, 0.33/s", // 6 seconds of them
		"between faults": "6–10 s: 1, 0.25/s",
		"after faults":   "12–16 s: 2, 0.50/s",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAFaultThatNeverHealsLastsToTheEnd(t *testing.T) {
	s := statisticsOf(t, 1, func(l *timeline) {
		l.asks("n1", 0, 1, histories.OK, false)
		l.fault(2, 1, histories.Inject, "n1")
		l.fault(3, 1, histories.Stuck, "n1")
		l.asks("n1", 4, 6, histories.OK, false)
	}).Statistics
	if p := s.Phases[1]; len(s.Phases) != 3 || p.OK != 1 || p.From != 2*time.Second || p.To < 6*time.Second || s.Phases[2].OK != 0 {
		t.Errorf("%+v", s.Phases)
	}
}

func TestWithoutFaultsThereIsOneRate(t *testing.T) {
	s := statisticsOf(t, 1, func(l *timeline) {
		for i := range 10 {
			l.asks("n1", float64(i), float64(i+1), histories.OK, false)
		}
	}).Statistics
	if p := s.Phases[0]; len(s.Phases) != 1 || p.Name != "without faults" || p.OK != 10 || p.PerSec < 0.99 || p.PerSec > 1.01 {
		t.Errorf("%+v", s.Phases)
	}
}

func TestTheCommonestErrorsAreKept(t *testing.T) {
	var l timeline
	for i := range 30 {
		for range i + 1 {
			e := histories.Event{Process: l.next, F: "read", Node: "n1"}
			l.next++
			l.add(e)
			e.Type, e.Error = histories.Info, fmt.Sprint("error ", i)
			l.add(e)
		}
	}
	kept := judged(t, &Stats{}, l.events).Statistics.Errors
	if len(kept) != errorsMost || kept["error 29"] != 30 || kept["error 20"] != 21 {
		t.Errorf("%v", kept)
	}
}
