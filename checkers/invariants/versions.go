package invariants

// place is where an event stands in the traces, for evidence.
type place struct {
	seq         uint64
	incarnation uint32
	node        uint16 // in Checker.nodes
	kind        Kind
}

// version is one entry that was seen at an index, and with it the whole log up to there:
// its hash stands for all that is before.
type version struct {
	term   uint64
	hash   Hash
	parent id // at the index before
	seen   place
}

// id names a version among those of its index.
type id int32

const (
	unknown id = -1
	empty   id = 0 // of index 0: the log without entries
)

// slot is what is known of an index, of all nodes.
type slot struct {
	first     version // if taken; the others, of which a correct run has few, are in others
	taken     bool
	disputed  bool // its digests differ
	committed id   // if committedAt says so
	digest    Hash // if digestAt says so

	committedAt place // kind Other: of no node
	digestAt    place
}

const pageSlots = 512

// versions are all entries that any node ever held, as a tree: logs that part have a common
// beginning. It keeps about 100 bytes for each index, as long as the checker lives: what
// an old leader committed is told by a trace that may be read last.
type versions struct {
	pages  map[uint64]*[pageSlots]slot
	others map[uint64][]version
	last   *[pageSlots]slot // the page looked at last
	number uint64           // its number
}

func newVersions() versions {
	return versions{pages: make(map[uint64]*[pageSlots]slot), others: make(map[uint64][]version)}
}

func (v *versions) slot(index uint64) *slot {
	number := index / pageSlots
	if v.last == nil || v.number != number {
		page := v.pages[number]
		if page == nil {
			page = new([pageSlots]slot)
			v.pages[number] = page
		}
		v.last, v.number = page, number
	}
	return &v.last[index%pageSlots]
}

func (v *versions) get(index uint64, which id) *version {
	if which == 0 {
		return &v.slot(index).first
	}
	return &v.others[index][which-1]
}

func (v *versions) find(index, term uint64, hash Hash) id {
	if index == 0 {
		return empty
	}
	s := v.slot(index)
	if s.taken && s.first.term == term && s.first.hash == hash {
		return 0
	}
	if len(v.others) > 0 {
		for i, o := range v.others[index] {
			if o.term == term && o.hash == hash {
				return id(i) + 1
			}
		}
	}
	return unknown
}

// ofTerm returns a version by its term: in a correct run there is one at most.
func (v *versions) ofTerm(index, term uint64) id {
	if index == 0 {
		return empty
	}
	if s := v.slot(index); s.taken && s.first.term == term {
		return 0
	}
	for i, o := range v.others[index] {
		if o.term == term {
			return id(i) + 1
		}
	}
	return unknown
}

// put notes a version. It returns another one of the same index and term, if there is one:
// in a correct run an index and a term name one log (Raft paper 5.3).
func (v *versions) put(index, term uint64, hash Hash, parent id, seen place) (which id, rival *version) {
	if which = v.find(index, term, hash); which != unknown {
		if known := v.get(index, which); index > 0 && known.parent == unknown {
			known.parent = parent
		}
		return which, nil
	}
	added := version{term: term, hash: hash, parent: parent, seen: seen}
	s := v.slot(index)
	if !s.taken {
		s.first, s.taken = added, true
		return 0, nil
	}
	if s.first.term == term {
		rival = &s.first
	}
	for i := range v.others[index] {
		if o := &v.others[index][i]; o.term == term {
			rival = o
		}
	}
	v.others[index] = append(v.others[index], added)
	return id(len(v.others[index])), rival
}

// ancestor returns the version at an index that a version further on contains.
func (v *versions) ancestor(index uint64, which id, at uint64) id {
	for ; index > at && which != unknown; index-- {
		which = v.get(index, which).parent
	}
	return which
}

// nodeLog is a node's log in memory: one version for each index from floor on.
type nodeLog struct {
	floor uint64 // what is up to here is compacted, or not known
	held  []id   // of floor, which may be unknown, and of every index after it
}

func newLog(floor uint64, which id) nodeLog {
	if floor == 0 {
		which = empty
	}
	return nodeLog{floor: floor, held: []id{which}}
}

// known reports whether it is known where the log ends.
func (l *nodeLog) known() bool { return len(l.held) > 0 }

// last is the index of the last entry of a known log.
func (l *nodeLog) last() uint64 { return l.floor + uint64(len(l.held)) - 1 }

func (l *nodeLog) at(index uint64) id {
	if !l.known() || index < l.floor || index > l.last() {
		return unknown
	}
	return l.held[index-l.floor]
}

func (l *nodeLog) push(which id) { l.held = append(l.held, which) }

// truncate discards what is from an index on, and returns it.
func (l *nodeLog) truncate(from uint64) (gone []id) {
	switch {
	case !l.known() || from <= l.floor:
		*l = newLog(from-1, unknown)
	case from <= l.last():
		gone = append(gone, l.held[from-l.floor:]...)
		l.held = l.held[:from-l.floor]
	}
	return gone
}

// compact forgets what is before index.
func (l *nodeLog) compact(index uint64) {
	if !l.known() || index <= l.floor || index > l.last() {
		return
	}
	dropped := index - l.floor
	rest := l.held[dropped:]
	if dropped > uint64(len(rest)) {
		rest = append(make([]id, 0, len(rest)), rest...) // lets go of the array
	}
	l.floor, l.held = index, rest
}

// common returns an index up to which two logs agree, the last one unless part of them is
// not known.
func (l *nodeLog) common(m *nodeLog) uint64 {
	if !l.known() || !m.known() {
		return 0
	}
	for index := min(l.last(), m.last()); index > max(l.floor, m.floor); index-- {
		if which := l.at(index); which != unknown && which == m.at(index) {
			return index
		}
	}
	return min(l.floor, m.floor)
}
