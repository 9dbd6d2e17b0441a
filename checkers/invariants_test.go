package checkers

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"capsize/histories"
)

// protocol writes the trace of each node, whose lines are given without seq, time, inc and node.
func protocol(t *testing.T, lines map[string][]string) *Run {
	t.Helper()
	run := &Run{Nodes: []string{"n1", "n2"}, Traces: make(map[string]string)}
	for node, list := range lines {
		path := filepath.Join(t.TempDir(), "trace.jsonl")
		var b strings.Builder
		for i, line := range list {
			identity, rest, _ := strings.Cut(line, " ")
			fmt.Fprintf(&b, `{"seq":%d,"time":5,"inc":1,"node":"%s",%s}`+"\n", i+1, identity, rest)
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		run.Traces[node] = path
	}
	return run
}

const (
	begins    = `"ev":"boot","t":0,"commit":0,"applied":0,"last":0,"lastTerm":0,"h":"0000000000000000","snapIdx":0,"snapTerm":0,"conf":{"voters":["n1#1","n2#2"]}`
	takesOver = `"ev":"leader","t":2,"last":0,"lastTerm":0,"h":"0000000000000000","conf":{"voters":["n1#1","n2#2"]},"voters":["n1#1","n2#2"]`
)

func TestABrokenInvariantIsToldWithTheNodesNames(t *testing.T) {
	run := protocol(t, map[string][]string{
		"n1": {"n1#1 " + begins, "n1#1 " + takesOver}, "n2": {"n2#2 " + begins, "n2#2 " + takesOver},
	})
	result := (&Invariants{}).Check(context.Background(), run)
	if result.Verdict != Invalid || !strings.Contains(result.Summary, "I1, election safety") || strings.Contains(result.Summary, "#") {
		t.Errorf("%s: %s", result.Verdict, result.Summary)
	}
	data, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	var again Result
	if err := json.Unmarshal(data, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(result, again); diff != "" {
		t.Error(diff)
	}
}

func TestTracesThatKeepTheInvariantsAreValid(t *testing.T) {
	run := protocol(t, map[string][]string{"n1": {"n1#1 " + begins}, "n2": {"n2#2 " + begins}})
	if result := (&Invariants{}).Check(context.Background(), run); result.Verdict != Valid || len(result.Invariants.NotTested) == 0 {
		t.Errorf("%s: %s", result.Verdict, result.Summary)
	}
}

// One that joined anew under its old name has promised nothing yet: it may vote again in a
// term in which the one before it voted, and begins with an empty log.
func TestAMemberThatJoinsAnewIsAnotherOne(t *testing.T) {
	votes := func(id, candidate string) []string {
		return []string{
			id + " " + begins, id + ` "ev":"term","t":2`, fmt.Sprintf(`%s "ev":"votePersist","t":2,"cand":"%s"`, id, candidate),
			fmt.Sprintf(`%s "ev":"voteSend","t":2,"to":"%s","granted":true`, id, candidate),
		}
	}
	twice := func(second string) *Run {
		run := protocol(t, map[string][]string{"n1": {"n1#1 " + begins}, "n2": votes("n2#2", "n1#1")})
		more := protocol(t, map[string][]string{"n2": votes(second, "n3#3")})
		first, err := os.ReadFile(run.Traces["n2"])
		if err != nil {
			t.Fatal(err)
		}
		then, err := os.ReadFile(more.Traces["n2"])
		if err != nil {
			t.Fatal(err)
		}
		both := string(first) + string(then)
		if second == "n2#2" { // the same one goes on
			both = string(first) + strings.ReplaceAll(string(then), `"inc":1`, `"inc":2`)
		}
		if err := os.WriteFile(run.Traces["n2"], []byte(both), 0o644); err != nil {
			t.Fatal(err)
		}
		return run
	}
	if result := (&Invariants{}).Check(context.Background(), twice("n2#7")); result.Verdict == Invalid {
		t.Errorf("another member under the same name: %s", result.Summary)
	}
	if result := (&Invariants{}).Check(context.Background(), twice("n2#2")); result.Verdict != Invalid || !strings.Contains(result.Summary, "n2") {
		t.Errorf("the same member: %s: %s", result.Verdict, result.Summary)
	}
}

func TestAFaultThatEmptiesANodeLeavesItsTraceWhole(t *testing.T) {
	run := protocol(t, map[string][]string{"n1": {"n1#1 " + begins}, "n2": {"n2#2 " + begins}})
	trace, err := os.ReadFile(run.Traces["n2"])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(run.Traces["n2"], []byte(string(trace)+string(trace)), 0o644); err != nil {
		t.Fatal(err)
	}
	if result := (&Invariants{}).Check(context.Background(), run); result.Verdict != Unknown || !strings.Contains(result.Summary, "n2: incarnation 1, line 1 is out of order") {
		t.Errorf("without a fault: %s: %s", result.Verdict, result.Summary)
	}
	run.History = []histories.Event{{Fault: &histories.Fault{ID: 1, Name: "amnesia", Nodes: []string{"n2"}, Beyond: "a node remembers"}}}
	if result := (&Invariants{}).Check(context.Background(), run); result.Verdict != Valid || len(result.Invariants.Report.Undecided) == 0 {
		t.Errorf("with one: %s: %s", result.Verdict, result.Summary)
	}
}

func TestTracesWithHolesAreNoProof(t *testing.T) {
	run := protocol(t, map[string][]string{"n1": {"n1#1 " + begins}})
	if result := (&Invariants{}).Check(context.Background(), run); result.Verdict != Unknown || !strings.Contains(result.Summary, "n2: it has no trace") {
		t.Errorf("%s: %s", result.Verdict, result.Summary)
	}
	if result := (&Invariants{}).Check(context.Background(), &Run{Nodes: []string{"n1"}}); result.Verdict != Valid || !strings.Contains(result.Summary, "not checked") {
		t.Errorf("%s: %s", result.Verdict, result.Summary)
	}
}
