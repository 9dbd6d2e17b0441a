package linearizability

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"capsize/checkers"
	"capsize/checkers/linearizability/search"
	"capsize/histories"
)

func ofRegisters() *Checker { return &Checker{Model: register(), Object: Register} }

// ofAnything judges registers without knowing that they are.
func ofAnything() *Checker { return &Checker{Model: register()} }

func judged(t testing.TB, checker checkers.Checker, events []histories.Event) checkers.Result {
	t.Helper()
	if err := histories.Validate(events); err != nil {
		t.Fatalf("the test's history is wrong: %v", err)
	}
	return checker.Check(context.Background(), &checkers.Run{Nodes: []string{"n1", "n2", "n3"}, History: events})
}

// The shortcuts must never change an answer: every one of these histories is judged with
// them and by Porcupine alone.
func TestTheShortcutsAreExact(t *testing.T) {
	const count = 40_000 / share
	legal, crashed := 0, 0
	methods := make(map[Method]int)
	budget := newBudget(context.Background(), checkers.Limits{})
	defer budget.close()
	for seed := range uint64(count) {
		random := rand.New(rand.NewPCG(seed, 1))
		events := simulate(random, 2+random.IntN(4), 1, 5+random.IntN(45))
		valid := true
		if seed%3 > 0 {
			corrupt(random, events)
			valid = false
		}
		operations := histories.Operations(events)
		want := plainly(operations)
		if valid && !want {
			t.Fatalf("seed %d: Porcupine refuses what a right register did", seed)
		}
		for _, checker := range []*Checker{ofRegisters(), ofAnything()} {
			got := checker.decide(budget, operations)
			if got.outcome == search.Unknown || (got.outcome == search.Linearizable) != want {
				t.Fatalf("seed %d: %s by %s, legal is %v\n%s", seed, got.outcome, got.method, want, dump(operations))
			}
			methods[got.method]++
		}
		if want {
			legal++
		}
		if slices.ContainsFunc(operations, func(op histories.Operation) bool { return op.Type == histories.Info && op.F != "read" }) {
			crashed++
		}
	}
	if methods[ByValues] == 0 || methods[ByPorcupine] == 0 {
		t.Errorf("decided by %v", methods)
	}
	if legal < count/3 || legal > count*9/10 || crashed < count/3 {
		t.Errorf("of %d histories %d are legal and %d have writes of unknown outcome: the mix proves little", count, legal, crashed)
	}
}

func dump(operations []histories.Operation) string {
	var b strings.Builder
	for _, op := range operations {
		fmt.Fprintf(&b, "%3d-%3d p%d %s %s → %s %s\n", op.Invoked, op.Returned, op.Process, op.F, op.Input, op.Output, op.Type)
	}
	return b.String()
}

// What a person is shown must be impossible by itself, for Porcupine alone, and must not
// be so merely because a write was taken away from its readers.
func TestCoresAreImpossibleByThemselvesAndSmall(t *testing.T) {
	budget := newBudget(context.Background(), checkers.Limits{})
	defer budget.close()
	violations, told, size := 0, 0, 0
	for seed := range uint64(6000 / share) {
		random := rand.New(rand.NewPCG(seed, 2))
		events := simulate(random, 2+random.IntN(3), 1, 20+random.IntN(60))
		corrupt(random, events)
		keys := new(Checker).byKey(histories.Operations(events))
		if len(keys) == 0 || plainly(keys[0].operations) {
			continue
		}
		violations++
		k := keys[0]
		s := &shrinker{ofRegisters(), budget}
		cut := s.earliest(k)
		last, all := cut.last, k.operations
		if plainly(cut.prefix) || last.Returned > 0 && !plainly(until(all, last.Returned-1)) {
			t.Fatalf("seed %d: the violation is not where it is said to be, at event %d\n%s", seed, last.Returned, dump(all))
		}
		core, text := s.explain(cut)
		if plainly(core) || !strings.HasPrefix(s.verify(cut, core), "Porcupine finds no order") {
			t.Fatalf("seed %d: the core is possible\n%s\nof\n%s", seed, dump(core), dump(all))
		}
		for _, op := range core {
			value, finds := found(op)
			if !finds || op.Type != histories.OK {
				continue
			}
			if write, how := (&story{all: all}).writeOf(value); how == possible && write.Invoked <= last.Returned && !slices.ContainsFunc(core, func(o histories.Operation) bool { return o.Invoked == write.Invoked }) {
				t.Fatalf("seed %d: %d is found in the core, but its write was left out\n%s\nof\n%s", seed, value, dump(core), dump(all))
			}
		}
		size += len(core)
		if !strings.HasPrefix(text, "no order explains these") {
			told++
		}
		if text == "" {
			t.Fatalf("seed %d: no explanation", seed)
		}
	}
	t.Logf("%d violations, %.1f operations in a core, %d told in words of their own", violations, float64(size)/float64(violations), told)
	if violations < 1000/share || size > 6*violations || told < violations*9/10 {
		t.Errorf("%d violations with %d operations in their cores, %d told", violations, size, told)
	}
}

