//go:build !linux || (!amd64 && !arm64)

package clock

import (
	"errors"
	"os/exec"
)

var errHere = errors.New("clocks of processes can be changed only on Linux, on amd64 and arm64")

// Clock is the clock of one process; here there are none.
type Clock struct{}

// Start starts the command, untouched.
func Start(command *exec.Cmd) (*Clock, error) {
	if err := command.Start(); err != nil {
		return nil, err
	}
	return nil, errHere
}

// Attach fails.
func Attach(int) (*Clock, error) { return nil, errHere }

// Supported says why not.
func Supported() (how string, err error) { return "", errHere }

// How names the mechanism.
func (*Clock) How() string { return "" }

// Set fails.
func (*Clock) Set(Change) error { return errHere }

// Read fails.
func (*Clock) Read() (Reading, error) { return Reading{}, errHere }

// Settle fails.
func (*Clock) Settle() error { return errHere }

// Reset fails.
func (*Clock) Reset() error { return errHere }

// Poking says why not.
func (*Clock) Poking() (bool, error) { return false, errHere }

// Close does nothing.
func (*Clock) Close() error { return nil }
