package kv

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// applier applies commands at the next index.
type applier struct{ *Store }

func (a applier) do(c Command) Result { return a.Apply(a.Applied()+1, c.Encode()) }

func put(key, value string) Command { return Command{Op: Put, Key: key, Value: value} }

func add(key, value string) Command { return Command{Op: Append, Key: key, Value: value} }

func del(key string) Command { return Command{Op: Delete, Key: key} }

func cas(key string, expected Expectation, value string) Command {
	return Command{Op: CompareAndSwap, Key: key, Expected: expected, Value: value}
}

func acquire(name, owner string) Command { return Command{Op: Acquire, Key: name, Owner: owner} }

func steal(name, owner string) Command { return Command{Op: Steal, Key: name, Owner: owner} }

func release(name, owner string, token uint64) Command {
	return Command{Op: Release, Key: name, Owner: owner, Token: token}
}

func (c Command) as(session string, sequence uint64) Command {
	c.Session, c.Sequence = session, sequence
	return c
}

func (c Command) under(lock string, token uint64) Command {
	c.Fence = Fence{Lock: lock, Token: token}
	return c
}

func (a applier) value(key string) string {
	entry, present := a.Get(key)
	if !present {
		return "absent"
	}
	return entry.Value
}

func mustMatch(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: (-want +got)\n%s", what, diff)
	}
}

func TestAKeyHoldsWhatWasLastWrittenWithItsRevisions(t *testing.T) {
	s := applier{New()}
	for i, step := range []struct {
		command  Command
		status   Status
		revision uint64
		want     Entry
	}{
		{put("x", "1"), Applied, 1, Entry{"x", "1", 1, 1, 1}},
		{put("x", "1"), Applied, 2, Entry{"x", "1", 1, 2, 2}},
		{add("x", "0"), Applied, 3, Entry{"x", "10", 1, 3, 3}},
		{cas("x", ValueIs("1"), "7"), Mismatch, 3, Entry{"x", "10", 1, 3, 3}},
		{cas("x", ValueIs("10"), "\x00\xff"), Applied, 4, Entry{"x", "\x00\xff", 1, 4, 4}},
		{cas("x", ModRevisionIs(4), "a"), Applied, 5, Entry{"x", "a", 1, 5, 5}},
		{cas("x", ModRevisionIs(4), "b"), Mismatch, 5, Entry{"x", "a", 1, 5, 5}},
		{cas("x", Absent(), "b"), Mismatch, 5, Entry{"x", "a", 1, 5, 5}},
		{del("x"), Applied, 6, Entry{}},
		{del("x"), Applied, 6, Entry{}},
		{cas("x", ValueIs(""), "b"), Mismatch, 6, Entry{}},
		{cas("x", Present(), "b"), Mismatch, 6, Entry{}},
		{cas("x", Absent(), "b"), Applied, 7, Entry{"x", "b", 7, 7, 1}},
		{cas("x", VersionIs(1), ""), Applied, 8, Entry{"x", "", 7, 8, 2}},
	} {
		got := s.do(step.command)
		if got.Status != step.status || got.Revision != step.revision || s.Revision() != step.revision {
			t.Errorf("step %d: got %+v, want %v at revision %d", i, got, step.status, step.revision)
		}
		if entry, present := s.Get("x"); entry != step.want || present != (step.want.Key != "") {
			t.Errorf("step %d: holds %+v, %v; want %+v", i, entry, present, step.want)
		}
		if got.Status == Mismatch && got.Entry != step.want {
			t.Errorf("step %d: the mismatch found %+v, want %+v", i, got.Entry, step.want)
		}
	}
}

func TestARangeIsInOrderAndSaysWhenItLeftSomethingOut(t *testing.T) {
	s := applier{New()}
	for _, key := range []string{"d", "b", "a", "c", "e"} {
		s.do(put(key, key))
	}
	for _, c := range []struct {
		from, to string
		limit    int
		want     string
		more     bool
	}{
		{"", "", 0, "abcde", false},
		{"b", "d", 0, "bc", false},
		{"bb", "", 0, "cde", false},
		{"", "", 5, "abcde", false},
		{"", "", 4, "abcd", true},
		{"b", "d", 1, "b", true},
		{"b", "d", 2, "bc", false},
		{"d", "b", 0, "", false},
	} {
		for _, logged := range []bool{false, true} {
			entries, more := s.Range(c.from, c.to, c.limit)
			if logged {
				result := s.do(Command{Op: Range, Key: c.from, End: c.to, Limit: c.limit})
				entries, more = result.Entries, result.More
			}
			got := ""
			for _, e := range entries {
				got += e.Value
			}
			if got != c.want || more != c.more {
				t.Errorf("[%q, %q) limit %d, logged %v: got %q, more %v; want %q, %v", c.from, c.to, c.limit, logged, got, more, c.want, c.more)
			}
		}
	}
	if s.Revision() != 5 {
		t.Errorf("reads raised the revision to %d", s.Revision())
	}
}

