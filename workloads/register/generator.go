package register

import (
	"capsize/histories"
	"capsize/workloads"
	"capsize/workloads/generators"
	"capsize/workloads/rolling"
)

// NewGenerator returns the generator of a run.
func (w *Workload) NewGenerator(seed uint64, threads int) workloads.Generator {
	g := &generator{options: w.options, dice: rolling.NewDice(seed, threads), keys: rolling.New("k", w.options.limits())}
	return generators.Roam(w.options.Roam, roamAfter, g)
}

// roamAfter is how many refusals or silences in a row make a client go to another node.
const roamAfter = 3

// generator chooses operations. Which slot a thread uses, and for what kind of
// operation, comes from a random sequence of its own; values come from the key.
type generator struct {
	options Options
	dice    rolling.Dice
	keys    *rolling.Keys
}

// Next returns the thread's next operation; it never waits and never ends.
func (g *generator) Next(now workloads.Moment) workloads.Step {
	return workloads.Perform(g.op(now.Thread))
}

func (g *generator) op(thread int) workloads.Op {
	random, o := g.dice[thread], g.options
	// Both draws always happen, so that a thread's sequence does not depend on the others.
	slot, dice := random.IntN(o.Keys), random.IntN(o.Reads+o.Writes+o.CAS+o.Stale)
	k := g.keys.At(slot)
	k.Use()
	switch {
	case dice < o.Reads:
		return workloads.Op{F: Read, Key: k.Name}
	case dice < o.Reads+o.CAS && k.Seen > 0:
		return workloads.Op{F: CAS, Key: k.Name, Value: histories.Ints(k.Seen, k.Next())}
	case dice >= o.Reads+o.CAS+o.Writes:
		return workloads.Op{F: Read, Key: k.Name, Stale: true}
	default:
		return workloads.Op{F: Write, Key: k.Name, Value: histories.Int(k.Next())}
	}
}

// Completed learns what values keys hold, and how many outcomes are unknown.
func (g *generator) Completed(op histories.Operation) {
	k := g.keys.Named(op.Key)
	switch {
	case k == nil:
	case op.Type == histories.Info && op.F != Read:
		k.Crash()
	case op.Type != histories.OK || op.Stale:
	case op.F == CAS:
		if pair, ok := op.Input.Ints(); ok && len(pair) == 2 {
			k.Seen = pair[1]
		}
	case op.F == Write:
		if value, ok := op.Input.Int(); ok {
			k.Seen = value
		}
	default:
		if value, ok := op.Output.Int(); ok {
			k.Seen = value
		}
	}
}

// Final returns reads of the keys in use and of those retired last.
func (g *generator) Final() []workloads.Op { return g.keys.Final(Read) }
