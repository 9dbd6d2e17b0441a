package packets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// priority puts the queue before the filter of partitions (-300): a packet that was held
	// when a cut began must not pass it.
	priority = -310
	// tableOwner makes the kernel delete the table with the socket (NFT_TABLE_F_OWNER, 5.12).
	tableOwner = 2
	queueMark  = 0x43617073 // of duplicates, which are not queued again
)

// rules lead what comes from chosen sources into a queue.
type rules struct {
	how    string
	table  *nftables.Table
	conn   *nftables.Conn
	socket *netlink.Conn
}

// family is what differs between IPv4 and IPv6.
type family struct {
	ipv4     bool
	name     string
	protocol byte
	offset   uint32 // of the source in the header: RFC 791, RFC 8200
	key      nftables.SetDatatype
}

var families = []family{
	{true, "shaped4", unix.NFPROTO_IPV4, 12, nftables.TypeIPAddr},
	{false, "shaped6", unix.NFPROTO_IPV6, 8, nftables.TypeIP6Addr},
}

func (f family) set(table *nftables.Table) *nftables.Set {
	return &nftables.Set{Table: table, Name: f.name, KeyType: f.key}
}

// newRules makes the table, which leads nothing into the queue yet. The kernel may lack
// nftables' own statement; then iptables' target does the same.
func newRules(name string, number uint16) (*rules, error) {
	bypass := []byte{0, 0, 0, 0, 0, 0, 0, 0} // struct xt_NFQ_info_v3, aligned
	binary.NativeEndian.PutUint16(bypass[0:], number)
	binary.NativeEndian.PutUint16(bypass[2:], 1)
	binary.NativeEndian.PutUint16(bypass[4:], 1) // NFQ_FLAG_BYPASS
	info := xt.Unknown(bypass)
	var problems []error
	for _, way := range []struct {
		how string
		to  expr.Any
	}{
		{"nftables queue", &expr.Queue{Num: number, Total: 1, Flag: expr.QueueFlagBypass}},
		{"nftables with the target NFQUEUE of xtables", &expr.Target{Name: "NFQUEUE", Rev: 3, Info: &info}},
	} {
		r := &rules{how: way.how, table: &nftables.Table{Family: nftables.TableFamilyINet, Name: name}}
		err := r.make(way.to)
		if err == nil {
			return r, nil
		}
		problems = append(problems, fmt.Errorf("%s: %w", way.how, err), r.close())
	}
	return nil, errors.Join(problems...)
}

func (r *rules) make(to expr.Any) error {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(socket *netlink.Conn) error {
		r.socket = socket
		return nil
	}))
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	r.conn = conn
	if err := r.create(); err != nil {
		return fmt.Errorf("make table %s, owned by this process (Linux 5.12 and later): %w", r.table.Name, err)
	}
	policy := nftables.ChainPolicyAccept
	chain := r.conn.AddChain(&nftables.Chain{
		Name: "input", Table: r.table, Type: nftables.ChainTypeFilter, Policy: &policy,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityRef(priority),
	})
	for _, family := range families {
		set := family.set(r.table)
		if err := r.conn.AddSet(set, nil); err != nil {
			return err
		}
		r.conn.AddRule(&nftables.Rule{Table: r.table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family.protocol}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: family.offset, Len: family.key.Bytes},
			&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, queueMark)},
			to,
		}})
	}
	return r.conn.Flush()
}

// create makes the empty table. The library has no way to set a table's flags.
func (r *rules) create() error {
	if err := r.socket.SetDeadline(time.Now().Add(netlinkLimit)); err != nil {
		return err
	}
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: []byte(r.table.Name + "\x00")},
		{Type: unix.NFTA_TABLE_FLAGS, Data: binary.BigEndian.AppendUint32(nil, tableOwner)},
	})
	if err != nil {
		return err
	}
	batch := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}
	header := []byte{byte(r.table.Family), unix.NFNETLINK_V0, 0, 0}
	const newTable = netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWTABLE)
	const flags = netlink.Request | netlink.Acknowledge | netlink.Create
	if _, err := r.socket.SendMessages([]netlink.Message{
		{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_BEGIN, Flags: netlink.Request}, Data: batch},
		{Header: netlink.Header{Type: newTable, Flags: flags}, Data: append(header, attributes...)},
		{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_END, Flags: netlink.Request}, Data: batch},
	}); err != nil {
		return err
	}
	_, err = r.socket.Receive() // the acknowledgement
	return err
}

// put leads what comes from sources into the queue and nothing else, in one transaction.
func (r *rules) put(sources []netip.Addr) error {
	if err := r.socket.SetDeadline(time.Now().Add(netlinkLimit)); err != nil {
		return err
	}
	for _, family := range families {
		set := family.set(r.table)
		r.conn.FlushSet(set)
		var elements []nftables.SetElement
		for _, source := range sources {
			if source.Is4() == family.ipv4 {
				elements = append(elements, nftables.SetElement{Key: source.AsSlice()})
			}
		}
		if len(elements) == 0 {
			continue
		}
		if err := r.conn.SetAddElements(set, elements); err != nil {
			return err
		}
	}
	return r.conn.Flush()
}

// close takes the table away with its socket.
func (r *rules) close() error {
	if r.conn == nil {
		return nil
	}
	return r.conn.CloseLasting()
}
