package linearizability

import (
	"hash/maphash"

	"capsize/checkers/linearizability/registers"
)

// What a Live knows is looked up twice for each operation, in less time than its judge takes:
// in a table first, of which each place is for some names or numbers, and in a map only if that
// place was taken by another.

// knownKeys are the keys that were used lately. Which one to forget is told by a hand that goes
// round them and spares each that was used since it last came by (the clock algorithm of
// Corbató, 1968), so that a use costs no more than a mark.
type knownKeys struct {
	byName map[string]*liveKey
	recent [keysRecent]*liveKey
	ring   []*liveKey
	hand   int
	past   map[uint64]struct{} // hashes of the keys that were forgotten
	seed   maphash.Seed
}

const (
	keysMost   = 4096 // known at a time, and those with operations under way
	keysRecent = 1024
)

// liveKey is one key. Its judge is nil once it is not judged any more.
type liveKey struct {
	name  string
	judge judge
	open  int // operations
	used  bool
}

func newKnownKeys() knownKeys {
	return knownKeys{byName: make(map[string]*liveKey), past: make(map[uint64]struct{}), seed: maphash.MakeSeed()}
}

// use returns a key, or nil if it is not known.
func (k *knownKeys) use(name string) *liveKey {
	place := k.place(name)
	key := *place
	if key == nil || key.name != name {
		if key = k.byName[name]; key == nil {
			return nil
		}
		*place = key
	}
	key.used = true
	return key
}

// place is where a key is looked for first. Names mostly differ in their ends.
func (k *knownKeys) place(name string) **liveKey {
	hash := uint32(len(name))
	for i := max(0, len(name)-4); i < len(name); i++ {
		hash = hash*31 + uint32(name[i])
	}
	return &k.recent[hash%keysRecent]
}

// add makes a key known, and forgets others. It says whether the key was forgotten before.
func (k *knownKeys) add(name string) (key *liveKey, before bool) {
	_, before = k.past[maphash.String(k.seed, name)]
	for len(k.ring) >= keysMost && k.forget() {
	}
	key = &liveKey{name: name, used: true}
	k.byName[name], *k.place(name) = key, key
	k.ring = append(k.ring, key)
	return key, before
}

// forget forgets a key, unless all have operations under way.
func (k *knownKeys) forget() bool {
	for range 2 * len(k.ring) {
		k.hand = (k.hand + 1) % len(k.ring)
		key := k.ring[k.hand]
		if key.used || key.open > 0 {
			key.used = false
			continue
		}
		k.ring[k.hand] = k.ring[len(k.ring)-1]
		k.ring = k.ring[:len(k.ring)-1]
		if place := k.place(key.name); *place == key {
			*place = nil
		}
		delete(k.byName, key.name)
		k.past[maphash.String(k.seed, key.name)] = struct{}{}
		return true
	}
	return false
}

// underWay is an operation, known by its process.
type underWay struct {
	process int
	key     *liveKey         // nil: the place is free
	handle  registers.Handle // of a registerJudge
	pending *pending         // of a modelJudge
}

// processes are the operations under way.
type processes struct {
	recent [processesRecent]underWay
	others map[int]*underWay // those whose place was taken
}

const processesRecent = 1024

func (p *processes) begin(process int, key *liveKey) *underWay {
	op := &p.recent[process%processesRecent]
	if op.key != nil && op.process != process {
		op = new(underWay)
		p.others[process] = op
	}
	*op = underWay{process: process, key: key}
	return op
}

// find returns the operation of a process, or nil.
func (p *processes) find(process int) *underWay {
	if op := &p.recent[process%processesRecent]; op.key != nil && op.process == process {
		return op
	}
	return p.others[process]
}

// end forgets an operation that find returned.
func (p *processes) end(op *underWay) {
	if op == &p.recent[op.process%processesRecent] {
		*op = underWay{}
	} else {
		delete(p.others, op.process)
	}
}
