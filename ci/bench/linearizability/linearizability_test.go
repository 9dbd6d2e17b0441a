package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/anishathalye/porcupine"
	"github.com/google/go-cmp/cmp"

	"capsize/checkers"
	"capsize/checkers/linearizability/registers"
	"capsize/histories"
)

func TestTrafficIsWhatItIsSaidToBe(t *testing.T) {
	for seed := range uint64(20) {
		for _, m := range []mix{
			{operations: 5000, clients: 20, keys: 1, crashed: 0.001},
			{operations: 5000, clients: 5, keys: 7, crashed: 0.02},
			{operations: 300, clients: 5, keys: 1, unanswered: 20},
			{operations: 300, clients: 5, keys: 1, unanswered: 20, wrong: true},
			{operations: 2000, clients: 20, keys: 3, crashed: 0.01, wrong: true},
		} {
			m.seed = seed
			events := newTraffic(m).all()
			if err := histories.Validate(events); err != nil {
				t.Fatalf("%+v: %v", m, err)
			}
			want := checkers.Valid
			if m.wrong {
				want = checkers.Invalid
			}
			got := checker().Check(context.Background(), &checkers.Run{History: events})
			if got.Verdict != want || got.Linearizability.Operations != m.operations+m.unanswered {
				t.Fatalf("%+v: %s, want %s: %s", m, got.Verdict, want, got.Summary)
			}
			unknown := 0
			for _, op := range histories.Operations(events) {
				if op.Type == histories.Info {
					unknown++
				}
			}
			if expected := m.crashed * float64(m.operations); float64(unknown-m.unanswered) > 3*expected || m.crashed > 0.005 && unknown < int(expected/3) {
				t.Errorf("%+v: %d operations of unknown outcome", m, unknown)
			}
		}
	}
}

func TestOperationsAreThoseOfTheEvents(t *testing.T) {
	for _, wrong := range []bool{false, true} {
		m := mix{seed: 3, operations: 200, clients: 3, keys: 1, crashed: 0.01, wrong: wrong}
		if legal := porcupine.CheckOperations(model(), forPorcupine(newTraffic(m).ops())); legal == wrong {
			t.Errorf("wrong is %v, Porcupine says legal is %v", wrong, legal)
		}
	}
}

const etcdLog = `INFO  jepsen.util - 0	:invoke	:read	nil
INFO  jepsen.core - Worker 1 starting
INFO  jepsen.util - 1	:invoke	:write	4
INFO  jepsen.util - 0	:ok	:read	nil
INFO  jepsen.util - 1	:ok	:write	4
INFO  jepsen.util - 2	:invoke	:cas	[4 0]
INFO  jepsen.util - 3	:invoke	:cas	[2 1]
INFO  jepsen.util - 2	:info	:cas	:timed-out
INFO  jepsen.util - 3	:fail	:cas	[2 1]
INFO  jepsen.util - 0	:invoke	:read	nil
INFO  jepsen.util - 1	:invoke	:read	nil
INFO  jepsen.util - 0	:fail	:read	:timed-out
INFO  jepsen.util - 1	:ok	:read	0
`

func TestALogOfEtcdIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etcd_000.log")
	if err := os.WriteFile(path, []byte(etcdLog), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readEtcd(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []registers.Op{
		{Kind: registers.Read, Value: registers.Nothing, Call: 0, Return: 3},
		{Kind: registers.Write, Value: 4, Call: 2, Return: 4},
		{Kind: registers.Swap, Expected: 4, Value: 0, Call: 5, Return: registers.Never},
		{Kind: registers.Refused, Expected: 2, Value: 1, Call: 6, Return: 8},
		{Kind: registers.Read, Call: 9, Return: registers.Never},
		{Kind: registers.Read, Value: 0, Call: 10, Return: 12},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := compareOne(got); err != nil {
		t.Error(err)
	}
}

func TestAMissedPromiseIsToldByTheReport(t *testing.T) {
	b := &bench{}
	b.add(row{what: "one", kept: true})
	if !b.report() {
		t.Error("all promises were kept")
	}
	b.add(row{what: "two"})
	if b.report() {
		t.Error("the second promise was broken")
	}
}
