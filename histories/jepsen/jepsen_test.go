package jepsen

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"capsize/histories"
)

func TestAHistoryOfJepsenIsRead(t *testing.T) {
	const text = `[{:type :invoke, :f :read, :value [:x nil], :process 0, :time 5, :index 0}
 {:type :info, :f :start-partition, :value "n1", :process :nemesis, :time 6}
 {:type :invoke, :f :cas, :value [:x [1 2]], :process 1, :time 7, :index 1}
 {:type :ok, :f :read, :value [:x 3], :process 0, :time 8}
 {:type :fail, :f :cas, :value [:x [1 2]], :process 1, :time 9, :error :did-not-match}]`
	want := []histories.Event{
		{Process: 0, Type: histories.Invoke, F: "read", Key: "x", Time: 5},
		{Index: 1, Process: histories.Nemesis, Type: histories.Info, F: "start-partition", Time: 6},
		{Index: 2, Process: 1, Type: histories.Invoke, F: "cas", Key: "x", Value: histories.Ints(1, 2), Time: 7},
		{Index: 3, Process: 0, Type: histories.OK, F: "read", Key: "x", Value: histories.Int(3), Time: 8},
		{Index: 4, Process: 1, Type: histories.Fail, F: "cas", Key: "x", Value: histories.Ints(1, 2), Time: 9, Error: "did-not-match"},
	}
	for name, text := range map[string]string{"one vector": text, "one after the other": strings.Trim(text, "[]")} {
		got, err := Read(strings.NewReader(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(histories.Value.Equal)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

func TestWhatWeWriteIsReadAgain(t *testing.T) {
	micros := histories.Micros(histories.Micro{F: "append", Key: "x", Value: histories.Int(4)}, histories.Micro{F: "r", Key: "y", Value: histories.Ints(1, 2), Revision: 9}, histories.Micro{F: "r", Key: "z"})
	for name, events := range map[string][]histories.Event{
		"without keys": {
			{F: "add", Value: histories.Int(1), Node: "n1"},
			{Index: 1, F: "add", Value: histories.Int(1), Node: "n1", Type: histories.OK, Revision: 5, Time: time.Second},
			{Index: 2, F: "read", Final: true, Time: time.Second},
			{Index: 3, F: "read", Final: true, Value: histories.Ints(1), Type: histories.OK, Time: 2 * time.Second},
		},
		"with keys": {
			{F: "cas", Key: "a b", Value: histories.Ints(1, 2), Process: 7, Stale: true},
			{Index: 1, F: "cas", Key: "a b", Value: histories.Nil, Process: 7, Type: histories.Fail, Refused: true, Error: `it "holds" nothing`},
			{Index: 2, F: "read", Key: "c", Process: 8},
			{Index: 3, F: "read", Key: "c", Process: 8, Type: histories.Info, Error: "time-out"},
		},
		"transactions": {{F: "txn", Value: micros}, {Index: 1, F: "txn", Value: micros, Type: histories.OK}},
	} {
		var text bytes.Buffer
		if err := Write(&text, events); err != nil {
			t.Fatal(err)
		}
		got, err := Read(&text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(events, got, cmp.Comparer(histories.Value.Equal)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

func TestWhatIsNoHistoryIsNamedWithItsLine(t *testing.T) {
	const good = "{:type :invoke, :f :read, :value nil, :process 0}\n"
	for text, says := range map[string]string{
		good + "7": "line 2: integer where an operation should be",
		good + "{:type :began, :f :read, :process 0}":              "line 2: :type :began: want :invoke",
		good + "{:type :ok, :process 0}":                           "line 2: :f nil",
		good + "{:type :ok, :f :read, :process :someone}":          "line 2: :process :someone",
		good + "{:type :ok, :f :read, :process 0, :value \"x\"}":   "line 2: :value of :read",
		good + "{:type :ok, :f :read, :process 0, :value [1 :a]}":  "want integers",
		good + "{:type :ok, :f :txn, :process 0, :value [[:r 1]]}": "want [f key value]",
		good + good: "event 1",
		"{:type :invoke, :f :read, :value [1 nil], :process 0}\n{:type :ok, :f :read, :value 3, :process 0}": "want [key value]",
		"[" + good: "",
	} {
		if _, err := Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`[{:type :invoke, :f :read, :value [:x nil], :process 0}]`))
	f.Add([]byte(`{:type :invoke, :f :txn, :value [[:append 1 2] [:r 1 nil]], :process 0} {:type :ok, :f :txn, :value [[:append 1 2] [:r 1 [2]]], :process 0}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		events, err := Read(bytes.NewReader(data))
		if err != nil {
			return
		}
		var text bytes.Buffer
		if err := Write(&text, events); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(&text); err != nil {
			t.Fatalf("what was read cannot be written and read again: %v\n%s", err, data)
		}
	})
}
