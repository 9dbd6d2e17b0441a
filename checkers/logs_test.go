package checkers

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"capsize/histories"
)

func logged(t *testing.T, text string) *Run {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db.log")
	if err := os.WriteFile(path, []byte("a node serves\n"+text+"\nit goes on\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &Run{Nodes: []string{"n1"}, Logs: map[string]string{"n1": path}}
}

func TestWordsThatNoCorrectProgramPrints(t *testing.T) {
	ending := []histories.Event{{Process: histories.Nemesis, Fault: &histories.Fault{ID: 1, Name: "disk", Nodes: []string{"n1"}, MayEnd: true}}}
	for text, want := range map[string]struct{ plain, mayEnd Verdict }{
		"panic: runtime error: index out of range":                    {Invalid, Valid},
		"panic: x\n\ngoroutine 1 [running]:\nmain":                    {Invalid, Valid},
		"WARNING: DATA RACE":                                          {Invalid, Invalid},
		"fatal error: all goroutines are asleep":                      {Invalid, Valid},
		`{"level":"panic","msg":"tocommit(9) is out of range"}`:       {Invalid, Valid},
		"server: wal.c:17: write: Assertion `n > 0' failed.":          {Invalid, Valid},
		"thread 'main' panicked at src/main.rs:3":                     {Invalid, Valid},
		"put key=panic: value=fatal error: ok":                        {Valid, Valid},
		"the client said: WARNING: DATA RACE":                         {Valid, Valid},
		"election lost: no assertion was made, and nothing failed":    {Valid, Valid},
		strings.Repeat("x", 3*logLineBytes) + "panic: in a long line": {Valid, Valid},
	} {
		run := logged(t, text)
		if r := (&Logs{}).Check(context.Background(), run); r.Verdict != want.plain || want.plain == Invalid && !strings.Contains(r.Summary, "n1 says, in line 2: ") {
			t.Errorf("%.60s: %s: %s", text, r.Verdict, r.Summary)
		}
		run.History = ending
		if r := (&Logs{}).Check(context.Background(), run); r.Verdict != want.mayEnd {
			t.Errorf("%.60s, where a process may end: %s: %s", text, r.Verdict, r.Summary)
		}
	}
}

func TestAPlanSaysWhatElseIsWrongAndWhatIsRight(t *testing.T) {
	run := logged(t, "slow fsync\npanic: as always")
	l := &Logs{Ignore: regexp.MustCompile("as always")}
	if r := l.Check(context.Background(), run); r.Verdict != Valid {
		t.Errorf("%s: %s", r.Verdict, r.Summary)
	}
	l.Pattern = regexp.MustCompile("slow .sync")
	if r := l.Check(context.Background(), run); r.Verdict != Invalid || r.Logs.Found[0].Kind != "line that the plan forbids" || len(r.Logs.Found[0].After) == 0 {
		t.Errorf("%s: %s", r.Verdict, r.Summary)
	}
}

func TestLogsThatAreNotThere(t *testing.T) {
	if r := (&Logs{}).Check(context.Background(), &Run{}); r.Verdict != Valid || !strings.Contains(r.Summary, "not checked") {
		t.Errorf("%s: %s", r.Verdict, r.Summary)
	}
	if r := (&Logs{}).Check(context.Background(), &Run{Logs: map[string]string{"n1": "no/such/file"}}); r.Verdict != Unknown {
		t.Errorf("%s: %s", r.Verdict, r.Summary)
	}
}
