// Package clusters says where a system under test runs. A [Cluster] is a set of
// machines: processes on loopback (clusters/local), containers with sshd
// (clusters/docker), hosts that exist already (clusters/ssh). It puts files on them,
// attaches the nemesis agent, and knows under which address each node is reached. It
// starts no process of the system itself: the agent does.
package clusters

import (
	"context"
	"io"
	"os"
)

// Cluster is a set of machines that one run owns.
//
// Its methods may be called concurrently.
type Cluster interface {
	// Kind is "local", "docker" or "ssh".
	Kind() string
	// Nodes returns the nodes' names, n1 to nN, in order.
	Nodes() []string
	// Host returns the machine of a node. It panics for a name not in Nodes.
	Host(node string) Host
	// Listen returns the host:port on which the node's process binds the port of that
	// name ("client", "peer" …, as declared when the cluster was made).
	Listen(node, port string) string
	// Dial returns the host:port at which from, a node or [Client], reaches that port of
	// node to. It differs from Listen(to, port) where a link proxy stands between.
	Dial(from, to, port string) string
	// Links returns the link proxies that the agent of node to must serve; none where
	// partitions are made in the kernel.
	Links(to string) []Link
	// Close removes everything that the cluster created, and nothing else.
	Close(ctx context.Context) error
}

// Client is the name of the checker's own connections to the system, wherever a node can
// be named that talks to another: all of them together, as if they came from one machine.
// No node has this name.
const Client = "client"

// Link is one directed user-space link: what From, a node or [Client], dials to reach
// node To.
type Link struct {
	From, To string
	Listen   string // the proxy's TCP address; its UDP twin answers probes
	Target   string // where To's process listens
}

// Host is one machine, or what stands for one.
type Host interface {
	Name() string
	// Dir is the absolute directory on the host that belongs to this run. Everything
	// that the run puts on the host lies below it.
	Dir() string
	// Put copies the local file to name below Dir, with that mode, and creates missing
	// directories.
	Put(ctx context.Context, local, name string, mode os.FileMode) error
	// Get copies the file called name below Dir to the local path. A file that does not
	// exist gives an error for which errors.Is(err, fs.ErrNotExist).
	Get(ctx context.Context, name, local string) error
	// Attach starts the program and connects its standard input and output. Closing the
	// stream closes both and ends the session. There is one long-lived session per
	// host: the agent's.
	Attach(ctx context.Context, argv []string) (io.ReadWriteCloser, error)
}

// Process is a program to run on a host, as data.
type Process struct {
	Name string   `json:"name"` // unique on the host: "db"
	Argv []string `json:"argv"` // the first is a path on the host
	Env  []string `json:"env,omitempty"`
	Dir  string   `json:"dir"` // working directory on the host, created if missing
	Log  string   `json:"log"` // standard output and error are appended here
	// Data is the directory on the host where the process keeps all that it must not lose.
	// Faults of the disk concern it alone. Empty where the process keeps nothing.
	Data string `json:"data,omitempty"`
	// Clock says that faults may change the clocks of the process: they are made ready for it
	// before its first instruction.
	Clock bool `json:"clock,omitempty"`
	// Disk says that faults may make the disk fail on which Data lies: a layer covers it before
	// the first start.
	Disk bool `json:"disk,omitempty"`
}

// File is a local file that must stand on every host before a process starts.
type File struct {
	Local string
	Name  string // below Host.Dir
	Mode  os.FileMode
}

// Port is a port that each node's process binds.
type Port struct {
	Name   string
	Number int  // used where each node has an address of its own
	Peer   bool // nodes talk to each other here; at the other ports clients talk to the node
}
