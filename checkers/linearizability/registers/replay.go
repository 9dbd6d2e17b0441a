package registers

import (
	"fmt"
	"math"
)

// Replay verifies that order, indices of ops, is a legal order of the whole history, in
// O(n) and by nothing but the definition: each operation does to a register what it says,
// none stands before one that had returned when it was called, and each whose outcome is
// known is there. Operations of unknown outcome may be there or not. The error says which
// operation has no place there. Replay shares nothing with the code that finds orders.
func Replay(ops []Op, order []int) error {
	present := make([]bool, len(ops))
	register, latest := Nothing, int64(math.MinInt64)
	for position, i := range order {
		if i < 0 || i >= len(ops) || present[i] {
			return fmt.Errorf("replay: position %d names operation %d, which is unknown or was named before", position, i)
		}
		present[i] = true
		op := ops[i]
		if op.Return < latest {
			return fmt.Errorf("replay: operation %d at position %d returned at %d, before a preceding one was called at %d", i, position, op.Return, latest)
		}
		latest = max(latest, op.Call)
		legal := true
		switch op.Kind {
		case Read:
			legal = register == op.Value
		case Write:
			register = op.Value
		case Swap:
			legal = register == op.Expected
			register = op.Value
		case Refused:
			legal = register != op.Expected
		default:
			legal = false
		}
		if !legal {
			return fmt.Errorf("replay: operation %d at position %d (%+v) does not fit its place", i, position, op)
		}
	}
	for i, op := range ops {
		if !present[i] && op.Return != Never {
			return fmt.Errorf("replay: operation %d is missing from the order", i)
		}
	}
	return nil
}
