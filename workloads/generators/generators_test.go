package generators

import (
	"testing"
	"time"

	"capsize/histories"
	"capsize/workloads"
)

// counted yields operations without end.
type counted struct{ given int }

func (c *counted) Next(workloads.Moment) workloads.Step {
	c.given++
	return workloads.Perform(workloads.Op{F: "op", Value: histories.Int(int64(c.given))})
}
func (c *counted) Completed(histories.Operation) {}
func (c *counted) Final() []workloads.Op         { return []workloads.Op{{F: "last"}} }

// performed is an operation as play saw it.
type performed struct {
	at     time.Duration
	thread int
	op     workloads.Op
}

// play drives a generator in virtual time: every operation takes as long as took says.
func play(t testing.TB, g workloads.Generator, threads int, limit time.Duration, took func(performed) time.Duration) []performed {
	t.Helper()
	const never = time.Duration(1<<63 - 1)
	type thread struct {
		at    time.Duration // when it asks next
		waits bool          // asks earlier when an operation completes
		runs  *performed
		ended bool
	}
	all := make([]thread, threads)
	var done []performed
	for steps := 0; ; steps++ {
		if steps > 1_000_000 {
			t.Fatal("the generator goes round in circles")
		}
		next := -1
		for i := range all {
			if !all[i].ended && (next < 0 || all[i].at < all[next].at) {
				next = i
			}
		}
		if next < 0 || all[next].at > limit {
			return done
		}
		me, now := &all[next], all[next].at
		if me.runs != nil {
			g.Completed(histories.Operation{Process: next, F: me.runs.op.F, Key: me.runs.op.Key, Input: me.runs.op.Value, Type: histories.OK, Call: me.runs.at, Return: now})
			me.runs = nil
			for i := range all {
				if all[i].waits {
					all[i].at, all[i].waits = now, false
				}
			}
			continue
		}
		step := g.Next(workloads.Moment{Now: now, Thread: next, Process: next})
		me.waits = step.Waits()
		if op, perform := step.Op(); perform {
			me.runs = &performed{now, next, op}
			done = append(done, *me.runs)
			me.at = now + took(*me.runs)
		} else if until, named := step.Until(); named {
			me.at = until
		} else {
			me.at, me.ended = never, step.Ends()
		}
	}
}

func quick(performed) time.Duration { return time.Millisecond }

func TestStaggeredOperationsAreSpacedAmongAllThreads(t *testing.T) {
	done := play(t, Stagger(10*time.Millisecond, &counted{}), 4, time.Second, quick)
	if len(done) != 101 {
		t.Fatalf("%d operations in a second, one each 10 ms", len(done))
	}
	for i, op := range done {
		if want := time.Duration(i) * 10 * time.Millisecond; op.at != want {
			t.Fatalf("operation %d at %s, want %s", i, op.at, want)
		}
	}
}

func TestTurnsThatWereMissedAreNotMadeUpFor(t *testing.T) {
	stalls := func(op performed) time.Duration {
		if op.at == 0 {
			return 5 * time.Second
		}
		return time.Millisecond
	}
	done := play(t, Stagger(100*time.Millisecond, &counted{}), 1, 6*time.Second, stalls)
	if len(done) > 12 {
		t.Errorf("%d operations: those of the stall were made up for", len(done))
	}
}

func TestAnIntervalOfNothingSpacesNothing(t *testing.T) {
	if done := play(t, Stagger(0, &counted{}), 2, 10*time.Millisecond, quick); len(done) != 22 {
		t.Errorf("%d operations", len(done))
	}
}
