package search

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"capsize/checkers/internal/soak"
	"capsize/checkers/linearizability/registers"
)

// call is an operation of the models below.
type call struct {
	f    string
	a, b int
	// lost: nobody knows whether it took effect. Then it may do nothing.
	lost bool
}

// object is a model with a way to draw operations and their right answers.
type object struct {
	name  string
	model porcupine.Model
	draw  func(r *rand.Rand) call
}

// known is the model, half of the time with what is known of reads.
func (o object) known(i int) Model {
	if i%2 == 0 {
		return Model{Model: o.model}
	}
	return Model{Model: o.model, Reads: func(input any) bool { return input.(call).f == "read" }}
}

func plain(step func(state string, c call, out string) (string, bool), equal, hash bool) porcupine.Model {
	m := porcupine.Model{
		Init: func() any { return "" },
		Step: func(state, input, output any) (bool, any) {
			c := input.(call)
			out, _ := output.(string)
			next, ok := step(state.(string), c, out)
			if c.lost {
				return true, next
			}
			return ok, next
		},
	}
	if equal {
		m.Equal = func(a, b any) bool { return a.(string) == b.(string) }
	}
	if hash {
		m.Hash = func(s any) uint64 { return uint64(len(s.(string))) } // a bad one is right too
	}
	return m
}

// answer is what a right object answers, and the state after it.
func answer(o object, state string, c call) (out, next string) {
	for n := range 400 {
		for _, out := range []string{strconv.Itoa(n), answers(state, n)} {
			c.lost = false
			if ok, next := o.model.Step(state, c, out); ok {
				return out, next.(string)
			}
		}
	}
	panic(fmt.Sprintf("%s has no answer to %+v in %q", o.name, c, state))
}

func answers(state string, n int) string { return [...]string{state, "", "ok", "no"}[n%4] }

func objects() []object {
	register := func(state string, c call, out string) (string, bool) {
		if state == "" {
			state = "0"
		}
		switch c.f {
		case "write":
			return strconv.Itoa(c.a), true
		case "cas":
			if state == strconv.Itoa(c.a) {
				return strconv.Itoa(c.b), out == "ok"
			}
			return state, out == "no"
		default:
			return state, out == state
		}
	}
	list := func(state string, c call, out string) (string, bool) {
		if c.f == "append" {
			return state + strconv.Itoa(c.a), true
		}
		return state, out == state
	}
	queue := func(state string, c call, out string) (string, bool) {
		switch {
		case c.f == "enqueue":
			return state + strconv.Itoa(c.a), true
		case state == "":
			return state, out == ""
		default:
			return state[1:], out == state[:1]
		}
	}
	counter := func(state string, c call, out string) (string, bool) {
		n, _ := strconv.Atoi(state)
		if c.f == "add" {
			return strconv.Itoa(n + c.a), true
		}
		return state, out == strconv.Itoa(n)
	}
	draw := func(change, look string) func(r *rand.Rand) call {
		return func(r *rand.Rand) call {
			return call{f: []string{change, look}[r.IntN(2)], a: 1 + r.IntN(4), b: 1 + r.IntN(4)}
		}
	}
	mixed := func(r *rand.Rand) call {
		return call{f: []string{"write", "cas", "read"}[r.IntN(3)], a: r.IntN(3), b: r.IntN(3)}
	}
	return []object{
		{"register", plain(register, false, false), mixed},
		{"register with equal", plain(register, true, false), mixed},
		{"register with equal and hash", plain(register, true, true), mixed},
		{"list", plain(list, true, false), draw("append", "read")},
		{"queue", plain(queue, true, true), draw("enqueue", "dequeue")},
		{"counter", plain(counter, false, true), draw("add", "read")},
	}
}

