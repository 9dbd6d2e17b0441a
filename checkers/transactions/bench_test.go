package transactions

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"
)

// traffic is the history of a strict serializable store with so many clients that are always
// busy: lists or registers, ten keys at a time, each for a hundred writes. A hundredth of the
// transactions are of unknown outcome.
func traffic(txns, clients int, registers bool) []Txn {
	rng := rand.New(rand.NewPCG(7, 7))
	state := make(map[string][]int64)
	keys := make([]int, 10)
	process := make([]int, clients)
	next, value := len(keys), int64(0)
	for i := range keys {
		keys[i] = i
	}
	for i := range process {
		process[i] = i
	}
	history := make([]Txn, 0, txns)
	for i := range txns {
		// Client c calls at n·c and takes effect at n·(c+clients/2); it returns before its next call.
		c := i % clients
		txn := Txn{ID: i, Process: process[c], Call: int64(3 * i), Return: int64(3*(i+clients) - 1)}
		for range 1 + rng.IntN(4) {
			at := rng.IntN(len(keys))
			m := Micro{F: "r", Key: strconv.Itoa(keys[at])}
			now := state[m.Key]
			if rng.IntN(2) == 0 {
				value++
				m.F, m.Value = "append", value
				if registers {
					m.F = "w"
				}
				state[m.Key] = append(now, value)
				if len(now) == 100 {
					keys[at] = next
					next++
				}
			} else if !registers {
				m.List = now[:len(now):len(now)]
				if now == nil {
					m.List = []int64{}
				}
			} else if m.Nil = len(now) == 0; !m.Nil {
				m.Value = now[len(now)-1]
			}
			txn.Micros = append(txn.Micros, m)
		}
		if rng.IntN(100) == 0 {
			txn.Type, txn.Return = Info, Never
			process[c] = clients + i
		}
		history = append(history, txn)
	}
	return history
}

func BenchmarkCheck(b *testing.B) {
	for _, registers := range []bool{false, true} {
		for _, n := range []int{10_000, 100_000, 1_000_000} {
			txns := traffic(n, 20, registers)
			b.Run(fmt.Sprintf("registers=%v/txns=%d", registers, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if result := Check(txns, Options{}); result.Verdict != Valid {
						b.Fatalf("%+v", result.Anomalies)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/txn")
			})
		}
	}
}

// stale makes the reads of every so many transactions older, in histories of lists.
func stale(txns []Txn, every int) {
	for i := every; i < len(txns); i += every {
		for j := range txns[i].Micros {
			if m := &txns[i].Micros[j]; m.F == "r" && len(m.List) > 1 {
				m.List = m.List[:len(m.List)/2]
			}
		}
	}
}

func BenchmarkCheckOfABrokenHistory(b *testing.B) {
	for _, every := range []int{10, 1000, 50_000} {
		txns := traffic(100_000, 20, false)
		stale(txns, every)
		b.Run(fmt.Sprintf("one of %d reads old states", every), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if result := Check(txns, Options{}); result.Verdict != Invalid {
					b.Fatal(result.Verdict)
				}
			}
		})
	}
}

func TestALargeHistoryIsDecidedWithinItsLimits(t *testing.T) {
	txns := traffic(50_000, 20, false)
	if result := Check(txns, Options{Limit: Limit{Time: time.Minute, Memory: 1 << 30}}); result.Verdict != Valid {
		t.Errorf("%v: %s", result.Verdict, result.Reason)
	}
	begun := time.Now()
	result := Check(txns, Options{Limit: Limit{Time: time.Millisecond}})
	if result.Verdict != Unknown || result.Reason != "the time limit of 1ms ended" {
		t.Errorf("%v, %q", result.Verdict, result.Reason)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("it took %v to notice that a millisecond was over", took)
	}
	if result := Check(txns, Options{Limit: Limit{Memory: 1 << 20}}); result.Verdict != Unknown || result.Reason != "the memory limit of 1 MiB ended" {
		t.Errorf("%v, %q", result.Verdict, result.Reason)
	}
}
