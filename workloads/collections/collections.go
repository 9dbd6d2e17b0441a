// Package collections is three workloads on things that are only ever added to: append-only
// lists, sets and counters. What a read returns says what took effect before it, so a single
// lost or repeated write shows in every read after it; and what the reads return forces the
// order of the writes, so that histories are decided without a search.
package collections

import (
	"context"
	"fmt"

	"capsize/checkers"
	"capsize/checkers/elements"
	"capsize/checkers/linearizability"
	"capsize/histories"
	"capsize/workloads"
	"capsize/workloads/rolling"
)

// The operations. Which of them a workload has is said by its kind.
const (
	Read      = "read"        // returns all elements, or the sum
	Append    = "append"      // to a list
	Add       = "add"         // to a set, or 1 to a counter
	AddAndGet = "add-and-get" // 1 to a counter; returns the sum
)

// Options shape a workload. What is zero gets the default.
type Options struct {
	Keys          int // in use at a time; default 5
	OpsPerKey     int // after which a fresh key takes its place; default 200: reads grow with it
	UnknownPerKey int // writes of unknown outcome after which a key is replaced early; default 20
	Reads, Writes int // shares of the operations, relative to each other; default 50 and 50
}

func (o Options) withDefaults() Options {
	l := o.limits().Or(rolling.Limits{Keys: 5, Ops: 200, Unknown: 20})
	o.Keys, o.OpsPerKey, o.UnknownPerKey = l.Keys, l.Ops, l.Unknown
	if o.Reads == 0 && o.Writes == 0 {
		o.Reads, o.Writes = 50, 50
	}
	return o
}

func (o Options) limits() rolling.Limits {
	return rolling.Limits{Keys: o.Keys, Ops: o.OpsPerKey, Unknown: o.UnknownPerKey}
}

// Workload is one of the three.
type Workload struct {
	kind    *kind
	options Options
}

var _ workloads.Workload = (*Workload)(nil)

// kind is what the three differ in.
type kind struct {
	name   string
	object linearizability.Object
	needs  string // what a client must have, for people
	writes []string
	fits   func(client any) bool
	do     func(ctx context.Context, client any, op workloads.Op, value int64) (histories.Reply, error)
}

// Lists is what clients must be for [NewLists]: stores of lists of integers.
type Lists interface {
	// Append adds an element at the end of the list of a key, which may not be there yet.
	Append(ctx context.Context, key string, element int64) (histories.Reply, error)
	// List returns all elements in order.
	List(ctx context.Context, key string) (histories.Reply, error)
}

// Sets is what clients must be for [NewSets]: stores of sets of integers.
type Sets interface {
	// AddElement adds an element to the set of a key, which may not be there yet.
	AddElement(ctx context.Context, key string, element int64) (histories.Reply, error)
	// Elements returns all elements in any order.
	Elements(ctx context.Context, key string) (histories.Reply, error)
}

// Counters is what clients must be for [NewCounters]: stores of counters, which begin at 0.
type Counters interface {
	// AddTo adds to the counter of a key and returns the sum.
	AddTo(ctx context.Context, key string, delta int64) (histories.Reply, error)
	// Sum returns the sum.
	Sum(ctx context.Context, key string) (histories.Reply, error)
}

// NewLists returns the workload "list-append".
func NewLists(options Options) (*Workload, error) {
	return newWorkload(&kind{
		name: "list-append", object: linearizability.List, needs: "append and list", writes: []string{Append},
		fits: func(client any) bool { _, ok := client.(Lists); return ok },
		do: func(ctx context.Context, client any, op workloads.Op, value int64) (histories.Reply, error) {
			if op.F == Read {
				return client.(Lists).List(ctx, op.Key)
			}
			return client.(Lists).Append(ctx, op.Key, value)
		},
	}, options)
}

// NewSets returns the workload "set".
func NewSets(options Options) (*Workload, error) {
	return newWorkload(&kind{
		name: "set", object: linearizability.Set, needs: "sets of integers", writes: []string{Add},
		fits: func(client any) bool { _, ok := client.(Sets); return ok },
		do: func(ctx context.Context, client any, op workloads.Op, value int64) (histories.Reply, error) {
			if op.F == Read {
				return client.(Sets).Elements(ctx, op.Key)
			}
			return client.(Sets).AddElement(ctx, op.Key, value)
		},
	}, options)
}

