package server

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// processes is a cluster of real raftnode processes on loopback.
type processes struct {
	t       testing.TB
	binary  string
	dir     string
	peers   []string // addresses, by position
	clients []string
	running []*exec.Cmd
}

func startProcesses(t testing.TB, n int) *processes {
	t.Helper()
	p := &processes{t: t, dir: t.TempDir(), running: make([]*exec.Cmd, n)}
	p.binary = filepath.Join(p.dir, "raftnode")
	build := exec.Command("go", "build", "-o", p.binary, "capsize/cmd/raftnode")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for range n {
		p.peers = append(p.peers, freeAddress(t))
		p.clients = append(p.clients, freeAddress(t))
	}
	for i := range n {
		p.start(i)
	}
	t.Cleanup(p.stop)
	return p
}

func (p *processes) file(i int, name string) string {
	return filepath.Join(p.dir, fmt.Sprintf("n%d-%s", i+1, name))
}

func (p *processes) start(i int) {
	p.t.Helper()
	var peers []string
	for j, address := range p.peers {
		peers = append(peers, fmt.Sprintf("n%d=%s", j+1, address))
	}
	log, err := os.OpenFile(p.file(i, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = log.Close() }() // the process has its own
	cmd := exec.Command(p.binary, "--name", fmt.Sprintf("n%d", i+1), "--peers", strings.Join(peers, ","),
		"--listen-peer", p.peers[i], "--listen-client", p.clients[i],
		"--data", p.file(i, "data"), "--trace", p.file(i, "trace"), "--tick", "10ms")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.running[i] = cmd
}

func (p *processes) signal(i int, s syscall.Signal) {
	p.t.Helper()
	if err := p.running[i].Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *processes) kill(i int) {
	p.t.Helper()
	p.signal(i, syscall.SIGKILL)
	_ = p.running[i].Wait() // it was killed, says the error
	p.running[i] = nil
}

// stop ends every process gently, and shows the logs of a failed test.
func (p *processes) stop() {
	for i, cmd := range p.running {
		if cmd == nil {
			continue
		}
		p.signal(i, syscall.SIGCONT)
		p.signal(i, syscall.SIGTERM)
		force := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		if err := cmd.Wait(); err != nil {
			p.t.Errorf("n%d ends with %v", i+1, err)
		}
		force.Stop()
		p.running[i] = nil
	}
	if !p.t.Failed() {
		return
	}
	for i := range p.running {
		log, _ := os.ReadFile(p.file(i, "log")) // best effort
		p.t.Logf("n%d:\n%s", i+1, log)
	}
}

func (p *processes) url(i int, key string) string {
	return "http://" + p.clients[i] + "/v1/kv/" + key
}

func (p *processes) put(i int, key string, value int) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("n%d accepts a put", i+1), func() bool {
		return call(p.t, "PUT", p.url(i, key), fmt.Sprintf(`{"value":"%d"}`, value)).code == 200
	})
}

func (p *processes) wantValue(i int, key string, value int) {
	p.t.Helper()
	var got reply
	eventually(p.t, fmt.Sprintf("n%d answers a get", i+1), func() bool {
		got = call(p.t, "GET", p.url(i, key), "")
		return got.code == 200
	})
	if want := fmt.Sprintf(`{"value":"%d",`, value); !strings.HasPrefix(got.body, want) {
		p.t.Errorf("n%d: %s is %s, want %s", i+1, key, got.body, want)
	}
}

func (p *processes) leader() (leader int) {
	p.t.Helper()
	eventually(p.t, "a leader", func() bool {
		for i, cmd := range p.running {
			if cmd != nil && strings.Contains(call(p.t, "GET", "http://"+p.clients[i]+"/v1/status", "").body, `"role":"leader"`) {
				leader = i
				return true
			}
		}
		return false
	})
	return leader
}

func TestAClusterOfProcessesKeepsItsDataUnderKillsAndPauses(t *testing.T) {
	t.Parallel()
	p := startProcesses(t, 3)
	value := 0
	for i := range 3 { // through every node, read through every other at once
		for range 10 {
			value++
			p.put(i, "x", value)
			p.wantValue((i+value)%3, "x", value)
		}
		got := call(t, "POST", p.url(i, "x/cas"), fmt.Sprintf(`{"expected":{"value":"%d"},"value":"%d"}`, value, value+1))
		if value++; got.code != 200 {
			t.Errorf("compare-and-swap through n%d: %+v", i+1, got)
		}
	}

	leader := p.leader()
	follower := (leader + 1) % 3
	p.kill(follower)
	p.put(leader, "x", 100)
	p.start(follower)
	p.wantValue(follower, "x", 100)

	p.kill(leader)
	p.put(follower, "x", 200)
	p.start(leader)
	p.wantValue(leader, "x", 200)

	for i := range 3 {
		p.kill(i)
	}
	for i := range 3 {
		p.start(i)
	}
	for i := range 3 {
		p.wantValue(i, "x", 200)
	}

	paused := p.leader()
	other := (paused + 1) % 3
	p.signal(paused, syscall.SIGSTOP)
	p.put(other, "x", 300)
	p.signal(paused, syscall.SIGCONT)
	p.wantValue(paused, "x", 300) // it may still think that it leads
	p.stop()
	p.checkTraces()
}

// checkTraces holds what the nodes wrote down against Raft's invariants.
func (p *processes) checkTraces() {
	traces := map[string]string{}
	for i := range p.running {
		traces[fmt.Sprintf("n%d", i+1)] = p.file(i, "trace")
	}
	promisesKept(p.t, traces)
}

// BenchmarkPuts measures puts against five local processes, with fsync and trace:
//
//	go test -bench Puts -benchtime 2000x -run XXX ./raftnode/server
func BenchmarkPuts(b *testing.B) {
	p := startProcesses(b, 5)
	for i := range p.clients {
		waitForLeader(b, p.clients[i])
	}
	for _, clients := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) { p.measure(b, clients) })
	}
}

func (p *processes) measure(b *testing.B, clients int) {
	pool := &http.Transport{MaxIdleConnsPerHost: clients}
	defer pool.CloseIdleConnections()
	client := &http.Client{Transport: pool, Timeout: 10 * time.Second}
	took := make([]time.Duration, b.N)
	var next, failures atomic.Int64
	var all sync.WaitGroup
	b.ResetTimer()
	for c := range clients {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				began := time.Now()
				request, err := http.NewRequest("PUT", p.url(c%len(p.clients), fmt.Sprintf("k%d", i%100)), strings.NewReader(`{"value":"1"}`))
				if err != nil {
					failures.Add(1)
					continue
				}
				response, err := client.Do(request)
				if err != nil {
					failures.Add(1)
					continue
				}
				_, err = bufio.NewReader(response.Body).ReadString('\n')
				_ = response.Body.Close() // read to its end
				if err != nil || response.StatusCode != 200 {
					failures.Add(1)
				}
				took[i] = time.Since(began)
			}
		})
	}
	all.Wait()
	b.StopTimer()
	if n := failures.Load(); n > 0 {
		b.Errorf("%d puts failed", n)
	}
	slices.Sort(took)
	milliseconds := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
	b.ReportMetric(milliseconds(took[len(took)/2]), "p50-ms")
	b.ReportMetric(milliseconds(took[len(took)*99/100]), "p99-ms")
}
