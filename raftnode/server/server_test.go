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

// launch starts a node. It runs until cancel is called, or fails before; ended returns what
// Run did then, and is to be called once.
func launch(t testing.TB, c Config) (s *Server, cancel func(), ended func() error) {
	t.Helper()
	s, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	end := make(chan error, 1)
	go func() { end <- s.Run(ctx) }()
	return s, cancel, func() error {
		select {
		case err := <-end:
			return err
		case <-time.After(10 * time.Second):
			return errors.New("the node does not stop")
		}
	}
}

// run starts a node; the returned function stops it and returns what Run did.
func run(t *testing.T, c Config) (stop func() error) {
	t.Helper()
	_, cancel, ended := launch(t, c)
	stopped := false
	stop = func() error {
		cancel()
		stopped = true
		return ended()
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

// between returns what stands in s after one string and before another.
func between(s, after, before string) string {
	_, s, _ = strings.Cut(s, after)
	s, _, _ = strings.Cut(s, before)
	return s
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
		{"GET", "/v1/kv/x", "", nil, is(200, `{"value":null,"revision":0}`)},
		{"PUT", "/v1/kv/x", `{"value":"one"}`, nil, is(200, `{"revision":1}`)},
		{"GET", "/v1/kv/x", "", nil, is(200, `{"value":"one","createRevision":1,"modRevision":1,"version":1,"revision":1}`)},
		{"PUT", "/v1/kv/x", `{"value":"0"}`, session("1"), is(200, `{"revision":2}`)},
		{"POST", "/v1/kv/x/cas", `{"expected":{"value":"0"},"value":"4"}`, session("2"), is(200, `{"revision":3}`)},
		{"POST", "/v1/kv/x/cas", `{"expected":{"value":"0"},"value":"4"}`, session("2"), is(200, `{"revision":3}`)},
		{"POST", "/v1/kv/x/cas", `{"expected":{"value":"0"},"value":"4"}`, session("3"), is(409, `{"error":"mismatch","outcome":"definite","value":"4","createRevision":1,"modRevision":3,"version":3,"revision":3}`)},
		{"POST", "/v1/kv/none/cas", `{"expected":{"present":true},"value":"4"}`, nil, is(409, `{"error":"mismatch","outcome":"definite","value":null,"revision":3}`)},
		{"PUT", "/v1/kv/x", `{"value":"8"}`, session("3"), bad(400, "used for another request")},
		{"GET", "/v1/kv/x?timeout=2s", "", nil, is(200, `{"value":"4","createRevision":1,"modRevision":3,"version":3,"revision":3}`)},
		{"GET", "/v1/kv/a%2Fb", "", nil, is(200, `{"value":null,"revision":3}`)},
		{"PUT", "/v1/kv/a%2Fb", `{"value":{"base64":"/wA="}}`, nil, is(200, `{"revision":4}`)},
		{"POST", "/v1/kv/a%2Fb/append", `{"value":"x"}`, nil, is(200, `{"revision":5}`)},
		{"GET", "/v1/kv/a%2Fb", "", nil, is(200, `{"value":{"base64":"/wB4"},"createRevision":4,"modRevision":5,"version":2,"revision":5}`)},
		{"GET", "/v1/range?from=a&limit=1", "", nil, is(200, `{"entries":[{"key":"a/b","value":{"base64":"/wB4"},"createRevision":4,"modRevision":5,"version":2}],"more":true,"revision":5}`)},
		{"GET", "/v1/range?from=b&to=c", "", nil, is(200, `{"entries":[],"more":false,"revision":5}`)},
		{"POST", "/v1/kv/x/cas", `{"expected":{"modRevision":3},"value":"5"}`, nil, is(200, `{"revision":6}`)},
		{"POST", "/v1/kv/y/cas", `{"expected":{"absent":true},"value":"1"}`, nil, is(200, `{"revision":7}`)},
		{"POST", "/v1/txn", `{"if":[{"key":"y","version":1}],"then":[{"op":"put","key":"z","value":"2"},{"op":"get","key":"y"},{"op":"range","from":"x"},{"op":"delete","key":"x"}],"else":[]}`, nil,
			is(200, `{"succeeded":true,"answers":[{},{"value":"1"},{"entries":[{"key":"x","value":"5","createRevision":1,"modRevision":6,"version":4},{"key":"y","value":"1","createRevision":7,"modRevision":7,"version":1},{"key":"z","value":"2","createRevision":8,"modRevision":8,"version":1}]},{"deleted":1}],"revision":8}`)},
		{"POST", "/v1/txn", `{"if":[{"key":"y","absent":true}],"else":[{"op":"append","key":"z","value":"2"}]}`, nil, is(200, `{"succeeded":false,"answers":[{}],"revision":9}`)},
		{"POST", "/v1/locks/l/acquire", `{"owner":"me"}`, nil, is(200, `{"owner":"me","token":10}`)},
		{"POST", "/v1/locks/l/acquire", `{"owner":"you"}`, nil, is(409, `{"error":"another owner holds the lock","outcome":"definite","owner":"me","token":10}`)},
		{"PUT", "/v1/kv/z", `{"value":"3","fence":{"lock":"l","token":10}}`, nil, is(200, `{"revision":11}`)},
		{"POST", "/v1/locks/l/steal", `{"owner":"you"}`, nil, is(200, `{"owner":"you","token":12}`)},
		{"PUT", "/v1/kv/z", `{"value":"4","fence":{"lock":"l","token":10}}`, nil, is(409, `{"error":"the lock is not held under that token: another may hold it by now","outcome":"definite","owner":"you","token":12}`)},
		{"POST", "/v1/locks/l/release", `{"owner":"me","token":10}`, nil, bad(409, "does not hold")},
		{"GET", "/v1/locks/l", "", nil, is(200, `{"owner":"you","token":12}`)},
		{"POST", "/v1/locks/l/release", `{"owner":"you","token":12}`, nil, is(200, `{"owner":"","token":0}`)},
		{"GET", "/v1/locks/l", "", nil, is(200, `{"owner":"","token":0}`)},
		{"DELETE", "/v1/kv/z", "", nil, is(200, `{"revision":14,"deleted":1}`)},
		{"DELETE", "/v1/kv/z", "", nil, is(200, `{"revision":14,"deleted":0}`)},
		{"DELETE", "/v1/range?from=a&to=b", "", nil, is(200, `{"revision":15,"deleted":1}`)},
		{"GET", "/v1/members", "", nil, func(r reply) string {
			return is(200, fmt.Sprintf(`{"members":[{"id":1,"name":"n1","address":"%s","voter":true,"match":%s}]}`, c.ListenPeer, between(r.body, `"match":`, "}")))(r)
		}},
		{"POST", "/v1/leader", `{"to":"n1"}`, nil, is(200, `{}`)},
		{"POST", "/v1/snapshot", "", nil, func(r reply) string {
			return is(200, `{"index":`+between(r.body, `"index":`, "}")+`}`)(r)
		}},
		{"PUT", "/v1/kv/x", `{"value":1.5}`, nil, bad(400, "want")},
		{"PUT", "/v1/kv/x", `{}`, nil, bad(400, `{"value": string`)},
		{"PUT", "/v1/kv/x", `{"value":"1","x":2}`, nil, bad(400, "unknown field")},
		{"PUT", "/v1/kv/x", `{"value":` + strings.Repeat(" ", maxBodyBytes) + `"1"}`, nil, bad(413, "want at most")},
		{"PUT", "/v1/kv/x", `{"value":"` + strings.Repeat("v", 65<<10) + `"}`, nil, bad(400, "65536")},
		{"POST", "/v1/kv/x/cas", `{"value":"1"}`, nil, bad(400, "expected")},
		{"POST", "/v1/kv/x/cas", `{"value":"1","expected":{"absent":true,"present":true}}`, nil, bad(400, "expected")},
		{"POST", "/v1/txn", `{"then":[{"op":"jump"}]}`, nil, bad(400, `then 1: op "jump": want put`)},
		{"POST", "/v1/txn", `{"if":[{"key":"x"}]}`, nil, bad(400, "if 1: want one of")},
		{"POST", "/v1/locks/l/borrow", `{}`, nil, bad(404, "want acquire")},
		{"POST", "/v1/locks/l/acquire", `{}`, nil, bad(400, "owner")},
		{"GET", "/v1/range?limit=0", "", nil, bad(400, "want 1 to")},
		{"DELETE", "/v1/range", "", nil, bad(400, "all=true")},
		{"POST", "/v1/leader", `{"to":"n7"}`, nil, bad(400, "n7 is no member")},
		{"POST", "/v1/members", `{"changes":[]}`, nil, bad(400, "no changes")},
		{"POST", "/v1/members", `{"changes":[{"op":"marry","name":"n2"}]}`, nil, bad(400, "want add")},
		{"POST", "/v1/members", `{"changes":[{"op":"add","name":"n2"}]}`, nil, bad(400, "want host:port")},
		{"POST", "/v1/members", `{"changes":[{"op":"add","name":"n1","address":"a:1"}]}`, nil, bad(400, "n1 is a member already")},
		{"POST", "/v1/members", `{"changes":[{"op":"remove","name":"n2"}]}`, nil, bad(400, "n2 is no member")},
		{"POST", "/v1/members", `{"changes":[{"op":"remove","name":"n1"}]}`, nil, bad(409, "no voter would be left")},
		{"PUT", "/v1/kv/x", `{"value":"1"}`, []string{HeaderSession, "s"}, bad(400, "without a sequence")},
		{"PUT", "/v1/kv/x", `{"value":"1"}`, []string{HeaderSequence, "1"}, bad(400, "without a session")},
		{"PUT", "/v1/kv/x", `{"value":"1"}`, []string{HeaderSequence, "one"}, bad(400, "number")},
		{"PUT", "/v1/kv/" + strings.Repeat("k", 600), `{"value":"1"}`, nil, bad(400, "1 to 512")},
		{"GET", "/v1/kv/x?timeout=soon", "", nil, bad(400, "duration")},
		{"GET", "/v1/kv/x", "", []string{HeaderTimeout, "-1s"}, bad(400, "duration")},
		{"PATCH", "/v1/kv/x", "", nil, bad(404, "no such operation")},
		{"GET", "/nothing", "", nil, bad(404, "no such operation")},
	} {
		got := call(t, c.method, base+c.path, c.body, c.headers...)
		if problem := c.check(got); problem != "" {
			t.Errorf("%s %s %.60s %v\n got %d %s\n%s", c.method, c.path, c.body, c.headers, got.code, got.body, problem)
		}
	}
	superseded := call(t, "PUT", base+"/v1/kv/x", `{"value":"1"}`, session("1")...)
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
		call(t, "PUT", "http://"+c.ListenClient+"/v1/kv/x", `{"value":"1"}`),
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

func TestStatusTellsTheClocksOfTheNode(t *testing.T) {
	c := alone(t)
	began := time.Now()
	s, cancel, ended := launch(t, c)
	started := time.Now()
	defer func() {
		cancel()
		if err := ended(); err != nil {
			t.Error(err)
		}
	}()
	ask := func() (asked time.Time, status statusBody, answered time.Time) {
		asked = time.Now()
		got := call(t, "GET", "http://"+c.ListenClient+"/v1/status", "")
		answered = time.Now()
		if err := json.Unmarshal([]byte(got.body), &status); err != nil {
			t.Fatalf("%+v: %v", got, err)
		}
		return asked, status, answered
	}
	before := -1.0
	for range 3 {
		asked, status, answered := ask()
		told, err := time.Parse(time.RFC3339Nano, status.Time)
		if err != nil || !strings.HasSuffix(status.Time, "Z") {
			t.Fatalf("time %q: want RFC 3339 in UTC: %v", status.Time, err)
		}
		if told.Before(asked.Round(0)) || told.After(answered.Round(0)) {
			t.Errorf("the node says %s between %s and %s", status.Time, asked.UTC(), answered.UTC())
		}
		least, most := asked.Sub(started).Seconds(), answered.Sub(began).Seconds()
		if status.Uptime <= before || status.Uptime < least || status.Uptime > most {
			t.Errorf("up for %g s: want more than %g, and %g to %g", status.Uptime, before, least, most)
		}
		before = status.Uptime
	}
	if s.began == s.began.Round(0) { // which takes the monotonic reading away
		t.Error("the start is not known by the monotonic clock: a wall clock that is set would change the uptime")
	}
}

func TestADiskThatFailsStopsTheNodeAndNothingIsAcknowledged(t *testing.T) {
	c := alone(t)
	fs := crashfs.New(1)
	c.FS = fs
	_, cancel, ended := launch(t, c)
	defer cancel()
	waitForLeader(t, c.ListenClient)
	broken := errors.New("input/output error")
	fs.FailSync(broken)
	got := call(t, "PUT", "http://"+c.ListenClient+"/v1/kv/x", `{"value":"1"}`)
	if got.code == 200 || strings.Contains(got.body, `"outcome":"definite"`) {
		t.Errorf("a write that did not reach the disk: %+v", got)
	}
	if err := ended(); !errors.Is(err, broken) {
		t.Errorf("the node ended with %v", err)
	}
}

func TestANodeKeepsItsDataAndRefusesWrongDirectories(t *testing.T) {
	c := alone(t)
	stop := run(t, c)
	waitForLeader(t, c.ListenClient)
	if r := call(t, "PUT", "http://"+c.ListenClient+"/v1/kv/x", `{"value":"5"}`); r.code != 200 {
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
	if r := call(t, "GET", "http://"+c.ListenClient+"/v1/kv/x", ""); !strings.HasPrefix(r.body, `{"value":"5",`) {
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
