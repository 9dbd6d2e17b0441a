package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	netlinkLimit     = 2 * time.Second
	filterPriority   = -300 // before connection tracking (-200), so that no state of it lets a packet in
	ipv4SourceOffset = 12   // RFC 791
	ipv6SourceOffset = 8    // RFC 8200
	tableOwner       = 2    // NFT_TABLE_F_OWNER of linux/netfilter/nf_tables.h
)

// filter is a barrier in the kernel: an nftables table of its own that drops, on input,
// what comes from the addresses of cut peers. Nothing else is touched, so the session of
// the controller lives on. Routes to nowhere would be no honest partition: they make a
// local connect(2) fail at once, where a cut network is silent.
//
// The table is owned by the filter's netlink socket (NFT_TABLE_F_OWNER): the kernel
// deletes it when the agent ends, however it ends.
type filter struct {
	node      string
	table     *nftables.Table
	peers     map[string]netip.Addr
	protected netip.Addr // where the controller's session comes from

	conn   *nftables.Conn
	socket *netlink.Conn // conn's
	made   bool          // the table exists
	owned  bool          // the table ends with the socket
}

// newFilter returns the barrier, or why this host cannot have it.
func newFilter(run string, h *Hello) (barrier, error) {
	f := &filter{
		node: h.Node, peers: make(map[string]netip.Addr),
		table: &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName(run, h.Node)},
	}
	for name, peer := range h.Peers {
		if peer.Address == "" {
			continue
		}
		address, err := netip.ParseAddr(peer.Address)
		if err != nil {
			return nil, fmt.Errorf("address of %s: %w", name, err)
		}
		f.peers[name] = address.Unmap()
	}
	f.protected = controllerAddress()
	// A trial: with empty sets the table drops nothing.
	err := f.put(nil)
	if err == nil {
		err = f.remove()
	}
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			err = fmt.Errorf("%w (it takes root or CAP_NET_ADMIN)", err)
		}
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return f, nil
}

func (f *filter) block(pairs []Pair) (map[string]uint64, error) {
	sources := make(map[netip.Addr]bool)
	for _, pair := range pairs {
		if pair.To != f.node {
			continue
		}
		address, known := f.peers[pair.From]
		if !known {
			return nil, fmt.Errorf("block %s to %s: the address of %s is not known here", pair.From, pair.To, pair.From)
		}
		if address == f.protected {
			return nil, fmt.Errorf("block %s to %s: the controller's session comes from %s too and would be cut", pair.From, pair.To, address)
		}
		sources[address] = true
	}
	before, err := f.dropped()
	if err != nil {
		return nil, err
	}
	if len(sources) == 0 {
		return before, f.remove()
	}
	return before, f.put(slices.SortedFunc(maps.Keys(sources), netip.Addr.Compare))
}

// put drops what comes from sources and nothing else, in one transaction.
func (f *filter) put(sources []netip.Addr) error {
	if err := f.prepare(); err != nil {
		return err
	}
	for _, family := range addressFamilies {
		set := family.set(f.table)
		f.conn.FlushSet(set)
		var elements []nftables.SetElement
		for _, source := range sources {
			if source.Is4() == family.ipv4 {
				elements = append(elements, nftables.SetElement{Key: source.AsSlice()})
			}
		}
		if len(elements) == 0 {
			continue
		}
		if err := f.conn.SetAddElements(set, elements); err != nil {
			return f.abandon(err)
		}
	}
	return f.flush()
}

// prepare opens the netlink socket and makes the table, without a source to drop.
func (f *filter) prepare() error {
	if err := f.open(); err != nil || f.made {
		return err
	}
	err := f.create(tableOwner)
	f.owned = err == nil
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) { // before Linux 5.12
		f.conn.AddTable(f.table) // so that there is one to delete: an agent that died may have left it
		f.conn.DelTable(f.table)
		if err = f.conn.Flush(); err == nil {
			err = f.create(0)
		}
	}
	if err != nil {
		return f.abandon(err)
	}
	f.made = true
	policy := nftables.ChainPolicyAccept
	chain := f.conn.AddChain(&nftables.Chain{
		Name: "input", Table: f.table, Type: nftables.ChainTypeFilter, Policy: &policy,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityRef(filterPriority),
	})
	for _, family := range addressFamilies {
		set := family.set(f.table)
		if err := f.conn.AddSet(set, nil); err != nil {
			return f.abandon(err)
		}
		f.conn.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family.protocol}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: family.offset, Len: family.key.Bytes},
			&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
	}
	return f.flush()
}

