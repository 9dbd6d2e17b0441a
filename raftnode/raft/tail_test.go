package raft

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The race of tail's comment, on a whole node: entry 2 of term 1 is replaced by term 3's
// and put back, all before the write that held it first is durable.
func TestAnEntryThatWasReplacedAndPutBackIsDurableOnlyByItsLastWrite(t *testing.T) {
	l := single(t, []uint64{1}, HardState{Term: 1, Commit: 1})
	n := l.nodes[1]
	a, b := []Entry{{Index: 2, Term: 1}}, []Entry{{Index: 2, Term: 3}}
	for _, m := range []Message{
		{Type: MsgApp, From: 2, Term: 2, Entries: a},
		{Type: MsgApp, From: 3, Term: 3, Entries: b},
		{Type: MsgApp, From: 2, Term: 4, Entries: a, Commit: 2},
	} {
		m.To, m.Index, m.LogTerm = 1, 1, 1
		must(t, n.Step(m))
		l.ready(1)
	}
	for write, want := range []struct {
		durable, applied uint64
		sent             string
	}{
		{1, 1, "1->2 MsgAppResp term 2 holds 2"}, // of term 2: leader 2 of term 4 ignores it
		{1, 1, "1->3 MsgAppResp term 3 holds 2"},
		{2, 2, "1->2 MsgAppResp term 4 holds 2"},
	} {
		l.wire = nil
		l.persist(1)
		if sent := describe(l.wire[0]); sent != want.sent {
			t.Errorf("write %d released %q, not %q", write+1, sent, want.sent)
		}
		l.ready(1)
		if durable := n.raft.log.tail.durable(); durable != want.durable || n.applied != want.applied {
			t.Errorf("after write %d: durable up to %d, applied up to %d, not %d and %d", write+1, durable, n.applied, want.durable, want.applied)
		}
	}
}

// Whatever is appended, replaced and written in which order: what the tail calls durable is
// what a crash at this moment would leave on the disk.
func TestWhatTheTailCallsDurableIsOnTheDisk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tail := tail{offset: 1}
		var log, disk []Entry    // index i+1 at i
		var flight [][]Entry     // handed out, not on the disk
		var started, done uint64 // write numbers
		var data byte            // makes each entry another one, of the same term or not
		replace := func(to, add []Entry) []Entry {
			return append(slices.Clone(to[:add[0].Index-1]), add...)
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				first := rapid.IntRange(1, len(log)+1).Draw(t, "first")
				add := make([]Entry, rapid.IntRange(1, 3).Draw(t, "entries"))
				for i := range add {
					data++
					add[i] = Entry{Index: uint64(first + i), Term: rapid.Uint64Range(1, 2).Draw(t, "term"), Data: []byte{data}}
				}
				log = replace(log, add)
				tail.append(add)
			},
			"write": func(*rapid.T) {
				started++
				flight = append(flight, slices.Clone(tail.unwritten()))
				tail.begin(started, nil)
			},
			"finish": func(t *rapid.T) {
				if len(flight) == 0 {
					t.Skip("nothing is in flight")
				}
				if len(flight[0]) > 0 {
					disk = replace(disk, flight[0])
				}
				flight = flight[1:]
				done++
				if _, inOrder := tail.finish(done + 1); inOrder {
					t.Fatal("a later write finished first")
				}
				if _, inOrder := tail.finish(done); !inOrder {
					t.Fatalf("write %d is not the oldest", done)
				}
			},
			"": func(t *rapid.T) {
				same := func(a, b Entry) bool { return a.Index == b.Index && a.Data[0] == b.Data[0] }
				durable := int(tail.durable())
				if durable > len(disk) || !slices.EqualFunc(disk[:durable], log[:durable], same) {
					t.Fatalf("called durable up to %d, but the disk has %v of %v", durable, disk, log)
				}
				if !slices.EqualFunc(tail.entries, log[durable:], same) || int(tail.lastIndex()) != len(log) {
					t.Fatalf("the tail is %v, not %v", tail.entries, log[durable:])
				}
				if len(flight) == 0 && len(tail.unwritten()) == 0 && durable != len(log) {
					t.Fatalf("everything is written, and only %d of %d is called durable", durable, len(log))
				}
			},
		})
	})
}
