package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"capsize/clusters"
)

var peerAndClient = []clusters.Port{{Name: "peer", Peer: true}, {Name: "client"}}

func newCluster(t *testing.T, nodes int) *Cluster {
	t.Helper()
	c, err := New(Options{Run: "test", Dir: filepath.Join(t.TempDir(), "cluster"), Nodes: nodes, Ports: peerAndClient})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func attach(t *testing.T, h clusters.Host, argv ...string) io.ReadWriteCloser {
	t.Helper()
	stream, err := h.Attach(t.Context(), argv)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stream.Close() })
	return stream
}

func portOf(t *testing.T, address string) int {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil || host != "127.0.0.1" {
		t.Fatalf("address %q: %v", address, err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return number
}

func TestEveryPortAndEveryDirectedLinkHasAPortOfItsOwn(t *testing.T) {
	c := newCluster(t, 3)
	seen := map[string]string{}
	take := func(what, address string) {
		if before, taken := seen[address]; taken {
			t.Errorf("%s and %s share %s", what, before, address)
		}
		seen[address] = what
		if port := portOf(t, address); port < portsFrom || port >= ephemeralFrom() {
			t.Errorf("%s is at port %d, which the kernel may give to a connection", what, port)
		}
	}
	for _, to := range c.Nodes() {
		take("peer of "+to, c.Listen(to, "peer"))
		take("client of "+to, c.Listen(to, "client"))
		var from []string
		clients := 0
		for _, link := range c.Links(to) {
			take(link.From+" to "+link.To, link.Listen)
			if link.From == clusters.Client {
				clients++
				if link.To != to || link.Target != c.Listen(to, "client") || c.Dial(clusters.Client, to, "client") != link.Listen {
					t.Errorf("link %+v, where %s listens at %s and clients dial %s", link, to, c.Listen(to, "client"), c.Dial(clusters.Client, to, "client"))
				}
				continue
			}
			from = append(from, link.From)
			if link.To != to || link.Target != c.Listen(to, "peer") || c.Dial(link.From, to, "peer") != link.Listen {
				t.Errorf("link %+v, where %s listens at %s and %s dials %s", link, to, c.Listen(to, "peer"), link.From, c.Dial(link.From, to, "peer"))
			}
		}
		others := slices.DeleteFunc(slices.Clone(c.Nodes()), func(n string) bool { return n == to })
		if !slices.Equal(from, others) {
			t.Errorf("links to %s come from %v", to, from)
		}
		if clients != 1 {
			t.Errorf("%d links lead clients to the one port of %s that is theirs", clients, to)
		}
		if c.Dial("n1", to, "client") != c.Listen(to, "client") {
			t.Errorf("a node has a link to the client port of %s", to)
		}
	}
}

func TestAFixedPortThatIsTakenIsNamedWithWhoNeedsItAndTheFlag(t *testing.T) {
	for _, taken := range []struct {
		offset  int
		network string
		who     string
	}{{0, "tcp", "the peer port of n1"}, {3, "tcp", "the client port of n2"}, {4, "udp", "the link from n2 to n1"}} {
		base := 0
		c := newCluster(t, 2) // finds a block that is free
		base = portOf(t, c.Listen("n1", "peer"))
		address := fmt.Sprintf("127.0.0.1:%d", base+taken.offset)
		var holder io.Closer
		var err error
		if taken.network == "udp" {
			holder, err = net.ListenPacket("udp", address)
		} else {
			holder, err = net.Listen("tcp", address)
		}
		if err != nil {
			t.Fatal(err)
		}
		o := Options{Run: "test", Dir: filepath.Join(t.TempDir(), "c"), Nodes: 2, Ports: peerAndClient, BasePort: base}
		_, err = New(o)
		for _, part := range []string{strconv.Itoa(base + taken.offset), taken.who, "--base-port"} {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("a taken %s port: the error %v does not tell %q", taken.network, err, part)
			}
		}
		if _, err := os.Stat(o.Dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the directory was made all the same: %v", err)
		}
		if err := holder.Close(); err != nil {
			t.Fatal(err)
		}
		fixed, err := New(o)
		if err != nil {
			t.Fatalf("once the port is free: %v", err)
		}
		if got := portOf(t, fixed.Listen("n1", "peer")); got != base {
			t.Errorf("the first port is %d, not %d", got, base)
		}
		if err := fixed.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestABasePortTooHighForAllIsRefused(t *testing.T) {
	_, err := New(Options{Dir: filepath.Join(t.TempDir(), "c"), Nodes: 5, Ports: peerAndClient, BasePort: 65530})
	if err == nil || !strings.Contains(err.Error(), "65535") {
		t.Errorf("ports beyond the last: %v", err)
	}
}

func TestABlockIsReservedUntilItsClusterIsClosed(t *testing.T) {
	c := newCluster(t, 2)
	base := portOf(t, c.Listen("n1", "peer"))
	if release, err := reserve(base, 1); err == nil {
		release()
		t.Error("the block of a cluster that lives can be reserved again")
	}
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	release, err := reserve(base, 1)
	if err != nil {
		t.Fatalf("after the cluster was closed: %v", err)
	}
	release()
}

func TestPutReplacesAProgramThatRuns(t *testing.T) {
	c := newCluster(t, 1)
	h := c.Host("n1")
	cat, err := os.ReadFile("/bin/cat")
	if err != nil {
		t.Skip(err)
	}
	local := filepath.Join(t.TempDir(), "cat")
	if err := os.WriteFile(local, cat, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.Put(t.Context(), local, "bin/cat", 0o755); err != nil {
		t.Fatal(err)
	}
	stream := attach(t, h, filepath.Join(h.Dir(), "bin/cat"))
	if err := os.WriteFile(local, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.Put(t.Context(), local, "bin/cat", 0o700); err != nil {
		t.Fatalf("while the program runs: %v", err)
	}
	if _, err := io.WriteString(stream, "still here\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stream).ReadString('\n'); line != "still here\n" {
		t.Errorf("the running program says %q, %v", line, err)
	}
	back := filepath.Join(t.TempDir(), "deep", "back")
	if err := h.Get(t.Context(), "bin/cat", back); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(back); string(data) != "other" {
		t.Errorf("got %q, %v", data, err)
	}
	if info, err := os.Stat(filepath.Join(h.Dir(), "bin/cat")); err != nil || info.Mode() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if files, err := os.ReadDir(filepath.Join(h.Dir(), "bin")); err != nil || len(files) != 1 {
		t.Errorf("left in the directory: %v, %v", files, err)
	}
}

func TestFilesThatAreMissingOrOutsideAreErrors(t *testing.T) {
	h := newCluster(t, 1).Host("n1")
	local := filepath.Join(t.TempDir(), "f")
	if err := h.Get(t.Context(), "nothing", local); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "n1") {
		t.Errorf("a file that does not exist: %v", err)
	}
	if err := h.Put(t.Context(), "/dev/null", "../n2/f", 0o600); err == nil {
		t.Error("a file was put beside the host's directory")
	}
	if err := h.Get(t.Context(), "../../secret", local); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file beside the host's directory: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := os.WriteFile(local, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.Put(ended, local, "f", 0o600); !errors.Is(err, context.Canceled) {
		t.Errorf("a put after its context: %v", err)
	}
	if _, err := os.Stat(filepath.Join(h.Dir(), "f")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it left a file: %v", err)
	}
}

func TestAProgramLeavesWhenItsInputEnds(t *testing.T) {
	h := newCluster(t, 1).Host("n1")
	stream := attach(t, h, script(t, `while read line; do echo "got $line in $PWD"; done; echo left > left`))
	if _, err := io.WriteString(stream, "it\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stream).ReadString('\n'); line != "got it in "+h.Dir()+"\n" {
		t.Errorf("it says %q, %v", line, err)
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
	if err := stream.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	if data, err := os.ReadFile(filepath.Join(h.Dir(), "left")); string(data) != "left\n" {
		t.Errorf("it had not left: %q, %v", data, err)
	}
}

func TestTheErrorOfAProgramThatFailsQuotesWhatItSaidInThisSessionOnly(t *testing.T) {
	h := newCluster(t, 1).Host("n1")
	program := script(t, `echo "trouble $1" >&2; exit 3`)
	for _, which := range []string{"old", "new"} {
		_, err := io.ReadAll(attach(t, h, program, which))
		if err == nil || !strings.Contains(err.Error(), "trouble "+which) {
			t.Errorf("the %s session: %v", which, err)
		}
		if which == "new" && strings.Contains(err.Error(), "old") {
			t.Errorf("an earlier session is quoted: %v", err)
		}
	}
	if _, err := h.Attach(t.Context(), []string{"/no/such/program"}); err == nil || !strings.Contains(err.Error(), "/no/such/program on n1") {
		t.Errorf("a program that does not exist: %v", err)
	}
}

func TestTheTerminalsInterruptDoesNotReachAProgram(t *testing.T) {
	h := newCluster(t, 1).Host("n1")
	line, err := bufio.NewReader(attach(t, h, script(t, `ps -o pgid= -p $$; read line`))).ReadString('\n')
	if err != nil {
		t.Skipf("no ps: %v", err)
	}
	if group, err := strconv.Atoi(strings.TrimSpace(line)); err != nil || group == syscall.Getpgrp() {
		t.Errorf("its process group is %q, ours %d: %v", line, syscall.Getpgrp(), err)
	}
}

// A stubborn program, with a descendant in a session of its own that keeps its output open.
func TestAProgramThatDoesNotLeaveIsKilledWithItsGroupAndClosingReturns(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	stream := attach(t, c.Host("n1"), script(t, `setsid sleep 30 & echo $!; sleep 31 & echo $!; echo stubborn >&2; exec sleep 32`))
	pids := make([]int, 2)
	if _, err := fmt.Fscan(stream, &pids[0], &pids[1]); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(pids[0], syscall.SIGKILL) }() // ours, and no longer in the group
	began := time.Now()
	err := c.Close(t.Context())                                                // closes what nobody closed
	if took := time.Since(began); took > leaveLimit+killLimit+10*time.Second { // a busy machine adds to it
		t.Errorf("closing took %s", took)
	}
	if err == nil || !strings.Contains(err.Error(), "did not leave") || !strings.Contains(err.Error(), "stubborn") {
		t.Errorf("closing says %v", err)
	}
	gone := func() bool { return errors.Is(syscall.Kill(pids[1], 0), syscall.ESRCH) || zombie(pids[1]) }
	for deadline := time.Now().Add(5 * time.Second); !gone(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a member of its process group lives on")
		}
	}
}

func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func TestCloseRemovesWhatItMadeAndNothingElse(t *testing.T) {
	root := t.TempDir()
	o := Options{Run: "test", Dir: filepath.Join(root, "cluster"), Nodes: 2, Ports: peerAndClient}
	exists := func(path string) bool { _, err := os.Stat(path); return err == nil }

	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(t.Context()); err != nil || exists(o.Dir) {
		t.Errorf("after closing, the directory is there: %v, %v", exists(o.Dir), err)
	}

	foreign := filepath.Join(o.Dir, "n2")
	if err := os.MkdirAll(foreign, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := New(o); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a host's directory that exists: %v", err)
	}
	if exists(filepath.Join(o.Dir, "n1")) || !exists(foreign) {
		t.Error("the failed attempt left its own or removed the foreign directory")
	}
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}

	o.Keep = true
	if c, err = New(o); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(t.Context()); err != nil || !exists(foreign) {
		t.Errorf("directories that were to be kept are gone; %v", err)
	}
}

func TestWrongOptionsAreRefused(t *testing.T) {
	for name, o := range map[string]Options{
		"a relative directory": {Dir: "x", Nodes: 1},
		"no nodes":             {Dir: t.TempDir()},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
