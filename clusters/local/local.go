// Package local runs a cluster as plain processes on this machine: no root, no
// containers. Each host is a directory, each node listens on loopback, and every directed
// link between two nodes, and from the checker's clients to a node, goes through a
// user-space proxy that an agent serves.
package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"capsize/clusters"
)

// Options say what cluster to make.
type Options struct {
	Run      string // the run's id
	Dir      string // absolute; each host gets a directory below it
	Nodes    int
	Ports    []clusters.Port
	BasePort int  // first of the ports to use; 0: choose free ones
	Keep     bool // leave the hosts' directories when the cluster is closed
}

// Cluster is a cluster on this machine.
type Cluster struct {
	options Options
	nodes   []string
	hosts   map[string]*host
	listen  map[endpoint]string
	links   map[string][]clusters.Link
	dial    map[link]string
	release func()   // gives the reserved ports back
	made    []string // directories, outermost first
}

type endpoint struct{ node, port string }

type link struct{ from, to, port string }

// New makes the hosts' directories and chooses the ports. It starts nothing. A host's
// directory that exists already is an error: it is not ours to fill, nor to remove.
func New(options Options) (*Cluster, error) {
	if !filepath.IsAbs(options.Dir) {
		return nil, fmt.Errorf("local cluster: directory %q is not absolute", options.Dir)
	}
	if options.Nodes < 1 {
		return nil, fmt.Errorf("local cluster: %d nodes: want at least one", options.Nodes)
	}
	c := &Cluster{
		options: options, hosts: make(map[string]*host), listen: make(map[endpoint]string),
		links: make(map[string][]clusters.Link), dial: make(map[link]string),
	}
	for i := range options.Nodes {
		c.nodes = append(c.nodes, fmt.Sprintf("n%d", i+1))
	}
	if err := c.assignPorts(); err != nil {
		return nil, fmt.Errorf("local cluster: %w", err)
	}
	if err := c.makeDirs(); err != nil {
		c.release()
		return nil, errors.Join(fmt.Errorf("local cluster: %w", err), c.removeDirs())
	}
	return c, nil
}

// assignPorts gives one port to each port of each node, and one to each directed link:
// those of clients lead to the ports where nodes do not talk to each other.
func (c *Cluster) assignPorts() (err error) {
	var wanted []want
	for _, port := range c.options.Ports {
		for _, node := range c.nodes {
			wanted = append(wanted, want{what: fmt.Sprintf("the %s port of %s", port.Name, node), take: func(address string) {
				c.listen[endpoint{node, port.Name}] = address
			}})
		}
	}
	for _, port := range c.options.Ports {
		for _, to := range c.nodes {
			senders := []string{clusters.Client}
			if port.Peer {
				senders = c.nodes
			}
			for _, from := range senders {
				if from == to {
					continue
				}
				wanted = append(wanted, want{what: fmt.Sprintf("the link from %s to %s", from, to), datagrams: true, take: func(address string) {
					c.dial[link{from, to, port.Name}] = address
					c.links[to] = append(c.links[to], clusters.Link{From: from, To: to, Listen: address, Target: c.listen[endpoint{to, port.Name}]})
				}})
			}
		}
	}
	c.release, err = choosePorts(wanted, c.options.BasePort)
	return err
}

// makeDirs makes the hosts' directories and notes what it made.
func (c *Cluster) makeDirs() error {
	if _, err := os.Stat(c.options.Dir); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(c.options.Dir, 0o755); err != nil {
			return err
		}
		c.made = append(c.made, c.options.Dir)
	}
	for _, node := range c.nodes {
		dir := filepath.Join(c.options.Dir, node)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("make the directory of %s: %w", node, err)
		}
		c.made = append(c.made, dir)
		c.hosts[node] = &host{name: node, dir: dir, sessions: make(map[*session]struct{})}
	}
	return nil
}

// removeDirs removes what makeDirs made. The common directory goes only when it is empty:
// what somebody else put there stays.
func (c *Cluster) removeDirs() error {
	var problems []error
	for i := len(c.made) - 1; i >= 0; i-- {
		if dir := c.made[i]; dir == c.options.Dir {
			_ = os.Remove(dir) // not empty: see above
		} else {
			problems = append(problems, os.RemoveAll(dir))
		}
	}
	return errors.Join(problems...)
}

// Kind is "local".
func (c *Cluster) Kind() string { return "local" }

// Nodes returns n1 to nN.
func (c *Cluster) Nodes() []string { return c.nodes }

// Host returns a node's host.
func (c *Cluster) Host(node string) clusters.Host {
	h, ok := c.hosts[node]
	if !ok {
		panic("local cluster: no node " + node)
	}
	return h
}

// Listen returns the address that a node's process binds.
func (c *Cluster) Listen(node, port string) string {
	address, ok := c.listen[endpoint{node, port}]
	if !ok {
		panic("local cluster: no port " + port + " of node " + node)
	}
	return address
}

// Dial returns the link from one node, or from clients, to another; where there is none,
// the address that the process binds.
func (c *Cluster) Dial(from, to, port string) string {
	if address, ok := c.dial[link{from, to, port}]; ok {
		return address
	}
	return c.Listen(to, port)
}

// Links returns the links that the agent of a node serves.
func (c *Cluster) Links(to string) []clusters.Link { return c.links[to] }

// Close ends the programs that are still attached and removes the hosts' directories,
// unless they are to be kept.
func (c *Cluster) Close(context.Context) error {
	var mu sync.Mutex
	var problems []error
	var hosts sync.WaitGroup
	for _, h := range c.hosts {
		hosts.Go(func() {
			err := h.detach()
			mu.Lock()
			defer mu.Unlock()
			problems = append(problems, err)
		})
	}
	hosts.Wait()
	c.release()
	if !c.options.Keep {
		problems = append(problems, c.removeDirs())
	}
	return errors.Join(problems...)
}
