// Package rolling keeps a number of keys in use and puts a fresh one in the place of each
// after enough operations, as workloads do whose checks cost more than in proportion to the
// length of a key's history. It remembers which keys to read at the end.
package rolling

import (
	"fmt"
	"math/rand/v2"
	"strconv"

	"capsize/histories"
	"capsize/workloads"
)

// Limits say how many keys are in use, and for how long. What is zero gets a workload's default.
type Limits struct {
	Keys    int // in use at a time
	Ops     int // on a key, after which it is replaced
	Unknown int // changes of unknown outcome on a key, after which it is replaced early
}

// Or puts defaults in the place of zeros.
func (l Limits) Or(defaults Limits) Limits {
	for _, pair := range []struct{ mine, usual *int }{{&l.Keys, &defaults.Keys}, {&l.Ops, &defaults.Ops}, {&l.Unknown, &defaults.Unknown}} {
		if *pair.mine == 0 {
			*pair.mine = *pair.usual
		}
	}
	return l
}

// Validate names the limit that cannot be, for the workload of a name.
func (l Limits) Validate(workload string) error {
	for _, count := range []struct {
		name  string
		value int
	}{{"keys", l.Keys}, {"operations per key", l.Ops}, {"unknown outcomes per key", l.Unknown}} {
		if count.value < 1 {
			return fmt.Errorf("%s workload: %d %s: want at least 1", workload, count.value, count.name)
		}
	}
	return nil
}

// Key is one key.
type Key struct {
	Name    string
	Last    int64 // the value generated last; 0: none
	Seen    int64 // what a workload noted last; 0: nothing
	ops     int   // that were invoked
	unknown int   // changes of unknown outcome
}

// Use counts an operation that is about to be invoked.
func (k *Key) Use() { k.ops++ }

// Crash counts a change of unknown outcome.
func (k *Key) Crash() { k.unknown++ }

// Next returns a value that was not generated for the key before.
func (k *Key) Next() int64 {
	k.Last++
	return k.Last
}

// Keys are the keys of a workload. They are not safe for concurrent use.
type Keys struct {
	limits    Limits
	prefix    string
	active    []*Key          // by slot
	worn      []*Key          // retired after enough operations: the newest ones
	unsettled []*Key          // retired with changes of unknown outcome: the newest ones
	byName    map[string]*Key // all of these
	made      int
}

// New makes keys whose names begin with prefix. The limits must be valid.
func New(prefix string, limits Limits) *Keys {
	k := &Keys{limits: limits, prefix: prefix, byName: make(map[string]*Key)}
	for range limits.Keys {
		k.active = append(k.active, k.fresh())
	}
	return k
}

func (k *Keys) fresh() *Key {
	k.made++
	key := &Key{Name: k.prefix + strconv.Itoa(k.made)}
	k.byName[key.Name] = key
	return key
}

// Slots is the number of keys in use at a time.
func (k *Keys) Slots() int { return k.limits.Keys }

// At returns the key of a slot from 0, a fresh one if the last one there is worn out.
func (k *Keys) At(slot int) *Key {
	if key := k.active[slot]; key.ops < k.limits.Ops && key.unknown < k.limits.Unknown {
		return key
	}
	old := k.active[slot]
	list := &k.worn
	if old.unknown > 0 {
		list = &k.unsettled
	}
	*list = append(*list, old)
	if len(*list) > 2*k.limits.Keys {
		delete(k.byName, (*list)[0].Name)
		*list = (*list)[1:]
	}
	k.active[slot] = k.fresh()
	return k.active[slot]
}

// Completed notes how an operation on a key ended: what is no read and of unknown outcome counts.
func (k *Keys) Completed(op histories.Operation, read string) {
	if key := k.byName[op.Key]; key != nil && op.Type == histories.Info && op.F != read {
		key.Crash()
	}
}

// Named returns the key of a name, or nil where it is retired and forgotten.
func (k *Keys) Named(name string) *Key { return k.byName[name] }

// finalRounds is how often each key is read at the end: twice, so that a node that takes
// back what it just said is found out.
const finalRounds = 2

// Final returns reads of the keys in use and of those retired last: of each sort, worn
// and with unknown outcomes, twice as many as are in use. The latter are where a fault
// struck; what it lost or brings back may show only now.
func (k *Keys) Final(read string) []workloads.Op {
	var ops []workloads.Op
	for range finalRounds {
		for _, keys := range [][]*Key{k.unsettled, k.worn, k.active} {
			for _, key := range keys {
				ops = append(ops, workloads.Op{F: read, Key: key.Name, Final: true})
			}
		}
	}
	return ops
}

// Dice are a sequence of random numbers for each thread, so that what a thread does does not
// depend on how often the others are asked.
type Dice []*rand.Rand

// NewDice makes the sequences of a run.
func NewDice(seed uint64, threads int) Dice {
	var d Dice
	for thread := range threads {
		d = append(d, rand.New(rand.NewPCG(seed, uint64(thread))))
	}
	return d
}

// Known is the number of keys that are remembered.
func (k *Keys) Known() int { return len(k.byName) }
