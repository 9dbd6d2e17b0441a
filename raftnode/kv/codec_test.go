package kv

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestInvalidCommandsAreRefused(t *testing.T) {
	long := strings.Repeat("k", MaxKeyBytes+1)
	large := strings.Repeat("v", MaxValueBytes+1)
	get := Action{Op: Get, Key: "x"}
	for _, c := range []Command{
		{},
		{Op: 12, Key: "x"},
		{Op: 255, Key: "x"},
		{Op: Put},
		put(long, ""),
		put("x", large),
		put("x", "").as(strings.Repeat("s", MaxSessionBytes+1), 1),
		put("x", "").as("s", 0),
		put("x", "").as("", 1),
		put("x", "").under("l", 0),
		put("x", "").under("", 1),
		put("x", "").under(long, 1),
		{Op: Put, Key: "x", End: "y"},
		{Op: Put, Key: "x", Owner: "a"},
		{Op: Get, Key: "x", Value: "v"},
		{Op: Range, Limit: -1},
		{Op: Range, Limit: MaxRange + 1},
		{Op: Range, Limit: math.MaxInt},
		{Op: DeleteRange, End: long},
		{Op: DeleteRange, Limit: 1},
		{Op: CompareAndSwap, Key: "x", Value: "v"},
		cas("x", Expectation{Kind: 9}, "v"),
		cas("x", ValueIs(large), "v"),
		acquire("l", ""),
		acquire("", "a"),
		acquire("l", long),
		acquire("l", "a").under("l", 1),
		release("l", "a", 0),
		{Op: Txn},
		{Op: Txn, Compares: []Compare{{"x", Absent()}}},
		{Op: Txn, Compares: []Compare{{"", Absent()}}, Then: []Action{get}},
		{Op: Txn, Compares: []Compare{{"x", Expectation{}}}, Then: []Action{get}},
		{Op: Txn, Compares: make([]Compare, MaxCompares+1), Then: []Action{get}},
		{Op: Txn, Then: []Action{{Op: DeleteRange}}},
		{Op: Txn, Then: []Action{{Op: Txn}}},
		{Op: Txn, Else: []Action{{Op: Put}}},
		{Op: Txn, Else: []Action{{Op: 200}}},
		{Op: Txn, Then: slicesOf(get, MaxActions+1)},
		{Op: Txn, Then: slicesOf(Action{Op: Put, Key: "x", Value: large[1:]}, 16)},
	} {
		if c.Validate() == nil {
			t.Errorf("%.200v is valid", c)
		}
		if _, err := Decode(c.Encode()); err == nil {
			t.Errorf("%.200v can be decoded", c)
		}
	}
}

func TestAnExpectationOfWhatItDoesNotCompareIsRefused(t *testing.T) {
	for _, e := range []Expectation{{Kind: KindAbsent, Value: "v"}, {Kind: KindValue, Number: 1}, {Kind: KindVersion, Value: "v"}} {
		if cas("x", e, "v").Validate() == nil {
			t.Errorf("%+v is valid", e)
		}
	}
}

func slicesOf(a Action, n int) []Action {
	actions := make([]Action, n)
	for i := range actions {
		actions[i] = a
	}
	return actions
}

