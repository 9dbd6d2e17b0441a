// Package workloads says what clients do. A [Workload] has a pure [Generator] of
// operations, a function that performs one operation on a client, and the model that
// every history of it must satisfy.
package workloads

import (
	"context"

	"github.com/anishathalye/porcupine"

	"capsize/histories"
)

// Op is an operation to perform: what a generator yields.
type Op struct {
	F     string
	Key   string
	Value histories.Value
	Final bool
}

// Generator yields operations. It is deterministic: what it yields is a function of its
// seed and of the sequence of calls made to it. It has no clock and starts no
// goroutine, so that the harness drives it in real time and the simulator in virtual
// time. It is not safe for concurrent use.
type Generator interface {
	// Next returns the operation that the thread performs next. A thread is a client slot
	// from 0; process is the process number it uses at the moment.
	Next(thread, process int) Op
	// Completed tells the generator how an operation ended.
	Completed(op histories.Operation)
	// Final returns the reads to make once everything is healed.
	Final() []Op
}

// Workload is what clients do and what must hold.
type Workload interface {
	Name() string
	// NewGenerator makes the generator for a number of client threads.
	NewGenerator(seed uint64, threads int) Generator
	// Perform carries out op with a client that systems.System.Open returned, once. The
	// returned value is the result of a read, or repeats the argument. The error says the
	// outcome as histories.Outcome understands it.
	Perform(ctx context.Context, client any, op Op) (histories.Value, error)
	// Model is what each key's history must satisfy by itself. Its inputs and outputs are
	// histories.Operation.
	Model() porcupine.Model
}
