package linearizability

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"

	"capsize/checkers"
	"capsize/checkers/linearizability/search"
	"capsize/histories"
)

// collection is a model of a list, a set or a counter: its state is the elements.
func collection(object Object) porcupine.Model {
	text := func(list []int64) string { return histories.Ints(list...).String() }
	parse := func(state any) []int64 {
		var v histories.Value
		if err := v.UnmarshalJSON([]byte(state.(string))); err != nil {
			panic(err)
		}
		list, _ := v.Ints()
		return list
	}
	return porcupine.Model{
		Init: func() any { return "[]" },
		Step: func(state, input, _ any) (bool, any) {
			op, list := input.(histories.Operation), parse(state)
			known := op.Type == histories.OK
			if op.F == "read" {
				got, _ := op.Output.Elements()
				if object == Counter {
					sum, _ := op.Output.Int()
					return !known || sum == int64(len(list)), state
				}
				if object == Set {
					got = slices.Sorted(slices.Values(got))
				}
				return !known || text(got) == state, state
			}
			element, _ := op.Input.Int()
			list = append(slices.Clone(list), element)
			if object == Set {
				slices.Sort(list)
			}
			result, _ := op.Output.Int()
			return !known || op.F != "add-and-get" || result == int64(len(list)), text(list)
		},
		DescribeState: func(state any) string { return state.(string) },
	}
}

func of(object Object) *Checker { return &Checker{Model: collection(object), Object: object} }

// grow plays clients of a right collection, with operations of unknown outcome.
func grow(random *rand.Rand, object Object, clients, steps int) []histories.Event {
	var l log
	var list []int64
	type running struct {
		e    histories.Event
		took bool
		got  histories.Value
	}
	open := make([]*running, clients)
	process, next := clients, int64(0)
	ids := make([]int, clients)
	for i := range ids {
		ids[i] = i
	}
	take := func(r *running) {
		if r.took {
			return
		}
		r.took, r.got = true, r.e.Value
		element, _ := r.e.Value.Int()
		switch {
		case r.e.F != "read":
			list = append(list, element)
			if r.e.F == "add-and-get" {
				r.got = histories.Int(int64(len(list)))
			}
		case object == Counter:
			r.got = histories.Int(int64(len(list)))
		default:
			r.got = histories.Ints(slices.Clone(list)...)
		}
	}
	for range steps {
		c := random.IntN(clients)
		switch r := open[c]; {
		case r == nil:
			e := histories.Event{Process: ids[c], F: "read", Key: "k", Node: "n1"}
			if random.IntN(2) == 0 {
				next++
				e.F, e.Value = map[Object]string{List: "append", Set: "add", Counter: "add"}[object], histories.Int(next)
				if object == Counter {
					e.Value = histories.Int(1)
					if random.IntN(2) == 0 {
						e.F = "add-and-get"
					}
				}
			}
			l.add(e)
			open[c] = &running{e: e}
		case random.IntN(3) == 0:
			take(r)
		case random.IntN(10) == 0:
			r.e.Type, r.e.Value = histories.Info, histories.Nil
			l.add(r.e)
			open[c], ids[c] = nil, process
			process++
		default:
			take(r)
			r.e.Type, r.e.Value = histories.OK, r.got
			l.add(r.e)
			open[c] = nil
		}
	}
	return l.events
}

// bend changes what some operations returned.
func bend(random *rand.Rand, events []histories.Event) {
	for range 1 + random.IntN(2) {
		e := &events[random.IntN(len(events))]
		list, some := e.Value.Ints()
		n, number := e.Value.Int()
		switch {
		case e.Type != histories.OK:
		case e.F == "read" && some && len(list) > 0:
			e.Value = histories.Ints(slices.Delete(slices.Clone(list), 0, 1)...)
			if random.IntN(2) == 0 {
				e.Value = histories.Ints(list[:len(list)-1]...)
			}
		case number && e.F != "append" && e.F != "add":
			e.Value = histories.Int(n + random.Int64N(3) - 1)
		}
	}
}

