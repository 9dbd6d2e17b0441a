// Package elements counts what became of the elements that clients put into sets and queues:
// whether each that was acknowledged is there at the end, or was taken out, once; and whether
// anything turned up that nobody put in. It asks less than linearizability, and says in numbers how
// much was lost.
package elements

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"capsize/checkers"
	"capsize/histories"
)

// Checker follows each element of each key. Elements are given to a key at most once. Only what
// was read at the end, after everything was healed, proves that something is lost.
type Checker struct {
	Add  string // the operation that puts in the element of its input
	Take string // the one that takes an element out and returns it; empty: there is none
	Read string // the one that returns what is there
}

// Name is "elements".
func (*Checker) Name() string { return "elements" }

// tested is what is counted of keys that were read at the end.
const tested = "acknowledged elements followed to the end"

// Check follows the elements.
func (c *Checker) Check(_ context.Context, run *checkers.Run) checkers.Result {
	found := checkers.NewFindings(run, tested)
	keys := make(map[string]*key)
	var order []*key
	for _, op := range histories.Operations(run.History) {
		k := keys[op.Key]
		if k == nil {
			k = &key{added: make(map[int64]histories.Operation), taken: make(map[int64][]histories.Operation)}
			keys[op.Key] = k
			order = append(order, k)
		}
		k.note(c, op)
	}
	for _, k := range order {
		k.judge(found)
	}
	return found.Result()
}

// key is what happened to one set or queue.
type key struct {
	added   map[int64]histories.Operation
	taken   map[int64][]histories.Operation
	reads   []histories.Operation
	unknown []histories.Operation // takes: each may have taken one element
}

func (k *key) note(c *Checker, op histories.Operation) {
	switch {
	case op.F == c.Add:
		if element, ok := op.Input.Int(); ok {
			k.added[element] = op
		}
	case op.F == c.Take && op.Type == histories.Info:
		k.unknown = append(k.unknown, op)
	case op.F == c.Take && op.Type == histories.OK:
		if element, ok := op.Output.Int(); ok {
			k.taken[element] = append(k.taken[element], op)
		}
	case op.F == c.Read && op.Type == histories.OK:
		k.reads = append(k.reads, op)
	}
}

func (k *key) judge(found *checkers.Findings) {
	var last []histories.Operation // reads at the end
	for _, read := range k.reads {
		k.seen(found, read)
		if read.Final {
			last = append(last, read)
		}
	}
	for _, element := range slices.Sorted(maps.Keys(k.taken)) {
		takes := k.taken[element]
		found.Count("taken", 1)
		k.expected(found, element, takes[0])
		if len(takes) > 1 {
			found.Add("element taken twice", takes, "element %d of %s was taken out by process %d and by process %d: each element is to come out once", element, takes[0].Key, takes[0].Process, takes[1].Process)
		}
	}
	if len(last) > 0 {
		k.lost(found, last)
	}
}

// seen judges the elements of one read by themselves.
func (k *key) seen(found *checkers.Findings, read histories.Operation) {
	elements, ok := read.Output.Elements()
	if !ok {
		found.Add("unreadable read", []histories.Operation{read}, "a read of %s returned %s, which is no list of elements", read.Key, read.Output)
		return
	}
	sorted := slices.Sorted(slices.Values(elements))
	for i, element := range sorted {
		if i > 0 && sorted[i-1] == element {
			found.Add("element twice in a read", []histories.Operation{k.added[element], read}, "a read of %s on %s returned element %d twice", read.Key, read.Node, element)
			return
		}
		k.expected(found, element, read)
		if takes := k.taken[element]; len(takes) > 0 && takes[0].Returned < read.Invoked {
			found.Add("element still there", []histories.Operation{takes[0], read}, "element %d of %s was taken out by process %d, and a later read on %s still shows it", element, read.Key, takes[0].Process, read.Node)
		}
	}
}

// expected judges an element that turned up.
func (k *key) expected(found *checkers.Findings, element int64, op histories.Operation) {
	add, known := k.added[element]
	switch {
	case !known:
		found.Add("unexpected element", []histories.Operation{op}, "element %d of %s was put in by nobody, and %s of process %d on %s returned it", element, op.Key, op.F, op.Process, op.Node)
	case add.Type == histories.Fail:
		found.Add("unexpected element", []histories.Operation{add, op}, "the node said that element %d was not put into %s and never will be (%s), and %s of process %d on %s returned it", element, op.Key, add.Error, op.F, op.Process, op.Node)
	case add.Invoked > op.Returned:
		found.Add("unexpected element", []histories.Operation{op, add}, "%s of process %d on %s returned element %d of %s, which was put in only later", op.F, op.Process, op.Node, element, op.Key)
	}
}

// lost looks for acknowledged elements in each of the last reads. Those that are missing may
// have been taken out by as many operations of unknown outcome.
func (k *key) lost(found *checkers.Findings, last []histories.Operation) {
	acknowledged, recovered := 0, 0
	latest := held(last[len(last)-1])
	for element, add := range k.added {
		switch {
		case add.Type == histories.OK:
			acknowledged++
		case add.Type == histories.Info && (len(k.taken[element]) > 0 || latest[element]):
			recovered++
		}
	}
	found.Count(tested, acknowledged)
	found.Count("of unknown outcome that turned up", recovered)
	for _, read := range last {
		var missing []histories.Operation
		there := held(read)
		for element, add := range k.added {
			if add.Type == histories.OK && len(k.taken[element]) == 0 && !there[element] {
				missing = append(missing, add)
			}
		}
		if len(missing) > len(k.unknown) {
			slices.SortFunc(missing, func(a, b histories.Operation) int { return a.Invoked - b.Invoked })
			k.tell(found, read, missing)
			return
		}
	}
}

// tell explains what is lost: the first element where nothing can have taken it, else how many.
func (k *key) tell(found *checkers.Findings, read histories.Operation, missing []histories.Operation) {
	const coreMost = 6
	first, _ := missing[0].Input.Int()
	if len(k.unknown) == 0 {
		also := ""
		if more := len(missing) - 1; more > 0 {
			also = fmt.Sprintf(" (and %d more)", more)
		}
		found.Add("lost element", []histories.Operation{missing[0], read}, "element %d%s was put into %s and acknowledged, nobody took it out, and the last read on %s does not show it", first, also, read.Key, read.Node)
		return
	}
	core := append(slices.Clone(missing[:min(len(missing), coreMost-1)]), read)
	found.Add("lost elements", core, "%d acknowledged elements of %s are missing from the last read on %s, the first is %d; %d operations of unknown outcome can have taken one each", len(missing), read.Key, read.Node, first, len(k.unknown))
}

// held returns the elements of a read.
func held(read histories.Operation) map[int64]bool {
	elements, _ := read.Output.Elements()
	set := make(map[int64]bool, len(elements))
	for _, element := range elements {
		set[element] = true
	}
	return set
}