func TestARangeOfLargeValuesStopsAtItsBytesAndCanBeGoneOnFrom(t *testing.T) {
	s := applier{New()}
	for i := range 40 {
		s.do(put(fmt.Sprintf("%02d", i), strings.Repeat("v", MaxValueBytes)))
	}
	seen, from := 0, ""
	for more := true; more; {
		var entries []Entry
		entries, more = s.Range(from, "", 0)
		if len(entries) == 0 || len(entries)*MaxValueBytes > MaxRangeBytes {
			t.Fatalf("%d entries from %q", len(entries), from)
		}
		seen += len(entries)
		from = entries[len(entries)-1].Key + "\x00"
	}
	if seen != 40 {
		t.Errorf("%d entries in all", seen)
	}
	// The ranges of a transaction share one allowance, but none of them is left empty.
	all := Action{Op: Range}
	result := s.do(Command{Op: Txn, Then: []Action{all, all, all}})
	if len(result.Answers[0].Entries) < 10 || len(result.Answers[1].Entries) != 1 || len(result.Answers[2].Entries) != 1 {
		t.Error("the ranges of a transaction do not share their allowance")
	}
}

func TestADeletedRangeIsGoneAndTheRestStays(t *testing.T) {
	s := applier{New()}
	const keys = 3000 // more than one batch
	for i := range keys {
		s.do(put(fmt.Sprintf("%05d", i), "v"))
	}
	got := s.do(Command{Op: DeleteRange, Key: "00100", End: "02900"})
	if got.Deleted != 2800 || got.Revision != keys+1 || s.Len() != 200 {
		t.Errorf("deleted %d at revision %d, %d left", got.Deleted, got.Revision, s.Len())
	}
	if s.value("00099") != "v" || s.value("00100") != "absent" || s.value("02899") != "absent" || s.value("02900") != "v" {
		t.Error("the ends of the range are wrong")
	}
	if got := s.do(Command{Op: DeleteRange, Key: "1"}); got.Deleted != 0 || got.Revision != keys+1 {
		t.Errorf("a range without keys: %+v", got)
	}
	if got := s.do(Command{Op: DeleteRange}); got.Deleted != 200 || s.Len() != 0 {
		t.Errorf("the range of everything: deleted %d, %d left", got.Deleted, s.Len())
	}
}

func TestATransactionDoesOneBranchAsOneStep(t *testing.T) {
	s := applier{New()}
	s.do(put("x", "1"))
	transaction := Command{
		Op: Txn,
		Compares: []Compare{{"x", ValueIs("1")}, {"x", VersionIs(1)}, {"x", ModRevisionIs(1)}, {"x", Present()},
			{"y", Absent()}},
		Then: []Action{{Op: Put, Key: "y", Value: "a"}, {Op: Append, Key: "y", Value: "b"}, {Op: Get, Key: "y"},
			{Op: Delete, Key: "x"}, {Op: Delete, Key: "x"}, {Op: Range}},
		Else: []Action{{Op: Get, Key: "x"}},
	}
	y := Entry{"y", "ab", 2, 2, 2}
	mustMatch(t, "then", s.do(transaction), Result{
		Revision: 2, Succeeded: true,
		Answers: []Found{{}, {}, {Entry: y, Present: true}, {Deleted: 1}, {}, {Entries: []Entry{y}}},
	})
	mustMatch(t, "else", s.do(transaction), Result{Revision: 2, Answers: []Found{{}}})
	transaction.Else = nil
	mustMatch(t, "no else", s.do(transaction), Result{Revision: 2})
}

