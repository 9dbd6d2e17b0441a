package histories

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

var alike = cmp.Options{cmp.Comparer(Value.Equal), cmpopts.EquateEmpty()}

func drawValue(t *rapid.T) Value {
	text := rapid.OneOf(rapid.StringMatching(`[a-z0-9]{0,4}`), rapid.String())
	if rapid.IntRange(0, 3).Draw(t, "nested") > 0 {
		return drawPlain(t)
	}
	return Micros(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Micro {
		return Micro{F: text.Draw(t, "f"), Key: text.Draw(t, "key"), Value: drawPlain(t), Revision: rapid.Int64Range(-3, 3).Draw(t, "revision")}
	}), 0, 4).Draw(t, "micros")...)
}

func drawPlain(t *rapid.T) Value {
	switch rapid.IntRange(0, 2).Draw(t, "kind") {
	case 0:
		return Nil
	case 1:
		return Int(rapid.Int64().Draw(t, "n"))
	default:
		return Ints(rapid.SliceOfN(rapid.Int64(), 0, 4).Draw(t, "list")...)
	}
}

func drawEvent(t *rapid.T) Event {
	text := rapid.OneOf(rapid.StringMatching(`[a-z0-9]{0,4}`), rapid.String())
	e := Event{
		Index: rapid.IntRange(0, 1<<40).Draw(t, "index"), Time: time.Duration(rapid.Int64Min(0).Draw(t, "time")),
		Process: rapid.IntRange(Observer, 1000).Draw(t, "process"), Type: Type(rapid.IntRange(0, 3).Draw(t, "type")),
		F: text.Draw(t, "f"), Key: text.Draw(t, "key"), Value: drawValue(t), Node: text.Draw(t, "node"),
		Error: text.Draw(t, "error"), Attempts: rapid.IntRange(-1, 3).Draw(t, "attempts"), Final: rapid.Bool().Draw(t, "final"),
		Revision: rapid.Int64().Draw(t, "revision"), Stale: rapid.Bool().Draw(t, "stale"), Refused: rapid.Bool().Draw(t, "refused"),
	}
	if rapid.Bool().Draw(t, "has fault") {
		e.Fault = &Fault{
			ID: rapid.IntRange(0, 99).Draw(t, "id"), Name: text.Draw(t, "name"), Phase: Phase(text.Draw(t, "phase")),
			Took: time.Duration(rapid.Int64Min(0).Draw(t, "took")), Target: text.Draw(t, "target"),
			Nodes: rapid.SliceOf(text).Draw(t, "nodes"), Detail: text.Draw(t, "detail"), Proof: rapid.SliceOf(text).Draw(t, "proof"),
			Params: rapid.MapOf(text, text).Draw(t, "params"), Leader: text.Draw(t, "leader"), Side: text.Draw(t, "side"), Beyond: text.Draw(t, "beyond"),
			MayEnd: rapid.Bool().Draw(t, "may end"),
		}
	}
	if rapid.Bool().Draw(t, "has status") {
		n := rapid.Uint64()
		e.Status = &Status{
			Up: rapid.Bool().Draw(t, "up"), ID: n.Draw(t, "id"), Term: n.Draw(t, "term"), Role: text.Draw(t, "role"),
			Leader: text.Draw(t, "leader"), Commit: n.Draw(t, "commit"), Applied: n.Draw(t, "applied"),
		}
	}
	return e
}

func TestEventsSurviveTheirLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawEvent(t)
		line := want.AppendJSON(nil)
		var got Event
		if err := newDecoder().event(line, &got); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if diff := cmp.Diff(want, got, alike); diff != "" {
			t.Fatalf("%s: %s", line, diff)
		}
		var slow Event
		if err := json.Unmarshal(line, &slow); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if diff := cmp.Diff(want, slow, alike); diff != "" {
			t.Fatalf("%s by encoding/json: %s", line, diff)
		}
	})
}

func TestOperationsSurviveJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Operation{
			Process: rapid.IntRange(0, 99).Draw(t, "process"), F: "write", Key: "k1", Node: "n1", Input: drawValue(t), Output: drawValue(t),
			Type: Type(rapid.IntRange(1, 3).Draw(t, "type")), Call: 5, Return: rapid.SampledFrom([]time.Duration{0, 7, Forever}).Draw(t, "return"),
			Error: rapid.String().Draw(t, "error"), Attempts: 2, Final: rapid.Bool().Draw(t, "final"), Invoked: 1, Returned: -1,
		}
		data, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got Operation
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if diff := cmp.Diff(want, got, alike); diff != "" {
			t.Fatalf("%s: %s", data, diff)
		}
	})
}

func TestTheFormatIsAsDocumented(t *testing.T) {
	e := Event{Time: 1234, Process: 3, F: "write", Key: "k3", Value: Int(17), Node: "n2"}
	want := `{"index":0,"time":1234,"process":3,"type":"invoke","f":"write","key":"k3","value":17,"node":"n2"}`
	if got := string(e.AppendJSON(nil)); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	e = Event{Index: 7, Process: Nemesis, Type: Info, F: "pause", Error: `odd "text"`, Fault: &Fault{ID: 1, Name: "pause", Phase: Missed, Nodes: []string{"n1", "n2"}}}
	want = `{"index":7,"time":0,"process":"nemesis","type":"info","f":"pause","error":"odd \"text\"","fault":{"id":1,"name":"pause","phase":"missed","nodes":["n1","n2"]}}`
	if got := string(e.AppendJSON(nil)); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	h := Header{Run: "r1", Started: time.Date(2026, 1, 2, 15, 4, 5, 6, time.UTC)}
	want = `{"capsize":"history","version":1,"run":"r1","started":"2026-01-02T15:04:05.000000006Z"}`
	if got := string(appendHeader(nil, h)); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestEncodingAllocatesNothing(t *testing.T) {
	e := Event{Index: 123456, Time: time.Minute, Process: 3, Type: Info, F: "cas", Key: "k3", Value: Ints(17, 18), Node: "n2", Error: "timed out"}
	buffer := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { buffer = e.AppendJSON(buffer[:0]) }); n != 0 {
		t.Errorf("%g allocations for an event", n)
	}
}

