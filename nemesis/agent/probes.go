package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"capsize/clusters"
)

// ProbeCopies is how many datagrams a probe is: one may be lost to a full buffer.
const ProbeCopies = 3

const (
	probeSendLimit = time.Second
	noncesMost     = 64 // rounds whose arrivals are kept
)

// probeMagic begins each probe; then come the nonce, big-endian, and the sender's name.
var probeMagic = []byte("capsize-probe-1 ")

// EncodeProbe makes the datagram of a probe.
func EncodeProbe(nonce uint64, from string) []byte {
	return append(binary.BigEndian.AppendUint64(bytes.Clone(probeMagic), nonce), from...)
}

// DecodeProbe reads what EncodeProbe made.
func DecodeProbe(datagram []byte) (nonce uint64, from string, err error) {
	rest, found := bytes.CutPrefix(datagram, probeMagic)
	if !found || len(rest) <= 8 || len(rest) > 8+nameMost {
		return 0, "", errors.New("not a probe")
	}
	return binary.BigEndian.Uint64(rest), string(rest[8:]), nil
}

// arrivals remembers which nodes' probes came in, for the latest rounds only: datagrams
// come from a network, and their number is not ours to decide.
type arrivals struct {
	peers map[string]Peer

	mu     sync.Mutex
	rounds map[uint64]map[string]bool
	order  []uint64 // nonces in rounds, oldest first
}

func newArrivals(peers map[string]Peer) *arrivals {
	return &arrivals{peers: peers, rounds: make(map[uint64]map[string]bool)}
}

// note takes a datagram. Where the link tells who sent it, the datagram must agree.
func (a *arrivals) note(sender string, datagram []byte) {
	nonce, from, err := DecodeProbe(datagram)
	_, known := a.peers[from]
	known = known || from == clusters.Client && sender == clusters.Client
	if err != nil || !known || sender != "" && sender != from {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rounds[nonce] == nil {
		if len(a.order) == noncesMost {
			delete(a.rounds, a.order[0])
			a.order = a.order[1:]
		}
		a.rounds[nonce] = make(map[string]bool)
		a.order = append(a.order, nonce)
	}
	a.rounds[nonce][from] = true
}

// from returns the nodes whose probes with the nonce have arrived.
func (a *arrivals) from(nonce uint64) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.rounds[nonce]))
}

// sendProbes sends a round to every peer but the node itself. It tries all of them
// whatever happens with one, and names those that could not even be sent to.
func sendProbes(self string, peers map[string]Peer, nonce uint64) error {
	// Peers recognise a sender by its address, so a host with several has to use that one.
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(peers[self].Address)})
	if errors.Is(err, syscall.EADDRNOTAVAIL) { // it is translated on the way
		socket, err = net.ListenUDP("udp", nil)
	}
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	defer func() { _ = socket.Close() }() // what was sent is on its way
	if err := socket.SetWriteDeadline(time.Now().Add(probeSendLimit)); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	datagram := EncodeProbe(nonce, self)
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(peers)) {
		if name == self {
			continue
		}
		if err := sendProbe(socket, peers[name].Probe, datagram); err != nil {
			problems = append(problems, fmt.Errorf("probe from %s to %s: %w", self, name, err))
		}
	}
	return errors.Join(problems...)
}

func sendProbe(socket *net.UDPConn, address string, datagram []byte) error {
	to, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return err
	}
	for range ProbeCopies {
		if _, err := socket.WriteToUDP(datagram, to); err != nil {
			return err
		}
	}
	return nil
}

// listener receives probes where there are no links, at the node's own probe address.
type listener struct {
	socket net.PacketConn
	work   sync.WaitGroup
}

func listenProbes(address string, arrived *arrivals) (*listener, error) {
	socket, err := net.ListenPacket("udp", address)
	if _, port, split := net.SplitHostPort(address); split == nil && errors.Is(err, syscall.EADDRNOTAVAIL) {
		socket, err = net.ListenPacket("udp", ":"+port) // the address is translated on the way
	}
	if err != nil {
		return nil, fmt.Errorf("listen for probes: %w", err)
	}
	l := &listener{socket: socket}
	l.work.Go(func() {
		buffer := make([]byte, 512)
		for {
			n, _, err := socket.ReadFrom(buffer)
			if err != nil {
				return // closed; should it ever fail otherwise, no probe arrives and that is seen
			}
			arrived.note("", buffer[:n])
		}
	})
	return l, nil
}

func (l *listener) close() error {
	err := l.socket.Close()
	l.work.Wait()
	return err
}
