package server

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"capsize/raftnode/kv"
	"capsize/raftnode/replica"
)

// BenchmarkRestart measures how long a node takes from its start until it answers a read,
// with a million entries behind it: of the log as it was compacted, and of one that never
// was.
//
//	go test -run '^$' -bench Restart -benchtime 5x ./raftnode/server
func BenchmarkRestart(b *testing.B) {
	const entries = 1_000_000
	for what, every := range map[string]uint64{"compacted": 0, "uncompacted": 10 * entries} {
		b.Run(what, func(b *testing.B) {
			config := Config{
				Name: "n1", Cluster: "test", ListenPeer: freeAddress(b), ListenClient: freeAddress(b), DataDir: b.TempDir(),
				Tick: 25 * time.Millisecond, ElectionTicks: 20, HeartbeatTicks: 2, SnapshotEntries: every, SnapshotBytes: every << 10,
			}
			config.Peers = []Peer{{"n1", config.ListenPeer}}
			stop := fill(b, config, entries)
			stop()
			b.ResetTimer()
			for range b.N {
				began := time.Now()
				s, stop := begin(b, config)
				opened := time.Since(began)
				waitForLeader(b, config.ListenClient)
				b.StopTimer()
				b.ReportMetric(opened.Seconds(), "s-to-open")
				if applied := s.status.Load().Applied; applied < entries {
					b.Errorf("only %d entries are applied", applied)
				}
				stop()
				b.StartTimer()
			}
		})
	}
}

func begin(b *testing.B, config Config) (s *Server, stop func()) {
	b.Helper()
	s, cancel, ended := launch(b, config)
	return s, func() {
		b.Helper()
		cancel()
		if err := ended(); err != nil {
			b.Fatal(err)
		}
		runtime.GC()
	}
}

// fill starts a node and gives it so many puts, past its HTTP interface.
func fill(b *testing.B, config Config, entries int) (stop func()) {
	b.Helper()
	s, stop := begin(b, config)
	waitForLeader(b, config.ListenClient)
	const writers = 500
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			replies := make(chan replica.Reply, 1)
			for i := range entries / writers {
				put := kv.Command{Op: kv.Put, Key: fmt.Sprintf("key-%d", (w*7919+i)%10_000), Value: fmt.Sprintf("%0100d", i)}
				s.requests <- request{replica.Request{Command: put, Ticks: 1000}, replies}
				if reply := <-replies; reply.Outcome != replica.Done {
					b.Errorf("put: %v", reply.Err)
					return
				}
			}
		})
	}
	all.Wait()
	return stop
}
