package kv

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"testing"
)

// commands returns so many encoded puts, to keys in no order.
func commands(n int, session bool) [][]byte {
	data := make([][]byte, n)
	for i := range data {
		c := put(fmt.Sprintf("key-%07d", i*7919%n), "0123456789abcdef")
		if session {
			c = c.as(fmt.Sprintf("client-%03d", i%100), uint64(i/100+1))
		}
		data[i] = c.Encode()
	}
	return data
}

func filled(n int) *Store {
	s := New()
	for i, data := range commands(n, false) {
		s.Apply(uint64(i+1), data)
	}
	return s
}

func benchmarkApply(b *testing.B, keys int, data [][]byte) {
	s := filled(keys)
	b.ReportAllocs()
	for b.Loop() {
		index := s.Applied() + 1
		s.Apply(index, data[index%uint64(len(data))])
	}
}

func BenchmarkApplyPut(b *testing.B) { benchmarkApply(b, 10_000, commands(10_000, false)) }

func BenchmarkApplyPutAmongAMillion(b *testing.B) {
	benchmarkApply(b, 1_000_000, commands(1_000_000, false))
}

func BenchmarkApplyPutOfASession(b *testing.B) {
	data := commands(100_000, true)
	s := New()
	b.ReportAllocs()
	for b.Loop() {
		if s.Applied() == uint64(len(data)) { // sequences have to go on rising
			b.StopTimer()
			s = New()
			b.StartTimer()
		}
		s.Apply(s.Applied()+1, data[s.Applied()])
	}
}

func BenchmarkDigest(b *testing.B) {
	s := New()
	s.scratch = (&Result{Revision: 123456}).append(nil)
	b.ReportAllocs()
	for b.Loop() {
		s.extend(42)
	}
}

func BenchmarkDecode(b *testing.B) {
	data := commands(1, true)[0]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkViewOfAMillionKeys(b *testing.B) {
	s := filled(1_000_000)
	b.ReportAllocs()
	for b.Loop() {
		s.View()
	}
}

func BenchmarkWriteToOfAMillionKeys(b *testing.B) {
	s := filled(1_000_000)
	b.ReportAllocs()
	for b.Loop() {
		n, err := s.View().WriteTo(io.Discard)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(n)
	}
}

func BenchmarkRestoreOfAMillionKeys(b *testing.B) {
	var snapshot bytes.Buffer
	if _, err := filled(1_000_000).View().WriteTo(&snapshot); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(snapshot.Len()))
	for b.Loop() {
		if _, err := Restore(bytes.NewReader(snapshot.Bytes())); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMemoryOfAMillionKeys(b *testing.B) {
	data := commands(1_000_000, false)
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := New()
		for i := range data {
			s.Apply(uint64(i+1), data[i])
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(s.Len()), "B/key")
	}
}
