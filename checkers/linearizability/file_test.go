package linearizability

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"capsize/checkers"
	"capsize/checkers/internal/soak"
	"capsize/histories"
)

func written(t *testing.T, events []histories.Event) string {
	t.Helper()
	var b bytes.Buffer
	w, err := histories.NewWriter(&b, histories.Header{Run: "test"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range events {
		if err := w.Write(&events[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "history.jsonl")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// revise gives answers the revisions of a counter of completions, and a few that lie.
func revise(random *rand.Rand, events []histories.Event) {
	for i := range events {
		if e := &events[i]; e.Type == histories.OK {
			e.Revision = int64(i + 1)
			if random.IntN(150) == 0 {
				e.Revision = max(1, e.Revision-random.Int64N(40))
			}
		}
	}
}

func TestAFileIsJudgedAsTheSameHistoryInMemory(t *testing.T) {
	verdicts, methods := make(map[checkers.Verdict]int), make(map[string]int)
	for seed := range uint64(soak.Count(t, 1500/share)) {
		random := rand.New(rand.NewPCG(seed, 12))
		events := simulate(random, 2+random.IntN(4), 1+random.IntN(4), 10+random.IntN(80))
		if seed%2 == 0 {
			corrupt(random, events)
		}
		if seed%3 == 0 {
			revise(random, events)
		}
		checker := ofRegisters()
		if seed%7 == 0 {
			checker = ofAnything()
		}
		want := judged(t, checker, events)
		got, err := checker.CheckFile(context.Background(), &checkers.Run{Nodes: []string{"n1", "n2", "n3"}}, written(t, events))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(asJSON(t, want), asJSON(t, got)); diff != "" {
			t.Fatalf("seed %d: in memory and from the file:\n%s", seed, diff)
		}
		verdicts[got.Verdict]++
		for method := range got.Linearizability.Methods {
			methods[method]++
		}
	}
	if verdicts[checkers.Valid] == 0 || verdicts[checkers.Invalid] == 0 || methods[string(ByRevisions)] == 0 || methods[string(ByValues)] == 0 {
		t.Errorf("%v by %v: the mix proves little", verdicts, methods)
	}
}

// Of a long history that goes wrong early, or late, only what leads there is held.
func TestALongFileIsJudgedAsTheSameHistoryInMemory(t *testing.T) {
	invalid := 0
	for seed := range uint64(20 / min(share, 4)) {
		random := rand.New(rand.NewPCG(seed, 13))
		events := simulate(random, 5, 2, 20_000)
		part := 500 + random.IntN(len(events)-500)
		corrupt(random, events[part-500:part])
		want := judged(t, ofRegisters(), events)
		got, err := ofRegisters().CheckFile(context.Background(), &checkers.Run{Nodes: []string{"n1", "n2", "n3"}}, written(t, events))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(asJSON(t, want), asJSON(t, got)); diff != "" {
			t.Fatalf("seed %d: in memory and from the file:\n%s", seed, diff)
		}
		if got.Verdict == checkers.Invalid {
			invalid++
		}
	}
	if invalid == 0 {
		t.Error("no history is violated")
	}
}

func asJSON(t *testing.T, value any) string {
	t.Helper()
	text, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAFileThatCannotBeReadIsAnError(t *testing.T) {
	run := &checkers.Run{}
	if _, err := ofRegisters().CheckFile(context.Background(), run, filepath.Join(t.TempDir(), "none.jsonl")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	path := written(t, script(t, "p1 n1 write 1\np1 ok"))
	stopped, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := ofRegisters().CheckFile(stopped, run, path); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "interrupted at event 0") {
		t.Error(err)
	}
}
