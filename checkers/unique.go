package checkers

import "capsize/histories"

// The shortcuts for registers whose written values are unique on a key. Each is exact:
// the history has a legal order if and only if what is left has one.
//
//   - An operation that certainly failed is left out: it has no place in any order.
//   - A read of unknown outcome is left out: it changes nothing and says nothing.
//   - A write or compare-and-swap of unknown outcome is effective if a read returned its
//     value, or an effective compare-and-swap expected it. One that is not effective is
//     left out. Given an order of everything, take all of those out: nothing that is left
//     found their values, so what follows them is a write, or the end. Given an order of
//     what is left, put them at its end, where they may always be.
//   - An effective one took effect before the first answered operation that found its
//     value ended. Its span ends there instead of never.

// prepareUnique applies the shortcuts. It is not ok where values repeat or an operation
// is not one of a register.
func prepareUnique(operations []histories.Operation) (spans []span, ok bool) {
	u := uniqueKey{operations: operations, writer: make(map[int64]int)}
	for i, op := range operations {
		if op.Type == histories.Fail {
			continue
		}
		if !wellFormed(op) {
			return nil, false
		}
		if value, writes := produced(op); writes {
			if _, twice := u.writer[value]; twice {
				return nil, false
			}
			u.writer[value] = i
		}
	}
	u.findEffective()
	for i, op := range operations {
		switch {
		case op.Type == histories.OK:
			spans = append(spans, span{op, op.Invoked, op.Returned})
		case op.Type == histories.Fail || !u.effective[i]:
		case u.seenBy[i] >= op.Invoked:
			spans = append(spans, span{op, op.Invoked, u.seenBy[i]})
		default: // found before it was invoked: no order explains that
			spans = append(spans, span{op, op.Invoked, never})
		}
	}
	return spans, true
}

func wellFormed(op histories.Operation) bool {
	switch op.F {
	case "read":
		_, list := op.Output.Ints()
		return !list
	case "write", "cas":
		_, ok := produced(op)
		return ok
	default:
		return false
	}
}

// uniqueKey is a key's operations, none of them ambiguous.
type uniqueKey struct {
	operations []histories.Operation
	writer     map[int64]int // value to the operation that writes it, if that did not fail
	effective  []bool        // of unknown outcome, but it did happen
	seenBy     []int         // where effective: when the first answered operation that found its value ended
}

func (u *uniqueKey) findEffective() {
	u.effective = make([]bool, len(u.operations))
	u.seenBy = make([]int, len(u.operations))
	for _, op := range u.operations {
		if op.Type != histories.OK {
			continue
		}
		// Along the chain of compare-and-swaps that led to the value: each must have happened
		// before this operation ended.
		for value, found := found(op); found; {
			i, known := u.writer[value]
			if !known || u.operations[i].Type == histories.OK {
				break
			}
			if u.effective[i] && u.seenBy[i] <= op.Returned {
				break
			}
			u.effective[i], u.seenBy[i] = true, op.Returned
			value, found = expected(u.operations[i])
		}
	}
}

// produced returns the value that an operation writes if it happens.
func produced(op histories.Operation) (int64, bool) {
	switch op.F {
	case "write":
		return op.Input.Int()
	case "cas":
		if pair, ok := op.Input.Ints(); ok && len(pair) == 2 {
			return pair[1], true
		}
	}
	return 0, false
}

// expected returns the value that a compare-and-swap found if it happened.
func expected(op histories.Operation) (int64, bool) {
	if pair, ok := op.Input.Ints(); ok && op.F == "cas" && len(pair) == 2 {
		return pair[0], true
	}
	return 0, false
}

// found returns the value that an operation which happened found in the register. A read
// that found nothing there is not ok.
func found(op histories.Operation) (int64, bool) {
	if op.F == "read" {
		return op.Output.Int()
	}
	return expected(op)
}
