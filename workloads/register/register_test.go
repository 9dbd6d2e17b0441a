package register

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"capsize/histories"
	"capsize/workloads"
)

func workload(t testing.TB, o Options) *Workload {
	t.Helper()
	w, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestOptionsThatCannotBeAreNamed(t *testing.T) {
	for says, o := range map[string]Options{
		"keys":                     {Keys: -1},
		"operations per key":       {OpsPerKey: -5},
		"unknown outcomes per key": {UnknownPerKey: -1},
		"-3 writes":                {Reads: 1, Writes: -3, CAS: 5},
		"both reads and writes":    {Reads: 7},
		"shares of 0 reads":        {Writes: 7},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %q", o, err, says)
		}
	}
	want := Options{Name: Usual, Keys: 5, OpsPerKey: 120, UnknownPerKey: 4, Reads: 45, Writes: 35, CAS: 20}
	if diff := cmp.Diff(want, workload(t, Options{}).options); diff != "" {
		t.Error(diff)
	}
}

// memory is a store that answers at once and is right.
type memory struct {
	mu     sync.Mutex
	values map[string]int64
}

func (m *memory) Get(_ context.Context, key string) (histories.Reply, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if value, ok := m.values[key]; ok {
		return histories.Reply{Value: histories.Int(value)}, nil
	}
	return histories.Reply{}, nil
}

func (m *memory) Put(_ context.Context, key string, value int64) (histories.Reply, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[key] = value
	return histories.Reply{}, nil
}

func (m *memory) CompareAndSwap(_ context.Context, key string, expected, replacement int64) (histories.Reply, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if value, ok := m.values[key]; !ok || value != expected {
		return histories.Reply{}, &histories.Refusal{Found: histories.Int(value), Said: ok}
	}
	m.values[key] = replacement
	return histories.Reply{}, nil
}

// play drives a generator with threads that take turns, against a right store. outcome
// may change how an operation ends; nil leaves it.
func play(w *Workload, seed uint64, threads, count int, outcome func(histories.Operation) histories.Type) ([]histories.Operation, workloads.Generator) {
	g := w.NewGenerator(seed, threads)
	store := &memory{values: make(map[string]int64)}
	var ops []histories.Operation
	for i := range count {
		op := next(g, i%threads)
		reply, err := w.Perform(context.Background(), store, op)
		invoke := histories.Event{Process: i % threads, F: op.F, Key: op.Key, Value: op.Value, Index: 2 * i, Time: time.Duration(2 * i)}
		completion := histories.Completion(invoke, reply, err)
		completion.Index, completion.Time = 2*i+1, time.Duration(2*i+1)
		done := histories.OperationOf(invoke, completion)
		if outcome != nil {
			done.Type = outcome(done)
		}
		ops = append(ops, done)
		g.Completed(done)
	}
	return ops, g
}

func next(g workloads.Generator, thread int) workloads.Op {
	op, _ := g.Next(workloads.Moment{Thread: thread, Process: thread}).Op()
	return op
}

func TestTheSameSeedGivesTheSameOperations(t *testing.T) {
	w := workload(t, Options{})
	a, _ := play(w, 7, 3, 1000, nil)
	b, _ := play(w, 7, 3, 1000, nil)
	c, _ := play(w, 8, 3, 1000, nil)
	alike := cmp.Comparer(histories.Value.Equal)
	if !cmp.Equal(a, b, alike) {
		t.Error("the same seed gave something else")
	}
	if cmp.Equal(a, c, alike) {
		t.Error("another seed gave the same")
	}
}

func TestEveryValueOfAKeyIsWrittenOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, err := New(Options{
			Keys: rapid.IntRange(1, 4).Draw(t, "keys"), OpsPerKey: rapid.IntRange(1, 60).Draw(t, "ops per key"),
			UnknownPerKey: rapid.IntRange(1, 3).Draw(t, "unknown per key"),
		})
		if err != nil {
			t.Fatal(err)
		}
		types := rapid.SliceOfN(rapid.SampledFrom([]histories.Type{histories.OK, histories.OK, histories.Fail, histories.Info}), 1, 50).Draw(t, "outcomes")
		n := 0
		ops, _ := play(w, rapid.Uint64().Draw(t, "seed"), rapid.IntRange(1, 5).Draw(t, "threads"), 300, func(histories.Operation) histories.Type {
			n++
			return types[n%len(types)]
		})
		written, perKey, unknown := make(map[string]bool), make(map[string]int), make(map[string]int)
		for _, op := range ops {
			if perKey[op.Key]++; perKey[op.Key] > w.options.OpsPerKey {
				t.Fatalf("key %s has more than %d operations", op.Key, w.options.OpsPerKey)
			}
			if unknown[op.Key] >= w.options.UnknownPerKey {
				t.Fatalf("key %s is used after %d unknown outcomes", op.Key, unknown[op.Key])
			}
			value, ok := op.Input.Int()
			if pair, is := op.Input.Ints(); is {
				value, ok = pair[1], true
			}
			if ok == (op.F == Read) {
				t.Fatalf("%s with the argument %s", op.F, op.Input)
			}
			if name := fmt.Sprintf("%s=%d", op.Key, value); ok && written[name] {
				t.Fatalf("%d is written twice to %s", value, op.Key)
			} else if ok {
				written[name] = true
			}
			if ok && (value < 1 || value > int64(w.options.OpsPerKey)) {
				t.Fatalf("value %d is not a small number", value)
			}
			if op.Type == histories.Info && op.F != Read {
				unknown[op.Key]++
			}
		}
	})
}

