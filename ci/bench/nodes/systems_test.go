package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var three = []member{{"n1", "127.0.0.1:1", "127.0.0.1:2"}, {"n2", "127.0.0.1:3", "127.0.0.1:4"}, {"n3", "127.0.0.1:5", "127.0.0.1:6"}}

func TestEtcdHasNoFlagsButAddressesAndDirectory(t *testing.T) {
	want := []string{
		"/bin/etcd", "--name", "n2", "--data-dir", "/d",
		"--listen-client-urls", "http://127.0.0.1:3", "--advertise-client-urls", "http://127.0.0.1:3",
		"--listen-peer-urls", "http://127.0.0.1:4", "--initial-advertise-peer-urls", "http://127.0.0.1:4",
		"--initial-cluster", "n1=http://127.0.0.1:2,n2=http://127.0.0.1:4,n3=http://127.0.0.1:6", "--initial-cluster-token", "capsize-bench",
	}
	if got := (etcd{"/bin/etcd"}).command(three, 1, "/d"); !slices.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

func TestOurNodeWritesATraceOnlyWhenAsked(t *testing.T) {
	for _, trace := range []bool{false, true} {
		argv := raftnode{"/bin/raftnode", trace}.command(three, 0, "/d")
		if got := slices.Contains(argv, "--trace"); got != trace {
			t.Errorf("trace %t: %q", trace, argv)
		}
	}
}

// node is a server that answers like ours and writes down who asked what.
type node struct {
	*httptest.Server
	mu       sync.Mutex
	code     int
	body     string
	asked    []string
	sessions map[string]bool // remote addresses
}

func newNode(t *testing.T, code int, body string) *node {
	n := &node{code: code, body: body, sessions: map[string]bool{}}
	n.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body) // a broken connection shows in what was asked
		n.mu.Lock()
		defer n.mu.Unlock()
		n.asked = append(n.asked, r.Method+" "+r.URL.Path+" "+string(data))
		n.sessions[r.RemoteAddr] = true
		w.WriteHeader(n.code)
		_, _ = io.WriteString(w, n.body)
	}))
	t.Cleanup(n.Close)
	return n
}

func (n *node) address() string { return strings.TrimPrefix(n.URL, "http://") }

func TestEachOfOurClientsKeepsOneConnection(t *testing.T) {
	one, other := newNode(t, http.StatusOK, "{}\n"), newNode(t, http.StatusOK, "{}\n")
	puts, disconnect, err := raftnode{}.connect(t.Context(), []string{one.address(), other.address()}, 4, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer disconnect()
	for range 3 {
		for _, put := range puts {
			if err := put(t.Context(), "k1", "42"); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, n := range []*node{one, other} {
		if len(n.asked) != 6 || n.asked[0] != `PUT /v1/kv/k1 {"value":"42"}` || len(n.sessions) != 2 {
			t.Errorf("asked %q over %d connections, want the same six times over two", n.asked, len(n.sessions))
		}
	}
}

func TestAPutThatOurNodeRefusesIsAnError(t *testing.T) {
	n := newNode(t, http.StatusServiceUnavailable, `{"error":"no leader"}`)
	puts, disconnect, err := raftnode{}.connect(t.Context(), []string{n.address()}, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer disconnect()
	if err := puts[0](t.Context(), "k", "1"); err == nil || !strings.Contains(err.Error(), "no leader") {
		t.Errorf("got %v", err)
	}
}

func TestOurLeaderIsWhoSaysSo(t *testing.T) {
	for body, want := range map[string]bool{`{"role":"leader"}`: true, `{"role":"follower"}`: false} {
		if got, err := (raftnode{}).leads(t.Context(), newNode(t, http.StatusOK, body).address()); err != nil || got != want {
			t.Errorf("%s: leads %t, %v", body, got, err)
		}
	}
	if _, err := (raftnode{}).leads(t.Context(), newNode(t, http.StatusOK, "no JSON").address()); err == nil {
		t.Error("an answer that is no JSON is none")
	}
}

func TestAClusterWhoseNodesEndIsNotWaitedFor(t *testing.T) {
	began := time.Now()
	_, err := startCluster(t.Context(), raftnode{program: "/bin/false"}, t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "ended by itself") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > readyTimeout/2 {
		t.Errorf("after %s", took)
	}
}

func TestAClusterThatDoesNotAnswerIsWaitedForOnlyAsLongAsTheContextLasts(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := startCluster(ctx, silent{}, t.TempDir())
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// silent is our node with another program in its place, which runs and answers nobody.
type silent struct{ raftnode }

func (silent) command([]member, int, string) []string { return []string{"/bin/sleep", "600"} }

func TestFreeAddressesAreAllDifferent(t *testing.T) {
	addresses, err := freeAddresses(20)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(addresses)
	if got := len(slices.Compact(addresses)); got != 20 {
		t.Errorf("%d different ones of 20", got)
	}
}
