package kv

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// applier applies commands at the next index.
type applier struct{ *Store }

func (a applier) do(c Command) Result { return a.Apply(a.Applied()+1, c.Encode()) }

func put(key string, value int64) Command { return Command{Op: Put, Key: key, Value: value} }

func cas(key string, expected, value int64) Command {
	return Command{Op: CompareAndSwap, Key: key, Expected: expected, Value: value}
}

func (c Command) as(session string, sequence uint64) Command {
	c.Session, c.Sequence = session, sequence
	return c
}

func TestARegisterHoldsWhatWasLastWritten(t *testing.T) {
	s := applier{New()}
	if _, present := s.Get("x"); present {
		t.Error("a key never written holds something")
	}
	steps := []struct {
		command Command
		want    Result
		after   int64
	}{
		{put("x", 1), Result{}, 1},
		{put("x", 0), Result{}, 0},
		{cas("x", 0, math.MinInt64), Result{}, math.MinInt64},
		{cas("x", 0, 7), Result{Status: Mismatch, Value: math.MinInt64, Present: true}, math.MinInt64},
	}
	for i, step := range steps {
		if got := s.do(step.command); got != step.want {
			t.Errorf("step %d: got %+v, want %+v", i, got, step.want)
		}
		if value, present := s.Get("x"); !present || value != step.after {
			t.Errorf("step %d: holds %d, %v; want %d", i, value, present, step.after)
		}
	}
	if got, want := s.do(cas("y", 0, 1)), (Result{Status: Mismatch}); got != want {
		t.Errorf("compare-and-swap of an absent key, which is not zero: %+v, want %+v", got, want)
	}
}

func TestARepeatedRequestAppliesOnceAndGivesTheFirstResult(t *testing.T) {
	s := applier{New()}
	s.do(put("x", 1))
	first := s.do(cas("x", 1, 2).as("a", 1))
	s.do(put("x", 1).as("b", 1))
	if again := s.do(cas("x", 1, 2).as("a", 1)); again != first || again.Status != Applied {
		t.Errorf("first %+v, again %+v", first, again)
	}
	if value, _ := s.Get("x"); value != 1 {
		t.Errorf("the repeated request was applied: x is %d", value)
	}
	s.do(put("x", 5).as("b", 2))
	failed := s.do(cas("x", 9, 2).as("a", 2))
	s.do(put("x", 9).as("b", 3))
	if again := s.do(cas("x", 9, 2).as("a", 2)); again != failed || again.Status != Mismatch || again.Value != 5 {
		t.Errorf("a mismatch was %+v, and %+v when repeated", failed, again)
	}
	s.do(cas("x", 9, 2))
	if value, _ := s.Get("x"); value != 2 {
		t.Error("without a session a request is applied each time, but was not")
	}
}

func TestAnOlderSequenceIsRefusedAsUnknown(t *testing.T) {
	s := applier{New()}
	s.do(put("x", 1).as("a", 2))
	if got := s.do(put("x", 7).as("a", 1)); got.Status != Superseded {
		t.Errorf("got %+v", got)
	}
	if got := s.do(put("x", 7).as("a", 2)); got.Status != Reused {
		t.Errorf("the same sequence with another command: %+v", got)
	}
	if value, _ := s.Get("x"); value != 1 {
		t.Errorf("a refused request was applied: x is %d", value)
	}
}

func TestSessionsAreBoundedAndTheLeastRecentlyUsedIsForgotten(t *testing.T) {
	s := applier{newStore(3)}
	for i := range 3 {
		s.do(put("x", int64(i)).as(fmt.Sprint(i), 5))
	}
	s.do(put("x", 0).as("0", 5)) // used again: now session 1 is the oldest
	s.do(put("x", 3).as("3", 5))
	if len(s.sessions) != 3 || s.recent.Len() != 3 {
		t.Fatalf("%d sessions", len(s.sessions))
	}
	if _, known := s.sessions["1"]; known {
		t.Error("session 1 is remembered")
	}
	if _, known := s.sessions["0"]; !known {
		t.Error("session 0 is forgotten")
	}
}

func TestEntriesThatAreNoCommandsChangeNothing(t *testing.T) {
	s := New()
	s.Apply(1, nil)
	if got := s.Apply(2, []byte("nonsense")); got.Status != Malformed {
		t.Errorf("got %+v", got)
	}
	if len(s.values) != 0 || s.Applied() != 2 {
		t.Errorf("%d values, applied %d", len(s.values), s.Applied())
	}
	defer func() {
		if recover() == nil {
			t.Error("a gap in the indexes is accepted")
		}
	}()
	s.Apply(4, nil)
}

