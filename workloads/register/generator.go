package register

import (
	"math/rand/v2"
	"strconv"

	"capsize/histories"
	"capsize/workloads"
)

// NewGenerator returns the generator of a run.
func (w *Workload) NewGenerator(seed uint64, threads int) workloads.Generator {
	g := &generator{options: w.options, byName: make(map[string]*key)}
	for thread := range threads {
		g.random = append(g.random, rand.New(rand.NewPCG(seed, uint64(thread))))
	}
	for range w.options.Keys {
		g.active = append(g.active, g.fresh())
	}
	return g
}

// generator chooses operations. Which slot a thread uses, and for what kind of
// operation, comes from a random sequence of its own; values come from the key.
type generator struct {
	options   Options
	random    []*rand.Rand    // by thread
	active    []*key          // by slot
	worn      []*key          // retired after enough operations: the newest ones
	unsettled []*key          // retired with operations of unknown outcome: the newest ones
	byName    map[string]*key // all of these
	made      int
}

// key is one register.
type key struct {
	name    string
	ops     int   // that were invoked
	unknown int   // writes and compare-and-swaps of unknown outcome
	last    int64 // the value generated last; 0: none
	seen    int64 // the value that a completed operation showed last; 0: none
}

func (g *generator) fresh() *key {
	g.made++
	k := &key{name: "k" + strconv.Itoa(g.made)}
	g.byName[k.name] = k
	return k
}

// Next returns the thread's next operation; it never waits and never ends.
func (g *generator) Next(now workloads.Moment) workloads.Step {
	return workloads.Perform(g.op(now.Thread))
}

func (g *generator) op(thread int) workloads.Op {
	random, o := g.random[thread], g.options
	// Both draws always happen, so that a thread's sequence does not depend on the others.
	slot, dice := random.IntN(o.Keys), random.IntN(o.Reads+o.Writes+o.CAS)
	k := g.active[slot]
	if k.ops >= o.OpsPerKey || k.unknown >= o.UnknownPerKey {
		k = g.replace(slot)
	}
	k.ops++
	if dice < o.Reads {
		return workloads.Op{F: Read, Key: k.name}
	}
	k.last++
	if dice < o.Reads+o.CAS && k.seen > 0 {
		return workloads.Op{F: CAS, Key: k.name, Value: histories.Ints(k.seen, k.last)}
	}
	return workloads.Op{F: Write, Key: k.name, Value: histories.Int(k.last)}
}

// replace retires the key of a slot and puts a fresh one there.
func (g *generator) replace(slot int) *key {
	old := g.active[slot]
	list := &g.worn
	if old.unknown > 0 {
		list = &g.unsettled
	}
	*list = append(*list, old)
	if len(*list) > 2*g.options.Keys {
		delete(g.byName, (*list)[0].name)
		*list = (*list)[1:]
	}
	g.active[slot] = g.fresh()
	return g.active[slot]
}

// Completed learns what values keys hold, and how many outcomes are unknown.
func (g *generator) Completed(op histories.Operation) {
	k := g.byName[op.Key]
	switch {
	case k == nil:
	case op.Type == histories.Info && op.F != Read:
		k.unknown++
	case op.Type != histories.OK:
	case op.F == CAS:
		if pair, ok := op.Input.Ints(); ok && len(pair) == 2 {
			k.seen = pair[1]
		}
	case op.F == Write:
		if value, ok := op.Input.Int(); ok {
			k.seen = value
		}
	default:
		if value, ok := op.Output.Int(); ok {
			k.seen = value
		}
	}
}

// finalRounds is how often each key is read at the end: twice, so that a node that takes
// back what it just said is found out.
const finalRounds = 2

// Final returns reads of the keys in use and of those retired last: of each sort, worn
// and with unknown outcomes, twice as many as are in use. The latter are where a fault
// struck; what it lost or brings back may show only now.
func (g *generator) Final() []workloads.Op {
	var ops []workloads.Op
	for range finalRounds {
		for _, keys := range [][]*key{g.unsettled, g.worn, g.active} {
			for _, k := range keys {
				ops = append(ops, workloads.Op{F: Read, Key: k.name, Final: true})
			}
		}
	}
	return ops
}
