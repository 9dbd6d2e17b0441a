// Package trace records what a node did, one line of JSON per protocol event, so that the
// invariants of Raft can be checked afterwards.
//
// An [Event] is data; [Event.AppendJSON] writes it; a [Writer] appends lines to a file.
// The lines that explain a message are handed to the kernel before the message leaves the
// node: a process that is killed leaves no act unexplained. The file is not synced.
//
// Every line has
//
//	seq   from 1 in each incarnation, without gaps
//	inc   incarnation: 1 at the first start of the node, one more at each start
//	time  of the write, Unix nanoseconds
//	node  the node's name
//	ev    the event, one of the kinds below
//
// and the fields of its kind (Go comments on [Kind] name them). Nodes are written by
// name; a node that is none is "", and one whose name is not known #ID. A configuration is
// {"voters","outgoing","learners","next","auto"}, of which all but voters are left out where
// they are empty: outgoing is the other half of a joint one, next are those of it who will be
// learners, auto says that the leader leaves it of its own accord. h is the hash of the log up to an entry, a function of
// its term, its data and the h before it: two logs have equal h at an index exactly when
// they agree up to there. digest is the state machine's. Both are 16 hexadecimal digits.
package trace

import (
	"strconv"
)

// Kind is what an event tells. The comment names its fields.
type Kind uint8

const (
	// Boot: t, vote, commit, applied, last, lastTerm, h (of the last entry), snapIdx,
	// snapTerm, conf (at applied). What the node found on its disk; the first line of an
	// incarnation.
	Boot Kind = iota
	// Term: t. The term is durable.
	Term
	// Campaign: t. The node decided to stand for leader in that term.
	Campaign
	// VotePersist: t, cand. The vote is durable.
	VotePersist
	// VoteSend: t, to, granted, candLast {t, i}. An answer to a request for a vote leaves; to
	// is the candidate. A candidate's own vote is traced when it is durable. Pre-votes are
	// not traced. candLast is zero where it is not known any more.
	VoteSend
	// Leader: t, last, lastTerm, h (of last), conf, voters. The node became leader; voters are
	// those whose votes it had; last is before the leader's own first entry.
	Leader
	// StepDown: t. The node stopped leading that term.
	StepDown
	// Append: i, t (the entry's), h. The entry is in the log, not durable yet.
	Append
	// ConfAppend: i, old, new. The entry that was appended last changes the configuration, from
	// the one in force here, old, to new; without new if it cannot.
	ConfAppend
	// Truncate: from. Everything from there on was discarded.
	Truncate
	// Persist: uptoIdx, uptoTerm, t, vote, commit. All of that is durable.
	Persist
	// AckSend: to, t, i. An acknowledgement up to i leaves.
	AckSend
	// Commit: i, role, t. The role is [Bootstrap] for the entries with which a new cluster
	// begins: they are committed in term 1, which has no leader.
	Commit
	// Apply: i, t (the entry's), h, digest.
	Apply
	// ConfApply: i, conf. The entry that was applied last put that configuration into force.
	ConfApply
	// SnapTake: i, t (the entry's), h, digest, conf. A snapshot of the state at i is durable.
	SnapTake
	// SnapInstall: i, t (the entry's), h, digest, conf. A snapshot of the leader's replaced log
	// and state, not durably yet.
	SnapInstall
	// Compact: i. The entries up to there are no longer in the log.
	Compact
	// Progress: t, peer, match, next. What a leader knows of a member's log has changed.
	Progress
	// ReadStart: id, unique in an incarnation. A round for reads that wait began.
	ReadStart
	// ReadIndex: id, i. The round was confirmed at that index.
	ReadIndex
	// ReadServe: id, applied. The reads of the round were served.
	ReadServe
)

var kindNames = [...]string{
	"boot", "term", "campaign", "votePersist", "voteSend", "leader", "stepDown", "append", "confAppend", "truncate",
	"persist", "ackSend", "commit", "apply", "confApply", "snapTake", "snapInstall", "compact", "progress",
	"readStart", "readIndex", "readServe",
}

// Bootstrap is the role in a [Commit] of what no leader committed.
const Bootstrap = "bootstrap"

// String returns the word written in the ev field.
func (k Kind) String() string { return kindNames[k] }

// Event is one protocol event. Which fields mean something depends on Kind.
type Event struct {
	Kind     Kind
	T        uint64 // t
	I        uint64 // i, from
	Node     uint64 // cand, to, vote, peer
	Last     uint64 // last, uptoIdx, candLast.i, match
	LastTerm uint64 // lastTerm, uptoTerm, candLast.t
	Next     uint64
	Commit   uint64
	Applied  uint64
	Snap     uint64 // snapIdx
	SnapTerm uint64
	Hash     uint64 // h
	Digest   uint64
	ID       uint64
	Granted  bool
	Role     string
	Conf     Conf  // conf, old
	New      *Conf // nil: left out
	Voters   []uint64
}

// Conf is a configuration.
type Conf struct {
	Voters, Outgoing, Learners, Next []uint64
	Auto                             bool
}

// Chain returns the hash of a log that is extended by an entry: FNV-1a over the hash
// before, the entry's term, and its data.
func Chain(before, term uint64, data []byte) uint64 {
	const offset, prime = 0xcbf29ce484222325, 0x100000001b3
	h := uint64(offset)
	for _, n := range [...]uint64{before, term} {
		for range 8 {
			h = (h ^ n&0xff) * prime
			n >>= 8
		}
	}
	for _, b := range data {
		h = (h ^ uint64(b)) * prime
	}
	return h
}

