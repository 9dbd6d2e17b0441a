package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"capsize/clusters"
)

const (
	netlinkLimit   = 2 * time.Second
	filterPriority = -300 // before connection tracking (-200), so that no state of it lets a packet in
	tableOwner     = 2    // NFT_TABLE_F_OWNER of linux/netfilter/nf_tables.h
)

// filter is a barrier in the kernel: an nftables table of its own that drops, on input,
// what comes from the addresses of cut peers. Routes to nowhere would be no honest
// partition: they make a local connect(2) fail at once, where a cut network is silent.
//
// Clients come from the controller's address, as its session does: what is dropped of
// theirs, on input, and of what is sent to them, on output, is only what goes to and comes
// from the system's client ports, so the session lives on. Output is the place for the
// answers since the checker's machine is not ours to filter.
//
// The table is owned by the filter's netlink socket (NFT_TABLE_F_OWNER): the kernel
// deletes it when the agent ends, however it ends.
type filter struct {
	node    string
	table   *nftables.Table
	peers   map[string]netip.Addr
	ports   []int
	session sshOrigin // the controller's

	conn   *nftables.Conn
	socket *netlink.Conn // conn's
	made   bool          // the table exists
	owned  bool          // the table ends with the socket
}

// newFilter returns the barrier, or why this host cannot have it.
func newFilter(run string, h *Hello) (barrier, error) {
	f := &filter{
		node: h.Node, peers: make(map[string]netip.Addr), ports: h.ClientPorts, session: sshSession(),
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
		f.peers[name] = address.Unmap().WithZone("") // packets have none
	}
	// The table stays as long as the agent: to fill its sets is one short transaction, and with
	// empty sets it drops nothing.
	if err := f.put(drops{}); err != nil {
		if errors.Is(err, os.ErrPermission) {
			err = fmt.Errorf("%w (it takes root or CAP_NET_ADMIN)", err)
		}
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return f, nil
}

func (f *filter) block(pairs []Pair) ([]Dropped, error) {
	wanted := make(drops)
	for _, pair := range pairs {
		var sort string
		var address netip.Addr
		var err error
		switch f.node {
		case pair.To:
			sort, address, err = f.incoming(pair)
		case pair.From:
			if pair.To != clusters.Client {
				continue // the peer's to cut
			}
			sort, address, err = answers, f.session.from, f.clients()
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("block %s to %s: %w", pair.From, pair.To, err)
		}
		if !slices.Contains(wanted[sort], address) {
			wanted[sort] = append(wanted[sort], address)
		}
	}
	before, err := f.dropped()
	if err != nil {
		return nil, err
	}
	return before, f.put(wanted)
}

// incoming returns what is to be dropped so that nothing of a pair comes in.
func (f *filter) incoming(pair Pair) (sort string, address netip.Addr, err error) {
	if pair.From == clusters.Client {
		return requests, f.session.from, f.clients()
	}
	address, known := f.peers[pair.From]
	switch {
	case !known:
		err = fmt.Errorf("the address of %s is not known here", pair.From)
	case address == f.session.from:
		err = fmt.Errorf("the controller's session comes from %s too and would be cut", address)
	}
	return fromPeers, address, err
}

// clients returns why clients cannot be cut, or nil.
func (f *filter) clients() error {
	switch {
	case len(f.ports) == 0:
		return errors.New("the system has no port for clients")
	case !f.session.from.IsValid():
		return errors.New("the address of clients is not known: SSH_CONNECTION, which sshd sets, does not tell it")
	case slices.Contains(f.ports, f.session.port):
		return fmt.Errorf("clients use port %d, which is also that of the controller's session", f.session.port)
	}
	return nil
}

// answer is never asked of a node without links: the controller connects to its client
// ports and looks at what is counted here.
func (f *filter) answer(string, []byte) error {
	return errors.New("the node has no link from clients")
}

// sshOrigin is where the controller's SSH session comes from, and the port of sshd.
type sshOrigin struct {
	from netip.Addr // invalid where that is not known
	port int
}

// sshSession reads what sshd writes: "address port address port" of client and server.
func sshSession() sshOrigin {
	fields := strings.Fields(os.Getenv("SSH_CONNECTION"))
	if len(fields) != 4 {
		return sshOrigin{}
	}
	from, err := netip.ParseAddr(fields[0])
	if err != nil {
		return sshOrigin{}
	}
	port, _ := strconv.Atoi(fields[3]) // 0 is no port of clients
	return sshOrigin{from.Unmap().WithZone(""), port}
}

// put drops what is wanted and nothing else, in one transaction.
func (f *filter) put(wanted drops) error {
	if err := f.prepare(); err != nil {
		return err
	}
	for _, s := range dropSets {
		set := s.set(f.table)
		f.conn.FlushSet(set)
		var elements []nftables.SetElement
		for _, address := range wanted[s.sort] {
			if address.Is4() == s.family.ipv4 {
				elements = append(elements, nftables.SetElement{Key: address.AsSlice()})
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

// prepare opens the netlink socket and makes the table, without an address to drop.
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
	if err := f.addRules(); err != nil {
		return f.abandon(err)
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
func (f *filter) dropped() ([]Dropped, error) {
	if !f.made {
		return nil, nil
	}
	if err := f.open(); err != nil {
		return nil, f.abandon(err)
	}
	var counts []Dropped
	for _, s := range dropSets {
		elements, err := f.conn.GetSetElements(s.set(f.table))
		if err != nil {
			return nil, f.abandon(fmt.Errorf("read counters: %w", err))
		}
		for _, element := range elements {
			address, ok := netip.AddrFromSlice(element.Key)
			if !ok || element.Counter == nil || element.Counter.Packets == 0 {
				continue
			}
			for _, pair := range f.pairs(s.sort, address) {
				counts = append(counts, Dropped{pair, element.Counter.Packets})
			}
		}
	}
	return counts, nil
}

// pairs returns which pairs a counted address stands for: one, unless peers share it.
func (f *filter) pairs(sort string, address netip.Addr) []Pair {
	switch sort {
	case requests:
		return []Pair{{clusters.Client, f.node}}
	case answers:
		return []Pair{{f.node, clusters.Client}}
	}
	var pairs []Pair
	for _, name := range slices.Sorted(maps.Keys(f.peers)) {
		if f.peers[name] == address {
			pairs = append(pairs, Pair{name, f.node})
		}
	}
	return pairs
}

func (f *filter) close() error {
	err := f.remove()
	if f.conn != nil {
		err = errors.Join(err, f.conn.CloseLasting())
		f.conn = nil
	}
	return err
}
