package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"

	"capsize/checkers/linearizability/registers"
	"capsize/checkers/linearizability/search"
)

// The histories that Jepsen recorded of etcd, which Porcupine tests itself with: every method
// that applies says what Porcupine says.
func TestThePublicHistoriesOfEtcdAreJudgedAsByPorcupine(t *testing.T) {
	where, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/anishathalye/porcupine").Output()
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(where)), "test_data", "jepsen", "etcd_*.log"))
	if err != nil {
		t.Fatal(err)
	}
	count, illegal, byValues := 0, 0, 0
	for _, path := range paths {
		ops, err := readEtcd(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(ops) == 0 {
			continue // its cluster did not come up
		}
		count++
		model, history := model(), forPorcupine(ops)
		want, values := search.Linearizable, registers.Linearizable
		if !porcupine.CheckOperations(model, history) {
			want, values = search.Illegal, registers.Violation
			illegal++
		}
		if got := search.Check(t.Context(), search.Model{Model: model}, history, search.Limits{}).Outcome; got != want {
			t.Errorf("%s: the search says %s, Porcupine %s", path, got, want)
		}
		if got := search.CheckRegister(t.Context(), ops, search.Limits{}).Outcome; got != want {
			t.Errorf("%s: the register search says %s, Porcupine %s", path, got, want)
		}
		switch got := registers.Check(ops).Outcome; got {
		case registers.Ambiguous: // values repeat
		case values:
			byValues++
		default:
			t.Errorf("%s: by values it is %v, Porcupine says %s", path, got, want)
		}
	}
	if count != etcdHistories || illegal == 0 || illegal == count {
		t.Errorf("%d histories, of which %d are illegal", count, illegal)
	}
	t.Logf("%d histories, %d illegal, %d decided by values", count, illegal, byValues)
}
