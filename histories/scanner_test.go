package histories

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestAScannerYieldsWhatTheFileHolds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	if err := os.WriteFile(path, []byte(fileOf(goodEvents()...)+`{"index":9,"ti`), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Scan(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []Event
	for s.Next() {
		got = append(got, *s.Event())
	}
	if err := errors.Join(s.Err(), s.Close()); err != nil {
		t.Fatal(err)
	}
	h, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(h.Events, got, alike); diff != "" || len(got) != 9 {
		t.Errorf("%d events: %s", len(got), diff)
	}
	if s.Header() != h.Header || s.Truncated() != h.Truncated || !strings.Contains(h.Truncated, "line 11") {
		t.Errorf("header %v, truncated %q", s.Header(), s.Truncated())
	}
	if s.Next() {
		t.Error("there is more after the end")
	}
}

func TestWhatAScannedEventHoldsOutlivesTheNext(t *testing.T) {
	var events []Event
	for n := range 3000 {
		list := make([]int64, n%700)
		for i := range list {
			list[i] = int64(n * i)
		}
		events = append(events, Event{Process: n, F: "write", Key: fmt.Sprint("k", n), Value: Ints(list...)})
	}
	s, err := NewScanner(strings.NewReader(fileOf(events...)))
	if err != nil {
		t.Fatal(err)
	}
	var got []Event
	for s.Next() {
		got = append(got, *s.Event())
	}
	for i, e := range got {
		if !e.Value.Equal(events[i].Value) || e.Key != events[i].Key {
			t.Fatalf("event %d: %s of %q", i, e.Value, e.Key)
		}
		if list, _ := e.Value.Ints(); len(list) > 0 && cap(list) != len(list) {
			t.Fatalf("event %d: appending to its list would change the next one's", i)
		}
	}
	if len(got) != len(events) {
		t.Errorf("%d events: %v", len(got), s.Err())
	}
}

func TestAScannerStopsAtTheFirstEventThatContradictsThoseBefore(t *testing.T) {
	events := goodEvents()
	events[4].Type = Invoke
	s, err := NewScanner(strings.NewReader(fileOf(events...)))
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for s.Next() {
		count++
	}
	var invalid *InvalidError
	if !errors.As(s.Err(), &invalid) || invalid.Position != 4 || count != 4 || !strings.Contains(s.Err().Error(), "line 6: event 4") {
		t.Errorf("%d events, %v", count, s.Err())
	}
	if s.Next() {
		t.Error("there is more after an error")
	}
}

// tape is a long history that is written as it is read: one in a hundred operations crashes.
type tape struct {
	left   int // events
	index  int
	buffer []byte
	client [10]int // process numbers
}

func newTape(events int) *tape {
	p := &tape{left: events, buffer: append(appendHeader(nil, Header{}), '\n')}
	for i := range p.client {
		p.client[i] = i
	}
	return p
}

func (p *tape) Read(b []byte) (int, error) {
	for len(p.buffer) < len(b) && p.left > 0 {
		n := p.index / 2
		e := Event{Index: p.index, Time: time.Duration(p.index) * time.Microsecond, Process: p.client[n%10], F: "cas", Key: "k3", Value: Ints(int64(n), int64(n+1)), Node: "n2"}
		if p.index%2 == 1 {
			e.Type = OK
			if n%100 == 7 {
				e.Type, e.Error = Info, "timed out"
				p.client[n%10] = n + 10
			}
		}
		p.buffer = append(e.AppendJSON(p.buffer), '\n')
		p.index, p.left = p.index+1, p.left-1
	}
	n := copy(b, p.buffer)
	p.buffer = p.buffer[:copy(p.buffer, p.buffer[n:])]
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func scanTape(t testing.TB, events int) *Scanner {
	s, err := NewScanner(newTape(events))
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for s.Next() {
		count++
	}
	if s.Err() != nil || count != events {
		t.Fatalf("%d events: %v", count, s.Err())
	}
	return s
}

// A history of ten times the length must not need more memory, but for a bit for each process
// that crashed.
func TestScanningHoldsNoMemoryInProportionToTheHistory(t *testing.T) {
	held := func(events int) uint64 {
		s := scanTape(t, events)
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		runtime.KeepAlive(s)
		return m.HeapAlloc
	}
	short, long := held(50_000), held(500_000)
	if long > short+100<<10 {
		t.Errorf("%d bytes are held after 50,000 events, %d after 500,000", short, long)
	}
}

func TestScanningAllocatesNothingForAnEvent(t *testing.T) {
	const events = 100_000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	scanTape(t, events)
	runtime.ReadMemStats(&after)
	// A chunk of lists for each 256 events, a client for each that crashed, and what starts.
	if n := after.Mallocs - before.Mallocs; n > events/50 {
		t.Errorf("%d allocations for %d events", n, events)
	}
}

func TestAProcessThatWasUsedUpLongAgoIsStillRefused(t *testing.T) {
	v := newValidator()
	at := 0
	put := func(process int, kind Type) error {
		err := v.event(&Event{Index: at, Process: process, Type: kind})
		if err == nil {
			at++
		}
		return err
	}
	for p := range 3 * clientsMost {
		last := OK
		if p == 5 || p == clientsMost {
			last = Info
		}
		if err := errors.Join(put(p, Invoke), put(p, last)); err != nil {
			t.Fatal(err)
		}
	}
	if len(v.clients) > clientsMost {
		t.Errorf("%d clients are remembered", len(v.clients))
	}
	for _, process := range []int{5, clientsMost} {
		if err := put(process, Invoke); err == nil || !strings.Contains(err.Error(), "must not be used again") {
			t.Errorf("process %d: %v", process, err)
		}
	}
	for _, process := range []int{0, 6, clientsMost + 1, 1 << 60} {
		if err := put(process, Invoke); err != nil {
			t.Errorf("process %d: %v", process, err)
		}
	}
}

// validateByHand is the rule about clients in its plainest form.
func validateByHand(events []Event) bool {
	open, used := make(map[int]bool), make(map[int]bool)
	for _, e := range events {
		if used[e.Process] || open[e.Process] == (e.Type == Invoke) {
			return false
		}
		open[e.Process], used[e.Process] = e.Type == Invoke, e.Type == Info
	}
	return true
}

func TestTheValidatorThatForgetsAgreesWithOneThatDoesNot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := newValidator()
		v.most = rapid.IntRange(0, 3).Draw(t, "remembered")
		var events []Event
		open := make(map[int]bool)
		for i := range rapid.IntRange(0, 60).Draw(t, "events") {
			e := Event{Index: i, Process: rapid.SampledFrom([]int{0, 1, 2, 255, 256, 257, 4096, 4097, 1 << 40}).Draw(t, "process")}
			if open[e.Process] != (rapid.IntRange(0, 29).Draw(t, "odd") == 0) {
				e.Type = rapid.SampledFrom([]Type{OK, OK, OK, Fail, Info}).Draw(t, "type")
			}
			open[e.Process] = e.Type == Invoke
			events = append(events, e)
			err := v.event(&e)
			if good := validateByHand(events); good != (err == nil) {
				t.Fatalf("event %d: %v, by hand %t", i, err, good)
			}
			if err != nil {
				return
			}
			v.most = min(v.most, 3)
		}
	})
}

