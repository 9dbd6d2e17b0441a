package raft

import "fmt"

// nodeConfig is a node's configuration with the members, or the snapshot, that it starts
// with.
type nodeConfig struct {
	Config
	Voters   []uint64
	Learners []uint64
	Snapshot *Snapshot
}

// pipelined is a node with AsyncStorageWrites as most tests want it: what a write holds,
// and what waits for it, in one place, and a number by which it is reported as durable.
type pipelined struct {
	*RawNode
	last     uint64    // number of the last write
	inFlight []Message // orders to write, oldest first
	applying []Entry   // handed out and not reported as applied
}

// work is a Ready of a pipelined node.
type work struct {
	Write        uint64 // 0: nothing to write, and nothing waits
	HardState    HardState
	Entries      []Entry
	Snapshot     *Snapshot
	MustSync     bool
	Messages     []Message
	AfterPersist []Message // to others, when Write is durable
	Committed    []Entry
	ReadStates   []ReadState
	SoftState    *SoftState
}

func newPipelined(c nodeConfig) (*pipelined, error) {
	c.AsyncStorageWrites = true
	if s, ok := c.Storage.(*MemoryStorage); ok && len(c.Voters) > 0 {
		s.SetConfState(ConfState{Voters: c.Voters, Learners: c.Learners})
	}
	n, err := NewRawNode(c.Config)
	if err != nil {
		return nil, err
	}
	return &pipelined{RawNode: n}, nil
}

func (n *pipelined) Ready() work {
	rd := n.RawNode.Ready()
	w := work{
		HardState: rd.HardState, Entries: rd.Entries, Snapshot: rd.Snapshot, MustSync: rd.MustSync,
		ReadStates: rd.ReadStates, SoftState: rd.SoftState,
	}
	for _, m := range rd.Messages {
		switch m.Type {
		case MsgStorageAppend:
			n.last++
			w.Write = n.last
			n.inFlight = append(n.inFlight, m)
			for _, response := range m.Responses {
				if response.To != n.raft.config.ID {
					w.AfterPersist = append(w.AfterPersist, response)
				}
			}
		case MsgStorageApply:
			w.Committed = m.Entries
			n.applying = append(n.applying, m.Entries...)
		default:
			w.Messages = append(w.Messages, m)
		}
	}
	return w
}

// Persisted tells that a write is durable, and every write before it.
func (n *pipelined) Persisted(write uint64) error {
	if err := n.Err(); err != nil {
		return err
	}
	if oldest := n.last - uint64(len(n.inFlight)) + 1; len(n.inFlight) == 0 || write != oldest {
		return fmt.Errorf("write %d is not the oldest in flight", write)
	}
	m := n.inFlight[0]
	n.inFlight = n.inFlight[1:]
	for _, response := range m.Responses {
		if response.To == n.raft.config.ID {
			if err := n.Step(response); err != nil {
				return err
			}
		}
	}
	return n.Err()
}

// AppliedTo tells that everything up to index is applied.
func (n *pipelined) AppliedTo(index uint64) error {
	done := 0
	for done < len(n.applying) && n.applying[done].Index <= index {
		done++
	}
	if done == 0 {
		return n.Err()
	}
	m := Message{Type: MsgStorageApplyResp, To: n.raft.config.ID, From: LocalApplyThread, Entries: n.applying[:done]}
	n.applying = n.applying[done:]
	return n.Step(m)
}
