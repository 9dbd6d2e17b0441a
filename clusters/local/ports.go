package local

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// want is somebody who needs a port.
type want struct {
	what      string
	datagrams bool // on UDP too
	take      func(address string)
}

// Ports are chosen below the range from which Linux takes ports for outgoing connections
// (32768 on), so that no connection takes one between our looking and our binding.
const (
	portsFrom = 10240
	portsTo   = 32000
	tries     = 100
)

// choosePorts gives each of wanted a port: the ones from base on, or a free block.
func choosePorts(wanted []want, base int) error {
	if base != 0 {
		if err := allFree(wanted, base); err != nil {
			return fmt.Errorf("%w; choose others with --base-port, or 0 for free ones", err)
		}
		assign(wanted, base)
		return nil
	}
	var last error
	for range tries {
		base := portsFrom + rand.IntN(portsTo-portsFrom-len(wanted))
		if last = allFree(wanted, base); last == nil {
			assign(wanted, base)
			return nil
		}
	}
	return fmt.Errorf("no block of %d free ports on loopback after %d tries: %w", len(wanted), tries, last)
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func assign(wanted []want, base int) {
	for i, w := range wanted {
		w.take(address(base + i))
	}
}

// allFree reports the first port that somebody else has.
func allFree(wanted []want, base int) error {
	for i, w := range wanted {
		if err := free(base+i, w.datagrams); err != nil {
			return fmt.Errorf("port %d, for %s, cannot be used: %w", base+i, w.what, err)
		}
	}
	return nil
}

func free(port int, datagrams bool) error {
	tcp, err := net.Listen("tcp", address(port))
	if err != nil {
		return err
	}
	if err := tcp.Close(); err != nil || !datagrams {
		return err
	}
	udp, err := net.ListenPacket("udp", address(port))
	if err != nil {
		return err
	}
	return udp.Close()
}
