package raft

import (
	"errors"
	"fmt"
)

// NoLimit is the value of a size limit that limits nothing.
const NoLimit = ^uint64(0)

// Config is what a node is made of. Who its fellow members are is not in it: that stands
// in the snapshot and the log, or is given to Bootstrap on a first start.
type Config struct {
	ID uint64

	// ElectionTick is how many ticks a follower waits for its leader before an election, at
	// least: the real number is drawn anew from [ElectionTick, 2*ElectionTick) each time. Ten
	// times HeartbeatTick is a good value.
	ElectionTick int
	// HeartbeatTick is how many ticks lie between two heartbeats of a leader.
	HeartbeatTick int

	Storage Storage
	// Applied is the last index that the state machine has applied already; 0 where it begins
	// at the snapshot, or empty. It may lie beyond the stored commit index, which need not be
	// synced: what was applied was committed.
	Applied uint64
	// AsyncStorageWrites makes Ready ask for storage work by messages to the local threads,
	// instead of by Advance: several writes may then be in flight. See Ready.
	AsyncStorageWrites bool

	MaxSizePerMsg   uint64 // bytes of entries in a MsgApp; one entry always fits, so 0 means one at a time
	MaxInflightMsgs int    // MsgApp with entries sent to a follower and not yet answered
	// MaxInflightBytes is how many bytes of entries may be in those messages; 0: no limit. It
	// is at least MaxSizePerMsg.
	MaxInflightBytes uint64
	// MaxUncommittedEntriesSize is how many bytes of proposals a leader takes that are not
	// committed and applied; 0: no limit. One proposal always fits.
	MaxUncommittedEntriesSize uint64
	// MaxCommittedSizePerReady is how many bytes of committed entries may be given out and not
	// yet reported as applied; one entry always fits. 0: MaxSizePerMsg.
	MaxCommittedSizePerReady uint64

	// PreVote makes a node ask whether it could win before it raises the term (dissertation
	// 9.6).
	PreVote bool
	// CheckQuorum makes a leader step down that hears from no quorum for ElectionTick ticks,
	// and followers that hear from a leader ignore candidates (dissertation 6.2, 4.2.3).
	CheckQuorum bool
	// DisableProposalForwarding makes a follower drop proposals instead of sending them to the
	// leader: whoever proposed knows then that they went nowhere.
	DisableProposalForwarding bool
	// DisableConfChangeValidation makes a leader append changes of membership that cannot be
	// made now. Then ApplyConfChange tells so.
	DisableConfChangeValidation bool
	// StepDownOnRemoval makes a leader that is no voter any more step down when it applies
	// that change. Else it leads on until the others elect one of their own.
	StepDownOnRemoval bool

	// Seed is where the election time-outs are drawn from, mixed with ID.
	Seed uint64
	// Trace is told every protocol event, in order, from within the call that causes it. It
	// must not call the node. Nil: nobody is told.
	Trace func(Event)
	// Logger is told what a person who looks for the reason of a trouble wants to know. Nil:
	// nobody is told.
	Logger Logger
}

// Logger takes messages for people. It must not call the node.
type Logger interface {
	Debugf(format string, args ...any)
	Infof(format string, args ...any)
	Warningf(format string, args ...any)
	Errorf(format string, args ...any)
}

// silence is the Logger of nobody.
type silence struct{}

func (silence) Debugf(string, ...any)   {}
func (silence) Infof(string, ...any)    {}
func (silence) Warningf(string, ...any) {}
func (silence) Errorf(string, ...any)   {}

// Validate names the first field that cannot be used, its value, and what is allowed.
func (c *Config) Validate() error {
	switch {
	case c.ID == None:
		return errors.New("raft: Config.ID is 0: it must name a node, from 1")
	case c.ID == LocalAppendThread || c.ID == LocalApplyThread:
		return fmt.Errorf("raft: Config.ID is %d: that is a local thread's", c.ID)
	case c.HeartbeatTick <= 0:
		return fmt.Errorf("raft: Config.HeartbeatTick is %d: it must be at least 1", c.HeartbeatTick)
	case c.ElectionTick <= c.HeartbeatTick:
		return fmt.Errorf("raft: Config.ElectionTick is %d: it must be more than HeartbeatTick, %d", c.ElectionTick, c.HeartbeatTick)
	case c.Storage == nil:
		return errors.New("raft: Config.Storage is nil: a node must have one")
	case c.MaxInflightMsgs <= 0:
		return fmt.Errorf("raft: Config.MaxInflightMsgs is %d: it must be at least 1", c.MaxInflightMsgs)
	case c.MaxInflightBytes != 0 && c.MaxInflightBytes < c.MaxSizePerMsg:
		return fmt.Errorf("raft: Config.MaxInflightBytes is %d: it must be at least MaxSizePerMsg, %d", c.MaxInflightBytes, c.MaxSizePerMsg)
	}
	return nil
}

// setDefaults fills in what 0 stands for.
func (c *Config) setDefaults() {
	if c.MaxCommittedSizePerReady == 0 {
		c.MaxCommittedSizePerReady = c.MaxSizePerMsg
	}
	// A limit of 0 bytes would give nothing out ever again; one entry always fits.
	c.MaxCommittedSizePerReady = max(c.MaxCommittedSizePerReady, 1)
	if c.MaxUncommittedEntriesSize == 0 {
		c.MaxUncommittedEntriesSize = NoLimit
	}
	if c.MaxInflightBytes == 0 {
		c.MaxInflightBytes = NoLimit
	}
	if c.Logger == nil {
		c.Logger = silence{}
	}
}
