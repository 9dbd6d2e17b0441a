package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// The tests of this file run in a network namespace of their own: the test binary calls
// itself in one, and networkMain prepares it. Nothing outside of it is touched.

func networkMain(m *testing.M) int {
	if err := addLoopbackAddresses(); err != nil {
		fmt.Fprintln(os.Stderr, "prepare the network namespace:", err)
		return 1
	}
	return m.Run()
}

// addLoopbackAddresses brings lo up, which in a fresh namespace is down. All of
// 127.0.0.0/8 is local then; IPv6 needs addresses of its own.
func addLoopbackAddresses() error {
	socket, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(socket) }()
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	for _, address := range []string{"fd00::1", "fd00::2"} {
		if out, err := exec.Command("ip", "-6", "address", "add", address+"/128", "dev", "lo", "nodad").CombinedOutput(); err != nil {
			return fmt.Errorf("add %s: %w: %s", address, err, out)
		}
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
	command := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	command.Env = append(os.Environ(), roleVariable+"=network", leaveAtOnce)
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := command.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("a network namespace takes root: %v", err)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skipf("%s", out)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in its own network namespace: %v\n%s", err, out)
	}
	return false
}

var families = map[string]struct{ self, peer, other string }{
	"IPv4": {"127.0.0.1", "127.0.0.2", "127.0.0.3"},
	"IPv6": {"fd00::1", "fd00::2", "::1"},
}

func helloWith(self, peer string) *Hello {
	return &Hello{Run: "test run/1", Node: "n1", Peers: map[string]Peer{"n1": {Address: self}, "n2": {Address: peer}, "n3": {}}}
}

// datagrams sends from one address to another and says how many arrive.
func datagrams(t *testing.T, from, to string, n int) (arrived int) {
	t.Helper()
	receiver, err := net.ListenPacket("udp", net.JoinHostPort(to, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = receiver.Close() }()
	sender, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, receiver.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sender.Close() }()
	for range n {
		if _, err := sender.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	// On loopback a datagram is in the receiver's buffer when the send returns.
	_ = receiver.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	for buffer := make([]byte, 10); ; arrived++ {
		if _, _, err := receiver.ReadFrom(buffer); err != nil {
			return arrived
		}
	}
}

func tables(t *testing.T) []string {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	all, err := conn.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, table := range all {
		names = append(names, table.Name)
	}
	return names
}

func TestTheFilterDropsWhatComesFromACutPeerAndNothingElse(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			f, err := newFilter("test run/1", helloWith(a.self, a.peer))
			if err != nil {
				t.Fatal(err)
			}
			if got := datagrams(t, a.peer, a.self, 5); got != 5 {
				t.Fatalf("%d of 5 arrive on an open network", got)
			}
			if _, err := f.block([]Pair{{"n2", "n1"}, {"n1", "n2"}}); err != nil {
				t.Fatal(err)
			}
			if got := datagrams(t, a.peer, a.self, 5); got != 0 {
				t.Errorf("%d datagrams of the cut peer arrived", got)
			}
			if got := datagrams(t, a.other, a.self, 5); got != 5 {
				t.Errorf("%d of 5 arrive from an address that is not cut", got)
			}
			if got := datagrams(t, a.self, a.peer, 5); got != 5 {
				t.Errorf("%d of 5 arrive at the peer: the other direction is the peer's to cut", got)
			}
			if dropped, err := f.dropped(); err != nil || amount(dropped, "n2", "n1") != 5 {
				t.Errorf("dropped %v, %v: want 5 of n2", dropped, err)
			}
			dropped, err := f.block(nil)
			if err != nil || amount(dropped, "n2", "n1") != 5 || len(dropped) != 1 {
				t.Errorf("the heal reports %v, %v", dropped, err)
			}
			if got := datagrams(t, a.peer, a.self, 5); got != 5 {
				t.Errorf("%d of 5 arrive after the heal", got)
			}
			if _, err := f.block([]Pair{{"n3", "n1"}}); err == nil || !strings.Contains(err.Error(), "address of n3") {
				t.Errorf("a peer without an address: %v", err)
			}
			if err := f.close(); err != nil {
				t.Error(err)
			}
			if got := tables(t); len(got) != 0 {
				t.Errorf("the filter left tables %v", got)
			}
		})
	}
}

