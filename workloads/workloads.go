// Package workloads says what clients do and what must hold of it. A [Workload] has a pure
// [Generator] of operations, a function that performs one operation on a client, and the
// checkers that judge its histories.
//
// A new workload is one package, often one Go file, that implements [Workload], and one line
// in the catalogue of package harness. Package example is such a one, made to be copied.
package workloads

import (
	"context"
	"time"

	"capsize/checkers"
	"capsize/histories"
)

// Workload is what clients do and what must hold.
type Workload interface {
	// Name is what a plan calls it by.
	Name() string
	// Fits says what a client lacks that the workload needs, before anything starts; nil:
	// nothing. The client is connected to nothing.
	Fits(client any) error
	// NewGenerator makes the generator for a number of client threads.
	NewGenerator(seed uint64, threads int) Generator
	// Perform carries out op with a client that systems.System.Open returned, once. The
	// error says the outcome as histories.Outcome understands it.
	Perform(ctx context.Context, client any, op Op) (histories.Reply, error)
	// Checkers are what must hold of its histories, beside what must hold of every run's.
	Checkers(limits checkers.Limits) []checkers.Checker
}

// Op is an operation to perform: what a generator yields.
type Op struct {
	F     string
	Key   string
	Value histories.Value
	Stale bool   // a read that may be answered with a state of the past
	Node  string // the node to ask; empty: the thread's own
	Final bool
}

// Generator yields operations. It is deterministic: what it yields is a function of its
// seed and of the sequence of calls made to it. It has no clock and starts no
// goroutine, so that the harness drives it in real time and the simulator in virtual
// time. It is not safe for concurrent use. Package generators puts several together.
type Generator interface {
	// Next says what a thread does next.
	Next(now Moment) Step
	// Completed tells the generator how an operation ended, whoever's it was.
	Completed(op histories.Operation)
	// Final returns the reads to make once everything is healed.
	Final() []Op
}

// Moment is when a generator is asked, and for whom.
type Moment struct {
	Now     time.Duration // since the clients began
	Thread  int           // a client slot, from 0; it is asked again after its operation completed
	Process int           // the process number that the thread uses at the moment
}

// Step is what a thread does next: perform an operation, wait and ask again, or end. Make
// one with [Perform], [Wait], [Sleep], [WaitAtMost] or [End].
type Step struct {
	op      Op
	perform bool
	waits   bool          // for the completion of another thread's operation
	until   time.Duration // for a moment; 0: none
}

// Perform makes the step of performing op now.
func Perform(op Op) Step { return Step{op: op, perform: true} }

// Wait makes the step of waiting until some operation of another thread has completed.
func Wait() Step { return Step{waits: true} }

// Sleep makes the step of waiting for a moment.
func Sleep(until time.Duration) Step { return Step{until: until} }

// WaitAtMost makes the step of waiting until some operation of another thread has
// completed, or for a moment, whichever comes first.
func WaitAtMost(until time.Duration) Step { return Step{waits: true, until: until} }

// End makes the step after which the thread asks no more.
func End() Step { return Step{} }

// Op returns the operation to perform, and whether the step is to perform one.
func (s Step) Op() (op Op, perform bool) { return s.op, s.perform }

// Waits reports whether the step waits for the completion of another thread's operation.
func (s Step) Waits() bool { return s.waits }

// Until returns the moment that the step waits for, and whether it does.
func (s Step) Until() (until time.Duration, does bool) { return s.until, s.until > 0 }

// Ends reports whether the thread asks no more.
func (s Step) Ends() bool { return !s.perform && !s.waits && s.until <= 0 }