func TestTheMixIsAsAskedAndSwapsMostlySucceed(t *testing.T) {
	ops, _ := play(workload(t, Options{}), 1, 10, 20_000, nil)
	count := make(map[string]int)
	swapped := 0
	for _, op := range ops {
		count[op.F]++
		if op.F == CAS && op.Type == histories.OK {
			swapped++
		}
	}
	for f, share := range map[string]int{Read: 45, Write: 35, CAS: 20} {
		if got := 100 * count[f] / len(ops); got < share-3 || got > share+3 {
			t.Errorf("%d %% are %s, want %d %%", got, f, share)
		}
	}
	if 10*swapped < 8*count[CAS] {
		t.Errorf("only %d of %d compare-and-swaps succeed though nobody interferes", swapped, count[CAS])
	}
}

func TestFinalReadsTheKeysInUseAndTheLastRetiredTwice(t *testing.T) {
	w := workload(t, Options{Keys: 2, OpsPerKey: 10})
	ops, g := play(w, 3, 4, 2000, func(op histories.Operation) histories.Type {
		// Every fifth key has unknown outcomes.
		if op.F == Write && strings.HasSuffix(op.Key, "5") {
			return histories.Info
		}
		return op.Type
	})
	final := g.Final()
	if len(final) != 2*(2+4+4) {
		t.Fatalf("%d reads, want two rounds of 2 keys in use, 4 worn and 4 unsettled ones", len(final))
	}
	first, second := final[:len(final)/2], final[len(final)/2:]
	if !slices.EqualFunc(first, second, func(a, b workloads.Op) bool { return a.Key == b.Key }) {
		t.Error("the rounds differ")
	}
	keys := make(map[string]bool)
	for _, op := range first {
		if op.F != Read || !op.Final || !op.Value.IsNil() || keys[op.Key] {
			t.Errorf("%+v", op)
		}
		keys[op.Key] = true
	}
	for _, op := range ops[len(ops)-4:] {
		if !keys[op.Key] {
			t.Errorf("%s, in use at the end, is not read", op.Key)
		}
	}
	if n := g.(*generator).keys.Known(); n != 10 {
		t.Errorf("the generator remembers %d keys", n)
	}
}

func TestPerformSaysWhatBecameOfAnOperation(t *testing.T) {
	w := workload(t, Options{})
	ctx := context.Background()
	store := &memory{values: make(map[string]int64)}
	steps := []struct {
		op      workloads.Op
		want    histories.Value
		refused bool
		ends    histories.Type
	}{
		{op: workloads.Op{F: Read, Key: "k"}, ends: histories.OK},
		{op: workloads.Op{F: Write, Key: "k", Value: histories.Int(1)}, ends: histories.OK},
		{op: workloads.Op{F: CAS, Key: "k", Value: histories.Ints(1, 2)}, ends: histories.OK},
		{op: workloads.Op{F: CAS, Key: "k", Value: histories.Ints(1, 3)}, refused: true, ends: histories.Fail},
		{op: workloads.Op{F: Read, Key: "k"}, want: histories.Int(2), ends: histories.OK},
		{op: workloads.Op{F: "append", Key: "k"}, ends: histories.Fail},
		{op: workloads.Op{F: CAS, Key: "k"}, ends: histories.Fail},
		{op: workloads.Op{F: Write, Key: "k"}, ends: histories.Fail},
	}
	for _, step := range steps {
		got, err := w.Perform(ctx, store, step.op)
		refusal := (*histories.Refusal)(nil)
		if histories.Outcome(err) != step.ends || step.refused != errors.As(err, &refusal) || err == nil && !got.Value.Equal(step.want) {
			t.Errorf("%+v: %s, %v", step.op, got.Value, err)
		}
	}
	if _, err := w.Perform(ctx, "no store", steps[0].op); histories.Outcome(err) != histories.Fail || !strings.Contains(err.Error(), "string") {
		t.Errorf("a client of another kind: %v", err)
	}
}

