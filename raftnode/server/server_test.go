package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capsize/raftnode/files/crashfs"
)

func freeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }() // only its port was wanted
	return listener.Addr().String()
}

func alone(t *testing.T) Config {
	peer := freeAddress(t)
	return Config{
		Name: "n1", Cluster: "test", Peers: []Peer{{"n1", peer}}, ListenPeer: peer, ListenClient: freeAddress(t),
		DataDir: t.TempDir(), TraceFile: filepath.Join(t.TempDir(), "trace.jsonl"),
		Tick: 2 * time.Millisecond, ElectionTicks: 10, HeartbeatTicks: 1,
	}
}

// run starts a node; the returned function stops it and returns what Run did.
func run(t *testing.T, c Config) (stop func() error) {
	t.Helper()
	s, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stopped := false
	stop = func() error {
		cancel()
		stopped = true
		select {
		case err := <-ended:
			return err
		case <-time.After(10 * time.Second):
			return errors.New("the node does not stop")
		}
	}
	t.Cleanup(func() {
		if !stopped {
			if err := stop(); err != nil {
				t.Error(err)
			}
		}
	})
	return stop
}

type reply struct {
	code int
	body string
}

func call(t testing.TB, method, url, body string, headers ...string) reply {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return reply{0, err.Error()}
	}
	defer func() { _ = response.Body.Close() }() // read to its end
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return reply{0, err.Error()}
	}
	return reply{response.StatusCode, strings.TrimSpace(string(data))}
}

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func waitForLeader(t testing.TB, client string) {
	t.Helper()
	eventually(t, "a leader at "+client, func() bool {
		return call(t, "GET", "http://"+client+"/v1/kv/ready", "").code == 200
	})
}

func TestTheHTTPInterface(t *testing.T) {
	c := alone(t)
	run(t, c)
	waitForLeader(t, c.ListenClient)
	base := "http://" + c.ListenClient
	session := func(sequence string) []string {
		return []string{HeaderSession, "s", HeaderSequence, sequence}
	}
	bad := func(code int, want string) func(reply) string {
		return func(r reply) string {
			var body errorBody
			if err := json.Unmarshal([]byte(r.body), &body); err != nil {
				return err.Error()
			}
			if r.code != code || body.Outcome != "definite" || !strings.Contains(body.Error, want) {
				return fmt.Sprintf("want %d, definite, with %q in it", code, want)
			}
			return ""
		}
	}
	is := func(code int, body string) func(reply) string {
		return func(r reply) string {
			if r != (reply{code, body}) {
				return fmt.Sprintf("want %d %s", code, body)
			}
			return ""
		}
	}
	for _, c := range []struct {
		method, path, body string
		headers            []string
		check              func(reply) string
	}{
		{"GET", "/v1/kv/x", "", nil, is(200, `{"value":null}`)},
		{"PUT", "/v1/kv/x", `{"value":-9223372036854775808}`, nil, is(200, `{}`)},
		{"GET", "/v1/kv/x", "", nil, is(200, `{"value":-9223372036854775808}`)},
		{"PUT", "/v1/kv/x", `{"value":0}`, session("1"), is(200, `{}`)},
		{"POST", "/v1/kv/x/cas", `{"expected":0,"value":4}`, session("2"), is(200, `{}`)},
		{"POST", "/v1/kv/x/cas", `{"expected":0,"value":4}`, session("2"), is(200, `{}`)},
		{"POST", "/v1/kv/x/cas", `{"expected":0,"value":4}`, session("3"), is(409, `{"error":"mismatch","outcome":"definite","value":4}`)},
		{"POST", "/v1/kv/none/cas", `{"expected":0,"value":4}`, nil, is(409, `{"error":"mismatch","outcome":"definite","value":null}`)},
		{"PUT", "/v1/kv/x", `{"value":8}`, session("3"), bad(400, "used for another request")},
		{"GET", "/v1/kv/x?timeout=2s", "", nil, is(200, `{"value":4}`)},
		{"GET", "/v1/kv/a%2Fb", "", nil, is(200, `{"value":null}`)},
		{"PUT", "/v1/kv/x", `{"value":1.5}`, nil, bad(400, "want")},
		{"PUT", "/v1/kv/x", `{}`, nil, bad(400, `{"value": 64-bit integer}`)},
		{"PUT", "/v1/kv/x", `{"value":1,"x":2}`, nil, bad(400, "unknown field")},
		{"PUT", "/v1/kv/x", `{"value":` + strings.Repeat(" ", maxBodyBytes) + `1}`, nil, bad(400, "too large")},
		{"POST", "/v1/kv/x/cas", `{"value":1}`, nil, bad(400, "expected")},
		{"PUT", "/v1/kv/x", `{"value":1}`, []string{HeaderSession, "s"}, bad(400, "without a sequence")},
		{"PUT", "/v1/kv/x", `{"value":1}`, []string{HeaderSequence, "1"}, bad(400, "without a session")},
		{"PUT", "/v1/kv/x", `{"value":1}`, []string{HeaderSequence, "one"}, bad(400, "number")},
		{"PUT", "/v1/kv/" + strings.Repeat("k", 600), `{"value":1}`, nil, bad(400, "1 to 512")},
		{"GET", "/v1/kv/x?timeout=soon", "", nil, bad(400, "duration")},
		{"GET", "/v1/kv/x", "", []string{HeaderTimeout, "-1s"}, bad(400, "duration")},
		{"DELETE", "/v1/kv/x", "", nil, bad(404, "want GET or PUT")},
		{"GET", "/nothing", "", nil, bad(404, "/v1/status")},
	} {
		got := call(t, c.method, base+c.path, c.body, c.headers...)
		if problem := c.check(got); problem != "" {
			t.Errorf("%s %s %.60s %v\n got %d %s\n%s", c.method, c.path, c.body, c.headers, got.code, got.body, problem)
		}
	}
	superseded := call(t, "PUT", base+"/v1/kv/x", `{"value":1}`, session("1")...)
	if superseded.code != 409 || !strings.Contains(superseded.body, `"outcome":"indefinite"`) {
		t.Errorf("an older sequence: %+v", superseded)
	}
	var status statusBody
	if err := json.Unmarshal([]byte(call(t, "GET", base+"/v1/status", "").body), &status); err != nil {
		t.Fatal(err)
	}
	if status.ID != 1 || status.Name != "n1" || status.Role != "leader" || status.Leader != "n1" || status.Term == 0 || status.Applied == 0 || status.Commit < status.Applied {
		t.Errorf("status %+v", status)
	}
}

