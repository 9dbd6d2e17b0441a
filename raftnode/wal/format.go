package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The format, all numbers little-endian.
//
//	header, 128 bytes: magic 8 | version 4 | length of cluster id 4 | node 8 | segment 8 |
//	                   cluster id 64, zero padded | length of header and head 4 | zero 24 |
//	                   CRC-32C of the above 4
//	frame:             length of record 4 | CRC-32C 4 | durable 8 | record | zero padding to 8
//
// A frame's CRC covers its segment and offset (not stored), length, durable and record: a
// frame that stands where it was not written is not valid. durable is the size up to
// which the segment was known to be on disk when the frame was written. It tells a torn
// tail, where a later frame may have reached the disk before an earlier one, from damage
// to what was durable once. Behind the last frame of the newest segment stand zeros, or the
// end of the file; behind that of every other, the end. The frames of the head have durable
// zero, since nothing is on disk when they are written; no other frame has.
const (
	magic           = "capswal\n"
	version         = 2
	headerBytes     = 128
	maxClusterBytes = 64
	frameBytes      = 16
	alignment       = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodeHeader fills in the header in front of a head.
func encodeHeader(b []byte, id Identity, segment uint64) {
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[8:], version)
	binary.LittleEndian.PutUint32(b[12:], uint32(len(id.Cluster)))
	binary.LittleEndian.PutUint64(b[16:], id.Node)
	binary.LittleEndian.PutUint64(b[24:], segment)
	copy(b[32:32+maxClusterBytes], id.Cluster)
	binary.LittleEndian.PutUint32(b[32+maxClusterBytes:], uint32(len(b)))
	binary.LittleEndian.PutUint32(b[headerBytes-4:], crc32.Checksum(b[:headerBytes-4], castagnoli))
}

// unfinished reports whether data is what a crash during the creation of a segment may
// leave: a header or head that is not whole, and behind it nothing that was written when
// they were durable.
func unfinished(data []byte, segment uint64) bool {
	if headWhole(data, segment) {
		return false
	}
	_, later := provesDurable(data, segment, 0)
	return !later
}

func headWhole(data []byte, segment uint64) bool {
	if !headerIntact(data) {
		return false
	}
	end := int64(binary.LittleEndian.Uint32(data[32+maxClusterBytes:]))
	for offset := int64(headerBytes); offset < end; {
		if offset >= int64(len(data)) {
			return false
		}
		f, err := decodeFrame(data, segment, offset)
		if err != nil {
			return false
		}
		offset = f.end
	}
	return true
}

func allZero(data []byte) bool { return len(bytes.TrimLeft(data, "\x00")) == 0 }

func headerIntact(data []byte) bool {
	return len(data) >= headerBytes &&
		crc32.Checksum(data[:headerBytes-4], castagnoli) == binary.LittleEndian.Uint32(data[headerBytes-4:])
}

func checkHeader(data []byte, want Identity, segment uint64) error {
	got, err := readHeader(data, segment)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%w: it belongs to node %d of cluster %q, not to node %d of cluster %q", ErrIdentity, got.Node, got.Cluster, want.Node, want.Cluster)
	}
	return nil
}

func readHeader(data []byte, segment uint64) (Identity, error) {
	if len(data) < headerBytes || !bytes.HasPrefix(data, []byte(magic)) {
		return Identity{}, fmt.Errorf("%w: no log header at offset 0", ErrCorrupt)
	}
	if !headerIntact(data) {
		return Identity{}, fmt.Errorf("%w: crc mismatch in the header at offset 0", ErrCorrupt)
	}
	if v := binary.LittleEndian.Uint32(data[8:]); v != version {
		return Identity{}, fmt.Errorf("format version %d; this program reads version %d", v, version)
	}
	length := binary.LittleEndian.Uint32(data[12:])
	if length > maxClusterBytes {
		return Identity{}, fmt.Errorf("%w: cluster id of %d bytes in the header at offset 0", ErrCorrupt, length)
	}
	if n := binary.LittleEndian.Uint64(data[24:]); n != segment {
		return Identity{}, fmt.Errorf("%w: the header at offset 0 says segment %d, the name %d", ErrCorrupt, n, segment)
	}
	return Identity{Cluster: string(data[32 : 32+length]), Node: binary.LittleEndian.Uint64(data[16:])}, nil
}

type frame struct {
	payload []byte // aliases the segment's data
	durable int64
	end     int64 // offset of the next frame
}

var (
	errCutShort = errors.New("record is cut short")
	errLength   = errors.New("impossible record length")
	errCRC      = errors.New("crc mismatch")
	errPadding  = errors.New("padding is not zero")
)

// decodeFrame decodes the frame at offset.
func decodeFrame(data []byte, segment uint64, offset int64) (frame, error) {
	rest := data[offset:]
	if len(rest) < frameBytes {
		return frame{}, errCutShort
	}
	length := int64(binary.LittleEndian.Uint32(rest))
	if length == 0 || length > MaxRecordBytes {
		return frame{}, errLength
	}
	padded := align(frameBytes + length)
	if int64(len(rest)) < padded {
		return frame{}, errCutShort
	}
	if binary.LittleEndian.Uint32(rest[4:]) != frameCRC(rest[:4], rest[8:frameBytes+length], segment, offset) {
		return frame{}, errCRC
	}
	for _, b := range rest[frameBytes+length : padded] {
		if b != 0 {
			return frame{}, errPadding
		}
	}
	durable := binary.LittleEndian.Uint64(rest[8:])
	if durable > uint64(offset) {
		return frame{}, errLength
	}
	return frame{payload: rest[frameBytes : frameBytes+length], durable: int64(durable), end: offset + padded}, nil
}

func appendFrame(b []byte, segment uint64, offset, durable int64, record []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(record)))
	b = binary.LittleEndian.AppendUint32(b, 0) // the CRC, once the rest stands
	b = binary.LittleEndian.AppendUint64(b, uint64(durable))
	b = append(b, record...)
	crc := frameCRC(b[start:start+4], b[start+8:], segment, offset)
	binary.LittleEndian.PutUint32(b[start+4:], crc)
	for int64(len(b)-start) != align(int64(len(b)-start)) {
		b = append(b, 0)
	}
	return b
}

func frameCRC(length, rest []byte, segment uint64, offset int64) uint32 {
	var place [16]byte
	binary.LittleEndian.PutUint64(place[:], segment)
	binary.LittleEndian.PutUint64(place[8:], uint64(offset))
	crc := crc32.Update(0, castagnoli, place[:])
	crc = crc32.Update(crc, castagnoli, length)
	return crc32.Update(crc, castagnoli, rest)
}

func align(n int64) int64 { return (n + alignment - 1) &^ (alignment - 1) }

// provesDurable looks behind a bad frame for an intact one that was written when the
// bad one was durable already: then no crash explains the damage.
func provesDurable(data []byte, segment uint64, bad int64) (witness int64, found bool) {
	for offset := bad + alignment; offset+frameBytes <= int64(len(data)); {
		f, err := decodeFrame(data, segment, offset)
		if err != nil {
			offset += alignment
			continue
		}
		if f.durable > bad {
			return offset, true
		}
		offset = f.end
	}
	return 0, false
}
