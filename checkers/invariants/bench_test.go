package invariants

import (
	"fmt"
	"testing"
)

// traffic is what three nodes write while they commit entries, from the first entry on.
func traffic(b *testing.B, entries uint64) []Event {
	events := parse(b, boots(three, "n1", "n2", "n3")+at("", elects(1, three, "n1", "0/0", "n2", "0/0"))+"n3 term t=1")
	sequence := map[string]uint64{}
	for _, e := range events {
		sequence[e.Node] = e.Seq
	}
	add := func(node string, e Event) {
		sequence[node]++
		e.Node, e.Seq, e.Incarnation, e.Term = node, sequence[node], 1, 1
		events = append(events, e)
	}
	nodes := []string{"n1", "n2", "n3"}
	for i := uint64(1); i <= entries; i++ {
		hash := Hash(word(fmt.Sprint(i)))
		for _, node := range nodes {
			add(node, Event{Kind: Append, Index: i, Hash: hash})
			add(node, Event{Kind: Persist, UpTo: i, UpToTerm: 1, Vote: events[0].Node, Commit: i - 1})
			if node != "n1" {
				add(node, Event{Kind: AckSend, To: "n1", Index: i})
				add("n1", Event{Kind: Progress, Peer: node, Match: i, Next: i + 1})
			}
		}
		for _, node := range nodes {
			role := "follower"
			if node == "n1" {
				role = "leader"
			}
			add(node, Event{Kind: Commit, Index: i, Role: role})
			add(node, Event{Kind: Apply, Index: i, Hash: hash, Digest: hash})
		}
	}
	return events
}

func BenchmarkAdd(b *testing.B) {
	events := traffic(b, 20000)
	for i := range events {
		if e := &events[i]; e.Kind == Persist && e.Node == "n3" {
			e.Vote = ""
		}
	}
	b.ReportAllocs()
	count := 0
	for b.Loop() {
		c := New(Options{OneClock: true})
		for _, e := range events {
			c.Add(e)
		}
		if r := c.Finish(); len(r.Violations) > 0 {
			b.Fatal(explain(r))
		}
		count += len(events)
	}
	b.ReportMetric(float64(count)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkDecode(b *testing.B) {
	line := []byte(goodLine)
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if _, err := Decode(line); err != nil {
			b.Fatal(err)
		}
	}
}
