package transactions

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// stories are the smallest histories that show an anomaly, and some that look like one.
var stories = []struct {
	name, text string
	kinds      string // all that is found
	strongest  Model
	options    Options
	says       string // is in the text of an anomaly
}{
	// Lists.
	{name: "an empty history", strongest: StrictSerializable},
	{name: "a list that all see grow", text: `
		1 @0-1: append x 1
		2 @2-3: r x [1], append x 2, r x [1 2]
		3 @4-5: r x [1 2]`, strongest: StrictSerializable},
	{name: "an aborted read", text: `
		1 fail: append x 1
		2: r x [1]`, kinds: "G1a", strongest: ReadUncommitted, says: "T2 read x = [1]: it shows 1, which T1 wrote, and that failed"},
	{name: "a read of what is of unknown outcome", text: `
		1 info: append x 1
		2: r x [1]`, strongest: StrictSerializable},
	{name: "a failed append that nobody sees", text: `
		1 fail: append x 1
		2: append x 2
		3: r x [2]`, strongest: StrictSerializable},
	{name: "a dirty update", text: `
		1 fail: append x 1
		2: append x 2
		3: r x [1 2]`, kinds: "G1a dirty-update", strongest: ReadUncommitted, says: "T2 appended 2 to x after the 1 of T1, which failed"},
	{name: "an intermediate read", text: `
		1: append x 1, append x 2
		2: r x [1]
		3: r x [1 2]`, kinds: "G1b", strongest: ReadUncommitted, says: "T2 read x = [1], but after 1 T1 wrote x again"},
	{name: "an intermediate read of one's own", text: `
		1: append x 1, r x [1], append x 2, r x [1 2]
		2: r x [1 2]`, strongest: StrictSerializable},
	{name: "a phantom", text: `
		1: append x 1
		2: r x [1 9]`, kinds: "phantom", strongest: 0, says: "it shows 9, which nobody wrote"},
	{name: "an element twice", text: `
		1: append x 1
		2: append x 2
		3: r x [1 2 1]`, kinds: "duplicate-elements", strongest: 0, says: "it shows 1 twice"},
	{name: "reads that do not go together", text: `
		1: append x 1
		2: append x 2
		3: r x [1]
		4: r x [2]`, kinds: "incompatible-order", strongest: 0, says: "neither begins with the other"},
	{name: "reads that part over what may have been undone", text: `
		1 info: append x 1
		2: append x 2
		3: r x [1]
		4: r x [2]`, kinds: "incompatible-order", strongest: ReadUncommitted},
	{name: "a transaction's elements the wrong way round", text: `
		1: append x 1, append x 2
		2: r x [2 1]`, kinds: "G1b incompatible-order", strongest: ReadUncommitted, says: "T1 appended 1 and then 2 to x"},
	{name: "a transaction's first element missing", text: `
		1: append x 1, append x 2
		2: r x [2]`, kinds: "G-single incompatible-order", strongest: ReadUncommitted},
	{name: "a transaction that does not see its own append", text: `
		1: append x 1, r x []`, kinds: "internal", strongest: ReadUncommitted, says: "T1 read x = [] after it had appended 1"},
	{name: "a transaction that sees its append too early", text: `
		1: r x [1], append x 1`, kinds: "internal", strongest: ReadUncommitted, says: "before it wrote that itself"},
	{name: "a transaction that sees its append too early, below another", text: `
		1: r x [1 2], append x 1
		2: append x 2`, kinds: "G1c internal", strongest: ReadUncommitted, says: "before it appended 1 itself"},
	{name: "a read that cannot be repeated", text: `
		1: r x [], r x [1]
		2: append x 1`, kinds: "G-single non-repeatable-read", strongest: ReadCommitted, says: "T1 read x = [], and then read x = [1]"},
	{name: "a read that shows one's own append when repeated", text: `
		1: r x [], append x 1, append x 2, r x [1 2]`, strongest: StrictSerializable},
	{name: "a lost update", text: `
		1: r x [], append x 1
		2: r x [], append x 2
		3: r x [1 2]`, kinds: "G-single lost-update", strongest: ReadCommitted, says: "2 transactions read x = [], and all of them wrote it: T1 wrote 1, T2 wrote 2"},
	{name: "a lost update that nobody has read", text: `
		1: r x [], append x 1
		2: r x [], append x 2`, kinds: "G2-item lost-update", strongest: ReadCommitted},
	{name: "writes that are interleaved", text: `
		1: append x 1, append y 1
		2: append x 2, append y 2
		3: r x [1 2]
		4: r y [2 1]`, kinds: "G0", strongest: 0, says: "T1 appended 1 to x right before the 2 of T2"},
	{name: "writes that are interleaved, of unknown outcome", text: `
		1 info: append x 1, append y 1
		2: append x 2, append y 2
		3: r x [1 2]
		4: r y [2 1]`, kinds: "G0", strongest: ReadUncommitted},
	{name: "a circle of information", text: `
		1: append x 1, r y [1]
		2: append y 1, r x [1]`, kinds: "G1c", strongest: ReadUncommitted, says: "T1 appended 1 to x, and T2 read x = [1], so T1 must come before T2"},
	{name: "a fractured read", text: `
		1: append x 1, append y 1
		2: r x [1], r y []`, kinds: "G-single", strongest: ReadCommitted, says: "T2 read y = [], which does not have the 1 that T1 appended, so T2 must come before T1"},
	{name: "a long fork", text: `
		1: append x 1
		2: append y 1
		3: r x [1], r y []
		4: r x [], r y [1]`, kinds: "G-nonadjacent", strongest: ReadCommitted},
	{name: "a write skew", text: `
		1: r x [], append y 1
		2: r y [], append x 1`, kinds: "G2-item", strongest: SnapshotIsolation},
	{name: "a write that goes unseen by one of its own process", text: `
		1 p1 @0-10: append x 1
		2 p1 @11-12: r x []`, kinds: "G-single-process", strongest: Serializable, says: "process 1 ran T1 before T2"},
	{name: "a write that goes unseen by a later one", text: `
		1 @0-10: append x 1
		2 @11-12: r x []`, kinds: "G-single-realtime", strongest: StrongSessionSerializable, says: "T1 returned before T2 was called"},
	{name: "a write that goes unseen by one at the same time", text: `
		1 @0-11: append x 1
		2 @11-12: r x []`, strongest: StrictSerializable},
	{name: "a write of unknown outcome that goes unseen later", text: `
		1 info p1 @0: append x 1
		2 p1 @11-12: r x []
		3 p1 @13-14: r x [1]`, strongest: StrictSerializable},
	{name: "a write of unknown outcome that is seen before it is called", text: `
		1 info @20: append x 1
		2 @11-12: r x [1]`, kinds: "G1c-realtime", strongest: StrongSessionSerializable},
	{name: "an acknowledged append that is gone", text: `
		1 @0-1: append x 1
		2 @2-3: append x 2
		3 @4-5: r x [2]`, kinds: "G0-realtime", strongest: StrongSessionSerializable},
	{name: "two appends in the wrong order of time", text: `
		1 @0-1: append x 1
		2 @2-3: append x 2
		3 @4-5: r x [2 1]`, kinds: "G0-realtime", strongest: StrongSessionSerializable},
	{name: "a transaction of unknown outcome that is there in part", text: `
		1 info: append x 1, append y 1
		2: r x [1], r y []`, kinds: "G-single", strongest: ReadCommitted},
	{name: "a write skew by process", text: `
		1 p1 @0-1: append x 1
		2 p1 @2-3: r y []
		3 p2 @0-1: append y 1
		4 p2 @2-3: r x []`, kinds: "G-nonadjacent-process", strongest: Serializable},
	{name: "many who append at once to what all of them read later", text: `
		1: append x 1
		2: append x 2
		3: append x 3
		4: r x []
		5: r x [2]
		6: r x [2 1 3]`, strongest: StrictSerializable},

	// Registers.
	{name: "a register that all see change", text: `
		1 @0-1: w x 1
		2 @2-3: r x 1, w x 2, r x 2
		3 @4-5: r x 2`, strongest: StrictSerializable},
	{name: "a register: an aborted read", text: `
		1 fail: w x 1
		2: r x 1`, kinds: "G1a", strongest: ReadUncommitted},
	{name: "a register: an intermediate read", text: `
		1: w x 1, w x 2
		2: r x 1`, kinds: "G1b", strongest: ReadUncommitted},
	{name: "a register: a phantom", text: `
		1: w x 1
		2: r x 9`, kinds: "phantom", strongest: 0},
	{name: "a register: a write of its own unseen", text: `
		1: w x 1, r x nil`, kinds: "internal", strongest: ReadUncommitted, says: "T1 read x as never written after it had written 1"},
	{name: "a register: a write of its own seen too early", text: `
		1: r x 1, w x 1`, kinds: "internal", strongest: ReadUncommitted},
	{name: "a register: a read that cannot be repeated", text: `
		1: w x 1
		2: w x 2
		3: r x 1, r x 2`, kinds: "non-repeatable-read", strongest: ReadCommitted},
	{name: "a register: a lost update", text: `
		1: w x 1
		2: r x 1, w x 2
		3: r x 1, w x 3`, kinds: "G2-item lost-update", strongest: ReadCommitted},
	{name: "a register: a circle of information", text: `
		1: w x 1, r y 1
		2: w y 1, r x 1`, kinds: "G1c", strongest: ReadUncommitted},
	{name: "a register: a fractured read", text: `
		1: w x 1, w y 1
		2: r x 1, r y nil`, kinds: "G-single", strongest: ReadCommitted, says: "T2 read y as never written, and T1 wrote y = 1"},
	{name: "a register: a fractured read of what was written over", text: `
		1: w x 1, w y 1
		2: r x 1, w x 2, r y 1, w y 2
		3: r x 2, r y 1`, kinds: "G-single", strongest: ReadCommitted, says: "T3 read y = 1; T2 read that too, and then wrote y = 2"},
	{name: "a register: a write skew", text: `
		1: r x nil, w y 1
		2: r y nil, w x 1`, kinds: "G2-item", strongest: SnapshotIsolation},
	{name: "a register: who read it as never written comes first, though others wrote it too", text: `
		1: r x nil, w x 1, w y 1
		2: w x 2, w y 2
		3: r x 1, r y 2`, strongest: StrictSerializable},
	{name: "a register: a write goes unseen by a later one", text: `
		1 @0-10: w x 1
		2 @11-12: r x nil`, kinds: "G-single-realtime", strongest: StrongSessionSerializable},
	{name: "a register: an old value seen again", text: `
		1 @0-1: w x 1
		2 @2-3: w x 2
		3 @4-5: r x 1`, kinds: "G-single-realtime", strongest: StrongSessionSerializable, says: "T3 read an older value of x than the 2 that T2 wrote: T1 saw it, or a later one, and had returned before T2 was called, which saw 2"},
	{name: "a register: an old value seen again, where it may be the newer", text: `
		1 @0-3: w x 1
		2 @2-3: w x 2
		3 @4-5: r x 1`, strongest: StrictSerializable},
	{name: "a register: a process sees an old value again", text: `
		1: w x 1
		2: w x 2
		3 p1 @0-1: r x 1
		4 p1 @2-3: r x 2
		5 p1 @4-5: r x 1`, kinds: "G0-process", strongest: Serializable},
	{name: "a register: processes agree on the order", text: `
		1: w x 1
		2: w x 2
		3 p1 @0-1: r x 1
		4 p1 @2-3: r x 2
		5 p2 @0-1: r x 1
		6 p2 @2-3: r x 2`, strongest: StrictSerializable},
	{name: "a register: a promise of linearizable keys makes a fractured read", text: `
		1 @0-1: w x 1, w y 1
		2 @2-3: w x 2, w y 2
		3 @2-9: r x 2, r y 1`, kinds: "G-single", strongest: ReadCommitted, options: Options{Keys: Linearizable}},
	{name: "a register: the same without the promise", text: `
		1 @0-1: w x 1, w y 1
		2 @2-3: w x 2, w y 2
		3 @2-9: r x 2, r y 1`, kinds: "G-single-realtime", strongest: StrongSessionSerializable},
	{name: "a register: a promise of linearizable keys is not kept", text: `
		1: w x 1
		2: w x 2
		3 @0-1: r x 1
		4 @2-3: r x 2
		5 @4-5: r x 1`, kinds: "cyclic-versions", strongest: StrongSessionSerializable, options: Options{Keys: Linearizable}, says: "in a circle: "},
	{name: "a register: a promise of linearizable keys is not kept, by one that is there and gone", text: `
		1 @0-1: w x 1
		2 @4-5: r x nil`, kinds: "G-single-realtime cyclic-versions", strongest: StrongSessionSerializable, options: Options{Keys: Linearizable}, says: "T1 saw it written, and then T2 as never written"},
	{name: "a register: a promise of sequential keys is not kept", text: `
		1: w x 1
		3 p1 @0-1: r x 1
		5 p1 @4-5: r x nil`, kinds: "G-single-process cyclic-versions", strongest: Serializable, options: Options{Keys: Sequential}},
}

