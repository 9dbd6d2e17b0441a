package server

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"capsize/raftnode/raft"
	"capsize/raftnode/replica"
	"capsize/raftnode/wal"
	"capsize/raftnode/wal/crashfs"
)

var identity = wal.Identity{Cluster: "test", Node: 1}

func entries(first, last, term uint64, size int) (list []raft.Entry) {
	for i := first; i <= last; i++ {
		list = append(list, raft.Entry{Term: term, Index: i, Data: make([]byte, size)})
	}
	return list
}

func stored(t *testing.T, d *disk) (raft.HardState, []raft.Entry) {
	t.Helper()
	hard, _, err := d.storage.InitialState()
	if err != nil {
		t.Fatal(err)
	}
	last, err := d.storage.LastIndex()
	if err != nil || last == 0 {
		return hard, nil
	}
	list, err := d.storage.Entries(1, last+1, ^uint64(0))
	if err != nil {
		t.Fatal(err)
	}
	return hard, list
}

func TestTheDiskGivesBackWhatWasWritten(t *testing.T) {
	fs := crashfs.New(1)
	d, err := openDisk(fs, "data", identity)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []replica.Write{
		{HardState: raft.HardState{Term: 1, Vote: 2}},
		{Entries: entries(1, 5, 1, 10)},
		{}, // only messages waited for it
		{HardState: raft.HardState{Term: 3, Vote: 1, Commit: 2}, Entries: entries(3, 9, 3, 1<<20)}, // replaces 3 to 5; split
		{HardState: raft.HardState{Term: 3, Vote: 1, Commit: 9}},
	} {
		if err := d.append(w); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.log.Sync(); err != nil {
		t.Fatal(err)
	}
	fs.Restart()
	d, err = openDisk(fs, "data", identity)
	if err != nil {
		t.Fatal(err)
	}
	hard, got := stored(t, d)
	if want := (raft.HardState{Term: 3, Vote: 1, Commit: 9}); hard != want {
		t.Errorf("hard state %+v, want %+v", hard, want)
	}
	want := append(entries(1, 2, 1, 10), entries(3, 9, 3, 1<<20)...)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
	if d.incarnation != 2 {
		t.Errorf("start number %d, want 2", d.incarnation)
	}
	if d.report.Records < 6 {
		t.Errorf("%d records: a write of 7 MiB was not split", d.report.Records)
	}
}

// Were the hard state in an earlier part, a crash between the parts would leave a commit
// index beyond the end of the log.
func TestALargeWriteHasItsHardStateInTheLastRecord(t *testing.T) {
	var parts []raft.HardState
	total := 0
	want := raft.HardState{Term: 3, Vote: 1, Commit: 9}
	err := encodeWrite(new([]byte), replica.Write{HardState: want, Entries: entries(1, 9, 3, 1<<20)}, func(record []byte) error {
		hard, list, err := decodeWrite(record)
		parts, total = append(parts, hard), total+len(list)
		return err
	})
	if err != nil || total != 9 || len(parts) < 3 {
		t.Fatalf("%d entries in %d records, %v", total, len(parts), err)
	}
	for i, hard := range parts {
		if last := i == len(parts)-1; last != (hard == want) {
			t.Errorf("record %d of %d has the hard state %+v", i+1, len(parts), hard)
		}
	}
}

// A crash in the middle of any disk operation: the hard state never speaks of entries
// that are not there, starts are counted without gaps, and what was synced is there.
func TestACrashAtEveryOperationLeavesAConsistentDisk(t *testing.T) {
	run := func(fs *crashfs.FS, seed uint64) (synced replica.Write, starts uint64) {
		rng := rand.New(rand.NewPCG(seed, 3))
		for range 2 {
			d, err := openDisk(fs, "data", identity)
			if err != nil {
				return synced, starts
			}
			starts = d.incarnation
			last, _ := d.storage.LastIndex()
			for term := starts * 100; term < starts*100+8; term++ {
				first := last + 1 - min(last, rng.Uint64N(3))
				last = first + rng.Uint64N(4)
				w := replica.Write{Entries: entries(first, last, term, rng.IntN(300)), HardState: raft.HardState{Term: term, Vote: 1, Commit: first}}
				if d.append(w) != nil || d.log.Sync() != nil {
					return synced, starts
				}
				synced = w
			}
		}
		return synced, starts
	}
	dry := crashfs.New(0)
	run(dry, 0)
	for at := 1; at <= dry.Operations(); at++ {
		for seed := range uint64(4) {
			fs := crashfs.New(seed)
			fs.CrashAt(at)
			synced, starts := run(fs, 0)
			fs.Restart()
			d, err := openDisk(fs, "data", identity)
			if err != nil {
				t.Fatalf("crash at %d, seed %d: %v", at, seed, err)
			}
			if d.incarnation <= starts {
				t.Fatalf("crash at %d, seed %d: start number %d comes twice", at, seed, d.incarnation)
			}
			hard, list := stored(t, d)
			if hard.Term < synced.HardState.Term || hard.Commit > uint64(len(list)) {
				t.Fatalf("crash at %d, seed %d: %+v with %d entries; synced was %+v", at, seed, hard, len(list), synced.HardState)
			}
			if hard == synced.HardState && len(synced.Entries) > 0 && synced.Entries[len(synced.Entries)-1].Index != uint64(len(list)) {
				t.Fatalf("crash at %d, seed %d: %d entries, not those synced", at, seed, len(list))
			}
		}
	}
}

func TestADiskWhoseRecordsMakeNoSenseIsRefused(t *testing.T) {
	for what, records := range map[string][][]byte{
		"unknown kind":  {{9}},
		"gap":           {appendWrite(nil, raft.HardState{}, entries(2, 2, 1, 0))},
		"starts repeat": {{recordBoot, 1}},
		"cut short":     {appendWrite(nil, raft.HardState{Term: 1}, entries(1, 1, 1, 9))[:8]},
	} {
		fs := crashfs.New(1)
		d, err := openDisk(fs, "data", identity)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if err := errors.Join(d.log.Append(r), d.log.Sync()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := openDisk(fs, "data", identity); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func TestAWriterTellsOfDurableWritesOnly(t *testing.T) {
	fs := crashfs.New(1)
	d, err := openDisk(fs, "data", identity)
	if err != nil {
		t.Fatal(err)
	}
	w := newWriter(d)
	ended := make(chan struct{})
	go func() { w.Run(); close(ended) }()
	w.Add([]replica.Write{{Number: 1, Entries: entries(1, 1, 1, 5), Sync: true}})
	<-w.wake
	if w.done.Load() != 1 || w.Err() != nil {
		t.Fatalf("done %d, %v", w.done.Load(), w.Err())
	}
	broken := fmt.Errorf("input/output error")
	fs.FailSync(broken)
	w.Add([]replica.Write{{Number: 2, Entries: entries(2, 2, 1, 5), Sync: true}})
	<-w.wake
	if w.done.Load() != 1 || !errors.Is(w.Err(), broken) {
		t.Errorf("done %d, %v", w.done.Load(), w.Err())
	}
	<-ended
}

// Durable means: with all that was written before.
func TestAWriteThatNeedsNoSyncWaitsForThoseBeforeIt(t *testing.T) {
	fs := crashfs.New(1)
	d, err := openDisk(fs, "data", identity)
	if err != nil {
		t.Fatal(err)
	}
	w := newWriter(d)
	commit := func(number uint64) replica.Write {
		return replica.Write{Number: number, HardState: raft.HardState{Term: 1, Commit: number}}
	}
	w.Add([]replica.Write{commit(1), commit(2)})
	if w.done.Load() != 2 {
		t.Errorf("with an idle disk, done is %d, want 2", w.done.Load())
	}
	w.Add([]replica.Write{commit(3), {Number: 4, Entries: entries(1, 1, 1, 5), Sync: true}, commit(5)})
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

func FuzzDecodeWrite(f *testing.F) {
	f.Add(appendWrite(nil, raft.HardState{Term: 3, Vote: 1, Commit: 2}, entries(3, 6, 3, 20)))
	f.Add(appendWrite(nil, raft.HardState{}, nil))
	f.Add([]byte{recordWrite, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add([]byte{recordWrite})
	f.Fuzz(func(t *testing.T, record []byte) {
		hard, list, err := decodeWrite(record)
		if err != nil {
			return
		}
		again, listAgain, err := decodeWrite(appendWrite(nil, hard, list))
		if err != nil || again != hard || len(listAgain) != len(list) {
			t.Fatalf("%v: %+v with %d entries became %+v with %d", err, hard, len(list), again, len(listAgain))
		}
	})
}