// Changing what must not matter must not change a verdict.
func TestVerdictsDoNotDependOnWhatMustNotMatter(t *testing.T) {
	verdicts := make(map[checkers.Verdict]int)
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 3))
		events := simulate(random, 2+random.IntN(3), 2, 20+random.IntN(80))
		if rapid.Bool().Draw(t, "corrupt") {
			corrupt(random, events)
		}
		judge := func(events []histories.Event) checkers.Verdict {
			return ofRegisters().Check(context.Background(), &checkers.Run{History: events}).Verdict
		}
		want := judge(events)
		verdicts[want]++
		for name, change := range map[string]func([]histories.Event) []histories.Event{
			"values renamed":                   renamed,
			"time shifted":                     shifted,
			"another workload's key beside it": beside,
			"crashed writes nobody saw gone":   withoutUnseen,
			"processes renamed":                processesRenamed,
		} {
			if got := judge(change(slices.Clone(events))); got != want {
				t.Fatalf("%s: %s, %s before\n%s", name, got, want, dump(histories.Operations(events)))
			}
		}
		var worst checkers.Verdict = checkers.Unknown
		if keys := split(events); len(keys) > 0 {
			worst = checkers.Valid
			for _, key := range keys {
				if v := judge(key); v == checkers.Invalid {
					worst = checkers.Invalid
				}
			}
		}
		if len(histories.Operations(events)) > 0 && worst == checkers.Invalid != (want == checkers.Invalid) {
			t.Fatalf("each key by itself: %s, together %s", worst, want)
		}
	})
	if verdicts[checkers.Valid] == 0 || verdicts[checkers.Invalid] == 0 {
		t.Errorf("verdicts %v: the histories prove little", verdicts)
	}
}

func renamed(events []histories.Event) []histories.Event {
	other := func(n int64) int64 { return 1_000_000 - 7*n }
	for i := range events {
		if n, ok := events[i].Value.Int(); ok {
			events[i].Value = histories.Int(other(n))
		} else if pair, ok := events[i].Value.Ints(); ok {
			events[i].Value = histories.Ints(other(pair[0]), other(pair[1]))
		}
	}
	return events
}

func shifted(events []histories.Event) []histories.Event {
	for i := range events {
		events[i].Time = time.Hour + 3*events[i].Time
	}
	return events
}

func processesRenamed(events []histories.Event) []histories.Event {
	for i := range events {
		events[i].Process = 1000 - events[i].Process
	}
	return events
}

// beside puts an untroubled key into the history.
func beside(events []histories.Event) []histories.Event {
	var l log
	for i, e := range events {
		if i == len(events)/2 {
			l.add(histories.Event{Process: 5000, F: "write", Key: "other", Value: histories.Int(1)})
			l.add(histories.Event{Process: 5000, F: "write", Key: "other", Value: histories.Int(1), Type: histories.OK})
		}
		l.add(e)
	}
	return l.events
}

// withoutUnseen drops the writes of unknown outcome whose value no operation mentions.
func withoutUnseen(events []histories.Event) []histories.Event {
	mentioned := make(map[string]bool)
	operations := histories.Operations(events)
	for _, op := range operations {
		if value, ok := found(op); ok {
			mentioned[fmt.Sprint(op.Key, "=", value)] = true
		}
	}
	var l log
	gone := make(map[int]bool)
	for _, op := range operations {
		if value, ok := produced(op); ok && op.Type == histories.Info && !mentioned[fmt.Sprint(op.Key, "=", value)] {
			gone[op.Invoked], gone[op.Returned] = true, true
		}
	}
	for _, e := range events {
		if !gone[e.Index] {
			l.add(e)
		}
	}
	return l.events
}

