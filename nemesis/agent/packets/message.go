package packets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
)

// The messages of NFQUEUE: linux/netfilter/nfnetlink_queue.h. Netlink's own fields are in the
// machine's byte order, those of netfilter in the network's.
const (
	queueSubsystem = 3 << 8
	messagePacket  = queueSubsystem
	messageVerdict = queueSubsystem | 1
	messageConfig  = queueSubsystem | 2
	messageError   = 2 // NLMSG_ERROR

	attributePacketHeader  = 1
	attributeVerdictHeader = 2
	attributePayload       = 10

	configCommand = 1
	configParams  = 2
	configMax     = 3

	verdictDrop   = 0
	verdictAccept = 1

	flagRequest     = 1
	flagAcknowledge = 4
	headerSize      = 20 // of netlink and netfilter together
	attributeMask   = 0x3fff
)

// packet is one that the kernel holds.
type packet struct {
	id      uint32
	payload []byte // from the IP header on; aliases what was parsed
}

// parse reads the packets out of what one read of the socket gave. It returns those before a
// mistake too: each of them needs a verdict.
func parse(data []byte) ([]packet, error) {
	var packets []packet
	for len(data) > 0 {
		if len(data) < 16 {
			return packets, fmt.Errorf("netlink message of %d bytes is cut short", len(data))
		}
		size := binary.NativeEndian.Uint32(data)
		if size < 16 || uint64(size) > uint64(len(data)) {
			return packets, fmt.Errorf("netlink message says %d bytes of %d", size, len(data))
		}
		message := data[:size]
		data = data[min(len(data), int(size+3)&^3):]
		switch binary.NativeEndian.Uint16(message[4:]) {
		case messagePacket:
			p, err := parsePacket(message)
			if err != nil {
				return packets, err
			}
			packets = append(packets, p)
		case messageError:
			if err := parseError(message); err != nil {
				return packets, err
			}
		}
	}
	return packets, nil
}

// parseError reads an acknowledgement, which is an error with the number 0.
func parseError(message []byte) error {
	if len(message) < headerSize {
		return errors.New("netlink error message is cut short")
	}
	if number := int32(binary.NativeEndian.Uint32(message[16:])); number != 0 {
		return syscall.Errno(-number)
	}
	return nil
}

func parsePacket(message []byte) (packet, error) {
	var p packet
	known := false
	if len(message) < headerSize {
		return p, errors.New("queued packet without a header of netfilter")
	}
	for rest := message[headerSize:]; len(rest) >= 4; {
		size := int(binary.NativeEndian.Uint16(rest))
		if size < 4 || size > len(rest) {
			return p, fmt.Errorf("attribute of a queued packet says %d bytes of %d", size, len(rest))
		}
		value := rest[4:size]
		switch binary.NativeEndian.Uint16(rest[2:]) & attributeMask {
		case attributePacketHeader:
			if len(value) < 4 {
				return p, errors.New("header of a queued packet is cut short")
			}
			p.id, known = binary.BigEndian.Uint32(value), true
		case attributePayload:
			p.payload = value
		}
		rest = rest[min(len(rest), (size+3)&^3):]
	}
	if !known {
		return p, errors.New("queued packet without a number")
	}
	return p, nil
}

func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(value)&3)...)
}

// encode makes a message to queue number.
func encode(kind, flags, number uint16, attributes []byte) []byte {
	b := make([]byte, 0, headerSize+len(attributes))
	b = binary.NativeEndian.AppendUint32(b, uint32(headerSize+len(attributes)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flagRequest|flags)
	b = append(b, make([]byte, 8)...) // sequence and port: nobody asks
	b = append(b, 0, 0)               // any family, version 0
	b = binary.BigEndian.AppendUint16(b, number)
	return append(b, attributes...)
}

// encodeVerdict answers for a packet. A payload replaces the packet's; nil leaves it.
func encodeVerdict(number uint16, id, verdict uint32, payload []byte) []byte {
	header := binary.BigEndian.AppendUint32(nil, verdict)
	attributes := appendAttribute(nil, attributeVerdictHeader, binary.BigEndian.AppendUint32(header, id))
	if payload != nil {
		attributes = appendAttribute(attributes, attributePayload, payload)
	}
	return encode(messageVerdict, 0, number, attributes)
}
