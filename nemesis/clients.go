package nemesis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"capsize/clusters"
	"capsize/nemesis/agent"
)

// clientProber probes the ways between clients and nodes, from where clients are: this
// machine.
type clientProber interface {
	// address is where a node's agent sends its probes of clients; empty where it sends none.
	address(node string) string
	// send begins a round.
	send(nonce uint64) error
	// collect adds what is known of the round to what was found. The nodes' part is there.
	collect(nonce uint64, expected func(agent.Pair) bool, found *Probed)
	close()
}

// clientProber makes what probes the ways of clients on this cluster.
func (c *Controller) clientProber(ctx context.Context) (clientProber, error) {
	linked := make(map[string]string)
	for _, node := range c.Nodes() {
		for _, link := range c.cluster.Links(node) {
			if link.From == clusters.Client && linked[node] == "" {
				linked[node] = link.Listen
			}
		}
	}
	if len(linked) > 0 {
		return newDatagrams(linked)
	}
	if len(c.options.ClientPorts) == 0 {
		return nil, errors.New("the ways of clients cannot be probed: there is neither a link nor a port of theirs")
	}
	return newConnections(ctx, c), nil
}

const (
	datagramCopies = 3 // of a probe: one may be lost to a full buffer
	datagramLimit  = time.Second
	datagramMost   = 512
)

// datagrams probe over links: they pass the gates that clients' connections pass.
type datagrams struct {
	sockets map[string]*net.UDPConn // connected to each node's link
	work    sync.WaitGroup          // a reader for each

	mu      sync.Mutex
	arrived map[string]uint64 // the last nonce from each node
}

func newDatagrams(linked map[string]string) (*datagrams, error) {
	d := &datagrams{sockets: make(map[string]*net.UDPConn), arrived: make(map[string]uint64)}
	for node, address := range linked {
		socket, err := net.Dial("udp", address)
		if err != nil {
			d.close()
			return nil, fmt.Errorf("probe the link of clients to %s: %w", node, err)
		}
		d.sockets[node] = socket.(*net.UDPConn)
		d.work.Go(func() { d.receive(node, socket) })
	}
	return d, nil
}

func (d *datagrams) receive(node string, socket net.Conn) {
	buffer := make([]byte, datagramMost)
	for {
		n, err := socket.Read(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // nobody listens at the link: what send meets too
		}
		if nonce, from, err := agent.DecodeProbe(buffer[:n]); err == nil && from == node {
			d.mu.Lock()
			d.arrived[node] = nonce
			d.mu.Unlock()
		}
	}
}

func (d *datagrams) address(node string) string {
	if socket := d.sockets[node]; socket != nil {
		return socket.LocalAddr().String()
	}
	return ""
}

func (d *datagrams) send(nonce uint64) error {
	datagram := agent.EncodeProbe(nonce, clusters.Client)
	for node, socket := range d.sockets {
		if err := socket.SetWriteDeadline(time.Now().Add(datagramLimit)); err != nil {
			return err
		}
		for range datagramCopies {
			if _, err := socket.Write(datagram); err != nil {
				return fmt.Errorf("probe from clients to %s: %w", node, err)
			}
		}
	}
	return nil
}

func (d *datagrams) collect(nonce uint64, _ func(agent.Pair) bool, found *Probed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for node, last := range d.arrived {
		if last == nonce {
			found.Arrived[agent.Pair{From: node, To: clusters.Client}] = true
		}
	}
}

func (d *datagrams) close() {
	for _, socket := range d.sockets {
		_ = socket.Close() // what was sent is on its way
	}
	d.work.Wait()
}

// connections probe where partitions are made in the kernel: a client's way is open when a
// connection to each of the system's client ports comes about, or is refused, for both take
// a packet there and one back. It is cut when nothing comes, and the node has counted what
// it dropped. No other port of the node is needed, and nothing is sent to the system.
type connections struct {
	nodes     []string
	addresses map[string][]string
	ctx       context.Context // ends the dialling
	cancel    context.CancelFunc
	work      sync.WaitGroup // the dials: one a round for each address

	mu      sync.Mutex
	reached map[string]bool // addresses
}

func newConnections(ctx context.Context, c *Controller) *connections {
	p := &connections{nodes: c.Nodes(), addresses: make(map[string][]string), reached: make(map[string]bool)}
	p.ctx, p.cancel = context.WithCancel(ctx)
	for _, node := range p.nodes {
		for _, port := range c.options.ClientPorts {
			p.addresses[node] = append(p.addresses[node], c.cluster.Dial(clusters.Client, node, port))
		}
	}
	return p
}

func (p *connections) address(string) string { return "" }

// send dials what was not reached before. The dials of earlier rounds go on: the way may
// be long.
func (p *connections) send(uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, node := range p.nodes {
		for _, address := range p.addresses[node] {
			if !p.reached[address] {
				p.work.Go(func() { p.dial(address) })
			}
		}
	}
	return nil
}

func (p *connections) dial(address string) {
	dialer := net.Dialer{Timeout: probeTime}
	c, err := dialer.DialContext(p.ctx, "tcp", address)
	if err == nil {
		_ = c.Close() // nothing was sent
	}
	if err == nil || errors.Is(err, syscall.ECONNREFUSED) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.reached[address] = true
	}
}

// collect draws conclusions from what came about and what the nodes have dropped.
func (p *connections) collect(_ uint64, expected func(agent.Pair) bool, found *Probed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	found.Unexplained = nil
	for _, node := range p.nodes {
		request, answer := agent.Pair{From: clusters.Client, To: node}, agent.Pair{From: node, To: clusters.Client}
		some, all := false, true
		for _, address := range p.addresses[node] {
			some, all = some || p.reached[address], all && p.reached[address]
		}
		// Of an open way all ports must be reached, of a cut one none.
		if all || some && !(expected(request) && expected(answer)) {
			found.Arrived[request], found.Arrived[answer] = true, true
			continue
		}
		switch {
		case !expected(request):
			found.Unprobed[answer] = expected(answer) // nothing is asked, so nothing is answered
			if found.Dropped[request] == 0 {
				found.Unexplained = append(found.Unexplained, request)
			}
		case !expected(answer):
			// What was dropped of the answers answered what arrived.
			found.Arrived[request] = found.Dropped[answer] > 0
			if found.Dropped[answer] == 0 {
				found.Unexplained = append(found.Unexplained, answer)
			}
		}
	}
}

func (p *connections) close() {
	p.cancel()
	p.work.Wait()
}
