package server

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"capsize/checkers/invariants"
	"capsize/raftnode/replica"
)

// cluster is several nodes in this process, on loopback.
type cluster struct {
	t       *testing.T
	configs map[string]Config
	stops   map[string]func() error
	traces  map[string]string // of all nodes that there were
}

func startCluster(t *testing.T, names ...string) *cluster {
	c := &cluster{t: t, configs: map[string]Config{}, stops: map[string]func() error{}, traces: map[string]string{}}
	var peers []Peer
	for _, name := range names {
		peers = append(peers, Peer{name, freeAddress(t)})
	}
	for _, p := range peers {
		config := c.config(p.Name, p.Address)
		config.Peers = peers
		c.start(config)
	}
	waitForLeader(t, c.configs[names[0]].ListenClient)
	return c
}

// config makes a node that takes snapshots often.
func (c *cluster) config(name, peer string) Config {
	return Config{
		Name: name, Cluster: "test", ListenPeer: peer, ListenClient: freeAddress(c.t),
		DataDir: filepath.Join(c.t.TempDir(), name), TraceFile: filepath.Join(c.t.TempDir(), "trace.jsonl"),
		Tick: 5 * time.Millisecond, ElectionTicks: 30, HeartbeatTicks: 3, SnapshotEntries: 150, KeepEntries: 20,
	}
}

func (c *cluster) start(config Config) {
	c.configs[config.Name], c.traces[config.Name] = config, config.TraceFile
	c.stops[config.Name] = run(c.t, config)
}

func (c *cluster) stop(name string) {
	c.t.Helper()
	if err := c.stops[name](); err != nil {
		c.t.Fatal(err)
	}
	delete(c.stops, name)
}

func (c *cluster) url(name, path string) string {
	return "http://" + c.configs[name].ListenClient + path
}

func (c *cluster) status(name string) (s statusBody) {
	_ = json.Unmarshal([]byte(call(c.t, "GET", c.url(name, "/v1/status"), "").body), &s) // zero: it does not answer
	return s
}

// leader waits for all running nodes to agree on who leads.
func (c *cluster) leader() (leader string) {
	c.t.Helper()
	eventually(c.t, "one leader for all", func() bool {
		leaders := map[string]bool{}
		for name := range c.stops {
			leader = c.status(name).Leader
			leaders[leader] = true
		}
		return len(leaders) == 1 && leader != ""
	})
	return leader
}

// change changes the members, on whoever leads, until it has taken effect. An answer that leaves
// that open is followed by a look at the members: the change is not made twice.
func (c *cluster) change(changes string) {
	c.t.Helper()
	eventually(c.t, changes, func() bool {
		got := call(c.t, "POST", c.url(c.leading(), "/v1/members"), `{"changes":[`+changes+`]}`)
		if got.code == 200 || c.hold(changes) {
			return true
		}
		if got.code == 400 {
			c.t.Fatalf("%s: %+v", changes, got)
		}
		return false
	})
}

// leading returns a node that says that it leads. A node that was removed, and knows nothing of
// it, does not agree with the others for ever.
func (c *cluster) leading() (leader string) {
	c.t.Helper()
	eventually(c.t, "somebody leads", func() bool {
		term := uint64(0)
		for name := range c.stops {
			if status := c.status(name); status.Role == "leader" && status.Term > term {
				leader, term = name, status.Term
			}
		}
		return term > 0
	})
	return leader
}

// hold reports whether the members are as if the changes had been made.
func (c *cluster) hold(changes string) bool {
	c.t.Helper()
	var wanted []struct{ Op, Name string }
	var body membersBody
	if err := json.Unmarshal([]byte("["+changes+"]"), &wanted); err != nil {
		c.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(call(c.t, "GET", c.url(c.leading(), "/v1/members"), "").body), &body); err != nil {
		return false
	}
	voter := make(map[string]bool)
	for _, m := range body.Members {
		voter[m.Name] = m.Voter
	}
	for _, w := range wanted {
		votes, member := voter[w.Name]
		if w.Op == "remove" && member || w.Op != "remove" && (!member || votes != (w.Op == "add" || w.Op == "promote")) {
			return false
		}
	}
	return true
}

