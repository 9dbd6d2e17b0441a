//go:build linux

package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"capsize/clusters"
)

const patience = 10 * time.Second

// roleVariable makes the test binary behave as another program.
const roleVariable = "CAPSIZE_AGENT_TEST_ROLE"

// leaveAtOnce keeps programs built with the race detector from waiting a second before
// they end.
const leaveAtOnce = "GORACE=atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "agent":
		if err := Serve(context.Background(), os.Stdin, os.Stdout, nil); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "node":
		threadedNode()
	case "network":
		os.Exit(networkMain(m))
	case "contained":
		surveyContained()
	default:
		os.Exit(m.Run())
	}
}

// threadedNode is a program with several busy threads. It says so, and runs until it is
// ended.
func threadedNode() {
	for range 4 {
		go func() {
			runtime.LockOSThread()
			for {
				time.Sleep(time.Millisecond)
			}
		}()
	}
	fmt.Println("the node runs")
	select {}
}

// session is a controller's side of an agent that runs as a process of its own.
type session struct {
	t       *testing.T
	command *exec.Cmd
	in      io.WriteCloser
	replies chan Reply
	notices chan Exited
	ended   chan struct{}
	dir     string
	id      uint64
}

func newSession(t *testing.T) *session {
	t.Helper()
	s := &session{
		t: t, dir: t.TempDir(), replies: make(chan Reply, 100), notices: make(chan Exited, 100), ended: make(chan struct{}),
	}
	s.command = exec.Command(os.Args[0])
	s.command.Env = append(os.Environ(), roleVariable+"=agent", leaveAtOnce)
	s.command.Stderr = os.Stderr
	if !testing.Verbose() {
		s.command.Stderr = nil
	}
	var err error
	if s.in, err = s.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.ended)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			var reply Reply
			if err := json.Unmarshal(scanner.Bytes(), &reply); err != nil {
				t.Errorf("reply %q: %v", scanner.Text(), err)
			}
			if reply.Exited != nil {
				s.notices <- *reply.Exited
			} else {
				s.replies <- reply
			}
		}
		_ = s.command.Wait() // how it ended is not the point
	}()
	t.Cleanup(func() {
		_ = s.in.Close()
		s.awaitEnd()
	})
	return s
}

func (s *session) awaitEnd() {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		_ = s.command.Process.Kill()
		s.t.Fatal("the agent did not end")
	}
}

