package invariants

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Kind is what an event tells: the ev field of a trace line.
type Kind uint8

const (
	Other Kind = iota // a kind this package does not know; only its place in the trace counts
	Boot
	Term
	VotePersist
	Campaign
	VoteSend
	Leader
	StepDown
	Append
	ConfAppend
	Truncate
	Persist
	AckSend
	Commit
	Apply
	ConfApply
	SnapTake
	SnapInstall
	Compact
	Progress
	ReadStart
	ReadIndex
	ReadServe
)

var kindNames = [...]string{
	"other", "boot", "term", "votePersist", "campaign", "voteSend", "leader", "stepDown", "append", "confAppend",
	"truncate", "persist", "ackSend", "commit", "apply", "confApply", "snapTake", "snapInstall", "compact",
	"progress", "readStart", "readIndex", "readServe",
}

var kindByName = func() map[string]Kind {
	kinds := make(map[string]Kind)
	for kind, name := range kindNames {
		kinds[name] = Kind(kind)
	}
	return kinds
}()

// String returns the word in the ev field.
func (k Kind) String() string { return kindNames[k] }

// MarshalText writes the word in the ev field.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads any word; an unknown one is [Other].
func (k *Kind) UnmarshalText(text []byte) error {
	*k = kindByName[string(text)]
	return nil
}

// Hash is the hash of a log up to an entry, or of a state. The empty log's is 0.
type Hash uint64

const hashDigits = 16

// MarshalText writes 16 hexadecimal digits.
func (h Hash) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(h)), nil }

// UnmarshalText reads 16 hexadecimal digits.
func (h *Hash) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 16, 64)
	if err != nil || len(text) != hashDigits {
		return fmt.Errorf("%q is not a hash of %d hexadecimal digits", text, hashDigits)
	}
	*h = Hash(n)
	return nil
}

// Position is an entry's place in a log. Positions order as Raft compares logs (Raft paper
// 5.4.1): the term counts first.
type Position struct {
	Term  uint64 `json:"t"`
	Index uint64 `json:"i"`
}

func (p Position) less(q Position) bool {
	return p.Term < q.Term || p.Term == q.Term && p.Index < q.Index
}

// Event is one line of a trace, field by field: the JSON names are the line's. Which
// fields mean something depends on Kind; the others are zero.
type Event struct {
	Seq         uint64 `json:"seq"`  // from 1 in each incarnation, without gaps
	Time        int64  `json:"time"` // of the host's clock, Unix nanoseconds
	Incarnation uint64 `json:"inc"`  // 1 at the node's first start, one more at each start
	Node        string `json:"node"`
	Owner       string `json:"owner,omitempty"` // of the trace, where it was read with [Read]
	Kind        Kind   `json:"ev"`

	Term      uint64   `json:"t,omitempty"` // of the node; the entry's, where the line tells of one
	Index     uint64   `json:"i,omitempty"`
	From      uint64   `json:"from,omitempty"`
	Hash      Hash     `json:"h,omitempty"`
	Digest    Hash     `json:"digest,omitempty"` // 0: not said
	Last      uint64   `json:"last,omitempty"`
	LastTerm  uint64   `json:"lastTerm,omitempty"`
	SnapIndex uint64   `json:"snapIdx,omitempty"`
	SnapTerm  uint64   `json:"snapTerm,omitempty"`
	UpTo      uint64   `json:"uptoIdx,omitempty"`
	UpToTerm  uint64   `json:"uptoTerm,omitempty"`
	Commit    uint64   `json:"commit,omitempty"`
	Applied   uint64   `json:"applied,omitempty"`
	Vote      string   `json:"vote,omitempty"` // "": none
	Candidate string   `json:"cand,omitempty"`
	To        string   `json:"to,omitempty"`
	Granted   bool     `json:"granted,omitempty"`
	CandLast  Position `json:"candLast,omitzero"` // zero: not known
	Role      string   `json:"role,omitempty"`
	Conf      *Conf    `json:"conf,omitempty"` // nil: not said
	Old       *Conf    `json:"old,omitempty"`
	New       *Conf    `json:"new,omitempty"`
	Voters    []string `json:"voters,omitempty"`
	ID        uint64   `json:"id,omitempty"`
	Peer      string   `json:"peer,omitempty"`
	Match     uint64   `json:"match,omitempty"`
	Next      uint64   `json:"next,omitempty"`
}

func (e *Event) owner() string { return cmp.Or(e.Owner, e.Node) }

// String names the event's place and gives its own fields as the line has them:
//
//	n1/2:17 commit i=4 role="leader" t=3
func (e Event) String() string {
	place := fmt.Sprintf("%s/%d:%d %s", e.Node, e.Incarnation, e.Seq, e.Kind)
	line, err := json.Marshal(e)
	var fields map[string]json.RawMessage
	if err != nil || json.Unmarshal(line, &fields) != nil {
		return place
	}
	for _, common := range [...]string{"seq", "time", "inc", "node", "ev"} {
		delete(fields, common)
	}
	var words []string
	for name, value := range fields {
		words = append(words, name+"="+string(value))
	}
	slices.Sort(words)
	return strings.Join(append([]string{place}, words...), " ")
}

// Decode reads a line. Unknown fields are ignored, and an unknown ev gives a [Kind] of
// Other: writers may say more than is checked. An error tells the byte where the line
// stops making sense, or the field that is missing. It keeps nothing of line.
func Decode(line []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(line, &e); err != nil {
		return Event{}, fmt.Errorf("decode event%s: %w", offset(err), err)
	}
	if missing := e.missing(); missing != "" {
		return Event{}, fmt.Errorf("decode event: %s without %s: %s", e.Kind, missing, excerpt(line))
	}
	for _, conf := range [...]*Conf{e.Conf, e.Old, e.New} {
		if conf != nil {
			conf.sort()
		}
	}
	return e, nil
}

func offset(err error) string {
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf(" at byte %d", syntax.Offset)
	case errors.As(err, &mismatch):
		return fmt.Sprintf(" at byte %d", mismatch.Offset)
	}
	return ""
}

const excerptBytes = 80

func excerpt(line []byte) string {
	line = bytes.TrimSpace(line)
	return fmt.Sprintf("%.*s", excerptBytes, line)
}

// missing names a field without which the event says nothing; "" if it has them all. Fields
// that may rightly be 0 cannot be told from missing ones.
func (e *Event) missing() string {
	switch {
	case e.Node == "":
		return "node"
	case e.Incarnation == 0:
		return "inc"
	case e.Seq == 0:
		return "seq"
	}
	var term, index, hash bool
	switch e.Kind {
	case Term, VotePersist, Campaign, VoteSend, Leader, StepDown, Progress:
		term = true
	case Append, Apply, SnapTake, SnapInstall:
		term, index, hash = true, true, true
	case AckSend, Commit:
		term, index = true, true
	case ConfAppend, ConfApply, Compact:
		index = true
	}
	switch {
	case term && e.Term == 0:
		return "t"
	case index && e.Index == 0:
		return "i"
	case hash && e.Hash == 0:
		return "h"
	case e.Kind == Truncate && e.From == 0:
		return "from"
	case (e.Kind == VoteSend || e.Kind == AckSend) && e.To == "":
		return "to"
	case e.Kind == VotePersist && e.Candidate == "":
		return "cand"
	case e.Kind == Progress && e.Peer == "":
		return "peer"
	case e.Kind == Commit && e.Role == "":
		return "role"
	case e.Kind == ConfApply && e.Conf == nil:
		return "conf"
	}
	return ""
}
