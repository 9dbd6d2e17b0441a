package histories

import (
	"errors"
	"fmt"
)

// Reply is what came back from an operation that happened.
type Reply struct {
	Value Value // the result of a read; a change may leave it Nil
	// Revision is what the system counts its states by, where it tells: for a change the
	// revision that it made, for a read the revision at which what it returned was last
	// changed, for a lock its fencing token. 0: it tells nothing.
	Revision int64
}

// definite marks an error that proves that the operation did not happen.
type definite struct{ error }

func (d definite) Unwrap() error { return d.error }

// Definite marks err as proof that the operation did not happen and never will: it
// completes as Fail. Every other error, a time-out and a lost connection above all,
// completes as Info. Definite(nil) is nil.
func Definite(err error) error {
	if err == nil {
		return nil
	}
	return definite{err}
}

// Refusal is the error of an operation that did take its place among the others but
// changed nothing, since its condition did not hold, as of a compare-and-swap. It
// completes as Fail, with what it found in the event.
type Refusal struct {
	Found    Value
	Said     bool  // whether the answer told what it found; else Found means nothing
	Revision int64 // of what it found, as in Reply
}

// Error says what it found.
func (r *Refusal) Error() string {
	if !r.Said {
		return "refused: it holds another value"
	}
	if r.Found.IsNil() {
		return "refused: it holds nothing"
	}
	return fmt.Sprintf("refused: it holds %s", r.Found)
}

// Outcome says how an operation that ended with err completes: OK without an error,
// Fail where the error is marked [Definite] or is a [Refusal], Info in every other case.
func Outcome(err error) Type {
	if err == nil {
		return OK
	}
	refusal := (*Refusal)(nil)
	if d := (definite{}); errors.As(err, &d) || errors.As(err, &refusal) {
		return Fail
	}
	return Info
}

// Completion returns the event that completes an operation, which is to be recorded: what
// the answer or the error says of it. A result that is Nil where the argument is not, as a
// change may give it, stands for the argument.
func Completion(invoke Event, reply Reply, err error) Event {
	done := invoke
	done.Index, done.Time, done.Stale, done.Type = 0, 0, false, Outcome(err)
	refusal := (*Refusal)(nil)
	switch {
	case errors.As(err, &refusal):
		done.Error, done.Refused, done.Revision = err.Error(), true, refusal.Revision
		if refusal.Said {
			done.Value = refusal.Found
		}
	case err != nil:
		done.Error = err.Error()
	default:
		done.Revision = reply.Revision
		if !reply.Value.IsNil() {
			done.Value = reply.Value
		}
	}
	return done
}
