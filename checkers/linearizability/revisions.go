package linearizability

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/anishathalye/porcupine"

	"capsize/histories"
)

// lyingRevisions looks at the revisions that came with the answers of one key's operations. A
// revision counts changes: so of two operations of which one ended before the other began the
// later must not have the lower one, and if it is a change, not the same. It returns two
// operations that contradict each other, by position, or nil.
//
// Of the operations that ended before one began it is enough to know the highest revision:
// this takes one pass over the events. Reads that may be stale are held to nothing here.
func lyingRevisions(operations []histories.Operation) []int {
	var ended []int
	for i := range operations {
		if op := &operations[i]; op.Revision > 0 && op.Type != histories.Info {
			ended = append(ended, i)
		}
	}
	if len(ended) < 2 {
		return nil
	}
	begun := slices.Clone(ended) // in order of invoke already
	slices.SortFunc(ended, func(a, b int) int { return cmp.Compare(operations[a].Returned, operations[b].Returned) })
	highest, next := -1, 0
	for _, i := range begun {
		op := &operations[i]
		for ; next < len(ended) && operations[ended[next]].Returned < op.Invoked; next++ {
			if before := &operations[ended[next]]; highest < 0 || before.Revision > operations[highest].Revision {
				highest = ended[next]
			}
		}
		if highest >= 0 && lies(op, operations[highest].Revision) {
			return []int{highest, i}
		}
	}
	return nil
}

// lies reports whether an operation cannot have the revision that it came with, if one that had
// a certain revision ended before it began.
func lies(op *histories.Operation, before int64) bool {
	return !op.Stale && (op.Revision < before || op.Revision == before && changes(op))
}

// changes reports whether an operation that happened made a revision of its own.
func changes(op *histories.Operation) bool {
	return op.Type == histories.OK && op.F != "read" && !op.Input.IsNil()
}

// lyingText says in words how two operations contradict each other.
func lyingText(core []histories.Operation) string {
	before, after := core[0], core[1]
	if before.Revision == after.Revision {
		return fmt.Sprintf("revision %d was given twice: %s had it and ended before %s began, which changed something and got the same", before.Revision, act(before), act(after))
	}
	return fmt.Sprintf("the revision went back from %d to %d: %s had ended before %s began", before.Revision, after.Revision, act(before), act(after))
}

// revisionModel is the promise that revisions never go back, as a model.
func revisionModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return int64(0) },
		Step: func(state, input, _ any) (bool, any) {
			op := input.(histories.Operation)
			switch at := state.(int64); {
			case op.Revision == 0 || op.Stale || op.Type == histories.Info:
				return true, at
			case changes(&op):
				return op.Revision > at, op.Revision
			default:
				return op.Revision >= at, max(at, op.Revision)
			}
		},
	}
}
