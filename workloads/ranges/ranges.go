// Package ranges is two workloads on spaces, each a few items in order, of which several are
// read at one moment: "ranges" writes, deletes and reads ranges of them; "watch" writes and
// deletes, while other clients are told of the changes as they happen.
package ranges

import (
	"context"
	"fmt"

	"capsize/checkers"
	"capsize/checkers/linearizability"
	"capsize/histories"
	"capsize/workloads"
	"capsize/workloads/generators"
	"capsize/workloads/rolling"
)

// The operations. The key is a space.
const (
	Put         = "put"          // takes [item, value]
	Delete      = "delete"       // takes the item
	DeleteRange = "delete-range" // takes [from, to): items from from up to, not including, to
	Range       = "range"        // takes [from, to); returns an entry for each item there, in order
	Watch       = "watch"        // takes a revision; returns the changes after it, and up to which revision
)

// Spaces is what clients must be for [New]. Items are from 0 to Items-1, and values are integers.
type Spaces interface {
	PutItem(ctx context.Context, space string, item, value int64) (histories.Reply, error)
	DeleteItem(ctx context.Context, space string, item int64) (histories.Reply, error)
	DeleteItems(ctx context.Context, space string, from, to int64) (histories.Reply, error)
	// Items returns a [histories.Micro] for each item that is there, in order: its key is the
	// item as a decimal number.
	Items(ctx context.Context, space string, from, to int64) (histories.Reply, error)
}

// Watchers is what clients must be for [NewWatch] beside [Spaces]. Puts and deletes must return
// their revisions.
type Watchers interface {
	// Watch waits until the space has changed after a revision, for as long as ctx allows, and
	// returns all changes up to the revision of the reply, in order; none if there were none. Each
	// is a [histories.Micro] with F "put" or "delete", the item as its key, the value and
	// the revision. A [histories.Refusal] says that older changes are forgotten, and since
	// which revision they are known.
	Watch(ctx context.Context, space string, after int64) (histories.Reply, error)
}

// Items is how many items a space can have.
const Items = 10

// Workload is one of the two.
type Workload struct {
	limits  rolling.Limits
	watched bool
}

var _ workloads.Workload = (*Workload)(nil)

// New returns the workload "ranges", by default of 5 spaces, 100 operations on each and 4 changes of
// unknown outcome.
func New(limits rolling.Limits) (*Workload, error) {
	return newWorkload(false, limits.Or(rolling.Limits{Keys: 5, Ops: 100, Unknown: 4}))
}

// NewWatch returns the workload "watch", by default of 2 spaces, 1000 operations and 100 changes
// of unknown outcome.
func NewWatch(limits rolling.Limits) (*Workload, error) {
	return newWorkload(true, limits.Or(rolling.Limits{Keys: 2, Ops: 1000, Unknown: 100}))
}

func newWorkload(watched bool, limits rolling.Limits) (*Workload, error) {
	w := &Workload{limits: limits, watched: watched}
	return w, limits.Validate(w.Name())
}

// Name is "ranges" or "watch".
func (w *Workload) Name() string {
	if w.watched {
		return "watch"
	}
	return "ranges"
}

// Fits says that a client must be [Spaces], and for "watch" [Watchers].
func (w *Workload) Fits(client any) error {
	if _, ok := client.(Spaces); !ok {
		return fmt.Errorf("the %s workload needs ordered keys and reads of ranges, which a %T does not have", w.Name(), client)
	}
	if _, ok := client.(Watchers); !ok && w.watched {
		return fmt.Errorf("the watch workload needs a watch, which a %T does not have", client)
	}
	return nil
}

// Perform carries out one operation, once.
func (w *Workload) Perform(ctx context.Context, client any, op workloads.Op) (histories.Reply, error) {
	if err := w.Fits(client); err != nil {
		return histories.Reply{}, histories.Definite(err)
	}
	spaces := client.(Spaces)
	one, single := op.Value.Int()
	two, pair := op.Value.Ints()
	pair = pair && len(two) == 2
	switch {
	case op.F == Put && pair:
		return spaces.PutItem(ctx, op.Key, two[0], two[1])
	case op.F == Delete && single:
		return spaces.DeleteItem(ctx, op.Key, one)
	case op.F == DeleteRange && pair:
		return spaces.DeleteItems(ctx, op.Key, two[0], two[1])
	case op.F == Range && pair:
		return spaces.Items(ctx, op.Key, two[0], two[1])
	case op.F == Watch && single && w.watched:
		return client.(Watchers).Watch(ctx, op.Key, one)
	}
	return histories.Reply{}, histories.Definite(fmt.Errorf("%s %s %s: the %s workload knows no such operation", op.F, op.Key, op.Value, w.Name()))
}

