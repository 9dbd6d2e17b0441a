//go:build linux

package nemesis

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"capsize/clusters"
	"capsize/histories"
	"capsize/nemesis/agent"
	"capsize/nemesis/agent/limits"
)

const (
	patience     = 10 * time.Second
	roleVariable = "CAPSIZE_NEMESIS_TEST_ROLE"
	listenAt     = "CAPSIZE_NEMESIS_TEST_LISTEN"
	nodeFlags    = "CAPSIZE_NEMESIS_TEST_NODE"
	leaveAtOnce  = "GORACE=atexit_sleep_ms=0" // the race detector waits a second otherwise
)

// TestMain lets the test binary be the other programs too.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == agent.DiskCommand {
		if err := agent.ServeDisk(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	switch os.Getenv(roleVariable) {
	case "agent":
		serveAgent(os.Stdin)
	case "deaf agent":
		serveAgent(withoutPairs(os.Stdin, 0))
	case "forgetful agent":
		serveAgent(withoutPairs(os.Stdin, 1))
	case "guarded agent":
		guardAgent()
	case "guarded worker":
		serveGuarded()
	case "node":
		serveNode(os.Getenv(listenAt))
	case "network":
		os.Exit(networkMain(m))
	case "controller":
		controllerMain()
	default:
		os.Exit(m.Run())
	}
}

