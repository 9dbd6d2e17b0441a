// Package register is the workload that linearizability is usually judged by: clients
// read, write and compare-and-swap several independent registers.
//
// Every written value is unique on its key: a small domain of values hides stale reads,
// since an old value may well be a new one too.
package register

import (
	"context"
	"fmt"
	"math/rand/v2"

	"capsize/histories"
	"capsize/workloads"
)

// The operations.
const (
	Read  = "read"  // returns the value; Nil where it was never written
	Write = "write" // takes the value
	CAS   = "cas"   // takes [expected, replacement]
)

// Options shape the workload.
type Options struct {
	Keys      int // keys in use at a time
	OpsPerKey int // operations on a key before a fresh one takes its place
	// InfosPerKey is the number of writes with unknown outcome after which a key is
	// replaced early: each doubles the orders that a checker must consider.
	InfosPerKey int
	ReadShare   float64 // of all operations, from 0 to 1
	CASShare    float64 // of all operations, from 0 to 1; the rest are writes
}

// withDefaults fills in what was not said.
func (o Options) withDefaults() Options {
	if o.Keys == 0 {
		o.Keys = 5
	}
	if o.OpsPerKey == 0 {
		o.OpsPerKey = 120
	}
	if o.InfosPerKey == 0 {
		o.InfosPerKey = 6
	}
	if o.ReadShare == 0 && o.CASShare == 0 {
		o.ReadShare, o.CASShare = 0.45, 0.20
	}
	return o
}

// Workload is the register workload.
type Workload struct{ options Options }

// New returns the workload; options left zero get a default.
func New(options Options) (*Workload, error) {
	o := options.withDefaults()
	switch {
	case o.Keys < 1:
		return nil, fmt.Errorf("register workload: %d keys: want at least 1", o.Keys)
	case o.OpsPerKey < 1:
		return nil, fmt.Errorf("register workload: %d operations a key: want at least 1", o.OpsPerKey)
	case o.ReadShare < 0 || o.CASShare < 0 || o.ReadShare+o.CASShare > 1:
		return nil, fmt.Errorf("register workload: %g reads and %g compare-and-swaps: want shares from 0 to 1 that add up to at most 1", o.ReadShare, o.CASShare)
	}
	return &Workload{o}, nil
}

// Name is "register".
func (w *Workload) Name() string { return "register" }

// Store is what the workload's clients talk to.
type Store interface {
	Get(ctx context.Context, key string) (histories.Value, error)
	Put(ctx context.Context, key string, value int64) error
	CompareAndSwap(ctx context.Context, key string, expected, replacement int64) error
}

// Perform carries out one operation.
func (w *Workload) Perform(ctx context.Context, client any, op workloads.Op) (histories.Value, error) {
	store, ok := client.(Store)
	if !ok {
		return histories.Nil, histories.Definite(fmt.Errorf("register workload: a client of type %T is no key-value store", client))
	}
	switch op.F {
	case Read:
		return store.Get(ctx, op.Key)
	case Write:
		value, _ := op.Value.Int()
		return op.Value, store.Put(ctx, op.Key, value)
	case CAS:
		pair, _ := op.Value.Ints()
		return op.Value, store.CompareAndSwap(ctx, op.Key, pair[0], pair[1])
	default:
		return histories.Nil, histories.Definite(fmt.Errorf("register workload: operation %q is unknown", op.F))
	}
}

// NewGenerator returns the generator of a run.
func (w *Workload) NewGenerator(seed uint64, threads int) workloads.Generator {
	g := &generator{options: w.options}
	for thread := range threads {
		g.random = append(g.random, rand.New(rand.NewPCG(seed, uint64(thread))))
	}
	for range w.options.Keys {
		g.active = append(g.active, g.fresh())
	}
	g.byName = make(map[string]*key)
	for _, k := range g.active {
		g.byName[k.name] = k
	}
	return g
}

// generator chooses operations: what each thread does and on which slot comes from a
// random sequence of its own, values from a count for each key.
type generator struct {
	options Options
	random  []*rand.Rand // by thread
	active  []*key
	retired []*key // the newest ones
	byName  map[string]*key
	made    int
}

type key struct {
	name  string
	ops   int
	infos int
	last  int64 // the value written last, by anyone; 0: none
	seen  int64 // the value that a completed operation showed last; 0: none
}

func (g *generator) fresh() *key {
	g.made++
	return &key{name: fmt.Sprintf("k%d", g.made)}
}

// Next returns the thread's next operation.
func (g *generator) Next(thread, _ int) workloads.Op {
	random := g.random[thread]
	slot := random.IntN(len(g.active))
	dice := random.Float64()
	k := g.active[slot]
	if k.ops >= g.options.OpsPerKey || k.infos >= g.options.InfosPerKey {
		k = g.replace(slot)
	}
	k.ops++
	switch {
	case dice < g.options.ReadShare:
		return workloads.Op{F: Read, Key: k.name}
	case dice < g.options.ReadShare+g.options.CASShare && k.seen > 0:
		k.last++
		return workloads.Op{F: CAS, Key: k.name, Value: histories.Ints(k.seen, k.last)}
	default:
		k.last++
		return workloads.Op{F: Write, Key: k.name, Value: histories.Int(k.last)}
	}
}

func (g *generator) replace(slot int) *key {
	old := g.active[slot]
	g.retired = append(g.retired, old)
	if len(g.retired) > g.options.Keys {
		delete(g.byName, g.retired[0].name)
		g.retired = g.retired[1:]
	}
	k := g.fresh()
	g.active[slot] = k
	g.byName[k.name] = k
	return k
}

// Completed learns what values keys hold, and how many outcomes are unknown.
func (g *generator) Completed(op histories.Operation) {
	k := g.byName[op.Key]
	if k == nil {
		return
	}
	switch {
	case op.Type == histories.Info && op.F != Read:
		k.infos++
	case op.Type != histories.OK:
	case op.F == CAS:
		pair, _ := op.Input.Ints()
		k.seen = pair[1]
	default:
		if value, ok := op.Output.Int(); ok {
			k.seen = value
		}
	}
}

// finalRounds is how often each key is read at the end: twice, so that a node which
// forgets what it just said is found out.
const finalRounds = 2

// Final returns reads of the keys in use and of those that were in use last.
func (g *generator) Final() []workloads.Op {
	var ops []workloads.Op
	for range finalRounds {
		for _, keys := range [][]*key{g.retired, g.active} {
			for _, k := range keys {
				ops = append(ops, workloads.Op{F: Read, Key: k.name, Final: true})
			}
		}
	}
	return ops
}
