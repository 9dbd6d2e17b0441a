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
	payload, err := readExactly(in, int(length))
	if err != nil {
		return nil, err
	}
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(header[4:]) {
		return nil, fmt.Errorf("%w: crc mismatch in a payload of %d bytes", errDamaged, length)
	}
	return payload, nil
}

// readExactly reads so many bytes. Memory grows with what really comes, not with the length
// that was claimed.
func readExactly(in io.Reader, length int) ([]byte, error) {
	const step = 1 << 20
	b := make([]byte, min(length, step))
	for at := 0; ; {
		if _, err := io.ReadFull(in, b[at:]); err != nil {
			return nil, err
		}
		if at = len(b); at == length {
			return b, nil
		}
		b = append(b, make([]byte, min(length-at, max(at, step)))...)
	}
}

// kind is what a connection is for.
type kind uint8

const (
	forMessages kind = iota
	forSnapshot
	kinds
)

// hello is the first frame of a connection: magic 8 | version 4 | kind 1 | from 8 | to 8 |
// length of cluster 1 | cluster | address at which the sender can be reached, or nothing.
type hello struct {
	kind      kind
	cluster   string
	from, to  uint64
	advertise string
}

const (
	helloMagic   = "capspeer"
	helloVersion = 2
	helloBytes   = 30
	// maxAdvertised bounds the address in a hello.
	maxAdvertised = 255
)

func (h hello) encode() []byte {
	b := append(make([]byte, 0, helloBytes+len(h.cluster)+len(h.advertise)), helloMagic...)
	b = binary.LittleEndian.AppendUint32(b, helloVersion)
	b = append(b, byte(h.kind))
	b = binary.LittleEndian.AppendUint64(b, h.from)
	b = binary.LittleEndian.AppendUint64(b, h.to)
	b = append(b, byte(len(h.cluster)))
	return append(append(b, h.cluster...), h.advertise...)
}

func decodeHello(b []byte) (hello, error) {
	if len(b) < helloBytes || string(b[:8]) != helloMagic {
		return hello{}, errors.New("it is no node: no hello")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != helloVersion {
		return hello{}, fmt.Errorf("it speaks version %d, this node version %d", v, helloVersion)
	}
	cluster := int(b[helloBytes-1])
	if kind(b[12]) >= kinds || len(b) < helloBytes+cluster || len(b) > helloBytes+cluster+maxAdvertised {
		return hello{}, errors.New("it is no node: its hello is malformed")
	}
	return hello{
		kind: kind(b[12]), from: binary.LittleEndian.Uint64(b[13:]), to: binary.LittleEndian.Uint64(b[21:]),
		cluster: string(b[helloBytes : helloBytes+cluster]), advertise: string(b[helloBytes+cluster:]),
	}, nil
}