func TestTheModelIsARegister(t *testing.T) {
	read := func(v histories.Value) histories.Operation {
		return histories.Operation{F: Read, Output: v, Type: histories.OK}
	}
	write := histories.Operation{F: Write, Input: histories.Int(5), Type: histories.OK}
	cas := histories.Operation{F: CAS, Input: histories.Ints(5, 6), Type: histories.OK}
	unknown := func(op histories.Operation) histories.Operation { op.Type = histories.Info; return op }
	empty, five, six := state{}, state{true, 5}, state{true, 6}
	m := workload(t, Options{}).Model()
	for _, test := range []struct {
		from state
		op   histories.Operation
		ok   bool
		to   state
		says string
	}{
		{empty, read(histories.Nil), true, empty, "read → null"},
		{five, read(histories.Nil), false, five, "read → null"},
		{five, read(histories.Int(5)), true, five, "read → 5"},
		{six, read(histories.Int(5)), false, six, "read → 5"},
		{empty, read(histories.Int(0)), false, empty, "read → 0"},
		{five, read(histories.Ints(5)), false, five, "read → [5]"},
		{six, unknown(read(histories.Nil)), true, six, "read → null (info)"},
		{six, write, true, five, "write 5"},
		{six, unknown(write), true, five, "write 5 (info)"},
		{five, cas, true, six, "cas 5 → 6"},
		{six, cas, false, six, "cas 5 → 6"},
		{empty, cas, false, empty, "cas 5 → 6"},
		{six, unknown(cas), true, six, "cas 5 → 6 (info)"},
		{five, unknown(cas), true, six, "cas 5 → 6 (info)"},
		{five, histories.Operation{F: "append"}, false, five, "append null"},
		{five, histories.Operation{F: CAS, Input: histories.Int(5)}, false, five, "cas 5 (invoke)"},
	} {
		ok, to := m.Step(test.from, test.op, test.op)
		if ok != test.ok || ok && to != any(test.to) {
			t.Errorf("%s in state %s: %v, %v", test.says, test.from, ok, to)
		}
		if says := m.DescribeOperation(test.op, nil); test.op.F != "append" && says != test.says {
			t.Errorf("%q, want %q", says, test.says)
		}
	}
	if m.DescribeState(empty) != "never written" || m.DescribeState(five) != "5" {
		t.Error("states are described wrongly")
	}
	states := []state{empty, {true, 0}, five, six, {true, -1}}
	for _, a := range states {
		for _, b := range states {
			if m.Equal(a, b) != (a == b) || m.Equal(a, b) && m.Hash(a) != m.Hash(b) {
				t.Errorf("%s and %s", a, b)
			}
		}
	}
	if m.Init() != any(empty) {
		t.Error("a register begins as never written")
	}
}

func TestARightStoreSatisfiesTheModelAndAWrongOneDoesNot(t *testing.T) {
	w := workload(t, Options{Keys: 1, OpsPerKey: 1000})
	ops, _ := play(w, 5, 3, 300, nil)
	check := func() bool {
		var history []porcupine.Operation
		for _, op := range ops {
			if op.Type == histories.OK {
				history = append(history, porcupine.Operation{ClientId: op.Process, Input: op, Call: int64(op.Call), Return: int64(op.Return)})
			}
		}
		return porcupine.CheckOperations(w.Model(), history)
	}
	if !check() {
		t.Error("a right store is refused")
	}
	for i := range ops {
		if value, ok := ops[i].Output.Int(); ok && ops[i].F == Read && i > 200 {
			ops[i].Output = histories.Int(value - 1)
			break
		}
	}
	if check() {
		t.Error("a stale read is accepted")
	}
}

// BenchmarkRecordedOps is the whole path of an operation but for the system: generator,
// invoke recorded, a store that answers at once, completion recorded, generator told.
func BenchmarkRecordedOps(b *testing.B) {
	const threads = 10
	w := workload(b, Options{})
	r, err := histories.Create(filepath.Join(b.TempDir(), "history.jsonl"), histories.Header{Run: "benchmark"})
	if err != nil {
		b.Fatal(err)
	}
	g, store := w.NewGenerator(1, threads), any(&memory{values: make(map[string]int64)})
	var mu sync.Mutex // guards g
	var clients sync.WaitGroup
	ctx := context.Background()
	b.ReportAllocs()
	for thread := range threads {
		clients.Go(func() {
			for i := thread; i < b.N; i += threads {
				mu.Lock()
				op := next(g, thread)
				mu.Unlock()
				invoke := r.Record(histories.Event{Process: thread, F: op.F, Key: op.Key, Value: op.Value, Node: "n1"})
				reply, err := w.Perform(ctx, store, op)
				done := r.Record(histories.Completion(invoke, reply, err))
				mu.Lock()
				g.Completed(histories.OperationOf(invoke, done))
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	if err := r.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "recorded-ops/s")
}
