// Package example is a whole workload in one file, made to be copied: clients ask for
// identifiers, and no two must get the same. docs/workloads.md goes through it line by line.
package example

import (
	"context"
	"fmt"

	"capsize/checkers"
	"capsize/histories"
	"capsize/workloads"
)

// Generate is the one operation: it returns an identifier.
const Generate = "generate"

// Workload is the workload "unique-ids".
type Workload struct{}

var _ workloads.Workload = Workload{}

// Name is "unique-ids".
func (Workload) Name() string { return "unique-ids" }

// Counters is what clients must be. A client that a system gives has whatever methods it has; a
// workload asks for those that it needs.
type Counters interface {
	// AddTo adds to the counter of a key and returns the sum.
	AddTo(ctx context.Context, key string, delta int64) (histories.Reply, error)
}

// Fits says that a client must be [Counters].
func (Workload) Fits(client any) error {
	if _, ok := client.(Counters); !ok {
		return fmt.Errorf("the unique-ids workload needs counters, which a %T does not have", client)
	}
	return nil
}

// Perform carries out one operation, once. What the error says decides the outcome: see
// [histories.Outcome].
func (w Workload) Perform(ctx context.Context, client any, op workloads.Op) (histories.Reply, error) {
	counters, ok := client.(Counters)
	if !ok || op.F != Generate {
		return histories.Reply{}, histories.Definite(fmt.Errorf("%s by a %T: the unique-ids workload knows no such operation", op.F, client))
	}
	return counters.AddTo(ctx, "next-id", 1)
}

// NewGenerator returns the generator of a run.
func (Workload) NewGenerator(uint64, int) workloads.Generator { return generator{} }

type generator struct{}

// Next lets every thread ask for one identifier after the other.
func (generator) Next(workloads.Moment) workloads.Step {
	return workloads.Perform(workloads.Op{F: Generate})
}

// Completed has nothing to learn.
func (generator) Completed(histories.Operation) {}

// Final asks each node for one more, once all is healed.
func (generator) Final() []workloads.Op { return []workloads.Op{{F: Generate, Final: true}} }

// Checkers are what must hold.
func (Workload) Checkers(checkers.Limits) []checkers.Checker { return []checkers.Checker{unique{}} }

// unique checks that no two operations returned the same identifier.
type unique struct{}

// Name is "unique-ids".
func (unique) Name() string { return "unique-ids" }

// Check goes through the history once. Findings makes of it the verdict, the explanation and the
// pictures; without any identifier the run is unknown, for nothing was put to the test.
func (unique) Check(_ context.Context, run *checkers.Run) checkers.Result {
	found := checkers.NewFindings(run, "identifiers")
	first := make(map[int64]histories.Operation)
	for _, op := range histories.Operations(run.History) {
		id, ok := op.Output.Int()
		if op.F != Generate || op.Type != histories.OK || !ok {
			continue
		}
		found.Count("identifiers", 1)
		if before, again := first[id]; again {
			found.Add("identifier given twice", []histories.Operation{before, op},
				"%s gave %d to process %d, and %s gave it to process %d too", before.Node, id, before.Process, op.Node, op.Process)
		}
		first[id] = op
	}
	return found.Result()
}
