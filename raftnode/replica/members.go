package replica

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"capsize/raftnode/internal/varint"
	"capsize/raftnode/raft"
)

// Member is a node of the cluster as the log knows it.
type Member struct {
	ID      uint64
	Name    string
	Address string // at which other nodes reach it
}

// Bounds on what is kept of a member.
const (
	MaxNameBytes    = 63
	MaxAddressBytes = 255
	maxMembers      = 64 // and learners
)

// Members are the nodes of the cluster as of an applied entry. Every node that applies the
// same entries has the same.
type Members struct {
	List []Member // by ID
	// Last is the greatest ID that was ever given. None is given twice: a node that is not in
	// the list, with an ID up to Last, was removed for good.
	Last uint64
}

func (m *Members) find(id uint64) *Member {
	i, found := slices.BinarySearchFunc(m.List, id, func(member Member, id uint64) int { return cmp.Compare(member.ID, id) })
	if !found {
		return nil
	}
	return &m.List[i]
}

func (m *Members) named(name string) *Member {
	i := slices.IndexFunc(m.List, func(member Member) bool { return member.Name == name })
	if i < 0 {
		return nil
	}
	return &m.List[i]
}

// next returns the members after a change, of which the context gives names and addresses.
// It refuses what would make a node that was removed, and has forgotten nothing or
// everything, somebody again.
func (m *Members) next(change raft.ConfChangeV2, told []Member) (Members, error) {
	n := Members{List: slices.Clone(m.List), Last: m.Last}
	for _, c := range change.Changes {
		i := slices.IndexFunc(told, func(member Member) bool { return member.ID == c.NodeID })
		known := n.find(c.NodeID)
		switch {
		case c.Type == raft.ConfChangeRemoveNode && known == nil:
			return Members{}, fmt.Errorf("node %d is no member", c.NodeID)
		case c.Type == raft.ConfChangeRemoveNode:
			n.List = slices.DeleteFunc(n.List, func(member Member) bool { return member.ID == c.NodeID })
		case known != nil && i >= 0:
			known.Name, known.Address = told[i].Name, told[i].Address
		case known == nil && (i < 0 || c.NodeID <= n.Last || c.Type == raft.ConfChangeUpdateNode):
			return Members{}, fmt.Errorf("node %d is no member, and cannot become one again", c.NodeID)
		case known == nil:
			n.Last = c.NodeID
			n.List = append(n.List, told[i]) // the list stays sorted: it is the greatest ID
		}
	}
	for i, member := range n.List {
		if slices.ContainsFunc(n.List[:i], func(other Member) bool { return other.Name == member.Name }) {
			return Members{}, fmt.Errorf("two members are named %s", member.Name)
		}
	}
	if len(n.List) > maxMembers {
		return Members{}, fmt.Errorf("%d members: want at most %d", len(n.List), maxMembers)
	}
	return n, nil
}

// appendMembers encodes members; decodeMembers is its inverse: they come last.
func appendMembers(b []byte, list []Member) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, m := range list {
		b = binary.AppendUvarint(b, m.ID)
		for _, s := range [...]string{m.Name, m.Address} {
			b = binary.AppendUvarint(b, uint64(len(s)))
			b = append(b, s...)
		}
	}
	return b
}

var errMembers = errors.New("malformed list of members")

func decodeMembers(in *varint.Reader) (list []Member, err error) {
	count := in.Next()
	if count > maxMembers {
		return nil, errMembers
	}
	for range count {
		member := Member{ID: in.Next(), Name: string(in.Bytes(MaxNameBytes)), Address: string(in.Bytes(MaxAddressBytes))}
		if in.Bad() || member.ID == raft.None || member.Name == "" {
			return nil, errMembers
		}
		list = append(list, member)
	}
	if !in.Complete() {
		return nil, errMembers
	}
	return list, nil
}

// encodeContext is what a change of membership carries: who asked for it, and the names and
// addresses of the nodes that it brings in.
func encodeContext(t tag, told []Member) []byte { return appendMembers(t.appendTo(nil), told) }

func decodeContext(b []byte) (t tag, told []Member, err error) {
	t, rest := splitTag(b)
	told, err = decodeMembers(varint.NewReader(rest))
	return t, told, err
}

// bootstrap returns the first members of a new cluster as the core wants them. Each of them
// must be given the same list.
func bootstrap(list []Member) []raft.Peer {
	peers := make([]raft.Peer, len(list))
	for i, m := range list {
		peers[i] = raft.Peer{ID: m.ID, Context: encodeContext(tag{}, []Member{m})}
	}
	return peers
}
