package kv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func snapshotOf(t interface{ Fatalf(string, ...any) }, s applier) []byte {
	var b bytes.Buffer
	n, err := s.View().WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("wrote %d bytes and says %d: %v", b.Len(), n, err)
	}
	return b.Bytes()
}

// populated returns a store with some of everything.
func populated() applier {
	s := applier{New()}
	s.do(put("b", "2").as("s", 1))
	s.do(put("a", "1"))
	s.do(acquire("l", "o").as("t", 1))
	s.do(acquire("m", "p"))
	s.do(Command{Op: Txn, Then: []Action{{Op: Range}, {Op: Get, Key: "a"}}}.as("u", 3))
	s.do(put("b", "3").as("s", 1))
	return s
}

func TestADamagedSnapshotIsRefusedWhicheverByteItIs(t *testing.T) {
	sound := snapshotOf(t, populated())
	if _, err := Restore(bytes.NewReader(sound)); err != nil {
		t.Fatal(err)
	}
	for at := range sound {
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			damaged := bytes.Clone(sound)
			damaged[at] ^= flip
			if _, err := Restore(bytes.NewReader(damaged)); err == nil {
				t.Errorf("byte %d of %d, flipped by %#x, is not missed", at, len(sound), flip)
			}
		}
		_, err := Restore(bytes.NewReader(sound[:at]))
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut to %d of %d bytes: %v", at, len(sound), err)
		}
	}
	if _, err := Restore(bytes.NewReader(append(sound, 0))); err == nil {
		t.Error("a byte more is accepted")
	}
}

// What one process wrote, any other must: a change of these numbers means that nodes of
// two builds cannot be in one cluster, and that old snapshots need a new version.
func TestTheFormatAndTheDigestAreTheSameOnEveryRun(t *testing.T) {
	s := populated()
	got := fmt.Sprintf("%016x %016x", s.Digest(), crc64.Checksum(snapshotOf(t, s), crcTable))
	if want := "4b017ff5e23f9e5b 960cc69d73ed790e"; got != want {
		t.Errorf("digest and snapshot are %s, want %s", got, want)
	}
}

// forge makes a snapshot of frames whose checksum is right.
func forge(frames ...[]byte) []byte {
	b := []byte(snapshotMagic)
	for _, frame := range frames {
		b = append(binary.AppendUvarint(b, uint64(len(frame))), frame...)
	}
	return binary.BigEndian.AppendUint64(b, crc64.Checksum(b, crcTable))
}

// frame concatenates numbers and strings as the codec does.
func frame(parts ...any) (b []byte) {
	for _, part := range parts {
		switch part := part.(type) {
		case int:
			b = binary.AppendUvarint(b, uint64(part))
		case string:
			b = appendString(b, part)
		}
	}
	return b
}

