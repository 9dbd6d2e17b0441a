package checkers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"capsize/histories"
)

func leads(node string, term uint64) string {
	return fmt.Sprintf(`{"seq":1,"inc":1,"time":1,"node":"%s","ev":"leader","t":%d,"last":4,"lastTerm":1,"conf":["n1"],"voters":["n1"]}`, node, term) + "\n"
}

const otherLines = `{"seq":2,"inc":1,"time":1,"node":"n1","ev":"append","i":1,"t":2,"h":"00"}
{"seq":3,"inc":1,"time":1,"node":"n1","ev":"commit","i":1,"role":"leader","t":2}
`

func traces(t *testing.T, contents map[string]string) map[string]string {
	t.Helper()
	paths := make(map[string]string)
	dir := t.TempDir()
	for node, content := range contents {
		paths[node] = filepath.Join(dir, node+".jsonl")
		if err := os.WriteFile(paths[node], []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// says makes the status of a node as the observer records it.
func says(node, role string, term uint64) histories.Event {
	return histories.Event{Process: histories.Observer, Type: histories.Info, F: "status", Node: node, Status: &histories.Status{Up: true, Role: role, Term: term}}
}

func TestOneLeaderATerm(t *testing.T) {
	for name, test := range map[string]struct {
		traces  map[string]string
		history []histories.Event
		want    Verdict
		says    []string
	}{
		"different terms": {
			traces: map[string]string{"n1": leads("n1", 2) + otherLines, "n2": leads("n2", 3)},
			want:   Valid, says: []string{"2 terms", "trace of n1, trace of n2"},
		},
		"one term twice": {
			traces: map[string]string{"n1": otherLines + leads("n1", 2), "n2": leads("n2", 3) + leads("n2", 2)},
			want:   Invalid, says: []string{"term 2 had 2 leaders: n1 (n1/n1.jsonl:3) and n2 (n2/n2.jsonl:2)"},
		},
		"one node says it twice": {
			traces: map[string]string{"n1": leads("n1", 2) + leads("n1", 2)}, history: []histories.Event{says("n1", "leader", 2)},
			want: Valid, says: []string{"1 terms"},
		},
		"by status only": {history: []histories.Event{says("n1", "leader", 2), says("n2", "follower", 2), says("n2", "leader", 3)}, want: Valid},
		"lines laid out otherwise": {
			traces: map[string]string{"n1": leads("n1", 2), "n2": `{ "role":"leader", "t" : 2, "ev" : "leader" }` + "\n" + `{"ev":"commit","leader":"x","ev2":"leader","t":2}` + "\n"},
			want:   Invalid, says: []string{"n2/n2.jsonl:1"},
		},
		"two by status": {
			history: []histories.Event{says("n1", "leader", 2), says("n2", "leader", 2)},
			want:    Invalid, says: []string{"n1 (its own status at 0.000 s) and n2 (its own status at 0.001 s)"},
		},
		"trace against status": {
			traces: map[string]string{"n1": leads("n1", 2)}, history: []histories.Event{says("n2", "leader", 2)},
			want: Invalid,
		},
		"a node that is down says nothing": {
			history: []histories.Event{says("n1", "leader", 2), {Process: histories.Observer, Type: histories.Info, Node: "n2", Status: &histories.Status{Role: "leader", Term: 2}}},
			want:    Valid,
		},
		"many terms with two": {
			traces: map[string]string{"n1": leads("n1", 2) + leads("n1", 3), "n2": leads("n2", 2) + leads("n2", 3)},
			want:   Invalid, says: []string{"1 more terms"},
		},
		"no source":   {want: Unknown, says: []string{"no trace and no status: there is nothing to check"}},
		"no leader":   {traces: map[string]string{"n1": otherLines}, want: Unknown, says: []string{"no node ever led"}},
		"cut off":     {traces: map[string]string{"n1": leads("n1", 2) + leads("n1", 3)[:60]}, want: Valid, says: []string{"1 terms"}},
		"cut by zero": {traces: map[string]string{"n1": leads("n1", 2) + `{"ev":"leader",` + "\x00\n"}, want: Valid},
		"corrupt": {
			traces: map[string]string{"n1": leads("n1", 2) + `{"ev":"leader",` + "\n" + leads("n1", 3)},
			want:   Unknown, says: []string{"n1.jsonl:2 is corrupt"},
		},
		"corrupt, but two leaders elsewhere": {
			traces: map[string]string{"n1": `{"ev":"leader",` + "\n" + otherLines, "n2": leads("n2", 2), "n3": leads("n3", 2)},
			want:   Invalid,
		},
		"two nodes in one trace": {traces: map[string]string{"n1": leads("n1", 2) + leads("n2", 2)}, want: Invalid},
		"a name of another sort": {traces: map[string]string{"n1": leads("7", 2)}, history: []histories.Event{says("n1", "leader", 2)}, want: Valid},
	} {
		t.Run(name, func(t *testing.T) {
			var l log
			for _, e := range test.history {
				l.add(e)
			}
			run := &Run{Nodes: []string{"n1", "n2", "n3"}, History: l.events, Traces: traces(t, test.traces)}
			result := new(Leaders).Check(context.Background(), run)
			if result.Verdict != test.want {
				t.Errorf("%s: %s", result.Verdict, result.Summary)
			}
			for _, says := range test.says {
				if !strings.Contains(result.Summary, says) {
					t.Errorf("%q does not say %q", result.Summary, says)
				}
			}
			if (result.Verdict == Invalid) != (len(result.Leaders.Conflicts) > 0) {
				t.Errorf("%d conflicts", len(result.Leaders.Conflicts))
			}
		})
	}
}

func TestAMissingTraceLeavesTheQuestionOpen(t *testing.T) {
	run := &Run{Nodes: []string{"n1"}, Traces: map[string]string{"n1": filepath.Join(t.TempDir(), "none")}}
	if result := new(Leaders).Check(context.Background(), run); result.Verdict != Unknown || !strings.Contains(result.Summary, "none") {
		t.Errorf("%s: %s", result.Verdict, result.Summary)
	}
}

func TestAllClaimsAreInTheEvidence(t *testing.T) {
	var l log
	l.add(says("n3", "leader", 9))
	run := &Run{Nodes: []string{"n1", "n3"}, History: l.events, Traces: traces(t, map[string]string{"n1": leads("n1", 2)})}
	got := new(Leaders).Check(context.Background(), run).Leaders
	want := &LeadersEvidence{
		Sources: []string{"trace of n1", "status polls"},
		Terms:   []Leadership{{2, "n1", "n1/n1.jsonl:1"}, {9, "n3", "its own status at 0.000 s"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLongLinesOfOtherEventsAreSkipped(t *testing.T) {
	long := `{"ev":"append","data":"` + strings.Repeat("x", 3*traceLineMost) + `"}` + "\n"
	var lines []int
	err := scanLeaderEvents(context.Background(), "t", strings.NewReader(long+leads("n1", 2)+long+leads("n1", 3)), func(line int, _ leaderEvent) { lines = append(lines, line) })
	if err != nil || !cmp.Equal(lines, []int{2, 4}) {
		t.Errorf("%v, %v", lines, err)
	}
}

func TestReadingATraceEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	endless := io.MultiReader(strings.NewReader(strings.Repeat(otherLines, askEvery)), strings.NewReader(leads("n1", 2)))
	err := scanLeaderEvents(ctx, "t", endless, func(int, leaderEvent) { t.Error("it read on") })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func FuzzTrace(f *testing.F) {
	f.Add(leads("n1", 2) + otherLines + leads("n1", 3)[:50])
	f.Add("\n\n{}\n\"leader\"\n[1]\n")
	f.Add(`{"ev":"leader","t":-1}` + "\n" + `{"ev":"leader","t":18446744073709551616}` + "\nx\n")
	f.Fuzz(func(t *testing.T, data string) {
		before := 0
		err := scanLeaderEvents(context.Background(), "t", strings.NewReader(data), func(line int, event leaderEvent) {
			if line <= before || event.Name != "leader" {
				t.Errorf("line %d after %d: %+v", line, before, event)
			}
			before = line
			if !strings.Contains(strings.Split(data, "\n")[line-1], "leader") {
				t.Errorf("line %d has no leader", line)
			}
		})
		if err != nil && !strings.Contains(err.Error(), "t:") {
			t.Errorf("%v does not name the file and line", err)
		}
	})
}

func BenchmarkTrace(b *testing.B) {
	data := strings.Repeat(otherLines, 50_000) + leads("n1", 2)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := scanLeaderEvents(context.Background(), "t", strings.NewReader(data), func(int, leaderEvent) {}); err != nil {
			b.Fatal(err)
		}
	}
}
