// Package ssh runs a cluster on hosts that exist already, reached over SSH. Host keys are
// always checked. Every call is bounded in time, also when a host freezes: the library's
// own time-outs do not cover the handshake and a connection that has gone silent.
package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/sync/errgroup"

	"capsize/clusters"
)

// Options say which hosts make the cluster.
type Options struct {
	Run        string   // the run's id
	Hosts      []string // [user@]host[:port] of each node, in order; the user is root unless told
	Key        string   // path of the private key
	KnownHosts string   // path of the known_hosts file
	Ports      []clusters.Port
	Keep       bool // leave the run's directory on the hosts
}

// root is where runs keep their files on a host; nothing else of a host is touched.
const root = "/var/lib/capsize"

// New connects to all hosts and makes the run's directory on each.
func New(ctx context.Context, options Options) (*Cluster, error) {
	key, err := os.ReadFile(options.Key)
	if err != nil {
		return nil, fmt.Errorf("ssh cluster: read the private key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("ssh cluster: private key %s: %w", options.Key, err)
	}
	known, err := knownhosts.New(options.KnownHosts)
	if err != nil {
		return nil, fmt.Errorf("ssh cluster: read the known hosts: %w", err)
	}
	machines := make([]Machine, 0, len(options.Hosts))
	for i, host := range options.Hosts {
		machine, err := parseHost(host)
		if err != nil {
			return nil, fmt.Errorf("ssh cluster: host %q: %w", host, err)
		}
		machine.Node = fmt.Sprintf("n%d", i+1)
		machine.HostKey = known
		machines = append(machines, machine)
	}
	return Connect(ctx, ConnectOptions{Run: options.Run, Kind: "ssh", Machines: machines, Key: signer, Ports: options.Ports, Keep: options.Keep})
}

func parseHost(s string) (Machine, error) {
	m := Machine{User: "root", Port: 22}
	if user, rest, ok := strings.Cut(s, "@"); ok {
		m.User, s = user, rest
	}
	m.Address = s
	if host, port, err := net.SplitHostPort(s); err == nil {
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return m, fmt.Errorf("port %q: want a number up to 65535", port)
		}
		m.Address, m.Port = host, uint(number)
	}
	if m.Address == "" || m.User == "" || strings.ContainsAny(m.Address, " /") {
		return m, errors.New("want [user@]host[:port]")
	}
	return m, nil
}

// Machine is a host that runs sshd.
type Machine struct {
	Node    string
	Address string // host name or IP address, without port
	Port    uint   // of sshd
	User    string
	HostKey ssh.HostKeyCallback
}

// ConnectOptions say how to reach machines.
type ConnectOptions struct {
	Run      string
	Kind     string
	Machines []Machine
	Key      ssh.Signer
	Ports    []clusters.Port
	Keep     bool
}

// Cluster is a set of hosts reached over SSH.
type Cluster struct {
	options ConnectOptions
	nodes   []string
	hosts   map[string]*host
}

// Connect connects to all machines in parallel and makes the run's directory on each.
func Connect(ctx context.Context, options ConnectOptions) (*Cluster, error) {
	c := &Cluster{options: options, hosts: make(map[string]*host)}
	var mu sync.Mutex
	group, groupCtx := errgroup.WithContext(ctx)
	for _, machine := range options.Machines {
		c.nodes = append(c.nodes, machine.Node)
		group.Go(func() error {
			h, err := connect(groupCtx, machine, options.Key, path.Join(root, options.Run))
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			c.hosts[machine.Node] = h
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, errors.Join(err, c.disconnect())
	}
	return c, nil
}

// Kind is "ssh", or what the cluster was connected as.
func (c *Cluster) Kind() string { return c.options.Kind }

// Nodes returns n1 to nN.
func (c *Cluster) Nodes() []string { return c.nodes }

// Host returns a node's host.
func (c *Cluster) Host(node string) clusters.Host {
	h, ok := c.hosts[node]
	if !ok {
		panic("ssh cluster: no node " + node)
	}
	return h
}

// Listen returns the host's address with the port's number.
func (c *Cluster) Listen(node, port string) string {
	at := slices.IndexFunc(c.options.Ports, func(p clusters.Port) bool { return p.Name == port })
	if at < 0 {
		panic("ssh cluster: no port " + port)
	}
	return net.JoinHostPort(c.hosts[node].machine.Address, strconv.Itoa(c.options.Ports[at].Number))
}

// Dial returns the same as Listen: partitions are made in the hosts' kernels.
func (c *Cluster) Dial(_, to, port string) string { return c.Listen(to, port) }

// Links returns none.
func (c *Cluster) Links(string) []clusters.Link { return nil }

// Close removes the run's directories, unless they are to be kept, and disconnects.
func (c *Cluster) Close(ctx context.Context) error {
	var problems []error
	if !c.options.Keep {
		group, ctx := errgroup.WithContext(ctx)
		for _, h := range c.hosts {
			group.Go(func() error { return h.removeDir(ctx) })
		}
		problems = append(problems, group.Wait())
	}
	return errors.Join(append(problems, c.disconnect())...)
}

func (c *Cluster) disconnect() error {
	var problems []error
	for _, h := range c.hosts {
		problems = append(problems, h.disconnect())
	}
	return errors.Join(problems...)
}
