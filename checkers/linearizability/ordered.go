package linearizability

import (
	"fmt"
	"slices"

	"capsize/checkers/linearizability/ordered"
	"capsize/checkers/linearizability/registers"
	"capsize/checkers/linearizability/search"
	"capsize/histories"
)

// ByOrder: what the operations returned says in which order they took effect (package ordered).
const ByOrder Method = "forced order"

// decideOrdered judges an object whose answers force the order of its operations. It is not ok
// where an operation is not one of the object, or the values are outside the method's reach.
func (c *Checker) decideOrdered(operations []histories.Operation) (d decision, ok bool) {
	var verdict ordered.Verdict
	var at []int
	switch c.Object {
	case List:
		verdict, at, ok = ask(operations, growOp("append"), ordered.CheckList)
	case Set:
		verdict, at, ok = ask(operations, growOp("add"), ordered.CheckSet)
	case Counter:
		verdict, at, ok = ask(operations, counterOp, ordered.CheckCounter)
	}
	if !ok {
		return d, false
	}
	switch verdict.Outcome {
	case ordered.Linearizable:
		return decision{outcome: search.Linearizable, method: ByOrder}, true
	case ordered.Violation:
		d = decision{outcome: search.Illegal, method: ByOrder, why: verdict.Reason, elements: verdict.Elements}
		for _, position := range verdict.Core {
			d.core = append(d.core, at[position])
		}
		return d, true
	}
	return d, false
}

// ask translates operations and has them checked; at tells where each stood.
func ask[Op any](operations []histories.Operation, one func(op *histories.Operation) (Op, bool), check func([]Op) ordered.Verdict) (verdict ordered.Verdict, at []int, ok bool) {
	ops, at, ok := translate(operations, one)
	if ok {
		verdict = check(ops)
	}
	return verdict, at, ok
}

// translate makes the operations of an object of those that say something; at tells where
// each stood.
func translate[Op any](operations []histories.Operation, one func(op *histories.Operation) (Op, bool)) (ops []Op, at []int, ok bool) {
	for i := range operations {
		if !says(operations[i]) {
			continue
		}
		op, ok := one(&operations[i])
		if !ok {
			return nil, nil, false
		}
		ops, at = append(ops, op), append(at, i)
	}
	return ops, at, true
}

// growOp translates the operations of a list or a set, whose additions are called add.
func growOp(add string) func(op *histories.Operation) (ordered.Op, bool) {
	return func(op *histories.Operation) (o ordered.Op, ok bool) {
		o.Call, o.Return = interval(*op)
		switch op.F {
		case add:
			o.Element, ok = op.Input.Int()
		case "read":
			o.Read = true
			o.Elements, ok = op.Output.Elements()
		}
		return o, ok
	}
}

func counterOp(op *histories.Operation) (o ordered.CounterOp, ok bool) {
	o.Call, o.Return = interval(*op)
	delta, _ := op.Input.Int()
	switch op.F {
	case "add":
		return o, delta == 1
	case "add-and-get":
		o.Kind = ordered.AddAndGet
		o.Result, ok = op.Output.Int()
		return o, delta == 1 && (ok || op.Type == histories.Info)
	case "read":
		o.Kind = ordered.Get
		o.Result, ok = op.Output.Int()
		return o, ok || op.Output.IsNil()
	}
	return o, false
}

// asMutex makes a register of a mutex: a critical section is a value, its acquire the write
// and its release a read of it. Sections exclude each other if and only if a register could
// hold these values: the operations of one stand together.
func asMutex(operations []histories.Operation) (ops []registers.Op, at []int, ok bool) {
	const late = registers.Never - 1 // after everything, but it does happen
	holds := make(map[int]int)       // process to its acquire, not released
	add := func(op registers.Op, i int) { ops, at = append(ops, op), append(at, i) }
	for i := range operations {
		op := &operations[i]
		if !says(*op) {
			continue
		}
		call, end := interval(*op)
		switch op.F {
		case "acquire":
			add(registers.Op{Kind: registers.Write, Value: int64(i), Call: call, Return: end}, i)
			if op.Type == histories.OK {
				holds[op.Process] = i
			}
		case "release":
			acquire, held := holds[op.Process]
			if !held {
				return nil, nil, false
			}
			delete(holds, op.Process)
			// Of unknown outcome it is no end of the section, but the section lasted until it began.
			add(registers.Op{Kind: registers.Read, Value: int64(acquire), Call: call, Return: min(end, late)}, i)
		default:
			return nil, nil, false
		}
	}
	for _, acquire := range holds { // held to the end
		add(registers.Op{Kind: registers.Read, Value: int64(acquire), Call: late, Return: late}, acquire)
	}
	return ops, at, true
}

