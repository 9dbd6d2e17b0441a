package transactions

import (
	"fmt"
	"time"
)

// budget ends a check that takes too long or too much.
type budget struct {
	limit Limit
	begun time.Time
	steps int
	used  int64  // bytes, estimated
	spent string // why it ended; empty while it goes on
}

func newBudget(limit Limit) budget { return budget{limit: limit, begun: time.Now()} }

// stepsPerLook is how many steps are made between two looks at the clock: some microseconds.
const stepsPerLook = 4096

// step counts n small pieces of work and reports whether the check may go on.
func (b *budget) step(n int) bool {
	b.steps += n
	if b.spent == "" && b.steps >= stepsPerLook {
		b.steps = 0
		if b.limit.Time > 0 && time.Since(b.begun) >= b.limit.Time {
			b.spent = fmt.Sprintf("the time limit of %s ended", b.limit.Time)
		}
	}
	return b.spent == ""
}

// take counts bytes that are about to be allocated and reports whether the check may go on.
func (b *budget) take(bytes int64) bool {
	b.used += bytes
	if b.spent == "" && b.limit.Memory > 0 && b.used > b.limit.Memory {
		b.spent = fmt.Sprintf("the memory limit of %d MiB ended", b.limit.Memory>>20)
	}
	return b.spent == ""
}

// over reports whether the check must end.
func (b *budget) over() bool { return b.spent != "" }
