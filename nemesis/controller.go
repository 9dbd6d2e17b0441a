package nemesis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"capsize/clusters"
	"capsize/nemesis/agent"
	"capsize/nemesis/agent/packets"
)

// Controller speaks to the agents of all nodes. It keeps their leases: when it goes, by
// Close or because this program dies, they heal everything that they did.
//
// Its methods may be called concurrently.
type Controller struct {
	cluster  clusters.Cluster
	options  ConnectOptions
	sessions map[string]*session
	cancel   context.CancelFunc // ends the attached sessions
	blocking sync.Mutex         // Blocks and Shapes follow one another on all nodes
}

// ConnectOptions say how to attach the agents and what to do about what they tell.
type ConnectOptions struct {
	Run string // the run's id
	// Argv returns the agent's command line on a node.
	Argv func(node string) []string
	// StopOnExpiry makes agents that lose their controller kill the processes that they
	// started. It is always so where partitions are made by link proxies: those end with
	// the agent, and nodes that cannot talk to each other are of no use.
	StopOnExpiry bool
	// OnExit is called when a process ended that nobody signalled, OnLost when an agent is
	// lost. They must not block, and not call the Controller. Either may be nil.
	OnExit func(node string, exit agent.Exited)
	OnLost func(node string, err error)

	// Port is the name of the port at which nodes reach each other: on clusters without
	// links it tells their addresses. Empty means "peer".
	Port string
	// ClientPorts are the names of the ports at which the checker's clients reach the
	// system, where partitions are made in the kernel. Without any, clients cannot be cut
	// there; on clusters with links the links of clients say the same.
	ClientPorts []string
	// ProbePort is the UDP port of agents for probes, on clusters without links; 0 means
	// 47983.
	ProbePort int
	Lease     time.Duration // silence after which agents heal; 0 means 5 s
	Ping      time.Duration // how often leases are renewed; 0 means 1 s
}

const (
	helloLimit   = 10 * time.Second
	answerTime   = 50 * time.Millisecond // for an answer to come back before its deadline
	resolveLimit = 5 * time.Second
)

func (o ConnectOptions) withDefaults() ConnectOptions {
	if o.Port == "" {
		o.Port = "peer"
	}
	if o.ProbePort == 0 {
		o.ProbePort = 47983
	}
	if o.Lease == 0 {
		o.Lease = 5 * time.Second
	}
	if o.Ping == 0 {
		o.Ping = time.Second
	}
	if o.OnExit == nil {
		o.OnExit = func(string, agent.Exited) {}
	}
	if o.OnLost == nil {
		o.OnLost = func(string, error) {}
	}
	return o
}

// Connect attaches an agent on every node of the cluster, all in parallel. On an error
// none stays attached. The agents live until Close, whatever becomes of ctx afterwards.
func Connect(ctx context.Context, cluster clusters.Cluster, options ConnectOptions) (*Controller, error) {
	c := &Controller{cluster: cluster, options: options.withDefaults(), sessions: make(map[string]*session)}
	var lifetime context.Context
	lifetime, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	release := context.AfterFunc(ctx, c.cancel)
	var mu sync.Mutex
	err := c.everywhere(func(node string) error {
		s, err := c.attach(ctx, lifetime, node)
		if err != nil {
			return fmt.Errorf("attach the agent on %s: %w", node, err)
		}
		mu.Lock()
		defer mu.Unlock()
		c.sessions[node] = s
		return nil
	})
	if !release() && err == nil {
		err = fmt.Errorf("attach the agents: %w", context.Cause(ctx))
	}
	if err != nil {
		for _, s := range c.sessions {
			err = errors.Join(err, c.giveUp(s))
		}
		c.cancel()
		return nil, err
	}
	return c, nil
}

