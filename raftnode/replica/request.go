package replica

import (
	"errors"
	"fmt"

	"capsize/raftnode/kv"
)

// Kind is what a request asks for.
type Kind uint8

const (
	// Propose: Command goes through the log.
	Propose Kind = iota
	// Read: Command, a get or a range, is answered here, linearizably, without an entry.
	Read
	// ReadNow: what Read does, of the state as this node has it now, which may be one of the past.
	ReadNow
	// ReadLock: who holds the lock Command.Key, as by Read.
	ReadLock
	// Reconfigure: Changes are made to the members. Only the leader does it.
	Reconfigure
	// Transfer: the member To is to lead.
	Transfer
	// TakeSnapshot: a snapshot of this node's state is taken now.
	TakeSnapshot
)

// Request is what a client wants. A command with a session applies once, however often and
// wherever it is requested. Without one it is proposed once, and lost if that is lost.
type Request struct {
	ID      uint64 // the caller's: unique among the requests not replied to
	Kind    Kind
	Command kv.Command
	Changes []Change
	To      string
	Ticks   int // until the deadline, at least 1
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
	ErrNoLeader    = errors.New("no leader is known: try again, or another node")
	ErrNotLeader   = errors.New("this node does not lead: ask the leader")
	ErrOverloaded  = errors.New("too many requests are waiting: try again later")
	ErrTimeout     = errors.New("the request timed out")
	ErrMismatch    = errors.New("mismatch")
	ErrFenced      = errors.New("the lock is not held under that token: another may hold it by now")
	ErrHeld        = errors.New("another owner holds the lock")
	ErrNotHeld     = errors.New("this owner does not hold the lock under that token")
	ErrTooLarge    = errors.New("the value would become too large")
	ErrSuperseded  = errors.New("the session has gone on to a later sequence: whether this one was applied is forgotten")
	ErrReused      = errors.New("the sequence was used for another request of the session")
	ErrInvalid     = errors.New("invalid request")
	ErrConfChange  = errors.New("the members cannot be changed so now")
	ErrNotCaughtUp = errors.New("the learner lacks too much of the log to vote: try again later")
)

// ofStatus is how a command that was applied without effect is replied to.
var ofStatus = [...]struct {
	outcome Outcome
	err     error
}{
	kv.Applied:    {Done, nil},
	kv.Mismatch:   {Refused, ErrMismatch},
	kv.Superseded: {Unknown, ErrSuperseded},
	kv.Reused:     {Refused, ErrReused},
	kv.Malformed:  {Refused, ErrInvalid},
	kv.Fenced:     {Refused, ErrFenced},
	kv.Held:       {Refused, ErrHeld},
	kv.NotHeld:    {Refused, ErrNotHeld},
	kv.TooLarge:   {Refused, ErrTooLarge},
}

// Reply answers the request of that ID.
type Reply struct {
	ID      uint64
	Outcome Outcome
	Err     error     // why it is not Done
	Result  kv.Result // of a Propose or a read that was carried out
}

// Request takes a client's request.
func (r *Replica) Request(q Request) {
	if r.failure != nil {
		return
	}
	if err := q.validate(); err != nil {
		r.reply(Reply{ID: q.ID, Outcome: Refused, Err: fmt.Errorf("%w: %w", ErrInvalid, err)})
		return
	}
	if r.waiting() >= MaxWaiting {
		r.reply(Reply{ID: q.ID, Outcome: Refused, Err: ErrOverloaded})
		return
	}
	deadline := r.now + max(q.Ticks, 1)
	switch q.Kind {
	case Propose:
		r.addWrite(q, deadline)
	case Read, ReadLock:
		r.addRead(q, deadline)
	case ReadNow:
		r.reply(Reply{ID: q.ID, Outcome: Done, Result: r.look(read{kind: q.Kind, command: q.Command})})
	default:
		r.addErrand(q, deadline)
	}
}

func (q Request) validate() error {
	switch q.Kind {
	case Propose:
		return q.Command.Validate()
	case Read, ReadNow:
		c := q.Command
		if c.Op != kv.Get && c.Op != kv.Range || c.Session != "" || c.Fence != (kv.Fence{}) {
			return fmt.Errorf("read by %v with a session or a fence: want a plain get or range", c.Op)
		}
		return c.Validate()
	case ReadLock:
		return kv.Command{Op: kv.Get, Key: q.Command.Key}.Validate()
	}
	for _, c := range q.Changes {
		switch {
		case c.Name == "" || len(c.Name) > MaxNameBytes:
			return fmt.Errorf("member name %q: want 1 to %d bytes", c.Name, MaxNameBytes)
		case len(c.Address) > MaxAddressBytes:
			return fmt.Errorf("address of %s: want at most %d bytes", c.Name, MaxAddressBytes)
		}
	}
	return nil
}

func (r *Replica) reply(reply Reply) { r.out.Replies = append(r.out.Replies, reply) }

func (r *Replica) waiting() int {
	return len(r.writes.byNumber) + r.reads.waiting() + len(r.errands)
}