// NewCounters returns the workload "counter".
func NewCounters(options Options) (*Workload, error) {
	return newWorkload(&kind{
		name: "counter", object: linearizability.Counter, needs: "counters", writes: []string{Add, AddAndGet},
		fits: func(client any) bool { _, ok := client.(Counters); return ok },
		do: func(ctx context.Context, client any, op workloads.Op, value int64) (histories.Reply, error) {
			if op.F == Read {
				return client.(Counters).Sum(ctx, op.Key)
			}
			reply, err := client.(Counters).AddTo(ctx, op.Key, value)
			if op.F == Add {
				reply.Value = histories.Nil // it does not say
			}
			return reply, err
		},
	}, options)
}

func newWorkload(kind *kind, options Options) (*Workload, error) {
	options = options.withDefaults()
	if err := options.limits().Validate(kind.name); err != nil {
		return nil, err
	}
	if options.Reads < 1 || options.Writes < 1 {
		return nil, fmt.Errorf("%s workload: shares of %d reads and %d writes: without both nothing can be found out", kind.name, options.Reads, options.Writes)
	}
	return &Workload{kind, options}, nil
}

// Name is the kind's.
func (w *Workload) Name() string { return w.kind.name }

// Fits says that a client must be what the kind needs.
func (w *Workload) Fits(client any) error {
	if !w.kind.fits(client) {
		return fmt.Errorf("the %s workload needs %s, which a %T does not have", w.kind.name, w.kind.needs, client)
	}
	return nil
}

// Perform carries out one operation, once.
func (w *Workload) Perform(ctx context.Context, client any, op workloads.Op) (histories.Reply, error) {
	if err := w.Fits(client); err != nil {
		return histories.Reply{}, histories.Definite(err)
	}
	value, given := op.Value.Int()
	if op.F != Read && (!given || !w.has(op.F)) {
		return histories.Reply{}, histories.Definite(fmt.Errorf("%s %s %s: the %s workload knows no such operation", op.F, op.Key, op.Value, w.kind.name))
	}
	return w.kind.do(ctx, client, op, value)
}

func (w *Workload) has(f string) bool {
	for _, write := range w.kind.writes {
		if write == f {
			return true
		}
	}
	return false
}

// Checkers are linearizability of each key, what each session saw where there are revisions, and
// for sets what became of each element.
func (w *Workload) Checkers(limits checkers.Limits) []checkers.Checker {
	list := []checkers.Checker{&linearizability.Checker{Model: w.Model(), Object: w.kind.object, Limits: limits}, &checkers.Sessions{}}
	if w.kind.object == linearizability.Set {
		list = append(list, &elements.Checker{Add: Add, Read: Read})
	}
	return list
}

// NewGenerator returns the generator of a run.
func (w *Workload) NewGenerator(seed uint64, threads int) workloads.Generator {
	return &generator{workload: w, dice: rolling.NewDice(seed, threads), keys: rolling.New(w.kind.name+"-", w.options.limits())}
}

// generator chooses operations. Which slot a thread uses, and for what kind of operation,
// comes from a random sequence of its own; values come from the key.
type generator struct {
	workload *Workload
	dice     rolling.Dice
	keys     *rolling.Keys
}

// Next returns the thread's next operation; it never waits and never ends.
func (g *generator) Next(now workloads.Moment) workloads.Step {
	random, o, writes := g.dice[now.Thread], g.workload.options, g.workload.kind.writes
	slot, dice, write := random.IntN(o.Keys), random.IntN(o.Reads+o.Writes), random.IntN(len(writes))
	k := g.keys.At(slot)
	k.Use()
	if dice < o.Reads {
		return workloads.Perform(workloads.Op{F: Read, Key: k.Name})
	}
	value := int64(1)
	if g.workload.kind.object != linearizability.Counter {
		value = k.Next()
	}
	return workloads.Perform(workloads.Op{F: writes[write], Key: k.Name, Value: histories.Int(value)})
}

// Completed counts writes of unknown outcome.
func (g *generator) Completed(op histories.Operation) { g.keys.Completed(op, Read) }

// Final returns reads of the keys in use and of those retired last.
func (g *generator) Final() []workloads.Op { return g.keys.Final(Read) }
