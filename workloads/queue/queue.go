// Package queue is the workload of first-in-first-out queues: clients put in elements and take
// the oldest out. Beside linearizability it is counted whether each element that was put in
// came out, and came out once: what a queue with weaker promises would be judged by.
package queue

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/anishathalye/porcupine"

	"capsize/checkers"
	"capsize/checkers/elements"
	"capsize/checkers/linearizability"
	"capsize/histories"
	"capsize/workloads"
	"capsize/workloads/rolling"
)

// The operations.
const (
	Enqueue = "enqueue" // takes the element
	Dequeue = "dequeue" // returns the oldest; Nil where there is none
	Read    = "read"    // returns what is left, the oldest first; only at the end
)

// Workload is the queue workload.
type Workload struct{ limits rolling.Limits }

var _ workloads.Workload = (*Workload)(nil)

// New returns the workload, or an error that names the limit that cannot be. The defaults are 5 queues,
// 120 operations and 4 of unknown outcome.
func New(limits rolling.Limits) (*Workload, error) {
	limits = limits.Or(rolling.Limits{Keys: 5, Ops: 120, Unknown: 4})
	if err := limits.Validate("queue"); err != nil {
		return nil, err
	}
	return &Workload{limits}, nil
}

// Name is "queue".
func (w *Workload) Name() string { return "queue" }

// Queues is what clients must be.
type Queues interface {
	// Enqueue puts an element at the end of the queue of a key, which may not be there yet.
	Enqueue(ctx context.Context, key string, element int64) (histories.Reply, error)
	// Dequeue takes the oldest element out and returns it, or Nil where there is none.
	Dequeue(ctx context.Context, key string) (histories.Reply, error)
	// Queued returns all elements, the oldest first.
	Queued(ctx context.Context, key string) (histories.Reply, error)
}

// Fits says that a client must be [Queues].
func (w *Workload) Fits(client any) error {
	if _, ok := client.(Queues); !ok {
		return fmt.Errorf("the queue workload needs queues, which a %T does not have", client)
	}
	return nil
}

// Perform carries out one operation, once.
func (w *Workload) Perform(ctx context.Context, client any, op workloads.Op) (histories.Reply, error) {
	queues, ok := client.(Queues)
	if !ok {
		return histories.Reply{}, histories.Definite(w.Fits(client))
	}
	switch element, given := op.Value.Int(); {
	case op.F == Enqueue && given:
		return queues.Enqueue(ctx, op.Key, element)
	case op.F == Dequeue:
		return queues.Dequeue(ctx, op.Key)
	case op.F == Read:
		return queues.Queued(ctx, op.Key)
	}
	return histories.Reply{}, histories.Definite(fmt.Errorf("%s %s %s: the queue workload knows no such operation", op.F, op.Key, op.Value))
}

// Checkers are linearizability of each queue, and that each element came out once.
func (w *Workload) Checkers(limits checkers.Limits) []checkers.Checker {
	return []checkers.Checker{
		&linearizability.Checker{Model: Model(), Object: linearizability.Queue, Limits: limits},
		&elements.Checker{Add: Enqueue, Take: Dequeue, Read: Read},
	}
}

// NewGenerator returns the generator of a run: as many dequeues as enqueues.
func (w *Workload) NewGenerator(seed uint64, threads int) workloads.Generator {
	return &generator{dice: rolling.NewDice(seed, threads), keys: rolling.New("queue-", w.limits)}
}

type generator struct {
	dice rolling.Dice
	keys *rolling.Keys
}

// Next returns the thread's next operation; it never waits and never ends.
func (g *generator) Next(now workloads.Moment) workloads.Step {
	random := g.dice[now.Thread]
	slot, put := random.IntN(g.keys.Slots()), random.IntN(2) == 0
	k := g.keys.At(slot)
	k.Use()
	if put {
		return workloads.Perform(workloads.Op{F: Enqueue, Key: k.Name, Value: histories.Int(k.Next())})
	}
	return workloads.Perform(workloads.Op{F: Dequeue, Key: k.Name})
}

// Completed counts changes of unknown outcome.
func (g *generator) Completed(op histories.Operation) { g.keys.Completed(op, Read) }

// Final returns reads of the queues in use and of those retired last.
func (g *generator) Final() []workloads.Op { return g.keys.Final(Read) }

// Model is one queue. Inputs are [histories.Operation]; outputs are not looked at. A state is
// the elements as text, the oldest first. A dequeue of unknown outcome takes what is the
// oldest where it stands: at the end, if it never happened.
func Model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return "" },
		Step: func(s, input, _ any) (bool, any) {
			return step(s.(string), input.(histories.Operation))
		},
		DescribeOperation: func(input, _ any) string {
			op := input.(histories.Operation)
			if op.F == Enqueue {
				return fmt.Sprintf("enqueue %s", op.Input)
			}
			return fmt.Sprintf("%s → %s", op.F, op.Output)
		},
		DescribeState: func(s any) string { return "[" + s.(string) + "]" },
	}
}

func step(state string, op histories.Operation) (bool, string) {
	oldest, rest, _ := strings.Cut(state, " ")
	switch op.F {
	case Enqueue:
		element, ok := op.Input.Int()
		return ok, strings.TrimPrefix(state+" "+strconv.FormatInt(element, 10), " ")
	case Dequeue:
		if op.Type != histories.OK {
			return true, rest
		}
		element, ok := op.Output.Int()
		return ok && oldest == strconv.FormatInt(element, 10) || op.Output.IsNil() && state == "", rest
	case Read:
		return op.Type != histories.OK || "["+state+"]" == strings.ReplaceAll(op.Output.String(), ",", " "), state
	}
	return false, state
}