// Checkers are linearizability of each space for "ranges", and what was told for "watch".
func (w *Workload) Checkers(limits checkers.Limits) []checkers.Checker {
	if w.watched {
		return []checkers.Checker{&watchChecker{}}
	}
	reads := func(op histories.Operation) bool { return op.F == Range }
	return []checkers.Checker{&linearizability.Checker{Model: Model(), Reads: reads, Limits: limits}}
}

// NewGenerator returns the generator of a run.
func (w *Workload) NewGenerator(seed uint64, threads int) workloads.Generator {
	spaces := &generator{workload: w, dice: rolling.NewDice(seed, threads), keys: rolling.New(w.Name()+"-", w.limits)}
	if !w.watched {
		return spaces
	}
	watchers := (threads + 1) / 2
	return generators.Reserve(
		generators.Reserved{Threads: watchers, Of: &watcher{spaces: spaces, at: make(map[int]*stand), doing: make(map[int]*stand)}},
		generators.Reserved{Of: spaces},
	)
}

// generator chooses changes and ranges.
type generator struct {
	workload *Workload
	dice     rolling.Dice
	keys     *rolling.Keys
}

// Next returns the thread's next operation; it never waits and never ends.
func (g *generator) Next(now workloads.Moment) workloads.Step {
	random := g.dice[now.Thread]
	slot, dice, item, other := random.IntN(g.keys.Slots()), random.IntN(100), random.Int64N(Items), random.Int64N(Items)
	k := g.keys.At(slot)
	k.Use()
	from, to := min(item, other), max(item, other)+1
	op := workloads.Op{Key: k.Name}
	switch {
	case dice < 45:
		op.F, op.Value = Put, histories.Ints(item, k.Next())
	case dice < 55:
		op.F, op.Value = Delete, histories.Int(item)
	case dice < 58:
		op.F, op.Value = DeleteRange, histories.Ints(from, to)
	default:
		op.F, op.Value = Range, histories.Ints(from, to)
	}
	return workloads.Perform(op)
}

// Completed counts changes of unknown outcome.
func (g *generator) Completed(op histories.Operation) { g.keys.Completed(op, Range) }

// Final returns reads of the whole of each space that is in use or was retired last.
func (g *generator) Final() []workloads.Op {
	ops := g.keys.Final(Range)
	for i := range ops {
		ops[i].Value = histories.Ints(0, Items)
	}
	return ops
}

// watcher lets its threads watch. Each stays with a space and goes on where it was told to,
// until the space has been out of use for a while.
type watcher struct {
	spaces *generator
	at     map[int]*stand // by thread
	doing  map[int]*stand // by process
}

// stand is how far a thread has watched a space.
type stand struct {
	space    string
	revision int64
	idle     int // watches in a row that told nothing
}

// A thread turns to another space after so many watches without a change.
const idleMost = 2

func (w *watcher) Next(now workloads.Moment) workloads.Step {
	s := w.at[now.Thread]
	if s == nil || s.idle >= idleMost || w.spaces.keys.Named(s.space) == nil {
		slot := w.spaces.dice[now.Thread].IntN(w.spaces.keys.Slots())
		s = &stand{space: w.spaces.keys.At(slot).Name}
		w.at[now.Thread] = s
	}
	w.doing[now.Process] = s
	return workloads.Perform(workloads.Op{F: Watch, Key: s.space, Value: histories.Int(s.revision)})
}

func (w *watcher) Completed(op histories.Operation) {
	s := w.doing[op.Process]
	delete(w.doing, op.Process)
	if s == nil {
		return
	}
	switch since, said := op.Output.Int(); {
	case op.Type == histories.OK:
		s.revision = op.Revision
		if told, _ := op.Output.Micros(); len(told) > 0 {
			s.idle = 0
		} else {
			s.idle++
		}
	case op.Refused && said:
		s.revision = since
	}
}

// Final returns nothing: what is there at the end is read by the writers.
func (w *watcher) Final() []workloads.Op { return nil }
