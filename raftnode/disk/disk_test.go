package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"capsize/raftnode/files"
	"capsize/raftnode/files/crashfs"
	"capsize/raftnode/internal/race"
	"capsize/raftnode/raft"
	"capsize/raftnode/wal"
)

func options(fs files.FS) Options {
	return Options{FS: fs, Dir: "data", Cluster: "test", Node: 1, SegmentBytes: 2048, AllocateBytes: 512}
}

func mustOpen(t *testing.T, o Options) *Disk {
	t.Helper()
	d, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func entries(first, last, term uint64, size int) (list []raft.Entry) {
	for i := first; i <= last; i++ {
		list = append(list, raft.Entry{Term: term, Index: i, Data: make([]byte, size)})
	}
	return list
}

func snapshot(index, term uint64) *raft.Snapshot {
	return &raft.Snapshot{
		Data:     fmt.Appendf(nil, "beside %d", index),
		Metadata: raft.SnapshotMetadata{Index: index, Term: term, ConfState: raft.ConfState{Voters: []uint64{1, 2, 3}}},
	}
}

// content is what the state machine's snapshot at index holds.
func content(index uint64) []byte { return bytes.Repeat(fmt.Appendf(nil, "state at %d;", index), 40) }

func (d *Disk) save(s *raft.Snapshot) error {
	return d.SaveSnapshot(s, func(w io.Writer) error { _, err := w.Write(content(s.Metadata.Index)); return err })
}

// stored returns what the disk gave back: the index before the first entry, and the rest.
func stored(t *testing.T, d *Disk) (hard raft.HardState, base uint64, list []raft.Entry) {
	t.Helper()
	hard, _, err := d.Storage().InitialState()
	must(t, err)
	first, err := d.Storage().FirstIndex()
	must(t, err)
	last, err := d.Storage().LastIndex()
	must(t, err)
	if last >= first {
		list, err = d.Storage().Entries(first, last+1, ^uint64(0))
		must(t, err)
	}
	return hard, first - 1, list
}

func TestTheDiskGivesBackWhatWasWritten(t *testing.T) {
	o := Options{FS: crashfs.New(1), Dir: "data", Cluster: "test", Node: 1}
	d := mustOpen(t, o)
	must(t,
		d.Append(raft.HardState{Term: 1, Vote: 2}, nil, nil),
		d.Append(raft.HardState{}, nil, entries(1, 5, 1, 10)),
		d.Append(raft.HardState{}, nil, nil),                                                // only messages waited for it
		d.Append(raft.HardState{Term: 3, Vote: 1, Commit: 2}, nil, entries(3, 9, 3, 1<<20)), // replaces 3 to 5; split
		d.Append(raft.HardState{Term: 3, Vote: 1, Commit: 9}, nil, nil),
		d.Sync(),
	)
	o.FS.(*crashfs.FS).Restart()
	d = mustOpen(t, o)
	hard, base, got := stored(t, d)
	if want := (raft.HardState{Term: 3, Vote: 1, Commit: 9}); hard != want || base != 0 {
		t.Errorf("hard state %+v after entry %d, want %+v", hard, base, want)
	}
	if want := append(entries(1, 2, 1, 10), entries(3, 9, 3, 1<<20)...); !reflect.DeepEqual(got, want) {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
	if d.Incarnation() != 2 {
		t.Errorf("start number %d, want 2", d.Incarnation())
	}
	if d.Report().Records < 6 {
		t.Errorf("%d records: a write of 7 MiB was not split", d.Report().Records)
	}
}

// Were the hard state in an earlier part, a crash between the parts would leave a commit
// index beyond the end of the log.
func TestALargeWriteHasItsHardStateInTheLastRecord(t *testing.T) {
	var parts []raft.HardState
	total := 0
	want := raft.HardState{Term: 3, Vote: 1, Commit: 9}
	count := func(record []byte) error {
		w, err := decodeWrite(record)
		parts, total = append(parts, w.hard), total+len(w.entries)
		return err
	}
	if err := encodeWrite(new([]byte), write{hard: want, entries: entries(1, 9, 3, 1<<20)}, count); err != nil || total != 9 || len(parts) < 3 {
		t.Fatalf("%d entries in %d records, %v", total, len(parts), err)
	}
	for i, hard := range parts {
		if last := i == len(parts)-1; last != (hard == want) {
			t.Errorf("record %d of %d has the hard state %+v", i+1, len(parts), hard)
		}
	}
	parts = nil
	replaced := write{hard: want, installed: position{4, 2}, entries: entries(5, 13, 3, 1<<20)}
	if err := encodeWrite(new([]byte), replaced, count); err != nil || len(parts) != 1 {
		t.Errorf("what replaces the log is split into %d records, %v", len(parts), err)
	}
}

func TestASnapshotStandsForTheEntriesBeforeIt(t *testing.T) {
	o := options(crashfs.New(1))
	d := mustOpen(t, o)
	for i := uint64(1); i <= 60; i++ {
		must(t, d.Append(raft.HardState{Term: 1, Vote: 1, Commit: i}, nil, entries(i, i, 1, 100)), d.Sync())
	}
	before := d.log.Segment()
	must(t, d.save(snapshot(30, 1)), d.Taken(snapshot(30, 1).Metadata), d.Compact(25))
	if err := d.Compact(31); err == nil {
		t.Error("the log is compacted beyond its snapshot")
	}
	if before < 4 || len(d.segments) >= int(before) {
		t.Errorf("%d of %d segments are left", len(d.segments), before)
	}
	must(t, d.save(snapshot(40, 1)), d.Taken(snapshot(40, 1).Metadata))
	must(t, d.save(snapshot(50, 1))) // no record names it
	o.FS.(*crashfs.FS).Restart()
	d = mustOpen(t, o)
	hard, base, got := stored(t, d)
	if hard.Commit != 60 || base != 40 || len(got) != 20 || got[0].Index != 41 {
		t.Errorf("commit %d, %d entries after %d", hard.Commit, len(got), base)
	}
	s, err := d.Storage().Snapshot()
	if err != nil || !reflect.DeepEqual(s, snapshot(40, 1)) {
		t.Errorf("snapshot %+v, %v", s, err)
	}
	_, r, err := d.LoadSnapshot(40)
	must(t, err)
	if data, err := io.ReadAll(r); err != nil || !bytes.Equal(data, content(40)) {
		t.Errorf("content of %d bytes, %v", len(data), err)
	}
	if indexes, err := d.snapshots.List(); err != nil || !slices.Equal(indexes, []uint64{40}) {
		t.Errorf("snapshots %v are left, %v", indexes, err)
	}
}

func TestAnInstalledSnapshotReplacesTheLog(t *testing.T) {
	o := options(crashfs.New(1))
	d := mustOpen(t, o)
	must(t, d.Append(raft.HardState{Term: 1, Vote: 1}, nil, entries(1, 50, 1, 50)), d.Sync())
	must(t, d.save(snapshot(20, 3)), d.Append(raft.HardState{Term: 3, Commit: 20}, snapshot(20, 3), entries(21, 22, 3, 5)), d.Sync(), d.Tidy())
	d = mustOpen(t, o)
	hard, base, got := stored(t, d)
	if hard.Commit != 20 || base != 20 || len(got) != 2 {
		t.Errorf("commit %d, %d entries after %d: the old log shines through", hard.Commit, len(got), base)
	}
	must(t, d.Compact(20), d.Append(raft.HardState{}, nil, entries(23, 24, 3, 5)), d.Sync())
	if _, base, got := stored(t, mustOpen(t, o)); base != 20 || len(got) != 4 {
		t.Errorf("%d entries after %d", len(got), base)
	}
}

// What a script of writes, snapshots, installations and compactions has promised so far.
type promised struct {
	incarnation uint64
	hard        raft.HardState
	terms       map[uint64]uint64 // of the entries, by index
	snapshot    uint64
}

// script runs a node's life until the disk crashes. synced is what was durable at the last
// sync, appended what was handed over since.
func script(fs files.FS) (synced, appended promised) {
	rng := rand.New(rand.NewPCG(4, 3))
	now := promised{terms: map[uint64]uint64{}}
	keep := func() { synced = promised{now.incarnation, now.hard, clone(now.terms), now.snapshot} }
	for range 3 {
		d, err := Open(options(fs))
		if err != nil {
			return synced, now
		}
		now.incarnation = d.Incarnation()
		keep()
		last, _ := d.Storage().LastIndex()
		for range 25 {
			now.hard.Term++
			first := max(last+1-min(last, rng.Uint64N(3)), now.hard.Commit+1)
			last = first + rng.Uint64N(4)
			now.hard.Commit = first - 1 + rng.Uint64N(2)
			for i := range now.terms {
				if i >= first {
					delete(now.terms, i)
				}
			}
			list := entries(first, last, now.hard.Term, rng.IntN(300))
			for _, e := range list {
				now.terms[e.Index] = e.Term
			}
			if d.Append(now.hard, nil, list) != nil || d.Sync() != nil {
				return synced, now
			}
			keep()
			switch rng.IntN(6) {
			case 0: // taken here
				index := now.hard.Commit
				if index <= now.snapshot {
					break
				}
				s := snapshot(index, now.terms[index])
				if d.save(s) != nil {
					return synced, now
				}
				now.snapshot = index
				if d.Taken(s.Metadata) != nil {
					return synced, now
				}
				keep()
				if d.Compact(index-min(index, rng.Uint64N(4))) != nil {
					return synced, now
				}
			case 1: // received, beyond the end of the log
				now.hard.Term++
				last += 1 + rng.Uint64N(5)
				s := snapshot(last, now.hard.Term)
				if d.save(s) != nil {
					return synced, now
				}
				now.snapshot, now.hard.Commit, now.terms = last, last, map[uint64]uint64{last: now.hard.Term}
				if d.Append(now.hard, s, nil) != nil || d.Sync() != nil || d.Tidy() != nil {
					return synced, now
				}
				keep()
			}
		}
	}
	return synced, now
}

func clone(m map[uint64]uint64) map[uint64]uint64 {
	c := make(map[uint64]uint64, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

// A crash in the middle of any disk operation, whatever it leaves of what was not synced:
// the node finds what it was promised, and can go on.
func TestACrashAtEveryOperationLeavesAConsistentDisk(t *testing.T) {
	dry := crashfs.New(0)
	script(dry)
	if dry.Operations() < 250 {
		t.Fatalf("only %d operations to crash at", dry.Operations())
	}
	seeds := uint64(4)
	if race.Enabled {
		seeds = 1
	}
	for at := 1; at <= dry.Operations(); at++ {
		for seed := range seeds {
			fs := crashfs.New(seed)
			fs.CrashAt(at)
			synced, appended := script(fs)
			for range 2 { // the second crash hits the repair
				fs.Restart()
				fs.CrashAt(fs.Operations() + 1 + int(seed))
				if _, err := Open(options(fs)); err != nil && !errors.Is(err, crashfs.ErrCrashed) {
					t.Fatalf("crash at %d, seed %d: during the repair: %v", at, seed, err)
				}
			}
			fs.Restart()
			d, err := Open(options(fs))
			if err != nil {
				t.Fatalf("crash at %d, seed %d: %v", at, seed, err)
			}
			if wrong := d.breaks(t, synced, appended); wrong != "" {
				t.Fatalf("crash at %d of %d, seed %d: %s", at, dry.Operations(), seed, wrong)
			}
		}
	}
}

// breaks says which promise the disk does not keep.
func (d *Disk) breaks(t *testing.T, synced, appended promised) string {
	hard, base, list := stored(t, d)
	last := base + uint64(len(list))
	switch {
	case d.Incarnation() <= synced.incarnation:
		return fmt.Sprintf("start number %d comes twice", d.Incarnation())
	case hard.Term < synced.hard.Term || hard.Term > appended.hard.Term:
		return fmt.Sprintf("term %d, promised was %d, appended %d", hard.Term, synced.hard.Term, appended.hard.Term)
	case hard.Commit > last:
		return fmt.Sprintf("commit %d in a log that ends at %d", hard.Commit, last)
	case base != synced.snapshot && base != appended.snapshot:
		return fmt.Sprintf("the snapshot at %d, promised was %d, appended %d", base, synced.snapshot, appended.snapshot)
	}
	if base > 0 {
		_, r, err := d.LoadSnapshot(base)
		if err != nil {
			return err.Error()
		}
		if data, err := io.ReadAll(r); err != nil || !bytes.Equal(data, content(base)) {
			return fmt.Sprintf("the snapshot's content has %d bytes, %v", len(data), err)
		}
	}
	// What is there is what was promised, or what was appended after that.
	matches := func(p promised) bool {
		for i, term := range p.terms {
			if i > base && (i > last || list[i-base-1].Term != term) {
				return false
			}
		}
		return true
	}
	if !matches(synced) && !matches(appended) {
		return fmt.Sprintf("entries %d to %d are not those promised", base+1, last)
	}
	return ""
}

func TestADiskWhoseRecordsMakeNoSenseIsRefused(t *testing.T) {
	for what, records := range map[string][][]byte{
		"unknown kind":                 {{9}},
		"gap":                          {appendWrite(nil, write{entries: entries(2, 2, 1, 0)})},
		"starts repeat":                {{recordBoot, 1}},
		"cut short":                    {appendWrite(nil, write{hard: raft.HardState{Term: 1}, entries: entries(1, 1, 1, 9)})[:8]},
		"committed, but not there":     {appendWrite(nil, write{hard: raft.HardState{Term: 1, Commit: 3}})},
		"a snapshot beyond the log":    {appendPosition([]byte{recordSnapshot}, position{4, 1})},
		"a snapshot that is not there": {appendWrite(nil, write{entries: entries(1, 3, 1, 0)}), appendPosition([]byte{recordSnapshot}, position{2, 1})},
		"a head that contradicts":      {appendPosition(appendHardState([]byte{recordHead, 7}, raft.HardState{}), position{})},
	} {
		fs := crashfs.New(1)
		d := mustOpen(t, options(fs))
		for _, r := range records {
			must(t, d.log.Append(r), d.log.Sync())
		}
		if _, err := Open(options(fs)); err == nil || !strings.Contains(err.Error(), "open data in data") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// The oldest segment of a log may only be missing where a snapshot stands for its entries.
func TestALostBeginningIsRefused(t *testing.T) {
	fs := crashfs.New(1)
	d := mustOpen(t, options(fs))
	for i := uint64(1); i <= 60; i++ {
		must(t, d.Append(raft.HardState{Term: 1, Commit: i}, nil, entries(i, i, 1, 100)), d.Sync())
	}
	must(t, fs.Remove("data/log/0000000000000001.wal"))
	if _, err := Open(options(fs)); !errors.Is(err, wal.ErrCorrupt) || !strings.Contains(err.Error(), "some are missing") {
		t.Errorf("got %v", err)
	}
}

func FuzzDecodeWrite(f *testing.F) {
	f.Add(appendWrite(nil, write{hard: raft.HardState{Term: 3, Vote: 1, Commit: 2}, entries: entries(3, 6, 3, 20)}))
	f.Add(appendWrite(nil, write{installed: position{4, 2}}))
	f.Add(appendWrite(nil, write{}))
	f.Add([]byte{recordWrite, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add([]byte{recordWrite})
	f.Fuzz(func(t *testing.T, record []byte) {
		w, err := decodeWrite(record)
		if err != nil {
			return
		}
		again, err := decodeWrite(appendWrite(nil, w))
		if err != nil || again.hard != w.hard || again.installed != w.installed || len(again.entries) != len(w.entries) {
			t.Fatalf("%v: %+v became %+v", err, w, again)
		}
	})
}