func (c *cluster) members() (names []string) {
	var body membersBody
	if err := json.Unmarshal([]byte(call(c.t, "GET", c.url(c.leader(), "/v1/members"), "").body), &body); err != nil {
		c.t.Fatal(err)
	}
	for _, m := range body.Members {
		kind := "learner"
		if m.Voter {
			kind = "voter"
		}
		names = append(names, fmt.Sprintf("%d %s %s", m.ID, m.Name, kind))
	}
	return names
}

// join adds a node and starts it.
func (c *cluster) join(op, name string) {
	c.t.Helper()
	peer := freeAddress(c.t)
	c.change(fmt.Sprintf(`{"op":"%s","name":"%s","address":"%s"}`, op, name, peer))
	config := c.config(name, peer)
	config.Join = c.configs[c.leader()].ListenClient
	c.start(config)
}

// load writes on and on, to whichever node runs, and remembers what was acknowledged.
type load struct {
	c     *cluster
	ended sync.WaitGroup
	stop  atomic.Bool
	mu    sync.Mutex
	nodes []string // their addresses
	acked map[string]bool
	gap   time.Duration // the longest between two acknowledgements
}

func (c *cluster) load() *load {
	l := &load{c: c, acked: map[string]bool{}}
	l.only(slices.Collect(maps.Keys(c.stops))...)
	l.ended.Go(func() {
		last := time.Now()
		for i := 0; !l.stop.Load(); i++ {
			l.mu.Lock()
			node := l.nodes[i%len(l.nodes)]
			l.mu.Unlock()
			key := fmt.Sprintf("k%d", i)
			if call(c.t, "PUT", node+"/v1/kv/"+key+"?timeout=1s", `{"value":"v"}`).code == 200 {
				l.mu.Lock()
				l.acked[key] = true
				l.gap = max(l.gap, time.Since(last))
				l.mu.Unlock()
				last = time.Now()
			}
		}
	})
	return l
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// more waits for so many further acknowledgements.
func (l *load) more(n int) {
	l.c.t.Helper()
	until := l.count() + n
	eventually(l.c.t, fmt.Sprintf("%d more writes", n), func() bool { return l.count() >= until })
}

// only lets the load use these nodes from now on.
func (l *load) only(names ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes = nil
	for _, name := range names {
		l.nodes = append(l.nodes, l.c.url(name, ""))
	}
}

// finish stops writing; then every acknowledged key must be read on that node.
func (l *load) finish(name string) {
	l.c.t.Helper()
	l.stop.Store(true)
	l.ended.Wait()
	for key := range l.acked {
		got := call(l.c.t, "GET", l.c.url(name, "/v1/kv/"+key), "")
		if !strings.HasPrefix(got.body, `{"value":"v"`) {
			l.c.t.Fatalf("%s was acknowledged, and %s says %+v", key, name, got)
		}
	}
}

func (c *cluster) metric(name, metric string) string {
	for line := range strings.SplitSeq(call(c.t, "GET", c.url(name, "/metrics"), "").body, "\n") {
		if value, found := strings.CutPrefix(line, metric+" "); found {
			return value
		}
	}
	return ""
}

func TestMembersComeAndGoWhileTheClusterServes(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "n1", "n2", "n3")
	l := c.load()
	l.more(300) // the log of newcomers begins with a snapshot
	c.join("add-learner", "n4")
	eventually(t, "n4 has the log", func() bool { return c.status("n4").Applied > 300 })
	c.change(`{"op":"promote","name":"n4"}`)
	if got := c.metric("n4", `raftnode_snapshots_total{result="ok",what="received"}`); got != "1" {
		t.Errorf("n4 received %q snapshots, want 1", got)
	}

	// One voter in place of another, in one step.
	peer := freeAddress(t)
	c.change(fmt.Sprintf(`{"op":"add","name":"n5","address":"%s"},{"op":"remove","name":"n1"}`, peer))
	config := c.config("n5", peer)
	config.Join = c.configs["n4"].ListenClient
	c.start(config)
	l.only("n2", "n3", "n4", "n5")
	c.stop("n1")
	l.more(100)
	if got, want := c.members(), []string{"2 n2 voter", "3 n3 voter", "4 n4 voter", "5 n5 voter"}; !slices.Equal(got, want) {
		t.Errorf("members %v, want %v", got, want)
	}

	// The old guard goes; the newcomers know one another from the log.
	c.change(`{"op":"demote","name":"n2"}`)
	c.change(`{"op":"remove","name":"n2"}`)
	c.stop("n2")
	l.only("n3", "n4", "n5")
	eventually(t, "n4 leads", func() bool {
		return call(t, "POST", c.url(c.leader(), "/v1/leader"), `{"to":"n4"}`).code == 200
	})
	c.change(`{"op":"remove","name":"n3"}`)
	c.stop("n3")
	l.only("n4", "n5")
	l.more(100)
	// A node that joined finds itself in its data when it starts again.
	c.stop("n5")
	again := c.configs["n5"]
	again.Join = "127.0.0.1:1"
	c.start(again)
	l.more(50)
	l.finish("n5")
	if got, want := c.members(), []string{"4 n4 voter", "5 n5 voter"}; !slices.Equal(got, want) {
		t.Errorf("members %v, want %v", got, want)
	}
	if l.gap > 5*time.Second {
		t.Errorf("nothing was acknowledged for %v", l.gap)
	}
	t.Logf("%d writes acknowledged, at most %v apart", l.count(), l.gap)
	c.finish()
}

