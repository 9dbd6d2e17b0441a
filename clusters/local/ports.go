package local

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
)

// want is somebody who needs a port.
type want struct {
	what      string
	datagrams bool // on UDP too
	take      func(address string)
}

// Free ports are looked for below the range from which the kernel takes ports for outgoing
// connections, so that no connection takes one between our looking and the node's binding.
const (
	portsFrom        = 10240
	ephemeralDefault = 32768 // where Linux and we do not know better
	portsMost        = 65535
	tries            = 100

	// Ports are reserved in units of that many, so that two checkers that look at the same
	// time do not find the same ones free.
	unit = 128
)

// choosePorts gives each of wanted a port: the ones from base on, or a free block. The
// block is reserved against other checkers until it is released.
func choosePorts(wanted []want, base int) (release func(), err error) {
	if base != 0 {
		if err := allFree(wanted, base); err != nil {
			return nil, fmt.Errorf("%w; choose others with --base-port, or 0 for free ones", err)
		}
		assign(wanted, base)
		return func() {}, nil
	}
	units := (len(wanted) + unit - 1) / unit
	last := (ephemeralFrom()-portsFrom)/unit - units
	if last < 0 {
		return nil, fmt.Errorf("%d ports are more than there are below %d, where the kernel's own begin: name others with --base-port", len(wanted), ephemeralFrom())
	}
	var problem error
	for range tries {
		base := portsFrom + unit*rand.IntN(last+1)
		if release, problem = reserve(base, units); problem != nil {
			continue
		}
		if problem = allFree(wanted, base); problem == nil {
			assign(wanted, base)
			return release, nil
		}
		release()
	}
	return nil, fmt.Errorf("no block of %d free ports on loopback after %d tries: %w", len(wanted), tries, problem)
}

// ephemeralFrom returns the first port that the kernel takes for outgoing connections
// (ip(7), ip_local_port_range).
func ephemeralFrom() int {
	var from int
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return ephemeralDefault
	}
	if _, err := fmt.Sscan(string(data), &from); err != nil || from < portsFrom+unit {
		return ephemeralDefault
	}
	return from
}

// reserve takes units of ports against other checkers by binding one abstract socket for
// each (unix(7)): these have the scope of the ports, leave no file, and go with the
// process however it ends. Where they do not exist, nothing is reserved.
func reserve(base, units int) (release func(), err error) {
	var held []net.Listener
	release = func() {
		for _, l := range held {
			_ = l.Close() // nothing was accepted on it
		}
	}
	if runtime.GOOS != "linux" {
		return release, nil
	}
	for i := range units {
		l, err := net.Listen("unix", fmt.Sprintf("@capsize-ports-%d", base+i*unit))
		if err != nil {
			release()
			return nil, fmt.Errorf("ports from %d on are another run's: %w", base+i*unit, err)
		}
		held = append(held, l)
	}
	return release, nil
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
	if port < 1 || port > portsMost {
		return errors.New("ports go from 1 to " + strconv.Itoa(portsMost))
	}
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
