package ordered

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"

	"capsize/checkers/internal/soak"
)

// object is a kind of history: how to draw one, decide it, and decide it otherwise.
type object[Op any] struct {
	name   string
	draw   func(r *rand.Rand, n int) []Op
	check  func([]Op) Verdict
	order  func([]Op) ([]int, bool)
	replay func([]Op, []int) error
	at     func(Op) interval
	// step is the model: what an operation does to a state, which is text, and whether it fits.
	step func(state string, op Op) (string, bool)
	// only restricts an operation to some elements; nil where cores are not complete.
	only func(op Op, elements []int64) Op
	// renamed is the same history with other elements; nil where they have a meaning.
	renamed func(ops []Op) []Op
}

func (o object[Op]) porcupine(ops []Op) bool {
	var history []porcupine.Operation
	for _, op := range ops {
		history = append(history, porcupine.Operation{Input: op, Call: o.at(op).call, Return: o.at(op).end})
	}
	return porcupine.CheckOperations(porcupine.Model{
		Init: func() any { return "" },
		Step: func(state, input, _ any) (bool, any) {
			op := input.(Op)
			next, ok := o.step(state.(string), op)
			return ok || o.at(op).end == Never, next
		},
	}, history)
}

// brute tries every order of every subset that has all that returned.
func (o object[Op]) brute(ops []Op) bool {
	var from func(order []int) bool
	from = func(order []int) bool {
		if o.replay(ops, order) == nil {
			return true
		}
		for i := range ops {
			if !slices.Contains(order, i) && from(append(slices.Clone(order), i)) {
				return true
			}
		}
		return false
	}
	return from(nil)
}

// crossCheck compares the answers with Porcupine's and with trying everything.
func crossCheck[Op any](t *testing.T, o object[Op], count int) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, uint64(len(o.name))))
	legal, illegal := 0, map[Reason]int{}
	for i := range soak.Count(t, count) {
		ops := o.draw(r, 1+r.IntN(9))
		got, want := o.check(ops), o.porcupine(ops)
		if got.Outcome == Undecided {
			t.Fatalf("history %d: undecided, %s\n%s", i, got.Why, show(ops))
		}
		if (got.Outcome == Linearizable) != want {
			t.Fatalf("history %d: %s, Porcupine says %v\n%s", i, got.Reason, want, show(ops))
		}
		if len(ops) <= 5 && o.brute(ops) != want {
			t.Fatalf("history %d: Porcupine says %v, trying everything the opposite\n%s", i, want, show(ops))
		}
		if want {
			legal++
			order, ok := o.order(ops)
			if err := o.replay(ops, order); !ok || err != nil {
				t.Fatalf("history %d: the order %v: %v\n%s", i, order, err, show(ops))
			}
		} else {
			illegal[got.Reason]++
			o.checkCore(t, i, ops, got)
		}
		if o.renamed != nil {
			if again := o.check(o.renamed(ops)); again.Outcome != got.Outcome {
				t.Fatalf("history %d: with other elements it is another verdict\n%s", i, show(ops))
			}
		}
	}
	t.Logf("%d legal, %v", legal, illegal)
	if n := soak.Count(t, count); legal < n/6 || legal > n*9/10 || len(illegal) < 4 {
		t.Errorf("%d of %d are legal, reasons %v: the histories are too much alike", legal, n, illegal)
	}
}

func (o object[Op]) checkCore(t *testing.T, i int, ops []Op, got Verdict) {
	if o.only == nil {
		return
	}
	var core []Op
	for _, at := range got.Core {
		core = append(core, o.only(ops[at], got.Elements))
	}
	if len(core) == 0 || len(core) > 6 || o.porcupine(core) {
		t.Fatalf("history %d: %s, but the core of %v restricted to %v is possible\n%s", i, got.Reason, got.Core, got.Elements, show(ops))
	}
}

func show[Op any](ops []Op) string {
	var b strings.Builder
	for i, op := range ops {
		fmt.Fprintf(&b, "%d: %+v\n", i, op)
	}
	return b.String()
}

// when draws when operation i is under way: it took effect at moment 3*i.
func when(r *rand.Rand, i int) (call, end int64) {
	call, end = int64(3*i)-r.Int64N(9), int64(3*i)+r.Int64N(9)
	if r.IntN(4) == 0 { // nobody knows when it took effect
		call, end = call+r.Int64N(12), end+12
	}
	if r.IntN(12) == 0 { // not when it says
		shift := r.Int64N(16) - 8
		call, end = call+shift, end+shift
	}
	if r.IntN(7) == 0 {
		end = Never
	}
	return call, end
}

