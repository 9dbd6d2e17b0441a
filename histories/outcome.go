package histories

import "errors"

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

// Outcome says how an operation that ended with err completes: OK without an error,
// Fail where the error is marked [Definite], Info in every other case.
func Outcome(err error) Type {
	if err == nil {
		return OK
	}
	if d := (definite{}); errors.As(err, &d) {
		return Fail
	}
	return Info
}
