package kv

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
)

// View is the store as it was when View was called. It never changes, so one other
// goroutine may use it while the store goes on.
type View struct{ state state }

// View returns a snapshot of the present moment, in constant time. What the store writes
// afterwards costs a copy of each tree node that it touches for the first time.
func (s *Store) View() *View {
	v := &View{state: s.state}
	v.state.keys = s.keys.Copy()
	v.state.locks = s.locks.Copy()
	v.state.sessions = s.sessions.Copy()
	v.state.recent = s.recent.Copy()
	return v
}

// Applied returns the index of the last entry that the view covers.
func (v *View) Applied() uint64 { return v.state.applied }

// Digest returns the store's digest at Applied.
func (v *View) Digest() uint64 { return v.state.digest }

// A snapshot is
//
//	magic | header | key ... | lock ... | session ... | CRC-64 of all before it
//
// where each part between is a frame: its length, then its bytes. The header holds the
// numbers of the state and how many frames of each sort follow; keys and locks are in
// order of name, sessions in order of last use. So a state has one snapshot.
const snapshotMagic = "capskv\x00\x02" // the last byte is the version

// maxIndex keeps every number of a store that was restored far from overflow.
const maxIndex = 1 << 56

const (
	maxHeaderFrame  = 7 * binary.MaxVarintLen64
	maxKeyFrame     = MaxKeyBytes + MaxValueBytes + entryOverhead
	maxLockFrame    = 2*MaxKeyBytes + 4*binary.MaxVarintLen64
	maxSessionFrame = maxResultBytes + MaxSessionBytes + 6*binary.MaxVarintLen64
)

// WriteTo writes the snapshot that Restore reads. It holds little more than one frame in
// memory. The same state gives the same bytes.
func (v *View) WriteTo(w io.Writer) (int64, error) {
	f := frameWriter{w: w, buffer: make([]byte, 0, 2*flushBytes)}
	f.buffer = append(f.buffer, snapshotMagic...)
	s := &v.state
	for _, n := range [...]uint64{s.applied, s.digest, s.revision,
		uint64(s.keys.Len()), uint64(s.locks.Len()), uint64(s.sessions.Len())} {
		f.frame = binary.AppendUvarint(f.frame, n)
	}
	f.end()
	s.keys.Scan(func(key string, r record) bool {
		entry := r.entry(key)
		f.frame = entry.append(f.frame)
		return f.end()
	})
	s.locks.Scan(func(name string, lock Lock) bool {
		f.frame = appendString(f.frame, name)
		f.frame = appendString(f.frame, lock.Owner)
		f.frame = binary.AppendUvarint(f.frame, lock.Token)
		return f.end()
	})
	s.recent.Scan(func(_ uint64, c *session) bool {
		f.frame = appendString(f.frame, c.id)
		f.frame = binary.AppendUvarint(f.frame, c.used)
		f.frame = binary.AppendUvarint(f.frame, c.sequence)
		f.frame = binary.AppendUvarint(f.frame, c.fingerprint)
		f.frame = appendString(f.frame, c.result)
		return f.end()
	})
	f.flush()
	f.buffer = binary.BigEndian.AppendUint64(f.buffer, f.sum)
	f.flush()
	if f.err != nil {
		return f.written, fmt.Errorf("write kv snapshot of index %d at byte %d: %w", s.applied, f.written, f.err)
	}
	return f.written, nil
}

const flushBytes = 64 << 10

// frameWriter gathers frames and writes them in large pieces, until a write fails.
type frameWriter struct {
	w       io.Writer
	frame   []byte // being built
	buffer  []byte // not yet written
	sum     uint64 // of all that was written
	written int64
	err     error
}

// end finishes the frame, and returns false when there is no point in going on.
func (f *frameWriter) end() bool {
	f.buffer = binary.AppendUvarint(f.buffer, uint64(len(f.frame)))
	f.buffer = append(f.buffer, f.frame...)
	f.frame = f.frame[:0]
	if len(f.buffer) >= flushBytes {
		f.flush()
	}
	return f.err == nil
}