func TestATransactionThatDoesNotFitChangesNothing(t *testing.T) {
	s := applier{New()}
	half := strings.Repeat("v", MaxValueBytes/2)
	s.do(put("x", half))
	before := s.View()
	twice := Command{Op: Txn, Then: []Action{{Op: Put, Key: "a"}, {Op: Append, Key: "x", Value: half}, {Op: Append, Key: "x", Value: "1"},
		{Op: Put, Key: "z"}}}
	if got := s.do(twice); got.Status != TooLarge || got.Revision != 1 || len(got.Answers) != 0 {
		t.Errorf("got %v at revision %d, %d answers", got.Status, got.Revision, len(got.Answers))
	}
	if s.value("a") != "absent" || s.value("x") != half || s.Len() != before.state.keys.Len() {
		t.Error("part of it was applied")
	}
	twice.Then[2].Value = ""
	if got := s.do(twice); got.Status != Applied || len(s.value("x")) != MaxValueBytes || got.Revision != 2 {
		t.Errorf("up to the bound: %v", got.Status)
	}
	if got := s.do(add("x", "1")); got.Status != TooLarge || len(s.value("x")) != MaxValueBytes {
		t.Errorf("an append past the bound: %v", got.Status)
	}
}

func TestALockHasOneHolderAndItsTokensOnlyRise(t *testing.T) {
	s := applier{New()}
	a := s.do(acquire("l", "a"))
	if a.Status != Applied || a.Lock.Token == 0 {
		t.Fatalf("got %+v", a)
	}
	if again := s.do(acquire("l", "a")); again.Lock != a.Lock || again.Revision != a.Revision {
		t.Errorf("acquired again by its holder: %+v, want %+v", again, a)
	}
	if b := s.do(acquire("l", "b")); b.Status != Held || b.Lock != a.Lock {
		t.Errorf("acquired by another: %+v", b)
	}
	for _, wrong := range []Command{release("l", "b", a.Lock.Token), release("l", "a", a.Lock.Token+1), release("other", "a", 1)} {
		if got := s.do(wrong); got.Status != NotHeld {
			t.Errorf("%+v: %+v", wrong, got)
		}
	}
	b := s.do(steal("l", "b"))
	if b.Status != Applied || b.Lock.Owner != "b" || b.Lock.Token <= a.Lock.Token {
		t.Errorf("stolen: %+v", b)
	}
	if c := s.do(steal("l", "b")); c.Lock.Token <= b.Lock.Token {
		t.Errorf("stolen from oneself: token %d after %d", c.Lock.Token, b.Lock.Token)
	}
	held, _ := s.Lock("l")
	if got := s.do(release("l", "b", held.Token)); got.Status != Applied {
		t.Errorf("released: %+v", got)
	}
	if _, still := s.Lock("l"); still {
		t.Error("a released lock is held")
	}
	if next := s.do(acquire("l", "a")); next.Lock.Token <= held.Token {
		t.Errorf("token %d after %d, which was released", next.Lock.Token, held.Token)
	}
}

func TestAWriteUnderAFenceNeedsThePresentToken(t *testing.T) {
	s := applier{New()}
	token := s.do(acquire("l", "a")).Lock.Token
	txn := Command{Op: Txn, Then: []Action{{Op: Put, Key: "x", Value: "t"}}}
	if got := s.do(put("x", "1").under("l", token)); got.Status != Applied {
		t.Errorf("under the token: %+v", got)
	}
	if got := s.do(put("x", "2").under("m", token)); got.Status != Fenced {
		t.Errorf("under another lock: %+v", got)
	}
	stolen := s.do(steal("l", "b")).Lock
	for _, late := range []Command{put("x", "late"), txn, cas("x", Present(), "late"), add("x", "late"), del("x"),
		{Op: DeleteRange}, {Op: Get, Key: "x"}} {
		if got := s.do(late.under("l", token)); got.Status != Fenced || got.Lock != stolen {
			t.Errorf("late %v: %+v", late.Op, got)
		}
	}
	if s.value("x") != "1" {
		t.Errorf("a late write was applied: %q", s.value("x"))
	}
	if got := s.do(txn.under("l", stolen.Token)); got.Status != Applied || s.value("x") != "t" {
		t.Errorf("under the new token: %+v", got)
	}
	s.do(release("l", "b", stolen.Token))
	if got := s.do(put("x", "late").under("l", stolen.Token)); got.Status != Fenced || got.Lock != (Lock{}) {
		t.Errorf("after the release: %+v", got)
	}
}