func serveAgent(in io.Reader) {
	if err := agent.Serve(context.Background(), in, os.Stdout, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// guardAgent runs an agent as a worker of its own, which can be killed.
func guardAgent() {
	worker := exec.Command(os.Args[0])
	worker.Env = append(os.Environ(), roleVariable+"=guarded worker")
	status, err := agent.Guard(context.Background(), worker)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(status)
}

func serveGuarded() {
	if err := agent.Serve(context.Background(), os.Stdin, os.Stdout, agent.Notes()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// withoutPairs makes an agent deaf: it acknowledges blocks, shapes and limits, and after the first so
// many blocks that cut anything it carries none of them out.
func withoutPairs(in io.Reader, good int) io.Reader {
	out, w := io.Pipe()
	go func() {
		for scanner := bufio.NewScanner(in); scanner.Scan(); {
			var r agent.Request
			line := scanner.Bytes()
			if json.Unmarshal(line, &r) == nil && r.Block != nil && len(r.Block.Pairs) > 0 {
				if good--; good < 0 {
					r.Block.Pairs = nil
					line, _ = json.Marshal(r)
				}
			} else if r.Shape != nil {
				r.Shape.Pairs = nil
				line, _ = json.Marshal(r)
			} else if r.Limits != nil {
				r.Limits.Limit = limits.Limit{}
				line, _ = json.Marshal(r)
			}
			_, _ = w.Write(append(bytes.Clone(line), '\n'))
		}
		_ = w.Close()
	}()
	return out
}

// serveNode is the system under test: it has several threads, answers each line with the
// same line, or to "time?" with what its clocks show, and writes to its log what it received.
func serveNode(address string) {
	if strings.Contains(os.Getenv(nodeFlags), "deaf to SIGTERM") {
		signal.Ignore(syscall.SIGTERM)
	}
	began := time.Now()
	keep := newKeeper(os.Getenv(keepIn), os.Getenv(nodeFlags))
	for range 3 {
		go func() {
			runtime.LockOSThread()
			for {
				time.Sleep(5 * time.Millisecond)
			}
		}()
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for {
		c, err := listener.Accept()
		if err != nil {
			os.Exit(1)
		}
		go func() {
			for scanner := bufio.NewScanner(c); scanner.Scan(); {
				fmt.Println("received", scanner.Text())
				if scanner.Text() == "spin" {
					go func() {
						for spins := 0; ; spins++ {
							runtime.KeepAlive(spins)
						}
					}()
				}
				answer := scanner.Text()
				if keep.hangs() {
					continue
				}
				if answer == "time?" {
					answer = fmt.Sprint(time.Now().UnixNano(), int64(time.Since(began)))
				}
				_, _ = fmt.Fprintln(c, answer)
			}
			_ = c.Close()
		}()
	}
}

// testCluster is nodes on loopback with link proxies.
type testCluster struct {
	dir    string
	nodes  []string
	ports  map[string]string // node to address
	links  map[string][]clusters.Link
	roles  map[string]string // node to its agent's role, where it is not "agent"
	clocks bool              // of the nodes are made ready to be changed
	flags  []string          // of the nodes: how they misbehave
	disks  bool              // of the nodes are made ready to fail
	idle   map[string]bool   // nodes that keep no data though the others do
	bare   bool              // their data, though they keep some

	mu     sync.Mutex
	agents map[string]*exec.Cmd
}

func newTestCluster(dir string, n int) (*testCluster, error) {
	c := &testCluster{dir: dir, ports: map[string]string{}, links: map[string][]clusters.Link{}, roles: map[string]string{}, agents: map[string]*exec.Cmd{}}
	for i := range n {
		c.nodes = append(c.nodes, fmt.Sprintf("n%d", i+1))
	}
	// All ports are held at once, so that none is given out twice.
	var held []io.Closer
	free := func() (string, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		held = append(held, l)
		return l.Addr().String(), nil
	}
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	var err error
	for _, node := range c.nodes {
		if c.ports[node], err = free(); err != nil {
			return nil, err
		}
	}
	for _, pair := range append(allPairs(c.nodes), between([]string{clusters.Client}, c.nodes)...) {
		listen, err := free()
		if err != nil {
			return nil, err
		}
		c.links[pair.To] = append(c.links[pair.To], clusters.Link{From: pair.From, To: pair.To, Listen: listen, Target: c.ports[pair.To]})
	}
	return c, nil
}

func (c *testCluster) Kind() string                    { return "local" }
func (c *testCluster) Nodes() []string                 { return c.nodes }
func (c *testCluster) Host(node string) clusters.Host  { return &testHost{c, node} }
func (c *testCluster) Listen(node, _ string) string    { return c.ports[node] }
func (c *testCluster) Links(to string) []clusters.Link { return c.links[to] }
func (c *testCluster) Close(context.Context) error     { return nil }
func (c *testCluster) Dial(from, to, port string) string {
	for _, link := range c.links[to] {
		if link.From == from {
			return link.Listen
		}
	}
	return c.Listen(to, port)
}

func (c *testCluster) process(node string) clusters.Process {
	return clusters.Process{
		Name: "db", Argv: []string{os.Args[0]}, Env: []string{roleVariable + "=node", listenAt + "=" + c.ports[node], nodeFlags + "=" + strings.Join(c.flags, ","), keepIn + "=" + c.keeps(node)},
		Data: filepath.Join(c.dir, node, "data"), Clock: c.clocks, Disk: c.disks && !c.bare,
		Dir: filepath.Join(c.dir, node), Log: filepath.Join(c.dir, node, "db.log"),
	}
}

func (c *testCluster) processes() map[string]clusters.Process {
	processes := make(map[string]clusters.Process)
	for _, node := range c.nodes {
		processes[node] = c.process(node)
	}
	return processes
}

func (c *testCluster) log(node string) string {
	data, _ := os.ReadFile(c.process(node).Log)
	return string(data)
}

// serves waits until a node answers.
func (c *testCluster) serves(ctx context.Context, node string) error {
	for {
		if conn, err := net.Dial("tcp", c.Dial(clusters.Client, node, "client")); err == nil {
			_ = conn.SetDeadline(time.Now().Add(time.Second))
			_, _ = io.WriteString(conn, "ready?\n")
			line, err := bufio.NewReader(conn).ReadString('\n')
			_ = conn.Close()
			if err == nil && line == "ready?\n" {
				return nil
			}
		}
		if !sleep(ctx, 5*time.Millisecond) {
			return fmt.Errorf("%s does not answer: %w", node, ctx.Err())
		}
	}
}

type testHost struct {
	cluster *testCluster
	node    string
}

var errNoFiles = errors.New("this cluster copies no files")

func (h *testHost) Name() string                                           { return h.node }
func (h *testHost) Dir() string                                            { return filepath.Join(h.cluster.dir, h.node) }
func (h *testHost) Put(context.Context, string, string, os.FileMode) error { return errNoFiles }
func (h *testHost) Get(context.Context, string, string) error              { return errNoFiles }
func (h *testHost) Attach(ctx context.Context, argv []string) (io.ReadWriteCloser, error) {
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	role := h.cluster.roles[h.node]
	if role == "" {
		role = "agent"
	}
	command.Env = append(os.Environ(), roleVariable+"="+role, leaveAtOnce)
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
	return &testStream{Reader: out, WriteCloser: in, out: out}, nil
}

type testStream struct {
	io.Reader
	io.WriteCloser
	out io.Closer
}

func (s *testStream) Close() error { return errors.Join(s.WriteCloser.Close(), s.out.Close()) }

// fixture is a cluster with its agents attached and its nodes running.
type fixture struct {
	*testCluster
	t          testing.TB
	controller *Controller
	exits      chan string
	lost       chan string
	recorded   *recorded
}

func newFixture(t testing.TB, n int, change ...func(*testCluster)) *fixture {
	t.Helper()
	cluster, err := newTestCluster(t.TempDir(), n)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range change {
		change(cluster)
	}
	f := &fixture{testCluster: cluster, t: t, exits: make(chan string, 100), lost: make(chan string, 100), recorded: &recorded{}}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	f.controller, err = Connect(ctx, cluster, ConnectOptions{
		Run: "test", Argv: func(string) []string { return []string{os.Args[0]} }, StopOnExpiry: true,
		OnExit: func(node string, e agent.Exited) { f.exits <- node + ": " + e.Status },
		OnLost: func(node string, err error) { f.lost <- node + ": " + err.Error() },
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

func (f *fixture) close() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := f.controller.Close(ctx); err != nil {
		f.t.Errorf("close: %v", err)
	}
	for _, command := range f.agents {
		_ = command.Wait() // what an agent ends with is told by what it leaves behind
	}
}

// nemesis makes a Nemesis whose leader is n1.
func (f *fixture) nemesis(steps ...Step) *Nemesis {
	return New(Config{
		Controller: f.controller, Schedule: Schedule{Seed: 1, Steps: steps}, Nodes: f.nodes, Processes: f.processes(),
		Leader: func(context.Context) (string, bool) { return "n1", true },
		Ready:  f.serves, Log: f.recorded,
	})
}

// pid returns the process that runs on a node.
func (f *fixture) pid(node string) int {
	f.t.Helper()
	reply, err := f.controller.Signal(context.Background(), node, "db", "cont")
	if err != nil {
		f.t.Fatal(err)
	}
	return reply.Pid
}

// killWorker kills a node's agent, and leaves its guardian.
func (f *fixture) killWorker(node string) {
	f.t.Helper()
	worker, err := exec.Command("pgrep", "-P", strconv.Itoa(f.agents[node].Process.Pid)).Output()
	if err != nil {
		f.t.Fatalf("find the worker: %v", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(worker)))
	if err != nil {
		f.t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		f.t.Fatal(err)
	}
}

// recorded is the history, as far as the nemesis writes it.
type recorded struct {
	mu     sync.Mutex
	events []histories.Event
}

func (r *recorded) Record(e histories.Event) histories.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Index = len(r.events)
	r.events = append(r.events, e)
	return e
}

// phases returns the phases of a step, in order.
func (r *recorded) phases(id int) []histories.Phase {
	r.mu.Lock()
	defer r.mu.Unlock()
	var phases []histories.Phase
	for _, e := range r.events {
		if e.Fault.ID == id {
			phases = append(phases, e.Fault.Phase)
		}
	}
	return phases
}

// phase returns the event of a step's phase.
func (r *recorded) phase(t testing.TB, id int, phase histories.Phase) histories.Event {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Fault.ID == id && e.Fault.Phase == phase {
			return e
		}
	}
	t.Fatalf("step %d has no phase %s: %+v", id, phase, r.events)
	return histories.Event{}
}

func expectPhases(t testing.TB, r *recorded, id int, want ...histories.Phase) {
	t.Helper()
	if got := r.phases(id); !slices.Equal(got, want) {
		for _, e := range r.events {
			t.Logf("%d %s %s %v %s", e.Fault.ID, e.Fault.Name, e.Fault.Phase, e.Fault.Proof, e.Error)
		}
		t.Fatalf("step %d went through %v, want %v", id, got, want)
	}
}

// landedAndHealed is the life of a fault that went as it should.
var landedAndHealed = []histories.Phase{histories.Inject, histories.Landed, histories.Heal, histories.Healed}

func eventually(t testing.TB, within time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// state returns the state of a process as /proc says it, or 0 where there is none.
func state(pid int) byte {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	return stat[strings.LastIndexByte(string(stat), ')')+2]
}

// gone reports whether a process has ended; a zombie that nobody reaps has.
func gone(pid int) bool { return state(pid) == 0 || state(pid) == 'Z' }
