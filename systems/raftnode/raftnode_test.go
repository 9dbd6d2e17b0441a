package raftnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"capsize/clusters"
	"capsize/histories"
	"capsize/systems"
)

var (
	_ systems.System   = (*System)(nil)
	_ systems.Observer = (*System)(nil)
	_ systems.Traced   = (*System)(nil)
	_ systems.Attempts = (*client)(nil)

	_ systems.Membership = (*System)(nil)
)

// loopback is a cluster of addresses and directories; the tests start what runs on it.
type loopback struct {
	clusters.Cluster // nothing else is called
	dir              string
	nodes            []string
	listen           map[string]string
}

func (l *loopback) Nodes() []string                 { return l.nodes }
func (l *loopback) Listen(node, port string) string { return l.listen[node+port] }
func (l *loopback) Dial(_, to, port string) string  { return l.listen[to+port] }
func (l *loopback) Host(node string) clusters.Host  { return host{dir: filepath.Join(l.dir, node)} }
func (l *loopback) address(t *testing.T) (free string) {
	t.Helper()
	return l.addressAt(t, "127.0.0.1")
}

func (l *loopback) addressAt(t *testing.T, host string) (free string) {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }() // only its port was wanted
	return listener.Addr().String()
}

type host struct {
	clusters.Host
	dir string
}

func (h host) Dir() string { return h.dir }

// scripted is a cluster whose nodes answer as told: one word per request, each node its
// own list.
func scripted(t *testing.T, scripts ...string) (*loopback, *journal) {
	t.Helper()
	l, j := &loopback{listen: map[string]string{}}, &journal{}
	for i, script := range scripts {
		node := fmt.Sprintf("n%d", i+1)
		l.nodes = append(l.nodes, node)
		if script == "down" {
			l.listen[node+clientPort] = l.address(t)
			continue
		}
		words := strings.Fields(script)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n := j.add(node, r)
			if n > len(words) {
				t.Errorf("%s was asked %d times, want %d", node, n, len(words))
				return
			}
			act(w, r, words[n-1])
		}))
		t.Cleanup(server.Close)
		l.listen[node+clientPort] = server.Listener.Addr().String()
	}
	return l, j
}

// journal is what the scripted nodes were asked.
type journal struct {
	mu       sync.Mutex
	asked    map[string]int
	requests []string // node session sequence
}

func (j *journal) add(node string, r *http.Request) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.asked == nil {
		j.asked = map[string]int{}
	}
	j.asked[node]++
	j.requests = append(j.requests, node+" "+r.Header.Get("Capsize-Session")+" "+r.Header.Get("Capsize-Sequence"))
	return j.asked[node]
}

func (j *journal) list() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.requests)
}

func act(w http.ResponseWriter, r *http.Request, word string) {
	say := func(code int, body string) {
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body)) // the client may be gone
	}
	switch word {
	case "ok":
		say(200, `{"value":"7"}`)
	case "null":
		say(200, `{"value":null}`)
	case "mismatch":
		say(409, `{"error":"mismatch","outcome":"definite","value":"9"}`)
	case "superseded":
		say(409, `{"error":"the session has gone on","outcome":"indefinite"}`)
	case "refuse":
		say(503, `{"error":"no leader","outcome":"definite"}`)
	case "invalid":
		say(400, `{"error":"key","outcome":"definite"}`)
	case "timeout":
		say(504, `{"error":"timed out","outcome":"indefinite"}`)
	case "garbage":
		say(500, `<html>`)
	case "proxy":
		say(503, `{}`)
	case "cut":
		panic(http.ErrAbortHandler) // the connection is closed without an answer
	case "half":
		w.Header().Set("Content-Length", "100")
		say(200, `{"value":"7"`)
	case "redirect":
		http.Redirect(w, r, "/elsewhere", http.StatusMovedPermanently)
	case "silent":
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server see the client leave
		<-r.Context().Done()
	}
}

