package registers

import (
	"runtime"
	"testing"
	"time"
)

// benchOps and benchActions are a correct history of 20 busy clients, half of whose
// operations are writes and one in a thousand of unknown outcome.
func benchHistory(operations int, m mix) ([]Op, []action) {
	const clients = 20
	source, l := newBusy(1, clients, m, true), newLog(clients)
	var actions []action
	for ended := 0; ended < operations; {
		a := source.next()
		l.add(a, int64(len(actions)))
		actions = append(actions, a)
		if a.what > callSwap {
			ended++
		}
	}
	return l.ops, actions
}

var benchMixes = []struct {
	name string
	mix  mix
}{
	{"writes", mix{writes: 50, crashed: 1}},
	{"swaps", mix{swaps: 50, crashed: 1}},
	{"mixed", mix{writes: 25, swaps: 25, crashed: 1}},
}

const million = 1_000_000

// The first pass over a fresh copy of memory is what counts: see cold-ms. Run with -cpu 1.
func BenchmarkBatch(b *testing.B) {
	for _, bench := range benchMixes {
		b.Run(bench.name, func(b *testing.B) {
			ops, _ := benchHistory(million, bench.mix)
			runtime.GC()
			start, cold := time.Now(), time.Duration(0)
			b.ReportAllocs()
			for b.Loop() {
				if verdict := Check(ops); verdict.Outcome != Linearizable {
					b.Fatal(verdict)
				}
				if cold == 0 {
					cold = time.Since(start)
				}
			}
			b.ReportMetric(float64(cold.Microseconds())/1000, "cold-ms")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(ops)), "ns/operation")
		})
	}
}

func BenchmarkOrderAndReplay(b *testing.B) {
	ops, _ := benchHistory(million, benchMixes[0].mix)
	for b.Loop() {
		order, _ := Order(ops)
		if err := Replay(ops, order); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(ops)), "ns/operation")
}

// Run with -cpu 1.
func BenchmarkStream(b *testing.B) {
	for _, bench := range benchMixes {
		b.Run(bench.name, func(b *testing.B) {
			ops, actions := benchHistory(million, bench.mix)
			handles := make([]Handle, 20)
			held := 0
			b.ReportAllocs()
			for b.Loop() {
				stream := NewStream()
				for i := range actions {
					if alarm := actions[i].play(stream, handles); alarm != nil {
						b.Fatal(alarm)
					}
				}
				held = stream.Held()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(ops)), "ns/operation")
			b.ReportMetric(float64(held), "held")
		})
	}
}