func FuzzEvent(f *testing.F) {
	for _, e := range []Event{
		{}, {Process: Nemesis, Type: Info, F: "kill", Fault: &Fault{ID: 1}}, {Process: Observer, Type: Info, Status: &Status{Up: true}},
		{Index: 1, Process: 3, Type: OK, F: "cas", Key: "k", Value: Ints(1, -2), Node: "n1", Error: "é\n", Attempts: 2, Final: true},
	} {
		f.Add(e.AppendJSON(nil))
	}
	f.Add([]byte(`{"index":0,"time":1,"process":0,"type":"ok","f":"txn","value":[["r","x",[1,2],7],["append","y",3],["r","z",null]],"revision":7}`))
	f.Add([]byte(`{"index":0,"time":1,"process":0,"type":"ok","f":"txn","value":[["r","x",[["w","y",1]]]]}`))
	f.Add([]byte(`{"index":-0,"time":01,"process":-1,"type":"ok","f":""}`))
	f.Add([]byte(`{"index":0,"time":999999999999999999999,"process":0,"type":"ok","f":"","value":[1,]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var fast, slow Event
		if !newDecoder().canonical(line, &fast) {
			return
		}
		if err := decodeEvent(line, &slow); err != nil {
			t.Fatalf("%q: read by hand, refused by encoding/json: %v", line, err)
		}
		if diff := cmp.Diff(slow, fast, alike); diff != "" {
			t.Fatalf("%q: encoding/json and by hand: %s", line, diff)
		}
	})
}

func goodEvents() []Event {
	return []Event{
		{Process: 0, F: "write", Key: "k", Value: Int(1), Node: "n1"},
		{Process: 1, F: "read", Key: "k", Node: "n2"},
		{Process: Observer, Type: Info, F: "status", Node: "n1", Status: &Status{Up: true, Role: "leader", Term: 2}},
		{Process: 0, Type: OK, F: "write", Key: "k", Value: Int(1), Node: "n1"},
		{Process: Nemesis, Type: Info, F: "pause", Fault: &Fault{ID: 1, Name: "pause", Phase: Landed, Nodes: []string{"n1"}}},
		{Process: 1, Type: Info, F: "read", Key: "k", Node: "n2", Error: "timed out"},
		{Process: 0, F: "cas", Key: "k", Value: Ints(1, 2), Node: "n1"},
		{Process: 0, Type: Fail, F: "cas", Key: "k", Value: Ints(1, 2), Node: "n1", Error: "mismatch"},
		{Process: 0, F: "read", Key: "k", Node: "n1", Final: true},
	}
}

// numbered gives events their indices and times.
func numbered(events ...Event) []Event {
	for i := range events {
		events[i].Index, events[i].Time = i, time.Duration(i)*time.Millisecond
	}
	return events
}

func fileOf(events ...Event) string {
	b := append(appendHeader(nil, Header{Run: "r", Started: time.Unix(0, 0).UTC()}), '\n')
	for i, e := range events {
		e.Index, e.Time = i, max(e.Time, time.Duration(i))
		b = append(e.AppendJSON(b), '\n')
	}
	return string(b)
}

func TestOperationsPairInvokesAndCompletions(t *testing.T) {
	got := Operations(numbered(goodEvents()...))
	want := []Operation{
		{Process: 0, F: "write", Key: "k", Node: "n1", Input: Int(1), Output: Int(1), Type: OK, Call: 0, Return: 3 * time.Millisecond, Invoked: 0, Returned: 3},
		{Process: 1, F: "read", Key: "k", Node: "n2", Type: Info, Call: time.Millisecond, Return: Forever, Error: "timed out", Invoked: 1, Returned: 5},
		{Process: 0, F: "cas", Key: "k", Node: "n1", Input: Ints(1, 2), Type: Fail, Call: 6 * time.Millisecond, Return: 7 * time.Millisecond, Error: "mismatch", Invoked: 6, Returned: 7},
		{Process: 0, F: "read", Key: "k", Node: "n1", Type: Info, Call: 8 * time.Millisecond, Return: Forever, Final: true, Invoked: 8, Returned: -1},
	}
	if diff := cmp.Diff(want, got, alike); diff != "" {
		t.Error(diff)
	}
}

func TestValidateNamesWhatBreaksAHistory(t *testing.T) {
	if err := Validate(numbered(goodEvents()...)); err != nil {
		t.Fatalf("a good history: %v", err)
	}
	for name, test := range map[string]struct {
		spoil func(events []Event) []Event
		at    int
		says  string
	}{
		"an index gap":                    {func(e []Event) []Event { e[4].Index = 5; return e }, 4, "index must be 4"},
		"a lost event":                    {func(e []Event) []Event { return append(e[:2:2], e[3:]...) }, 2, "index must be 2"},
		"time goes back":                  {func(e []Event) []Event { e[4].Time = 1; return e }, 4, "time goes back"},
		"a time before the start":         {func(e []Event) []Event { e[0].Time = -1; return e }, 0, "before the start"},
		"a completion without an invoke":  {func(e []Event) []Event { e[1].Type = OK; return e }, 1, "without an invoke"},
		"a second completion":             {func(e []Event) []Event { e[6] = e[3]; e[6].Index, e[6].Time = 6, e[5].Time; return e }, 6, "without an invoke"},
		"an invoke in an open operation":  {func(e []Event) []Event { e[1].Process = 0; return e }, 1, "no completion yet"},
		"a process used after an info":    {func(e []Event) []Event { e[8].Process = 1; return e }, 8, "must not be used again"},
		"a completion of something else":  {func(e []Event) []Event { e[3].Key = "other"; return e }, 3, `"other"`},
		"a nemesis event that is invoked": {func(e []Event) []Event { e[4].Type = Invoke; return e }, 4, "must be info"},
		"a type without a name":           {func(e []Event) []Event { e[3].Type = 4; return e }, 3, "no such type"},
		"an unknown process":              {func(e []Event) []Event { e[4].Process = -7; return e }, 4, "no such process"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Validate(test.spoil(numbered(goodEvents()...)))
			var invalid *InvalidError
			if !errors.As(err, &invalid) || invalid.Position != test.at || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v: want event %d and %q", err, test.at, test.says)
			}
		})
	}
}

func TestReadingAFile(t *testing.T) {
	whole := fileOf(goodEvents()...)
	lines := strings.SplitAfter(whole, "\n")
	for name, test := range map[string]struct {
		data      string
		events    int
		truncated string // part of it
		err       string // part of it
	}{
		"whole":                        {data: whole, events: 9},
		"without events":               {data: lines[0]},
		"with spaces and new fields":   {data: lines[0] + `{"new":[1], "f":"read","type":"invoke" ,"process":1,"time":5,"index":0}` + "\n", events: 1},
		"without the last newline":     {data: strings.TrimSuffix(whole, "\n"), events: 8, truncated: "line 10 at byte"},
		"half a last line":             {data: whole[:len(whole)-20], events: 8, truncated: "line 10 at byte"},
		"a last line of rubbish":       {data: whole + "\x00\x00\x00\n", events: 9, truncated: "line 11 at byte"},
		"a corrupt line in the middle": {data: strings.Join(lines[:3], "") + `{"index":2,` + "\n" + strings.Join(lines[4:], ""), err: "line 4 at byte"},
		"a line is missing":            {data: strings.Join(lines[:3], "") + strings.Join(lines[4:], ""), err: "line 4: event 3"},
		"empty":                        {data: "", err: "empty"},
		"cut in the header":            {data: lines[0][:20], err: "first line is cut off"},
		"another file":                 {data: "hello\n", err: "not a Capsize history"},
		"another JSON":                 {data: "{}\n", err: "not a Capsize history"},
		"a later version":              {data: strings.Replace(whole, `"version":1`, `"version":2`, 1), err: "version 2"},
		"an event without a type":      {data: lines[0] + `{"index":0,"time":1,"process":1,"f":"read"}` + "\n" + lines[1], err: `without "type"`},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "history.jsonl")
			if err := os.WriteFile(path, []byte(test.data), 0o600); err != nil {
				t.Fatal(err)
			}
			h, err := ReadFile(path)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || !strings.Contains(err.Error(), path) {
					t.Fatalf("%v: want %q and the file's name", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(h.Events) != test.events || h.Header.Run != "r" {
				t.Errorf("%d events of run %q, want %d", len(h.Events), h.Header.Run, test.events)
			}
			if (h.Truncated == "") != (test.truncated == "") || !strings.Contains(h.Truncated, test.truncated) {
				t.Errorf("truncated %q, want %q", h.Truncated, test.truncated)
			}
		})
	}
	if _, err := ReadFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestLinesLongerThanTheBufferAreRead(t *testing.T) {
	events := goodEvents()
	events[5].Error = strings.Repeat("x", 3<<20)
	h, err := Read(strings.NewReader(fileOf(events...)))
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Events) != 9 || h.Events[5].Error != events[5].Error {
		t.Errorf("%d events, an error of %d bytes", len(h.Events), len(h.Events[5].Error))
	}
}

func TestOutcomes(t *testing.T) {
	cause := errors.New("refused")
	for _, test := range []struct {
		err  error
		want Type
	}{{nil, OK}, {cause, Info}, {Definite(cause), Fail}, {errors.Join(errors.New("put k"), Definite(cause)), Fail}, {Definite(nil), OK}} {
		if got := Outcome(test.err); got != test.want {
			t.Errorf("%v: %s, want %s", test.err, got, test.want)
		}
	}
	if !errors.Is(Definite(cause), cause) {
		t.Error("the cause is lost")
	}
}

func BenchmarkRead(b *testing.B) {
	const events = 100_000
	data := registerLines(events)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(strings.NewReader(data)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(events*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