func (f *frameWriter) flush() {
	if f.err != nil {
		return
	}
	f.sum = crc64.Update(f.sum, crcTable, f.buffer)
	n, err := f.w.Write(f.buffer)
	f.written += int64(n)
	if f.err = err; err == nil && n < len(f.buffer) {
		f.err = io.ErrShortWrite
	}
	f.buffer = f.buffer[:0]
}

// Restore reads a snapshot to the end of r, which must be the end of the snapshot. It
// believes nothing: whatever was not written by WriteTo is refused with what is wrong.
func Restore(r io.Reader) (*Store, error) { return restore(r, MaxSessions, MaxSessionsBytes) }

func restore(r io.Reader, maxSessions, maxSessionsBytes int) (*Store, error) {
	f := frameReader{r: bufio.NewReaderSize(r, flushBytes)}
	s := newStore(maxSessions, maxSessionsBytes)
	if err := s.read(&f); err != nil {
		return nil, fmt.Errorf("restore kv snapshot: %w", err)
	}
	s.changes.since = s.revision
	return s, nil
}

func (s *Store) read(f *frameReader) error {
	if err := f.magic(); err != nil {
		return err
	}
	d, err := f.next(maxHeaderFrame)
	if err != nil {
		return fmt.Errorf("header: %w", err)
	}
	s.applied, s.digest, s.revision = d.uvarint(), d.uvarint(), d.uvarint()
	keys, locks, sessions := d.uvarint(), d.uvarint(), d.uvarint()
	switch {
	case d.failed || d.rest != "":
		return errors.New("header: malformed")
	case s.applied > maxIndex:
		return fmt.Errorf("header: index %d, which no log gets to", s.applied)
	case s.revision > s.applied:
		return fmt.Errorf("header: revision %d after %d entries, of which each makes one at most", s.revision, s.applied)
	case sessions > uint64(s.maxSessions):
		return fmt.Errorf("header: %d sessions: want at most %d", sessions, s.maxSessions)
	}
	for _, part := range [...]struct {
		name  string
		count uint64
		most  int
		read  func(*decoder) error
	}{
		{"key", keys, maxKeyFrame, s.readKey},
		{"lock", locks, maxLockFrame, s.readLock},
		{"session", sessions, maxSessionFrame, s.readSession},
	} {
		for i := range part.count {
			d, err := f.next(part.most)
			if err == nil {
				err = part.read(&d)
			}
			if err == nil && (d.failed || d.rest != "") {
				err = errors.New("malformed")
			}
			if err != nil {
				return fmt.Errorf("%s %d of %d: %w", part.name, i+1, part.count, err)
			}
		}
	}
	if s.sessionBytes > s.maxSessionsBytes && s.sessions.Len() > 1 {
		return fmt.Errorf("sessions with %d bytes of results: want at most %d", s.sessionBytes, s.maxSessionsBytes)
	}
	return f.finish()
}

func (s *Store) readKey(d *decoder) error {
	e := d.entry()
	last, _, any := s.keys.Max()
	switch {
	case d.failed || e.Key == "":
		return errors.New("malformed")
	case any && e.Key <= last:
		return fmt.Errorf("%q after %q", e.Key, last)
	case e.Version == 0 || e.CreateRevision == 0 || e.ModRevision < e.CreateRevision || e.ModRevision > s.revision,
		(e.Version-1)/MaxActions > e.ModRevision-e.CreateRevision: // a transaction may write a key in each action
		return fmt.Errorf("%q: created at %d, modified at %d, version %d in a store of revision %d",
			e.Key, e.CreateRevision, e.ModRevision, e.Version, s.revision)
	}
	s.keys.Load(e.Key, record{value: e.Value, created: e.CreateRevision, modified: e.ModRevision, version: e.Version})
	return nil
}

