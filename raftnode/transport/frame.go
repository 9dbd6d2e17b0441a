package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A frame is the payload's length and its CRC-32C, 4 bytes each, little-endian, and the
// payload. TCP's own checksum is 16 bits: too weak for a log that must never differ.
const (
	frameHeaderBytes = 8
	// MaxPayloadBytes bounds a message.
	MaxPayloadBytes = 64 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged marks bytes that are no frame: the connection cannot be trusted any more.
var errDamaged = errors.New("damaged frame")

func appendFrame(b, payload []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(payload, castagnoli))
	return append(b, payload...)
}

func readFrame(in io.Reader) ([]byte, error) {
	var header [frameHeaderBytes]byte
	if _, err := io.ReadFull(in, header[:]); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint32(header[:])
	if length > MaxPayloadBytes {
		return nil, fmt.Errorf("%w: payload of %d bytes, limit %d", errDamaged, length, MaxPayloadBytes)
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(in, payload); err != nil {
		return nil, err
	}
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(header[4:]) {
		return nil, fmt.Errorf("%w: crc mismatch in a payload of %d bytes", errDamaged, length)
	}
	return payload, nil
}

// hello is the first frame of a connection: magic 8 | version 4 | from 8 | to 8 | cluster.
type hello struct {
	cluster  string
	from, to uint64
}

const (
	helloMagic   = "capspeer"
	helloVersion = 1
	helloBytes   = 28
)

func (h hello) encode() []byte {
	b := append(make([]byte, 0, helloBytes+len(h.cluster)), helloMagic...)
	b = binary.LittleEndian.AppendUint32(b, helloVersion)
	b = binary.LittleEndian.AppendUint64(b, h.from)
	b = binary.LittleEndian.AppendUint64(b, h.to)
	return append(b, h.cluster...)
}

func decodeHello(b []byte) (hello, error) {
	if len(b) < helloBytes || string(b[:8]) != helloMagic {
		return hello{}, errors.New("it is no node: no hello")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != helloVersion {
		return hello{}, fmt.Errorf("it speaks version %d, this node version %d", v, helloVersion)
	}
	return hello{
		from:    binary.LittleEndian.Uint64(b[12:]),
		to:      binary.LittleEndian.Uint64(b[20:]),
		cluster: string(b[helloBytes:]),
	}, nil
}