func TestEachAnomalyIsFoundAndNothingElse(t *testing.T) {
	for _, story := range stories {
		t.Run(story.name, func(t *testing.T) {
			result := Check(parse(t, story.text), story.options)
			texts := ""
			for _, a := range result.Anomalies {
				texts += a.Text + "\n"
			}
			if got := kindsOf(result); got != story.kinds || result.Strongest != story.strongest || !strings.Contains(texts, story.says) {
				t.Errorf("found %q, the strongest model left is %v; want %q, %v and the text %q\n%s", got, result.Strongest, story.kinds, story.strongest, story.says, texts)
			}
			if want := map[bool]Verdict{true: Valid, false: Invalid}[story.strongest == StrictSerializable]; result.Verdict != want || result.Reason != "" {
				t.Errorf("the verdict is %v, %q, not %v", result.Verdict, result.Reason, want)
			}
		})
	}
}

func TestTheVerdictIsThatOnTheModelAskedFor(t *testing.T) {
	skew := parse(t, "1: r x [], append y 1\n 2: r y [], append x 1")
	for m := ReadUncommitted; m <= StrictSerializable; m++ {
		want := Valid
		if m >= Serializable {
			want = Invalid
		}
		if result := Check(skew, Options{Model: m}); result.Verdict != want {
			t.Errorf("a write skew, asked for %v: %v", m, result.Verdict)
		}
	}
}

