package replica

import (
	"errors"
	"fmt"
	"strconv"

	"capsize/raftnode/kv"
)

// Op is what a request asks for.
type Op uint8

const (
	Get Op = iota
	Put
	CompareAndSwap
)

// Request is what a client wants.
type Request struct {
	ID       uint64 // the caller's: unique among the requests not replied to
	Op       Op
	Key      string
	Value    int64 // Put, CompareAndSwap
	Expected int64 // CompareAndSwap
	// Session and Sequence make a change apply once, however often and wherever it is
	// requested. Without a session it is proposed once, and lost if that is lost.
	Session  string
	Sequence uint64
	Ticks    int // until the deadline, at least 1
}

// Outcome says what is known of a request that was replied to.
type Outcome uint8

const (
	Done    Outcome = iota // it took effect
	Refused                // it took no effect and never will
	Unknown                // it may have taken effect, or may yet
)

// Errors that a Reply gives as reason.
var (
	ErrNoLeader   = errors.New("no leader is known: try again, or another node")
	ErrOverloaded = errors.New("too many requests are waiting: try again later")
	ErrTimeout    = errors.New("the request timed out")
	ErrMismatch   = errors.New("mismatch")
	ErrSuperseded = errors.New("the session has gone on to a later sequence: whether this one was applied is forgotten")
	ErrReused     = errors.New("the sequence was used for another request of the session")
	ErrInvalid    = errors.New("invalid request")
)

// Reply answers the request of that ID.
type Reply struct {
	ID      uint64
	Outcome Outcome
	Err     error // why it is not Done
	Value   int64 // of a Get, or what a compare-and-swap found instead
	Present bool  // false where the key holds nothing
}

// Request takes a client's request.
func (r *Replica) Request(q Request) {
	if r.failure != nil {
		return
	}
	if err := q.validate(); err != nil {
		r.reply(Reply{ID: q.ID, Outcome: Refused, Err: errors.Join(ErrInvalid, err)})
		return
	}
	if r.waiting() >= MaxWaiting {
		r.reply(Reply{ID: q.ID, Outcome: Refused, Err: ErrOverloaded})
		return
	}
	deadline := r.now + max(q.Ticks, 1)
	if q.Op == Get {
		r.addRead(q, deadline)
		return
	}
	r.addWrite(q, deadline)
}

func (q Request) validate() error {
	if q.Op == Get {
		return kv.Command{Op: kv.Get, Key: q.Key}.Validate()
	}
	return q.command().Validate()
}

func (q Request) command() kv.Command {
	c := kv.Command{Key: q.Key, Value: text(q.Value), Session: q.Session, Sequence: q.Sequence}
	switch q.Op {
	case Put:
		c.Op = kv.Put
	case CompareAndSwap:
		c.Op, c.Expected = kv.CompareAndSwap, kv.ValueIs(text(q.Expected))
	}
	return c
}

// Clients of this replica keep numbers; the state machine keeps them as text.
func text(value int64) string { return strconv.FormatInt(value, 10) }

func parseValue(text string) int64 {
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(fmt.Sprintf("replica: a key holds %q, which no replica writes", text))
	}
	return value
}

func (r *Replica) reply(reply Reply) { r.out.Replies = append(r.out.Replies, reply) }

func (r *Replica) waiting() int { return len(r.writes.byNumber) + r.reads.waiting() }
