package trace

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var names = Names{1: "n1", 2: "n2", 3: "n3"}

var three = Conf{Voters: []uint64{1, 2, 3}}

var all = []Event{
	{Kind: Boot, T: 2, Node: 3, Commit: 4, Applied: 1, Last: 5, LastTerm: 2, Hash: 0xabc, Snap: 1, SnapTerm: 1, Conf: three},
	{Kind: Term, T: 3},
	{Kind: Campaign, T: 3},
	{Kind: VotePersist, T: 3, Node: 2},
	{Kind: VoteSend, T: 3, Node: 2, Granted: true, Last: 5, LastTerm: 2},
	{Kind: Leader, T: 3, Last: 5, LastTerm: 2, Hash: 0xabc, Conf: three, Voters: []uint64{1, 3}},
	{Kind: StepDown, T: 3},
	{Kind: Append, I: 6, T: 3, Hash: 1 << 63},
	{Kind: ConfAppend, I: 6, Conf: three, New: &Conf{Voters: []uint64{1, 2, 4}, Outgoing: []uint64{1, 2, 3}, Learners: []uint64{5}, Next: []uint64{3}, Auto: true}},
	{Kind: ConfAppend, I: 6, Conf: three},
	{Kind: Truncate, I: 6},
	{Kind: Persist, Last: 6, LastTerm: 3, T: 3, Node: 0, Commit: 5},
	{Kind: AckSend, Node: 2, T: 3, I: 6},
	{Kind: Commit, I: 6, Role: "leader", T: 3},
	{Kind: Apply, I: 6, T: 3, Hash: 7, Digest: 8},
	{Kind: ConfApply, I: 6, Conf: Conf{Voters: []uint64{1}, Learners: []uint64{2}}},
	{Kind: SnapTake, I: 6, T: 3, Hash: 7, Digest: 8, Conf: three},
	{Kind: SnapInstall, I: 9, T: 3, Hash: 7, Digest: 8, Conf: three},
	{Kind: Compact, I: 4},
	{Kind: Progress, T: 3, Node: 2, Last: 5, Next: 7},
	{Kind: ReadStart, ID: 1},
	{Kind: ReadIndex, ID: 1, I: 6},
	{Kind: ReadServe, ID: 1, Applied: 6},
}

const wanted = `{"seq":1,"time":5,"inc":9,"node":"n1","ev":"boot","t":2,"vote":"n3","commit":4,"applied":1,"last":5,"lastTerm":2,"h":"0000000000000abc","snapIdx":1,"snapTerm":1,"conf":{"voters":["n1","n2","n3"]}}
{"seq":2,"time":5,"inc":9,"node":"n1","ev":"term","t":3}
{"seq":3,"time":5,"inc":9,"node":"n1","ev":"campaign","t":3}
{"seq":4,"time":5,"inc":9,"node":"n1","ev":"votePersist","t":3,"cand":"n2"}
{"seq":5,"time":5,"inc":9,"node":"n1","ev":"voteSend","t":3,"to":"n2","granted":true,"candLast":{"t":2,"i":5}}
{"seq":6,"time":5,"inc":9,"node":"n1","ev":"leader","t":3,"last":5,"lastTerm":2,"h":"0000000000000abc","conf":{"voters":["n1","n2","n3"]},"voters":["n1","n3"]}
{"seq":7,"time":5,"inc":9,"node":"n1","ev":"stepDown","t":3}
{"seq":8,"time":5,"inc":9,"node":"n1","ev":"append","i":6,"t":3,"h":"8000000000000000"}
{"seq":9,"time":5,"inc":9,"node":"n1","ev":"confAppend","i":6,"old":{"voters":["n1","n2","n3"]},"new":{"voters":["n1","n2","#4"],"outgoing":["n1","n2","n3"],"learners":["#5"],"next":["n3"],"auto":true}}
{"seq":10,"time":5,"inc":9,"node":"n1","ev":"confAppend","i":6,"old":{"voters":["n1","n2","n3"]}}
{"seq":11,"time":5,"inc":9,"node":"n1","ev":"truncate","from":6}
{"seq":12,"time":5,"inc":9,"node":"n1","ev":"persist","uptoIdx":6,"uptoTerm":3,"t":3,"vote":"","commit":5}
{"seq":13,"time":5,"inc":9,"node":"n1","ev":"ackSend","to":"n2","t":3,"i":6}
{"seq":14,"time":5,"inc":9,"node":"n1","ev":"commit","i":6,"role":"leader","t":3}
{"seq":15,"time":5,"inc":9,"node":"n1","ev":"apply","i":6,"t":3,"h":"0000000000000007","digest":"0000000000000008"}
{"seq":16,"time":5,"inc":9,"node":"n1","ev":"confApply","i":6,"conf":{"voters":["n1"],"learners":["n2"]}}
{"seq":17,"time":5,"inc":9,"node":"n1","ev":"snapTake","i":6,"t":3,"h":"0000000000000007","digest":"0000000000000008","conf":{"voters":["n1","n2","n3"]}}
{"seq":18,"time":5,"inc":9,"node":"n1","ev":"snapInstall","i":9,"t":3,"h":"0000000000000007","digest":"0000000000000008","conf":{"voters":["n1","n2","n3"]}}
{"seq":19,"time":5,"inc":9,"node":"n1","ev":"compact","i":4}
{"seq":20,"time":5,"inc":9,"node":"n1","ev":"progress","t":3,"peer":"n2","match":5,"next":7}
{"seq":21,"time":5,"inc":9,"node":"n1","ev":"readStart","id":1}
{"seq":22,"time":5,"inc":9,"node":"n1","ev":"readIndex","id":1,"i":6}
{"seq":23,"time":5,"inc":9,"node":"n1","ev":"readServe","id":1,"applied":6}
`

func TestEachEventIsOneLineOfJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.jsonl")
	w, _, err := Open(path, 1, 9, names)
	if err != nil {
		t.Fatal(err)
	}
	w.now = func() time.Time { return time.Unix(0, 5) }
	for _, batch := range [][]Event{all[:4], nil, all[4:]} {
		if err := w.Write(batch); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != wanted {
		t.Errorf("got\n%swant\n%s", got, wanted)
	}
	for i, line := range bytes.Split(bytes.TrimSpace(got), []byte("\n")) {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Errorf("line %d: %v", i+1, err)
		}
		if fields["ev"] != all[i].Kind.String() {
			t.Errorf("line %d: %v", i+1, fields["ev"])
		}
	}
}

func TestHalfALineOfAKilledProcessIsCutOff(t *testing.T) {
	long := strings.Repeat("x", 200<<10)
	for _, c := range []struct{ before, after string }{
		{"", ""},
		{"whole\n", "whole\n"},
		{"whole\nhal", "whole\n"},
		{"hal", ""},
		{"whole\n" + long, "whole\n"},
		{long + "\nhal", long + "\n"},
		{long, ""},
	} {
		path := filepath.Join(t.TempDir(), "trace.jsonl")
		if err := os.WriteFile(path, []byte(c.before), 0o644); err != nil {
			t.Fatal(err)
		}
		w, repaired, err := Open(path, 1, 2, names)
		if err != nil {
			t.Fatal(err)
		}
		if want := int64(len(c.before) - len(c.after)); repaired != want {
			t.Errorf("%d bytes: cut %d, want %d", len(c.before), repaired, want)
		}
		w.now = func() time.Time { return time.Unix(0, 5) }
		if err := w.Write([]Event{{Kind: Term, T: 1}}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if want := c.after + `{"seq":1,"time":5,"inc":2,"node":"n1","ev":"term","t":1}` + "\n"; string(got) != want {
			t.Errorf("%d bytes became %d, want %d", len(c.before), len(got), len(want))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAfterAFailedWriteNothingMoreIsWritten(t *testing.T) {
	w, _, err := Open(filepath.Join(t.TempDir(), "trace.jsonl"), 1, 1, names)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	first := w.Write(all)
	if first == nil {
		t.Fatal("a write to a closed file succeeds")
	}
	if again := w.Write(all); again != first {
		t.Errorf("first %v, then %v", first, again)
	}
}

func TestTheChainTellsLogsApart(t *testing.T) {
	seen := map[uint64]string{}
	for what, h := range map[string]uint64{
		"empty":        Chain(0, 1, nil),
		"term":         Chain(0, 2, nil),
		"data":         Chain(0, 1, []byte("x")),
		"before":       Chain(1, 1, nil),
		"zero byte":    Chain(0, 1, []byte{0}),
		"second entry": Chain(Chain(0, 1, nil), 1, nil),
	} {
		if other, twice := seen[h]; twice {
			t.Errorf("%s and %s have the same hash", what, other)
		}
		seen[h] = what
	}
}

func BenchmarkWrite(b *testing.B) {
	w, _, err := Open(filepath.Join(b.TempDir(), "trace.jsonl"), 1, 1, names)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Write(all); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}
