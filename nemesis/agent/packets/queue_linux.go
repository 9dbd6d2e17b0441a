package packets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	heldMost     = 16384    // packets that the kernel holds; one more is dropped by it
	receiveBytes = 16 << 20 // of the socket's buffer; what does not fit is dropped
	messageMost  = 1 << 17  // bytes of a message: a packet of 64 KiB and its attributes
	netlinkLimit = 2 * time.Second
	numbersTried = 32
	numberLeast  = 0x4000 // below are the numbers that people choose
)

// queue is a queue of packets in the kernel that this process answers for. When its socket is
// closed the kernel drops what is still held, and the bypass of the rule lets pass what comes.
type queue struct {
	number uint16
	file   *os.File // not blocking: so it can be closed under a read
}

// openQueue binds a queue that nobody has in this network namespace.
func openQueue() (*queue, error) {
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	q := &queue{file: os.NewFile(uintptr(socket), "netlink")}
	if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBytes); err != nil {
		return nil, errors.Join(fmt.Errorf("set the receive buffer: %w", err), q.file.Close())
	}
	if err := q.bind(); err != nil {
		return nil, errors.Join(err, q.file.Close())
	}
	params := append(binary.BigEndian.AppendUint32(nil, 0xffff), 2) // copy whole packets
	err = q.configure(configParams, params)
	if err == nil {
		err = q.configure(configMax, binary.BigEndian.AppendUint32(nil, heldMost))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up queue %d: %w", q.number, err), q.file.Close())
	}
	return q, nil
}

func (q *queue) bind() error {
	var err error
	for range numbersTried {
		q.number = uint16(numberLeast + rand.IntN(1<<16-numberLeast))
		err = q.configure(configCommand, []byte{1, 0, 0, 0})
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EPERM) { // EPERM: another's, or no right
			break
		}
	}
	if err != nil {
		return fmt.Errorf("bind a packet queue: %w", err)
	}
	return nil
}

// configure asks for one thing and waits for the acknowledgement. No rule leads to the queue
// yet, so nothing else can arrive.
func (q *queue) configure(kind uint16, value []byte) error {
	if err := q.file.SetDeadline(time.Now().Add(netlinkLimit)); err != nil {
		return err
	}
	if _, err := q.file.Write(encode(messageConfig, flagAcknowledge, q.number, appendAttribute(nil, kind, value))); err != nil {
		return err
	}
	answer := make([]byte, messageMost)
	n, err := q.file.Read(answer)
	if err != nil {
		return err
	}
	_, err = parse(answer[:n])
	return errors.Join(err, q.file.SetDeadline(time.Time{}))
}

// answer gives the verdict on a packet. It fails when the kernel has let the packet go by
// itself, as it does when a chain is deleted.
func (q *queue) answer(id, verdict uint32, payload []byte) error {
	_, err := q.file.Write(encodeVerdict(q.number, id, verdict, payload))
	return err
}