func TestWhatIsWrongWithACommandIsSaid(t *testing.T) {
	for want, c := range map[string]Command{
		"put without key":                           {Op: Put},
		"get with value, which it has no use for":   {Op: Get, Key: "x", Value: "v"},
		"compare-and-swap without expectation":      {Op: CompareAndSwap, Key: "x"},
		"operation 99: unknown":                     {Op: 99},
		"limit of 4097: want 0 to 4096":             {Op: Range, Limit: 4097},
		"a fence needs both a lock and a token":     put("x", "").under("l", 0),
		"then action 1: put without key":            {Op: Txn, Then: []Action{{Op: Get, Key: "x"}, {Op: Put}}},
		"compare 0: expectation of kind 0: unknown": {Op: Txn, Compares: []Compare{{Key: "x"}}, Then: []Action{{Op: Range}}},
	} {
		if err := c.Validate(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestTheLargestCommandFits(t *testing.T) {
	c := Command{Op: Txn, Then: slicesOf(Action{Op: Put, Key: "x", Value: strings.Repeat("v", MaxValueBytes)}, 15)}
	c.Then = append(c.Then, Action{Op: Put, Key: "y"})
	room := MaxCommandBytes - c.size()
	c.Then[15].Value = strings.Repeat("v", room)
	if got, err := Decode(c.Encode()); err != nil || !cmp.Equal(got, c) {
		t.Errorf("of %d bytes: %v", len(c.Encode()), err)
	}
	c.Then[15].Value += "v"
	if c.Validate() == nil {
		t.Error("one byte more is valid")
	}
	if _, err := Decode(make([]byte, MaxCommandBytes+1)); err == nil || !strings.Contains(err.Error(), "want at most 1048576") {
		t.Errorf("too much data is looked at: %v", err)
	}
}

func TestACommandHasOneEncodingOnly(t *testing.T) {
	for _, sound := range []string{"\x02\x03\x01\x01x", "\x02\x03\x81\x30\x01x\x01s\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		if _, err := Decode([]byte(sound)); err != nil {
			t.Fatalf("%q: %v", sound, err)
		}
	}
	for what, data := range map[string]string{
		"a length in two bytes":               "\x02\x03\x01\x81\x00x",
		"a set of fields in two bytes":        "\x02\x03\x81\x00\x01x",
		"a number past 64 bits":               "\x02\x03\x81\x30\x01x\x01s\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
		"a byte after its end":                "\x02\x03\x01\x01x\x00",
		"a value that is there and is empty":  "\x02\x01\x05\x01x\x00",
		"a field that does not exist":         "\x02\x03\x81\x40\x01x",
		"an action's value that is empty":     "\x02\x08\x80\x04\x01\x01\x05\x01x\x00",
		"an action's field that is not there": "\x02\x08\x80\x04\x01\x03\x21\x01x",
		"an older version":                    "\x01\x03\x01\x01x",
		"nothing":                             "",
	} {
		if c, err := Decode([]byte(data)); err == nil {
			t.Errorf("%s: decoded as %+v", what, c)
		}
	}
}

// anyString draws few short strings often, so that commands meet, and odd ones at times.
func anyString(names ...string) *rapid.Generator[string] {
	return rapid.OneOf(rapid.SampledFrom(names), rapid.SampledFrom(names), rapid.StringN(1, 5, 20))
}

var (
	aKey         = rapid.SampledFrom([]string{"a", "b", "c", "d"})
	aValue       = anyString("", "1", "2", "\x00\xff")
	aLock        = rapid.SampledFrom([]string{"l", "m"})
	anOwner      = rapid.SampledFrom([]string{"o", "p"})
	aNumber      = rapid.Uint64Range(0, 12)
	anyAction    = rapid.Custom(drawAction)
	anyCompare   = rapid.Custom(drawCompare)
	validCommand = rapid.Custom(drawCommand)
)

func drawExpectation(t *rapid.T) Expectation {
	e := Expectation{Kind: Kind(rapid.IntRange(int(KindAbsent), int(KindModRevision)).Draw(t, "kind"))}
	switch e.Kind {
	case KindValue:
		e.Value = aValue.Draw(t, "expected")
	case KindVersion, KindModRevision:
		e.Number = aNumber.Draw(t, "number")
	}
	return e
}

func drawCompare(t *rapid.T) Compare { return Compare{aKey.Draw(t, "key"), drawExpectation(t)} }

func drawRange(t *rapid.T, a *Action) {
	a.Key = rapid.SampledFrom([]string{"", "a", "bb", "c"}).Draw(t, "from")
	a.End = rapid.SampledFrom([]string{"", "b", "cc", "d"}).Draw(t, "to")
	if a.Op == Range {
		a.Limit = rapid.IntRange(0, 3).Draw(t, "limit")
	}
}

func drawAction(t *rapid.T) Action {
	a := Action{Op: rapid.SampledFrom([]Op{Put, Append, Delete, Get, Range}).Draw(t, "op")}
	switch a.Op {
	case Range:
		drawRange(t, &a)
	case Put, Append:
		a.Key, a.Value = aKey.Draw(t, "key"), aValue.Draw(t, "value")
	default:
		a.Key = aKey.Draw(t, "key")
	}
	return a
}

func drawCommand(t *rapid.T) Command {
	c := Command{Op: Op(rapid.IntRange(int(Put), int(Release)).Draw(t, "op"))}
	switch c.Op {
	case Put, Append, CompareAndSwap:
		c.Key, c.Value = aKey.Draw(t, "key"), aValue.Draw(t, "value")
		if c.Op == CompareAndSwap {
			c.Expected = drawExpectation(t)
		}
	case Range, DeleteRange:
		a := Action{Op: c.Op}
		drawRange(t, &a)
		c.Key, c.End, c.Limit = a.Key, a.End, a.Limit
	case Txn:
		c.Compares = rapid.SliceOfN(anyCompare, -1, 2).Draw(t, "compares")
		c.Then = rapid.SliceOfN(anyAction, 1, 4).Draw(t, "then")
		c.Else = rapid.SliceOfN(anyAction, -1, 2).Draw(t, "else")
	case Acquire, Steal, Release:
		c.Key, c.Owner = aLock.Draw(t, "lock"), anOwner.Draw(t, "owner")
		if c.Op == Release {
			c.Token = 1 + aNumber.Draw(t, "token")
		}
	default:
		c.Key = aKey.Draw(t, "key")
	}
	if c.Op < Acquire && rapid.IntRange(0, 5).Draw(t, "fenced") == 0 {
		c.Fence = Fence{aLock.Draw(t, "fence"), 1 + aNumber.Draw(t, "fence token")}
	}
	if c.Session = rapid.SampledFrom([]string{"", "", "s", "t", "u"}).Draw(t, "session"); c.Session != "" {
		c.Sequence = rapid.Uint64Range(1, 9).Draw(t, "sequence")
	}
	return c
}

func TestAValidCommandIsDecodedAsItWasEncoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := validCommand.Draw(t, "command")
		if len(c.Compares) == 0 {
			c.Compares = nil
		}
		if len(c.Else) == 0 {
			c.Else = nil
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		data := c.Encode()
		got, err := Decode(data)
		if err != nil || !cmp.Equal(got, c) {
			t.Fatalf("%+v became %+v, %v", c, got, err)
		}
		if len(data) > c.size() {
			t.Fatalf("%d bytes, and size says %d", len(data), c.size())
		}
		for cut := range data {
			if _, err := Decode(data[:cut]); err == nil {
				t.Fatalf("%+v can be decoded from %d of its %d bytes", c, cut, len(data))
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(put("key", "value").Encode())
	f.Add(cas("x", ModRevisionIs(math.MaxUint64), "").as("session", math.MaxUint64).under("l", 3).Encode())
	f.Add(release("l", "o", 5).Encode())
	f.Add(Command{Op: Range, Key: "a", End: "b", Limit: 3}.Encode())
	f.Add((&Command{Op: Txn, Compares: []Compare{{"x", ValueIs("1")}, {"y", Absent()}}, Then: []Action{{Op: Range}, {Op: Get, Key: "x"}},
		Else: []Action{{Op: Append, Key: "x", Value: "2"}}}).Encode())
	f.Add([]byte{})
	f.Add([]byte{codecVersion, byte(Put), 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Decode(data)
		if err != nil {
			return
		}
		if again := c.Encode(); !bytes.Equal(again, data) {
			t.Fatalf("%+v has two encodings: %x and %x", c, data, again)
		}
		s := New()
		s.Apply(1, put("x", "1").Encode())
		s.Apply(2, data)
	})
}

func FuzzDecodeResult(f *testing.F) {
	entry := Entry{"key", "value", 1, 2, 3}
	for _, r := range []Result{
		{},
		{Status: Held, Revision: 7, Lock: Lock{"o", 5}},
		{Revision: math.MaxUint64, Found: Found{Entry: entry, Present: true}},
		{Revision: 9, Succeeded: true, Answers: []Found{{}, {Deleted: 1}, {Entries: []Entry{entry, entry}, More: true}}},
	} {
		f.Add(string(r.append(nil)))
	}
	f.Fuzz(func(t *testing.T, data string) {
		if r, err := decodeResult(data); err == nil && string(r.append(nil)) != data {
			t.Fatalf("%+v has two encodings", r)
		}
	})
}