func split(events []histories.Event) [][]histories.Event {
	logs := make(map[string]*log)
	for _, e := range events {
		if logs[e.Key] == nil {
			logs[e.Key] = new(log)
		}
		logs[e.Key].add(e)
	}
	var list [][]histories.Event
	for _, l := range logs {
		list = append(list, l.events)
	}
	return list
}

// script makes a history of one key from lines such as
//
//	p1 n1 write 5       (invoke)
//	p1 ok
//	p2 n2 read
//	p2 ok 5             (what the read returned)
//	p3 n1 cas 5 6
//	p3 info, p3 fail
func script(t testing.TB, lines string) []histories.Event {
	t.Helper()
	var l log
	open := make(map[int]histories.Event)
	for line := range strings.SplitSeq(strings.TrimSpace(lines), "\n") {
		words := strings.Fields(line)
		var process int
		if _, err := fmt.Sscanf(words[0], "p%d", &process); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		numbers := func(words []string) histories.Value {
			if len(words) == 1 && words[0][0] == '[' {
				var v histories.Value
				if err := v.UnmarshalJSON([]byte(words[0])); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				return v
			}
			var list []int64
			for _, word := range words {
				var n int64
				if _, err := fmt.Sscan(word, &n); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				list = append(list, n)
			}
			switch len(list) {
			case 0:
				return histories.Nil
			case 1:
				return histories.Int(list[0])
			default:
				return histories.Ints(list...)
			}
		}
		kind, err := histories.ParseType(words[1])
		if err != nil {
			e := histories.Event{Process: process, Node: words[1], F: words[2], Key: "k17", Value: numbers(words[3:])}
			open[process] = e
			l.add(e)
			continue
		}
		e := open[process]
		e.Type = kind
		if (e.F == "read" || e.F == "add-and-get") && kind == histories.OK {
			e.Value = numbers(words[2:])
		}
		if kind == histories.Fail {
			e.Error = "not the leader"
		}
		l.add(e)
	}
	return l.events
}

