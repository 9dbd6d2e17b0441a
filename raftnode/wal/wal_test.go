package wal_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"capsize/raftnode/files"
	"capsize/raftnode/files/crashfs"
	"capsize/raftnode/wal"
)

var node1 = wal.Identity{Cluster: "test", Node: 1}

func open(t *testing.T, opts wal.Options) (*wal.WAL, wal.Report, []string) {
	t.Helper()
	log, report, records, err := tryOpen(opts)
	if err != nil {
		t.Fatal(err)
	}
	return log, report, records
}

func tryOpen(opts wal.Options) (*wal.WAL, wal.Report, []string, error) {
	var records []string
	log, report, err := wal.Open(opts, func(_ uint64, record []byte) error {
		records = append(records, string(record))
		return nil
	})
	return log, report, records, err
}

func write(t *testing.T, log *wal.WAL, records ...string) {
	t.Helper()
	for _, record := range records {
		if err := log.Append([]byte(record)); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Sync(); err != nil {
		t.Fatal(err)
	}
}

func TestRecordsComeBackInOrderAcrossSegments(t *testing.T) {
	opts := wal.Options{FS: files.OS{}, Dir: filepath.Join(t.TempDir(), "a", "b"), Identity: node1, SegmentBytes: 300}
	log, report, _ := open(t, opts)
	if !report.Created {
		t.Error("a new log does not say that it was created")
	}
	var want []string
	for i := range 40 {
		record := strings.Repeat("x", i+1)
		write(t, log, record)
		want = append(want, record)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	log, report, got := open(t, opts)
	if !slices.Equal(got, want) || report.Created || report.Torn != nil || report.Records != 40 {
		t.Errorf("got %d records, report %+v", len(got), report)
	}
	if report.Segments < 3 {
		t.Errorf("only %d segments: the test does not roll", report.Segments)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if err := log.Append([]byte("late")); err == nil {
		t.Error("a closed log accepts a record")
	}
}

// The heart of the package: crash in the middle of every write and sync of a run. What
// was synced is there, what is there is a prefix of what was appended, and the log can be
// written again.
func TestEverySyncedRecordSurvivesACrashAtEveryOperation(t *testing.T) {
	opts := wal.Options{Dir: "wal", Identity: node1, SegmentBytes: 2000, AllocateBytes: 1024}
	run := func(fs *crashfs.FS) (appended []string, synced int) {
		opts.FS = fs
		opts.Head = func() [][]byte { return [][]byte{fmt.Appendf(nil, "head %d", len(appended))} }
		log, _, records, err := tryOpen(opts)
		if err != nil {
			return nil, 0
		}
		appended, synced = complete(nil, records), len(records)
		rng := rand.New(rand.NewPCG(7, 7))
		for i := range 90 {
			if i%30 == 29 && log.Release(log.Segment()-uint64(rng.IntN(2))) != nil {
				return appended, synced
			}
			record := fmt.Sprintf("%d:%s", i, strings.Repeat("r", rng.IntN(900)))
			if log.Append([]byte(record)) != nil {
				return appended, synced
			}
			appended = append(appended, record)
			if rng.IntN(3) == 0 {
				if log.Sync() != nil {
					return appended, synced
				}
				synced = len(appended)
			}
		}
		return appended, synced
	}
	dry := crashfs.New(0)
	run(dry)
	if dry.Operations() < 80 {
		t.Fatalf("only %d operations to crash at", dry.Operations())
	}
	torn := 0
	for at := 1; at <= dry.Operations(); at++ {
		for seed := range uint64(6) {
			fs := crashfs.New(seed)
			fs.CrashAt(at)
			appended, synced := run(fs)
			for again := range 2 { // the second crash hits the repair
				if again == 1 {
					fs.CrashAt(fs.Operations() + 1 + int(seed%4))
					_, _, _, err := tryOpen(opts)
					if err != nil && !errors.Is(err, crashfs.ErrCrashed) {
						t.Fatalf("crash at %d, seed %d, crash during repair: %v", at, seed, err)
					}
				}
				fs.Restart()
				opts.Head = func() [][]byte { return [][]byte{fmt.Appendf(nil, "head %d", len(appended))} }
				log, report, got, err := tryOpen(opts)
				if err != nil {
					t.Fatalf("crash at %d, seed %d: %v", at, seed, err)
				}
				got = complete(appended, got)
				if len(got) < synced || len(got) > len(appended) || !slices.Equal(got, appended[:len(got)]) {
					t.Fatalf("crash at %d, seed %d: %d records, %d were synced and %d appended", at, seed, len(got), synced, len(appended))
				}
				if report.Torn != nil {
					torn++
				}
				write(t, log, "after")
				appended, synced = append(slices.Clone(got), "after"), len(got)+1
			}
		}
	}
	if torn == 0 {
		t.Error("no crash left a torn tail: the test proves nothing of the repair")
	}
}

// complete returns the records of a log of which segments may be released: the head of the
// first one left says how many of those appended stood before it.
func complete(appended, replayed []string) (records []string) {
	for i, record := range replayed {
		var before int
		if n, _ := fmt.Sscanf(record, "head %d", &before); n == 0 {
			records = append(records, record)
		} else if i == 0 {
			records = append(records, appended[:min(before, len(appended))]...)
		}
	}
	return records
}

func TestATornTailIsCutAndReported(t *testing.T) {
	opts := wal.Options{FS: files.OS{}, Dir: t.TempDir(), Identity: node1, AllocateBytes: 8}
	log, _, _ := open(t, opts)
	write(t, log, "kept")
	path := filepath.Join(opts.Dir, "0000000000000001.wal")
	before := fileSize(t, path)
	write(t, log, "a record that is cut short")
	if err := os.Truncate(path, before+20); err != nil {
		t.Fatal(err)
	}
	_, report, got := open(t, opts)
	if !slices.Equal(got, []string{"kept"}) {
		t.Errorf("got %q", got)
	}
	if want := (wal.Torn{File: path, Offset: before, Bytes: 20}); report.Torn == nil || *report.Torn != want {
		t.Errorf("reported %v, want %v", report.Torn, want)
	}
	if size := fileSize(t, path); size != before {
		t.Errorf("the file has %d bytes after the repair, want %d", size, before)
	}
	if _, report, _ := open(t, opts); report.Torn != nil {
		t.Errorf("a second open repairs again: %v", report.Torn)
	}
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// Each byte of a log that is damaged must be noticed, unless it lies in the last group of
// records, where damage looks like a torn tail and is reported as one.
func TestDamageToAnyByteIsNoticed(t *testing.T) {
	fs := crashfs.New(1)
	opts := wal.Options{
		FS: fs, Dir: "wal", Identity: node1, SegmentBytes: 600, AllocateBytes: 128,
		Head: func() [][]byte { return [][]byte{[]byte("head")} },
	}
	log, _, _ := open(t, opts)
	var want []string
	for i := range 30 {
		record := fmt.Sprintf("record %d", i)
		write(t, log, record)
		want = append(want, record)
	}
	names, _ := fs.List("wal")
	slices.Sort(names)
	refused, cut := 0, 0
	for _, name := range names {
		path := filepath.Join("wal", name)
		whole, err := fs.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for offset := range whole {
			damaged := slices.Clone(whole)
			damaged[offset] ^= 0x10
			fs.WriteFile(path, damaged)
			_, report, got, err := tryOpen(opts)
			switch {
			case err != nil:
				refused++
				if !errors.Is(err, wal.ErrCorrupt) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "offset") {
					t.Fatalf("%s, byte %d: the refusal names no file and offset: %v", path, offset, err)
				}
			case report.Torn == nil:
				t.Fatalf("%s, byte %d: damage went unnoticed", path, offset)
			case len(complete(nil, got)) < len(want)-1:
				t.Fatalf("%s, byte %d: %d of %d records, and no error", path, offset, len(got), len(want))
			default:
				cut++
			}
			fs.WriteFile(path, whole)
		}
	}
	if refused == 0 || cut == 0 {
		t.Errorf("%d refused, %d cut: want some of both", refused, cut)
	}
}

// A head that was not whole when the machine crashed must not be taken for one that says
// nothing: what it repeats may be released next.
func TestASegmentWithHalfAHeadIsMadeAgain(t *testing.T) {
	opts := wal.Options{
		FS: files.OS{}, Dir: t.TempDir(), Identity: node1, SegmentBytes: 200,
		Head: func() [][]byte { return [][]byte{[]byte("head 1"), []byte("head 2")} },
	}
	log, _, _ := open(t, opts)
	write(t, log, strings.Repeat("x", 200))
	path := filepath.Join(opts.Dir, "0000000000000002.wal")
	for _, size := range []int64{0, 100, 128, 152, 170} {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		log, report, got := open(t, opts)
		if report.Torn == nil || report.Torn.File != path || report.Segments != 1 || len(got) != 3 {
			t.Errorf("a second segment of %d bytes: %+v, %d records", size, report, len(got))
		}
		write(t, log, strings.Repeat("y", 10)) // it stands behind, so that segment 2 is made again
		if _, _, got := open(t, opts); len(got) < 4 {
			t.Errorf("after the repair of a segment of %d bytes: %q", size, got)
		}
		if err := os.Remove(filepath.Join(opts.Dir, "0000000000000001.wal")); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		log, _, _ = open(t, opts)
		write(t, log, strings.Repeat("x", 200))
	}
}

func TestReleasedSegmentsAreGoneAndTheHeadStandsForThem(t *testing.T) {
	said := "nothing"
	opts := wal.Options{
		FS: files.OS{}, Dir: t.TempDir(), Identity: node1, SegmentBytes: 400,
		Head: func() [][]byte { return [][]byte{[]byte("so far: " + said)} },
	}
	log, _, _ := open(t, opts)
	for i := range 30 {
		said = fmt.Sprintf("record %d", i)
		write(t, log, said)
	}
	newest := log.Segment()
	if newest < 4 {
		t.Fatalf("only %d segments", newest)
	}
	if err := log.Release(newest - 1); err != nil {
		t.Fatal(err)
	}
	_, report, got := open(t, opts)
	if report.Segments != 2 || !strings.HasPrefix(got[0], "so far: record ") || got[len(got)-1] != "record 29" {
		t.Errorf("%+v, %q", report, got)
	}
	log, _, _ = open(t, opts)
	if err := log.Release(newest + 5); err != nil {
		t.Fatal(err)
	}
	write(t, log, "goes on")
	if _, report, got := open(t, opts); report.Segments != 1 || got[len(got)-1] != "goes on" {
		t.Errorf("after everything else was released: %+v, %q", report, got)
	}
}

// Space is written ahead: most syncs leave the file's size alone.
func TestSpaceIsAllocatedAhead(t *testing.T) {
	opts := wal.Options{FS: files.OS{}, Dir: t.TempDir(), Identity: node1, AllocateBytes: 4096}
	log, _, _ := open(t, opts)
	path := filepath.Join(opts.Dir, "0000000000000001.wal")
	sizes := map[int64]int{}
	for range 100 {
		write(t, log, strings.Repeat("x", 80))
		sizes[fileSize(t, path)]++
	}
	if len(sizes) != 3 {
		t.Errorf("sizes of the file after each of 100 syncs of 96 bytes: %v", sizes)
	}
	if _, report, got := open(t, opts); report.Torn != nil || len(got) != 100 {
		t.Errorf("what was allocated ahead looks torn: %v, %d records", report.Torn, len(got))
	}
}

func TestALostSegmentIsRefused(t *testing.T) {
	opts := wal.Options{FS: files.OS{}, Dir: t.TempDir(), Identity: node1, SegmentBytes: 200}
	log, _, _ := open(t, opts)
	for range 20 {
		write(t, log, "some record or other")
	}
	if err := os.Remove(filepath.Join(opts.Dir, "0000000000000002.wal")); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := tryOpen(opts); !errors.Is(err, wal.ErrCorrupt) || !strings.Contains(err.Error(), "0000000000000002.wal is missing") {
		t.Errorf("got %v", err)
	}
}

func TestALogOfAnotherNodeOrClusterIsRefused(t *testing.T) {
	opts := wal.Options{FS: files.OS{}, Dir: t.TempDir(), Identity: node1}
	log, _, _ := open(t, opts)
	write(t, log, "mine")
	for _, other := range []wal.Identity{{Cluster: "test", Node: 2}, {Cluster: "prod", Node: 1}, {}} {
		opts.Identity = other
		if _, _, _, err := tryOpen(opts); !errors.Is(err, wal.ErrIdentity) {
			t.Errorf("opened as %+v: %v", other, err)
		}
	}
	opts.Identity = node1
	if _, _, got := open(t, opts); len(got) != 1 {
		t.Errorf("the owner finds %q", got)
	}
}

func TestAFailedSyncIsFinal(t *testing.T) {
	fs := crashfs.New(1)
	log, _, _ := open(t, wal.Options{FS: fs, Dir: "wal", Identity: node1})
	broken := errors.New("input/output error")
	fs.FailSync(broken)
	if err := log.Append([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := log.Sync(); !errors.Is(err, broken) {
		t.Fatalf("sync says %v", err)
	}
	fs.FailSync(nil)
	if err := log.Sync(); !errors.Is(err, broken) {
		t.Errorf("a second sync says %v: the data may be gone", err)
	}
	if err := log.Append([]byte("y")); !errors.Is(err, broken) {
		t.Errorf("an append after a failed sync says %v", err)
	}
}

// Any bytes in the newest segment: open never panics, and what it accepts it accepts
// again after its own repair.
func FuzzOpen(f *testing.F) {
	fs := crashfs.New(1)
	log, _, err := wal.Open(wal.Options{FS: fs, Dir: "wal", Identity: node1}, func(uint64, []byte) error { return nil })
	if err != nil {
		f.Fatal(err)
	}
	for i := range 3 {
		if err := errors.Join(log.Append([]byte{byte(i), 2, 3}), log.Sync()); err != nil {
			f.Fatal(err)
		}
	}
	const path = "wal/0000000000000001.wal"
	valid, err := fs.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(valid)
	f.Add(valid[:len(valid)-5])
	f.Add(valid[:100])
	f.Add([]byte{})
	huge := slices.Clone(valid)
	binary.LittleEndian.PutUint32(huge[128:], 1<<31)
	f.Add(huge)
	f.Fuzz(func(t *testing.T, data []byte) {
		fs := crashfs.New(1)
		fs.WriteFile(path, data)
		opts := wal.Options{FS: fs, Dir: "wal", Identity: node1}
		_, _, first, err := tryOpen(opts)
		if err != nil {
			return
		}
		_, report, second, err := tryOpen(opts)
		if err != nil || report.Torn != nil || !slices.Equal(first, second) {
			t.Fatalf("opened, then: %v, %+v, %d and %d records", err, report, len(first), len(second))
		}
	})
}
