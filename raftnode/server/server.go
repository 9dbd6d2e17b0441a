// Package server runs one node of the key-value store in real time: it gives a replica
// its ticks, its disk, its peers and its clients.
//
// One goroutine, the loop, owns the replica. Around it stand the disk's writer (group
// commit), the transport and the HTTP server; they talk to the loop through bounded
// queues and wait for nothing else. What the replica says is carried out in a fixed
// order: the trace first, then disk writes, messages and replies.
//
// A disk that fails stops the node, with the reason. Nothing that it was to hold is ever
// acknowledged.
package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"capsize/raftnode/disk"
	"capsize/raftnode/files"
	"capsize/raftnode/raft"
	"capsize/raftnode/replica"
	"capsize/raftnode/trace"
	"capsize/raftnode/transport"
)

const (
	inboxMessages   = 1024
	queuedRequests  = 1024
	queuedCalls     = 64
	shutdownTimeout = 2 * time.Second
	// mostTicksAtOnce bounds the ticks made up for after a pause: a node that was stopped
	// for a minute must not count that minute against its leader in one go.
	mostTicksAtOnce = 3
)

// Server is a node. Start makes one, Run lets it live.
type Server struct {
	config    Config
	began     time.Time // when Start was called
	id        uint64
	book      *book
	peers     net.Listener
	clients   net.Listener
	lock      *os.File
	disk      *disk.Disk
	trace     *trace.Writer // nil: no trace
	replica   *replica.Replica
	transport *transport.Transport
	writer    *writer
	metrics   *metrics

	inbox    chan raft.Message
	requests chan request
	calls    chan func()   // to be run by the loop
	stopped  chan struct{} // closed when the loop has ended
	status   atomic.Pointer[replica.Status]
	working  sync.WaitGroup // goroutines that save snapshots
	incoming sync.Mutex     // held while a snapshot is received

	// Owned by the loop.
	waiting   map[uint64]chan<- replica.Reply
	lastID    uint64
	persisted uint64
	removed   bool // from the cluster
	// moved is closed when something more was applied; nil while nobody waits for that.
	moved chan struct{}
}

// Start opens the node's sockets and its disk, and replays the latter. The node takes
// part in its cluster once Run is called, which must happen.
func Start(config Config) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if config.FS == nil {
		config.FS = files.OS{}
	}
	if config.Logf == nil {
		config.Logf = func(string, ...any) {}
	}
	s := &Server{
		config:   config,
		began:    time.Now(),
		inbox:    make(chan raft.Message, inboxMessages),
		requests: make(chan request, queuedRequests),
		calls:    make(chan func(), queuedCalls),
		stopped:  make(chan struct{}),
		waiting:  make(map[uint64]chan<- replica.Reply),
	}
	s.metrics = newMetrics(s)
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *Server) open() error {
	var err error
	if s.peers, err = net.Listen("tcp", s.config.ListenPeer); err != nil {
		return fmt.Errorf("listen for peers: %w", err)
	}
	if s.clients, err = net.Listen("tcp", s.config.ListenClient); err != nil {
		return fmt.Errorf("listen for clients: %w", err)
	}
	if s.lock, err = lockDir(s.config.DataDir); err != nil {
		return err
	}
	var known []replica.Member
	if s.id, known, err = identify(&s.config); err != nil {
		return err
	}
	s.book = newBook(s.config, known)
	if s.disk, err = disk.Open(disk.Options{FS: s.config.FS, Dir: s.config.DataDir, Cluster: s.config.Cluster, Node: s.id}); err != nil {
		return err
	}
	if torn := s.disk.Report().Torn; torn != nil {
		s.config.Logf("repaired the log: %s", torn)
	}
	store, err := s.restoreStore()
	if err != nil {
		return err
	}
	s.replica, err = replica.New(replica.Config{
		ID: s.id, Members: s.config.first(), Incarnation: s.disk.Incarnation(),
		ElectionTick: s.config.ElectionTicks, HeartbeatTick: s.config.HeartbeatTicks,
		// Each start draws other time-outs, or two nodes that collide would collide again.
		Seed: s.config.Seed + s.disk.Incarnation()<<32, Storage: s.disk.Storage(), Store: store,
		SnapshotEntries: s.config.SnapshotEntries, SnapshotBytes: s.config.SnapshotBytes, KeepEntries: s.config.KeepEntries,
		Trace: s.config.TraceFile != "",
	})
	if err != nil {
		return fmt.Errorf("data in %s: %w", s.config.DataDir, err)
	}
	for _, m := range s.replica.Members() {
		s.book.note(m.Member)
	}
	s.publish()
	if s.config.TraceFile == "" {
		return nil
	}
	return s.openTrace()
}

