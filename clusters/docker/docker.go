// Package docker runs a cluster in containers that run sshd and nothing else: from there
// on it is a cluster of hosts reached over SSH, with keys made for this run alone.
//
// Everything that is created carries a label and a name with the run's id, and nothing
// else is ever touched.
package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
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
}

// Labels of everything that this package creates.
const (
	labelOurs    = "capsize"
	labelRun     = "capsize.run"
	labelChecker = "capsize.checker" // which process made it: see owner
)

const (
	createLimit = 30 * time.Second
	removeLimit = 30 * time.Second
	sshdLimit   = 15 * time.Second // from a container's start until its sshd answers
	engineLimit = 5 * time.Second
)

// Cluster is a cluster of containers.
type Cluster struct {
	*hosts.Cluster
	options Options
	engine  *client.Client
	network string
	nodes   []*node
}

// node is one container.
type node struct {
	name      string // n1
	container string // capsize-<run>-n1
	address   string
	hostKey   ed25519.PrivateKey
}

// New creates a network and one container a node, all at once, and connects to them.
// When it fails, or ctx ends, everything made until then is removed.
func New(ctx context.Context, options Options) (*Cluster, error) {
	engine, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	c := &Cluster{options: options, engine: engine}
	if err := c.create(ctx); err != nil {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeLimit)
		defer cancel()
		return nil, errors.Join(err, c.remove(cleanup))
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
	if _, err := c.engine.ImageInspect(ctx, c.options.Image); errdefs.IsNotFound(err) {
		return fmt.Errorf("docker cluster: there is no image %s: make it with ci/base-image", c.options.Image)
	} else if err != nil {
		return fmt.Errorf("docker cluster: image %s: %w", c.options.Image, err)
	}
	_, signer, err := newKey() // lives in memory, as long as the run
	if err != nil {
		return err
	}
	if err := c.createNetwork(ctx); err != nil {
		return err
	}
	authorized := ssh.MarshalAuthorizedKey(signer.PublicKey())
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
	return c.connectHosts(ctx, signer)
}

func (c *Cluster) prefix() string { return "capsize-" + c.options.Run }

func (c *Cluster) labels() map[string]string {
	return map[string]string{labelOurs: "true", labelRun: c.options.Run, labelChecker: owner()}
}

// createNetwork makes a bridge that only this cluster is on and that leads nowhere else.
func (c *Cluster) createNetwork(ctx context.Context) error {
	ctx, cancel := uncut(ctx)
	defer cancel()
	made, err := c.engine.NetworkCreate(ctx, c.prefix(), network.CreateOptions{Driver: "bridge", Internal: true, Labels: c.labels()})
	if err != nil {
		return fmt.Errorf("docker cluster: create network %s: %w (checker clean removes what killed runs left)", c.prefix(), err)
	}
	c.network = made.ID
	return nil
}

// uncut lets a call to the engine come to its end when ctx ends: one that is cut short may
// still create something, after we have looked for what to remove.
func uncut(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), createLimit)
}

func (c *Cluster) createNode(ctx context.Context, n *node, authorized []byte) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	ctx, cancel := uncut(ctx)
	defer cancel()
	init := true
	made, err := c.engine.ContainerCreate(ctx,
		&container.Config{Image: c.options.Image, Hostname: n.name, Labels: c.labels()},
		&container.HostConfig{
			Init:        &init,
			NetworkMode: container.NetworkMode(c.network),
			CapAdd:      []string{"NET_ADMIN"}, // for the agent's packet filter, inside the container's own network
			Sysctls:     sysctls(),
		}, nil, nil, n.container)
	if err != nil {
		return fmt.Errorf("docker cluster: create container %s: %w", n.container, err)
	}
	var signer ssh.Signer
	if n.hostKey, signer, err = newKey(); err != nil {
		return err
	}
	keys, err := keyFiles(n.hostKey, signer, authorized)
	if err != nil {
		return fmt.Errorf("docker cluster: keys of %s: %w", n.name, err)
	}
	if err := c.engine.CopyToContainer(ctx, made.ID, "/", keys, container.CopyToContainerOptions{}); err != nil {
		return fmt.Errorf("docker cluster: copy keys into %s: %w", n.container, err)
	}
	if err := c.engine.ContainerStart(ctx, made.ID, container.StartOptions{}); err != nil {
		return fmt.Errorf("docker cluster: start %s: %w", n.container, err)
	}
	info, err := c.engine.ContainerInspect(ctx, made.ID)
	if err != nil {
		return fmt.Errorf("docker cluster: inspect %s: %w", n.container, err)
	}
	for _, endpoint := range info.NetworkSettings.Networks {
		n.address = endpoint.IPAddress
	}
	if n.address == "" {
		return fmt.Errorf("docker cluster: %s has no address: it is %s", n.container, info.State.Status)
	}
	return nil
}