func TestTheOutcomeOfAnOperation(t *testing.T) {
	for _, c := range []struct {
		what     string
		nodes    []string
		retries  int
		want     histories.Type
		mismatch bool
		attempts int
	}{
		{"answered", []string{"ok", ""}, 1, histories.OK, false, 1},
		{"refused", []string{"refuse", ""}, 1, histories.Fail, false, 1},
		{"invalid", []string{"invalid", ""}, 1, histories.Fail, false, 1},
		{"mismatch", []string{"mismatch", ""}, 1, histories.Fail, true, 1},
		{"connection refused", []string{"down", ""}, 1, histories.Fail, false, 0},

		{"unknown once, then answered", []string{"timeout", "ok"}, 1, histories.OK, false, 2},
		{"connection lost, then answered", []string{"cut", "ok"}, 1, histories.OK, false, 2},
		{"silence, then answered", []string{"silent", "ok"}, 1, histories.OK, false, 2},
		{"unknown, then a mismatch, which is the result of the operation", []string{"cut", "mismatch"}, 1, histories.Fail, true, 2},

		{"unknown, then refused: the first may still be applied", []string{"timeout", "refuse"}, 1, histories.Info, false, 2},
		{"connection lost, then refused", []string{"cut", "refuse"}, 1, histories.Info, false, 2},
		{"connection lost, then connection refused", []string{"cut", "down"}, 1, histories.Info, false, 1},
		{"connection lost, then invalid", []string{"cut", "invalid"}, 1, histories.Info, false, 2},
		{"connection lost, refused, answered", []string{"cut", "refuse", "ok"}, 2, histories.OK, false, 3},
		{"unknown, and no retries", []string{"timeout", ""}, 0, histories.Info, false, 1},
		{"unknown twice", []string{"timeout", "cut", ""}, 1, histories.Info, false, 2},
		{"the one node again", []string{"cut timeout"}, 1, histories.Info, false, 2},

		{"superseded", []string{"superseded"}, 0, histories.Info, false, 1},
		{"half an answer", []string{"half"}, 0, histories.Info, false, 1},
		{"an answer of something else", []string{"garbage"}, 0, histories.Info, false, 1},
		{"an error that says no outcome", []string{"proxy"}, 0, histories.Info, false, 1},
		{"a redirect, which is not followed", []string{"redirect"}, 0, histories.Info, false, 1},
		{"no answer at all", []string{"silent"}, 0, histories.Info, false, 1},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			cluster, journal := scripted(t, c.nodes...)
			kv := open(t, cluster, "n1", c.retries)
			ctx, cancel := context.WithTimeout(context.Background(), 600*time.Millisecond)
			defer cancel()
			_, err := kv.CompareAndSwap(ctx, "x", 1, 2)
			if got := histories.Outcome(err); got != c.want {
				t.Errorf("outcome %v (%v), want %v", got, err, c.want)
			}
			if errors.As(err, new(*histories.Refusal)) != c.mismatch {
				t.Errorf("error %v", err)
			}
			if got := kv.(systems.Attempts).Attempts(); got != c.attempts {
				t.Errorf("%d attempts, want %d", got, c.attempts)
			}
			for _, request := range journal.list() {
				if _, identity, _ := strings.Cut(request, " "); identity != kv.(*client).session+" 1" {
					t.Errorf("an attempt was sent as %q", identity)
				}
			}
		})
	}
}

func open(t *testing.T, cluster clusters.Cluster, node string, retries int) systems.KV {
	t.Helper()
	s, err := New(Options{Binary: "raftnode", Retries: retries})
	if err != nil {
		t.Fatal(err)
	}
	kv, err := s.Open(cluster, node)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kv.Close() }) // connections only
	return kv
}

func TestEachOperationHasASequenceOfItsOwn(t *testing.T) {
	cluster, journal := scripted(t, "refuse ok null")
	kv := open(t, cluster, "n1", 1)
	ctx := context.Background()
	_, _ = kv.Put(ctx, "x", 1) // refused
	reply, err := kv.Get(ctx, "x")
	if n, _ := reply.Value.Int(); err != nil || n != 7 {
		t.Errorf("get: %v, %v", reply, err)
	}
	if reply, err := kv.Get(ctx, "y"); err != nil || !reply.Value.IsNil() {
		t.Errorf("get of nothing: %v, %v", reply, err)
	}
	for i, request := range journal.list() {
		if !strings.HasSuffix(request, fmt.Sprintf(" %d", i+1)) {
			t.Errorf("request %d was sent as %q", i+1, request)
		}
	}
	if other := open(t, cluster, "n1", 1); other.(*client).session == kv.(*client).session {
		t.Error("two clients share a session")
	}
}

func TestRetriesNeverOutliveTheContext(t *testing.T) {
	cluster, _ := scripted(t, "silent silent silent silent")
	kv := open(t, cluster, "n1", 3)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := kv.Put(ctx, "x", 1); histories.Outcome(err) != histories.Info {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestABusyClientReusesItsConnection(t *testing.T) {
	var connections sync.Map
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connections.Store(r.RemoteAddr, true)
		act(w, r, "ok")
	}))
	defer server.Close()
	kv := open(t, &loopback{nodes: []string{"n1"}, listen: map[string]string{"n1" + clientPort: server.Listener.Addr().String()}}, "n1", 1)
	for range 20 {
		if _, err := kv.Put(context.Background(), "x", 1); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	connections.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("20 puts took %d connections", n)
	}
}

