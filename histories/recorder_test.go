package histories

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func create(t *testing.T) (*Recorder, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "history.jsonl")
	r, err := Create(path, Header{Run: "r", Started: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return r, path
}

func TestWhatManyRecordIsReadBackInOrder(t *testing.T) {
	r, path := create(t)
	var seen []Event
	r.OnEvent(func(e Event) { seen = append(seen, e) })
	var clients sync.WaitGroup
	const threads, each = 8, 500
	for process := range threads {
		clients.Go(func() {
			before := -1
			for n := range each {
				invoke := r.Record(Event{Process: process, F: "write", Key: "k", Value: Int(int64(n))})
				done := r.Record(Event{Process: process, Type: OK, F: "write", Key: "k", Value: Int(int64(n))})
				if invoke.Index <= before || done.Index <= invoke.Index || done.Time < invoke.Time {
					t.Errorf("event %d after %d, %d after %d", invoke.Index, before, done.Index, invoke.Index)
				}
				before = done.Index
			}
		})
	}
	clients.Wait()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	h, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Events) != 2*threads*each || h.Truncated != "" {
		t.Errorf("%d events, truncated %q", len(h.Events), h.Truncated)
	}
	if diff := cmp.Diff(seen, h.Events, alike); diff != "" {
		t.Errorf("the observer saw something else: %s", diff)
	}
}

func TestAHistoryIsNeverOverwritten(t *testing.T) {
	r, path := create(t)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(path, Header{}); !errors.Is(err, os.ErrExist) {
		t.Errorf("%v", err)
	}
}

// TestMain also serves as the process to be killed.
func TestMain(m *testing.M) {
	if path := os.Getenv("CAPSIZE_RECORD_UNTIL_KILLED"); path != "" {
		recordUntilKilled(path, os.Getenv("CAPSIZE_RECORD_THREADS"))
	}
	os.Exit(m.Run())
}

// recordUntilKilled prints the index of each event after it was recorded.
func recordUntilKilled(path, threads string) {
	r, err := Create(path, Header{Run: "r"})
	if err != nil {
		panic(err)
	}
	n, err := strconv.Atoi(threads)
	if err != nil {
		panic(err)
	}
	for process := range n {
		go func() {
			for {
				for _, kind := range []Type{Invoke, OK} {
					e := r.Record(Event{Process: process, Type: kind, F: "write", Key: "k", Value: Int(1)})
					_, _ = os.Stdout.WriteString(strconv.Itoa(e.Index) + "\n")
				}
			}
		}()
	}
	select {}
}

func TestAfterAKillTheFileHoldsAPrefixOfWhatWasRecorded(t *testing.T) {
	for _, threads := range []int{1, 4} {
		t.Run(strconv.Itoa(threads)+" threads", func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "history.jsonl")
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "CAPSIZE_RECORD_UNTIL_KILLED="+path, "CAPSIZE_RECORD_THREADS="+strconv.Itoa(threads))
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines, last, count := bufio.NewScanner(out), -1, 0
			for lines.Scan() {
				index, err := strconv.Atoi(lines.Text())
				if err != nil {
					break // the line that was being written at the kill
				}
				last = max(last, index)
				if count++; count == 2000 {
					if err := cmd.Process.Kill(); err != nil {
						t.Fatal(err)
					}
				}
			}
			_ = cmd.Wait() // killed: that is what was asked for
			h, err := ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(h.Events) <= last {
				t.Errorf("event %d was recorded, the file has %d events", last, len(h.Events))
			}
		})
	}
}

// fakeFile is a file whose writes a test decides on.
type fakeFile struct {
	write func([]byte) (int, error)
	sync  func() error
}

func (f *fakeFile) Write(b []byte) (int, error) { return f.write(b) }
func (f *fakeFile) Close() error                { return nil }
func (f *fakeFile) Sync() error {
	if f.sync == nil {
		return nil
	}
	return f.sync()
}

func TestAStalledDiskMakesCallersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stall, stalled := make(chan struct{}), false
		var written strings.Builder
		r, err := newRecorder("h", &fakeFile{write: func(b []byte) (int, error) {
			if stalled {
				<-stall
			}
			return written.Write(b)
		}}, Header{Run: "r"})
		if err != nil {
			t.Fatal(err)
		}
		stalled = true
		const threads, each = 4, 300
		var done sync.WaitGroup
		for process := range threads {
			done.Go(func() {
				for range each {
					r.Record(Event{Process: process, F: "read", Key: strings.Repeat("k", 1<<12)})
					r.Record(Event{Process: process, F: "read", Type: OK, Key: strings.Repeat("k", 1<<12)})
				}
			})
		}
		synctest.Wait()
		r.mu.Lock()
		count := r.count
		r.mu.Unlock()
		if count != threads {
			t.Errorf("%d events were taken from %d threads while the disk stalls", count, threads)
		}
		close(stall)
		done.Wait()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		h, err := Read(strings.NewReader(written.String()))
		if err != nil {
			t.Fatal(err)
		}
		if len(h.Events) != 2*threads*each {
			t.Errorf("%d events", len(h.Events))
		}
	})
}

func TestClosingWaitsForWhatIsBeingWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stall, stalled := make(chan struct{}), false
		written := 0
		r, err := newRecorder("h", &fakeFile{
			write: func(b []byte) (int, error) {
				if stalled {
					<-stall
				}
				written++
				return len(b), nil
			},
			sync: func() error {
				if written != 3 { // header, the stalled write, what was queued behind it
					t.Errorf("synced after %d writes", written)
				}
				return nil
			},
		}, Header{})
		if err != nil {
			t.Fatal(err)
		}
		stalled = true
		var done sync.WaitGroup
		done.Go(func() { r.Record(Event{}) })
		synctest.Wait()
		done.Go(func() { r.Record(Event{Process: 1}) }) // queues
		synctest.Wait()
		closed := false
		done.Go(func() {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			closed = true
		})
		synctest.Wait()
		if closed {
			t.Error("it closed in the middle of a write")
		}
		close(stall)
		done.Wait()
	})
}

func TestAFullDiskEndsTheRecordingAndSaysWhatToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var written strings.Builder
		r, err := newRecorder("/runs/h.jsonl", &fakeFile{write: func(b []byte) (int, error) {
			room := 1000 - written.Len()
			if len(b) <= room {
				return written.Write(b)
			}
			n, _ := written.Write(b[:max(0, room)])
			time.Sleep(time.Second) // others queue meanwhile
			return n, &os.PathError{Op: "write", Path: "h", Err: syscall.ENOSPC}
		}}, Header{Run: "r"})
		if err != nil {
			t.Fatal(err)
		}
		var clients sync.WaitGroup
		for process := range 3 {
			clients.Go(func() {
				for range 2000 {
					r.Record(Event{Process: process, F: "read", Key: strings.Repeat("k", 1<<10)})
					r.Record(Event{Process: process, F: "read", Type: OK, Key: strings.Repeat("k", 1<<10)})
				}
			})
		}
		clients.Wait()
		for _, err := range []error{r.Err(), r.Close(), r.Err()} {
			if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "/runs/h.jsonl") || !strings.Contains(err.Error(), "free space") {
				t.Errorf("%v", err)
			}
		}
		if _, err := Read(strings.NewReader(written.String())); err != nil {
			t.Errorf("what was written until then: %v", err)
		}
	})
}

func TestACreateThatCannotWriteFails(t *testing.T) {
	if _, err := newRecorder("h", &fakeFile{write: func([]byte) (int, error) { return 0, io.ErrShortWrite }}, Header{}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("%v", err)
	}
}

func TestClosing(t *testing.T) {
	broken := errors.New("disk on fire")
	r, err := newRecorder("h", &fakeFile{write: func(b []byte) (int, error) { return len(b), nil }, sync: func() error { return broken }}, Header{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); !errors.Is(err, broken) {
		t.Errorf("a failed sync: %v", err)
	}
	good, _ := create(t)
	if err := good.Close(); err != nil {
		t.Fatal(err)
	}
	if err := good.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	good.Record(Event{})
	if err := good.Err(); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("recorded after the close: %v", err)
	}
}

func BenchmarkRecord(b *testing.B) {
	r, err := Create(filepath.Join(b.TempDir(), "history.jsonl"), Header{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetParallelism(5)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			r.Record(Event{Process: 3, F: "write", Key: "k17", Value: Int(45), Node: "n2"})
		}
	})
	if err := r.Close(); err != nil {
		b.Fatal(err)
	}
}
