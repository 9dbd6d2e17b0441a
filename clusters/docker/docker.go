// Package docker runs a cluster in containers that run sshd and nothing else: from there
// on it is a cluster of hosts reached over SSH, with keys made for this run alone.
//
// Everything that is created carries labels and a name with the run's id, and nothing
// else is ever touched.
package docker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"capsize/clusters"
	hosts "capsize/clusters/ssh"
)

// Options say what cluster to make.
type Options struct {
	Run   string // the run's id, part of all names
	Image string
	Nodes int
	Ports []clusters.Port
	// Disks gives the containers what a file system of the agent takes: /dev/fuse, and the right
	// to mount (CAP_SYS_ADMIN). Where the engine's machine has no such device they go without.
	Disks bool
}

// Labels of everything that this package creates.
const (
	labelOurs    = "capsize"
	labelRun     = "capsize.run"
	labelCluster = "capsize.cluster" // tells apart clusters whose run has the same id
	labelChecker = "capsize.checker" // which process made it: see owner
)

const (
	createLimit = 30 * time.Second
	removeLimit = 30 * time.Second
	sshdLimit   = 15 * time.Second // from a container's start until its sshd answers
	engineLimit = 5 * time.Second  // for a question to the engine
)

// retransmitMost is how long TCP may stay silent after a partition has healed.
const retransmitMost = "net.ipv4.tcp_rto_max_ms"

// Cluster is a cluster of containers.
type Cluster struct {
	*hosts.Cluster
	options Options
	id      string // of this cluster alone
	sysctl  string // that containers get where their kernel has it
	engine  *client.Client
	network string
	nodes   []*node
	key     ssh.Signer // of this run: it lives in memory
}

// Machines returns how the nodes are reached by SSH, in their order, and with what key: for who
// wants connections of its own.
func (c *Cluster) Machines() ([]hosts.Machine, ssh.Signer) {
	machines := make([]hosts.Machine, len(c.nodes))
	for i, n := range c.nodes {
		machines[i] = hosts.Machine{Node: n.name, Address: n.address, Port: 22, User: "root", HostKey: hosts.Pinned(n.hostKey)}
	}
	return machines, c.key
}

// New creates a network and one container a node, all at once, and connects to them.
// When it fails, or ctx ends, everything made until then is removed.
func New(ctx context.Context, options Options) (*Cluster, error) {
	return newCluster(ctx, options, retransmitMost)
}

func newCluster(ctx context.Context, options Options, sysctl string) (*Cluster, error) {
	if options.Nodes < 1 {
		return nil, fmt.Errorf("docker cluster: %d nodes: want at least one", options.Nodes)
	}
	engine, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	c := &Cluster{options: options, id: newID(), sysctl: sysctl, engine: engine}
	if err := c.create(ctx); err != nil {
		err = errors.Join(fmt.Errorf("docker cluster: %w", err), c.remove(context.WithoutCancel(ctx)))
		return nil, errors.Join(err, engine.Close())
	}
	return c, nil
}

// connect finds the engine and agrees with it on the version of its interface.
func connect(ctx context.Context) (*client.Client, error) {
	engine, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("docker cluster: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, engineLimit)
	defer cancel()
	if _, err := engine.Ping(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("docker cluster: no Docker engine answers at %s: %w; start one (ci/engine does, as root on Debian) or use --cluster local", engine.DaemonHost(), err), engine.Close())
	}
	return engine, nil
}

func (c *Cluster) create(ctx context.Context) error {
	if err := c.findImage(ctx); err != nil {
		return err
	}
	var err error
	if _, c.key, err = newKey(); err != nil {
		return err
	}
	if err := c.createNetwork(ctx); err != nil {
		return err
	}
	authorized := ssh.MarshalAuthorizedKey(c.key.PublicKey())
	group, groupCtx := errgroup.WithContext(ctx)
	for i := range c.options.Nodes {
		n := &node{name: fmt.Sprintf("n%d", i+1)}
		n.container = c.prefix() + "-" + n.name
		c.nodes = append(c.nodes, n)
		group.Go(func() error { return c.createNode(groupCtx, n, authorized) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return c.connectHosts(ctx)
}

func (c *Cluster) findImage(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, engineLimit)
	defer cancel()
	_, err := c.engine.ImageInspect(ctx, c.options.Image)
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("there is no image %s: make it with ci/base-image", c.options.Image)
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", c.options.Image, err)
	}
	return nil
}

func (c *Cluster) prefix() string { return "capsize-" + c.options.Run }

func (c *Cluster) labels() map[string]string {
	return map[string]string{labelOurs: "true", labelRun: c.options.Run, labelCluster: c.id, labelChecker: owner()}
}

// createNetwork makes a bridge that only this cluster is on and that leads nowhere else.
func (c *Cluster) createNetwork(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	ctx, cancel := uncut(ctx)
	defer cancel()
	made, err := c.engine.NetworkCreate(ctx, c.prefix(), network.CreateOptions{Driver: "bridge", Internal: true, Labels: c.labels()})
	if err != nil {
		return fmt.Errorf("create network %s: %w", c.prefix(), explain(err))
	}
	c.network = made.ID
	return nil
}

// explain says what to do about what the engine refuses. For a lack of subnets it has no
// error of its own, and its words differ between versions 20 and 27.
func explain(err error) error {
	switch text := err.Error(); {
	case errdefs.IsConflict(err), strings.Contains(text, "already exists"):
		return fmt.Errorf("the name is in use: %w; another run has this id, or a killed one left it (checker clean removes that)", err)
	case strings.Contains(text, "non-overlapping IPv4 address pool"), strings.Contains(text, "predefined address pools"):
		return fmt.Errorf("the engine has no subnet left: %w; remove networks that nobody uses (checker clean, docker network prune), or give it more in default-address-pools", err)
	}
	return err
}

// uncut lets a call to the engine come to its end when ctx ends: one that is cut short may
// still create something, after we have looked for what to remove.
func uncut(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), createLimit)
}

// connectHosts waits until every sshd shows the key that it was given, or a container ends.
func (c *Cluster) connectHosts(ctx context.Context) error {
	machines, key := c.Machines()
	watched, stop := context.WithCancelCause(ctx)
	var watch errgroup.Group
	for _, n := range c.nodes {
		watch.Go(func() error {
			if err := c.ended(watched, n); err != nil {
				stop(err)
			}
			return nil
		})
	}
	cluster, err := hosts.Connect(watched, hosts.ConnectOptions{
		Run: c.options.Run, Kind: "docker", Machines: machines, Key: key, Ports: c.options.Ports, Patience: sshdLimit,
		Keep: true, // the containers go, and their files with them
	})
	stop(nil)
	_ = watch.Wait() // it has told stop
	c.Cluster = cluster
	return err
}

// Close ends the sessions and removes the containers and the network.
func (c *Cluster) Close(ctx context.Context) error {
	return errors.Join(c.Cluster.Close(ctx), c.remove(ctx), c.engine.Close())
}

// remove removes what create made, however far it came. What is to be removed is found by
// label: something whose creation was cut short may exist without our knowing.
func (c *Cluster) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, removeLimit)
	defer cancel()
	_, err := removeLabelled(ctx, c.engine, labelCluster+"="+c.id, everything)
	return err
}