// history draws a small history: clients that overlap, some calls lost, the answers of a right
// object in a right order, of which some are changed.
func history(r *rand.Rand, o object, n int) []porcupine.Operation {
	type run struct {
		op   porcupine.Operation
		took bool
	}
	var done []porcupine.Operation
	open := map[int]*run{}
	state, now := "", int64(0)
	take := func(a *run) {
		if a.took {
			return
		}
		a.took = true
		out, next := answer(o, state, a.op.Input.(call))
		a.op.Output, state = out, next
	}
	clients := 1 + r.IntN(4)
	for len(done)+len(open) < n || len(open) > 0 {
		if r.IntN(3) > 0 {
			now++
		}
		client := r.IntN(clients)
		switch a := open[client]; {
		case a == nil && len(done)+len(open) < n:
			open[client] = &run{op: porcupine.Operation{ClientId: client, Input: o.draw(r), Call: now}}
		case a == nil:
		case r.IntN(8) == 0: // lost; it may have taken effect
			c := a.op.Input.(call)
			c.lost = true
			a.op.Input, a.op.Return, a.op.Output = c, Never, nil
			done = append(done, a.op)
			delete(open, client)
		case r.IntN(2) == 0:
			take(a)
		default:
			take(a)
			a.op.Return = now
			done = append(done, a.op)
			delete(open, client)
		}
	}
	if r.IntN(2) == 0 { // something is wrong, perhaps
		for range 1 + r.IntN(2) {
			i := r.IntN(len(done))
			done[i].Output = done[r.IntN(len(done))].Output
		}
	}
	r.Shuffle(len(done), func(i, j int) { done[i], done[j] = done[j], done[i] })
	return done
}

// brute tries all orders.
func brute(model porcupine.Model, operations []porcupine.Operation) bool {
	used := make([]bool, len(operations))
	var from func(state any, left int) bool
	from = func(state any, left int) bool {
		if left == 0 {
			return true
		}
		for i, op := range operations {
			may := !used[i]
			for j, other := range operations {
				may = may && (used[j] || j == i || other.Return >= op.Call)
			}
			if !may {
				continue
			}
			ok, next := model.Step(state, op.Input, op.Output)
			if !ok {
				continue
			}
			used[i] = true
			if from(next, left-1) {
				return true
			}
			used[i] = false
		}
		return false
	}
	return from(model.Init(), len(operations))
}

func TestTheSearchAnswersAsPorcupineAndAsTryingEverything(t *testing.T) {
	for _, o := range objects() {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(1, uint64(len(o.name))))
			legal := 0
			for i := range soak.Count(t, 4000) {
				h := history(r, o, 2+r.IntN(9))
				got := Check(context.Background(), o.known(i), h, Limits{})
				want := Illegal
				if porcupine.CheckOperations(o.model, h) {
					want = Linearizable
					legal++
				}
				if got.Outcome != want {
					t.Fatalf("history %d: %s, Porcupine says %s\n%s", i, got.Outcome, want, show(h))
				}
				if len(h) <= 6 && brute(o.model, h) != (want == Linearizable) {
					t.Fatalf("history %d: %s, but not by trying everything\n%s", i, want, show(h))
				}
				if want == Linearizable {
					if err := Replay(o.model, h, got.Order); err != nil {
						t.Fatalf("history %d: %v\n%s", i, err, show(h))
					}
				}
			}
			if n := soak.Count(t, 4000); legal < n/4 || legal > n*9/10 {
				t.Errorf("%d of %d are linearizable: the histories are too much alike", legal, n)
			}
		})
	}
}

func show(h []porcupine.Operation) string {
	var b strings.Builder
	for i, op := range h {
		fmt.Fprintf(&b, "%d: client %d [%d, %d] %+v → %v\n", i, op.ClientId, op.Call, op.Return, op.Input, op.Output)
	}
	return b.String()
}

// drawRegister draws a register history of few values, as registers.Op.
func drawRegister(r *rand.Rand, n int) []registers.Op {
	values := 1 + int64(r.IntN(4))
	value := func() int64 {
		if r.IntN(6) == 0 {
			return registers.Nothing
		}
		return 1 + r.Int64N(values)
	}
	ops := make([]registers.Op, n)
	state, now := registers.Nothing, int64(0)
	for i := range ops {
		now += int64(r.IntN(3))
		op := registers.Op{Kind: registers.Kind(r.IntN(4)), Value: value(), Expected: value(), Call: now - int64(r.IntN(6)), Return: now + int64(r.IntN(6))}
		if r.IntN(3) > 0 { // right at this moment
			switch op.Kind {
			case registers.Read:
				op.Value = state
			case registers.Swap:
				op.Expected = state
			case registers.Refused:
				for op.Expected == state {
					op.Expected = value() + 1
				}
			}
		}
		if took := r.IntN(6) > 0; took && (op.Kind == registers.Write || op.Kind == registers.Swap) {
			state = op.Value
		}
		if r.IntN(6) == 0 {
			op.Return = Never
		}
		ops[i] = op
	}
	return ops
}

