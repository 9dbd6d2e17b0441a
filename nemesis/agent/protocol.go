// Package agent is the part of the nemesis that runs on a node. It is one process per
// node, the child of an SSH session (or, on a local cluster, of the checker), and it is
// spoken to on its standard input and output: one JSON line a request, one a reply.
//
// The agent starts the system's process and is its parent, so it knows for certain when
// it has died; it makes and undoes faults; and it holds a lease: when its controller
// goes silent, or its standard input ends, it undoes everything that it did.
package agent

import (
	"time"

	"capsize/clusters"
	"capsize/nemesis/agent/packets"
)

// Version is the version of this protocol. Controller and agent refuse each other when
// theirs differ.
const Version = 3

// Request is one line on the agent's standard input. Exactly one of the pointers is set.
type Request struct {
	ID        uint64      `json:"id"` // echoed in the reply; requests may overlap
	Hello     *Hello      `json:"hello,omitempty"`
	Ping      *struct{}   `json:"ping,omitempty"`   // renews the lease, as every request does
	Survey    *struct{}   `json:"survey,omitempty"` // what the agent can do here
	Start     *Start      `json:"start,omitempty"`
	Signal    *Signal     `json:"signal,omitempty"`
	Limits    *Limits     `json:"limits,omitempty"`
	Clock     *Clock      `json:"clock,omitempty"`
	HostClock *HostClocks `json:"hostClock,omitempty"`
	Running   *Running    `json:"running,omitempty"`
	Disk      *Disk       `json:"disk,omitempty"`
	Power     *PowerFail  `json:"power,omitempty"`
	KillAt    *KillAt     `json:"killAt,omitempty"`
	Damage    *Damage     `json:"damage,omitempty"`
	Aside     *Aside      `json:"aside,omitempty"`
	Block     *Block      `json:"block,omitempty"`
	Shape     *Shape      `json:"shape,omitempty"`
	Probe     *Probe      `json:"probe,omitempty"`
	Arrived   *Arrived    `json:"arrived,omitempty"`
	Bye       *Bye        `json:"bye,omitempty"`
}

// Reply is one line on the agent's standard output.
type Reply struct {
	ID        uint64           `json:"id"` // of the request; 0 for an Exited notice
	Error     string           `json:"error,omitempty"`
	Gone      bool             `json:"gone,omitempty"` // the error is that the process has ended by itself
	Hello     *HelloReply      `json:"hello,omitempty"`
	Survey    *SurveyReply     `json:"survey,omitempty"`
	Start     *StartReply      `json:"start,omitempty"`
	Signal    *SignalReply     `json:"signal,omitempty"`
	Limits    *LimitsReply     `json:"limits,omitempty"`
	Clock     *ClockReply      `json:"clock,omitempty"`
	HostClock *HostClocksReply `json:"hostClock,omitempty"`
	Running   *RunningReply    `json:"running,omitempty"`
	Disk      *DiskReply       `json:"disk,omitempty"`
	Power     *PowerFailReply  `json:"power,omitempty"`
	KillAt    *KillAtReply     `json:"killAt,omitempty"`
	Damage    *DamageReply     `json:"damage,omitempty"`
	Aside     *AsideReply      `json:"aside,omitempty"`
	Block     *BlockReply      `json:"block,omitempty"`
	Shape     *ShapeReply      `json:"shape,omitempty"`
	Arrived   *ArrivedReply    `json:"arrived,omitempty"`
	Exited    *Exited          `json:"exited,omitempty"`
}

// Hello is the first request: who the node is and how the agent shall behave.
type Hello struct {
	Version int             `json:"version"`
	Run     string          `json:"run"` // the run's id
	Node    string          `json:"node"`
	Dir     string          `json:"dir"`   // the host's directory of this run
	Peers   map[string]Peer `json:"peers"` // every node, this one included
	Links   []clusters.Link `json:"links,omitempty"`
	// ClientPorts are the numbers of the ports at which the checker's clients reach the
	// system here, where partitions are made in the kernel: what cuts clients concerns
	// these ports only, never the session of the controller.
	ClientPorts []int `json:"clientPorts,omitempty"`
	// HostClock says that the node is a machine of its own, whose clock may be set.
	HostClock bool          `json:"hostClock,omitempty"`
	Lease     time.Duration `json:"lease"` // silence after which the agent heals and leaves
	// StopOnExpiry also ends the system's process when the lease expires. Without it the
	// process is left running, healed.
	StopOnExpiry bool `json:"stopOnExpiry,omitempty"`
}

// Peer is how another node is reached for partitions and probes.
type Peer struct {
	// Address is the node's IP address, where partitions are made in the kernel; empty on
	// clusters with links.
	Address string `json:"address,omitempty"`
	// Probe is the UDP host:port that a probe from this node to that peer is sent to. With
	// links it is the UDP twin of the link from this node to the peer; else a port of the
	// peer's agent.
	Probe string `json:"probe"`
}

