package checkers

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"capsize/histories"
)

// Stats counts what the clients did, and says unknown of a run in which too little
// happened to mean anything.
type Stats struct {
	MinimumOK int // ok operations below which the run tested nothing
}

// Name is "statistics".
func (*Stats) Name() string { return "statistics" }

// Check counts outcomes, latencies and rates.
func (s *Stats) Check(_ context.Context, run *Run) Result {
	operations := histories.Operations(run.History)
	statistics := &Statistics{Operations: count(operations), MinimumOK: s.MinimumOK, Phases: phases(run.History, operations), Errors: commonErrors(operations)}
	all := statistics.Operations[""]
	result := Result{Statistics: statistics, Verdict: Valid}
	result.Summary = fmt.Sprintf("%d operations: %d ok, %d fail, %d info; ok latency p50 %s, p99 %s",
		all.OK+all.Fail+all.Info, all.OK, all.Fail, all.Info, all.P50.Round(time.Microsecond), all.P99.Round(time.Microsecond))
	if all.OK < s.MinimumOK {
		result.Verdict = Unknown
		result.Summary = fmt.Sprintf("only %d operations were ok, fewer than the %d without which a run tests nothing", all.OK, s.MinimumOK)
	}
	return result
}

func count(operations []histories.Operation) map[string]Counts {
	latencies := make(map[string][]time.Duration)
	counts := map[string]Counts{"": {}}
	for _, op := range operations {
		for _, f := range []string{"", op.F} {
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
		l := latencies[f]
		slices.Sort(l)
		c.P50, c.P90, c.P99, c.Max = quantile(l, 0.5), quantile(l, 0.9), quantile(l, 0.99), quantile(l, 1)
		counts[f] = c
	}
	return counts
}

// quantile returns the nearest-rank quantile of sorted durations; 0 where there are none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(q*float64(len(sorted)) + 0.999999)
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// phases splits the clients' time at the first injection and the last heal.
func phases(events []histories.Event, operations []histories.Operation) []PhaseRate {
	var first, last, begin, end time.Duration
	faulty := false
	for i := range events {
		e := &events[i]
		if e.Fault != nil {
			if !faulty {
				first, faulty = e.Time, true
			}
			last = e.Time
		}
	}
	for i, op := range operations {
		if i == 0 {
			begin = op.Call
		}
		if op.Return != histories.Forever {
			end = max(end, op.Return)
		}
	}
	if !faulty {
		return rates(operations, PhaseRate{Name: "without faults", From: begin, To: end})
	}
	return rates(operations,
		PhaseRate{Name: "before faults", From: begin, To: first},
		PhaseRate{Name: "during faults", From: first, To: last},
		PhaseRate{Name: "after faults", From: last, To: max(end, last)})
}

func rates(operations []histories.Operation, phases ...PhaseRate) []PhaseRate {
	for i := range phases {
		p := &phases[i]
		for _, op := range operations {
			if op.Type == histories.OK && op.Return >= p.From && op.Return < p.To {
				p.OK++
			}
		}
		if length := (p.To - p.From).Seconds(); length > 0 {
			p.PerSec = float64(p.OK) / length
		}
	}
	return phases
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