func command(t *rapid.T) Command {
	c := Command{
		Op:    rapid.SampledFrom([]Op{Put, CompareAndSwap}).Draw(t, "op"),
		Key:   rapid.SampledFrom([]string{"x", "y"}).Draw(t, "key"),
		Value: rapid.Int64Range(0, 3).Draw(t, "value"),
	}
	if c.Op == CompareAndSwap {
		c.Expected = rapid.Int64Range(0, 3).Draw(t, "expected")
	}
	if c.Session = rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "session"); c.Session != "" {
		c.Sequence = rapid.Uint64Range(1, 6).Draw(t, "sequence")
	}
	return c
}

func TestStoresThatApplyTheSameAgreeAndOthersDoNot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		commands := rapid.SliceOfN(rapid.Custom(command), 1, 30).Draw(t, "commands")
		a, b, c := applier{New()}, applier{New()}, applier{New()}
		other := rapid.IntRange(0, len(commands)-1).Draw(t, "other")
		for i, command := range commands {
			if ra, rb := a.do(command), b.do(command); ra != rb {
				t.Fatalf("results %+v and %+v", ra, rb)
			}
			if a.Digest() != b.Digest() {
				t.Fatal("digests differ for the same commands")
			}
			if i == other {
				command = put("z", int64(i)) // no drawn command writes z
			}
			c.do(command)
			if i >= other && c.Digest() == a.Digest() {
				t.Fatal("digests agree after different commands")
			}
		}
	})
}

// An independent, naive account of sessions: the list of all results, never forgotten.
func TestSessionsAgreeWithANaiveModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, values := applier{New()}, map[string]int64{}
		type done struct {
			command Command
			result  Result
		}
		history := map[string][]done{}
		for _, c := range rapid.SliceOfN(rapid.Custom(command), 1, 60).Draw(t, "commands") {
			got := s.do(c)
			past := history[c.Session]
			newest := slices.MaxFunc(append(past, done{}), func(x, y done) int { return int(x.command.Sequence) - int(y.command.Sequence) })
			var want Result
			switch {
			case c.Session != "" && c.Sequence < newest.command.Sequence:
				want = Result{Status: Superseded}
			case c.Session != "" && c.Sequence == newest.command.Sequence && c != newest.command:
				want = Result{Status: Reused}
			case c.Session != "" && c.Sequence == newest.command.Sequence:
				want = newest.result
			default:
				old, present := values[c.Key]
				if c.Op == CompareAndSwap && (!present || old != c.Expected) {
					want = Result{Status: Mismatch, Value: old, Present: present}
				} else {
					values[c.Key] = c.Value
				}
				history[c.Session] = append(past, done{c, want})
			}
			if got != want {
				t.Fatalf("%+v gave %+v, want %+v", c, got, want)
			}
		}
		for key, value := range values {
			if got, _ := s.Get(key); got != value {
				t.Fatalf("%s holds %d, want %d", key, got, value)
			}
		}
	})
}

func TestInvalidCommandsAreRefused(t *testing.T) {
	for _, c := range []Command{
		{},
		{Op: 3, Key: "x"},
		{Op: Put},
		{Op: Put, Key: strings.Repeat("k", MaxKeyBytes+1)},
		{Op: Put, Key: "x", Session: strings.Repeat("s", MaxSessionBytes+1), Sequence: 1},
		{Op: Put, Key: "x", Session: "s"},
		{Op: Put, Key: "x", Sequence: 1},
	} {
		if c.Validate() == nil {
			t.Errorf("%+v is valid", c)
		}
		if _, err := Decode(c.Encode()); err == nil {
			t.Errorf("%+v can be decoded", c)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(put("key", -1).Encode())
	f.Add(cas("x", math.MaxInt64, math.MinInt64).as("session", math.MaxUint64).Encode())
	f.Add([]byte{})
	f.Add([]byte{codecVersion, byte(Put), 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Decode(data)
		if err != nil {
			return
		}
		if again, err := Decode(c.Encode()); err != nil || again != c {
			t.Fatalf("%+v became %+v, %v", c, again, err)
		}
	})
}
