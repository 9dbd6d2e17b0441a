// Package raftnode describes Capsize's own reference node as a system under test: how a
// node is started, and a client of its HTTP interface that may send an operation again
// because the node's sessions make it apply once.
package raftnode

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"strings"
	"time"

	"capsize/clusters"
	"capsize/histories"
	"capsize/systems"
)

// Options say which node program runs and how.
type Options struct {
	Binary  string        // path of the built program
	Seed    uint64        // of the election time-outs
	Tick    time.Duration // length of a tick; 0: the program's default
	Retries int           // how often a client sends an operation again whose outcome it does not know
}

// System is the reference node as a system under test.
type System struct {
	options Options
	status  *http.Client // for status polls of all nodes
}

// New returns the system.
func New(options Options) (*System, error) {
	if options.Binary == "" {
		return nil, fmt.Errorf("reference node: no program given")
	}
	if options.Retries < 0 || options.Retries > 10 {
		return nil, fmt.Errorf("reference node: %d retries: want 0 to 10", options.Retries)
	}
	return &System{options: options, status: newHTTPClient()}, nil
}

const (
	program    = "raftnode"
	traceFile  = "trace.jsonl"
	dataDir    = "data"
	clientPort = "client"
	peerPort   = "peer"
)

// Name is "raftnode".
func (s *System) Name() string { return "raftnode" }

// Ports are the client's and the peers'.
func (s *System) Ports() []clusters.Port {
	return []clusters.Port{{Name: clientPort, Number: 7080}, {Name: peerPort, Number: 7070, Peer: true}}
}

// Client returns a client that is connected to nothing, to be asked by type assertion what
// the clients that Open returns can do.
func Client() systems.KV { return new(client) }

// Files is the program.
func (s *System) Files(context.Context) ([]clusters.File, error) {
	return []clusters.File{{Local: s.options.Binary, Name: program, Mode: 0o755}}, nil
}

// Process is the program's command line on a node.
func (s *System) Process(c clusters.Cluster, node string) clusters.Process {
	var peers []string
	for _, peer := range c.Nodes() {
		peers = append(peers, peer+"="+c.Listen(peer, peerPort))
	}
	return s.process(c, node, "--peers", strings.Join(peers, ","))
}

// process is the program's command line, which finds the others by the flag origin.
func (s *System) process(c clusters.Cluster, node, origin, others string) clusters.Process {
	dir := c.Host(node).Dir()
	// The members give one another these addresses; a link in between has another on each node.
	var dial []string
	for _, peer := range c.Nodes() {
		if address := c.Dial(node, peer, peerPort); peer != node && address != c.Listen(peer, peerPort) {
			dial = append(dial, peer+"="+address)
		}
	}
	argv := []string{
		path.Join(dir, program),
		"--name", node, origin, others, "--dial", strings.Join(dial, ","),
		"--listen-peer", c.Listen(node, peerPort), "--listen-client", c.Listen(node, clientPort),
		"--data", path.Join(dir, dataDir), "--trace", path.Join(dir, traceFile),
		"--seed", fmt.Sprint(s.options.Seed),
	}
	if s.options.Tick > 0 {
		argv = append(argv, "--tick", s.options.Tick.String())
	}
	return clusters.Process{Name: "db", Argv: argv, Dir: dir, Log: path.Join(dir, "db.log"), Data: path.Join(dir, dataDir)}
}

// Artifacts is the protocol trace; the log is collected anyway.
func (s *System) Artifacts(string) map[string]string { return map[string]string{traceFile: traceFile} }

// Status asks a node about itself. It does not need a leader.
func (s *System) Status(ctx context.Context, c clusters.Cluster, node string) (histories.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	says, err := s.ask(ctx, c, node)
	if err != nil {
		return histories.Status{}, err
	}
	return histories.Status{
		Up: true, ID: says.ID, Term: says.Term, Role: says.Role, Leader: says.Leader, Commit: says.Commit, Applied: says.Applied,
	}, nil
}

// Clock asks a node what time it is to it.
func (s *System) Clock(ctx context.Context, c clusters.Cluster, node string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	says, err := s.ask(ctx, c, node)
	return says.Time, err
}

// selfReport is what a node says of itself.
type selfReport struct {
	ID      uint64    `json:"id"`
	Term    uint64    `json:"term"`
	Role    string    `json:"role"`
	Leader  string    `json:"leader"`
	Commit  uint64    `json:"commit"`
	Applied uint64    `json:"applied"`
	Time    time.Time `json:"time"`
}

func (s *System) ask(ctx context.Context, c clusters.Cluster, node string) (selfReport, error) {
	says, err := s.get(ctx, "http://"+c.Dial(clusters.Client, node, clientPort)+"/v1/status")
	if err != nil {
		return selfReport{}, fmt.Errorf("status of %s: %w", node, err)
	}
	return says, nil
}

func (s *System) get(ctx context.Context, url string) (selfReport, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return selfReport{}, err
	}
	response, err := s.status.Do(request)
	if err != nil {
		return selfReport{}, err
	}
	defer func() { _ = response.Body.Close() }() // read to its end below
	data, err := io.ReadAll(io.LimitReader(response.Body, answerMost))
	if err != nil {
		return selfReport{}, err
	}
	if response.StatusCode != http.StatusOK {
		return selfReport{}, fmt.Errorf("answer %s", response.Status)
	}
	var says selfReport
	if err := json.Unmarshal(data, &says); err != nil {
		return selfReport{}, fmt.Errorf("answer: %w", err)
	}
	return says, nil
}

// Open returns a client that talks to node first.
func (s *System) Open(c clusters.Cluster, node string) (systems.KV, error) {
	return newClient(c, node, s.options.Retries)
}

// newHTTPClient returns a client with connections of its own, which it uses again. It
// follows no redirect: net/http would turn a put into a get.
func newHTTPClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: dialLimit}).DialContext,
			MaxIdleConnsPerHost: 4,
			IdleConnTimeout:     time.Minute,
			DisableCompression:  true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

const (
	dialLimit   = time.Second
	statusLimit = 500 * time.Millisecond
	answerMost  = 1 << 20 // bytes of an answer that are read
)
