package docker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"capsize/clusters"
	hosts "capsize/clusters/ssh"
)

const image = "capsize-node:1"

func needEngine(t testing.TB) *client.Client {
	t.Helper()
	engine, err := connect(t.Context())
	if err == nil {
		t.Cleanup(func() { _ = engine.Close() })
		_, err = engine.ImageInspect(t.Context(), image)
	}
	if err != nil {
		if os.Getenv("CAPSIZE_REQUIRE_DOCKER") == "1" {
			t.Fatal(err)
		}
		t.Skipf("needs an engine and the node image: %v", err)
	}
	return engine
}

func options(run string, nodes int) Options {
	return Options{Run: run, Image: image, Nodes: nodes, Ports: []clusters.Port{{Name: "peer", Number: 7070, Peer: true}}}
}

func newRun() string { return "test-" + newID()[:10] }

func start(t testing.TB, nodes int) *Cluster {
	t.Helper()
	c, err := New(t.Context(), options(newRun(), nodes))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) }) // a test that closes it does so first
	return c
}

// remains returns the names of the containers and networks of a run.
func remains(t *testing.T, engine *client.Client, run string) (names []string) {
	t.Helper()
	label := filters.NewArgs(filters.Arg("label", labelRun+"="+run))
	containers, err := engine.ContainerList(context.Background(), container.ListOptions{All: true, Filters: label})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range containers {
		names = append(names, c.Names...)
	}
	networks, err := engine.NetworkList(context.Background(), network.ListOptions{Filters: label})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range networks {
		names = append(names, n.Name)
	}
	return names
}

// docker runs the engine's command line, which knows nothing of our code.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// say runs a program on a host to its end and returns what it printed.
func say(t *testing.T, h clusters.Host, argv ...string) string {
	t.Helper()
	stream, err := h.Attach(t.Context(), argv)
	if err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(stream)
	if err = errors.Join(err, stream.Close()); err != nil {
		t.Errorf("%v on %s: %v", argv, h.Name(), err)
	}
	return strings.TrimSpace(string(said))
}

