//go:build linux

package nemesis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"capsize/clusters"
	"capsize/histories"
	"capsize/nemesis/agent"
)

// The tests of this file run in a network namespace of their own: the test binary calls
// itself in one, where a bridge stands for the network and the tests for the checker's
// machine. Each agent gets a namespace below that, with a cable to the bridge. Nothing
// outside of them is touched.

const (
	kernelClientPort = 7080
	controllerAt     = 100 // the last part of the controller's address; that of n1 is 1
)

// kernelAddress is the address of a machine on the bridge.
func kernelAddress(family string, machine int) string {
	if family == "IPv6" {
		return fmt.Sprintf("fd00:7::%d", machine)
	}
	return fmt.Sprintf("10.7.0.%d", machine)
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func networkMain(m *testing.M) int {
	problems := []error{ip("link", "set", "lo", "up"), ip("link", "add", "bridge0", "type", "bridge"), ip("link", "set", "bridge0", "up")}
	for family, bits := range map[string]string{"IPv4": "/24", "IPv6": "/64"} {
		problems = append(problems, addAddress(nil, kernelAddress(family, controllerAt)+bits, "bridge0"))
	}
	if err := errors.Join(problems...); err != nil {
		fmt.Fprintln(os.Stderr, "SKIP: prepare the network namespace:", err)
		return 0
	}
	return m.Run()
}

// addAddress adds an address without waiting for others to object to it.
func addAddress(within []string, address, device string) error {
	args := append(slices.Clone(within), "ip", "address", "add", address, "dev", device)
	if strings.Contains(address, ":") {
		args = append(args, "nodad")
	}
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// inNamespace reports whether the test runs in its own namespace; else it starts it there
// and the caller is done.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(roleVariable) == "network" {
		return true
	}
	command := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=120s")
	command.Env = append(os.Environ(), roleVariable+"=network", leaveAtOnce)
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := command.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM):
		t.Skipf("a network namespace takes root: %v", err)
	case strings.Contains(string(out), "SKIP: ") || strings.Contains(string(out), "--- SKIP"):
		t.Skipf("%s", out)
	case err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Fatalf("in its own network namespace: %v\n%s", err, out)
	}
	return false
}

// kernelCluster is nodes with addresses of their own, whose partitions the kernel makes.
type kernelCluster struct {
	*testCluster
	family string
}

func (c *kernelCluster) Kind() string                 { return "ssh" }
func (c *kernelCluster) Links(string) []clusters.Link { return nil }
func (c *kernelCluster) Host(node string) clusters.Host {
	return &kernelHost{testHost{c.testCluster, node}, c}
}
func (c *kernelCluster) Dial(_, to, port string) string { return c.Listen(to, port) }
func (c *kernelCluster) Listen(node, port string) string {
	number := kernelClientPort
	if port == "peer" {
		number = 7070
	}
	return net.JoinHostPort(c.address(node), strconv.Itoa(number))
}

func (c *kernelCluster) address(node string) string {
	return kernelAddress(c.family, 1+slices.Index(c.nodes, node))
}

type kernelHost struct {
	testHost
	kernel *kernelCluster
}

// Attach starts the agent in a namespace, as sshd would, and plugs its cable in.
func (h *kernelHost) Attach(ctx context.Context, argv []string) (io.ReadWriteCloser, error) {
	role := h.cluster.roles[h.node]
	if role == "" {
		role = "agent"
	}
	address := h.kernel.address(h.node)
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.Env = append(os.Environ(), roleVariable+"="+role, leaveAtOnce,
		fmt.Sprintf("SSH_CONNECTION=%s 50000 %s 22", kernelAddress(h.kernel.family, controllerAt), address))
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	in, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	h.cluster.mu.Lock()
	h.cluster.agents[h.node] = command
	h.cluster.mu.Unlock()
	cable := fmt.Sprintf("cable%d", command.Process.Pid)
	bits := map[string]string{"IPv4": "/24", "IPv6": "/64"}[h.kernel.family]
	return &testStream{Reader: out, WriteCloser: in, out: out}, errors.Join(
		ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(command.Process.Pid)),
		ip("link", "set", cable, "master", "bridge0"), ip("link", "set", cable, "up"),
		within(command.Process.Pid, "link", "set", "lo", "up"), within(command.Process.Pid, "link", "set", "eth0", "up"),
		addAddress(nsenter(command.Process.Pid), address+bits, "eth0"),
	)
}

func nsenter(pid int) []string { return []string{"nsenter", "-t", strconv.Itoa(pid), "-n"} }

