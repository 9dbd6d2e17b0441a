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
// name; a node that is none is "". h is the hash of the log up to an entry, a function of
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
	// snapTerm, conf. What the node found on its disk; the first line of an incarnation.
	Boot Kind = iota
	// Term: t. The term is durable.
	Term
	// VotePersist: t, cand. The vote is durable.
	VotePersist
	// VoteSend: t, to, granted, candLast {t, i}. An answer to a request for a vote leaves; to
	// is the candidate. A candidate's own vote is traced when it is durable. Pre-votes are
	// not traced.
	VoteSend
	// Leader: t, last, lastTerm, conf, voters. The node became leader; voters are those
	// whose votes it had; last is before the leader's own first entry.
	Leader
	// StepDown: t. The node stopped leading that term.
	StepDown
	// Append: i, t (the entry's), h. The entry is in the log, not durable yet.
	Append
	// Truncate: from. Everything from there on was discarded.
	Truncate
	// Persist: uptoIdx, uptoTerm, t, vote, commit. All of that is durable.
	Persist
	// AckSend: to, t, i. An acknowledgement up to i leaves.
	AckSend
	// Commit: i, role, t.
	Commit
	// Apply: i, t (the entry's), h, digest.
	Apply
	// ReadStart: id, unique in an incarnation. A round for reads that wait began.
	ReadStart
	// ReadIndex: id, i. The round was confirmed at that index.
	ReadIndex
	// ReadServe: id, applied. The reads of the round were served.
	ReadServe
)

var kindNames = [...]string{
	"boot", "term", "votePersist", "voteSend", "leader", "stepDown", "append", "truncate",
	"persist", "ackSend", "commit", "apply", "readStart", "readIndex", "readServe",
}

// String returns the word written in the ev field.
func (k Kind) String() string { return kindNames[k] }

// Event is one protocol event. Which fields mean something depends on Kind.
type Event struct {
	Kind     Kind
	T        uint64 // t
	I        uint64 // i, from
	Node     uint64 // cand, to, vote
	Last     uint64 // last, uptoIdx, candLast.i
	LastTerm uint64 // lastTerm, uptoTerm, candLast.t
	Commit   uint64
	Applied  uint64
	Hash     uint64 // h
	Digest   uint64
	ID       uint64
	Granted  bool
	Role     string
	Conf     []uint64
	Voters   []uint64
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

// AppendJSON appends the event's own fields, beginning with ev, without braces.
func (e Event) AppendJSON(b []byte, names Names) []byte {
	l := line{b, names}
	l.b = append(append(append(l.b, `"ev":"`...), kindNames[e.Kind]...), '"')
	switch e.Kind {
	case Boot:
		l.number("t", e.T)
		l.node("vote", e.Node)
		l.number("commit", e.Commit)
		l.number("applied", e.Applied)
		l.number("last", e.Last)
		l.number("lastTerm", e.LastTerm)
		l.hash("h", e.Hash)
		l.number("snapIdx", 0)
		l.number("snapTerm", 0)
		l.nodes("conf", e.Conf)
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
		l.nodes("conf", e.Conf)
		l.nodes("voters", e.Voters)
	case Term, StepDown:
		l.number("t", e.T)
	case Append:
		l.number("i", e.I)
		l.number("t", e.T)
		l.hash("h", e.Hash)
	case Truncate:
		l.number("from", e.I)
	case Persist:
		l.number("uptoIdx", e.Last)
		l.number("uptoTerm", e.LastTerm)
		l.number("t", e.T)
		l.node("vote", e.Node)
		l.number("commit", e.Commit)
	default:
		e.appendRest(&l)
	}
	return l.b
}

func (e Event) appendRest(l *line) {
	switch e.Kind {
	case AckSend:
		l.node("to", e.Node)
		l.number("t", e.T)
		l.number("i", e.I)
	case Commit:
		l.number("i", e.I)
		l.b = append(append(append(l.b, `,"role":"`...), e.Role...), '"')
		l.number("t", e.T)
	case Apply:
		l.number("i", e.I)
		l.number("t", e.T)
		l.hash("h", e.Hash)
		l.hash("digest", e.Digest)
	case ReadStart:
		l.number("id", e.ID)
	case ReadIndex:
		l.number("id", e.ID)
		l.number("i", e.I)
	case ReadServe:
		l.number("id", e.ID)
		l.number("applied", e.Applied)
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
	l.b = strconv.AppendQuote(l.b, l.names[id])
}

func (l *line) nodes(name string, ids []uint64) {
	l.key(name)
	l.b = append(l.b, '[')
	for i, id := range ids {
		if i > 0 {
			l.b = append(l.b, ',')
		}
		l.b = strconv.AppendQuote(l.b, l.names[id])
	}
	l.b = append(l.b, ']')
}