func TestAKeyWhoseValuesRepeatIsLeftOutAndTheRestIsChecked(t *testing.T) {
	repeats := "1: append x 1\n 2: append x 1\n 3: r x [1 1]\n"
	result := Check(parse(t, repeats), Options{})
	if result.Verdict != Unknown || len(result.Unchecked) != 1 || !strings.Contains(result.Reason, "T1 and T2 both wrote 1") {
		t.Errorf("%+v", result)
	}
	result = Check(parse(t, repeats+"4 fail: append y 1\n 5: r y [1]"), Options{})
	if result.Verdict != Invalid || kindsOf(result) != "G1a" {
		t.Errorf("%+v", result)
	}
}

func TestWhatCannotBeUnderstoodIsUnknown(t *testing.T) {
	for name, test := range map[string]struct {
		txns    []Txn
		options Options
		want    string
	}{
		"a list and a register":   {txns: parse(t, "1: append x 1, w x 2"), want: "key x is a list and a register"},
		"a step that is none":     {txns: parse(t, "1: pop x 1"), want: `T1 has the micro-operation "pop"`},
		"a type that is none":     {txns: []Txn{{ID: 3, Type: 7}}, want: "T3 is of type 7"},
		"a return before a call":  {txns: parse(t, "1 @5-4: append x 1"), want: "T1 returned at 4, before it was called at 5"},
		"a model that is none":    {options: Options{Model: 77}, want: "the model asked for is Model(77)"},
		"a limit on memory":       {txns: parse(t, "1: append x 1"), options: Options{Limit: Limit{Memory: 1}}, want: "memory limit"},
		"a limit on memory, late": {txns: parse(t, "1 @0-1: append x 1\n 2 @2-3: r x [1]"), options: Options{Limit: Limit{Memory: 3*bytesPerMicro + bytesPerKey}}, want: "memory limit"},
	} {
		t.Run(name, func(t *testing.T) {
			if result := Check(test.txns, test.options); result.Verdict != Unknown || !strings.Contains(result.Reason, test.want) {
				t.Errorf("%v, %q, want %q", result.Verdict, result.Reason, test.want)
			}
		})
	}
}

func TestOnlySoManyAnomaliesAreExplainedButAllAreCounted(t *testing.T) {
	text := "1 fail: append x 1\n"
	for range 30 {
		text += "2: r x [1]\n"
	}
	result := Check(parse(t, text), Options{Keep: 4})
	if len(result.Anomalies) != 4 || result.Counts[G1a] != 30 {
		t.Errorf("%d explained, %v", len(result.Anomalies), result.Counts)
	}
}

func TestAResultSurvivesJSON(t *testing.T) {
	result := Check(parse(t, "1 @0-10: append x 1\n 2 @11-12: r x []"), Options{})
	text, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	var back Result
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, result) {
		t.Errorf("%s\ncame back as %+v", text, back)
	}
	for _, wrong := range []string{`{"verdict":"maybe"}`, `{"strongest":"eventual"}`} {
		if err := json.Unmarshal([]byte(wrong), &back); err == nil {
			t.Errorf("%s is taken", wrong)
		}
	}
}
