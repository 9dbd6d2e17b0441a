package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"

	"capsize/raftnode/raft"
	"capsize/raftnode/replica"
)

// metrics are what the node tells Prometheus at /metrics.
type metrics struct {
	registry  *prometheus.Registry
	serve     fasthttp.RequestHandler
	requests  *prometheus.HistogramVec
	syncs     prometheus.Histogram
	leaders   prometheus.Counter
	snapshots *prometheus.CounterVec
}

var outcomeNames = map[replica.Outcome]string{replica.Done: "done", replica.Refused: "definite", replica.Unknown: "indefinite"}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "raftnode_request_seconds", Help: "Time to answer a client's request, by operation and outcome.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}, []string{"operation", "outcome"}),
		syncs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "raftnode_disk_sync_seconds", Help: "Time to make a group of writes durable.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}),
		leaders: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "raftnode_leader_changes_total", Help: "How often the node learnt of another leader, or of none.",
		}),
		snapshots: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "raftnode_snapshots_total", Help: "Snapshots that were taken, sent or received, by result.",
		}, []string{"what", "result"}),
	}
	m.serve = fasthttpadaptor.NewFastHTTPHandler(promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	m.registry.MustRegister(m.requests, m.syncs, m.leaders, m.snapshots,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, g := range []struct {
		name, help string
		value      func(*replica.Status) uint64
	}{
		{"raftnode_term", "Current term.", func(s *replica.Status) uint64 { return s.Term }},
		{"raftnode_leader_id", "ID of the leader; 0 where none is known.", func(s *replica.Status) uint64 { return s.Leader }},
		{"raftnode_commit_index", "Index of the last entry known to be committed.", func(s *replica.Status) uint64 { return s.Commit }},
		{"raftnode_applied_index", "Index of the last entry applied.", func(s *replica.Status) uint64 { return s.Applied }},
		{"raftnode_snapshot_index", "Index of the newest durable snapshot; 0 for none.", func(s *replica.Status) uint64 { return s.Snapshot }},
		{"raftnode_requests_waiting", "Requests not answered yet.", func(s *replica.Status) uint64 { return uint64(s.Waiting) }},
		{"raftnode_is_leader", "1 on the leader, else 0.", func(s *replica.Status) uint64 {
			if s.Role == raft.Leader {
				return 1
			}
			return 0
		}},
	} {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: g.name, Help: g.help}, func() float64 {
			return float64(g.value(s.status.Load()))
		}))
	}
	return m
}

// traffic tells of the transport, once there is one.
func (m *metrics) traffic(s *Server) {
	for _, c := range []struct {
		name, help string
		value      func() uint64
	}{
		{"raftnode_peer_messages_sent_total", "Messages handed to the kernel.", func() uint64 { return s.transport.Stats().Sent }},
		{"raftnode_peer_messages_received_total", "Messages from peers.", func() uint64 { return s.transport.Stats().Received }},
		{"raftnode_peer_messages_dropped_total", "Messages that were not sent: no connection, or a full queue.", func() uint64 { return s.transport.Stats().Dropped }},
		{"raftnode_peer_messages_lost_total", "Messages in a write that failed.", func() uint64 { return s.transport.Stats().Lost }},
		{"raftnode_peer_dials_total", "Connections made to peers.", func() uint64 { return s.transport.Stats().Dials }},
	} {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: c.name, Help: c.help}, func() float64 {
			return float64(c.value())
		}))
	}
}

func (m *metrics) request(operation string, outcome replica.Outcome, began time.Time) {
	m.requests.WithLabelValues(operation, outcomeNames[outcome]).Observe(time.Since(began).Seconds())
}

// snapshot counts a snapshot that was taken, sent or received.
func (m *metrics) snapshot(what string, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.snapshots.WithLabelValues(what, result).Inc()
}
