package raft

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// sabotage breaks one thing on purpose that Raft, or the core's contract with its owner,
// rests on. A simulation that does not notice proves nothing.
type sabotage struct {
	world   func(*world)                    // before the world's nodes start
	restart func(*member)                   // before a node starts
	ready   func(*world, *member, *work)    // before a Ready is carried out
	receive func(*world, *member, *Message) // before a message is stepped
}

var sabotages = map[string]struct {
	sabotage
	noticed []string // promises of which one must be seen broken
}{
	"answers do not wait for the disk": {sabotage{
		ready: func(w *world, _ *member, rd *work) {
			w.send(rd.AfterPersist...)
			rd.AfterPersist = nil
		},
	}, []string{"durability", "terms", "one vote", "election safety", "leader completeness"}},

	"only requests for votes do not wait for the disk": {sabotage{
		ready: func(w *world, _ *member, rd *work) {
			var rest []Message
			for _, m := range rd.AfterPersist {
				if m.Type == MsgVote {
					w.send(m)
				} else {
					rest = append(rest, m)
				}
			}
			rd.AfterPersist = rest
		},
	}, []string{"election safety", "log matching", "one vote", "terms"}},

	"votes are forgotten at restart": {sabotage{
		restart: func(m *member) {
			hard := m.storage.hard
			hard.Vote = None
			m.storage.SetHardState(hard)
		},
	}, []string{"one vote", "election safety"}},

	"writes are reported before they are durable": {sabotage{
		ready: func(w *world, m *member, rd *work) {
			if rd.Write > 0 {
				w.send(rd.AfterPersist...)
				rd.AfterPersist = nil
				// The mirror has it, the disk has not.
				if m.storage.Append(rd.Entries) == nil {
					w.persisted(m, rd.Write)
				}
				rd.Write = 0
			}
		},
	}, []string{"durability", "terms", "one vote", "commit safety", "does not start"}},

	"reads are answered without a quorum": {sabotage{
		ready: func(w *world, m *member, rd *work) {
			r := m.node.raft
			for len(r.reads.waiting) > 0 {
				waiting := r.reads.waiting[0]
				r.reads.waiting = r.reads.waiting[1:]
				if context, open := r.asked.take(waiting.request.Entries[0].Data); open && waiting.request.From == m.id {
					rd.ReadStates = append(rd.ReadStates, ReadState{Index: waiting.index, RequestCtx: context})
				}
			}
		},
	}, []string{"stale read"}},

	"late answers to heartbeats confirm newer reads": {sabotage{
		// It takes a leader that does not know yet that it is deposed.
		world: func(w *world) {
			w.config.CheckQuorum, w.pace, w.kinds = false, 2, []int{aroundTheLeader, none}
		},
		receive: func(_ *world, to *member, m *Message) {
			if m.Type == MsgHeartbeatResp && len(m.Context) > 0 {
				m.Context = binary.BigEndian.AppendUint64(nil, to.node.raft.reads.last)
			}
		},
	}, []string{"stale read"}},

	"answers to reads are told apart by context only": {sabotage{
		receive: func(_ *world, to *member, m *Message) {
			if m.Type != MsgReadIndexResp {
				return
			}
			name := m.Entries[0].Data
			for _, a := range to.node.raft.asked.open {
				if string(a.context) == string(name[8:]) {
					binary.BigEndian.PutUint64(name, a.number)
				}
			}
		},
	}, []string{"stale read"}},

	"leaders count copies of earlier terms' entries": {sabotage{
		ready: func(_ *world, m *member, _ *work) {
			if r := m.node.raft; r.role == Leader {
				r.commitTo(r.members.Voters.Reached(func(id uint64) uint64 { return r.progress.of(id).match }))
			}
		},
	}, []string{"commit rule"}},

	"disks keep what was replaced": {sabotage{
		restart: func(m *member) {
			last := uint64(len(m.storage.entries))
			if longer := m.longest; uint64(len(longer)) > last {
				for _, e := range longer[last:] {
					m.storage.entries = append(m.storage.entries, e)
					m.disk = append(m.disk, chainLink(m.disk[e.Index-1], e))
				}
			}
		},
		ready: func(_ *world, m *member, rd *work) {
			if n := len(m.storage.entries); n > len(m.longest) {
				m.longest = append([]Entry(nil), m.storage.entries...)
			}
		},
	}, []string{"log matching", "commit safety", "leader completeness", "stands still", "malformed"}},

	"votes ignore how long the log is": {sabotage{
		receive: func(_ *world, _ *member, m *Message) {
			if m.Type == MsgVote {
				m.Index, m.LogTerm = 1<<40, 1<<40
			}
		},
	}, []string{"leader completeness", "stands still", "commit safety", "replaced"}},
}

func TestTheSimulationNoticesWhatIsBroken(t *testing.T) {
	for name, test := range sabotages {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(400) {
				wrong := liveBroken(seed, 3+2*int(seed%2), test.sabotage)
				if wrong == "" {
					continue
				}
				for _, promise := range test.noticed {
					if strings.Contains(wrong, promise) {
						t.Logf("seed %d: %s", seed, wrong)
						return
					}
				}
				t.Fatalf("seed %d: noticed as something else: %s", seed, wrong)
			}
			t.Error("400 worlds look right")
		})
	}
}

// liveBroken runs a world in which even the core's own assertions may fail.
func liveBroken(seed uint64, size int, s sabotage) (wrong string) {
	defer func() {
		if p := recover(); p != nil {
			wrong = fmt.Sprint(p)
		}
	}()
	return newWorld(seed, size, s).live(simulatedEvents)
}
