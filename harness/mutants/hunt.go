package mutants

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"capsize/checkers"
	"capsize/harness"
)

// Hunt is the search for one mutant.
type Hunt struct {
	Mutant   Mutant
	Detected bool
	By       string        // the checker that said invalid
	Headline string        // what it said
	Took     time.Duration // from the first run's start to the verdict
	Runs     int
	Dir      string // the run that caught it
}

// Hunt builds the mutant and runs plan against it, with a new seed each time, until a
// checker that it promises (any, where it promises none) says invalid or the budget is
// spent. The time to detection includes bringing clusters up and judging, but not the
// build.
func (m Mutant) Hunt(ctx context.Context, plan harness.Plan, budget time.Duration, root string, out io.Writer) (Hunt, error) {
	hunt := Hunt{Mutant: m}
	dir, err := os.MkdirTemp("", "capsize-mutant-")
	if err != nil {
		return hunt, fmt.Errorf("mutant %s: %w", m.Name, err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // a copy of the source: nothing that anyone needs
	if plan.NodeBinary, err = m.Build(ctx, root, dir); err != nil {
		return hunt, err
	}
	plan.Name = "mutant-" + m.Name
	plan.Workload, plan.Nemesis, plan.Schedule = m.Workload, m.Nemesis, m.Schedule
	start := time.Now()
	for ctx.Err() == nil && time.Since(start) < budget {
		hunt.Runs++
		judgement, report, err := harness.Run(ctx, plan, out, false)
		if err != nil {
			return hunt, err
		}
		hunt.Took = time.Since(start)
		for _, result := range judgement.Results {
			if result.Verdict != checkers.Invalid || m.Promised() && !slices.Contains(m.CaughtBy, result.Checker) {
				continue
			}
			hunt.Detected, hunt.By, hunt.Headline, hunt.Dir = true, result.Checker, result.Summary, report.Dir
			return hunt, nil
		}
		plan.Seed++
	}
	return hunt, ctx.Err()
}