func TestViolationsAreExplained(t *testing.T) {
	for name, test := range map[string]struct {
		history string
		core    int
		says    []string
	}{
		"a stale read": {
			"p1 n1 write 45\np1 ok\np2 n1 write 52\np2 ok\np9 n2 read\np9 ok 52\np8 n3 read\np8 ok 45\np8 n3 read\np8 ok 52", 3,
			[]string{"key k17: read at 0.006 s by process 8 on n3 returned 45, but 52 had been written and acknowledged before it began (process 2 on n1, 0.002–0.003 s)", "52 is the newer, since the write of 45 (process 1 on n1, 0.000–0.001 s) had ended before the write of 52"},
		},
		"a stale read of nothing": {
			"p1 n1 write 45\np1 ok\np8 n3 read\np8 ok\np9 n1 read\np9 ok 45", 2,
			[]string{"read at 0.002 s by process 8 on n3 returned nothing, as if never written, but 45 had been written and acknowledged"},
		},
		"a stale read of what a compare-and-swap had replaced": {
			"p1 n1 write 45\np2 n1 cas 45 46\np2 ok\np1 ok\np8 n3 read\np8 ok 45\np9 n3 read\np9 ok 46", 3,
			[]string{"returned 45, but 46 had been written and acknowledged", "since it replaced 45 by compare-and-swap"},
		},
		"a value seen, then an older one": {
			"p1 n1 write 45\np1 ok\np2 n1 write 52\np3 n2 read\np3 ok 52\np8 n3 read\np8 ok 45\np2 ok", 4,
			[]string{"read at 0.005 s by process 8 on n3 returned 45, but 52 had been seen before it began, by the read of 52 (process 3 on n2, 0.003–0.004 s)"},
		},
		"a value that nobody wrote": {
			"p1 n1 write 45\np1 ok\np8 n3 read\np8 ok 77", 1,
			[]string{"returned 77, but nobody ever wrote 77"},
		},
		"an aborted read": {
			"p1 n1 write 45\np1 ok\np2 n1 write 46\np2 fail\np8 n3 read\np8 ok 46", 1,
			[]string{"returned 46, but the write of 46 (process 2 on n1, 0.002–0.003 s) had failed for certain (not the leader)"},
		},
		"a read from the future": {
			"p8 n3 read\np8 ok 45\np1 n1 write 45\np1 ok", 1,
			[]string{"returned 45, before the write of 45 (process 1 on n1, 0.002–0.003 s) began"},
		},
		"two writes in opposite orders": {
			"p1 n1 write 1\np2 n2 write 2\np3 n1 read\np4 n2 read\np3 ok 1\np4 ok 2\np3 n1 read\np4 n2 read\np3 ok 2\np4 ok 1\np1 ok\np2 ok", 6,
			[]string{"two writes were seen in opposite orders: 1 and then 2 by the read of 1 (process 3 on n1, 0.002–0.004 s) and the read of 2", "but 2 and then 1 by the read of 2 (process 4 on n2"},
		},
		"a write that took effect twice": {
			"p1 n1 write 1\np1 ok\np2 n2 write 2\np2 ok\np3 n1 read\np3 ok 2\np4 n1 read\np4 ok 1\np5 n2 read\np5 ok 1", 3,
			[]string{"1 came back after it had been overwritten", "may have taken effect twice"},
		},
		"a lost write": {
			"p1 n1 write 1\np1 ok\np2 n2 write 2\np2 ok\np3 n1 read\np3 ok 1\np4 n2 read\np4 ok 1\np5 n3 read\np5 ok 1", 3,
			[]string{"the write of 2 (process 2 on n2, 0.002–0.003 s) was acknowledged and then lost", "3 later reads, on n1, n2, n3, returned the older 1"},
		},
		"two compare-and-swaps from one value": {
			"p1 n1 write 1\np1 ok\np2 n2 cas 1 2\np3 n3 cas 1 3\np2 ok\np3 ok", 3,
			[]string{"two compare-and-swaps from 1 both succeeded", "one update was lost"},
		},
		"a compare-and-swap of what was never there": {
			"p1 n1 write 1\np1 ok\np2 n2 cas 8 9\np2 ok", 1,
			[]string{"compare-and-swap at 0.002 s by process 2 on n2 found 8 and replaced it by 9, but nobody ever wrote 8"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			result := judged(t, ofRegisters(), script(t, test.history))
			if result.Verdict != checkers.Invalid {
				t.Fatalf("%s: %s", result.Verdict, result.Summary)
			}
			v := result.Linearizability.Violations[0]
			t.Log(v.Explanation)
			for _, says := range test.says {
				if !strings.Contains(v.Explanation, says) {
					t.Errorf("it does not say %q", says)
				}
			}
			if len(v.Core) > test.core {
				t.Errorf("a core of %d:\n%s", len(v.Core), dump(v.Core))
			}
			if v.Key != "k17" || v.At == 0 || len(v.Around) == 0 || !strings.Contains(result.Summary, v.Explanation) {
				t.Errorf("key %q, at %s, %d around, summary %q", v.Key, v.At, len(v.Around), result.Summary)
			}
		})
	}
}

func TestOrdersThatExistAreFound(t *testing.T) {
	for name, history := range map[string]string{
		"a read of a concurrent write":              "p1 n1 write 1\np2 n1 read\np2 ok 1\np3 n1 read\np3 ok 1\np1 ok",
		"an unknown write seen much later":          "p1 n1 write 1\np1 info\np2 n1 read\np2 ok\np3 n1 read\np3 ok 1",
		"an unknown write never seen":               "p1 n1 write 1\np1 info\np2 n1 read\np2 ok\np3 n1 read\np3 ok",
		"a failed write never seen":                 "p1 n1 write 1\np1 fail\np2 n1 read\np2 ok",
		"an unknown swap that finds something else": "p1 n1 write 1\np1 ok\np2 n1 cas 7 8\np2 info\np3 n1 read\np3 ok 1",
		"a chain of unknown swaps, the last seen":   "p1 n1 write 1\np1 info\np2 n1 cas 1 2\np2 info\np3 n1 cas 2 3\np3 info\np4 n1 read\np4 ok 3",
		"two writes under way, seen in one order":   "p1 n1 write 1\np2 n2 write 2\np3 n1 read\np3 ok 2\np4 n1 read\np4 ok 1\np1 ok\np2 ok",
	} {
		t.Run(name, func(t *testing.T) {
			if result := judged(t, ofRegisters(), script(t, history)); result.Verdict != checkers.Valid {
				t.Errorf("%s: %s", result.Verdict, result.Summary)
			}
		})
	}
}