// send sends a request and does not wait for its reply.
func (s *session) send(r Request) uint64 {
	s.t.Helper()
	s.id++
	r.ID = s.id
	line, err := json.Marshal(r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.sendLine(string(line))
	return s.id
}

func (s *session) sendLine(line string) {
	s.t.Helper()
	if _, err := io.WriteString(s.in, line+"\n"); err != nil {
		s.t.Fatal(err)
	}
}

func (s *session) next() Reply {
	s.t.Helper()
	select {
	case reply := <-s.replies:
		return reply
	case <-time.After(patience):
		s.t.Fatal("no reply")
		return Reply{}
	}
}

// call makes one request and returns its reply, whatever it says.
func (s *session) call(r Request) Reply {
	s.t.Helper()
	id := s.send(r)
	for {
		if reply := s.next(); reply.ID == id {
			return reply
		}
	}
}

// must makes one request that has to succeed.
func (s *session) must(r Request) Reply {
	s.t.Helper()
	reply := s.call(r)
	if reply.Error != "" {
		s.t.Fatal(reply.Error)
	}
	return reply
}

func (s *session) hello(change func(*Hello)) *HelloReply {
	s.t.Helper()
	h := &Hello{Version: Version, Run: "test", Node: "n1", Dir: s.dir, Lease: 5 * time.Second, StopOnExpiry: true, Peers: map[string]Peer{"n1": {}, "n2": {}}}
	if change != nil {
		change(h)
	}
	return s.must(Request{Hello: h}).Hello
}

func (s *session) process(argv ...string) clusters.Process {
	return clusters.Process{Name: "db", Argv: argv, Dir: filepath.Join(s.dir, "work"), Log: filepath.Join(s.dir, "db.log")}
}

// node is a process of several threads.
func (s *session) node() clusters.Process {
	p := s.process(os.Args[0])
	p.Env = []string{roleVariable + "=node"}
	return p
}

func (s *session) start(p clusters.Process) int {
	s.t.Helper()
	return s.must(Request{Start: &Start{Process: p}}).Start.Pid
}

func (s *session) signal(name string) Reply {
	s.t.Helper()
	return s.call(Request{Signal: &Signal{Process: "db", Signal: name}})
}

func (s *session) notice() Exited {
	s.t.Helper()
	select {
	case e := <-s.notices:
		return e
	case <-time.After(patience):
		s.t.Fatal("no notice of an exit")
		return Exited{}
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

func eventually(t *testing.T, within time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// killLater ends a process that a test left running on purpose.
func killLater(t *testing.T, pid int) {
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
}

func TestAProcessRunsInItsDirectoryAndAppendsToItsLog(t *testing.T) {
	s := newSession(t)
	s.hello(nil)
	s.start(s.process("/bin/sh", "-c", "pwd; exit 3"))
	e := s.notice()
	if e.Status != "exit status 3" || !slices.Equal(e.Tail, []string{filepath.Join(s.dir, "work")}) {
		t.Errorf("notice %+v", e)
	}
	s.start(s.process("/bin/sh", "-c", "i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); done; kill -SEGV $$"))
	e = s.notice()
	if !strings.HasPrefix(e.Status, "killed by SIGSEGV") || len(e.Tail) != tailLines || e.Tail[tailLines-1] != "line 39" {
		t.Errorf("notice %+v", e)
	}
	log, err := os.ReadFile(filepath.Join(s.dir, "db.log"))
	if err != nil || !strings.HasPrefix(string(log), filepath.Join(s.dir, "work")+"\nline 0\n") {
		t.Errorf("log %q, %v", log, err)
	}
}

func TestTheTailBelongsToTheLifeThatEnded(t *testing.T) {
	s := newSession(t)
	s.hello(nil)
	s.start(s.process("/bin/sh", "-c", "echo first"))
	s.notice()
	s.start(s.process("/bin/sh", "-c", "exit 1"))
	if e := s.notice(); len(e.Tail) != 0 {
		t.Errorf("tail %q is of an earlier life", e.Tail)
	}
}

func TestAKillIsProvenAndTheProcessCanStartAgain(t *testing.T) {
	s := newSession(t)
	s.hello(nil)
	first := s.start(s.node())
	reply := s.signal("kill")
	if reply.Signal == nil || reply.Signal.State != "killed by SIGKILL" || state(first) != 0 {
		t.Fatalf("kill: %+v, state %q", reply, state(first))
	}
	if second := s.start(s.node()); second == first || gone(second) {
		t.Errorf("pid %d does not run", second)
	}
	if reply := s.call(Request{Start: &Start{Process: s.node()}}); !strings.Contains(reply.Error, "runs already") {
		t.Errorf("a second start: %+v", reply)
	}
	select {
	case e := <-s.notices:
		t.Errorf("a kill that was asked for was reported as unexpected: %+v", e)
	default:
	}
}

func TestATermEndsAStoppedProcessToo(t *testing.T) {
	s := newSession(t)
	s.hello(nil)
	s.start(s.process("/bin/sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done"))
	eventually(t, patience, "the trap is set", func() bool {
		log, _ := os.ReadFile(filepath.Join(s.dir, "db.log"))
		return string(log) == "ready\n"
	})
	if reply := s.signal("stop"); reply.Error != "" {
		t.Fatal(reply.Error)
	}
	if reply := s.signal("term"); reply.Signal == nil || reply.Signal.State != "exit status 7" {
		t.Errorf("term: %+v", reply)
	}
}

func TestAStopIsProvenByEveryThread(t *testing.T) {
	s := newSession(t)
	s.hello(nil)
	pid := s.start(s.node())
	eventually(t, patience, "the node has its threads", func() bool {
		_, all, err := threads(pid)
		return err == nil && all >= 5
	})
	if stopped, all, err := threads(pid); err != nil || stopped != 0 || all == 0 {
		t.Fatalf("%d of %d stopped before, %v", stopped, all, err)
	}
	reply := s.signal("stop")
	stopped, all, err := threads(pid)
	if err != nil || stopped != all || all < 5 {
		t.Fatalf("%d of %d threads are stopped, %v", stopped, all, err)
	}
	if want := fmt.Sprintf("stopped, %d threads in state T", all); reply.Signal == nil || reply.Signal.State != want {
		t.Errorf("%+v, want %q", reply, want)
	}
	if reply := s.signal("cont"); reply.Signal == nil || !strings.HasPrefix(reply.Signal.State, "running, none of ") {
		t.Errorf("cont: %+v", reply)
	}
	if stopped, _, _ := threads(pid); stopped != 0 {
		t.Errorf("%d threads still stopped", stopped)
	}
	_ = s.signal("stop")
	if reply := s.signal("kill"); reply.Signal == nil || !gone(pid) {
		t.Errorf("a stopped process must die of SIGKILL: %+v", reply)
	}
}

func TestASignalReachesTheWholeGroup(t *testing.T) {
	s := newSession(t)
	s.hello(nil)
	s.start(s.process("/bin/sh", "-c", "sleep 1000 & echo $!; wait"))
	var child int
	eventually(t, patience, "the child is there", func() bool {
		log, _ := os.ReadFile(filepath.Join(s.dir, "db.log"))
		child, _ = strconv.Atoi(strings.TrimSpace(string(log)))
		return child > 0
	})
	_ = s.signal("stop")
	eventually(t, patience, "the child is stopped", func() bool { return state(child) == 'T' })
	_ = s.signal("kill")
	eventually(t, patience, "the child is gone", func() bool { return gone(child) })
}

func TestNothingOfAProcessOutlivesIt(t *testing.T) {
	s := newSession(t)
	s.hello(nil)
	s.start(s.process("/bin/sh", "-c", "sleep 1000 & echo $!; exit 1"))
	child, err := strconv.Atoi(s.notice().Tail[0])
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "the child is gone", func() bool { return gone(child) })
}

func TestASignalThatCannotLandIsAnError(t *testing.T) {
	s := newSession(t)
	s.hello(nil)
	if reply := s.signal("kill"); !strings.Contains(reply.Error, "never started") {
		t.Errorf("kill of nothing: %+v", reply)
	}
	s.start(s.process("/bin/sh", "-c", "exit 4"))
	s.notice()
	for _, name := range []string{"kill", "stop", "cont", "term"} {
		if reply := s.signal(name); !strings.Contains(reply.Error, "has ended before: exit status 4") || !reply.Gone {
			t.Errorf("%s of what ended before: %+v", name, reply)
		}
	}
	if reply := s.signal("hup"); !strings.Contains(reply.Error, "one of kill, term, stop, cont") {
		t.Errorf("an unknown signal: %+v", reply)
	}
	if reply := s.call(Request{Start: &Start{Process: s.process("/no/such/program")}}); !strings.Contains(reply.Error, "/no/such/program") {
		t.Errorf("a start of nothing: %+v", reply)
	}
}

func TestRequestsThatMakeNoSenseAreAnswered(t *testing.T) {
	s := newSession(t)
	if reply := s.signal("kill"); !strings.Contains(reply.Error, "hello") {
		t.Errorf("before hello: %+v", reply)
	}
	if reply := s.call(Request{Hello: &Hello{Version: Version + 1, Node: "n1", Lease: time.Second}}); !strings.Contains(reply.Error, "version") {
		t.Errorf("another version: %+v", reply)
	}
	s.hello(nil)
	s.sendLine("nonsense")
	if reply := s.next(); reply.ID != 0 || !strings.Contains(reply.Error, "decode request") {
		t.Errorf("nonsense: %+v", reply)
	}
	s.must(Request{Ping: &struct{}{}})
}

func TestRequestsOverlap(t *testing.T) {
	s := newSession(t)
	s.hello(nil)
	s.start(s.process("/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.01; done"))
	slow := s.send(Request{Signal: &Signal{Process: "db", Signal: "term"}})
	if reply := s.must(Request{Ping: &struct{}{}}); reply.ID == slow {
		t.Error("the ping waited for the term")
	}
}

func TestByeStopsWhatItShall(t *testing.T) {
	for _, stop := range []bool{true, false} {
		t.Run(fmt.Sprint(stop), func(t *testing.T) {
			s := newSession(t)
			s.hello(func(h *Hello) { h.StopOnExpiry = false })
			pid := s.start(s.node())
			killLater(t, pid)
			_ = s.signal("stop")
			s.must(Request{Bye: &Bye{Stop: stop}})
			s.awaitEnd()
			if gone(pid) != stop {
				t.Errorf("the process is gone: %v, want %v", gone(pid), stop)
			}
			if state(pid) == 'T' {
				t.Error("the process was left stopped")
			}
		})
	}
}

// The ways in which a controller can vanish. In all of them what was stopped goes on, what
// was killed runs again, and the processes outlive the agent.
func TestAnAgentLeftAloneHealsWhatItDid(t *testing.T) {
	const lease = 300 * time.Millisecond
	for name, vanish := range map[string]func(*session){
		"silence":      func(*session) {},
		"end of input": func(s *session) { _ = s.in.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSession(t)
			period := time.Minute
			if name == "silence" {
				period = lease
			}
			s.hello(func(h *Hello) { h.StopOnExpiry, h.Lease = false, period })
			stopped := s.start(s.node())
			killLater(t, stopped)
			again := filepath.Join(s.dir, "again.pid")
			killed := s.process("/bin/sh", "-c", "echo $$ >> "+again+"; exec sleep 1000")
			killed.Name, killed.Log = "other", filepath.Join(s.dir, "other.log")
			pid := s.start(killed)
			_ = s.signal("stop")
			s.must(Request{Signal: &Signal{Process: "other", Signal: "kill"}})
			if state(stopped) != 'T' || state(pid) != 0 {
				t.Fatalf("the faults are not in force: %q, %q", state(stopped), state(pid))
			}
			vanish(s)
			eventually(t, lease+time.Second, "the process goes on", func() bool { return state(stopped) != 'T' })
			s.awaitEnd()
			if gone(stopped) {
				t.Error("the process did not outlive the agent")
			}
			restarted := 0
			eventually(t, patience, "what was killed runs again", func() bool {
				pids, _ := os.ReadFile(again)
				if lines := strings.Fields(string(pids)); len(lines) > 0 {
					restarted, _ = strconv.Atoi(lines[len(lines)-1])
				}
				return restarted != 0 && restarted != pid && !gone(restarted)
			})
			killLater(t, restarted)
		})
	}
}

func TestWhatDiesWithTheAgentDiesEvenWithAKilledAgent(t *testing.T) {
	s := newSession(t)
	s.hello(nil)
	pid := s.start(s.node())
	killLater(t, pid)
	_ = s.signal("stop")
	if err := s.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "the process is gone", func() bool { return gone(pid) })
}

func TestOnExpiryLocalProcessesEnd(t *testing.T) {
	s := newSession(t)
	s.hello(func(h *Hello) { h.Lease = 200 * time.Millisecond })
	pid := s.start(s.node())
	_ = s.signal("stop")
	eventually(t, 1200*time.Millisecond, "the process is gone", func() bool { return gone(pid) })
	s.awaitEnd()
}

// freeAddress finds a loopback address whose TCP and UDP ports are free.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func TestABlockThatConcernsALinkNotServedIsRefusedAsAWhole(t *testing.T) {
	s := newSession(t)
	listen := freeAddress(t)
	mechanism := s.hello(func(h *Hello) {
		h.Peers = map[string]Peer{"n1": {}, "n2": {Probe: listen}, "n3": {}}
		h.Links = []clusters.Link{{From: "n2", To: "n1", Listen: listen, Target: "127.0.0.1:1"}}
	}).Links
	if mechanism != "proxy" {
		t.Fatalf("mechanism %q", mechanism)
	}
	block := func(pairs ...Pair) Reply { return s.call(Request{Block: &Block{Pairs: pairs}}) }
	if reply := block(Pair{"n2", "n1"}, Pair{"n2", "n3"}); reply.Error != "" {
		t.Errorf("a pair of others does not concern this node: %s", reply.Error)
	}
	if reply := block(Pair{"n3", "n1"}); !strings.Contains(reply.Error, "no link between them") {
		t.Errorf("a link that is not there: %+v", reply)
	}
	if reply := block(Pair{"n1", "n9"}); !strings.Contains(reply.Error, `no node "n9"`) {
		t.Errorf("a node that is not there: %+v", reply)
	}
	// The refused blocks changed nothing: a probe of n2 is still held.
	probe(t, listen, 1, "n2")
	eventually(t, patience, "the probe is counted", func() bool {
		return s.must(Request{Arrived: &Arrived{Nonce: 1}}).Arrived.Dropped != nil
	})
	if reply := block(); reply.Block == nil || amount(reply.Block.Dropped, "n2", "n1") == 0 {
		t.Errorf("the heal reports nothing held: %+v", reply)
	}
	probe(t, listen, 2, "n3") // on n2's link: it lies
	probe(t, listen, 2, "n2")
	eventually(t, patience, "the probe arrives", func() bool {
		return slices.Equal(s.must(Request{Arrived: &Arrived{Nonce: 2}}).Arrived.From, []string{"n2"})
	})
	if from := s.must(Request{Arrived: &Arrived{Nonce: 1}}).Arrived.From; len(from) != 0 {
		t.Errorf("probes of %v passed while blocked", from)
	}
}

