package locks

import (
	"context"

	"capsize/checkers"
	"capsize/histories"
)

// fencing checks the tokens: one that was given for a lock is greater than all that were given
// for it before, and nobody gets another's.
type fencing struct{}

// Name is "fencing".
func (*fencing) Name() string { return "fencing" }

const granted = "locks granted"

// Check follows each lock, in order of the history's events.
func (*fencing) Check(_ context.Context, run *checkers.Run) checkers.Result {
	found := checkers.NewFindings(run, granted)
	open := make(map[int]histories.Event)
	highest := make(map[string]histories.Operation)          // by lock, of the grants that ended
	floor := make(map[int]histories.Operation)               // by process: highest as it was when its request began
	tokens := make(map[string]map[int64]histories.Operation) // by lock
	for i := range run.History {
		e := &run.History[i]
		if e.F != Acquire && e.F != Steal || e.Process < 0 {
			continue
		}
		if e.Type == histories.Invoke {
			open[e.Process], floor[e.Process] = *e, highest[e.Key]
			continue
		}
		invoke, begun := open[e.Process]
		if !begun {
			continue
		}
		delete(open, e.Process)
		if e.Refused {
			found.Count("refusals", 1)
		}
		if e.Type != histories.OK {
			continue
		}
		op := histories.OperationOf(invoke, *e)
		found.Count(granted, 1)
		if e.F == Steal {
			found.Count("stolen", 1)
		}
		before := floor[e.Process]
		same, given := tokens[e.Key][e.Revision]
		switch {
		case e.Revision <= 0:
			found.Add("lock without a token", []histories.Operation{op}, "%s gave %s to process %d without a fencing token", e.Node, e.Key, e.Process)
		case given && same.Process != op.Process: // one that holds the lock may ask again
			found.Add("token given twice", []histories.Operation{same, op}, "token %d of %s was given to process %d, and to process %d too", e.Revision, e.Key, same.Process, op.Process)
		case e.Revision < before.Revision:
			found.Add("token went back", []histories.Operation{before, op}, "process %d was given token %d of %s, and then process %d asked and was given %d, which is older: the writes of one of them would be refused for the other's", before.Process, before.Revision, e.Key, op.Process, e.Revision)
		}
		if tokens[e.Key] == nil {
			tokens[e.Key] = make(map[int64]histories.Operation)
		}
		tokens[e.Key][e.Revision] = op
		if e.Revision > highest[e.Key].Revision {
			highest[e.Key] = op
		}
	}
	return found.Result()
}