// HelloReply answers Hello.
type HelloReply struct {
	Version int    `json:"version"`
	Pid     int    `json:"pid"`
	Links   string `json:"links"` // the mechanism that Block will use: "nftables", "proxy", or "none: why"
}

// SurveyReply answers Survey.
type SurveyReply struct {
	Abilities []Ability `json:"abilities"`
}

// Start runs a process, or runs again one that has ended.
type Start struct {
	Process clusters.Process `json:"process"`
}

// StartReply answers Start.
type StartReply struct {
	Pid int `json:"pid"`
}

// Signal sends a signal to a process that Start started, and waits until its effect is
// seen: for "kill" and "term" that the process was reaped, for "stop" that all its
// threads are stopped, for "cont" that none is.
type Signal struct {
	Process string `json:"process"`
	Signal  string `json:"signal"` // "kill", "term", "stop", "cont"
	// Limit is how long the process may take to end after "term"; 0 means half a minute.
	Limit time.Duration `json:"limit,omitempty"`
}

// SignalReply answers Signal.
type SignalReply struct {
	Pid   int    `json:"pid"`
	State string `json:"state"` // what proves the effect: "stopped, 9 threads in state T", "killed by SIGKILL"
}

// Running asks whether a process runs.
type Running struct {
	Process string `json:"process"`
}

// RunningReply answers Running.
type RunningReply struct {
	Pid int `json:"pid"` // 0 where it does not
}

// Aside moves a directory of this run aside, so that the process which keeps its data there
// starts with none. The process must not run.
type Aside struct {
	Process string `json:"process"` // that uses it
	Dir     string `json:"dir"`
}

// AsideReply answers Aside.
type AsideReply struct {
	To string `json:"to"` // where it is now; empty where there was none
}

// Block sets which directed pairs of nodes are cut, replacing what an earlier Block set:
// an empty list heals all. Each agent is given the whole list and does its own part, in
// one atomic step. A Block with a lower request ID than one that was carried out before is
// refused: it was overtaken on its way.
type Block struct {
	Pairs []Pair `json:"pairs"`
}

// Pair is one direction between two nodes, or between a node and [clusters.Client]: what
// From sends does not reach To.
type Pair struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// BlockReply answers Block.
type BlockReply struct {
	// Dropped is what the state that this Block replaced held back on this node.
	Dropped []Dropped `json:"dropped,omitempty"`
}

// Dropped is how much of what a pair's From sent was kept from its To: packets (nftables)
// or bytes (proxy).
type Dropped struct {
	Pair
	Amount uint64 `json:"amount"`
}

// Shape sets what happens to the packets of directed pairs of nodes, replacing what an earlier
// Shape set: an empty list heals all. Each agent is given the whole list and does its own part.
// The same list again changes nothing, and tells the counts of now. As with Block, a Shape that
// was overtaken is refused.
type Shape struct {
	Pairs []ShapedPair `json:"pairs"`
}

// ShapedPair is one direction between two nodes with what happens on it.
type ShapedPair struct {
	Pair
	Shape packets.Shape `json:"shape"`
}

// ShapeReply answers Shape.
type ShapeReply struct {
	// Counts says what was done to the packets of each pair here since the agent began. What
	// goes over links may be told by the agents of both ends, each of its own.
	Counts []ShapedCount `json:"counts,omitempty"`
}

// ShapedCount is what was done to what From sends to To: to packets, or on a link to chunks of
// streams.
type ShapedCount struct {
	Pair
	Count packets.Count `json:"count"`
}

// Probe sends a few UDP datagrams with the nonce to each peer.
type Probe struct {
	Nonce uint64 `json:"nonce"`
	// Client is the UDP host:port where the controller waits, as clients do, for what this
	// node sends to them. Only a node with links can send there; empty where it need not.
	Client string `json:"client,omitempty"`
}

// Arrived asks from which nodes the probes with the nonce have arrived here.
type Arrived struct {
	Nonce uint64 `json:"nonce"`
}

// ArrivedReply answers Arrived.
type ArrivedReply struct {
	From []string `json:"from"`
	// Dropped is what the present Block has held back on this node so far.
	Dropped []Dropped `json:"dropped,omitempty"`
}

// Bye makes the agent heal everything, stop the processes if asked, and exit.
type Bye struct {
	Stop bool `json:"stop"`
}

// Exited tells that a process ended without a Signal that would explain it.
type Exited struct {
	Process string   `json:"process"`
	Pid     int      `json:"pid"`
	Status  string   `json:"status"` // "exit status 1", "killed by SIGSEGV"
	Tail    []string `json:"tail"`   // the last lines of its log
}