func TestTheFilterReplacesWhatItCuts(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	hello := helloWith("127.0.0.1", "127.0.0.2")
	hello.Peers["n3"] = Peer{Address: "127.0.0.3"}
	f, err := newFilter("r", hello)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		cut    []Pair
		n2, n3 int
	}{
		{[]Pair{{"n2", "n1"}}, 0, 1},
		{[]Pair{{"n3", "n1"}}, 1, 0},
		{[]Pair{{"n2", "n1"}, {"n3", "n1"}}, 0, 0},
		{nil, 1, 1},
	} {
		if _, err := f.block(step.cut); err != nil {
			t.Fatal(err)
		}
		n2, n3 := datagrams(t, "127.0.0.2", "127.0.0.1", 1), datagrams(t, "127.0.0.3", "127.0.0.1", 1)
		if n2 != step.n2 || n3 != step.n3 {
			t.Errorf("cut %v: %d of n2 and %d of n3 arrive", step.cut, n2, n3)
		}
	}
}

func TestTheKernelForgetsTheFilterOfAnAgentThatDied(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	made, err := newFilter("r", helloWith("127.0.0.1", "127.0.0.2"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := made.block([]Pair{{"n2", "n1"}}); err != nil {
		t.Fatal(err)
	}
	f := made.(*filter)
	if !f.owned {
		t.Skip("this kernel has no owned tables")
	}
	if got := tables(t); len(got) != 1 || got[0] != f.table.Name {
		t.Fatalf("tables %v", got)
	}
	if err := f.conn.CloseLasting(); err != nil { // as the end of the process does
		t.Fatal(err)
	}
	eventually(t, patience, "the table is gone", func() bool { return len(tables(t)) == 0 })
	f.conn, f.made = nil, false
	if _, err := f.block([]Pair{{"n2", "n1"}}); err != nil {
		t.Errorf("a block after a lost socket: %v", err)
	}
}

func TestTheControllersAddressIsNeverCut(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	t.Setenv("SSH_CONNECTION", "127.0.0.2 55555 127.0.0.1 22")
	f, err := newFilter("r", helloWith("127.0.0.1", "127.0.0.2"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.block([]Pair{{"n2", "n1"}}); err == nil || !strings.Contains(err.Error(), "controller's session") {
		t.Errorf("got %v", err)
	}
}

// A whole agent, with probes as in a cluster whose partitions are made in the kernel.
func TestProbesOfACutPeerDoNotArriveThroughTheKernel(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			peers := map[string]Peer{
				"n1": {Address: a.self, Probe: net.JoinHostPort(a.self, "7999")},
				"n2": {Address: a.peer, Probe: net.JoinHostPort(a.peer, "7999")},
			}
			n1, n2 := newSession(t), newSession(t)
			for node, s := range map[string]*session{"n1": n1, "n2": n2} {
				if got := s.hello(func(h *Hello) { h.Node, h.Peers = node, peers }).Links; got != "nftables" {
					t.Fatalf("mechanism %q", got)
				}
			}
			round := func(nonce uint64) (at1, at2 bool) {
				n1.must(Request{Probe: &Probe{Nonce: nonce}})
				n2.must(Request{Probe: &Probe{Nonce: nonce}})
				for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end) && (!at1 || !at2); {
					at1 = len(n1.must(Request{Arrived: &Arrived{Nonce: nonce}}).Arrived.From) == 1
					at2 = len(n2.must(Request{Arrived: &Arrived{Nonce: nonce}}).Arrived.From) == 1
				}
				return at1, at2
			}
			if at1, at2 := round(1); !at1 || !at2 {
				t.Fatalf("open: %v %v", at1, at2)
			}
			one := &Block{Pairs: []Pair{{"n2", "n1"}}}
			n1.must(Request{Block: one})
			n2.must(Request{Block: one})
			if at1, at2 := round(2); at1 || !at2 {
				t.Errorf("n2 to n1 is cut, n1 to n2 is not: arrived %v %v", at1, at2)
			}
			if dropped := n1.must(Request{Arrived: &Arrived{Nonce: 2}}).Arrived.Dropped; amount(dropped, "n2", "n1") != ProbeCopies {
				t.Errorf("dropped %v", dropped)
			}
			n1.must(Request{Block: &Block{}})
			n2.must(Request{Block: &Block{}})
			if at1, at2 := round(3); !at1 || !at2 {
				t.Errorf("healed: %v %v", at1, at2)
			}
		})
	}
}
