package server

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"capsize/raftnode/files"
	"capsize/raftnode/replica"
)

// Config is what a node is made of. Every field down to HeartbeatTicks must be set, but
// only one of Peers and Join.
type Config struct {
	Name    string // this node's
	Cluster string // nodes of different clusters refuse each other, and each other's data
	// Peers are the members with which a new cluster begins, this node too: the same list in
	// the same order on each of them. A member's ID is its position, from 1.
	Peers []Peer
	// Join is host:port of the clients' interface of any member of a cluster that has this node
	// as a member already. It is asked when the node has no data yet.
	Join           string
	ListenPeer     string // host:port
	ListenClient   string // host:port
	DataDir        string // created if missing
	Tick           time.Duration
	ElectionTicks  int // least number of ticks without a leader before an election
	HeartbeatTicks int

	// Dial are addresses at which this node reaches members in place of those that these give,
	// by name: of proxies, for example.
	Dial      []Peer
	TraceFile string // empty: no trace
	Seed      uint64 // of the election time-outs
	// A snapshot is taken after so many entries, or bytes of entries; so many entries stay in
	// the log behind it. 0 means the defaults of package replica.
	SnapshotEntries, SnapshotBytes, KeepEntries uint64
	// SnapshotRate bounds in bytes a second what the stream of a snapshot takes; 0: no bound.
	SnapshotRate int64
	FS           files.FS // nil: the operating system's
	Logf         func(format string, args ...any)
}

// Peer is a node's name and address.
type Peer struct {
	Name    string
	Address string // host:port
}

// ParsePeers reads a list as a command line has it: n1=127.0.0.1:7001,n2=127.0.0.1:7002.
func ParsePeers(list string) ([]Peer, error) {
	var peers []Peer
	if list == "" {
		return nil, nil
	}
	for item := range strings.SplitSeq(list, ",") {
		name, address, ok := strings.Cut(strings.TrimSpace(item), "=")
		if !ok {
			return nil, fmt.Errorf("peer %q: want name=host:port", item)
		}
		peers = append(peers, Peer{Name: name, Address: address})
	}
	return peers, nil
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func validateName(what, name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%s %q: want letters, digits, dots, dashes and underscores, at most %d", what, name, replica.MaxNameBytes)
	}
	return nil
}

func validateAddress(what, address string) error {
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" || len(address) > replica.MaxAddressBytes {
		return fmt.Errorf("%s: address %q: want host:port", what, address)
	}
	return nil
}

// Validate says what is wrong with the configuration.
func (c *Config) Validate() error {
	if err := validateName("name", c.Name); err != nil {
		return err
	}
	if c.Cluster == "" || len(c.Cluster) > 64 {
		return fmt.Errorf("cluster id %q: want 1 to 64 bytes", c.Cluster)
	}
	if err := c.validateMembers(); err != nil {
		return err
	}
	for what, address := range map[string]string{"peer": c.ListenPeer, "client": c.ListenClient} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return fmt.Errorf("%s listen address %q: want host:port", what, address)
		}
	}
	switch {
	case c.DataDir == "":
		return errors.New("data directory: none is given")
	case c.Tick < time.Millisecond || c.Tick > time.Minute:
		return fmt.Errorf("tick %s: want 1ms to 1m", c.Tick)
	case c.HeartbeatTicks < 1:
		return fmt.Errorf("heartbeat ticks %d: want 1 or more", c.HeartbeatTicks)
	case c.ElectionTicks <= c.HeartbeatTicks:
		return fmt.Errorf("election ticks %d: want more than the %d heartbeat ticks", c.ElectionTicks, c.HeartbeatTicks)
	case c.SnapshotRate < 0:
		return fmt.Errorf("snapshot rate %d: want bytes a second, or 0 for no bound", c.SnapshotRate)
	}
	return nil
}

func (c *Config) validateMembers() error {
	switch {
	case len(c.Peers) == 0 && c.Join == "":
		return errors.New("peers: none are given: want those of a new cluster, or a member to join")
	case len(c.Peers) > 0 && c.Join != "":
		return errors.New("peers of a new cluster and a member to join: want one of both")
	}
	if c.Join != "" {
		if err := validateAddress("join", c.Join); err != nil {
			return err
		}
	}
	for what, list := range map[string][]Peer{"peer": c.Peers, "dial": c.Dial} {
		seen := map[string]bool{}
		for _, p := range list {
			if err := validateName(what+" name", p.Name); err != nil {
				return err
			}
			if seen[p.Name] {
				return fmt.Errorf("%s %s is listed twice", what, p.Name)
			}
			seen[p.Name] = true
			if err := validateAddress(what+" "+p.Name, p.Address); err != nil {
				return err
			}
		}
		if what == "peer" && len(list) > 0 && !seen[c.Name] {
			return fmt.Errorf("this node, %s, is not among the peers", c.Name)
		}
	}
	return nil
}

// first returns the members with which the cluster begins; none where the node joins one.
func (c *Config) first() []replica.Member {
	var members []replica.Member
	for i, p := range c.Peers {
		members = append(members, replica.Member{ID: uint64(i) + 1, Name: p.Name, Address: p.Address})
	}
	return members
}