// attach starts one agent and greets it. Only the greeting is bound by ctx; the session
// lives on.
func (c *Controller) attach(ctx, lifetime context.Context, node string) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, helloLimit)
	defer cancel()
	hello, err := c.hello(ctx, node)
	if err != nil {
		return nil, err
	}
	// The context of an attach may end the session later, so it is not ctx: only a timer
	// cuts it short.
	attaching, giveUp := context.WithCancel(lifetime)
	late := time.AfterFunc(helloLimit, giveUp)
	stream, err := c.cluster.Host(node).Attach(attaching, c.options.Argv(node))
	if !late.Stop() && err == nil {
		err = errors.Join(context.DeadlineExceeded, stream.Close())
	}
	if err != nil {
		giveUp()
		return nil, err
	}
	s := newSession(node, stream)
	lost := func(err error) { c.options.OnLost(node, err) }
	s.mu.Lock()
	s.leaving = true // until it has answered, its end is our error and no loss
	s.mu.Unlock()
	s.begin(func(e agent.Exited) { c.options.OnExit(node, e) }, lost)
	reply, err := s.call(ctx, agent.Request{Hello: hello})
	if err == nil && (reply.Hello == nil || reply.Hello.Version != agent.Version) {
		err = fmt.Errorf("it answered hello with %+v", reply)
	}
	if err != nil {
		return nil, errors.Join(err, c.giveUp(s))
	}
	s.mu.Lock()
	s.mechanism, s.leaving = reply.Hello.Links, false
	err = s.err
	s.mu.Unlock()
	if err != nil {
		return nil, errors.Join(err, c.giveUp(s))
	}
	s.ping(c.options.Ping, c.options.Lease, lost)
	return s, nil
}

// giveUp ends a session that came to nothing.
func (c *Controller) giveUp(s *session) error {
	ctx, cancel := context.WithTimeout(context.Background(), helloLimit)
	defer cancel()
	return s.abandon(ctx)
}

// hello says who a node is and how it reaches the others.
func (c *Controller) hello(ctx context.Context, node string) (*agent.Hello, error) {
	h := &agent.Hello{
		Version: agent.Version, Run: c.options.Run, Node: node, Dir: c.cluster.Host(node).Dir(),
		Peers: make(map[string]agent.Peer), Links: c.cluster.Links(node), Lease: c.options.Lease,
		StopOnExpiry: c.options.StopOnExpiry, HostClock: c.cluster.Kind() == "ssh",
	}
	linked := false
	for _, to := range c.cluster.Nodes() {
		h.Peers[to] = agent.Peer{}
		for _, link := range c.cluster.Links(to) {
			linked = true
			if link.From == node {
				h.Peers[to] = agent.Peer{Probe: link.Listen}
			}
		}
	}
	if linked {
		h.StopOnExpiry = true
		return h, nil
	}
	if err := c.addresses(ctx, h); err != nil {
		return nil, err
	}
	return h, nil
}

// addresses tells an agent under which addresses its kernel sees peers and clients.
func (c *Controller) addresses(ctx context.Context, h *agent.Hello) error {
	for _, name := range c.options.ClientPorts {
		_, port, err := net.SplitHostPort(c.cluster.Listen(h.Node, name))
		if err != nil {
			return fmt.Errorf("find the %s port: %w", name, err)
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			return fmt.Errorf("find the %s port: %w", name, err)
		}
		h.ClientPorts = append(h.ClientPorts, number)
	}
	if len(h.Peers) == 1 && len(h.ClientPorts) == 0 {
		return nil // a node alone needs no address
	}
	families := make(map[bool]string) // a node of each, by whether it is IPv4
	for _, to := range c.cluster.Nodes() {
		address := c.cluster.Listen(to, c.options.Port)
		if to != h.Node {
			address = c.cluster.Dial(h.Node, to, c.options.Port)
		}
		ip, err := addressOf(ctx, address)
		if err != nil {
			return fmt.Errorf("find the address of %s: %w", to, err)
		}
		families[net.ParseIP(ip).To4() != nil] = to
		h.Peers[to] = agent.Peer{Address: ip, Probe: net.JoinHostPort(ip, strconv.Itoa(c.options.ProbePort))}
	}
	if len(families) == 2 {
		return fmt.Errorf("%s has an IPv4 address and %s an IPv6 one, so neither is known by what it sends to the other: name all hosts by addresses of one family", families[true], families[false])
	}
	return nil
}

// addressOf returns the IP address in a host:port.
func addressOf(ctx context.Context, address string) (string, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, resolveLimit)
	defer cancel()
	ips, err := net.DefaultResolver.LookupHost(ctx, host) // an address is returned as it is
	if err != nil {
		return "", err
	}
	return ips[0], nil
}

// Nodes returns the nodes' names, in order.
func (c *Controller) Nodes() []string { return c.cluster.Nodes() }

// Mechanism says how partitions are made on a node: "nftables", "proxy", or "none: why".
func (c *Controller) Mechanism(node string) string { return c.sessions[node].mechanism }

// Survey asks the agents what they can do on their nodes.
func (c *Controller) Survey(ctx context.Context) (map[string][]agent.Ability, error) {
	var mu sync.Mutex
	abilities := make(map[string][]agent.Ability)
	err := c.everywhere(func(node string) error {
		reply, err := c.call(ctx, node, agent.Request{Survey: &struct{}{}})
		if err == nil && reply.Survey != nil {
			mu.Lock()
			defer mu.Unlock()
			abilities[node] = reply.Survey.Abilities
		}
		return err
	})
	return abilities, err
}

