package agent

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Sorts of packets that the filter drops.
const (
	fromPeers = "peers"    // all that comes from a peer
	requests  = "requests" // what clients send to the client ports
	answers   = "answers"  // what the client ports send to clients
)

// drops are the addresses to drop, for each sort of packets.
type drops map[string][]netip.Addr

// addressFamily is what differs between IPv4 (RFC 791) and IPv6 (RFC 8200).
type addressFamily struct {
	ipv4        bool
	suffix      string
	protocol    byte
	source      uint32 // offsets in the header
	destination uint32
	key         nftables.SetDatatype
}

var addressFamilies = []addressFamily{
	{true, "4", unix.NFPROTO_IPV4, 12, 16, nftables.TypeIPAddr},
	{false, "6", unix.NFPROTO_IPV6, 8, 24, nftables.TypeIP6Addr},
}

// dropSet is a set of addresses of one family, each with a counter of its own, and the rule
// that drops a sort of packets from or to them.
type dropSet struct {
	sort   string
	family addressFamily
}

var dropSets = func() (all []dropSet) {
	for _, sort := range []string{fromPeers, requests, answers} {
		for _, family := range addressFamilies {
			all = append(all, dropSet{sort, family})
		}
	}
	return all
}()

func (s dropSet) set(table *nftables.Table) *nftables.Set {
	return &nftables.Set{Table: table, Name: s.sort + s.family.suffix, KeyType: s.family.key, Counter: true}
}

const (
	sourcePort      = 0 // offsets in the headers of TCP and UDP (RFC 9293, RFC 768)
	destinationPort = 2
)

// expressions are the rule's. The address is looked up last, since that is what counts.
// A fragment without a transport header passes the rules of the client ports; the first
// one does not, so nothing can be put together from it.
func (s dropSet) expressions(set, ports, transports *nftables.Set) []expr.Any {
	address, port := s.family.source, uint32(destinationPort)
	if s.sort == answers {
		address, port = s.family.destination, sourcePort
	}
	all := ofFamily(s.family.protocol)
	if s.sort != fromPeers {
		all = append(all,
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Lookup{SourceRegister: 1, SetName: transports.Name, SetID: transports.ID},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: port, Len: 2},
			&expr.Lookup{SourceRegister: 1, SetName: ports.Name, SetID: ports.ID},
		)
	}
	return append(all,
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: address, Len: s.family.key.Bytes},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
		&expr.Verdict{Kind: expr.VerdictDrop},
	)
}

func ofFamily(protocol byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
	}
}

// neighbours lets neighbour discovery pass (RFC 4861: ICMPv6 types 133 to 137). It is to
// IPv6 what ARP, which this filter never sees, is to IPv4: without a cut peer's
// advertisements nothing could be sent to it either, and a cut of one direction would be
// one of both.
func neighbours() []expr.Any {
	return append(ofFamily(unix.NFPROTO_IPV6),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_ICMPV6}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: []byte{133}},
		&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: []byte{137}},
		&expr.Verdict{Kind: expr.VerdictAccept},
	)
}

// addRules fills the table that was made: two chains, the sets, and their rules.
func (f *filter) addRules() error {
	policy := nftables.ChainPolicyAccept
	chain := func(name string, hook *nftables.ChainHook) *nftables.Chain {
		return f.conn.AddChain(&nftables.Chain{
			Name: name, Table: f.table, Type: nftables.ChainTypeFilter, Policy: &policy,
			Hooknum: hook, Priority: nftables.ChainPriorityRef(filterPriority),
		})
	}
	input, output := chain("input", nftables.ChainHookInput), chain("output", nftables.ChainHookOutput)
	f.conn.AddRule(&nftables.Rule{Table: f.table, Chain: input, Exprs: neighbours()})

	transports := &nftables.Set{Table: f.table, Name: "transports", KeyType: nftables.TypeInetProto}
	ports := &nftables.Set{Table: f.table, Name: "ports", KeyType: nftables.TypeInetService}
	var numbers []nftables.SetElement
	for _, port := range f.ports {
		numbers = append(numbers, nftables.SetElement{Key: binary.BigEndian.AppendUint16(nil, uint16(port))})
	}
	if err := f.conn.AddSet(transports, []nftables.SetElement{{Key: []byte{unix.IPPROTO_TCP}}, {Key: []byte{unix.IPPROTO_UDP}}}); err != nil {
		return err
	}
	if err := f.conn.AddSet(ports, numbers); err != nil {
		return err
	}
	for _, s := range dropSets {
		set := s.set(f.table)
		if err := f.conn.AddSet(set, nil); err != nil {
			return err
		}
		chain := input
		if s.sort == answers {
			chain = output
		}
		f.conn.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: s.expressions(set, ports, transports)})
	}
	return nil
}
