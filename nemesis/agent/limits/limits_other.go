//go:build !linux

package limits

import (
	"errors"
	"fmt"
	"runtime"
)

var errOnlyLinux = fmt.Errorf("limits work only on Linux, this is %s: %w", runtime.GOOS, errors.ErrUnsupported)

// Limiter limits nothing here.
type Limiter struct{}

// New fails here.
func New(int, string, string, func(Undo) error) (*Limiter, error) { return nil, errOnlyLinux }

// Apply fails here.
func (*Limiter) Apply(Limit) error { return errOnlyLinux }

// Clear has nothing to undo.
func (*Limiter) Clear() error { return nil }

// Seen fails here.
func (*Limiter) Seen() (Seen, error) { return Seen{}, errOnlyLinux }

// Hold does nothing here.
func (*Limiter) Hold() {}

// Unhold does nothing here.
func (*Limiter) Unhold() {}

// Revert has nothing to undo.
func Revert(Undo) error { return nil }

// Survey says that nothing can be limited here.
func Survey(string) []Ability {
	abilities := make([]Ability, len(Resources))
	for i, resource := range Resources {
		abilities[i] = Ability{Resource: resource, Why: errOnlyLinux.Error()}
	}
	return abilities
}