// Start starts a process on a node, or starts it again after it has ended.
func (c *Controller) Start(ctx context.Context, node string, process clusters.Process) error {
	_, err := c.call(ctx, node, agent.Request{Start: &agent.Start{Process: process}})
	return err
}

// Signal sends a signal ("kill", "term", "stop", "cont") to a process and returns when its
// effect was seen. The error is [ErrEnded] where the process had ended by itself. "term"
// takes as long as the process does; ctx bounds it.
func (c *Controller) Signal(ctx context.Context, node, process, signal string) (agent.SignalReply, error) {
	request := agent.Request{Signal: &agent.Signal{Process: process, Signal: signal}}
	if end, bounded := ctx.Deadline(); bounded && signal == "term" {
		request.Signal.Limit = max(time.Until(end)-answerTime, time.Millisecond) // so that it says why
	}
	var reply agent.Reply
	var err error
	if signal == "term" {
		reply, err = c.sessions[node].call(ctx, request)
	} else {
		reply, err = c.call(ctx, node, request)
	}
	if err != nil || reply.Signal == nil {
		return agent.SignalReply{}, err
	}
	return *reply.Signal, nil
}

// Block makes exactly these pairs cut, on all nodes in parallel. It returns what was
// dropped by the cut before, of each pair where that is anything: packets or bytes, as the
// mechanism counts them. On an error the cut is not as it was asked for: some nodes may
// have done their part.
func (c *Controller) Block(ctx context.Context, pairs []agent.Pair) (map[agent.Pair]uint64, error) {
	c.blocking.Lock()
	defer c.blocking.Unlock()
	var mu sync.Mutex
	dropped := make(map[agent.Pair]uint64)
	err := c.everywhere(func(node string) error {
		reply, err := c.call(ctx, node, agent.Request{Block: &agent.Block{Pairs: pairs}})
		if err == nil && reply.Block != nil {
			mu.Lock()
			defer mu.Unlock()
			add(dropped, reply.Block.Dropped)
		}
		return err
	})
	return dropped, err
}

// Shape makes the network of exactly these pairs bad, on all nodes in parallel. It returns what
// was done to the packets of each pair since the agents began. On an error some nodes may have
// done their part.
func (c *Controller) Shape(ctx context.Context, pairs []agent.ShapedPair) (map[agent.Pair]packets.Count, error) {
	c.blocking.Lock()
	defer c.blocking.Unlock()
	var mu sync.Mutex
	counts := make(map[agent.Pair]packets.Count)
	err := c.everywhere(func(node string) error {
		reply, err := c.call(ctx, node, agent.Request{Shape: &agent.Shape{Pairs: pairs}})
		if err == nil && reply.Shape != nil {
			mu.Lock()
			defer mu.Unlock()
			for _, one := range reply.Shape.Counts {
				counts[one.Pair] = counts[one.Pair].Add(one.Count)
			}
		}
		return err
	})
	return counts, err
}

// add adds what an agent counted to what others did: over links, what a node sends is held
// by the receivers of its connections, and what it answers by itself.
func add(sum map[agent.Pair]uint64, dropped []agent.Dropped) {
	for _, d := range dropped {
		sum[d.Pair] += d.Amount
	}
}

// Close makes all agents heal what they did, stop the processes that they started, and
// leave. It returns when they have, or ctx ends.
func (c *Controller) Close(ctx context.Context) error {
	err := c.everywhere(func(node string) error {
		s := c.sessions[node]
		return errors.Join(s.bye(ctx), s.abandon(ctx))
	})
	c.cancel()
	return err
}

// call makes a request with the deadline of one that is answered quickly.
func (c *Controller) call(ctx context.Context, node string, r agent.Request) (agent.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	return c.sessions[node].call(ctx, r)
}

// everywhere does something for all nodes in parallel.
func (c *Controller) everywhere(do func(node string) error) error {
	return inParallel(c.Nodes(), do)
}

// inParallel does something for several nodes at once, waits for all, and returns their
// errors in the nodes' order.
func inParallel(nodes []string, do func(node string) error) error {
	problems := make([]error, len(nodes))
	var work sync.WaitGroup
	for i, node := range nodes {
		work.Go(func() { problems[i] = do(node) })
	}
	work.Wait()
	return errors.Join(problems...)
}

// sleep waits for d; it reports whether ctx is still live.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