func probe(t *testing.T, address string, nonce uint64, from string) {
	t.Helper()
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write(EncodeProbe(nonce, from)); err != nil {
		t.Fatal(err)
	}
}

// amount is how much of a pair was dropped.
func amount(dropped []Dropped, from, to string) (sum uint64) {
	for _, d := range dropped {
		if d.Pair == (Pair{from, to}) {
			sum += d.Amount
		}
	}
	return sum
}

func TestWithoutLinksOrAddressesNothingCanBeCut(t *testing.T) {
	s := newSession(t)
	if mechanism := s.hello(nil).Links; !strings.HasPrefix(mechanism, "none: ") {
		t.Errorf("mechanism %q", mechanism)
	}
	if reply := s.call(Request{Block: &Block{Pairs: []Pair{{"n1", "n2"}}}}); !strings.Contains(reply.Error, "no partition can be made here") {
		t.Errorf("%+v", reply)
	}
	s.must(Request{Block: &Block{}})
}

func TestArrivalsAreBounded(t *testing.T) {
	a := newArrivals(map[string]Peer{"n1": {}})
	for nonce := range uint64(10 * noncesMost) {
		a.note("", EncodeProbe(nonce, "n1"))
		a.note("", EncodeProbe(nonce, "stranger"))
		a.note("", EncodeProbe(nonce, clusters.Client)) // over no link of clients
		a.note("n2", EncodeProbe(nonce, clusters.Client))
	}
	if len(a.rounds) != noncesMost || len(a.order) != noncesMost {
		t.Errorf("%d rounds kept", len(a.rounds))
	}
	if got := a.from(10*noncesMost - 1); !slices.Equal(got, []string{"n1"}) {
		t.Errorf("the latest round has %v", got)
	}
}

// A controller that takes no replies keeps nobody from healing.
func TestAControllerThatReadsNothingIsLeft(t *testing.T) {
	in, requests := io.Pipe()
	replies, out := io.Pipe() // nobody reads replies
	defer func() { _ = replies.Close() }()
	served := make(chan error, 1)
	go func() { served <- Serve(context.Background(), in, out, nil) }()
	for id := 1; ; id++ {
		line := fmt.Sprintf("{\"id\":%d,\"ping\":{}}\n", id)
		if _, err := io.WriteString(requests, line); err != nil {
			break // the agent has closed its input
		}
		if id > 10*repliesMost {
			t.Fatal("the agent queues replies without end")
		}
	}
	select {
	case err := <-served:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("the agent waits for a reader")
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	in, _ := io.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, in, io.Discard, nil) }()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
