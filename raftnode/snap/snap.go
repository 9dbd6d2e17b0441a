// Package snap keeps snapshots in files: whole ones only, checksummed in pieces.
//
// A [Dir] is a directory with one file a snapshot, named by the log index up to which it
// stands for the log. [Dir.Save] writes one under a temporary name and renames it when all
// of it is durable, so that a file under its own name is never half-written, whenever the
// machine crashes. [Dir.Open] streams one back and checks each piece as it comes: damage is
// an error with file and offset, never content.
package snap

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"capsize/raftnode/files"
)

// ErrCorrupt marks a snapshot that is not what was saved.
var ErrCorrupt = errors.New("corrupt snapshot")

// Dir is a directory of snapshots. It may be used by several goroutines.
type Dir struct {
	fs        files.FS
	path      string
	owner     string
	temporary atomic.Uint64 // number of the last temporary file
}

// The format, all numbers little-endian:
//
//	header: magic 8 | version 4 | index 8 | length of owner 4 | length of meta 4 |
//	        owner | meta | CRC-32C of all before it 4
//	piece:  length 4 | CRC-32C of offset in the content, length and data 4 | data
//	end:    a piece of length 0
const (
	magic       = "capssnap"
	version     = 1
	fixedBytes  = 28
	pieceBytes  = 128 << 10
	pieceHeader = 8
	suffix      = ".snap"
	unfinished  = ".tmp"
	// MaxMetaBytes bounds what is kept beside the content.
	MaxMetaBytes = 1 << 20
	maxOwner     = 256
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// OpenDir opens the directory, creates it where there is none, and removes what saves that
// a crash interrupted have left. owner stands in each file: a file of another owner is
// refused.
func OpenDir(fs files.FS, path, owner string) (*Dir, error) {
	d := &Dir{fs: fs, path: path, owner: owner}
	if len(owner) > maxOwner {
		return nil, fmt.Errorf("open snapshots in %s: owner of %d bytes: want at most %d", path, len(owner), maxOwner)
	}
	if err := d.clean(); err != nil {
		return nil, fmt.Errorf("open snapshots in %s: %w", path, err)
	}
	return d, nil
}

func (d *Dir) clean() error {
	if err := d.fs.MkdirAll(d.path); err != nil {
		return err
	}
	names, err := d.fs.List(d.path)
	if err != nil {
		return err
	}
	removed := false
	for _, name := range names {
		if strings.HasSuffix(name, unfinished) {
			if err := d.fs.Remove(filepath.Join(d.path, name)); err != nil {
				return err
			}
			removed = true
		}
	}
	if removed {
		return d.fs.SyncDir(d.path)
	}
	return nil
}

func (d *Dir) name(index uint64) string {
	return filepath.Join(d.path, fmt.Sprintf("%016x%s", index, suffix))
}

// List returns the indexes of the snapshots, in order.
func (d *Dir) List() ([]uint64, error) {
	names, err := d.fs.List(d.path)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var indexes []uint64
	for _, name := range names {
		digits, isSnapshot := strings.CutSuffix(name, suffix)
		var index uint64
		if _, err := fmt.Sscanf(digits, "%016x", &index); isSnapshot && err == nil && d.name(index) == filepath.Join(d.path, name) {
			indexes = append(indexes, index)
		}
	}
	slices.Sort(indexes)
	return indexes, nil
}

// Remove removes a snapshot. Who reads it at the time reads on.
func (d *Dir) Remove(index uint64) error {
	if err := errors.Join(d.fs.Remove(d.name(index)), d.fs.SyncDir(d.path)); err != nil {
		return fmt.Errorf("remove snapshot: %w", err)
	}
	return nil
}

// Save writes a snapshot of what content writes, and meta beside it. It is durable when
// Save returns nil, and replaces one of the same index; else there is none.
func (d *Dir) Save(index uint64, meta []byte, content func(io.Writer) error) (err error) {
	if len(meta) > MaxMetaBytes {
		return fmt.Errorf("save snapshot %d: meta of %d bytes: want at most %d", index, len(meta), MaxMetaBytes)
	}
	path := filepath.Join(d.path, fmt.Sprintf("%016x.%d%s", index, d.temporary.Add(1), unfinished))
	if err := d.write(path, index, meta, content); err != nil {
		return fmt.Errorf("save snapshot %s: %w", path, errors.Join(err, d.fs.Remove(path)))
	}
	if err := errors.Join(d.fs.Rename(path, d.name(index)), d.fs.SyncDir(d.path)); err != nil {
		return fmt.Errorf("save snapshot %s: %w", d.name(index), err)
	}
	return nil
}

func (d *Dir) write(path string, index uint64, meta []byte, content func(io.Writer) error) (err error) {
	file, err := d.fs.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	w := &writer{out: io.NewOffsetWriter(file, 0)}
	w.buf = append(d.header(index, meta), make([]byte, pieceHeader)...)
	w.start = len(w.buf) - pieceHeader
	if err := content(w); err != nil {
		return err
	}
	if err := w.finish(); err != nil {
		return err
	}
	return file.Sync()
}

func (d *Dir) header(index uint64, meta []byte) []byte {
	b := append([]byte(nil), magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint64(b, index)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(d.owner)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(meta)))
	b = append(append(b, d.owner...), meta...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// writer cuts what is written to it into pieces.
type writer struct {
	out    io.Writer
	buf    []byte // a header, perhaps, then the piece at hand with room for its own header
	start  int    // of the piece, in buf
	offset uint64 // of the piece, in the content
}

func (w *writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		room := pieceBytes - (len(w.buf) - w.start - pieceHeader)
		if room == 0 {
			if err := w.flush(); err != nil {
				return n, err
			}
			continue
		}
		take := min(room, len(p))
		w.buf = append(w.buf, p[:take]...)
		p, n = p[take:], n+take
	}
	return n, nil
}

// flush writes out the piece at hand and begins the next.
func (w *writer) flush() error {
	piece := w.buf[w.start:]
	data := piece[pieceHeader:]
	binary.LittleEndian.PutUint32(piece, uint32(len(data)))
	binary.LittleEndian.PutUint32(piece[4:], pieceCRC(w.offset, data))
	w.offset += uint64(len(data))
	_, err := w.out.Write(w.buf)
	w.buf, w.start = append(w.buf[:0], make([]byte, pieceHeader)...), 0
	return err
}

func (w *writer) finish() error {
	if len(w.buf) > w.start+pieceHeader {
		if err := w.flush(); err != nil {
			return err
		}
	}
	return w.flush()
}

func pieceCRC(offset uint64, data []byte) uint32 {
	var place [12]byte
	binary.LittleEndian.PutUint64(place[:], offset)
	binary.LittleEndian.PutUint32(place[8:], uint32(len(data)))
	return crc32.Update(crc32.Checksum(place[:], castagnoli), castagnoli, data)
}

// Open returns a snapshot's meta, and its content to read and to close. The content ends
// with io.EOF only where all of it was there and intact.
func (d *Dir) Open(index uint64) (meta []byte, content io.ReadCloser, err error) {
	path := d.name(index)
	file, err := d.fs.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot: %w", err)
	}
	r := &reader{path: path, file: file, in: bufio.NewReaderSize(file, pieceBytes+pieceHeader)}
	if meta, err = r.header(index, d.owner); err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return meta, r, nil
}

