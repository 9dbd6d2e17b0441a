// Package systems describes what is under test: how a node is started, how a client
// talks to it, what it tells of itself. A [System] decides nothing and does nothing:
// it returns data (files, a command line) that the harness acts on, and opens clients.
// Whatever of it talks to a node from here does so as [clusters.Client], at the address
// that the cluster's Dial says: so that clients can be cut.
//
// The smallest useful system is a key-value client and a command line. What else it
// can do, it says by implementing optional interfaces: [Observer], [Traced], [Membership].
package systems

import (
	"context"
	"time"

	"capsize/clusters"
	"capsize/histories"
)

// System is what is under test.
type System interface {
	Name() string
	// Ports are the ports that each node binds.
	Ports() []clusters.Port
	// Files returns what must be copied to each host. It may build them; ctx bounds that.
	Files(ctx context.Context) ([]clusters.File, error)
	// Process describes the program to run on a node.
	Process(c clusters.Cluster, node string) clusters.Process
	// Open returns a client of one node, for one process of the workload. It does not
	// wait for the node to be there.
	Open(c clusters.Cluster, node string) (KV, error)
}

// KV is the client of one process: a key-value store with integer values. It is not
// used concurrently. A client that can do more has more methods: the interfaces that
// workloads ask for, such as list.Lists.
//
// A nil error means that the operation happened. An error that proves the opposite is
// marked with [histories.Definite]; one that proves that it was refused is a
// [histories.Refusal]; any other error, above all a time-out or a lost connection, means
// that nobody knows. A client that sends a request again must make sure that it applies
// once, and report the number of attempts through [Attempts].
type KV interface {
	// Get reads a key; [histories.Nil] where it was never written.
	Get(ctx context.Context, key string) (histories.Reply, error)
	Put(ctx context.Context, key string, value int64) (histories.Reply, error)
	// CompareAndSwap sets the key to replacement if it holds expected. A
	// [histories.Refusal] says that it held something else.
	CompareAndSwap(ctx context.Context, key string, expected, replacement int64) (histories.Reply, error)
	Close() error
}

// Attempts is implemented by clients that send a request again.
type Attempts interface {
	// Attempts returns how often the last operation was sent.
	Attempts() int
}

// Observer is implemented by systems whose nodes tell their leader and term.
type Observer interface {
	// Status asks one node about itself.
	Status(ctx context.Context, c clusters.Cluster, node string) (histories.Status, error)
}

// Clocked is implemented by systems whose nodes tell what time it is to them: the proof that a
// change of their clock reached them.
type Clocked interface {
	// Clock asks one node for its wall clock.
	Clock(ctx context.Context, c clusters.Cluster, node string) (time.Time, error)
}

// Traced is implemented by systems whose nodes write files worth keeping: traces, logs.
type Traced interface {
	// Artifacts returns the names below the host's directory of the files to collect, and
	// the name each gets below nodes/<node>/ in the run directory.
	Artifacts(node string) map[string]string
}

// Membership is implemented by systems whose members can be changed while they serve.
type Membership interface {
	// Members returns the members as one node knows them. It need not be the latest list.
	Members(ctx context.Context, c clusters.Cluster, node string) ([]Member, error)
	// Change makes changes that take effect together, and returns when they are in force. It
	// goes through elections, and asks again, until ctx ends. An error that is marked with
	// [histories.Definite] proves that nothing was changed and nothing will be.
	Change(ctx context.Context, c clusters.Cluster, changes ...MemberChange) error
	// Transfer makes a voter lead, and returns when it does.
	Transfer(ctx context.Context, c clusters.Cluster, to string) error
	// Joining describes the program on a node that was added while it had no data: it joins
	// through another. The same program goes on with its data when it is started again.
	Joining(c clusters.Cluster, node, through string) clusters.Process
}

// Member is a member of the cluster. One that was removed and added again has another ID.
type Member struct {
	Node  string
	ID    uint64
	Voter bool // else a learner
	Joint bool // a change of its vote is under way
}

// MemberChange is one change of the members.
type MemberChange struct {
	Op   MemberOp
	Node string
}

// MemberOp is what is done to a member.
type MemberOp string

// The changes of a member.
const (
	AddVoter      MemberOp = "add"
	AddLearner    MemberOp = "add-learner"
	PromoteMember MemberOp = "promote"
	DemoteMember  MemberOp = "demote"
	RemoveMember  MemberOp = "remove"
)
