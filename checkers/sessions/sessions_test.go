package sessions

import (
	"encoding/json"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func read(session int, key string, version int64) Op {
	return Op{Session: session, Key: key, Version: version}
}

func write(session int, key string, version int64) Op {
	return Op{Session: session, Key: key, Write: true, Version: version}
}

func TestEachGuaranteeIsFoundBroken(t *testing.T) {
	for _, test := range []struct {
		what    string
		ops     []Op
		options Options
		want    Guarantee
		text    string
	}{
		{"a read goes back", []Op{read(1, "x", 5), read(1, "x", 4)}, Options{}, MonotonicReads, "session 1 read version 5 of x, and then read version 4 of x"},
		{"a read misses the session's own write", []Op{write(1, "x", 5), read(1, "x", 4)}, Options{}, ReadYourWrites, "session 1 wrote version 5 of x, and then read version 4 of x"},
		{"a write goes back", []Op{write(1, "x", 5), write(1, "x", 4)}, Options{}, MonotonicWrites, "session 1 wrote version 5 of x, and then wrote version 4 of x"},
		{"two writes make one version", []Op{write(1, "x", 5), write(1, "x", 5)}, Options{}, MonotonicWrites, ""},
		{"a write is older than what was read", []Op{read(1, "x", 5), write(1, "x", 4)}, Options{}, WritesFollowReads, ""},
		{"a write is older than what was read of another key", []Op{read(1, "x", 5), write(1, "y", 4)}, Options{OneOrder: true}, WritesFollowReads, ""},
		{"the newest counts, not the last", []Op{read(1, "x", 9), read(2, "x", 1), read(1, "x", 9), read(1, "x", 8)}, Options{}, MonotonicReads, ""},
	} {
		result := Check(test.ops, test.options)
		if len(result.Violations) != 1 || result.Violations[0].Guarantee != test.want || result.Counts[test.want] != 1 {
			t.Errorf("%s: %+v", test.what, result)
			continue
		}
		if test.text != "" && result.Violations[0].Text != test.text {
			t.Errorf("%s: %s", test.what, result.Violations[0].Text)
		}
	}
}

func TestWhatASessionMaySeeIsLeftAlone(t *testing.T) {
	for what, test := range map[string]struct {
		ops     []Op
		options Options
	}{
		"the same version again":                    {[]Op{read(1, "x", 5), read(1, "x", 5), write(1, "x", 6), read(1, "x", 6)}, Options{}},
		"another session is behind":                 {[]Op{read(1, "x", 5), read(2, "x", 4), write(3, "x", 6), read(2, "x", 4)}, Options{}},
		"another key is older":                      {[]Op{read(1, "x", 5), read(1, "y", 1)}, Options{OneOrder: true}},
		"a write of another key, counted by itself": {[]Op{read(1, "x", 5), write(1, "y", 1)}, Options{}},
		"a write of unknown outcome":                {[]Op{write(1, "x", Unknown), read(1, "x", 3)}, Options{}},
		"a guarantee that is not promised":          {[]Op{read(1, "x", 5), read(1, "x", 4)}, Options{Skip: []Guarantee{MonotonicReads}}},
	} {
		if result := Check(test.ops, test.options); len(result.Violations) > 0 || len(result.Counts) > 0 {
			t.Errorf("%s: %+v", what, result)
		}
	}
}

// Operations on one store, one after the other, keep every guarantee; the same with one read
// of an old version breaks one, unless the session had seen nothing newer.
func TestAStoreThatIsAskedInTurnKeepsEveryGuarantee(t *testing.T) {
	broken := 0
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 1))
		var ops []Op
		at := map[string]int64{}
		revision := int64(0)
		for range 5 + random.IntN(30) {
			op := Op{Session: random.IntN(3), Key: string(rune('a' + random.IntN(2))), Write: random.IntN(2) == 0}
			if op.Write {
				revision++
				at[op.Key] = revision
			}
			op.Version = at[op.Key]
			ops = append(ops, op)
		}
		if result := Check(ops, Options{OneOrder: true}); len(result.Violations) > 0 {
			t.Fatalf("seed %d: %+v", seed, result.Violations)
		}
		spoilt := random.IntN(len(ops))
		if ops[spoilt].Write || ops[spoilt].Version == 0 {
			continue
		}
		newest := int64(0) // what its session knew of the key
		for _, op := range ops[:spoilt] {
			if op.Session == ops[spoilt].Session && op.Key == ops[spoilt].Key {
				newest = max(newest, op.Version)
			}
		}
		ops[spoilt].Version--
		if got := len(Check(ops[:spoilt+1], Options{}).Violations) > 0; got != (ops[spoilt].Version < newest) {
			t.Fatalf("seed %d: violated %v with version %d after %d", seed, got, ops[spoilt].Version, newest)
		} else if got {
			broken++
		}
	}
	if broken < 100 {
		t.Errorf("only %d stories were broken", broken)
	}
}

func TestVersionsOfAKnownOrder(t *testing.T) {
	version := Rank([]int64{30, 10, 20, 10})
	if version(30) != 1 || version(20) != 3 || version(10) != Unknown || version(99) != Unknown {
		t.Error(version(30), version(20), version(10), version(99))
	}
}

func TestManyViolationsAreCountedAndAFewExplained(t *testing.T) {
	ops := []Op{read(1, "x", 100)}
	for range 50 {
		ops = append(ops, read(1, "x", 1))
	}
	result := Check(ops, Options{Keep: 3})
	if len(result.Violations) != 3 || result.Counts[MonotonicReads] != 50 || result.Compared[MonotonicReads] != 50 {
		t.Errorf("%d explained, %v, %v", len(result.Violations), result.Counts, result.Compared)
	}
	data, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	var again Result
	if err := json.Unmarshal(data, &again); err != nil || !cmp.Equal(result, again) {
		t.Errorf("%v: %s", err, cmp.Diff(result, again))
	}
}