// open makes sure that there is a socket, and gives it time for one operation.
func (f *filter) open() error {
	if f.conn == nil {
		conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(socket *netlink.Conn) error {
			f.socket = socket
			return nil
		}))
		if err != nil {
			return fmt.Errorf("open netlink: %w", err)
		}
		f.conn = conn
	}
	return f.socket.SetDeadline(time.Now().Add(netlinkLimit))
}

// create makes the empty table. The library has no way to set a table's flags.
func (f *filter) create(flags uint32) error {
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: []byte(f.table.Name + "\x00")},
		{Type: unix.NFTA_TABLE_FLAGS, Data: binary.BigEndian.AppendUint32(nil, flags)},
	})
	if err != nil {
		return err
	}
	batch := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}
	header := []byte{byte(f.table.Family), unix.NFNETLINK_V0, 0, 0}
	const newTable = netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWTABLE)
	if _, err := f.socket.SendMessages([]netlink.Message{
		{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_BEGIN, Flags: netlink.Request}, Data: batch},
		{Header: netlink.Header{Type: newTable, Flags: netlink.Request | netlink.Acknowledge | netlink.Create}, Data: append(header, attributes...)},
		{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_END, Flags: netlink.Request}, Data: batch},
	}); err != nil {
		return err
	}
	_, err = f.socket.Receive() // the acknowledgement
	return err
}

// flush carries out what conn was told since the last flush, in one transaction.
func (f *filter) flush() error {
	if err := f.conn.Flush(); err != nil {
		return f.abandon(err)
	}
	return nil
}

// abandon gives the socket up after an error, since answers to what failed may still be in
// it. The table goes with it, where it is owned.
func (f *filter) abandon(err error) error {
	err = fmt.Errorf("table %s: %w", f.table.Name, err)
	if f.conn != nil {
		err = errors.Join(err, f.conn.CloseLasting())
	}
	f.conn, f.made = nil, f.made && !f.owned
	return err
}

// addressFamily is what differs between IPv4 and IPv6.
type addressFamily struct {
	ipv4     bool
	name     string
	protocol byte
	offset   uint32
	key      nftables.SetDatatype
}

var addressFamilies = []addressFamily{
	{true, "cut4", unix.NFPROTO_IPV4, ipv4SourceOffset, nftables.TypeIPAddr},
	{false, "cut6", unix.NFPROTO_IPV6, ipv6SourceOffset, nftables.TypeIP6Addr},
}

// set is the set of cut sources, each with a counter of its own.
func (a addressFamily) set(table *nftables.Table) *nftables.Set {
	return &nftables.Set{Table: table, Name: a.name, KeyType: a.key, Counter: true}
}

// remove deletes the table.
func (f *filter) remove() error {
	if !f.made {
		return nil
	}
	if err := f.open(); err != nil {
		return f.abandon(err)
	}
	f.conn.DelTable(f.table)
	if err := f.flush(); err != nil {
		return err
	}
	f.made = false
	return nil
}

// dropped reads the counters, in packets.
func (f *filter) dropped() (map[string]uint64, error) {
	counts := make(map[string]uint64)
	if !f.made {
		return counts, nil
	}
	if err := f.open(); err != nil {
		return nil, f.abandon(err)
	}
	packets := make(map[netip.Addr]uint64)
	for _, family := range addressFamilies {
		elements, err := f.conn.GetSetElements(family.set(f.table))
		if err != nil {
			return nil, f.abandon(fmt.Errorf("read counters: %w", err))
		}
		for _, element := range elements {
			if source, ok := netip.AddrFromSlice(element.Key); ok && element.Counter != nil {
				packets[source] = element.Counter.Packets
			}
		}
	}
	for name, address := range f.peers {
		if n := packets[address]; n > 0 {
			counts[name] = n
		}
	}
	return counts, nil
}

func (f *filter) close() error {
	err := f.remove()
	if f.conn != nil {
		err = errors.Join(err, f.conn.CloseLasting())
		f.conn = nil
	}
	return err
}
