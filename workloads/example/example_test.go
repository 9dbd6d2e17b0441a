package example

import (
	"context"
	"strings"
	"testing"

	"capsize/checkers"
	"capsize/histories"
	"capsize/workloads/internal/play"
)

// counter counts, or stands still at a number.
type counter struct{ sum, stuckAt int64 }

func (c *counter) AddTo(_ context.Context, _ string, delta int64) (histories.Reply, error) {
	if c.stuckAt == 0 || c.sum < c.stuckAt {
		c.sum += delta
	}
	return histories.Reply{Value: histories.Int(c.sum)}, nil
}

func TestIdentifiersAreUnique(t *testing.T) {
	for stuckAt, want := range map[int64]checkers.Verdict{0: checkers.Valid, 20: checkers.Invalid} {
		c := &counter{stuckAt: stuckAt}
		play.Misuse(t, Workload{}, c)
		result := play.Judge(t, Workload{}, play.Run(t, Workload{}, 7, 50, func(int) any { return c }))["unique-ids"]
		if result.Verdict != want || want == checkers.Invalid && !strings.Contains(result.Summary, "gave 20 to process") {
			t.Errorf("%d: %s: %s", stuckAt, result.Verdict, result.Summary)
		}
	}
	if result := (unique{}).Check(context.Background(), &checkers.Run{}); result.Verdict != checkers.Unknown {
		t.Errorf("of nothing: %s", result.Verdict)
	}
}
