package raft

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestAFollowerTakesOnlyWhatContinuesItsLog(t *testing.T) {
	entries := func(from uint64, terms ...uint64) (list []Entry) {
		for i, term := range terms {
			list = append(list, Entry{Index: from + uint64(i), Term: term})
		}
		return list
	}
	for _, test := range []struct {
		name    string
		m       Message
		log     string
		commit  uint64
		answers string
	}{
		{"it continues", Message{Index: 3, LogTerm: 2, Entries: entries(4, 3)}, "1 1 2 3", 1, "holds 4"},
		{"it conflicts", Message{Index: 1, LogTerm: 1, Entries: entries(2, 3)}, "1 3", 1, "holds 2"},
		{"it is there already: a late message cuts off nothing", Message{Index: 1, LogTerm: 1, Entries: entries(2, 1)}, "1 1 2", 1, "holds 2"},
		{"it overlaps", Message{Index: 1, LogTerm: 1, Entries: entries(2, 1, 3)}, "1 1 3", 1, "holds 3"},
		{"commit goes no further than the message", Message{Index: 2, LogTerm: 1, Commit: 3}, "1 1 2", 2, "holds 2"},
		{"commit with entries", Message{Index: 3, LogTerm: 2, Entries: entries(4, 3), Commit: 9}, "1 1 2 3", 4, "holds 4"},
		{"before what is committed", Message{Entries: entries(1, 1)}, "1 1 2", 1, "holds 1"},
		{"a gap", Message{Index: 9, LogTerm: 3, Entries: entries(10, 3)}, "1 1 2", 1, "refuses 9, hint 3/2"},
		{"another term before", Message{Index: 3, LogTerm: 3}, "1 1 2", 1, "refuses 3, hint 3/2"},
		{"a lower term before: the whole term is skipped", Message{Index: 3, LogTerm: 1}, "1 1 2", 1, "refuses 3, hint 2/1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := single(t, []uint64{1, 1, 2}, HardState{Term: 2, Commit: 1})
			test.m.Type, test.m.From, test.m.To, test.m.Term = MsgApp, 2, 1, 3
			answers := l.answers(test.m)
			if len(answers) != 1 || !strings.HasSuffix(describe(answers[0]), test.answers) {
				t.Errorf("answered %v, not %q", answers, test.answers)
			}
			if got := l.terms(1); got != test.log {
				t.Errorf("the log is %q, not %q", got, test.log)
			}
			if s := l.nodes[1].Status(); s.Commit != test.commit {
				t.Errorf("committed up to %d, not %d", s.Commit, test.commit)
			}
			l.expectState(Follower, 3, 2)
		})
	}
}

func TestANodeAtOddsWithWhatIsCommittedStandsStill(t *testing.T) {
	for name, test := range map[string]struct {
		m    Message
		want string
	}{
		"a committed entry is another one": {Message{Type: MsgApp, Index: 2, LogTerm: 2}, "entry 2 is committed with term 1, but leader 2 has it with term 2"},
		"what is committed is not there":   {Message{Type: MsgHeartbeat, Commit: 5}, "told that entry 5 is committed, but the log ends at 3"},
	} {
		t.Run(name, func(t *testing.T) {
			l := single(t, []uint64{1, 1, 1}, HardState{Term: 1, Commit: 1})
			n := l.nodes[1]
			l.answers(Message{Type: MsgHeartbeat, From: 2, To: 1, Term: 1, Commit: 2})
			test.m.From, test.m.To, test.m.Term = 2, 1, 3
			err := n.Step(test.m)
			if err == nil || !strings.Contains(err.Error(), test.want) || n.HasReady() {
				t.Errorf("got %v, want %q in it; it goes on: %v", err, test.want, n.HasReady())
			}
		})
	}
}

func TestALeaderCountsItsOwnEntryOnlyWhenItIsDurable(t *testing.T) {
	l := newLab(t, 3)
	l.elect(1)
	must(t, l.nodes[1].Propose([]byte("a")))
	l.ready(1)
	l.deliver(func(m Message) bool { return m.To == 2 })
	l.settle(2)
	l.deliver(func(m Message) bool { return m.From == 2 })
	if commit := l.nodes[1].Status().Commit; commit != 1 {
		t.Errorf("one durable copy of three committed %d", commit)
	}
	l.persist(1)
	if commit := l.nodes[1].Status().Commit; commit != 2 {
		t.Errorf("two durable copies committed %d, not 2", commit)
	}
}

