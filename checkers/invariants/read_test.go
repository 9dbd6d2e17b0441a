package invariants

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const goodLine = `{"seq":2,"time":5,"inc":1,"node":"n1","ev":"commit","i":4,"role":"leader","t":3}`

func TestALineIsDecodedFieldByField(t *testing.T) {
	for line, want := range map[string]Event{
		goodLine: {Seq: 2, Time: 5, Incarnation: 1, Node: "n1", Kind: Commit, Index: 4, Role: "leader", Term: 3},
		`{"seq":1,"time":5,"inc":2,"node":"n1","ev":"boot","t":3,"vote":"n2","commit":1,"applied":1,"last":4,"lastTerm":3,"h":"00000000000000ff","snapIdx":1,"snapTerm":1,"conf":{"voters":["n2","n1"],"outgoing":["n3"],"learners":["n4"],"next":["n3"],"auto":true}}`: {
			Seq: 1, Time: 5, Incarnation: 2, Node: "n1", Kind: Boot, Term: 3, Vote: "n2", Commit: 1, Applied: 1, Last: 4, LastTerm: 3, Hash: 255, SnapIndex: 1, SnapTerm: 1,
			Conf: &Conf{Voters: []string{"n1", "n2"}, Outgoing: []string{"n3"}, Learners: []string{"n4"}, Next: []string{"n3"}, AutoLeave: true},
		},
		`{"seq":3,"inc":1,"node":"n1","ev":"voteSend","t":3,"to":"n2","granted":true,"candLast":{"t":1,"i":7},"colour":"red"}`: {
			Seq: 3, Incarnation: 1, Node: "n1", Kind: VoteSend, Term: 3, To: "n2", Granted: true, CandLast: Position{1, 7},
		},
		`{"seq":3,"inc":1,"node":"n1","ev":"dance"}`: {Seq: 3, Incarnation: 1, Node: "n1", Kind: Other},
	} {
		if e, err := Decode([]byte(line)); err != nil || !reflect.DeepEqual(e, want) {
			t.Errorf("%s:\n%+v, %v", line, e, err)
		}
	}
}

func TestGarbageIsRefusedWithItsPosition(t *testing.T) {
	for line, says := range map[string]string{
		goodLine[:30]:                                                      "unexpected end",
		strings.Replace(goodLine, ":4", "4", 1):                            "at byte 56",
		strings.Replace(goodLine, ":4", `:"4"`, 1):                         "at byte",
		strings.Replace(goodLine, ":4", ":-4", 1):                          "at byte",
		strings.Replace(goodLine, `"i":4,`, "", 1):                         "commit without i",
		strings.Replace(goodLine, `"role":"leader",`, "", 1):               "commit without role",
		strings.Replace(goodLine, `,"t":3`, "", 1):                         "commit without t",
		strings.Replace(goodLine, `"node":"n1",`, "", 1):                   "without node",
		strings.Replace(goodLine, `"seq":2,`, "", 1):                       "without seq",
		strings.Replace(goodLine, `"inc":1,`, "", 1):                       "without inc",
		`{"seq":2,"inc":1,"node":"n1","ev":"append","i":1,"t":1,"h":"ff"}`: `"ff" is not a hash of 16 hexadecimal digits`,
		`{"seq":2,"inc":1,"node":"n1","ev":"append","i":1,"t":1}`:          "append without h",
		`{"seq":2,"inc":1,"node":"n1","ev":"truncate"}`:                    "truncate without from",
		`{"seq":2,"inc":1,"node":"n1","ev":"ackSend","i":1,"t":1}`:         "ackSend without to",
		`{"seq":2,"inc":1,"node":"n1","ev":"votePersist","t":1}`:           "votePersist without cand",
		`{"seq":2,"inc":1,"node":"n1","ev":"progress","t":1}`:              "progress without peer",
		`{"seq":2,"inc":1,"node":"n1","ev":"confApply","i":1}`:             "confApply without conf",
		`{"seq":2,"inc":1,"node":"n1","ev":"boot","conf":["n1"]}`:          "at byte",
		`{"seq":2,"inc":1,"node":"n1","ev":7}`:                             "at byte",
		`[]`:                                                               "at byte",
		``:                                                                 "unexpected end",
	} {
		if _, err := Decode([]byte(line)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", line, err, says)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(goodLine))
	for _, script := range stories {
		for _, e := range parse(f, script) {
			line, err := json.Marshal(e)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(line)
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := Decode(line)
		if err != nil {
			return
		}
		again, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == Append && e.Hash == 0 {
			t.Error("an entry without a hash")
		}
		if back, err := Decode(again); err != nil || back.String() != e.String() {
			t.Errorf("%s\nbecame %s\n%v", line, again, err)
		}
	})
}

func TestReadGivesEveryLineOfANode(t *testing.T) {
	first := strings.Replace(goodLine, `"seq":2`, `"seq":1`, 1)
	for name, test := range map[string]struct {
		content string
		events  int
		says    string
	}{
		"whole":                          {first + "\n" + goodLine + "\n", 2, ""},
		"empty":                          {"", 0, ""},
		"empty lines":                    {first + "\n\n" + goodLine + "\n", 2, ""},
		"cut off":                        {first + "\n" + goodLine[:40], 1, ""},
		"cut off before the end of line": {first + "\n" + goodLine, 1, ""},
		"zeros at the end":               {first + "\n" + "\x00\x00\x00\n", 1, ""},
		"corrupt":                        {first + "\n" + "{\n" + goodLine + "\n", 1, "n1.jsonl:2: decode event at byte 1"},
		"of another node":                {strings.Replace(first, "n1", "n2", 1) + "\n" + goodLine + "\n", 0, `n1.jsonl:1: it is of node "n2", not "n1"`},
		"endless":                        {first + "\n" + strings.Repeat("x", lineMost+1), 1, "n1.jsonl:2: bufio: buffer full"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "n1.jsonl")
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			var got []Event
			err := Read(t.Context(), path, "n1", func(e Event) { got = append(got, e) })
			if len(got) != test.events {
				t.Errorf("%d events, want %d", len(got), test.events)
			}
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("%v, want %q", err, test.says)
			}
		})
	}
	if err := Read(t.Context(), "/nowhere", "n1", nil); err == nil {
		t.Error("a file that is not there was read")
	}
}

func TestReadStopsWhenItIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n1.jsonl")
	if err := os.WriteFile(path, []byte(strings.Repeat(goodLine+"\n", 3*askEvery)), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	count := 0
	err := Read(ctx, path, "n1", func(Event) {
		if count++; count == 10 {
			cancel()
		}
	})
	if err == nil || count > askEvery {
		t.Errorf("%d events read, %v", count, err)
	}
}
