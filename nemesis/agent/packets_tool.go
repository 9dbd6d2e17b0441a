package agent

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"os"
	"strings"
	"sync"

	"capsize/clusters"
	"capsize/nemesis/agent/packets"
)

const tableNameMost = 120

// packetTool shapes what this node receives from its peers, by their addresses. Nothing of it
// outlives the agent: the kernel deletes the table with the agent's sockets.
type packetTool struct {
	node   string
	peers  map[string]netip.Addr
	shaper *packets.Shaper // nil where there is none
	why    error           // there is none

	mu   sync.Mutex // Shapes are carried out one at a time
	last uint64     // the request that was carried out last
}

func newPacketTool(h *Hello) *packetTool {
	p := &packetTool{node: h.Node, peers: make(map[string]netip.Addr)}
	if len(h.Links) > 0 {
		p.why = errors.New("links carry streams, not packets: use a cluster of containers or hosts")
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
	seed := fnv.New64a()
	_, _ = seed.Write([]byte(h.Run + "/" + h.Node)) // a hash takes everything
	p.shaper, p.why = packets.Open(tableName(h.Run, h.Node+"_packets"), controllerAddress(), seed.Sum64())
	return p
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

func (p *packetTool) survey(context.Context) []Ability {
	var abilities []Ability
	for _, name := range []string{PacketDelay, PacketLoss, PacketDuplicate, PacketReorder, PacketCorrupt, PacketRate} {
		ability := Ability{Name: name}
		if p.shaper == nil {
			ability.Why = p.why.Error()
		} else {
			ability.How = p.shaper.How()
		}
		abilities = append(abilities, ability)
	}
	return abilities
}

// shape carries out the request with that number.
func (p *packetTool) shape(id uint64, pairs []ShapedPair) (*ShapeReply, error) {
	shapes := make(map[netip.Addr]packets.Shape)
	for _, pair := range pairs {
		if pair.To != p.node {
			continue
		}
		address, known := p.peers[pair.From]
		if !known && p.shaper != nil {
			return nil, fmt.Errorf("shape %s to %s: there is no node %q", pair.From, pair.To, pair.From)
		}
		shapes[address] = pair.Shape
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if id < p.last {
		return nil, fmt.Errorf("shape: overtaken by request %d", p.last)
	}
	if p.shaper == nil {
		if len(shapes) > 0 {
			return nil, fmt.Errorf("shape %d pairs: %w", len(shapes), p.why)
		}
		return &ShapeReply{}, nil
	}
	if err := p.shaper.Set(shapes); err != nil {
		return nil, err
	}
	p.last = id
	reply := &ShapeReply{Counts: make(map[string]packets.Count)}
	counts := p.shaper.Counts()
	for name, address := range p.peers {
		if count, shaped := counts[address]; shaped {
			reply.Counts[name] = count
		}
	}
	return reply, nil
}

func (p *packetTool) started(context.Context, clusters.Process, int) error { return nil }

func (p *packetTool) heal(context.Context) error {
	if p.shaper == nil {
		return nil
	}
	return p.shaper.Close()
}
