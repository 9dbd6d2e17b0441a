package registers

import (
	"runtime"
	"testing"
	"time"
)

// benchHistory is a correct history of 20 busy clients, half of whose
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

// Each of b.N is an event of a history that is made on the way, so run it with
// -benchtime 20000000x for ten million operations, of which ten thousand crash. The time
// includes the making; bytes are what the stream holds in the end.
func BenchmarkStreamOfWhatIsYetToHappen(b *testing.B) {
	source, stream, handles := newBusy(1, 20, mix{writes: 50, crashed: 2}, true), NewStream(), make([]Handle, 20)
	lost := 0
	for b.Loop() {
		a := source.next()
		if a.what == crashed {
			lost++
		}
		if alarm := a.play(stream, handles); alarm != nil {
			b.Fatal(alarm)
		}
	}
	var with, without runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&with)
	held := stream.Held()
	stream = nil
	runtime.GC()
	runtime.ReadMemStats(&without)
	b.ReportMetric(float64(with.HeapAlloc)-float64(without.HeapAlloc), "bytes")
	b.ReportMetric(float64(held), "held")
	b.ReportMetric(float64(lost), "crashed")
}