func TestASnapshotThatNoStoreWroteIsRefused(t *testing.T) {
	result := string((&Result{Revision: 1}).append(nil))
	good := frame(1, 2, 1, "a", "v")
	session := frame("s", 4, 1, 9, result)
	header := func(keys, locks, sessions int) []byte { return frame(9, 7, 5, keys, locks, sessions) }
	if _, err := Restore(bytes.NewReader(forge(header(1, 1, 1), good, frame("l", "o", 3), session))); err != nil {
		t.Fatalf("what a store may have written: %v", err)
	}
	for want, snapshot := range map[string][]byte{
		"not a snapshot":         []byte("nonsense, whatever it is"),
		"version 9":              append([]byte("capskv\x00\x09"), make([]byte, 20)...),
		"header: malformed":      forge(frame(9, 7)),
		"header: revision 10":    forge(frame(9, 7, 10, 0, 0, 0)),
		"no log gets to":         forge(frame(maxIndex+1, 7, 5, 0, 0, 0)),
		"version 129":            forge(header(1, 0, 0), frame(2, 2, MaxActions+1, "w", "v")),
		"header: 131073 session": forge(frame(9, 7, 5, 0, 0, MaxSessions+1)),
		"key 2 of 2: \"a\"":      forge(header(2, 0, 0), good, good),
		"key 1 of 1: malformed":  forge(header(1, 0, 0), frame(1, 2, 1, "", "v")),
		"key 1 of 1: \"x\"":      forge(header(1, 0, 0), frame(1, 2, 0, "x", "v")),
		"key 1 of 1: \"y\"":      forge(header(1, 0, 0), frame(2, 1, 1, "y", "v")),
		"key 1 of 1: \"z\"":      forge(header(1, 0, 0), frame(1, 6, 1, "z", "v")),
		"key 1 of 1: frame of":   forge(header(1, 0, 0), frame(1, 2, 1, "x", strings.Repeat("v", 2*MaxValueBytes))),
		"key 1 of 1: length of":  append([]byte(snapshotMagic), append(frame(6, 9, 7, 5), 1, 0, 0)...),
		"lock 1 of 1: malformed": forge(header(0, 1, 0), frame("l", "", 1)),
		"lock 1 of 1: \"l\"":     forge(header(0, 1, 0), frame("l", "o", 6)),
		"lock 2 of 2: \"k\"":     forge(header(0, 2, 0), frame("l", "o", 1), frame("k", "o", 2)),
		"session 2 of 2: \"s\"":  forge(header(0, 0, 2), session, frame("s", 5, 1, 9, result)),
		"after one used at 4":    forge(header(0, 0, 2), session, frame("t", 4, 1, 9, result)),
		"used at entry 10":       forge(header(0, 0, 1), frame("t", 10, 1, 9, result)),
		"result of 3 bytes":      forge(header(0, 0, 1), frame("t", 1, 1, 9, "\x00\xff\x00")),
		"unknown status":         forge(header(0, 0, 1), frame("t", 1, 1, 9, "\x63\x00\x00")),
		"not encoded in its one": forge(header(0, 0, 1), frame("t", 1, 1, 9, "\x00\x01\x00\x00")),
		"result at revision 8":   forge(header(0, 0, 1), frame("t", 1, 1, 9, string((&Result{Revision: 8}).append(nil)))),
		"checksum":               forge(header(0, 0, 0))[:len(snapshotMagic)+7],
	} {
		if _, err := Restore(bytes.NewReader(snapshot)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestASnapshotOfMoreSessionsThanTheBoundsIsRefused(t *testing.T) {
	snapshot := snapshotOf(t, populated())
	if _, err := restore(bytes.NewReader(snapshot), 2, MaxSessionsBytes); err == nil {
		t.Error("three sessions where two are the bound")
	}
	if _, err := restore(bytes.NewReader(snapshot), 3, 20); err == nil {
		t.Error("more bytes of results than the bound")
	}
}

func TestAFailingWriterOrReaderIsNamed(t *testing.T) {
	s := applier{New()}
	for i := range 10 {
		s.do(put(fmt.Sprint(i), strings.Repeat("v", MaxValueBytes)))
	}
	broken := errors.New("disk is on fire")
	n, err := s.View().WriteTo(&failingWriter{room: 200_000, err: broken})
	if !errors.Is(err, broken) || n != 200_000 {
		t.Errorf("wrote %d bytes: %v", n, err)
	}
	if _, err := s.View().WriteTo(&failingWriter{room: 200_000}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("a writer that writes less and says nothing: %v", err)
	}
	if _, err := Restore(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("restored: %v", err)
	}
	snapshot := snapshotOf(t, s)
	if _, err := Restore(iotest.OneByteReader(bytes.NewReader(snapshot))); err != nil {
		t.Errorf("from a slow reader: %v", err)
	}
}

type failingWriter struct {
	room int
	err  error
}

func (w *failingWriter) Write(b []byte) (int, error) {
	n := min(len(b), w.room)
	if w.room -= n; n < len(b) {
		return n, w.err
	}
	return n, nil
}

func TestTheLargestResultOfASessionCanBeRestored(t *testing.T) {
	s := applier{New()}
	names := make([]string, MaxActions)
	for i := range names {
		names[i] = fmt.Sprintf("%03d", i) + strings.Repeat("k", MaxKeyBytes-3)
		s.do(put(names[i], strings.Repeat("v", MaxValueBytes)))
	}
	for i := range 8000 {
		s.do(put(fmt.Sprintf("x%d", i), ""))
	}
	reads := []Action{{Op: Range, Key: "x"}, {Op: Range, Key: "x"}, {Op: Range, Key: "x"}, {Op: Range, Key: "x"}, {Op: Range, Key: "x"}}
	for i := range MaxActions - len(reads) {
		reads = append(reads, Action{Op: []Op{Get, Range}[i%2], Key: names[i]})
	}
	once := Command{Op: Txn, Then: reads}.as("s", 1)
	first := s.do(once)
	if s.sessionBytes < (MaxActions-5)*MaxValueBytes || s.sessionBytes > maxResultBytes {
		t.Errorf("result of %d bytes: want at most %d", s.sessionBytes, maxResultBytes)
	}
	if again := s.restored(t).do(once); !reflect.DeepEqual(first, again) {
		t.Error("it is another one afterwards")
	}
}

func TestTokensRiseAcrossASnapshotThoughTheirLockWasReleased(t *testing.T) {
	s := applier{New()}
	token := s.do(acquire("l", "a")).Lock.Token
	s.do(release("l", "a", token))
	if next := s.restored(t).do(acquire("l", "b")).Lock.Token; next <= token {
		t.Errorf("token %d after %d", next, token)
	}
}

func TestARepeatedRequestIsKnownAfterASnapshot(t *testing.T) {
	s := populated()
	once := Command{Op: Txn, Then: []Action{{Op: Append, Key: "a", Value: "!"}, {Op: Range}}}.as("new", 1)
	first := s.do(once)
	moved := s.restored(t)
	if diff := cmp.Diff(first, moved.do(once)); diff != "" || moved.value("a") != "1!" {
		t.Errorf("a is %q, (-first +again)\n%s", moved.value("a"), diff)
	}
}

// Views are written by other goroutines, three at a time, while the store goes on with
// everything that changes trees. Each must be the moment at which it was taken.
func TestAViewStaysAsItWasWhileTheStoreGoesOn(t *testing.T) {
	const views, keys = 30, 500
	s := applier{newStore(50, MaxSessionsBytes)}
	busy := make(chan struct{}, 3)
	var writers sync.WaitGroup
	for i := range views {
		for j := range keys {
			key := fmt.Sprintf("%03d", (i*131+j*7)%keys)
			s.do(put(key, fmt.Sprint(i)).as(fmt.Sprint(j%70), uint64(i*keys+j+1)))
			s.do(steal(key, "o"))
			switch j % 5 {
			case 1:
				s.do(del(key))
			case 2:
				lock, _ := s.Lock(key)
				s.do(release(key, "o", lock.Token))
			case 3:
				s.do(Command{Op: DeleteRange, Key: key, End: key + "~"})
			}
		}
		view, want := s.View(), snapshotOf(t, s)
		busy <- struct{}{}
		writers.Go(func() {
			defer func() { <-busy }()
			var got bytes.Buffer
			if _, err := view.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), want) {
				t.Errorf("view %d, of entry %d, changed: %v", i, view.Applied(), err)
			}
			restored, err := Restore(&got)
			if err != nil {
				t.Errorf("view %d: %v", i, err)
			} else if restored.Applied() != view.Applied() || restored.Digest() != view.Digest() {
				t.Errorf("view %d: restored to entry %d, digest %x", i, restored.Applied(), restored.Digest())
			}
		})
	}
	writers.Wait()
}

func FuzzRestore(f *testing.F) {
	f.Add(snapshotOf(f, populated()))
	f.Add(snapshotOf(f, applier{New()}))
	f.Add([]byte(snapshotMagic + "\x06\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		// The sum is put right, or the fuzzer would never get past it.
		if len(data) > 8 {
			data = binary.BigEndian.AppendUint64(data[:len(data)-8:len(data)-8], crc64.Checksum(data[:len(data)-8], crcTable))
		}
		s, err := Restore(bytes.NewReader(data))
		if err != nil {
			return
		}
		next := applier{s} // whatever is accepted is a state like any other
		next.do(put("x", "1").as("s", 1<<40))
		next.restored(t)
	})
}