func TestObjectsAreDecidedByTheirOrderAsPorcupineDoes(t *testing.T) {
	for _, object := range []Object{List, Set, Counter} {
		t.Run(string(object), func(t *testing.T) {
			t.Parallel()
			budget := newBudget(t.Context(), checkers.Limits{})
			defer budget.close()
			illegal := 0
			for seed := range uint64(3000 / share) {
				random := rand.New(rand.NewPCG(seed, 5))
				events := grow(random, object, 2+random.IntN(3), 10+random.IntN(20))
				if seed%3 > 0 {
					bend(random, events)
				}
				operations := histories.Operations(events)
				want := search.Check(t.Context(), of(object).model(), forPorcupine(operations), search.Limits{}).Outcome == search.Linearizable
				got := of(object).decide(budget, operations)
				if got.method != ByOrder || (got.outcome == search.Linearizable) != want {
					t.Fatalf("seed %d: %s by %s, legal is %v\n%s", seed, got.outcome, got.method, want, dump(operations))
				}
				at, alarm := watch(of(object).Live(), events)
				if alarm != nil && want {
					t.Fatalf("seed %d: the live check raised an alarm at event %d: %s\n%s", seed, at, alarm.Why, dump(operations))
				}
				if want {
					continue
				}
				illegal++
				v := judged(t, of(object), events).Linearizability.Violations[0]
				if !strings.HasPrefix(v.Verified, "Porcupine finds no order") || len(v.Core) == 0 || len(v.Core) > 6 {
					t.Fatalf("seed %d: %s (%s) by a core of\n%s\nof\n%s", seed, v.Explanation, v.Verified, dump(v.Core), dump(operations))
				}
			}
			if illegal < 200/share {
				t.Errorf("%d histories were illegal", illegal)
			}
		})
	}
}

func TestViolationsOfObjectsAreExplained(t *testing.T) {
	for name, test := range map[string]struct {
		object  Object
		history string
		says    string
	}{
		"a lost append":                {List, "p1 n1 append 1\np1 ok\np2 n2 append 2\np2 ok\np3 n3 read\np3 ok [1]", "key k17: 2 was lost: the append of 2 (process 2 on n2, 0.002–0.003 s) had ended before the read of [1] (process 3 on n3, 0.004–0.005 s) began, which does not have it"},
		"a list that forgets":          {List, "p1 n1 append 1\np3 n3 read\np3 ok [1]\np4 n2 read\np4 ok []\np1 ok", "1 had been seen by the read of [1] (process 3 on n3, 0.001–0.002 s) before the read of [] (process 4 on n2"},
		"an element from nowhere":      {List, "p3 n3 read\np3 ok [7]", "has 7, which nobody had begun to add"},
		"an element twice":             {List, "p1 n1 append 1\np1 ok\np3 n3 read\np3 ok [1,1]", "has 1 twice, though only the append of 1"},
		"an element before its append": {List, "p3 n3 read\np3 ok [1]\np1 n1 append 1\np1 ok", "has 1, which nobody had begun to add"},
		"two orders":                   {List, "p1 n1 append 1\np2 n1 append 2\np3 n3 read\np4 n3 read\np3 ok [1,2]\np4 ok [2,1]\np1 ok\np2 ok", "contradict each other, whichever came first: the one has"},
		"appends out of order":         {List, "p1 n1 append 1\np1 ok\np2 n1 append 2\np2 ok\np3 n3 read\np3 ok [2,1]", "shows the second without, or before, the first"},
		"a lost addition to a set":     {Set, "p1 n1 add 1\np1 ok\np2 n2 add 2\np2 ok\np3 n3 read\np3 ok [2]", "1 was lost"},
		"sets that contradict":         {Set, "p1 n1 add 1\np2 n2 add 2\np3 n3 read\np4 n3 read\np3 ok [2]\np4 ok [1]\np1 ok\np2 ok", "contradict each other"},
		"one sum twice":                {Counter, "p1 n1 add-and-get 1\np2 n2 add-and-get 1\np1 ok 1\np2 ok 1", "two additions got the same sum"},
		"a lost addition":              {Counter, "p1 n1 add 1\np1 ok\np2 n2 add 1\np2 ok\np3 n3 read\np3 ok 1", "an addition was lost"},
		"too large a sum":              {Counter, "p1 n1 add 1\np1 ok\np3 n3 read\np3 ok 2", "needs more additions than had begun"},
		"a sum that went back":         {Counter, "p1 n1 add 1\np3 n3 read\np3 ok 1\np4 n3 read\np4 ok 0\np1 ok", "the sum went back"},
		"two holders":                  {Mutex, "p1 n1 acquire\np1 ok\np2 n2 acquire\np2 ok\np1 n1 release\np1 ok", "two held it at the same time"},
	} {
		t.Run(name, func(t *testing.T) {
			checker := of(test.object)
			if test.object == Mutex {
				checker.Model = mutex()
			}
			result := judged(t, checker, script(t, test.history))
			if result.Verdict != checkers.Invalid {
				t.Fatalf("%s: %s", result.Verdict, result.Summary)
			}
			v := result.Linearizability.Violations[0]
			t.Log(v.Explanation)
			if !strings.Contains(v.Explanation, test.says) {
				t.Errorf("it does not say %q", test.says)
			}
			if !strings.HasPrefix(v.Verified, "Porcupine finds no order") {
				t.Errorf("verified: %s", v.Verified)
			}
		})
	}
}

