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
	return paced(of, func(time.Duration) time.Duration { return every })
}

// Ramp spaces operations like [Stagger], at an interval that goes from one to another within a
// time, such that the rate changes evenly. Then it stays.
func Ramp(from, to, within time.Duration, of workloads.Generator) workloads.Generator {
	first, last := 1/from.Seconds(), 1/to.Seconds()
	return paced(of, func(now time.Duration) time.Duration {
		part := min(now.Seconds()/within.Seconds(), 1)
		return time.Duration(float64(time.Second) / (first + (last-first)*part))
	})
}

func paced(of workloads.Generator, every func(now time.Duration) time.Duration) workloads.Generator {
	return &pace{Generator: of, every: every, turns: make(map[int]time.Duration)}
}

type pace struct {
	workloads.Generator
	every func(now time.Duration) time.Duration
	next  time.Duration         // the first turn that is not given
	turns map[int]time.Duration // by thread, not used yet
}

func (p *pace) Next(now workloads.Moment) workloads.Step {
	turn, given := p.turns[now.Thread]
	if !given {
		every := p.every(max(p.next, now.Now))
		if turn = p.next; turn < now.Now-every {
			turn = now.Now
		}
		p.next, p.turns[now.Thread] = turn+every, turn
	}
	if turn > now.Now {
		return workloads.Sleep(turn)
	}
	step := p.Generator.Next(now)
	if _, perform := step.Op(); perform {
		delete(p.turns, now.Thread)
	}
	return step
}

// Burst lets a generator work for a while and be silent for a while, in turns.
func Burst(works, silent time.Duration, of workloads.Generator) workloads.Generator {
	return &burst{Generator: of, works: works, cycle: works + silent}
}

type burst struct {
	workloads.Generator
	works, cycle time.Duration
}

func (b *burst) Next(now workloads.Moment) workloads.Step {
	if in := now.Now % b.cycle; in >= b.works {
		return workloads.Sleep(now.Now - in + b.cycle)
	}
	return b.Generator.Next(now)
}
