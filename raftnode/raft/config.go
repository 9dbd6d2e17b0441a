package raft

import (
	"errors"
	"fmt"
	"slices"
)

// Config is what a node is made of.
type Config struct {
	ID     uint64
	Voters []uint64 // every voting member, this node included; their order means nothing

	// ElectionTick is how many ticks a follower waits for its leader before an election, at
	// least: the real number is drawn anew from [ElectionTick, 2*ElectionTick) each time.
	ElectionTick int
	// HeartbeatTick is how many ticks lie between two heartbeats of a leader.
	HeartbeatTick int

	Storage Storage
	// Applied is the last index that the state machine has applied already; 0 on a first
	// start. It may lie beyond the stored commit index, which need not be synced: what was
	// applied was committed.
	Applied uint64

	MaxSizePerMsg   uint64 // bytes of entries in a MsgApp; one entry always fits
	MaxInflightMsgs int    // MsgApp with entries sent to a follower and not yet answered
	// MaxUncommittedEntriesSize is how many bytes of proposals may wait to be committed and
	// applied; 0: no limit. One proposal always fits.
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

	// Seed is where the election time-outs are drawn from, mixed with ID.
	Seed uint64
	// Trace is told every protocol event, in order, from within the call that causes it. It
	// must not call the node. Nil: nobody is told.
	Trace func(Event)
}

// Validate names the first field that cannot be used, its value, and what is allowed.
func (c Config) Validate() error {
	if c.ID == None {
		return errors.New("raft: Config.ID is 0: it must name a node, from 1")
	}
	for i, id := range c.Voters {
		if id == None {
			return fmt.Errorf("raft: Config.Voters is %v: 0 names no node", c.Voters)
		}
		if slices.Contains(c.Voters[:i], id) {
			return fmt.Errorf("raft: Config.Voters is %v: %d may stand there only once", c.Voters, id)
		}
	}
	switch {
	case !slices.Contains(c.Voters, c.ID):
		return fmt.Errorf("raft: Config.Voters is %v: it must hold Config.ID, %d", c.Voters, c.ID)
	case c.HeartbeatTick <= 0:
		return fmt.Errorf("raft: Config.HeartbeatTick is %d: it must be at least 1", c.HeartbeatTick)
	case c.ElectionTick <= c.HeartbeatTick:
		return fmt.Errorf("raft: Config.ElectionTick is %d: it must be more than HeartbeatTick, %d", c.ElectionTick, c.HeartbeatTick)
	case c.Storage == nil:
		return errors.New("raft: Config.Storage is nil: a node must have one")
	case c.MaxInflightMsgs <= 0:
		return fmt.Errorf("raft: Config.MaxInflightMsgs is %d: it must be at least 1", c.MaxInflightMsgs)
	}
	return nil
}
