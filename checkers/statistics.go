package checkers

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"capsize/histories"
)

// Stats counts what the clients did. A run in which too little happened is unknown: it
// tested nothing.
type Stats struct {
	MinimumOK int // ok operations below which the run tested nothing
}

// Name is "statistics".
func (*Stats) Name() string { return "statistics" }

// Check counts outcomes, latencies and rates.
func (s *Stats) Check(_ context.Context, run *Run) Result {
	operations := histories.Operations(run.History)
	statistics := &Statistics{
		Operations: count(operations), MinimumOK: s.MinimumOK,
		Phases: phases(run.History), Errors: commonErrors(operations),
	}
	all := statistics.Operations[""]
	result := Result{Statistics: statistics, Verdict: Valid}
	result.Summary = fmt.Sprintf("%d operations: %d ok, %d fail, %d info; latency of ok: half within %s, 99 %% within %s",
		all.OK+all.Fail+all.Info, all.OK, all.Fail, all.Info, rounded(all.P50), rounded(all.P99))
	if all.OK < s.MinimumOK {
		result.Verdict = Unknown
		result.Summary = fmt.Sprintf("only %d operations were ok, fewer than %d: the run tested nothing", all.OK, s.MinimumOK)
	}
	return result
}

func rounded(d time.Duration) string {
	if d > time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

func count(operations []histories.Operation) map[string]Counts {
	latencies := make(map[string][]time.Duration)
	counts := map[string]Counts{"": {}}
	for _, op := range operations {
		for _, f := range [...]string{"", op.F} {
			c := counts[f]
			switch op.Type {
			case histories.OK:
				c.OK++
				latencies[f] = append(latencies[f], op.Return-op.Call)
			case histories.Fail:
				c.Fail++
			default:
				c.Info++
			}
			counts[f] = c
		}
	}
	for f, c := range counts {
		sorted := latencies[f]
		slices.Sort(sorted)
		c.P50, c.P90, c.P99, c.Max = quantile(sorted, 0.5), quantile(sorted, 0.9), quantile(sorted, 0.99), quantile(sorted, 1)
		counts[f] = c
	}
	return counts
}

// quantile returns the nearest-rank quantile: the smallest value such that at least the
// share q is not above it; 0 where there is none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// interval is a time from one moment to another, the latter not included.
type interval struct{ from, to time.Duration }

// phases splits the clients' time at the faults: before the first, during any, between
// them where none is in force, and after the last.
func phases(events []histories.Event) []PhaseRate {
	whole, ok := clientTime(events)
	if !ok {
		return nil
	}
	faults := faultTimes(events, whole.to)
	if len(faults) == 0 {
		return []PhaseRate{rate("without faults", events, whole)}
	}
	first, last := faults[0].from, faults[len(faults)-1].to
	var between []interval
	for i, fault := range faults[1:] {
		between = append(between, interval{faults[i].to, fault.from})
	}
	list := []PhaseRate{
		rate("before faults", events, interval{min(whole.from, first), first}),
		rate("during faults", events, faults...),
	}
	if len(between) > 0 {
		list = append(list, rate("between faults", events, between...))
	}
	return append(list, rate("after faults", events, interval{last, max(last, whole.to)}))
}

// clientTime returns the time from the first to just after the last event of a client.
func clientTime(events []histories.Event) (whole interval, ok bool) {
	for i := range events {
		if e := &events[i]; e.Process >= 0 {
			if !ok {
				whole.from, ok = e.Time, true
			}
			whole.to = e.Time + 1
		}
	}
	return whole, ok
}

// faultTimes returns when faults were in force, from the command to inject to the proof
// of healing, as intervals that neither touch nor overlap. A fault that was never healed
// lasts until the end.
func faultTimes(events []histories.Event, end time.Duration) []interval {
	var times []interval
	began := make(map[int]time.Duration)
	finish := func(id int, at time.Duration) {
		if from, ok := began[id]; ok {
			times = append(times, interval{from, at})
			delete(began, id)
		}
	}
	for i := range events {
		e := &events[i]
		if e.Fault == nil {
			continue
		}
		switch e.Fault.Phase {
		case histories.Inject, histories.Landed:
			if _, known := began[e.Fault.ID]; !known {
				began[e.Fault.ID] = e.Time
			}
		case histories.Missed, histories.Healed:
			finish(e.Fault.ID, e.Time)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(began)) {
		finish(id, max(end, began[id]))
	}
	return union(times)
}

func union(times []interval) []interval {
	slices.SortFunc(times, func(a, b interval) int { return cmp.Compare(a.from, b.from) })
	var merged []interval
	for _, t := range times {
		if n := len(merged); n > 0 && t.from <= merged[n-1].to {
			merged[n-1].to = max(merged[n-1].to, t.to)
		} else {
			merged = append(merged, t)
		}
	}
	return merged
}

// rate counts the ok completions in the intervals, which must be in order.
func rate(name string, events []histories.Event, times ...interval) PhaseRate {
	p := PhaseRate{Name: name, From: times[0].from, To: times[len(times)-1].to}
	var length time.Duration
	for _, t := range times {
		length += t.to - t.from
	}
	next := 0
	for i := range events {
		e := &events[i]
		for next < len(times) && e.Time >= times[next].to {
			next++
		}
		if next == len(times) {
			break
		}
		if e.Type == histories.OK && e.Process >= 0 && e.Time >= times[next].from {
			p.OK++
		}
	}
	if length > 0 {
		p.PerSec = float64(p.OK) / length.Seconds()
	}
	return p
}

// errorsMost is how many different error texts are kept.
const errorsMost = 10

func commonErrors(operations []histories.Operation) map[string]int {
	counts := make(map[string]int)
	for _, op := range operations {
		if op.Error != "" {
			counts[op.Error]++
		}
	}
	texts := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	common := make(map[string]int)
	for _, text := range texts[:min(len(texts), errorsMost)] {
		common[text] = counts[text]
	}
	return common
}
