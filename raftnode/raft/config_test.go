package raft

import (
	"errors"
	"strings"
	"testing"
)

func TestConfigNamesWhatCannotBeUsed(t *testing.T) {
	valid := labConfig(1, []uint64{1, 2, 3})
	valid.Storage = NewMemoryStorage()
	must(t, valid.Validate())
	for name, test := range map[string]struct {
		change func(*nodeConfig)
		want   string
	}{
		"no ID":                     {func(c *nodeConfig) { c.ID = 0 }, "Config.ID is 0"},
		"a local thread's ID":       {func(c *nodeConfig) { c.ID = LocalApplyThread }, "that is a local thread's"},
		"a window below a message":  {func(c *nodeConfig) { c.MaxSizePerMsg, c.MaxInflightBytes = 2, 1 }, "Config.MaxInflightBytes is 1: it must be at least MaxSizePerMsg, 2"},
		"no heartbeats":             {func(c *nodeConfig) { c.HeartbeatTick = 0 }, "Config.HeartbeatTick is 0"},
		"heartbeats too seldom":     {func(c *nodeConfig) { c.HeartbeatTick = 10 }, "Config.ElectionTick is 10: it must be more than HeartbeatTick, 10"},
		"no storage":                {func(c *nodeConfig) { c.Storage = nil }, "Config.Storage is nil"},
		"a window that lets no one": {func(c *nodeConfig) { c.MaxInflightMsgs = 0 }, "Config.MaxInflightMsgs is 0"},
	} {
		t.Run(name, func(t *testing.T) {
			c := valid
			test.change(&c)
			err := c.Validate()
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
			if _, err := newPipelined(c); err == nil {
				t.Error("a node was made of it")
			}
		})
	}
}

func TestANodeIsNotMadeOfAStorageThatLostEntries(t *testing.T) {
	for name, test := range map[string]struct {
		commit, applied uint64
		want            string
	}{
		"commit index beyond the log":  {3, 0, "stored commit index is 3, but the log ends at 2"},
		"applied index beyond the log": {0, 3, "Config.Applied is 3, but the log ends at 2"},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewMemoryStorage()
			must(t, s.Append([]Entry{{Index: 1, Term: 1}, {Index: 2, Term: 1}}))
			s.SetHardState(HardState{Term: 1, Commit: test.commit})
			c := labConfig(1, []uint64{1})
			c.Storage, c.Applied = s, test.applied
			if _, err := newPipelined(c); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
}

// brokenStorage fails to read entries, or their terms, when told so.
type brokenStorage struct {
	*MemoryStorage
	broken bool
}

var errDisk = errors.New("input/output error")

func (s *brokenStorage) Term(i uint64) (uint64, error) {
	if s.broken {
		return 0, errDisk
	}
	return s.MemoryStorage.Term(i)
}

func (s *brokenStorage) Entries(lo, hi, maxBytes uint64) ([]Entry, error) {
	if s.broken {
		return nil, errDisk
	}
	return s.MemoryStorage.Entries(lo, hi, maxBytes)
}

func TestANodeWhoseStorageFailsStandsStill(t *testing.T) {
	s := &brokenStorage{MemoryStorage: NewMemoryStorage()}
	must(t, s.Append([]Entry{{Index: 1, Term: 1}}))
	events := 0
	c := labConfig(1, []uint64{1, 2, 3})
	c.Storage, c.Trace = s, func(Event) { events++ }
	n, err := newPipelined(c)
	must(t, err)
	must(t, n.Step(Message{Type: MsgHeartbeat, From: 2, To: 1, Term: 1}))

	s.broken = true
	before := events
	// The last term cannot be read. Taken for 0, it would let anybody have the vote.
	vote := Message{Type: MsgVote, From: 3, To: 1, Term: 1, Index: 0}
	n.raft.leader = None
	if err := n.Step(vote); !errors.Is(err, errDisk) {
		t.Errorf("step returned %v", err)
	}
	if n.HasReady() || n.Ready().Write != 0 || events != before {
		t.Error("the node went on as if it had read its storage")
	}
	s.broken = false
	if err := n.Propose(nil); !errors.Is(err, errDisk) || !errors.Is(n.Err(), errDisk) {
		t.Errorf("the failure was forgotten: propose returned %v, Err %v", err, n.Err())
	}
	if err := errors.Join(n.Persisted(1), n.AppliedTo(0), n.Campaign(), n.ReadIndex(nil)); !errors.Is(err, errDisk) {
		t.Errorf("got %v", err)
	}
	n.Tick()
}

func TestElectionTimeoutsComeFromTheSeedAndDifferBetweenNodes(t *testing.T) {
	draw := func(seed, id uint64) (timeouts [8]int) {
		c := labConfig(id, []uint64{1, 2, 3})
		c.Seed, c.Storage = seed, NewMemoryStorage()
		n, err := newPipelined(c)
		must(t, err)
		for i := range timeouts {
			timeouts[i] = n.raft.electionTimeout
			if timeouts[i] < 10 || timeouts[i] >= 20 {
				t.Errorf("a time-out of %d ticks is not in [10, 20)", timeouts[i])
			}
			n.raft.drawElectionTimeout()
		}
		return timeouts
	}
	if first, again := draw(1, 1), draw(1, 1); first != again {
		t.Error("the same seed gives other time-outs")
	}
	if draw(1, 1) == draw(2, 1) || draw(1, 1) == draw(1, 2) {
		t.Error("other seeds or nodes give the same time-outs")
	}
}

func TestMemoryStorageKeepsTheLogWhole(t *testing.T) {
	s := NewMemoryStorage()
	entry := func(i, term uint64) Entry { return Entry{Index: i, Term: term} }
	must(t, s.Append([]Entry{entry(1, 1), entry(2, 1), entry(3, 1)}))
	before, err := s.Entries(1, 4, ^uint64(0))
	must(t, err)
	must(t, s.Append([]Entry{entry(2, 2)}))
	if last, _ := s.LastIndex(); last != 2 {
		t.Errorf("the log ends at %d, not 2", last)
	}
	if before[1].Term != 1 || before[2].Term != 1 {
		t.Error("entries that were given out changed")
	}
	for _, gap := range [][]Entry{{entry(4, 2)}, {entry(0, 1)}, {entry(3, 2), entry(5, 2)}} {
		if s.Append(gap) == nil {
			t.Errorf("took %v after 2", gap)
		}
	}
	if _, err := s.Entries(2, 9, 0); !errors.Is(err, ErrUnavailable) {
		t.Errorf("entries that are not there: %v", err)
	}
	if _, err := s.Term(3); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a term that is not there: %v", err)
	}
	if got, err := s.Entries(1, 3, 0); err != nil || len(got) != 1 {
		t.Errorf("a limit of nothing gives %v, %v, not one entry", got, err)
	}
}