func (s *Store) readLock(d *decoder) error {
	name := d.string(MaxKeyBytes)
	lock := Lock{Owner: d.string(MaxKeyBytes), Token: d.uvarint()}
	last, _, any := s.locks.Max()
	switch {
	case d.failed || name == "" || lock.Owner == "":
		return errors.New("malformed")
	case any && name <= last:
		return fmt.Errorf("%q after %q", name, last)
	case lock.Token == 0 || lock.Token > s.revision:
		return fmt.Errorf("%q: token %d in a store of revision %d", name, lock.Token, s.revision)
	}
	s.locks.Load(name, lock)
	return nil
}

func (s *Store) readSession(d *decoder) error {
	c := &session{id: d.string(MaxSessionBytes), used: d.uvarint(), sequence: d.uvarint(), fingerprint: d.uvarint()}
	c.result = d.string(maxResultBytes)
	if d.failed || c.id == "" || c.sequence == 0 {
		return errors.New("malformed")
	}
	last, _, any := s.recent.Max()
	if c.used == 0 || any && c.used <= last || c.used > s.applied {
		return fmt.Errorf("%q: used at entry %d, after one used at %d, in a store of %d entries", c.id, c.used, last, s.applied)
	}
	if _, known := s.sessions.Get(c.id); known {
		return fmt.Errorf("%q comes twice", c.id)
	}
	result, err := decodeResult(c.result)
	if err != nil {
		return fmt.Errorf("%q: %w", c.id, err)
	}
	if result.Revision > s.revision {
		return fmt.Errorf("%q: result at revision %d in a store of revision %d", c.id, result.Revision, s.revision)
	}
	s.remember(nil, c)
	return nil
}

// frameReader reads what frameWriter wrote and sums it up.
type frameReader struct {
	r     *bufio.Reader
	frame []byte
	sum   uint64
}

func (f *frameReader) magic() error {
	var magic [len(snapshotMagic)]byte
	if _, err := io.ReadFull(f.r, magic[:]); err != nil {
		return fmt.Errorf("magic: %w", unexpected(err))
	}
	const name = len(snapshotMagic) - 1
	switch got := string(magic[:]); {
	case got[:name] != snapshotMagic[:name]:
		return fmt.Errorf("it begins with %q: not a snapshot of this store", got)
	case got != snapshotMagic:
		return fmt.Errorf("version %d; this program reads version %d", got[name], snapshotMagic[name])
	}
	f.sum = crc64.Update(f.sum, crcTable, magic[:])
	return nil
}

// next reads a frame of at most so many bytes. Memory grows with what really comes, not
// with the length that the frame claims.
func (f *frameReader) next(most int) (decoder, error) {
	length, err := binary.ReadUvarint(f.r)
	if err != nil {
		return decoder{}, fmt.Errorf("length of a frame: %w", unexpected(err))
	}
	if length > uint64(most) {
		return decoder{}, fmt.Errorf("frame of %d bytes: want at most %d", length, most)
	}
	f.frame = binary.AppendUvarint(f.frame[:0], length)
	prefix := len(f.frame)
	for missing := int(length); missing > 0; {
		piece := min(missing, flushBytes)
		at := len(f.frame)
		f.frame = append(f.frame, zeros[:piece]...)
		if _, err := io.ReadFull(f.r, f.frame[at:]); err != nil {
			return decoder{}, fmt.Errorf("frame of %d bytes: %w", length, unexpected(err))
		}
		missing -= piece
	}
	f.sum = crc64.Update(f.sum, crcTable, f.frame)
	return decoder{rest: string(f.frame[prefix:])}, nil
}

var zeros [flushBytes]byte

// finish checks the sum, and that nothing follows it.
func (f *frameReader) finish() error {
	var sum [8]byte
	if _, err := io.ReadFull(f.r, sum[:]); err != nil {
		return fmt.Errorf("checksum: %w", unexpected(err))
	}
	if got := binary.BigEndian.Uint64(sum[:]); got != f.sum {
		return fmt.Errorf("checksum %016x, but the contents give %016x: it is damaged", got, f.sum)
	}
	switch _, err := f.r.ReadByte(); {
	case err == nil:
		return errors.New("something follows its end")
	case err != io.EOF:
		return fmt.Errorf("end: %w", err)
	}
	return nil
}

// unexpected says that a file that ends early ends early.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