// Names gives nodes their names.
type Names map[uint64]string

func (n Names) of(id uint64) string {
	name, known := n[id]
	if !known && id != 0 {
		return "#" + strconv.FormatUint(id, 10)
	}
	return name
}

// AppendJSON appends the event's own fields, beginning with ev, without braces.
func (e Event) AppendJSON(b []byte, names Names) []byte {
	l := line{b, names}
	l.b = append(append(append(l.b, `"ev":"`...), kindNames[e.Kind]...), '"')
	switch e.Kind {
	case Boot:
		e.appendBoot(&l)
	case Term, Campaign, StepDown:
		l.number("t", e.T)
	case VotePersist:
		l.number("t", e.T)
		l.node("cand", e.Node)
	case VoteSend:
		l.number("t", e.T)
		l.node("to", e.Node)
		l.boolean("granted", e.Granted)
		l.b = append(l.b, `,"candLast":{"t":`...)
		l.b = strconv.AppendUint(l.b, e.LastTerm, 10)
		l.b = append(l.b, `,"i":`...)
		l.b = append(strconv.AppendUint(l.b, e.Last, 10), '}')
	case Leader:
		l.number("t", e.T)
		l.number("last", e.Last)
		l.number("lastTerm", e.LastTerm)
		l.hash("h", e.Hash)
		l.conf("conf", e.Conf)
		l.nodes("voters", e.Voters)
	case AckSend:
		l.node("to", e.Node)
		l.number("t", e.T)
		l.number("i", e.I)
	case Progress:
		l.number("t", e.T)
		l.node("peer", e.Node)
		l.number("match", e.Last)
		l.number("next", e.Next)
	case ReadStart:
		l.number("id", e.ID)
	case ReadIndex:
		l.number("id", e.ID)
		l.number("i", e.I)
	case ReadServe:
		l.number("id", e.ID)
		l.number("applied", e.Applied)
	default:
		e.appendOfLog(&l)
	}
	return l.b
}

func (e Event) appendBoot(l *line) {
	l.number("t", e.T)
	l.node("vote", e.Node)
	l.number("commit", e.Commit)
	l.number("applied", e.Applied)
	l.number("last", e.Last)
	l.number("lastTerm", e.LastTerm)
	l.hash("h", e.Hash)
	l.number("snapIdx", e.Snap)
	l.number("snapTerm", e.SnapTerm)
	l.conf("conf", e.Conf)
}

// appendOfLog appends the fields of what happens to the log.
func (e Event) appendOfLog(l *line) {
	switch e.Kind {
	case Append:
		l.number("i", e.I)
		l.number("t", e.T)
		l.hash("h", e.Hash)
	case ConfAppend:
		l.number("i", e.I)
		l.conf("old", e.Conf)
		if e.New != nil {
			l.conf("new", *e.New)
		}
	case Truncate:
		l.number("from", e.I)
	case Persist:
		l.number("uptoIdx", e.Last)
		l.number("uptoTerm", e.LastTerm)
		l.number("t", e.T)
		l.node("vote", e.Node)
		l.number("commit", e.Commit)
	case Commit:
		l.number("i", e.I)
		l.b = append(append(append(l.b, `,"role":"`...), e.Role...), '"')
		l.number("t", e.T)
	case Apply:
		l.number("i", e.I)
		l.number("t", e.T)
		l.hash("h", e.Hash)
		l.hash("digest", e.Digest)
	case ConfApply:
		l.number("i", e.I)
		l.conf("conf", e.Conf)
	case SnapTake, SnapInstall:
		l.number("i", e.I)
		l.number("t", e.T)
		l.hash("h", e.Hash)
		l.hash("digest", e.Digest)
		l.conf("conf", e.Conf)
	case Compact:
		l.number("i", e.I)
	}
}

// line is a JSON object under construction.
type line struct {
	b     []byte
	names Names
}

func (l *line) key(name string) {
	l.b = append(append(append(l.b, ',', '"'), name...), '"', ':')
}

func (l *line) number(name string, n uint64) {
	l.key(name)
	l.b = strconv.AppendUint(l.b, n, 10)
}

func (l *line) boolean(name string, v bool) {
	l.key(name)
	l.b = strconv.AppendBool(l.b, v)
}

func (l *line) hash(name string, h uint64) {
	l.key(name)
	l.b = append(l.b, '"')
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		l.b = append(l.b, digits[h>>shift&0xf])
	}
	l.b = append(l.b, '"')
}

func (l *line) node(name string, id uint64) {
	l.key(name)
	l.b = strconv.AppendQuote(l.b, l.names.of(id))
}

func (l *line) nodes(name string, ids []uint64) {
	l.key(name)
	l.list(ids)
}

func (l *line) list(ids []uint64) {
	l.b = append(l.b, '[')
	for i, id := range ids {
		if i > 0 {
			l.b = append(l.b, ',')
		}
		l.b = strconv.AppendQuote(l.b, l.names.of(id))
	}
	l.b = append(l.b, ']')
}

func (l *line) conf(name string, c Conf) {
	l.key(name)
	l.b = append(l.b, `{"voters":`...)
	l.list(c.Voters)
	for _, part := range [...]struct {
		name string
		ids  []uint64
	}{{"outgoing", c.Outgoing}, {"learners", c.Learners}, {"next", c.Next}} {
		if len(part.ids) > 0 {
			l.nodes(part.name, part.ids)
		}
	}
	if c.Auto {
		l.boolean("auto", true)
	}
	l.b = append(l.b, '}')
}
