package agent

import (
	"context"
	"fmt"
	"hash/fnv"
	"net/netip"
	"os"
	"strings"
	"sync"

	"capsize/clusters"
	"capsize/nemesis/agent/links"
	"capsize/nemesis/agent/packets"
)

const tableNameMost = 120

// packetTool makes the network between nodes bad: in the kernel, what this node receives from
// its peers, by their addresses; on a cluster with links what passes those that it serves.
// Nothing of it outlives the agent: the kernel deletes the table with the agent's sockets.
type packetTool struct {
	node   string
	peers  map[string]netip.Addr
	known  map[string]bool // names of all nodes
	shaper *packets.Shaper // nil where there is none
	proxy  *links.Proxy    // nil where there are no links
	why    error           // there is neither

	mu   sync.Mutex // Shapes are carried out one at a time
	last uint64     // the request that was carried out last
}

func newPacketTool(h *Hello, barrier barrier) *packetTool {
	p := &packetTool{node: h.Node, peers: make(map[string]netip.Addr), known: make(map[string]bool)}
	for name := range h.Peers {
		p.known[name] = true
	}
	if proxied, ok := barrier.(*proxyBarrier); ok {
		p.proxy = proxied.proxy
		return p
	}
	used := make(map[netip.Addr]string)
	for name, peer := range h.Peers {
		address, err := netip.ParseAddr(peer.Address)
		if err != nil {
			p.why = fmt.Errorf("the address %q of %s is none of IP: packets are told apart by it", peer.Address, name)
			return p
		}
		address = address.Unmap()
		if other, shared := used[address]; shared {
			p.why = fmt.Errorf("%s and %s have one address, %s: packets cannot be told apart", min(name, other), max(name, other), address)
			return p
		}
		used[address], p.peers[name] = name, address
	}
	p.shaper, p.why = packets.Open(tableName(h.Run, h.Node+"_packets"), controllerAddress(), seedOf(h))
	return p
}

// seedOf is what this node's chances are drawn from.
func seedOf(h *Hello) uint64 {
	seed := fnv.New64a()
	_, _ = seed.Write([]byte(h.Run + "/" + h.Node)) // a hash takes everything
	return seed.Sum64()
}

// controllerAddress is where the controller's session comes from. sshd tells; without it there
// is none to protect.
func controllerAddress() netip.Addr {
	first, _, _ := strings.Cut(os.Getenv("SSH_CONNECTION"), " ")
	address, _ := netip.ParseAddr(first)
	return address.Unmap()
}

// tableName makes a valid identifier of the run and the node.
func tableName(run, node string) string {
	name := strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') {
			return r
		}
		return '_'
	}, "capsize_"+run+"_"+node)
	return name[max(0, len(name)-tableNameMost):] // the end tells nodes and uses apart
}

// onStreams says how each ability is had on links, and why the others are not.
var onStreams = map[string]Ability{
	PacketDelay:     {How: "link proxies"},
	PacketRate:      {How: "link proxies"},
	PacketLoss:      {How: "link proxies: what is lost of a stream arrives as late as TCP would send it again"},
	PacketCorrupt:   {How: "link proxies: what is corrupt of a stream is lost, as by its checksum, and arrives late"},
	PacketDuplicate: {Why: "links carry streams, in which nothing arrives twice: use a cluster of containers or hosts"},
	PacketReorder:   {Why: "links carry streams, which have one order: use jitter, or a cluster of containers or hosts"},
}

func (p *packetTool) survey(context.Context) []Ability {
	var abilities []Ability
	for _, name := range []string{PacketDelay, PacketLoss, PacketDuplicate, PacketReorder, PacketCorrupt, PacketRate} {
		ability := Ability{}
		switch {
		case p.proxy != nil:
			ability = onStreams[name]
		case p.shaper != nil:
			ability.How = p.shaper.How()
		default:
			ability.Why = p.why.Error()
		}
		ability.Name = name
		abilities = append(abilities, ability)
	}
	return abilities
}

// shape carries out the request with that number.
func (p *packetTool) shape(id uint64, pairs []ShapedPair) (*ShapeReply, error) {
	for _, pair := range pairs {
		for _, name := range []string{pair.From, pair.To} {
			if !p.known[name] {
				return nil, fmt.Errorf("shape %s to %s: there is no node %q", pair.From, pair.To, name)
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if id < p.last {
		return nil, fmt.Errorf("shape: overtaken by request %d", p.last)
	}
	var reply *ShapeReply
	var err error
	switch {
	case p.proxy != nil:
		reply, err = p.shapeStreams(pairs)
	case p.shaper != nil:
		reply, err = p.shapePackets(pairs)
	case len(pairs) > 0:
		return nil, fmt.Errorf("shape %d pairs: %w", len(pairs), p.why)
	default:
		reply = &ShapeReply{}
	}
	if err == nil {
		p.last = id
	}
	return reply, err
}

func (p *packetTool) shapePackets(pairs []ShapedPair) (*ShapeReply, error) {
	shapes := make(map[netip.Addr]packets.Shape)
	for _, pair := range pairs {
		if pair.To == p.node {
			shapes[p.peers[pair.From]] = pair.Shape
		}
	}
	if err := p.shaper.Set(shapes); err != nil {
		return nil, err
	}
	reply := &ShapeReply{}
	counts := p.shaper.Counts()
	for name, address := range p.peers {
		if count, shaped := counts[address]; shaped {
			reply.Counts = append(reply.Counts, ShapedCount{Pair{name, p.node}, count})
		}
	}
	return reply, nil
}

func (p *packetTool) shapeStreams(pairs []ShapedPair) (*ShapeReply, error) {
	shapes := make(map[Pair]packets.Shape)
	for _, pair := range pairs {
		if pair.Shape.Duplicate > 0 || pair.Shape.Reorder > 0 {
			return nil, fmt.Errorf("shape %s to %s: %s", pair.From, pair.To, onStreams[PacketReorder].Why)
		}
		shapes[pair.Pair] = pair.Shape
	}
	p.proxy.ShapeStreams(func(from, to string) (packets.Shape, bool) {
		shape, shaped := shapes[Pair{from, to}]
		return shape, shaped
	})
	reply := &ShapeReply{}
	for _, shaped := range p.proxy.Counts() {
		reply.Counts = append(reply.Counts, ShapedCount{Pair{shaped.From, shaped.To}, shaped.Count})
	}
	return reply, nil
}

func (p *packetTool) started(context.Context, clusters.Process, int) error { return nil }

func (p *packetTool) heal(context.Context) error {
	if p.proxy != nil {
		p.proxy.ShapeStreams(func(string, string) (packets.Shape, bool) { return packets.Shape{}, false })
	}
	if p.shaper != nil {
		return p.shaper.Close()
	}
	return nil
}
