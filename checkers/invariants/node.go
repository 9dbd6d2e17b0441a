package invariants

// node is what is known of one node at the present line of its trace.
type node struct {
	name             string
	number           uint16
	incarnation, seq uint64
	blind            string // why what the node holds is not known; "" if it is
	tells            bool   // it writes what it knows of its followers

	term       uint64 // durable
	termPlace  place
	memoryTerm uint64 // the highest it has acted in, in this incarnation

	log     nodeLog
	walked  uint64 // committed entries up to here were compared with the other nodes'
	durable uint64 // the present log is durable up to here, at most
	upTo    uint64 // the end of the log on the disk
	excused uint64 // the last index that was truncated in this incarnation, even if acknowledged

	// required is what a crash must not take back: entries that the node has said to hold, as
	// far as they were not replaced since.
	required mark
	cuts     []cut
	// low is the least last position that the log may have had when a vote that is not
	// durable yet was decided on.
	low Position

	commit, applied uint64
	snapshot        uint64 // index of the newest one
	conf            *Conf  // in force; nil: not known
	confs           []confAt
	confEntries     []mark // changes of membership in the log that may matter still

	reign   *reign // as the leader; nil if it leads not
	pending claim  // a commit whose configuration the next line may tell

	reads map[uint64]openRead
}

// confAt is the configuration in force from an index on.
type confAt struct {
	index uint64
	conf  *Conf
}

func (n *node) at(e *Event) place {
	return place{seq: e.Seq, incarnation: uint32(e.Incarnation), node: n.number, kind: e.Kind}
}

// forget gives up all that a missing line may have changed, until the next boot.
func (n *node) forget(why string) {
	*n = node{
		name: n.name, number: n.number, incarnation: n.incarnation, seq: n.seq, blind: why, tells: n.tells,
		term: n.term, termPlace: n.termPlace,
	}
}

// lastPosition is where the log ends, if that is known.
func (c *Checker) lastPosition(n *node) (p Position, known bool) {
	if !n.log.known() {
		return Position{}, false
	}
	last := n.log.last()
	which := n.log.at(last)
	if which == unknown {
		return Position{}, false
	}
	return Position{Term: c.versions.get(last, which).term, Index: last}, true
}