func (s *Server) openTrace() error {
	names := trace.Names{s.id: identity(s.id, s.config.Name)}
	for id, m := range s.book.all() {
		names[id] = identity(id, m.Name)
	}
	var cut int64
	var err error
	if s.trace, cut, err = trace.Open(s.config.TraceFile, s.id, s.disk.Incarnation(), names); err != nil {
		return err
	}
	if cut > 0 {
		s.config.Logf("repaired the trace: cut %d bytes of half a line off %s", cut, s.config.TraceFile)
	}
	return nil
}

// identity is how a trace calls a member: one that was removed and added again under its old
// name is another one, which has promised nothing yet.
func identity(id uint64, name string) string { return fmt.Sprintf("%s#%d", name, id) }

// Describe says in a line what the node is and where it listens.
func (s *Server) Describe() string {
	return fmt.Sprintf("serves clients on %s and peers on %s, start number %d, %d log records in %s",
		s.clients.Addr(), s.peers.Addr(), s.disk.Incarnation(), s.disk.Report().Records, s.config.DataDir)
}

// Run serves until ctx ends, and then returns nil when another node leads and requests in
// flight had a moment to finish; or until the disk or the trace fails, and returns why. It
// closes everything.
func (s *Server) Run(ctx context.Context) error {
	s.writer = newWriter(s.disk, func(took time.Duration) { s.metrics.syncs.Observe(took.Seconds()) })
	s.startTransport()
	web := s.newWeb()

	var running sync.WaitGroup
	running.Go(s.writer.Run)
	webEnded := make(chan error, 1)
	running.Go(func() { webEnded <- web.Serve(s.clients) })
	loopCtx, stopLoop := context.WithCancel(context.Background())
	defer stopLoop()
	loopEnded := make(chan error, 1)
	running.Go(func() { loopEnded <- s.loop(loopCtx) })

	var err error
	select {
	case err = <-loopEnded:
	case err = <-webEnded:
		stopLoop()
		err = errors.Join(fmt.Errorf("serve clients on %s: %w", s.clients.Addr(), err), <-loopEnded)
	case <-ctx.Done():
		// The loop goes on meanwhile, so that requests in flight are answered.
		graceful, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		s.handOver(graceful)
		_ = web.ShutdownWithContext(graceful) // what has not ended by then is cut off below
		cancel()
		stopLoop()
		err = <-loopEnded
	}
	close(s.stopped)
	cut, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	_ = web.ShutdownWithContext(cut) // every request that still waits is answered now; a client that reads nothing is left
	cancel()
	s.writer.Close()
	err = errors.Join(err, s.transport.Close())
	running.Wait()
	s.working.Wait()
	return errors.Join(err, s.close())
}

func (s *Server) startTransport() {
	peers := map[uint64]string{}
	for id, m := range s.book.all() {
		if id != s.id {
			peers[id] = s.book.address(m)
		}
	}
	s.transport = transport.Start(transport.Config{
		Cluster: s.config.Cluster, Self: s.id, Listener: s.peers, Peers: peers,
		Advertise: s.book.member(s.id).Address, Receive: s.receive, ReceiveSnapshot: s.receiveSnapshot, SnapshotBytesPerSecond: s.config.SnapshotRate,
		Logf: s.config.Logf,
	})
	s.metrics.traffic(s)
}

// handOver lets another node lead before this one goes: clients then wait for a round trip
// instead of an election time-out.
func (s *Server) handOver(ctx context.Context) {
	asked := false
	if err := s.call(ctx, func() { asked = s.replica.HandOver(); s.publish() }); err != nil || !asked {
		return
	}
	poll := time.NewTicker(s.config.Tick)
	defer poll.Stop()
	for {
		status := s.status.Load()
		if status.Role != raft.Leader {
			return
		}
		if status.Transferee == raft.None {
			s.config.Logf("nobody took over the lead in time")
			return
		}
		select {
		case <-poll.C:
		case <-s.stopped:
			return
		case <-ctx.Done():
			return
		}
	}
}

// close closes whatever is open of files and sockets.
func (s *Server) close() error {
	var problems []error
	for _, listener := range []net.Listener{s.peers, s.clients} {
		if listener != nil {
			_ = listener.Close() // closed already, if the node ran
		}
	}
	if s.trace != nil {
		problems = append(problems, s.trace.Close())
	}
	if s.disk != nil {
		problems = append(problems, s.disk.Close())
	}
	if s.lock != nil {
		problems = append(problems, s.lock.Close())
	}
	return errors.Join(problems...)
}

// receive takes a message from the transport. It blocks while the loop is behind. A
// request that a peer passes on still says who asked first, so From need not be the peer.
func (s *Server) receive(from uint64, payload []byte) {
	m, err := raft.DecodeMessage(payload)
	if err != nil {
		s.config.Logf("drop a message from node %d: %v", from, err)
		return
	}
	select {
	case s.inbox <- m:
	case <-s.stopped:
	}
}

type webLogger func(format string, args ...any)

// Printf implements fasthttp.Logger.
func (l webLogger) Printf(format string, args ...any) { l(format, args...) }
