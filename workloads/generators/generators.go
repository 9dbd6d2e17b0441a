// Package generators puts generators together: what one yields becomes part of what
// another yields. The words are Jepsen's. Each is as pure as what it is made of.
package generators

import (
	"time"

	"capsize/workloads"
)

// Stagger spaces the operations of all threads together evenly over time. Turns that nobody
// took in time are not made up for: after a stall the clients do not all rush at once. An
// interval of 0 or less spaces nothing.
func Stagger(every time.Duration, of workloads.Generator) workloads.Generator {
	if every <= 0 {
		return of
	}
	return &stagger{Generator: of, every: every, last: -every, turns: make(map[int]time.Duration)}
}

type stagger struct {
	workloads.Generator
	every time.Duration
	last  time.Duration         // the turn given last
	turns map[int]time.Duration // by thread, not used yet
}

func (s *stagger) Next(now workloads.Moment) workloads.Step {
	turn, given := s.turns[now.Thread]
	if !given {
		turn = max(s.last+s.every, now.Now.Truncate(s.every))
		s.last, s.turns[now.Thread] = turn, turn
	}
	if turn > now.Now {
		return workloads.Sleep(turn)
	}
	step := s.Generator.Next(now)
	if _, perform := step.Op(); perform {
		delete(s.turns, now.Thread)
	}
	return step
}
