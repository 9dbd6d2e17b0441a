// Package play performs workloads against stores in memory, for tests: one operation after the
// other, in virtual time.
package play

import (
	"context"
	"testing"
	"time"

	"capsize/checkers"
	"capsize/histories"
	"capsize/workloads"
)

// Threads is how many threads take turns.
const Threads = 4

// Run performs a number of operations of a workload, then the last ones, on one client for each
// thread.
func Run(t testing.TB, w workloads.Workload, seed uint64, count int, client func(thread int) any) []histories.Event {
	t.Helper()
	g := w.NewGenerator(seed, Threads)
	var events []histories.Event
	clients := make([]any, Threads)
	for i := range clients {
		clients[i] = client(i)
		if err := w.Fits(clients[i]); err != nil {
			t.Fatal(err)
		}
	}
	now := func() time.Duration { return time.Duration(len(events)) * time.Millisecond }
	process := make([]int, Threads) // as the harness does: another one after an unknown outcome
	fresh := Threads
	for i := range process {
		process[i] = i
	}
	do := func(thread int, op workloads.Op) {
		record := func(e histories.Event) histories.Event {
			e.Index, e.Time = len(events), now()
			events = append(events, e)
			return e
		}
		invoke := record(histories.Event{Process: process[thread], F: op.F, Key: op.Key, Value: op.Value, Node: "n1", Stale: op.Stale, Final: op.Final})
		reply, err := w.Perform(context.Background(), clients[thread], op)
		done := record(histories.Completion(invoke, reply, err))
		g.Completed(histories.OperationOf(invoke, done))
		if done.Type == histories.Info {
			process[thread], fresh = fresh, fresh+1
		}
	}
	var rested time.Duration // while all threads waited
	for turn := 0; len(events) < 2*count; turn++ {
		if turn > 100*count {
			t.Fatal("the generator waits for ever")
		}
		thread := turn % Threads
		step := g.Next(workloads.Moment{Now: now() + rested, Thread: thread, Process: process[thread]})
		if op, perform := step.Op(); perform {
			do(thread, op)
		} else if step.Ends() {
			break
		} else {
			rested += time.Millisecond
		}
	}
	for _, op := range g.Final() {
		do(0, op)
	}
	return events
}

// Judge returns what the workload's checkers find, by name.
func Judge(t testing.TB, w workloads.Workload, events []histories.Event) map[string]checkers.Result {
	t.Helper()
	if err := histories.Validate(events); err != nil {
		t.Fatal(err)
	}
	results := make(map[string]checkers.Result)
	for _, checker := range w.Checkers(checkers.Limits{}) {
		results[checker.Name()] = checker.Check(context.Background(), &checkers.Run{History: events})
	}
	return results
}

// Misuse checks that a workload refuses a client and an operation that it knows nothing of, for
// certain.
func Misuse(t testing.TB, w workloads.Workload, client any) {
	t.Helper()
	if err := w.Fits("text"); err == nil {
		t.Errorf("%s fits a text", w.Name())
	}
	for _, c := range []any{client, "text"} {
		if _, err := w.Perform(context.Background(), c, workloads.Op{F: "no such operation"}); histories.Outcome(err) != histories.Fail {
			t.Errorf("%s: %T: %v", w.Name(), c, err)
		}
	}
}
