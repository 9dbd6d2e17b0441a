// Package local runs a cluster as plain processes on this machine: no root, no
// containers. Each host is a directory, each node listens on loopback, and every directed
// link between two nodes goes through a user-space proxy that an agent serves.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

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
}

type endpoint struct{ node, port string }

type link struct{ from, to, port string }

// New makes the hosts' directories and chooses the ports. It starts nothing.
func New(options Options) (*Cluster, error) {
	if !filepath.IsAbs(options.Dir) {
		return nil, fmt.Errorf("local cluster: directory %q is not absolute", options.Dir)
	}
	c := &Cluster{
		options: options, hosts: make(map[string]*host), listen: make(map[endpoint]string),
		links: make(map[string][]clusters.Link), dial: make(map[link]string),
	}
	for i := range options.Nodes {
		c.nodes = append(c.nodes, fmt.Sprintf("n%d", i+1))
	}
	if err := c.assignPorts(); err != nil {
		return nil, err
	}
	for _, node := range c.nodes {
		dir := filepath.Join(options.Dir, node)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("local cluster: make the directory of %s: %w", node, err)
		}
		c.hosts[node] = &host{name: node, dir: dir}
	}
	return c, nil
}

// assignPorts gives one port to each port of each node, and one to each directed link.
func (c *Cluster) assignPorts() error {
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
			for _, from := range c.nodes {
				if !port.Peer || from == to {
					continue
				}
				wanted = append(wanted, want{what: fmt.Sprintf("the link from %s to %s", from, to), datagrams: true, take: func(address string) {
					c.dial[link{from, to, port.Name}] = address
					c.links[to] = append(c.links[to], clusters.Link{From: from, To: to, Listen: address, Target: c.listen[endpoint{to, port.Name}]})
				}})
			}
		}
	}
	return choosePorts(wanted, c.options.BasePort)
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
func (c *Cluster) Listen(node, port string) string { return c.listen[endpoint{node, port}] }

// Dial returns the link from one node to another; for other ports, and for a node
// itself, the address that the process binds.
func (c *Cluster) Dial(from, to, port string) string {
	if address, ok := c.dial[link{from, to, port}]; ok {
		return address
	}
	return c.Listen(to, port)
}

// Links returns the links that the agent of a node serves.
func (c *Cluster) Links(to string) []clusters.Link { return c.links[to] }

// Close removes the hosts' directories, unless they are to be kept.
func (c *Cluster) Close(context.Context) error {
	if c.options.Keep {
		return nil
	}
	var problems []error
	for _, h := range c.hosts {
		problems = append(problems, os.RemoveAll(h.dir))
	}
	_ = os.Remove(c.options.Dir) // not empty: somebody else's files are in it, and stay
	return errors.Join(problems...)
}

// host is a directory on this machine.
type host struct{ name, dir string }

func (h *host) Name() string { return h.name }
func (h *host) Dir() string  { return h.dir }

func (h *host) Put(_ context.Context, local, name string, mode os.FileMode) error {
	if err := copyFile(local, filepath.Join(h.dir, name), mode); err != nil {
		return fmt.Errorf("put %s on %s: %w", name, h.name, err)
	}
	return nil
}

func (h *host) Get(_ context.Context, name, local string) error {
	if err := copyFile(filepath.Join(h.dir, name), local, 0o644); err != nil {
		return fmt.Errorf("get %s from %s: %w", name, h.name, err)
	}
	return nil
}

func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