// mutex is held by a process or by nobody.
func mutex() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return -1 },
		Step: func(state, input, _ any) (bool, any) {
			op := input.(histories.Operation)
			if op.F == "acquire" {
				return state == -1 || op.Type == histories.Info, op.Process
			}
			return state == op.Process || op.Type == histories.Info, -1
		},
	}
}

func TestRightObjectsAreLeftAlone(t *testing.T) {
	for name, test := range map[string]struct {
		object  Object
		history string
	}{
		"an append of unknown outcome, seen late": {List, "p1 n1 append 1\np1 info\np3 n3 read\np3 ok []\np4 n3 read\np4 ok [1]"},
		"a set read out of order":                 {Set, "p1 n1 add 1\np1 ok\np2 n1 add 2\np2 ok\np3 n3 read\np3 ok [2,1]"},
		"a counter with an unknown addition":      {Counter, "p1 n1 add 1\np1 info\np2 n1 add 1\np2 ok\np3 n3 read\np3 ok 1\np4 n3 read\np4 ok 2"},
		"holders one after the other":             {Mutex, "p1 n1 acquire\np1 ok\np2 n2 acquire\np1 n1 release\np1 ok\np2 ok\np2 n2 release\np2 info\np3 n1 acquire\np3 ok"},
	} {
		checker := of(test.object)
		if result := judged(t, checker, script(t, test.history)); result.Verdict != checkers.Valid {
			t.Errorf("%s: %s: %s", name, result.Verdict, result.Summary)
		}
	}
}

func TestElementsThatAreNotUniqueAreSearched(t *testing.T) {
	result := judged(t, of(List), script(t, "p1 n1 append 1\np1 ok\np2 n1 append 1\np2 ok\np3 n3 read\np3 ok [1,1]"))
	if result.Verdict != checkers.Valid || result.Linearizability.Methods[string(ByPorcupine)] != 1 {
		t.Errorf("%s by %v", result.Verdict, result.Linearizability.Methods)
	}
	if fmt.Sprint(result.Linearizability.Methods) != "map[porcupine:1]" {
		t.Error(result.Linearizability.Methods)
	}
}