func TestAClusterOfContainersTakesFilesRunsProgramsAndLeavesNothing(t *testing.T) {
	engine := needEngine(t)
	began := time.Now()
	c := start(t, 5)
	t.Logf("5 containers usable after %s", time.Since(began).Round(time.Millisecond))
	program := write(t, "#!/bin/sh\nread line; echo \"$line from $(hostname)\"\n")
	for _, node := range c.Nodes() {
		h := c.Host(node)
		if err := h.Put(t.Context(), program, "bin/hello it's", 0o755); err != nil {
			t.Fatal(err)
		}
		stream, err := h.Attach(t.Context(), []string{h.Dir() + "/bin/hello it's"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(stream, "hello\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(stream).ReadString('\n'); err != nil || line != "hello from "+node+"\n" {
			t.Errorf("%s answers %q, %v", node, line, err)
		}
		if err := stream.Close(); err != nil {
			t.Error(err)
		}
		back := filepath.Join(t.TempDir(), "back")
		if err := h.Get(t.Context(), "bin/hello it's", back); err != nil {
			t.Error(err)
		}
		if err := h.Get(t.Context(), "nothing", back); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a missing file gives %v", err)
		}
	}
	run := c.options.Run
	if names := remains(t, engine, run); len(names) != 6 || !slices.Contains(names, "/capsize-"+run+"-n1") || !slices.Contains(names, "capsize-"+run) {
		t.Errorf("it consists of %v", names)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if left := remains(t, engine, run); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestAContainerMayFilterItsPacketsAndNothingElseAndReachesOnlyItsCluster(t *testing.T) {
	needEngine(t)
	c := start(t, 2)
	n1 := c.Host("n1")
	if out := say(t, n1, "sh", "-c", "nft add table inet capsize 2>&1 && nft list tables | grep capsize"); out != "table inet capsize" {
		t.Errorf("a packet filter: %s", out)
	}
	if got := docker(t, "network", "inspect", "-f", "{{.Internal}}", c.network); got != "true" {
		t.Errorf("its network is internal: %s", got)
	}
	other := start(t, 1)
	reaches := func(address string) string {
		return say(t, n1, "bash", "-c", "timeout 2 bash -c '</dev/tcp/"+address+"/22' 2>/dev/null && echo yes || echo no")
	}
	if got := reaches(c.nodes[1].address); got != "yes" {
		t.Errorf("n1 reaches n2: %s", got)
	}
	if got := reaches(other.nodes[0].address); got != "no" {
		t.Errorf("n1 reaches another cluster's node: %s", got)
	}
	if got := docker(t, "inspect", "-f", "{{.HostConfig.Privileged}} {{.HostConfig.CapAdd}} {{.HostConfig.Init}}", c.nodes[0].container); got != "false [NET_ADMIN] true" && got != "false [CAP_NET_ADMIN] true" {
		t.Errorf("privileged, capabilities, init: %s", got)
	}
	if _, err := os.Stat(file(retransmitMost)); err == nil {
		if got := say(t, n1, "cat", file(retransmitMost)); got != "1000" {
			t.Errorf("%s is %s", retransmitMost, got)
		}
	}
	if c.nodes[0].address == c.nodes[1].address || c.Listen("n2", "peer") != c.nodes[1].address+":7070" {
		t.Errorf("addresses %s and %s, and n2 listens at %s", c.nodes[0].address, c.nodes[1].address, c.Listen("n2", "peer"))
	}
}

func TestAKernelWithoutTheSettingIsDoneWithout(t *testing.T) {
	needEngine(t)
	if _, err := os.Stat(file(retransmitMost)); err != nil {
		t.Skip("this kernel has none, so no container asks for it")
	}
	c, err := newCluster(t.Context(), options(newRun(), 1), "net.ipv4.no_such_setting")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTheImageHoldsNoKey(t *testing.T) {
	needEngine(t)
	archive := filepath.Join(t.TempDir(), "image.tar")
	docker(t, "save", "-o", archive, image)
	layers := exec.Command("sh", "-c", `mkdir l && tar -xf "$1" -C l && find l -type f | while read f; do tar -tf "$f" 2>/dev/null; done | grep -E 'etc/ssh/|root/' | sort -u`, "sh", archive)
	layers.Dir = t.TempDir()
	out, err := layers.Output()
	if err != nil || !strings.Contains(string(out), "etc/ssh/sshd_config") {
		t.Fatalf("the layers cannot be read: %v, %q", err, out)
	}
	for _, secret := range []string{"ssh_host_", "authorized_keys", "id_"} {
		for name := range strings.Lines(string(out)) {
			if strings.Contains(filepath.Base(name), secret) && !strings.Contains(name, ".wh.") {
				t.Errorf("a layer holds %s", strings.TrimSpace(name))
			}
		}
	}
}

func TestAClusterThatIsCancelledInTheMiddleLeavesNothing(t *testing.T) {
	engine := needEngine(t)
	for _, after := range []time.Duration{time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond, 700 * time.Millisecond} {
		run := newRun()
		ctx, cancel := context.WithTimeout(t.Context(), after)
		c, err := New(ctx, options(run, 3))
		cancel()
		if err == nil {
			_ = c.Close(context.Background())
			t.Errorf("cancelled after %s: no error", after)
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cancelled after %s: %v", after, err)
		}
		if left := remains(t, engine, run); len(left) > 0 {
			t.Errorf("cancelled after %s: left %v", after, left)
		}
	}
}

// One that is cut short may create something after we have looked for what to remove.
func TestACallToTheEngineThatHasBegunIsNotCutShortAndHasALimit(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	ctx, cancel := uncut(ended)
	defer cancel()
	if _, limited := ctx.Deadline(); ctx.Err() != nil || !limited {
		t.Errorf("its context: %v, with a limit: %v", ctx.Err(), limited)
	}
}

func TestTwoClustersWithOneIDDoNotTouchEachOther(t *testing.T) {
	engine := needEngine(t)
	c := start(t, 1)
	before := remains(t, engine, c.options.Run)
	_, err := New(t.Context(), options(c.options.Run, 2))
	if err == nil || !strings.Contains(err.Error(), "the name is in use") || !strings.Contains(err.Error(), "checker clean") {
		t.Errorf("a run whose id is in use: %v", err)
	}
	if after := remains(t, engine, c.options.Run); !slices.Equal(before, after) || len(after) != 2 {
		t.Errorf("the first run had %v and has %v", before, after)
	}
	if got := say(t, c.Host("n1"), "echo", "here"); got != "here" {
		t.Errorf("the first run's host says %q", got)
	}
}

func TestAnotherHostKeyIsRefused(t *testing.T) {
	needEngine(t)
	c := start(t, 1)
	_, other, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	_, err = hosts.Connect(t.Context(), hosts.ConnectOptions{Run: "x", Kind: "ssh", Key: other, Machines: []hosts.Machine{
		{Node: "n1", Address: c.nodes[0].address, Port: 22, User: "root", HostKey: hosts.Pinned(other.PublicKey())},
	}})
	if err == nil || !strings.Contains(err.Error(), "host key") {
		t.Errorf("a host with another key than the pinned one: %v", err)
	}
}

// All at once, since each waits for the connection to be found dead.
func TestAPausedContainerHangsNoCall(t *testing.T) {
	engine := needEngine(t)
	c := start(t, 1)
	h, local := c.Host("n1"), write(t, strings.Repeat("x", 1<<20))
	stream, err := h.Attach(t.Context(), []string{"cat"})
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.ContainerPause(t.Context(), c.nodes[0].container); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var calls sync.WaitGroup
	for name, call := range map[string]func() error{
		"put":    func() error { return h.Put(t.Context(), local, "f", 0o600) },
		"get":    func() error { return h.Get(t.Context(), "f", filepath.Join(t.TempDir(), "f")) },
		"attach": func() error { _, err := h.Attach(t.Context(), []string{"true"}); return err },
		"read":   func() error { _, err := stream.Read(make([]byte, 1)); return err },
	} {
		calls.Go(func() {
			if err := call(); err == nil {
				t.Errorf("%s on a paused container succeeds", name)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("%s on a paused container took %s", name, took)
			}
		})
	}
	calls.Wait()
	began = time.Now()
	_ = c.Close(t.Context()) // that the agent's session broke off is an error; what counts is below
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("closing took %s", took)
	}
	if left := remains(t, engine, c.options.Run); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestSSHDKillsAProgramThatDoesNotLeave(t *testing.T) {
	needEngine(t)
	h := start(t, 1).Host("n1")
	stream, err := h.Attach(t.Context(), []string{"sh", "-c", "echo $$; exec sleep 1000"})
	if err != nil {
		t.Fatal(err)
	}
	pid, err := bufio.NewReader(stream).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Close(); err == nil || !strings.Contains(err.Error(), "did not leave") {
		t.Errorf("closing: %v", err)
	}
	if got := say(t, h, "sh", "-c", "kill -0 "+strings.TrimSpace(pid)+" 2>/dev/null && echo alive || echo gone"); got != "gone" {
		t.Errorf("the program is %s", got)
	}
}

func TestAContainerThatEndsAtOnceIsReportedWithItsLog(t *testing.T) {
	engine := needEngine(t)
	o := options(newRun(), 2)
	o.Image = "capsize-test:" + o.Run
	build := exec.Command("docker", "build", "-q", "-t", o.Image, "-")
	build.Stdin = strings.NewReader("FROM " + image + "\nCMD [\"sh\", \"-c\", \"echo no disk today >&2; exit 7\"]\n")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { docker(t, "rmi", "-f", o.Image) })
	began := time.Now()
	_, err := New(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "status 7") && !strings.Contains(err.Error(), "exited") || !strings.Contains(err.Error(), "no disk today") {
		t.Errorf("a container that ends at once: %v", err)
	}
	if took := time.Since(began); took > sshdLimit {
		t.Errorf("it took %s to notice", took)
	}
	if left := remains(t, engine, o.Run); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestWithoutAnEngineOrImageTheErrorSaysWhatToDo(t *testing.T) {
	needEngine(t)
	o := options(newRun(), 1)
	o.Image = "no-such-image:1"
	if _, err := New(t.Context(), o); err == nil || !strings.Contains(err.Error(), "ci/base-image") {
		t.Errorf("a missing image: %v", err)
	}
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := nobody.Addr().String()
	_ = nobody.Close()
	t.Setenv("DOCKER_HOST", "tcp://"+address)
	if _, err := New(t.Context(), options(newRun(), 1)); err == nil || !strings.Contains(err.Error(), "ci/engine") || !strings.Contains(err.Error(), "--cluster local") {
		t.Errorf("no engine: %v", err)
	}
}

// The texts are the engine's, of versions 20.10 and 27.
func TestALackOfSubnetsIsExplained(t *testing.T) {
	for text, part := range map[string]string{
		"could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network": "docker network prune",
		"all predefined address pools have been fully subnetted":                                                     "docker network prune",
		"network with name capsize-x already exists":                                                                 "checker clean",
	} {
		if err := explain(errors.New(text)); !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q becomes %q", text, err)
		}
	}
	if err := errors.New("disk full"); explain(err) != err {
		t.Errorf("another error becomes %v", explain(err))
	}
}

// Run with -bench: what a cluster of five costs.
func BenchmarkFiveContainers(b *testing.B) {
	needEngine(b)
	file := write(b, strings.Repeat("x", 10<<20))
	for b.Loop() {
		began := time.Now()
		c := start(b, 5)
		b.ReportMetric(time.Since(began).Seconds(), "s-New")
		began = time.Now()
		var puts sync.WaitGroup
		for _, node := range c.Nodes() {
			puts.Go(func() {
				if err := c.Host(node).Put(b.Context(), file, "f", 0o600); err != nil {
					b.Error(err)
				}
			})
		}
		puts.Wait()
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms-Put10MB×5")
		b.ReportMetric(float64(roundTrip(b, c.Host("n1")).Microseconds()), "µs-roundtrip")
		began = time.Now()
		if err := c.Close(b.Context()); err != nil {
			b.Error(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "s-Close")
	}
}

// roundTrip is the median time of one line to an attached program and back.
func roundTrip(b *testing.B, h clusters.Host) time.Duration {
	stream, err := h.Attach(b.Context(), []string{"cat"})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	lines := bufio.NewReader(stream)
	var took []time.Duration
	for range 201 {
		began := time.Now()
		if _, err := fmt.Fprintln(stream, "ping"); err != nil {
			b.Fatal(err)
		}
		if _, err := lines.ReadString('\n'); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)/2]
}