// retransmitMost is how long TCP may stay silent after a partition has healed.
const retransmitMost = "net.ipv4.tcp_rto_max_ms"

// sysctls bounds TCP's back-off in the containers where the kernel can (6.15 on): without
// that a connection that outlived a partition stays silent for seconds after the heal.
func sysctls() map[string]string {
	if _, err := os.Stat("/proc/sys/" + strings.ReplaceAll(retransmitMost, ".", "/")); err != nil {
		return nil
	}
	return map[string]string{retransmitMost: "1000"}
}

// connectHosts waits until every sshd shows the key that it was given.
func (c *Cluster) connectHosts(ctx context.Context, key ssh.Signer) error {
	machines := make([]hosts.Machine, len(c.nodes))
	for i, n := range c.nodes {
		public, err := ssh.NewPublicKey(n.hostKey.Public())
		if err != nil {
			return fmt.Errorf("docker cluster: key of %s: %w", n.name, err)
		}
		machines[i] = hosts.Machine{Node: n.name, Address: n.address, Port: 22, User: "root", HostKey: ssh.FixedHostKey(public)}
	}
	deadline := time.Now().Add(sshdLimit)
	for {
		cluster, err := hosts.Connect(ctx, hosts.ConnectOptions{
			Run: c.options.Run, Kind: "docker", Machines: machines, Key: key, Ports: c.options.Ports,
			Keep: true, // the containers go, and their files with them
		})
		if err == nil {
			c.Cluster = cluster
			return nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("docker cluster: %w", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Close removes the containers and the network.
func (c *Cluster) Close(ctx context.Context) error {
	return errors.Join(c.Cluster.Close(ctx), c.remove(ctx))
}

// remove removes what create made, however far it came. Containers that are to be removed
// are found by label: one whose creation was cut short may exist without our knowing.
func (c *Cluster) remove(ctx context.Context) error {
	_, err := removeRun(ctx, c.engine, c.options.Run)
	return errors.Join(err, c.engine.Close())
}

func newKey() (ed25519.PrivateKey, ssh.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("docker cluster: make a key: %w", err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("docker cluster: make a key: %w", err)
	}
	return key, signer, nil
}

// keyFiles returns the archive of the files that let the checker in, and let it know
// where it is.
func keyFiles(hostKey ed25519.PrivateKey, signer ssh.Signer, authorized []byte) (*bytes.Buffer, error) {
	block, err := ssh.MarshalPrivateKey(hostKey, "")
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, file := range []struct {
		name string
		mode int64
		data []byte
	}{
		{"root/.ssh/authorized_keys", 0o600, authorized},
		{"etc/ssh/ssh_host_ed25519_key", 0o600, pem.EncodeToMemory(block)},
		{"etc/ssh/ssh_host_ed25519_key.pub", 0o644, ssh.MarshalAuthorizedKey(signer.PublicKey())},
	} {
		if err := w.WriteHeader(&tar.Header{Name: file.name, Mode: file.mode, Size: int64(len(file.data))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(file.data); err != nil {
			return nil, err
		}
	}
	return &archive, w.Close()
}
