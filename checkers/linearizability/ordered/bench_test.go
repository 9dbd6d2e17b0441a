package ordered

import (
	"math/rand/v2"
	"testing"
)

// growth draws the right history of a list by a few clients: half reads of the whole list.
func growth(n int) []Op {
	r := rand.New(rand.NewPCG(1, 1))
	var list []int64
	ops := make([]Op, n)
	for i := range ops {
		ops[i] = Op{Read: r.IntN(2) == 0, Call: int64(10*i) - r.Int64N(30), Return: int64(10*i) + r.Int64N(30)}
		if ops[i].Read {
			ops[i].Elements = list
		} else {
			ops[i].Element = int64(i + 1)
			list = append(list, ops[i].Element)
		}
	}
	return ops
}

func decided(b *testing.B, v Verdict) {
	if v.Outcome != Linearizable {
		b.Fatal(v)
	}
}

func BenchmarkList(b *testing.B) {
	ops := growth(10_000)
	for b.Loop() {
		decided(b, CheckList(ops))
	}
}

func BenchmarkSet(b *testing.B) {
	ops := growth(2_000)
	for b.Loop() {
		decided(b, CheckSet(ops))
	}
}

func BenchmarkCounter(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	sum := int64(0)
	ops := make([]CounterOp, 1_000_000)
	for i := range ops {
		ops[i] = CounterOp{Kind: CounterKind(r.IntN(3)), Call: int64(10*i) - r.Int64N(30), Return: int64(10*i) + r.Int64N(30)}
		if ops[i].Kind != Get {
			sum++
		}
		ops[i].Result = sum
	}
	for b.Loop() {
		decided(b, CheckCounter(ops))
	}
}