// A leader may commit by the others' disks while its own lags; it applies when its own has
// caught up.
func TestALeaderAppliesOnlyWhatIsDurableOnItself(t *testing.T) {
	l := newLab(t, 3)
	l.elect(1)
	must(t, l.nodes[1].Propose([]byte("a")))
	l.ready(1)
	for _, id := range []uint64{2, 3} {
		l.deliver(func(m Message) bool { return m.To == id })
		l.settle(id)
	}
	l.deliver(func(m Message) bool { return m.To == 1 })
	l.ready(1)
	if s := l.nodes[1].Status(); s.Commit != 2 || s.Applied != 1 {
		t.Errorf("committed %d, applied %d", s.Commit, s.Applied)
	}
	l.persist(1)
	l.ready(1)
	if s := l.nodes[1].Status(); s.Applied != 2 {
		t.Errorf("applied %d", s.Applied)
	}
}

func TestALeaderKeepsTheBacklogWithinItsLimit(t *testing.T) {
	l := newLab(t, 1, func(c *nodeConfig) { c.MaxUncommittedEntriesSize = 10 })
	l.elect(1)
	n := l.nodes[1]
	take := func(size int) bool {
		err := n.Propose(make([]byte, size))
		if err != nil && !errors.Is(err, ErrProposalDropped) {
			t.Fatal(err)
		}
		return err == nil
	}
	if !take(50) {
		t.Error("a proposal above the limit must pass when nothing else waits")
	}
	if take(1) || !take(0) {
		t.Error("beyond the limit, only empty proposals pass")
	}
	l.settle(1)
	if n.raft.uncommitted != 0 || !take(6) || take(5) || !take(4) {
		t.Error("what was applied gives its share back, exactly")
	}
}

func TestCommittedEntriesAreGivenOutWithinTheirLimit(t *testing.T) {
	l := newLab(t, 1, func(c *nodeConfig) {
		c.MaxCommittedSizePerReady = 2 * entrySize(&Entry{Term: 1, Index: 1, Data: []byte{1}})
	})
	l.elect(1)
	n := l.nodes[1]
	for range 5 {
		must(t, n.Propose([]byte("x")))
	}
	rd := n.Ready()
	must(t, n.storage.Append(rd.Entries))
	must(t, n.Persisted(rd.Write))
	rd = n.Ready()
	if len(rd.Committed) != 2 {
		t.Fatalf("%d entries were given out, not 2", len(rd.Committed))
	}
	must(t, n.Persisted(rd.Write))
	if n.HasReady() {
		t.Error("there is more to do while the limit is given out")
	}
	must(t, n.AppliedTo(3))
	if rd = n.Ready(); len(rd.Committed) != 2 || rd.Committed[0].Index != 4 {
		t.Errorf("then %v was given out", rd.Committed)
	}
}

func TestReportUnreachableStopsTheStreamToThatNodeOnly(t *testing.T) {
	l := newLab(t, 3)
	l.elect(1)
	n := l.nodes[1]
	n.ReportUnreachable(2)
	n.ReportUnreachable(1)
	n.ReportUnreachable(9)
	states := make([]ProgressState, 0, 3)
	for _, p := range n.Status().Progress {
		states = append(states, p.State)
	}
	if want := []ProgressState{StateReplicate, StateProbe, StateReplicate}; !slices.Equal(states, want) {
		t.Errorf("states are %v, not %v", states, want)
	}
	l.nodes[2].ReportUnreachable(1) // a follower streams nothing
}

func TestALeaderForgetsWhoItHeardFromAtEachCheck(t *testing.T) {
	l := newLab(t, 3, checkQuorum)
	l.elect(1)
	l.tick(1, 10)
	l.drop(everything)
	l.expectState(Leader, 1, 1)
	l.answers(Message{Type: MsgHeartbeatResp, From: 3, To: 1, Term: 1})
	l.tick(1, 10)
	l.expectState(Leader, 1, 1)
	l.tick(1, 10)
	l.expectState(Follower, 1, None)
}

func TestARefusalThatIsOutOfDateChangesNothing(t *testing.T) {
	for _, test := range []struct {
		name                 string
		p                    progress
		rejected, hint, next uint64
		news                 bool
	}{
		{"the probe on its way", progress{match: 2, next: 9}, 8, 5, 6, true},
		{"an earlier probe", progress{match: 2, next: 9}, 6, 5, 9, false},
		{"a probe, with a hint below what matches", progress{match: 2, next: 9}, 8, 0, 3, true},
		{"a stream that has a gap", progress{state: StateReplicate, match: 2, next: 9}, 6, 5, 3, true},
		{"a stream that matched there since", progress{state: StateReplicate, match: 2, next: 9}, 2, 1, 9, false},
	} {
		p := test.p
		if news := p.refuse(test.rejected, test.hint); news != test.news || p.next != test.next {
			t.Errorf("%s: refusing %d makes next %d (news: %v), not %d", test.name, test.rejected, p.next, news, test.next)
		}
		if p.state != test.p.state {
			t.Errorf("%s: now in %v", test.name, p.state) // the leader decides what comes of it
		}
	}
}