func TestAWriterWritesWhatAReaderReads(t *testing.T) {
	var out strings.Builder
	w, err := NewWriter(&out, Header{Run: "r"})
	if err != nil {
		t.Fatal(err)
	}
	events := numbered(goodEvents()...)
	for i := range events {
		if err := w.Write(&events[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	h, err := Read(strings.NewReader(out.String()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(events, h.Events, alike); diff != "" || h.Header.Run != "r" {
		t.Errorf("run %q: %s", h.Header.Run, diff)
	}
	var invalid *InvalidError
	if err := w.Write(&Event{Index: 3}); !errors.As(err, &invalid) {
		t.Errorf("an event of the past: %v", err)
	}
	if err := w.Flush(); err == nil {
		t.Error("the error is forgotten")
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestAWriterTellsOfAFullDisk(t *testing.T) {
	w, err := NewWriter(brokenWriter{}, Header{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("%v", err)
	}
}

func FuzzScan(f *testing.F) {
	f.Add(fileOf(goodEvents()...))
	f.Add(fileOf(goodEvents()...)[:200])
	f.Add("")
	f.Fuzz(func(t *testing.T, data string) {
		h, err := Read(strings.NewReader(data))
		if err != nil {
			return
		}
		if err := Validate(h.Events); err != nil {
			t.Fatalf("what was read is no history: %v", err)
		}
		again, err := Read(strings.NewReader(fileOf(h.Events...)))
		if err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		if diff := cmp.Diff(h.Events, again.Events, alike); diff != "" {
			t.Fatal(diff)
		}
	})
}

// registerLines is what a register workload records: events of about 110 bytes.
func registerLines(count int) string {
	var events []Event
	for len(events) < count {
		n := len(events) / 2
		invoke := Event{Process: n % 20, F: "write", Key: fmt.Sprint("k", n%300), Value: Int(int64(n)), Node: fmt.Sprint("n", 1+n%5), Time: time.Duration(len(events))*100*time.Microsecond + 123}
		switch n % 4 {
		case 1:
			invoke.F, invoke.Value = "cas", Ints(int64(n-4), int64(n))
		case 2, 3:
			invoke.F, invoke.Value = "read", Nil
		}
		done := invoke
		done.Type, done.Time = OK, invoke.Time+50
		if n%4 >= 2 {
			done.Value, done.Revision = Int(int64(n-8)), int64(n)
		}
		events = append(events, invoke, done)
	}
	return fileOf(events...)
}

func BenchmarkScan(b *testing.B) {
	const events = 100_000
	data := registerLines(events)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		s, err := NewScanner(strings.NewReader(data))
		if err != nil {
			b.Fatal(err)
		}
		for s.Next() {
		}
		if s.Err() != nil {
			b.Fatal(s.Err())
		}
	}
	perEvent := float64(b.Elapsed().Nanoseconds()) / float64(b.N) / events
	b.ReportMetric(perEvent, "ns/event")
	b.ReportMetric(1e9/perEvent, "events/s")
	b.ReportMetric(float64(len(data))/events, "bytes/event")
}

func TestHowManyEventsAreLeftIsEstimatedFromTheFile(t *testing.T) {
	const events = 5000
	var b bytes.Buffer
	w, err := NewWriter(&b, Header{Run: "left"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range events {
		e := Event{Index: i, Process: 1, F: "write", Key: "k1", Value: Int(int64(i / 2)), Type: Type(i % 2), Node: "n1"}
		if err := w.Write(&e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "history.jsonl")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Scan(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for read := 1; s.Next(); read++ {
		if left := events - read; read >= 100 && (s.Left() < left*9/10 || s.Left() > left*11/10+1) {
			t.Fatalf("after %d events %d are said to be left of %d", read, s.Left(), left)
		}
	}
	if s.Err() != nil || s.Left() != 0 {
		t.Errorf("at the end %d are left: %v", s.Left(), s.Err())
	}
	unknown, err := NewScanner(&b)
	if err != nil || unknown.Next() && unknown.Left() != 0 {
		t.Errorf("of what is no file %d are said to be left: %v", unknown.Left(), err)
	}
}