func TestWithoutOperationsNothingIsValid(t *testing.T) {
	for name, history := range map[string][]histories.Event{
		"empty":       nil,
		"all failed":  script(t, "p1 n1 write 1\np1 fail"),
		"only faults": {{Process: histories.Nemesis, Type: histories.Info, Fault: &histories.Fault{ID: 1}}},
	} {
		if result := judged(t, ofRegisters(), history); result.Verdict != checkers.Unknown {
			t.Errorf("%s: %s: %s", name, result.Verdict, result.Summary)
		}
	}
}

// A model of another kind must not be mistreated: here a read of unknown outcome matters,
// since each read takes a number.
func TestOtherModelsAreCheckedWithoutShortcuts(t *testing.T) {
	tickets := porcupine.Model{
		Init: func() any { return int64(0) },
		Step: func(state, input, _ any) (bool, any) {
			next := state.(int64) + 1
			op := input.(histories.Operation)
			return op.Type != histories.OK || op.Output.Equal(histories.Int(next)), next
		},
	}
	good := script(t, "p1 n1 read\np1 ok 1\np2 n1 read\np2 info\np3 n1 read\np3 ok 3")
	bad := script(t, "p1 n1 read\np1 ok 1\np3 n1 read\np3 ok 3")
	if result := judged(t, &Checker{Model: tickets}, good); result.Verdict != checkers.Valid {
		t.Errorf("the unknown read was left out: %s", result.Summary)
	}
	result := judged(t, &Checker{Model: tickets}, bad)
	if result.Verdict != checkers.Invalid {
		t.Fatalf("%s: %s", result.Verdict, result.Summary)
	}
	if v := result.Linearizability.Violations[0]; len(v.Core) != 2 || !strings.Contains(v.Explanation, "becomes impossible") {
		t.Errorf("%+v", v)
	}
}

func TestRepeatedValuesAreCheckedWithoutShortcuts(t *testing.T) {
	// The unknown write of 1 explains the last read, though the first write of 1 was
	// overwritten.
	again := script(t, "p1 n1 write 1\np1 ok\np2 n1 write 2\np2 ok\np3 n1 write 1\np3 info\np4 n1 read\np4 ok 1")
	if result := judged(t, ofRegisters(), again); result.Verdict != checkers.Valid {
		t.Errorf("%s: %s", result.Verdict, result.Summary)
	}
	// Here both unknown writes of 1 must have taken effect.
	both := script(t, "p1 n1 write 1\np1 info\np4 n1 read\np4 ok 1\np2 n1 write 2\np2 ok\np4 n1 read\np4 ok 2\np3 n1 write 1\np3 info\np4 n1 read\np4 ok 1")
	if result := judged(t, ofRegisters(), both); result.Verdict != checkers.Valid {
		t.Errorf("%s: %s", result.Verdict, result.Summary)
	}
	stale := script(t, "p1 n1 write 1\np1 ok\np2 n1 write 2\np2 ok\np3 n1 write 2\np3 ok\np4 n1 read\np4 ok 1")
	if result := judged(t, ofRegisters(), stale); result.Verdict != checkers.Invalid {
		t.Errorf("%s: %s", result.Verdict, result.Summary)
	}
}

// hard makes a key history that no search finishes: many concurrent writes, and a read
// that none of their orders explains.
func hard(key string, l *log, process int) {
	const writers = 40
	for i := range writers {
		l.add(histories.Event{Process: process + i, F: "write", Key: key, Value: histories.Int(int64(i + 1))})
	}
	for _, value := range []int64{1, 2, 1} {
		l.add(histories.Event{Process: process + writers, F: "read", Key: key})
		l.add(histories.Event{Process: process + writers, F: "read", Key: key, Type: histories.OK, Value: histories.Int(value)})
	}
	for i := range writers {
		l.add(histories.Event{Process: process + i, F: "write", Key: key, Value: histories.Int(int64(i + 1)), Type: histories.OK})
	}
}