func TestWithoutAMajorityRequestsFailAndStatusAnswers(t *testing.T) {
	c := alone(t)
	c.Peers = append(c.Peers, Peer{"n2", freeAddress(t)}, Peer{"n3", freeAddress(t)})
	run(t, c)
	for _, r := range []reply{
		call(t, "PUT", "http://"+c.ListenClient+"/v1/kv/x", `{"value":1}`),
		call(t, "GET", "http://"+c.ListenClient+"/v1/kv/x", ""),
	} {
		if r.code != 503 || !strings.Contains(r.body, `"outcome":"definite"`) || !strings.Contains(r.body, "no leader") {
			t.Errorf("got %+v", r)
		}
	}
	if r := call(t, "GET", "http://"+c.ListenClient+"/v1/status", ""); r.code != 200 || !strings.Contains(r.body, `"leader":""`) {
		t.Errorf("status %+v", r)
	}
}

func TestADiskThatFailsStopsTheNodeAndNothingIsAcknowledged(t *testing.T) {
	c := alone(t)
	fs := crashfs.New(1)
	c.FS = fs
	s, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(context.Background()) }()
	waitForLeader(t, c.ListenClient)
	broken := errors.New("input/output error")
	fs.FailSync(broken)
	got := call(t, "PUT", "http://"+c.ListenClient+"/v1/kv/x", `{"value":1}`)
	if got.code == 200 || strings.Contains(got.body, `"outcome":"definite"`) {
		t.Errorf("a write that did not reach the disk: %+v", got)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, broken) {
			t.Errorf("the node ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the node goes on")
	}
}

func TestANodeKeepsItsDataAndRefusesWrongDirectories(t *testing.T) {
	c := alone(t)
	stop := run(t, c)
	waitForLeader(t, c.ListenClient)
	if r := call(t, "PUT", "http://"+c.ListenClient+"/v1/kv/x", `{"value":5}`); r.code != 200 {
		t.Fatal(r)
	}
	if _, err := Start(c); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a second node on the same ports: %v", err)
	}
	second := c
	second.ListenPeer, second.ListenClient = freeAddress(t), freeAddress(t)
	if _, err := Start(second); err == nil || !strings.Contains(err.Error(), "another node running") {
		t.Errorf("a second node in the same directory: %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	other := c
	other.Cluster = "other"
	if _, err := Start(other); err == nil || !strings.Contains(err.Error(), `of cluster "test", not to node 1 of cluster "other"`) {
		t.Errorf("a node of another cluster: %v", err)
	}
	run(t, c)
	waitForLeader(t, c.ListenClient)
	if r := call(t, "GET", "http://"+c.ListenClient+"/v1/kv/x", ""); r.body != `{"value":5}` {
		t.Errorf("after a restart: %+v", r)
	}
	data, err := os.ReadFile(c.TraceFile)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(data), `"ev":"boot"`); n != 2 {
		t.Errorf("the trace tells of %d starts, want 2", n)
	}
}
