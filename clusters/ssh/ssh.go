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
	"time"

	"golang.org/x/crypto/ssh"

	"capsize/clusters"
)

// Options say which hosts make the cluster.
type Options struct {
	Run        string   // the run's id
	Hosts      []string // [user@]host[:port] of each node, in order; the user is root unless told
	Key        string   // path of the private key
	KnownHosts string   // path of the known_hosts file
	Ports      []clusters.Port
	Dir        string // absolute, on the hosts; empty means /var/lib/capsize/<run>
	Keep       bool   // leave the run's directory on the hosts
}

// root is where runs keep their files on a host unless told otherwise.
const root = "/var/lib/capsize"

// New connects to all hosts and makes the run's directory on each.
func New(ctx context.Context, options Options) (*Cluster, error) {
	key, err := os.ReadFile(options.Key)
	if err != nil {
		return nil, fmt.Errorf("ssh cluster: read the private key (--ssh-key): %w", err)
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("ssh cluster: private key %s: %w", options.Key, err)
	}
	known, err := readKnownHosts(options.KnownHosts)
	if err != nil {
		return nil, fmt.Errorf("ssh cluster: read the known hosts (--ssh-known-hosts): %w", err)
	}
	machines := make([]Machine, 0, len(options.Hosts))
	for i, host := range options.Hosts {
		machine, err := parseHost(host)
		if err != nil {
			return nil, fmt.Errorf("ssh cluster: host %q: %w", host, err)
		}
		machine.Node = fmt.Sprintf("n%d", i+1)
		machine.HostKey, machine.KeyAlgorithms = known, algorithms(known, machine)
		machines = append(machines, machine)
	}
	return Connect(ctx, ConnectOptions{
		Run: options.Run, Kind: "ssh", Machines: machines, Key: signer, Ports: options.Ports, Dir: options.Dir, Keep: options.Keep,
	})
}

func parseHost(s string) (Machine, error) {
	m := Machine{User: "root", Port: 22}
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		m.User, s = s[:at], s[at+1:]
	}
	m.Address = s
	if host, port, err := net.SplitHostPort(s); err == nil {
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil || number == 0 {
			return m, fmt.Errorf("port %q: want a number from 1 to 65535", port)
		}
		m.Address, m.Port = host, uint(number)
	}
	m.Address = strings.TrimSuffix(strings.TrimPrefix(m.Address, "["), "]") // an IPv6 address without port
	if m.Address == "" || m.User == "" || strings.ContainsAny(m.Address, " /[]") {
		return m, errors.New("want [user@]host[:port]")
	}
	if strings.Contains(m.Address, ":") && net.ParseIP(m.Address) == nil {
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
	HostKey ssh.HostKeyCallback // required: see Pinned
	// KeyAlgorithms are those of the keys that HostKey knows; empty means all. Without
	// them a host with keys of several kinds may show one that is not known.
	KeyAlgorithms []string
}

// ConnectOptions say how to reach machines.
type ConnectOptions struct {
	Run      string
	Kind     string // what the cluster says it is
	Machines []Machine
	Key      ssh.Signer
	Ports    []clusters.Port
	Dir      string // absolute, on the hosts; empty means /var/lib/capsize/<run>
	Keep     bool   // leave the run's directory on the hosts
	// Patience is how long a machine that is just starting may take until its sshd
	// answers. 0: it must answer at once.
	Patience time.Duration
}

// Cluster is a set of hosts reached over SSH.
type Cluster struct {
	options ConnectOptions
	nodes   []string
	hosts   map[string]*host
}