func easy(key string, l *log, process int) {
	l.add(histories.Event{Process: process, F: "write", Key: key, Value: histories.Int(1)})
	l.add(histories.Event{Process: process, F: "write", Key: key, Value: histories.Int(1), Type: histories.OK})
}

func TestTheTimeBudgetEndsInUnknown(t *testing.T) {
	var l log
	hard("k1", &l, 0)
	easy("k2", &l, 900)
	c := ofAnything()
	c.Limits.Timeout = 100 * time.Millisecond
	start := time.Now()
	result := judged(t, c, l.events)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("a budget of %s took %s", c.Limits.Timeout, took)
	}
	e := result.Linearizability
	if result.Verdict != checkers.Unknown || len(e.Undecided) != 1 || e.Undecided[0].Key != "k1" || !strings.Contains(result.Summary, "k1 (the time budget of 100ms ended)") {
		t.Errorf("%s: %s", result.Verdict, result.Summary)
	}
}

func TestTheMemoryBudgetEndsInUnknown(t *testing.T) {
	var l log
	hard("k1", &l, 0)
	easy("k2", &l, 900)
	c := ofAnything()
	c.Limits = checkers.Limits{Memory: 32 << 20, Timeout: time.Minute}
	var most atomic.Uint64
	step := c.Model.Step
	c.Model.Step = func(state, input, output any) (bool, any) {
		if rand.IntN(1000) == 0 {
			most.Store(max(most.Load(), heap()))
		}
		return step(state, input, output)
	}
	runtime.GC()
	before := heap()
	result := judged(t, c, l.events)
	e := result.Linearizability
	if result.Verdict != checkers.Unknown || len(e.Undecided) != 1 || !strings.Contains(result.Summary, "k1 (the memory budget of 32 MiB ended)") {
		t.Errorf("%s: %s", result.Verdict, result.Summary)
	}
	// Between two looks the heap may grow a little more, and garbage counts here.
	if grown := most.Load() - before; most.Load() > before && grown > 8*c.Limits.Memory {
		t.Errorf("the heap grew by %s, the budget is %s", fmt.Sprint(grown>>20, " MiB"), fmt.Sprint(c.Limits.Memory>>20, " MiB"))
	}
}

func TestAViolationCountsEvenIfOtherKeysAreUndecided(t *testing.T) {
	var l log
	hard("k1", &l, 0)
	for _, e := range script(t, "p801 n1 write 1\np801 ok\np802 n1 read\np802 ok") {
		l.add(e)
	}
	c := ofAnything()
	c.Limits.Timeout, c.Workers = 100*time.Millisecond, 1
	result := judged(t, c, l.events)
	if e := result.Linearizability; result.Verdict != checkers.Invalid || len(e.Violations) != 1 || e.Violations[0].Key != "k17" || len(e.Undecided) != 1 {
		t.Errorf("%s: %s", result.Verdict, result.Summary)
	}
}

func TestAnInterruptedCheckIsUnknown(t *testing.T) {
	var l log
	hard("k1", &l, 0)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	result := ofAnything().Check(ctx, &checkers.Run{History: l.events})
	if result.Verdict != checkers.Unknown || !strings.Contains(result.Summary, "interrupted") {
		t.Errorf("%s: %s", result.Verdict, result.Summary)
	}
}

func TestAModelThatPanicsIsUnknown(t *testing.T) {
	broken := ofAnything()
	broken.Model.Step = func(any, any, any) (bool, any) { panic("no such state") }
	result := judged(t, broken, script(t, "p1 n1 write 1\np1 ok"))
	if result.Verdict != checkers.Unknown || !strings.Contains(result.Summary, "the model failed: no such state") || !strings.Contains(result.Summary, "linearizability_test.go") {
		t.Errorf("%s: %s", result.Verdict, result.Summary)
	}
}