// restricted returns operations with what their reads returned restricted to some elements.
func restricted(core []histories.Operation, to []int64) []histories.Operation {
	if to == nil {
		return core
	}
	core = slices.Clone(core)
	for i := range core {
		if list, ok := core[i].Output.Elements(); ok && core[i].F == "read" {
			core[i].Output = histories.Ints(slices.DeleteFunc(slices.Clone(list), func(e int64) bool { return !slices.Contains(to, e) })...)
		}
	}
	return core
}

// orderText says in words why a core of an ordered object is impossible.
func (c *Checker) orderText(d decision, core []histories.Operation) string {
	if c.Object == Counter {
		return counterText(d.why, core)
	}
	reads, adds := slices.Clone(core), slices.Clone(core)
	reads = slices.DeleteFunc(reads, func(op histories.Operation) bool { return op.F != "read" })
	adds = slices.DeleteFunc(adds, func(op histories.Operation) bool { return op.F == "read" })
	element := d.elements[0]
	added := func(element int64) string {
		for _, op := range adds {
			if e, _ := op.Input.Int(); e == element {
				return act(op)
			}
		}
		return fmt.Sprintf("whatever added %d", element)
	}
	switch {
	case d.why == ordered.Phantom:
		return fmt.Sprintf("%s has %d, which nobody had begun to add", act(reads[0]), element)
	case d.why == ordered.Duplicate:
		return fmt.Sprintf("%s has %d twice, though only %s added it", act(reads[0]), element, added(element))
	case d.why == ordered.Incompatible:
		return fmt.Sprintf("%s and %s contradict each other, whichever came first: %s, but %s", act(reads[0]), act(reads[1]), seen(reads[0], d.elements), seen(reads[1], d.elements))
	case d.why == ordered.Order && len(reads) == 1 && len(adds) == 1:
		return fmt.Sprintf("%s has %d, but had ended before %s began", act(reads[0]), element, act(adds[0]))
	case d.why == ordered.Order:
		return fmt.Sprintf("%s had ended before %s began, but %s", added(d.elements[1]), added(element), act(reads[0])+" shows the second without, or before, the first")
	case len(reads) > 1:
		return fmt.Sprintf("%d had been seen by %s before %s began, which does not have it", element, act(firstEnded(reads)), act(lastBegun(reads)))
	default:
		return fmt.Sprintf("%d was lost: %s had ended before %s began, which does not have it", element, added(element), act(reads[0]))
	}
}

// seen says which of two elements a read has, in which order.
func seen(read histories.Operation, of []int64) string {
	only, _ := restricted([]histories.Operation{read}, of)[0].Output.Ints()
	if len(only) == 2 {
		return fmt.Sprintf("the one has %d before %d", only[0], only[1])
	}
	return fmt.Sprintf("the one has %d and not the other of %d and %d", only[0], of[0], of[1])
}

func firstEnded(ops []histories.Operation) histories.Operation {
	return slices.MinFunc(ops, func(a, b histories.Operation) int { return a.Returned - b.Returned })
}

func lastBegun(ops []histories.Operation) histories.Operation {
	return slices.MaxFunc(ops, func(a, b histories.Operation) int { return a.Invoked - b.Invoked })
}

func counterText(why ordered.Reason, core []histories.Operation) string {
	first, last := firstEnded(core), lastBegun(core)
	switch why {
	case ordered.Phantom:
		return fmt.Sprintf("%s needs more additions than had begun", act(core[0]))
	case ordered.Duplicate:
		return fmt.Sprintf("two additions got the same sum: %s and %s; one was lost", act(core[0]), act(core[1]))
	case ordered.Missing:
		return fmt.Sprintf("an addition was lost: %s had ended before %s began, whose result leaves no room for it", act(first), act(last))
	default:
		return fmt.Sprintf("the sum went back: %s had ended before %s began", act(first), act(last))
	}
}

// mutexText says in words that two critical sections overlap.
func mutexText(core []histories.Operation) string {
	acquires := slices.DeleteFunc(slices.Clone(core), func(op histories.Operation) bool { return op.F != "acquire" })
	if len(acquires) < 2 {
		return fmt.Sprintf("%s ended before the section that it belongs to began", act(core[0]))
	}
	return fmt.Sprintf("two held it at the same time: neither %s nor %s had released it before the other got it", act(acquires[0]), act(acquires[1]))
}
