package server

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"capsize/raftnode/files"
)

// Config is what a node is made of. Every field but FS, Seed, TraceFile and Logf must be
// set.
type Config struct {
	Name           string        // this node's; one of Peers
	Cluster        string        // nodes of different clusters refuse each other, and each other's data
	Peers          []Peer        // all members, this node too; a node's ID is its position, from 1
	ListenPeer     string        // host:port
	ListenClient   string        // host:port
	DataDir        string        // created if missing
	TraceFile      string        // empty: no trace
	Tick           time.Duration // one tick of the consensus core
	ElectionTicks  int           // least number of ticks without a leader before an election
	HeartbeatTicks int
	Seed           uint64   // of the election time-outs
	FS             files.FS // nil: the operating system's
	Logf           func(format string, args ...any)
}

// Peer is a member of the cluster.
type Peer struct {
	Name    string
	Address string // host:port at which this node dials it
}

// ParsePeers reads a list as a command line has it: n1=127.0.0.1:7001,n2=127.0.0.1:7002.
func ParsePeers(list string) ([]Peer, error) {
	if list == "" {
		return nil, errors.New("peers: none are given: want n1=host:port,n2=host:port")
	}
	var peers []Peer
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

// Validate says what is wrong with the configuration.
func (c *Config) Validate() error {
	if !namePattern.MatchString(c.Name) {
		return fmt.Errorf("name %q: want letters, digits, dots, dashes and underscores, at most 63", c.Name)
	}
	if c.Cluster == "" || len(c.Cluster) > 64 {
		return fmt.Errorf("cluster id %q: want 1 to 64 bytes", c.Cluster)
	}
	if err := c.validatePeers(); err != nil {
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
	}
	return nil
}

func (c *Config) validatePeers() error {
	if len(c.Peers) == 0 {
		return errors.New("peers: none are given")
	}
	seen := map[string]bool{}
	for _, p := range c.Peers {
		if !namePattern.MatchString(p.Name) {
			return fmt.Errorf("peer name %q: want letters, digits, dots, dashes and underscores, at most 63", p.Name)
		}
		if seen[p.Name] {
			return fmt.Errorf("peer %s is listed twice", p.Name)
		}
		seen[p.Name] = true
		if _, port, err := net.SplitHostPort(p.Address); err != nil || port == "" {
			return fmt.Errorf("peer %s: address %q: want host:port", p.Name, p.Address)
		}
	}
	if !seen[c.Name] {
		return fmt.Errorf("this node, %s, is not among the peers", c.Name)
	}
	return nil
}

// id returns the ID of the node of that name; 0 for none.
func (c *Config) id(name string) uint64 {
	for i, p := range c.Peers {
		if p.Name == name {
			return uint64(i) + 1
		}
	}
	return 0
}

// name returns the name of the node with that ID; empty for none.
func (c *Config) name(id uint64) string {
	if id == 0 || id > uint64(len(c.Peers)) {
		return ""
	}
	return c.Peers[id-1].Name
}