// spoil returns what a read returned, or something like it.
func spoil(r *rand.Rand, elements []int64) []int64 {
	elements = slices.Clone(elements)
	if r.IntN(8) > 0 {
		return elements
	}
	switch n := len(elements); {
	case r.IntN(3) == 0:
		return append(elements, 1+r.Int64N(8))
	case n > 0 && r.IntN(2) == 0:
		return slices.Delete(elements, 0, 1)
	case n > 1:
		i := r.IntN(n - 1)
		elements[i], elements[i+1] = elements[i+1], elements[i]
	}
	return elements
}

func lists() object[Op] {
	return object[Op]{
		name: "list", check: CheckList, order: OrderList, replay: ReplayList, at: func(op Op) interval { return op.interval() },
		draw: func(r *rand.Rand, n int) (ops []Op) {
			var list []int64
			for i := range n {
				op := Op{Read: r.IntN(2) == 0, Element: int64(i + 1)}
				op.Call, op.Return = when(r, i)
				if op.Read {
					op.Element, op.Elements = 0, spoil(r, list)
				} else if op.Return != Never || r.IntN(2) == 0 {
					list = append(list, op.Element)
				}
				if op.Read && r.IntN(8) == 0 {
					op.Call = Early
				}
				ops = append(ops, op)
			}
			return ops
		},
		step: func(state string, op Op) (string, bool) {
			if op.Read {
				return state, state == fmt.Sprint(op.Elements) || state == "" && len(op.Elements) == 0
			}
			return strings.Replace("["+strings.Trim(state, "[]")+fmt.Sprintf(" %d]", op.Element), "[ ", "[", 1), true
		},
		only: func(op Op, elements []int64) Op {
			op.Elements = slices.DeleteFunc(slices.Clone(op.Elements), func(e int64) bool { return !slices.Contains(elements, e) })
			return op
		},
		renamed: func(ops []Op) []Op {
			ops = slices.Clone(ops)
			for i := range ops {
				ops[i].Element = 1000 - 7*ops[i].Element
				ops[i].Elements = slices.Clone(ops[i].Elements)
				for j := range ops[i].Elements {
					ops[i].Elements[j] = 1000 - 7*ops[i].Elements[j]
				}
			}
			return ops
		},
	}
}

func sets() object[Op] {
	sorted := func(elements []int64) string { return fmt.Sprint(slices.Sorted(slices.Values(elements))) }
	return object[Op]{
		name: "set!", check: CheckSet, order: OrderSet, replay: ReplaySet, at: func(op Op) interval { return op.interval() },
		draw: func(r *rand.Rand, n int) (ops []Op) {
			ops = lists().draw(r, n)
			for _, op := range ops {
				r.Shuffle(len(op.Elements), func(i, j int) { op.Elements[i], op.Elements[j] = op.Elements[j], op.Elements[i] })
			}
			return ops
		},
		step: func(state string, op Op) (string, bool) {
			var in []int64
			for _, word := range strings.Fields(strings.Trim(state, "[]")) {
				n, _ := strconv.ParseInt(word, 10, 64)
				in = append(in, n)
			}
			if op.Read {
				return state, sorted(in) == sorted(op.Elements)
			}
			return sorted(append(in, op.Element)), true
		},
		only: lists().only,
	}
}

func counters() object[CounterOp] {
	return object[CounterOp]{
		name: "counter", check: CheckCounter, order: OrderCounter, replay: ReplayCounter, at: func(op CounterOp) interval { return op.interval() },
		draw: func(r *rand.Rand, n int) (ops []CounterOp) {
			sum := int64(0)
			for i := range n {
				op := CounterOp{Kind: CounterKind(r.IntN(3))}
				op.Call, op.Return = when(r, i)
				if op.Kind != Get && (op.Return != Never || r.IntN(2) == 0) {
					sum++
				}
				if op.Result = sum; r.IntN(9) == 0 {
					op.Result += r.Int64N(5) - 2
				}
				if op.Kind == Get && r.IntN(8) == 0 {
					op.Call = Early
				}
				ops = append(ops, op)
			}
			return ops
		},
		step: func(state string, op CounterOp) (string, bool) {
			sum, _ := strconv.ParseInt(state, 10, 64)
			if op.Kind != Get {
				sum++
			}
			return fmt.Sprint(sum), op.Kind == Add || op.Result == sum
		},
	}
}

func TestListsAreDecidedAsPorcupineDoes(t *testing.T)    { crossCheck(t, lists(), 30_000) }
func TestSetsAreDecidedAsPorcupineDoes(t *testing.T)     { crossCheck(t, sets(), 30_000) }
func TestCountersAreDecidedAsPorcupineDoes(t *testing.T) { crossCheck(t, counters(), 30_000) }