type reader struct {
	path   string
	file   io.Closer
	in     *bufio.Reader
	at     int64  // offset in the file
	offset uint64 // in the content
	piece  []byte // what is left of it
	buf    []byte
	ended  error
}

func (r *reader) corrupt(what string) error {
	return fmt.Errorf("%w: %s: %s at offset %d", ErrCorrupt, r.path, what, r.at)
}

func (r *reader) header(index uint64, owner string) (meta []byte, err error) {
	b := make([]byte, fixedBytes, fixedBytes+len(owner)+64)
	if _, err := io.ReadFull(r.in, b); err != nil || string(b[:8]) != magic {
		return nil, r.corrupt("no snapshot header")
	}
	ownerBytes, metaBytes := binary.LittleEndian.Uint32(b[20:]), binary.LittleEndian.Uint32(b[24:])
	if ownerBytes > maxOwner || metaBytes > MaxMetaBytes {
		return nil, r.corrupt("impossible length in the header")
	}
	b = append(b, make([]byte, ownerBytes+metaBytes+4)...)
	if _, err := io.ReadFull(r.in, b[fixedBytes:]); err != nil {
		return nil, r.corrupt("header is cut short")
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[len(body):]) {
		return nil, r.corrupt("crc mismatch in the header")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != version {
		return nil, fmt.Errorf("snapshot %s: format version %d; this program reads version %d", r.path, v, version)
	}
	if got := string(b[fixedBytes : fixedBytes+ownerBytes]); got != owner {
		return nil, fmt.Errorf("snapshot %s: it belongs to %s, not to %s", r.path, got, owner)
	}
	if got := binary.LittleEndian.Uint64(b[12:]); got != index {
		return nil, r.corrupt(fmt.Sprintf("the header says index %d, the name %d", got, index))
	}
	r.at = int64(len(b))
	return body[fixedBytes+ownerBytes:], nil
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	for len(r.piece) == 0 {
		if r.ended == nil {
			r.ended = r.next()
		}
		if r.ended != nil {
			return 0, r.ended
		}
	}
	n := copy(p, r.piece)
	r.piece = r.piece[n:]
	return n, nil
}

func (r *reader) next() error {
	var head [pieceHeader]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		return r.corrupt("piece is cut short")
	}
	length := binary.LittleEndian.Uint32(head[:])
	if length > pieceBytes {
		return r.corrupt("impossible length of a piece")
	}
	r.buf = append(r.buf[:0], make([]byte, length)...)
	if _, err := io.ReadFull(r.in, r.buf); err != nil {
		return r.corrupt("piece is cut short")
	}
	if pieceCRC(r.offset, r.buf) != binary.LittleEndian.Uint32(head[4:]) {
		return r.corrupt("crc mismatch")
	}
	r.at += pieceHeader + int64(length)
	r.offset += uint64(length)
	r.piece = r.buf
	if length > 0 {
		return nil
	}
	if _, err := r.in.ReadByte(); err == nil {
		return r.corrupt("something follows the end")
	} else if !errors.Is(err, io.EOF) {
		return fmt.Errorf("read snapshot %s: %w", r.path, err)
	}
	return io.EOF
}

// Close implements io.Closer.
func (r *reader) Close() error { return r.file.Close() }