func TestARepeatedRequestAppliesOnceAndGivesTheFirstResult(t *testing.T) {
	s := applier{New()}
	s.do(put("x", "1"))
	for i, once := range []Command{
		add("x", "2"),
		cas("x", ValueIs("no"), "2"),
		acquire("l", "a"),
		put("x", "late").under("l", 1),
		{Op: Range, Limit: 1},
		{Op: Txn, Then: []Action{{Op: Get, Key: "x"}, {Op: Append, Key: "x", Value: "3"}, {Op: Range}, {Op: Delete, Key: "y"}}},
		{Op: DeleteRange},
	} {
		once = once.as("session", uint64(i+1))
		first := s.do(once)
		s.do(put("x", "changed"))
		s.do(put("y", "changed"))
		s.do(steal("l", "b"))
		revision := s.Revision()
		mustMatch(t, once.Op.String()+" repeated", s.do(once), first)
		if s.value("x") != "changed" || s.Revision() != revision {
			t.Errorf("the repeated %v was applied", once.Op)
		}
	}
	s.do(add("x", "!"))
	s.do(add("x", "!"))
	if s.value("x") != "changed!!" {
		t.Error("without a session a request is applied each time, but was not")
	}
}

func TestAnOlderSequenceIsRefusedAsUnknown(t *testing.T) {
	s := applier{New()}
	s.do(put("x", "1").as("a", 2))
	if got := s.do(put("x", "7").as("a", 1)); got.Status != Superseded {
		t.Errorf("got %+v", got)
	}
	if got := s.do(put("x", "7").as("a", 2)); got.Status != Reused {
		t.Errorf("the same sequence with another command: %+v", got)
	}
	if s.value("x") != "1" {
		t.Errorf("a refused request was applied: x is %q", s.value("x"))
	}
}

func TestSessionsAreBoundedAndTheLeastRecentlyUsedIsForgotten(t *testing.T) {
	s := applier{newStore(3, MaxSessionsBytes)}
	for i := range 3 {
		s.do(put("x", fmt.Sprint(i)).as(fmt.Sprint(i), 5))
	}
	s.do(put("x", "0").as("0", 5)) // used again: now session 1 is the oldest
	s.do(put("x", "3").as("3", 5))
	if s.sessions.Len() != 3 || s.recent.Len() != 3 {
		t.Fatalf("%d sessions, %d in order", s.sessions.Len(), s.recent.Len())
	}
	if _, known := s.sessions.Get("1"); known {
		t.Error("session 1 is remembered")
	}
	if _, known := s.sessions.Get("0"); !known {
		t.Error("session 0 is forgotten")
	}
	s.do(add("x", "!").as("1", 5))
	if s.value("x") != "3!" {
		t.Error("a request of a forgotten session was not applied")
	}
}

func TestTheResultsThatSessionsKeepAreBoundedInBytes(t *testing.T) {
	const bound = 4 * MaxValueBytes
	s := applier{newStore(MaxSessions, bound)}
	s.do(put("x", strings.Repeat("v", MaxValueBytes)))
	for i := range 10 {
		s.do(Command{Op: Get, Key: "x"}.as(fmt.Sprint(i), 1))
		sum := 0
		s.sessions.Scan(func(_ string, c *session) bool { sum += len(c.result); return true })
		if sum != s.sessionBytes || sum > bound {
			t.Fatalf("after %d sessions: %d bytes, counted as %d, want at most %d", i+1, sum, s.sessionBytes, bound)
		}
	}
	if s.sessions.Len() != 3 {
		t.Errorf("%d sessions", s.sessions.Len())
	}
}

func TestEntriesThatAreNoCommandsChangeNothing(t *testing.T) {
	s := New()
	s.Apply(1, nil)
	digest := s.Digest()
	if got := s.Apply(2, []byte("nonsense")); got.Status != Malformed {
		t.Errorf("got %+v", got)
	}
	if got := s.Apply(3, make([]byte, MaxCommandBytes+1)); got.Status != Malformed {
		t.Errorf("got %+v", got)
	}
	if s.Len() != 0 || s.Applied() != 3 || s.Revision() != 0 || s.Digest() == digest {
		t.Errorf("%d keys, applied %d, revision %d", s.Len(), s.Applied(), s.Revision())
	}
	defer func() {
		if recover() == nil {
			t.Error("a gap in the indexes is accepted")
		}
	}()
	s.Apply(5, nil)
}

func TestTheStoreKeepsNothingOfTheDataThatItIsGiven(t *testing.T) {
	s := New()
	for i, c := range []Command{put("key", "value").as("session", 1), acquire("lock", "owner").as("session", 2)} {
		data := c.Encode()
		s.Apply(uint64(i+1), data)
		copy(data, bytes.Repeat([]byte{'!'}, len(data)))
	}
	entry, _ := s.Get("key")
	lock, _ := s.Lock("lock")
	if _, known := s.sessions.Get("session"); !known || entry.Value != "value" || lock.Owner != "owner" {
		t.Errorf("entry %+v, lock %+v, session known: %v", entry, lock, known)
	}
}
