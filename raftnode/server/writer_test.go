package server

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"capsize/raftnode/disk"
	"capsize/raftnode/files/crashfs"
	"capsize/raftnode/raft"
	"capsize/raftnode/replica"
)

func openDisk(t *testing.T, fs *crashfs.FS) *disk.Disk {
	t.Helper()
	d, err := disk.Open(disk.Options{FS: fs, Dir: "data", Cluster: "test", Node: 1})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func entry(index uint64) []raft.Entry {
	return []raft.Entry{{Term: 1, Index: index, Data: []byte("data")}}
}

func TestAWriterTellsOfDurableWritesOnly(t *testing.T) {
	fs := crashfs.New(1)
	w := newWriter(openDisk(t, fs), func(time.Duration) {})
	ended := make(chan struct{})
	go func() { w.Run(); close(ended) }()
	w.Add([]replica.Write{{Number: 1, Entries: entry(1), Sync: true}})
	<-w.wake
	if w.done.Load() != 1 || w.Err() != nil {
		t.Fatalf("done %d, %v", w.done.Load(), w.Err())
	}
	broken := fmt.Errorf("input/output error")
	fs.FailSync(broken)
	w.Add([]replica.Write{{Number: 2, Entries: entry(2), Sync: true}})
	<-w.wake
	if w.done.Load() != 1 || !errors.Is(w.Err(), broken) {
		t.Errorf("done %d, %v", w.done.Load(), w.Err())
	}
	<-ended
}

// Durable means: with all that was written before.
func TestAWriteThatNeedsNoSyncWaitsForThoseBeforeIt(t *testing.T) {
	fs := crashfs.New(1)
	w := newWriter(openDisk(t, fs), func(time.Duration) {})
	commit := func(number uint64) replica.Write {
		return replica.Write{Number: number, HardState: raft.HardState{Term: 1, Commit: number}}
	}
	w.Add([]replica.Write{commit(1), commit(2)})
	if w.done.Load() != 2 {
		t.Errorf("with an idle disk, done is %d, want 2", w.done.Load())
	}
	w.Add([]replica.Write{commit(3), {Number: 4, Entries: entry(1), Sync: true}, commit(5)})
	w.Add([]replica.Write{commit(6)})
	if w.done.Load() != 3 {
		t.Errorf("done is %d before the disk was synced, want 3", w.done.Load())
	}
	fs.FailSync(errors.New("input/output error"))
	w.Run()
	if w.done.Load() != 3 || w.Err() == nil {
		t.Errorf("done is %d after the sync failed, want 3; %v", w.done.Load(), w.Err())
	}
}

func TestTicksArePacedAndAPauseIsNotMadeUpFor(t *testing.T) {
	const tick = 25 * time.Millisecond
	start := time.Unix(100, 0)
	for _, c := range []struct {
		passed time.Duration
		ticks  int
		from   time.Duration // after start
	}{
		{0, 0, 0},
		{24 * time.Millisecond, 0, 0},
		{26 * time.Millisecond, 1, 25 * time.Millisecond},
		{80 * time.Millisecond, 3, 75 * time.Millisecond},
		{time.Hour, mostTicksAtOnce, time.Hour},
	} {
		ticks, from := ticksSince(start, start.Add(c.passed), tick)
		if ticks != c.ticks || from.Sub(start) != c.from {
			t.Errorf("after %s: %d ticks, next counted from %s; want %d, %s", c.passed, ticks, from.Sub(start), c.ticks, c.from)
		}
	}
}