// Connect connects to all machines in parallel and makes the run's directory on each. A
// directory that exists already is an error: it is not ours to fill, nor to remove. On an
// error nothing stays behind.
func Connect(ctx context.Context, options ConnectOptions) (*Cluster, error) {
	if options.Dir == "" {
		options.Dir = path.Join(root, options.Run)
	}
	if err := options.check(); err != nil {
		return nil, fmt.Errorf("%s cluster: %w", options.Kind, err)
	}
	c := &Cluster{options: options, hosts: make(map[string]*host)}
	c.options.Keep = false // until it is whole
	// The first failure ends the attempts on the others.
	connecting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, machine := range options.Machines {
		c.nodes = append(c.nodes, machine.Node)
		c.hosts[machine.Node] = newHost(machine, options.Dir)
	}
	err := c.everyHost(func(h *host) error {
		err := h.connect(connecting, options.Key, options.Patience)
		if err != nil {
			cancel(err)
		}
		return err
	})
	if err != nil {
		err = context.Cause(connecting) // without the others' echoes of it
		return nil, errors.Join(fmt.Errorf("%s cluster: %w", options.Kind, err), c.Close(context.WithoutCancel(ctx)))
	}
	c.options.Keep = options.Keep
	return c, nil
}

func (o ConnectOptions) check() error {
	if len(o.Machines) == 0 {
		return errors.New("no hosts (--hosts)")
	}
	if !path.IsAbs(o.Dir) || path.Clean(o.Dir) != o.Dir || path.Dir(o.Dir) == "/" {
		return fmt.Errorf("directory %q on the hosts: want an absolute path, two levels deep at least", o.Dir)
	}
	if o.Run == "" || strings.Contains(o.Run, "/") {
		return fmt.Errorf("run id %q: want a name", o.Run)
	}
	seen := make(map[string]string)
	for _, m := range o.Machines {
		address := net.JoinHostPort(m.Address, strconv.Itoa(int(m.Port)))
		if other, twice := seen[address]; twice {
			return fmt.Errorf("%s and %s are the same host, %s: want one host for each node", other, m.Node, address)
		}
		seen[address] = m.Node
		if m.HostKey == nil {
			return fmt.Errorf("%s: no host key to check against", m.Node)
		}
	}
	return nil
}

// everyHost does something on all hosts at once, on the others also when it fails on one.
func (c *Cluster) everyHost(do func(*host) error) error {
	problems := make([]error, len(c.nodes))
	var hosts sync.WaitGroup
	for i, node := range c.nodes {
		hosts.Go(func() { problems[i] = do(c.hosts[node]) })
	}
	hosts.Wait()
	return errors.Join(problems...)
}

// Kind is "ssh", or what the cluster was connected as.
func (c *Cluster) Kind() string { return c.options.Kind }

// Nodes returns n1 to nN.
func (c *Cluster) Nodes() []string { return c.nodes }

// Host returns a node's host.
func (c *Cluster) Host(node string) clusters.Host { return c.host(node) }

func (c *Cluster) host(node string) *host {
	h, ok := c.hosts[node]
	if !ok {
		panic(c.options.Kind + " cluster: no node " + node)
	}
	return h
}

// Listen returns the host's IP address, the one at which its sshd answered, with the
// port's number.
func (c *Cluster) Listen(node, port string) string {
	at := slices.IndexFunc(c.options.Ports, func(p clusters.Port) bool { return p.Name == port })
	if at < 0 {
		panic(c.options.Kind + " cluster: no port " + port)
	}
	return net.JoinHostPort(c.host(node).ip, strconv.Itoa(c.options.Ports[at].Number))
}

// Dial returns the same as Listen: partitions are made in the hosts' kernels.
func (c *Cluster) Dial(_, to, port string) string { return c.Listen(to, port) }

// Links returns none.
func (c *Cluster) Links(string) []clusters.Link { return nil }

// Close ends the programs that are still attached, removes the run's directories, unless
// they are to be kept, and disconnects. A host that does not answer delays it for some
// seconds and is named in the error; the others are cleaned all the same.
func (c *Cluster) Close(ctx context.Context) error {
	return c.everyHost(func(h *host) error {
		problems := []error{h.detach()}
		if !c.options.Keep {
			problems = append(problems, h.removeDir(ctx))
		}
		return errors.Join(append(problems, h.disconnect())...)
	})
}