// Two logs as leaders of the past may have left them: terms never fall, and where two logs
// have an entry of the same index and term they are equal up to there.
func drawLogs(t *rapid.T) (leader, follower []uint64) {
	term := uint64(1)
	common := rapid.IntRange(0, 5).Draw(t, "common")
	for range common {
		term += rapid.Uint64Range(0, 1).Draw(t, "up")
		leader = append(leader, term)
	}
	follower = slices.Clone(leader)
	// After the common part, terms are even in one log and odd in the other.
	grow := func(log []uint64, parity uint64) []uint64 {
		term := term + 1 + (term+1+parity)%2
		for range rapid.IntRange(0, 6).Draw(t, "length") {
			term += 2 * rapid.Uint64Range(0, 2).Draw(t, "up")
			log = append(log, term)
		}
		return log
	}
	return grow(leader, 0), grow(follower, 1)
}

// Probing ends at the last common entry, whatever the logs, and skips a term at a time: it
// takes no more probes than the two logs have terms between them.
func TestProbingFindsWhereTheLogsAgree(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		leader, follower := drawLogs(rt)
		l := &lab{t: t, nodes: make(map[uint64]*labNode)}
		l.add(labConfig(1, []uint64{1, 2, 3}), leader, HardState{Term: 50})
		l.add(labConfig(2, []uint64{1, 2, 3}), follower, HardState{Term: 50})
		n := l.nodes[1]
		must(t, n.Campaign())
		l.settle(1)
		must(t, n.Step(Message{Type: MsgVoteResp, From: 3, To: 1, Term: 51}))
		l.wire = nil
		l.settle(1)
		probes := 0
		for range 100 {
			probes += l.deliver(func(m Message) bool { return m.To == 2 })
			l.settle(2)
			l.deliver(func(m Message) bool { return m.To == 1 })
			l.settle(1)
			if n.Status().Progress[1].State == StateReplicate {
				break
			}
		}
		l.stabilize(1, 2)
		if l.terms(1) != l.terms(2) {
			rt.Fatalf("leader %v, follower %v: ended with %q and %q", leader, follower, l.terms(1), l.terms(2))
		}
		terms := slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(leader), follower...))))
		if probes > len(terms)+2 {
			rt.Fatalf("leader %v, follower %v: %d probes", leader, follower, probes)
		}
	})
}

// Whatever a correct or late follower answers, the leader's picture of it stays sound.
func TestProgressStaysSoundUnderAnyAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &progress{next: rapid.Uint64Range(1, 10).Draw(t, "next"), inflight: newInflight(3, NoLimit)}
		last := p.next + 10
		t.Repeat(map[string]func(*rapid.T){
			"send": func(t *rapid.T) {
				if p.paused {
					t.Skip("paused")
				}
				entries := rapid.IntRange(0, int(min(2, last+1-p.next))).Draw(t, "entries")
				if p.state == StateReplicate && p.inflight.full() {
					entries = 0
				}
				p.sentEntries(make([]Entry, entries))
				p.sentCommit = rapid.Uint64Range(0, last).Draw(t, "commit")
			},
			"acknowledge": func(t *rapid.T) {
				before := p.match
				index := rapid.Uint64Range(0, last).Draw(t, "index")
				news := p.acknowledge(index)
				if p.match != max(before, index) || news != (index > before) {
					t.Fatalf("acknowledging %d made match %d of %d", index, p.match, before)
				}
				if p.state == StateProbe {
					p.becomeReplicate()
				}
				p.inflight.free(index)
			},
			"refuse": func(t *rapid.T) {
				before := p.match
				news := p.refuse(rapid.Uint64Range(0, last).Draw(t, "rejected"), rapid.Uint64Range(0, last).Draw(t, "hint"))
				if news && p.state == StateReplicate {
					p.becomeProbe()
				}
				if p.match != before {
					t.Fatal("a refusal changed match")
				}
			},
			"unreachable": func(*rapid.T) { p.becomeProbe() },
			"heartbeat":   func(*rapid.T) { p.paused = false },
			"": func(t *rapid.T) {
				if p.match >= p.next {
					t.Fatalf("match %d, next %d", p.match, p.next)
				}
				if p.inflight.count > p.inflight.mostMessages {
					t.Fatalf("in flight: %+v", p.inflight)
				}
				if p.state == StateProbe && p.inflight.count > 0 {
					t.Fatal("a probing follower has a window")
				}
			},
		})
	})
}