// registerModel is a register for Porcupine; its inputs are registers.Op.
func registerModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return registers.Nothing },
		Step: func(state, input, _ any) (bool, any) {
			op := input.(registers.Op)
			lost := op.Return == Never
			switch op.Kind {
			case registers.Read:
				return lost || state == op.Value, state
			case registers.Write:
				return true, op.Value
			case registers.Swap:
				if state != op.Expected {
					return lost, state
				}
				return true, op.Value
			default:
				return lost || state != op.Expected, state
			}
		},
	}
}

func forPorcupine(ops []registers.Op) []porcupine.Operation {
	list := make([]porcupine.Operation, len(ops))
	for i, op := range ops {
		list[i] = porcupine.Operation{Input: op, Call: op.Call, Return: op.Return}
	}
	return list
}

func TestTheRegisterSearchAnswersAsPorcupine(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 0))
	legal, n := 0, soak.Count(t, 60_000)
	for i := range n {
		ops := drawRegister(r, 1+r.IntN(9))
		h := forPorcupine(ops)
		want := porcupine.CheckOperations(registerModel(), h)
		got := CheckRegister(context.Background(), ops, Limits{})
		if (got.Outcome == Linearizable) != want {
			t.Fatalf("history %d: %s, Porcupine says %v\n%s", i, got.Outcome, want, show(h))
		}
		if want {
			legal++
			if err := Replay(registerModel(), h, got.Order); err != nil {
				t.Fatalf("history %d: %v\n%s", i, err, show(h))
			}
		}
	}
	if legal < n/5 || legal > n*4/5 {
		t.Errorf("%d of %d are linearizable: the histories are too much alike", legal, n)
	}
}

func TestAWrongOrderIsNotAccepted(t *testing.T) {
	h := forPorcupine([]registers.Op{
		{Kind: registers.Write, Value: 1, Call: 0, Return: 1}, {Kind: registers.Read, Value: 1, Call: 2, Return: 3}, {Kind: registers.Write, Value: 2, Call: 2, Return: 4},
		{Kind: registers.Write, Value: 3, Call: 2, Return: Never},
	})
	for _, right := range [][]int{{0, 1, 2}, {0, 1, 2, 3}} {
		if err := Replay(registerModel(), h, right); err != nil {
			t.Errorf("%v: %v", right, err)
		}
	}
	for _, wrong := range [][]int{{}, {0, 2, 1}, {0, 1}, {1, 0, 2}, {0, 1, 2, 2}, {0, 1, 2, 7}, {0, 1, 2, -1}, {2, 0, 1}} {
		if Replay(registerModel(), h, wrong) == nil {
			t.Errorf("%v is accepted", wrong)
		}
	}
}

// hard returns a history that takes for ever: concurrent writes, and a read of nobody's value.
func hard(n int) []porcupine.Operation {
	var h []porcupine.Operation
	for i := range n {
		h = append(h, porcupine.Operation{Input: call{f: "append", a: i % 10}, Call: 0, Return: 100})
	}
	return append(h, porcupine.Operation{Input: call{f: "read"}, Output: "x", Call: 200, Return: 201})
}

func TestASearchEndsAtItsLimits(t *testing.T) {
	model := objects()[3].model
	ctx, cancel := context.WithTimeoutCause(context.Background(), 50*time.Millisecond, errors.New("the time is over"))
	defer cancel()
	began := time.Now()
	if got := Check(ctx, Model{Model: model}, hard(40), Limits{}); got.Outcome != Unknown || got.Reason != "the time is over" || time.Since(began) > 5*time.Second {
		t.Errorf("%+v after %s", got, time.Since(began))
	}
	got := Check(context.Background(), Model{Model: model}, hard(40), Limits{Memory: 4 << 20})
	if got.Outcome != Unknown || !strings.Contains(got.Reason, "memory budget of 4 MiB") {
		t.Errorf("%s: %s", got.Outcome, got.Reason)
	}
	if got := Check(context.Background(), Model{Model: model}, hard(5), Limits{Memory: 4 << 20}); got.Outcome != Illegal || len(got.Order) != 5 {
		t.Errorf("%+v", got)
	}
}

