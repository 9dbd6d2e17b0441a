package linearizability

import (
	"cmp"
	"slices"

	"capsize/checkers/linearizability/search"
	"capsize/histories"
)

// shrinker makes an impossible key history small enough for a person. Each step leaves out
// only what no order can depend on: were the whole possible, the rest would be. So what
// remains is the fault, not an artefact.
type shrinker struct {
	checker *Checker
	budget  *budget
}

func (s *shrinker) impossible(operations []histories.Operation) bool {
	return s.checker.decide(s.budget, operations).outcome == search.Illegal
}

// cut is the shortest beginning of a key's history that is impossible.
type cut struct {
	key     *key
	prefix  []histories.Operation
	last    histories.Operation // whose completion made it so
	decided decision            // of the prefix
}

// earliest finds where a key's history became impossible. Linearizability is prefix-closed,
// so halving finds it. Where the budget ends first, the beginning is longer than need be.
func (s *shrinker) earliest(k *key) cut {
	var answered []histories.Operation
	for _, op := range k.operations {
		if op.Type != histories.Info { // a failure too: it says that the value cannot be there
			answered = append(answered, op)
		}
	}
	slices.SortFunc(answered, func(a, b histories.Operation) int { return cmp.Compare(a.Returned, b.Returned) })
	low, high := 0, len(answered)-1
	for low < high {
		middle := (low + high) / 2
		if s.impossible(until(k.operations, answered[middle].Returned)) {
			high = middle
		} else {
			low = middle + 1
		}
	}
	c := cut{key: k, prefix: until(k.operations, answered[high].Returned), last: answered[high]}
	if c.decided = s.checker.decide(s.budget, c.prefix); c.decided.outcome != search.Illegal {
		c.prefix, c.decided = k.operations, k.decided // the budget ended: the whole is what is known
	}
	return c
}

// at returns the operations at some positions.
func at(operations []histories.Operation, positions []int) []histories.Operation {
	list := make([]histories.Operation, len(positions))
	for i, position := range positions {
		list[i] = operations[position]
	}
	return list
}

// until returns a key's history as it stood after an event: what was invoked later is not
// there, and of what completed later the outcome is unknown.
func until(operations []histories.Operation, event int) []histories.Operation {
	var prefix []histories.Operation
	for _, op := range operations {
		if op.Invoked > event {
			break
		}
		if op.Returned > event {
			op.Type, op.Output, op.Return, op.Returned, op.Error = histories.Info, histories.Nil, histories.Forever, -1, ""
			op.Refused, op.Revision = false, 0
		}
		prefix = append(prefix, op)
	}
	return prefix
}

// core returns a small part of an impossible register history that is impossible by itself.
func (s *shrinker) core(c cut) []histories.Operation {
	core := at(c.prefix, c.decided.core)
	if c.decided.core == nil {
		core = s.withoutValues(slices.DeleteFunc(slices.Clone(c.prefix), func(op histories.Operation) bool { return !says(op) }))
	}
	if slices.ContainsFunc(core, unsaid) {
		return core // what a refused compare-and-swap found may be any write: none can be spared
	}
	for {
		smaller := s.withoutSingles(core)
		if len(smaller) == len(core) {
			return core
		}
		core = smaller
	}
}

// unsaid reports whether an operation was refused without saying what it found.
func unsaid(op histories.Operation) bool {
	_, said := heldValue(op.Output)
	return op.Refused && !said
}

// withoutValues leaves out values with everything that found them, many at first.
func (s *shrinker) withoutValues(operations []histories.Operation) []histories.Operation {
	var values []int64
	for _, op := range operations {
		if value, ok := produced(op); ok {
			values = append(values, value)
		}
	}
	for size := max(1, len(values)/2); size >= 1; size /= 2 {
		var kept []int64
		for piece := range slices.Chunk(values, size) {
			rest := without(operations, piece)
			if !s.budget.over() && s.impossible(rest) {
				operations = rest
			} else {
				kept = append(kept, piece...)
			}
		}
		values = kept
	}
	return operations
}

// without takes values out of a history: their writes and all that found them. A
// compare-and-swap among those takes its own value with it.
func without(operations []histories.Operation, values []int64) []histories.Operation {
	gone := make(map[int64]bool)
	for _, value := range values {
		gone[value] = true
	}
	for {
		rest := make([]histories.Operation, 0, len(operations))
		for _, op := range operations {
			value, writes := produced(op)
			before, finds := found(op)
			switch {
			case writes && gone[value]:
			case finds && gone[before]:
				if writes {
					gone[value] = true
				}
			default:
				rest = append(rest, op)
			}
		}
		if len(rest) == len(operations) {
			return rest
		}
		operations = rest
	}
}

// withoutSingles leaves out reads, and writes whose value nothing finds, one by one.
func (s *shrinker) withoutSingles(operations []histories.Operation) []histories.Operation {
	for i := 0; i < len(operations); {
		value, writes := produced(operations[i])
		if s.budget.over() || writes && anyFinds(operations, value) {
			i++
			continue
		}
		rest := slices.Delete(slices.Clone(operations), i, i+1)
		if s.impossible(rest) {
			operations = rest
		} else {
			i++
		}
	}
	return operations
}

func anyFinds(operations []histories.Operation, value int64) bool {
	return slices.ContainsFunc(operations, func(op histories.Operation) bool {
		before, ok := found(op)
		return ok && before == value
	})
}

// originals returns the operations as they really ended, in order of invoke: in a
// shrunken prefix the later outcomes are cut off.
func originals(core, all []histories.Operation) []histories.Operation {
	wanted := make(map[int]bool)
	for _, op := range core {
		wanted[op.Invoked] = true
	}
	var found []histories.Operation
	for _, op := range all {
		if wanted[op.Invoked] {
			found = append(found, op)
		}
	}
	return found
}
