// Package transact is two workloads of transactions, each a few reads and writes of several
// keys: over lists that are appended to, and over registers. Together they must look as if they
// had happened one after the other, in an order that real time allows.
package transact

import (
	"context"
	"fmt"

	"capsize/checkers"
	"capsize/checkers/transactions"
	"capsize/histories"
	"capsize/workloads"
	"capsize/workloads/rolling"
)

// The micro-operations of a transaction.
const (
	Read   = "r"      // of a list or a register
	Append = "append" // to a list
	Write  = "w"      // to a register
)

// lengthMost is how many micro-operations a transaction has at most.
const lengthMost = 4

// Workload is one of the two.
type Workload struct {
	name   string
	write  string
	limits rolling.Limits
	fits   func(client any) bool
	do     func(ctx context.Context, client any, micros []histories.Micro) (histories.Reply, error)
}

var _ workloads.Workload = (*Workload)(nil)

// Lists is what clients must be for [NewLists].
type Lists interface {
	// TransactLists carries out reads and appends at one moment, in order, and returns them with
	// what the reads found: lists of integers.
	TransactLists(ctx context.Context, micros []histories.Micro) (histories.Reply, error)
}

// Registers is what clients must be for [NewRegisters].
type Registers interface {
	// TransactRegisters carries out reads and writes at one moment, in order, and returns them
	// with what the reads found: integers, or Nil.
	TransactRegisters(ctx context.Context, micros []histories.Micro) (histories.Reply, error)
}

// NewLists returns the workload "list-transactions", by default of 5 keys, 120 micro-operations on each
// and 20 writes of unknown outcome.
func NewLists(limits rolling.Limits) (*Workload, error) {
	return newWorkload(limits, &Workload{
		name: "list-transactions", write: Append,
		fits: func(client any) bool { _, ok := client.(Lists); return ok },
		do: func(ctx context.Context, client any, micros []histories.Micro) (histories.Reply, error) {
			return client.(Lists).TransactLists(ctx, micros)
		},
	})
}

// NewRegisters returns the workload "register-transactions", with the same defaults.
func NewRegisters(limits rolling.Limits) (*Workload, error) {
	return newWorkload(limits, &Workload{
		name: "register-transactions", write: Write,
		fits: func(client any) bool { _, ok := client.(Registers); return ok },
		do: func(ctx context.Context, client any, micros []histories.Micro) (histories.Reply, error) {
			return client.(Registers).TransactRegisters(ctx, micros)
		},
	})
}

func newWorkload(limits rolling.Limits, w *Workload) (*Workload, error) {
	w.limits = limits.Or(rolling.Limits{Keys: 5, Ops: 120, Unknown: 20})
	return w, w.limits.Validate(w.name)
}

// Name is "list-transactions" or "register-transactions".
func (w *Workload) Name() string { return w.name }

// Fits says that a client must be able to do transactions.
func (w *Workload) Fits(client any) error {
	if !w.fits(client) {
		return fmt.Errorf("the %s workload needs transactions of reads and writes of several keys, which a %T does not have", w.name, client)
	}
	return nil
}

// Perform carries out one transaction, once.
func (w *Workload) Perform(ctx context.Context, client any, op workloads.Op) (histories.Reply, error) {
	if err := w.Fits(client); err != nil {
		return histories.Reply{}, histories.Definite(err)
	}
	micros, ok := op.Value.Micros()
	for _, m := range micros {
		ok = ok && (m.F == Read || m.F == w.write)
	}
	if op.F != checkers.Txn || !ok {
		return histories.Reply{}, histories.Definite(fmt.Errorf("%s %s: the %s workload knows no such operation", op.F, op.Value, w.name))
	}
	return w.do(ctx, client, micros)
}

// Checkers are strict serializability.
func (w *Workload) Checkers(limits checkers.Limits) []checkers.Checker {
	return []checkers.Checker{&checkers.Transactions{Model: transactions.StrictSerializable, Keys: transactions.Linearizable, Limits: limits}}
}

// NewGenerator returns the generator of a run: as many reads as writes.
func (w *Workload) NewGenerator(seed uint64, threads int) workloads.Generator {
	return &generator{workload: w, dice: rolling.NewDice(seed, threads), keys: rolling.New(w.name+"-", w.limits)}
}

type generator struct {
	workload *Workload
	dice     rolling.Dice
	keys     *rolling.Keys
}

// Next returns the thread's next transaction; it never waits and never ends.
func (g *generator) Next(now workloads.Moment) workloads.Step {
	random := g.dice[now.Thread]
	var micros []histories.Micro
	for range 1 + random.IntN(lengthMost) {
		slot, reads := random.IntN(g.keys.Slots()), random.IntN(2) == 0
		k := g.keys.At(slot)
		k.Use()
		m := histories.Micro{F: Read, Key: k.Name}
		if !reads {
			m.F, m.Value = g.workload.write, histories.Int(k.Next())
		}
		micros = append(micros, m)
	}
	return workloads.Perform(workloads.Op{F: checkers.Txn, Value: histories.Micros(micros...)})
}

// Completed counts writes of unknown outcome.
func (g *generator) Completed(op histories.Operation) {
	if op.Type != histories.Info {
		return
	}
	micros, _ := op.Input.Micros()
	for _, m := range micros {
		if k := g.keys.Named(m.Key); k != nil && m.F != Read {
			k.Crash()
		}
	}
}

// Final returns transactions that read the keys in use and those that were retired last.
func (g *generator) Final() []workloads.Op {
	ops := g.keys.Final(Read)
	for i, op := range ops {
		ops[i] = workloads.Op{F: checkers.Txn, Value: histories.Micros(histories.Micro{F: Read, Key: op.Key}), Final: true}
	}
	return ops
}