func TestALaggingNodeAndAWipedOneCatchUpUnderLoad(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "n1", "n2", "n3")
	l := c.load()
	l.only("n1", "n2")
	c.stop("n3")
	l.more(500) // far beyond what the log keeps
	c.start(c.configs["n3"])
	eventually(t, "n3 caught up", func() bool { return c.status("n3").Applied+30 > c.status(c.leader()).Applied })
	if got := c.metric("n3", `raftnode_snapshots_total{result="ok",what="received"}`); got != "1" {
		t.Errorf("n3 received %q snapshots, want 1", got)
	}
	// Wiped: what it promised is forgotten, so it comes back as another member.
	c.stop("n3")
	if err := os.RemoveAll(c.configs["n3"].DataDir); err != nil {
		t.Fatal(err)
	}
	c.change(`{"op":"remove","name":"n3"}`)
	l.more(200)
	c.join("add", "n3")
	eventually(t, "the new n3 caught up", func() bool { return c.status("n3").Applied+30 > c.status(c.leader()).Applied })
	if got, want := c.members(), []string{"1 n1 voter", "2 n2 voter", "4 n3 voter"}; !slices.Equal(got, want) {
		t.Errorf("members %v, want %v", got, want)
	}
	// Snapshots, here and there, have made old segments and snapshots unnecessary.
	eventually(t, "one snapshot is left on each disk", func() bool {
		for _, config := range c.configs {
			files, err := filepath.Glob(filepath.Join(config.DataDir, "snapshots", "*.snap"))
			if err != nil || len(files) != 1 {
				return false
			}
		}
		return true
	})
	l.finish("n3")
}

// A restart begins with the snapshot and what follows it, and loses nothing.
func TestANodeStartsAgainFromItsSnapshot(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "n1")
	l := c.load()
	l.more(400)
	l.finish("n1")
	before := c.status("n1")
	if before.Snapshot < 150 {
		t.Fatalf("no snapshot was taken: %+v", before)
	}
	c.stop("n1")
	c.start(c.configs["n1"])
	waitForLeader(t, c.configs["n1"].ListenClient)
	l.finish("n1")
	data, err := os.ReadFile(c.configs["n1"].TraceFile)
	if err != nil {
		t.Fatal(err)
	}
	_, second, _ := strings.Cut(string(data), `"inc":2`)
	boot, _, _ := strings.Cut(second, "\n")
	if !strings.Contains(boot, fmt.Sprintf(`"snapIdx":%d`, before.Snapshot)) {
		t.Errorf("the snapshot was at %d, the second start says %s", before.Snapshot, boot)
	}
}

func TestALeaderThatStopsHandsOverFirst(t *testing.T) {
	c := startCluster(t, "n1", "n2", "n3")
	old := c.leader()
	term := c.status(old).Term
	c.stop(old)
	// Nobody can have missed the old leader's heartbeats for long enough yet.
	asked := false
	for name := range c.stops {
		asked = asked || c.status(name).Term > term
	}
	if !asked {
		t.Error("nobody was asked to take over")
	}
	if s := c.status(c.leader()); s.Term != term+1 {
		t.Errorf("the next leader has term %d: want %d, without an election that failed", s.Term, term+1)
	}
}