// within calls ip in the namespace of a process.
func within(pid int, args ...string) error {
	all := append(nsenter(pid), append([]string{"ip"}, args...)...)
	if out, err := exec.Command(all[0], all[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(all, " "), err, out)
	}
	return nil
}

func newKernelFixture(t *testing.T, family string, n int, change ...func(*testCluster)) *fixture {
	t.Helper()
	cluster := &kernelCluster{family: family, testCluster: &testCluster{
		dir: t.TempDir(), nodes: names(n), ports: map[string]string{}, links: map[string][]clusters.Link{},
		roles: map[string]string{}, agents: map[string]*exec.Cmd{},
	}}
	for _, change := range change {
		change(cluster.testCluster)
	}
	for _, node := range cluster.nodes {
		cluster.ports[node] = cluster.Listen(node, "client")
	}
	f := &fixture{testCluster: cluster.testCluster, t: t, exits: make(chan string, 100), lost: make(chan string, 100), recorded: &recorded{}}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var err error
	f.controller, err = Connect(ctx, cluster, ConnectOptions{
		Run: "test", Argv: func(string) []string { return []string{os.Args[0]} }, StopOnExpiry: true, ClientPorts: []string{"client"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	err = inParallel(cluster.nodes, func(node string) error {
		if err := f.controller.Start(ctx, node, cluster.process(node)); err != nil {
			return err
		}
		return cluster.serves(ctx, node)
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestClientsAndNodesAreCutInTheKernel(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for _, family := range []string{"IPv4", "IPv6"} {
		t.Run(family, func(t *testing.T) {
			f := newKernelFixture(t, family, 3)
			for _, node := range f.nodes {
				if mechanism := f.controller.Mechanism(node); mechanism != "nftables" {
					t.Skipf("%s: partitions are made by %s", node, mechanism)
				}
			}
			connects := func(node string, within time.Duration) bool {
				c, err := net.DialTimeout("tcp", f.ports[node], within)
				if err == nil {
					_ = c.Close()
				}
				return err == nil
			}
			for _, c := range []struct {
				params map[string]string
				want   []string
			}{
				{kindAnd(isolateLeader, "clients", "cut"), []string{
					"probes: 6 of 6 open pairs arrived, 0 of 6 cut pairs", "silent: client->n1 n1->client,n2,n3 n2->n1 n3->n1",
				}},
				{map[string]string{"kind": isolateLeader, "clients": "cut", "direction": outgoing}, []string{
					"probes: 9 of 9 open pairs arrived, 0 of 3 cut pairs", "silent: n1->client,n2,n3",
				}},
				{map[string]string{"kind": isolateLeader, "clients": "cut", "direction": incoming}, []string{
					"probes: 8 of 9 open pairs arrived, 0 of 3 cut pairs", "silent: client->n1 n2->n1 n3->n1",
					"not probed, since what they answer is cut: n1->client",
				}},
				{kindAnd(someLinks, "pairs", "n1-client,n3>n2"), []string{
					"probes: 9 of 9 open pairs arrived, 0 of 3 cut pairs", "silent: client->n1 n1->client n3->n2",
				}},
			} {
				held := dialTest(t, f.ports["n1"])
				f.during(Step{Fault: "partition", Duration: time.Minute, Params: c.params}, func() {
					if connects("n1", 2*window) || !connects("n2", patience) || !connects("n3", patience) {
						t.Errorf("%v: not just n1 is cut from clients", c.params)
					}
					held.say("during")
					if held.hears("during", window) {
						t.Errorf("%v: an open connection is answered", c.params)
					}
				})
				if proof := f.recorded.phase(t, 1, histories.Landed).Fault.Proof; !containsAll(proof, c.want) || !strings.Contains(proof[1], "held back so far: ") {
					t.Errorf("%v landed with the proof %q, want %q", c.params, proof, c.want)
				}
				if proof := f.recorded.phase(t, 1, histories.Healed).Fault.Proof; !slices.Contains(proof, "probes: 12 of 12 open pairs arrived, 0 of 0 cut pairs") {
					t.Errorf("%v healed with the proof %q", c.params, proof)
				}
				if !held.hears("during", patience) {
					t.Errorf("%v is healed, and the connection that was open is silent", c.params)
				}
			}
			// A node that is down refuses connections: its way is open all the same.
			if _, err := f.controller.Signal(t.Context(), "n3", "db", "kill"); err != nil {
				t.Fatal(err)
			}
			f.during(Step{Fault: "partition", Target: "n2", Duration: time.Minute, Params: kindOf(fromClients)}, func() {})
		})
	}
}

func TestANodeAloneCanBeCutFromClients(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	f := newKernelFixture(t, "IPv6", 1)
	f.during(Step{Fault: "partition", Duration: time.Minute, Params: kindOf(fromClients)}, func() {})
	if proof := f.recorded.phase(t, 1, histories.Landed).Fault.Proof; proof[0] != "probes: 0 of 0 open pairs arrived, 0 of 2 cut pairs" {
		t.Errorf("landed with the proof %q", proof)
	}
}

func containsAll(lines, want []string) bool {
	return !slices.ContainsFunc(want, func(line string) bool { return !slices.Contains(lines, line) })
}

// One way stays one way when a node forgets where its neighbour is.
func TestACutOfOneDirectionLetsNeighboursBeFound(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for _, family := range []string{"IPv4", "IPv6"} {
		t.Run(family, func(t *testing.T) {
			f := newKernelFixture(t, family, 3)
			f.during(Step{Fault: "partition", Duration: time.Minute, Params: kindAnd(someLinks, "pairs", "n2>n1")}, func() {
				if err := within(f.agents["n1"].Process.Pid, "neigh", "flush", "dev", "eth0"); err != nil {
					t.Fatal(err)
				}
				cut := agent.Pair{From: "n2", To: "n1"}
				found, err := f.controller.Probe(t.Context(), allPairs(f.nodes), func(pair agent.Pair) bool { return pair != cut }, 0)
				if err != nil || len(found.Arrived) != 5 || found.Arrived[cut] {
					t.Errorf("arrived %v, %v", found.Arrived, err)
				}
			})
		})
	}
}

func TestACutOfClientsThatTheKernelDoesNotMakeIsMissed(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	f := newKernelFixture(t, "IPv4", 3, func(c *testCluster) { c.roles["n2"] = "deaf agent" })
	n := f.nemesis(Step{Duration: short, Fault: "partition", Target: "n2", Params: kindOf(fromClients)})
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, histories.Inject, histories.Missed)
	if why := f.recorded.phase(t, 1, histories.Missed).Error; why != "probes arrived over what is cut: client->n2, n2->client" {
		t.Errorf("missed: %s", why)
	}
}

// A client port that somebody else keeps clients from is no cut of ours.
func TestSilenceThatNobodyCountedIsNotExplained(t *testing.T) {
	request, answer := agent.Pair{From: clusters.Client, To: "n1"}, agent.Pair{From: "n1", To: clusters.Client}
	for name, c := range map[string]struct {
		cut         []agent.Pair
		dropped     map[agent.Pair]uint64
		arrived     bool // the request
		unprobed    bool // the answer
		unexplained []agent.Pair
	}{
		"requests, counted":     {[]agent.Pair{request}, map[agent.Pair]uint64{request: 1}, false, true, nil},
		"requests, not counted": {[]agent.Pair{request}, nil, false, true, []agent.Pair{request}},
		"answers, counted":      {[]agent.Pair{answer}, map[agent.Pair]uint64{answer: 1}, true, false, nil},
		"answers, not counted":  {[]agent.Pair{answer}, nil, false, false, []agent.Pair{answer}},
		"both, counted":         {[]agent.Pair{request, answer}, map[agent.Pair]uint64{request: 1, answer: 1}, false, false, nil},
		"both, answers only":    {[]agent.Pair{request, answer}, map[agent.Pair]uint64{answer: 1}, false, false, []agent.Pair{request}},
		"nothing":               {nil, nil, false, false, nil},
	} {
		p := &connections{nodes: []string{"n1"}, addresses: map[string][]string{"n1": {"a", "b"}}, reached: map[string]bool{}}
		found := Probed{Arrived: make(map[agent.Pair]bool), Unprobed: make(map[agent.Pair]bool), Dropped: c.dropped}
		expected := func(pair agent.Pair) bool { return !slices.Contains(c.cut, pair) }
		p.collect(0, expected, &found)
		if found.Arrived[request] != c.arrived || found.Arrived[answer] || found.Unprobed[answer] != c.unprobed || !slices.Equal(found.Unexplained, c.unexplained) {
			t.Errorf("%s: %+v", name, found)
		}
		p.reached["a"] = true // of an open way both must be reached, of a cut one neither
		p.collect(0, expected, &found)
		if leaked := found.Arrived[request] && found.Arrived[answer]; leaked != (len(c.cut) > 0) {
			t.Errorf("%s, and one of two ports is reached: %+v", name, found)
		}
	}
}
