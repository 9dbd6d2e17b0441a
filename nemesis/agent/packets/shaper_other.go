//go:build !linux

package packets

import (
	"errors"
	"net/netip"
)

// Shaper needs Linux.
type Shaper struct{}

// Open fails: packets are shaped on Linux only.
func Open(string, netip.Addr, uint64) (*Shaper, error) {
	return nil, errors.New("shape packets: only on Linux")
}

// How returns nothing.
func (*Shaper) How() string { return "" }

// Set does nothing, since there is no shaper.
func (*Shaper) Set(map[netip.Addr]Shape) error { return nil }

// Counts returns nothing.
func (*Shaper) Counts() map[netip.Addr]Count { return nil }

// Close does nothing.
func (*Shaper) Close() error { return nil }