func TestNoMoreKeysAreJudgedAtOnceThanWorkersSay(t *testing.T) {
	var l log
	for i := range 50 {
		easy(fmt.Sprint("k", i), &l, i)
	}
	c := ofAnything()
	c.Workers = 3
	var now, most atomic.Int64
	step := c.Model.Step
	c.Model.Step = func(state, input, output any) (bool, any) {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		time.Sleep(time.Millisecond)
		return step(state, input, output)
	}
	if result := judged(t, c, l.events); result.Verdict != checkers.Valid || most.Load() > 3 {
		t.Errorf("%s, %d at once", result.Verdict, most.Load())
	}
}

func TestPicturesAreDrawn(t *testing.T) {
	c := ofRegisters()
	c.Limits.Dir = t.TempDir()
	events := script(t, "p1 n1 write 45\np1 ok\np2 n1 write 52\np2 ok\np8 n3 read\np8 ok 45")
	for i := range events {
		events[i].Key = "../k<1>"
	}
	v := judged(t, c, events).Linearizability.Violations[0]
	if v.Picture != "porcupine-___k_1_.html" {
		t.Errorf("a picture called %q", v.Picture)
	}
	data, err := os.ReadFile(filepath.Join(c.Limits.Dir, v.Picture))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), "process 8 on n3") {
		t.Error("the picture does not name the process")
	}
	c.Limits.Dir = filepath.Join(c.Limits.Dir, "none")
	if v := judged(t, c, events).Linearizability.Violations[0]; v.Picture != "" {
		t.Error("a picture that could not be written is mentioned")
	}
}

func TestEvidenceSurvivesJSON(t *testing.T) {
	var l log
	hard("k1", &l, 0)
	for _, e := range script(t, "p801 n1 write 1\np801 info\np802 n1 read\np802 ok 1\np803 n1 read\np803 ok") {
		l.add(e)
	}
	c := ofAnything()
	c.Limits.Timeout = 50 * time.Millisecond
	want := judged(t, c, l.events)
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got checkers.Result
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(histories.Value.Equal), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

func TestManyViolationsAreOrderedByTime(t *testing.T) {
	var l log
	for i := range 30 {
		for _, e := range script(t, "p1 n1 write 1\np1 ok\np2 n1 read\np2 ok") {
			e.Key = fmt.Sprint("k", 100-i)
			e.Process += 10 * i
			l.add(e)
		}
	}
	result := judged(t, ofRegisters(), l.events)
	violations := result.Linearizability.Violations
	if len(violations) != 30 || violations[0].Key != "k100" || !slices.IsSortedFunc(violations, func(a, b checkers.Violation) int { return int(a.At - b.At) }) {
		t.Errorf("%d violations, the first of %s", len(violations), violations[0].Key)
	}
	if !strings.Contains(result.Summary, "29 more of 30 keys") {
		t.Error(result.Summary)
	}
}

// BenchmarkRun judges a run as the defaults make it: 30,000 operations on keys of 120.
func BenchmarkRun(b *testing.B) {
	var l log
	for key := range 250 {
		for _, e := range simulate(rand.New(rand.NewPCG(uint64(key), 4)), 3, 1, 360) {
			e.Key, e.Process = fmt.Sprint("k", key), e.Process+1000*key
			l.add(e)
		}
	}
	operations := len(histories.Operations(l.events))
	for b.Loop() {
		if result := ofRegisters().Check(context.Background(), &checkers.Run{History: l.events}); result.Verdict != checkers.Valid {
			b.Fatal(result.Summary)
		}
	}
	b.ReportMetric(float64(operations)*float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

// A model may have its step with a context only.
func TestAModelWithAContextIsExplainedToo(t *testing.T) {
	c := ofAnything()
	step := c.Model.Step
	c.Model.Step = nil
	c.Model.StepContext = func(_ context.Context, state, input, output any) (bool, any) { return step(state, input, output) }
	c.Model.DescribeState = func(state any) string { return "the value " + state.(string) }
	result := judged(t, c, script(t, "p1 n1 write 45\np1 ok\np2 n1 write 52\np2 ok\np8 n3 read\np8 ok 45"))
	if result.Verdict != checkers.Invalid || !strings.Contains(result.Summary, "after which the state is the value 52") {
		t.Errorf("%s: %s", result.Verdict, result.Summary)
	}
}
