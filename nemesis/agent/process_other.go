//go:build !linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"capsize/clusters"
)

var errNotSupported = fmt.Errorf("the agent needs Linux, this is %s: %w", runtime.GOOS, errors.ErrUnsupported)

// forker starts nothing here, so the rest below is never reached.
type forker struct{}

func newForker(bool) *forker                { return &forker{} }
func (*forker) start(*exec.Cmd, bool) error { return errNotSupported }
func (*forker) close()                      {}

func awaitEnd(int)                              {}
func killGroup(int)                             {}
func signalGroup(int, syscall.Signal) error     { return errNotSupported }
func stopGroup(int) error                       { return errNotSupported }
func resumeGroup(int) error                     { return errNotSupported }
func signalName(signal syscall.Signal) string   { return signal.String() }
func threads(int) (stopped, all int, err error) { return 0, 0, errNotSupported }
func newFilter(string, *Hello) (barrier, error) { return nil, errNotSupported }

func lifeOf(int) (Life, error) { return Life{}, errNotSupported }
func prepare(clusters.Process) (*exec.Cmd, *os.File, error) {
	return nil, nil, errNotSupported
}

// Guard guards nothing here.
func Guard(context.Context, *exec.Cmd) (int, error) { return 1, errNotSupported }

// Notes returns nil here.
func Notes() *os.File { return nil }