func TestAModelThatPanicsIsUnknown(t *testing.T) {
	broken := porcupine.Model{Init: func() any { return 0 }, Step: func(_, _, _ any) (bool, any) { panic("oh") }}
	got := Check(context.Background(), Model{Model: broken}, hard(1), Limits{})
	if got.Outcome != Unknown || !strings.Contains(got.Reason, "oh") {
		t.Errorf("%+v", got)
	}
	broken.Init = func() any { panic("at once") }
	if got := Check(context.Background(), Model{Model: broken}, hard(1), Limits{}); got.Outcome != Unknown || !strings.Contains(got.Reason, "at once") {
		t.Errorf("%+v", got)
	}
}

func TestNoOperationsAreLinearizable(t *testing.T) {
	if got := Check(context.Background(), Model{Model: registerModel()}, nil, Limits{}); got.Outcome != Linearizable || len(got.Order) != 0 {
		t.Errorf("%+v", got)
	}
	if got := CheckRegister(context.Background(), nil, Limits{}); got.Outcome != Linearizable {
		t.Errorf("%+v", got)
	}
}

func TestTheLongestBeginningIsOneThatReplays(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 0))
	for range 3000 {
		ops := drawRegister(r, 1+r.IntN(9))
		got := CheckRegister(context.Background(), ops, Limits{})
		if got.Outcome != Illegal {
			continue
		}
		var beginning []registers.Op
		for _, i := range got.Order {
			beginning = append(beginning, ops[i])
		}
		order := make([]int, len(beginning))
		for i := range order {
			order[i] = i
		}
		if err := Replay(registerModel(), forPorcupine(beginning), order); err != nil {
			t.Fatalf("%v\n%s", err, show(forPorcupine(ops)))
		}
	}
}

// busy draws a right register history of clients that hardly pause, half of it writes.
func busy(clients, n int, seed uint64) []registers.Op {
	r := rand.New(rand.NewPCG(seed, 0))
	ops := make([]registers.Op, 0, n)
	free := make([]int64, clients)
	for len(ops) < n {
		c := 0
		for i := range free {
			if free[i] < free[c] {
				c = i
			}
		}
		call := free[c] + r.Int64N(100)
		end := call + 200 + r.Int64N(2000)
		free[c] = end + 1
		kind := registers.Kind(r.IntN(2))
		op := registers.Op{Kind: kind, Call: call, Return: end, Value: int64(len(ops) + 1)}
		ops = append(ops, op)
	}
	// Each takes effect at some moment within; reads find what is there.
	at := make([]int64, n)
	order := make([]int, n)
	for i, op := range ops {
		at[i], order[i] = op.Call+r.Int64N(op.Return-op.Call+1), i
	}
	slices.SortFunc(order, func(a, b int) int { return int(at[a] - at[b]) })
	state := registers.Nothing
	for _, i := range order {
		if ops[i].Kind == registers.Write {
			state = ops[i].Value
		} else {
			ops[i].Value = state
		}
	}
	for i := range ops {
		if r.IntN(1000) == 0 {
			ops[i].Return = Never
		}
	}
	return ops
}

func BenchmarkAnyModel(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		h := forPorcupine(busy(5, n, 1))
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got := Check(context.Background(), Model{Model: registerModel()}, h, Limits{}); got.Outcome != Linearizable {
					b.Fatal(got.Outcome, got.Reason)
				}
			}
		})
	}
}

func BenchmarkRegister(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		ops := busy(5, n, 1)
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got := CheckRegister(context.Background(), ops, Limits{}); got.Outcome != Linearizable {
					b.Fatal(got.Outcome, got.Reason)
				}
			}
		})
	}
}
