//go:build !linux

package agent

import "errors"

func openMachineClock() (machineClock, error) {
	return nil, errors.New("the machine's clock is set on Linux only")
}
