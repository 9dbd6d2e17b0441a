package docker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/client"
	"golang.org/x/crypto/ssh"

	"capsize/clusters"
	hosts "capsize/clusters/ssh"
)

const image = "capsize-node:1"

func needEngine(t *testing.T) *client.Client {
	t.Helper()
	engine, err := connect(t.Context())
	if err == nil {
		_, err = engine.ImageInspect(t.Context(), image)
	}
	if err != nil {
		if os.Getenv("CAPSIZE_REQUIRE_DOCKER") != "" {
			t.Fatal(err)
		}
		t.Skipf("needs an engine and the node image: %v", err)
	}
	t.Cleanup(func() { _ = engine.Close() })
	return engine
}

func options(run string, nodes int) Options {
	return Options{Run: run, Image: image, Nodes: nodes, Ports: []clusters.Port{{Name: "peer", Number: 7070, Peer: true}}}
}

// namesOf returns the containers and networks of a run.
func namesOf(t *testing.T, engine *client.Client, run string) []string {
	t.Helper()
	runs, err := foundRuns(context.Background(), engine)
	if err != nil {
		t.Fatal(err)
	}
	if _, there := runs[run]; there {
		return []string{run}
	}
	return nil
}

func runName(t *testing.T) string {
	return fmt.Sprintf("test-%d-%d", os.Getpid(), time.Now().UnixNano()%1e6)
}

func TestAClusterOfContainersTakesFilesRunsProgramsAndLeavesNothing(t *testing.T) {
	engine := needEngine(t)
	run := runName(t)
	began := time.Now()
	c, err := New(t.Context(), options(run, 3))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("3 containers usable after %s", time.Since(began))
	closed := false
	defer func() {
		if !closed {
			_ = c.Close(context.Background())
		}
	}()
	local := filepath.Join(t.TempDir(), "hello")
	if err := os.WriteFile(local, []byte("#!/bin/sh\nread line; echo \"$line from $(hostname)\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, node := range c.Nodes() {
		host := c.Host(node)
		if err := host.Put(t.Context(), local, "bin/hello it's", 0o755); err != nil {
			t.Fatal(err)
		}
		stream, err := host.Attach(t.Context(), []string{host.Dir() + "/bin/hello it's"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Write([]byte("hello\n")); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(stream).ReadString('\n'); err != nil || line != "hello from "+node+"\n" {
			t.Errorf("%s answers %q, %v", node, line, err)
		}
		if err := stream.Close(); err != nil {
			t.Error(err)
		}
		back := filepath.Join(t.TempDir(), "back")
		if err := host.Get(t.Context(), "bin/hello it's", back); err != nil {
			t.Error(err)
		}
		if err := host.Get(t.Context(), "nothing", back); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a missing file gives %v", err)
		}
	}
	closed = true
	if err := c.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if left := namesOf(t, engine, run); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestAClusterThatIsCancelledInTheMiddleLeavesNothing(t *testing.T) {
	engine := needEngine(t)
	for _, after := range []time.Duration{20 * time.Millisecond, 50 * time.Millisecond, 700 * time.Millisecond} {
		run := runName(t)
		ctx, cancel := context.WithTimeout(t.Context(), after)
		c, err := New(ctx, options(run, 3))
		cancel()
		if err == nil {
			_ = c.Close(context.Background())
			t.Errorf("cancelled after %s: no error", after)
		}
		if left := namesOf(t, engine, run); len(left) > 0 {
			t.Errorf("cancelled after %s: left %v", after, left)
		}
	}
}

func TestAnotherHostKeyIsRefused(t *testing.T) {
	needEngine(t)
	c, err := New(t.Context(), options(runName(t), 1))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	_, other, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	_, err = hosts.Connect(t.Context(), hosts.ConnectOptions{Run: "x", Kind: "ssh", Key: other, Machines: []hosts.Machine{
		{Node: "n1", Address: c.nodes[0].address, Port: 22, User: "root", HostKey: ssh.FixedHostKey(other.PublicKey())},
	}})
	if err == nil || !strings.Contains(err.Error(), "host key") {
		t.Errorf("a host with another key than the pinned one: %v", err)
	}
}

func TestAFrozenHostHangsNoCall(t *testing.T) {
	engine := needEngine(t)
	c, err := New(t.Context(), options(runName(t), 1))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	local := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(local, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := engine.ContainerPause(t.Context(), c.nodes[0].container); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = engine.ContainerUnpause(context.Background(), c.nodes[0].container) }()
	for name, call := range map[string]func() error{
		"put":    func() error { return c.Host("n1").Put(t.Context(), local, "f", 0o600) },
		"attach": func() error { _, err := c.Host("n1").Attach(t.Context(), []string{"true"}); return err },
	} {
		began := time.Now()
		if err := call(); err == nil {
			t.Errorf("%s on a frozen host succeeds", name)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s on a frozen host took %s", name, took)
		}
	}
}

func TestCleanRemovesADeadRunAndLeavesALiveOneAndForeignOnes(t *testing.T) {
	engine := needEngine(t)
	live, dead := runName(t)+"-live", runName(t)+"-dead"
	c, err := New(t.Context(), options(live, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	create := func(name string, labels ...string) {
		args := []string{"create", "--name", name}
		for _, label := range labels {
			args = append(args, "--label", label)
		}
		if out, err := exec.Command("docker", append(args, image)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Cleanup(func() { _ = exec.Command("docker", "rm", "-f", name).Run() }) // gone already where Clean works
	}
	create("capsize-"+dead, "capsize=true", "capsize.run="+dead, fmt.Sprintf("capsize.checker=%s/%d/1", host, gone.Process.Pid))
	foreign := "capsize-lookalike-" + runName(t)
	create(foreign)
	removed, err := Clean(t.Context(), CleanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(removed, "capsize-"+dead) {
		t.Errorf("removed only %v", removed)
	}
	if len(namesOf(t, engine, live)) == 0 {
		t.Error("the live run is gone")
	}
	if exec.Command("docker", "inspect", foreign).Run() != nil {
		t.Error("a container without our label is gone")
	}
}

func TestWithoutAnEngineOrImageTheErrorSaysWhatToDo(t *testing.T) {
	needEngine(t)
	o := options(runName(t), 1)
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
	if _, err := New(t.Context(), options(runName(t), 1)); err == nil || !strings.Contains(err.Error(), "ci/engine") {
		t.Errorf("no engine: %v", err)
	}
}
