// Package register is the workload that linearizability is usually judged by: clients
// read, write and compare-and-swap several independent registers.
//
// Every value written to a key is another one. Where values repeat, a stale read often
// goes unseen, since an old value may well be a new one too; and with unique values the
// checker may leave out what nobody saw.
package register

import (
	"context"
	"fmt"

	"capsize/checkers"
	"capsize/checkers/linearizability"
	"capsize/histories"
	"capsize/workloads"
	"capsize/workloads/rolling"
)

// The operations.
const (
	Read  = "read"  // returns the value; Nil where it was never written
	Write = "write" // takes the value
	CAS   = "cas"   // takes [expected, replacement]
)

// Names of the workload, which say what its options are for.
const (
	Usual      = "register"
	Contention = "contention"       // all clients use one register, mostly by compare-and-swap
	StaleReads = "stale-reads"      // some reads may return a state of the past, and say so
	Members    = "members-register" // clients that a node refuses go to the next one
)

// Options shape the workload. What is zero gets the default.
type Options struct {
	Name string // one of the names above; default Usual
	Keys int    // in use at a time; default 5
	// OpsPerKey is the number of operations on a key after which a fresh key takes its
	// place; default 120. Deciding a key's history costs more than in proportion to its
	// length, and is exponential in how many operations are under way at once.
	OpsPerKey int
	// UnknownPerKey is the number of writes and compare-and-swaps of unknown outcome after
	// which a key is replaced early; default 4. Each may double the orders to consider.
	UnknownPerKey int
	// Reads, Writes and CAS are the shares of the operations, relative to each other;
	// default 45, 35 and 20. A compare-and-swap on a key whose value nobody knows yet
	// becomes a write.
	Reads, Writes, CAS int
	// Stale is the share of reads that may be stale; default 0.
	Stale int
	// Roam names the nodes among which a client that is refused goes round; nil: each stays
	// with its own.
	Roam []string
}

// OptionsOf returns what a name stands for. The numbers are those of a plan, and count where the
// name does not ask for others.
func OptionsOf(name string, keys, opsPerKey int, nodes []string) Options {
	o := Options{Name: name, Keys: keys, OpsPerKey: opsPerKey}
	switch name {
	case Contention:
		// Values are unique, so that the length of the history does not matter.
		return Options{Name: name, Keys: 1, OpsPerKey: 50_000, UnknownPerKey: 1000, Reads: 30, Writes: 20, CAS: 50}
	case StaleReads:
		o.Reads, o.Stale, o.Writes, o.CAS = 15, 40, 30, 15
	case Members:
		o.Roam = nodes
	}
	return o
}

func (o Options) withDefaults() Options {
	l := o.limits().Or(rolling.Limits{Keys: 5, Ops: 120, Unknown: 4})
	o.Keys, o.OpsPerKey, o.UnknownPerKey = l.Keys, l.Ops, l.Unknown
	if o.Name == "" {
		o.Name = Usual
	}
	if o.Reads == 0 && o.Writes == 0 && o.CAS == 0 {
		o.Reads, o.Writes, o.CAS = 45, 35, 20
	}
	return o
}

func (o Options) limits() rolling.Limits {
	return rolling.Limits{Keys: o.Keys, Ops: o.OpsPerKey, Unknown: o.UnknownPerKey}
}

func (o Options) validate() error {
	if err := o.limits().Validate(o.Name); err != nil {
		return err
	}
	if o.Reads < 0 || o.Writes < 0 || o.CAS < 0 || o.Stale < 0 {
		return fmt.Errorf("register workload: shares of %d reads, %d writes, %d compare-and-swaps: want none below 0", o.Reads, o.Writes, o.CAS)
	}
	if o.Reads == 0 || o.Writes+o.CAS == 0 {
		return fmt.Errorf("register workload: shares of %d reads, %d writes, %d compare-and-swaps: without both reads and writes nothing can be found out", o.Reads, o.Writes, o.CAS)
	}
	return nil
}

// Workload is the register workload.
type Workload struct{ options Options }

var _ workloads.Workload = (*Workload)(nil)

// New returns the workload, or an error that names the option that cannot be.
func New(options Options) (*Workload, error) {
	options = options.withDefaults()
	if err := options.validate(); err != nil {
		return nil, err
	}
	return &Workload{options}, nil
}

// Name is that of the options.
func (w *Workload) Name() string { return w.options.Name }

// Store is what the workload's clients must be: key-value stores with integer values. An
// error says what became of the operation as [histories.Outcome] understands it.
type Store interface {
	Get(ctx context.Context, key string) (histories.Reply, error)
	Put(ctx context.Context, key string, value int64) (histories.Reply, error)
	CompareAndSwap(ctx context.Context, key string, expected, replacement int64) (histories.Reply, error)
}

// StaleStore is what clients must be beside a [Store] for reads that may be stale.
type StaleStore interface {
	// GetStale reads a key as a node has it, which may be a state of the past, but never one
	// that was not committed.
	GetStale(ctx context.Context, key string) (histories.Reply, error)
}

// Fits says that a client must be a [Store], and where reads may be stale a [StaleStore].
func (w *Workload) Fits(client any) error {
	if _, ok := client.(Store); !ok {
		return fmt.Errorf("the register workload needs get, put and compare-and-swap, which a %T does not have", client)
	}
	if _, ok := client.(StaleStore); !ok && w.options.Stale > 0 {
		return fmt.Errorf("the %s workload needs reads that may be stale, which a %T does not have", w.options.Name, client)
	}
	return nil
}

// Perform carries out one operation, once.
func (w *Workload) Perform(ctx context.Context, client any, op workloads.Op) (histories.Reply, error) {
	store, ok := client.(Store)
	if !ok {
		return histories.Reply{}, histories.Definite(w.Fits(client))
	}
	switch op.F {
	case Read:
		if stale, ok := client.(StaleStore); ok && op.Stale {
			return stale.GetStale(ctx, op.Key)
		}
		return store.Get(ctx, op.Key)
	case Write:
		if value, ok := op.Value.Int(); ok {
			return store.Put(ctx, op.Key, value)
		}
	case CAS:
		if pair, ok := op.Value.Ints(); ok && len(pair) == 2 {
			return store.CompareAndSwap(ctx, op.Key, pair[0], pair[1])
		}
	}
	return histories.Reply{}, histories.Definite(fmt.Errorf("%s %s %s: the register workload knows no such operation", op.F, op.Key, op.Value))
}

// Checkers are linearizability of each key, with the shortcuts that unique values allow, and what
// each session saw by the revisions.
func (w *Workload) Checkers(limits checkers.Limits) []checkers.Checker {
	return []checkers.Checker{
		&linearizability.Checker{Model: w.Model(), Object: linearizability.Register, Limits: limits},
		&checkers.Sessions{},
	}
}