func TestMembersAreChangedByTheLeaderOnly(t *testing.T) {
	c := startCluster(t, "n1", "n2", "n3")
	leader := c.leader()
	for name := range c.stops {
		if name == leader {
			continue
		}
		got := call(t, "POST", c.url(name, "/v1/members"), `{"changes":[{"op":"remove","name":"n1"}]}`)
		if got.code != 503 || !strings.Contains(got.body, "does not lead") || !strings.Contains(got.body, `"definite"`) {
			t.Errorf("%s, a follower, says %+v", name, got)
		}
	}
}

func TestANodeThatIsNoMemberIsToldWhatToDo(t *testing.T) {
	c := startCluster(t, "n1")
	config := c.config("n9", freeAddress(t))
	config.Join = c.configs["n1"].ListenClient
	if _, err := Start(config); err == nil || !strings.Contains(err.Error(), "n9 is no member there: add it first") {
		t.Errorf("got %v", err)
	}
	config.Join = freeAddress(t)
	if _, err := Start(config); err == nil || !strings.Contains(err.Error(), "join the cluster of "+config.Join) {
		t.Errorf("got %v", err)
	}
}

// Nothing queues without bound: a loop that is behind makes clients go elsewhere.
func TestAFullQueueRefusesRequestsForCertain(t *testing.T) {
	config := alone(t)
	s, err := Start(config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }() // Run never was
	for range queuedRequests {
		s.requests <- request{}
	}
	var asked fasthttp.RequestCtx
	asked.Request.Header.SetMethod("PUT")
	asked.Request.SetRequestURI("/v1/kv/x")
	asked.Request.SetBodyString(`{"value":"1"}`)
	s.handler()(&asked)
	if body, code := string(asked.Response.Body()), asked.Response.StatusCode(); code != 503 || !strings.Contains(body, replica.ErrOverloaded.Error()) || !strings.Contains(body, `"definite"`) {
		t.Errorf("got %d %s", code, body)
	}
}

func TestMetricsTellWhatTheNodeDoes(t *testing.T) {
	c := startCluster(t, "n1")
	if r := call(t, "PUT", c.url("n1", "/v1/kv/x"), `{"value":"1"}`); r.code != 200 {
		t.Fatal(r)
	}
	for metric, want := range map[string]string{
		"raftnode_is_leader": "1",
		"raftnode_leader_id": "1",
		`raftnode_request_seconds_count{operation="put",outcome="done"}`: "1",
	} {
		if got := c.metric("n1", metric); got != want {
			t.Errorf("%s is %q, want %s", metric, got, want)
		}
	}
	for _, metric := range []string{
		"raftnode_term", "raftnode_commit_index", "raftnode_applied_index", "raftnode_snapshot_index", "raftnode_requests_waiting",
		"raftnode_disk_sync_seconds_count", "raftnode_leader_changes_total", "raftnode_peer_messages_sent_total",
		"raftnode_peer_messages_received_total", "raftnode_peer_messages_dropped_total", "process_resident_memory_bytes",
	} {
		if c.metric("n1", metric) == "" {
			t.Errorf("no %s", metric)
		}
	}
}

// promisesKept holds the traces of nodes that have stopped against Raft's invariants.
func promisesKept(t testing.TB, traces map[string]string) {
	t.Helper()
	checker := invariants.New(invariants.Options{})
	for name, path := range traces {
		if err := invariants.Read(t.Context(), path, name, checker.Add); err != nil {
			t.Fatal(err)
		}
	}
	report := checker.Finish()
	for _, v := range report.Violations {
		t.Errorf("%v, %s: %s %v", v.Invariant, v.Name, v.Explanation, v.Events)
	}
	for _, u := range report.Undecided {
		t.Errorf("not decided: %+v", u)
	}
	for _, invariant := range []invariants.Invariant{
		invariants.ElectionSafety, invariants.VoteQuorum, invariants.LogMatching, invariants.CommitRule, invariants.StateMachine,
		invariants.PersistBeforeSend, invariants.ReplicationView,
	} {
		if report.Checks[invariant] == 0 {
			t.Errorf("%v, %s, was never put to the test", invariant, invariant.Name())
		}
	}
}

// finish stops all nodes, and holds the traces of all there ever were against the invariants.
func (c *cluster) finish() {
	c.t.Helper()
	for name := range maps.Clone(c.stops) {
		c.stop(name)
	}
	promisesKept(c.t, c.traces)
}
