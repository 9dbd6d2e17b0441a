package main

import (
	"testing"

	"github.com/anishathalye/porcupine"

	"capsize/checkers/linearizability/registers"
	"capsize/checkers/linearizability/search"
)

// The histories that Jepsen recorded of etcd, which Porcupine tests itself with: every method
// that applies says what Porcupine says.
func TestThePublicHistoriesOfEtcdAreJudgedAsByPorcupine(t *testing.T) {
	dir, err := etcdDir(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	count, illegal, byValues := 0, 0, 0
	err = eachHistory(dir, func(path string, ops []registers.Op) error {
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
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if count != etcdHistories || illegal == 0 || illegal == count {
		t.Errorf("%d histories, of which %d are illegal", count, illegal)
	}
	t.Logf("%d histories, %d illegal, %d decided by values", count, illegal, byValues)
}
