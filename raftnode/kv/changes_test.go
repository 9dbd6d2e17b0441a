package kv

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestChangesAreAllThereInOrder(t *testing.T) {
	s := applier{New()}
	s.do(put("a", "1"))
	s.do(put("b", "2"))
	s.do(cas("a", ValueIs("7"), "8")) // changes nothing
	s.do(Command{Op: Txn, Then: []Action{{Op: Put, Key: "a", Value: "3"}, {Op: Delete, Key: "b"}, {Op: Get, Key: "a"}}})
	s.do(Command{Op: Txn, Then: []Action{{Op: Put, Key: "a", Value: "undone"}, {Op: Append, Key: "a", Value: strings.Repeat("x", MaxValueBytes)}}})
	s.do(Command{Op: DeleteRange, Key: "a"})
	all := []Change{{"a", "1", false, 1}, {"b", "2", false, 2}, {"a", "3", false, 3}, {"b", "", true, 3}, {"a", "", true, 4}}
	list, upTo, known := s.Changes("", "", 0)
	mustMatch(t, "all", list, all)
	if upTo != 4 || !known {
		t.Errorf("up to %d, known %t", upTo, known)
	}
	list, _, _ = s.Changes("b", "c", 2)
	mustMatch(t, "of b after 2", list, []Change{{"b", "", true, 3}})
	if list, upTo, known = s.Changes("", "", 9); len(list) > 0 || upTo != 9 || !known {
		t.Errorf("of the future: %v up to %d, known %t", list, upTo, known)
	}
	var snapshot bytes.Buffer
	if _, err := s.View().WriteTo(&snapshot); err != nil {
		t.Fatal(err)
	}
	restored, err := Restore(&snapshot)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, known := restored.Changes("", "", 3); known || restored.Since() != 4 {
		t.Errorf("a restored store knows changes after 3, says it knows them from %d on", restored.Since())
	}
}

// However much is forgotten, what is told is whole: read on from where the last answer ended,
// nothing is missed and no command is cut in two.
func TestForgottenChangesAreNeverSkipped(t *testing.T) {
	s, random := applier{New()}, rand.New(rand.NewPCG(1, 2))
	var after uint64
	var told []Change
	for step := range 20_000 {
		c := Command{Op: Txn}
		for range 1 + random.IntN(4) {
			c.Then = append(c.Then, Action{Op: Put, Key: fmt.Sprint("k", random.IntN(50)), Value: fmt.Sprint(step)})
		}
		s.do(c)
		if random.IntN(500) > 0 {
			continue
		}
		list, upTo, known := s.Changes("", "", after)
		if !known {
			t.Fatalf("the changes after %d are forgotten after %d steps", after, step)
		}
		told, after = append(told, list...), upTo
	}
	perRevision := make(map[uint64]string)
	for _, c := range told {
		if perRevision[c.Revision] == "" {
			perRevision[c.Revision] = c.Value
		} else if perRevision[c.Revision] != c.Value {
			t.Fatalf("revision %d holds changes of two commands", c.Revision)
		}
	}
	for revision := uint64(1); revision <= after; revision++ {
		if perRevision[revision] != fmt.Sprint(revision-1) {
			t.Fatalf("revision %d was skipped", revision)
		}
	}
	if _, _, known := s.Changes("", "", 0); known || len(s.changes.list) > 2*MaxChanges {
		t.Errorf("%d changes are remembered, the first one too: %t", len(s.changes.list), known)
	}
	s.do(put("big", strings.Repeat("x", MaxValueBytes)))
	for range MaxChangesBytes/MaxValueBytes + 2 {
		s.do(put("big", strings.Repeat("y", MaxValueBytes)))
	}
	sum := 0
	for i := range s.changes.list {
		sum += s.changes.list[i].size()
	}
	if sum != s.changes.bytes || sum > MaxChangesBytes {
		t.Errorf("%d bytes are remembered, counted as %d", sum, s.changes.bytes)
	}
}