func TestWrongOptionsAreRefused(t *testing.T) {
	for _, options := range []Options{{}, {Binary: "x", Retries: -1}, {Binary: "x", Retries: 11}} {
		if _, err := New(options); err == nil {
			t.Errorf("%+v is accepted", options)
		}
	}
	s, err := New(Options{Binary: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(&loopback{nodes: []string{"n1"}}, "n9"); err == nil {
		t.Error("a client of no node can be opened")
	}
}

// loopback6 is the IPv6 loopback address, or the IPv4 one where there is no IPv6.
func loopback6() string {
	listener, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		return "127.0.0.1"
	}
	_ = listener.Close() // it was there
	return "::1"
}

// The real thing: three processes started as Process says, one of them at IPv6 addresses.
func TestTheSystemRunsAndIsObserved(t *testing.T) {
	cluster := &loopback{dir: t.TempDir(), listen: map[string]string{}}
	binary := filepath.Join(cluster.dir, program)
	if out, err := exec.Command("go", "build", "-o", binary, "capsize/cmd/raftnode").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	system, err := New(Options{Binary: binary, Tick: 10 * time.Millisecond, Seed: 3, Retries: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"n1", "n2", "n3"} {
		cluster.nodes = append(cluster.nodes, node)
		for _, port := range system.Ports() {
			cluster.listen[node+port.Name] = cluster.addressAt(t, map[string]string{"n1": "127.0.0.1", "n2": loopback6(), "n3": "127.0.0.1"}[node])
		}
	}
	running := map[string]*exec.Cmd{}
	for _, node := range cluster.nodes {
		running[node] = launch(t, system, cluster, node)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for i, node := range cluster.nodes {
		kv := open(t, cluster, node, 1)
		until(ctx, t, node+" accepts a put", func() bool {
			_, err := kv.Put(ctx, "x", int64(i))
			return err == nil
		})
		if _, err := kv.CompareAndSwap(ctx, "x", int64(i), 50); err != nil {
			t.Errorf("%s: %v", node, err)
		}
		swapped, err := kv.Get(ctx, "x")
		if err != nil || !swapped.Value.Equal(histories.Int(50)) || swapped.Revision == 0 {
			t.Errorf("%s: %v, %v", node, swapped, err)
		}
		_, err = kv.CompareAndSwap(ctx, "x", 49, 51)
		refusal := (*histories.Refusal)(nil)
		if !errors.As(err, &refusal) || !refusal.Said || !refusal.Found.Equal(histories.Int(50)) || refusal.Revision != swapped.Revision {
			t.Errorf("%s: %v", node, err)
		}
	}
	leader := ""
	for _, node := range cluster.nodes {
		status, err := system.Status(ctx, cluster, node)
		if err != nil || !status.Up || status.Term == 0 || status.Leader == "" {
			t.Errorf("%s: %+v, %v", node, status, err)
		}
		leader = status.Leader
	}
	if err := running[leader].Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, "the stopped node has no status", func() bool { // a signal takes its time
		_, err := system.Status(ctx, cluster, leader)
		return err != nil
	})
	kv := open(t, cluster, leader, 1) // its own node is silent: the retry goes elsewhere
	until(ctx, t, "a put by the next node", func() bool {
		opCtx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := kv.Put(opCtx, "x", 60)
		return err == nil && kv.(systems.Attempts).Attempts() == 2
	})
	for name := range system.Artifacts("n1") {
		if info, err := os.Stat(filepath.Join(cluster.Host("n1").Dir(), name)); err != nil || info.Size() == 0 {
			t.Errorf("artifact %s: %v", name, err)
		}
	}
}

func launch(t *testing.T, system *System, cluster clusters.Cluster, node string) *exec.Cmd {
	t.Helper()
	process := system.Process(cluster, node)
	if err := os.MkdirAll(process.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(process.Log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }() // the process has its own
	files, err := system.Files(context.Background())
	if err != nil || len(files) != 1 || !strings.HasSuffix(process.Argv[0], files[0].Name) {
		t.Fatalf("files %v, %v; argv %v", files, err, process.Argv)
	}
	cmd := exec.Command(files[0].Local, process.Argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = process.Dir, log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // killed, says the error
		if data, err := os.ReadFile(process.Log); t.Failed() && err == nil {
			t.Logf("%s:\n%s", node, data)
		}
	})
	return cmd
}

func until(ctx context.Context, t *testing.T, what string, condition func() bool) {
	t.Helper()
	for !condition() {
		if ctx.Err() != nil {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
