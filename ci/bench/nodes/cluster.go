package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// nodes is the size of both clusters.
const nodes = 3

// put writes a value and returns when it is durable on a majority. Each client has one of
// its own; it is called by one goroutine at a time.
type put func(ctx context.Context, key, value string) error

// system is what differs between the two that are compared.
type system interface {
	name() string
	// command is the command line of the node at position self, which keeps its data in dir.
	command(members []member, self int, dir string) []string
	// leads asks the node at a client address whether it leads. An error means not yet.
	leads(ctx context.Context, address string) (bool, error)
	// connect returns what each of so many clients calls, spread over the addresses. Where
	// clients share connections, it opens that many of them to each address.
	connect(ctx context.Context, addresses []string, clients, connections int) (puts []put, disconnect func(), err error)
}

// member is one node of a cluster.
type member struct {
	name   string
	client string // host:port
	peer   string // host:port
}

// cluster is a system that runs: three processes on loopback.
type cluster struct {
	system
	members   []member
	processes []*process
}

const (
	readyTimeout = 30 * time.Second
	retryPause   = 50 * time.Millisecond
	askTimeout   = time.Second
)

// startCluster starts three nodes with data and logs in dir, and returns when each of them
// has answered a put.
func startCluster(ctx context.Context, s system, dir string) (_ *cluster, err error) {
	c := &cluster{system: s}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start %s: %w", s.name(), err), c.alive())
			c.stop()
		}
	}()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	addresses, err := freeAddresses(2 * nodes)
	if err != nil {
		return nil, err
	}
	for i := range nodes {
		c.members = append(c.members, member{fmt.Sprintf("n%d", i+1), addresses[2*i], addresses[2*i+1]})
	}
	for i, m := range c.members {
		base := filepath.Join(dir, m.name)
		p, err := start(s.command(c.members, i, base), base+".log")
		if err != nil {
			return nil, err
		}
		c.processes = append(c.processes, p)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("not ready after %s", readyTimeout))
	defer cancel()
	for i := range c.members {
		if err := c.answers(ctx, i); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// answers waits until a node answers a put.
func (c *cluster) answers(ctx context.Context, node int) error {
	return c.until(ctx, func(ctx context.Context) error {
		puts, disconnect, err := c.connect(ctx, []string{c.members[node].client}, 1, 1)
		if err != nil {
			return err
		}
		defer disconnect()
		return puts[0](ctx, "ready", "1")
	})
}

// leader waits until a node leads and returns its position.
func (c *cluster) leader(ctx context.Context) (leader int, err error) {
	err = c.until(ctx, func(ctx context.Context) error {
		var problems []error
		for i, m := range c.members {
			leads, err := c.leads(ctx, m.client)
			if err == nil && leads {
				leader = i
				return nil
			}
			problems = append(problems, err)
		}
		return errors.Join(append(problems, errors.New("no node leads"))...)
	})
	return leader, err
}

// until tries until it works, a process is gone or ctx ends.
func (c *cluster) until(ctx context.Context, try func(ctx context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, askTimeout)
		err := try(attempt)
		cancel()
		if err == nil {
			return nil
		}
		if gone := c.alive(); gone != nil {
			return gone
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(retryPause):
		}
	}
}

// alive returns an error if a process has ended.
func (c *cluster) alive() error {
	for _, p := range c.processes {
		if err := p.alive(); err != nil {
			return err
		}
	}
	return nil
}

// stop ends every process.
func (c *cluster) stop() {
	for _, p := range c.processes {
		p.kill()
	}
}

// freeAddresses returns loopback addresses that were free a moment ago, each another.
func freeAddresses(n int) ([]string, error) {
	var addresses []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // open until all are found, so that no two are the same
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}
