package transport

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// A snapshot has a connection of its own: the hello, a frame with its message, the content
// in frames of up to chunkBytes, each after its offset, and a frame with the offset alone
// that ends it. Then the receiver answers with one frame: empty if it has taken the
// snapshot, else the reason.
const (
	chunkBytes = 64 << 10
	// stallTimeout is how long either side waits for the other to make progress. The receiver
	// may be busy writing to its disk.
	stallTimeout = 10 * time.Second
	// verdictTimeout is how long the receiver may take from the end of the stream to its answer.
	verdictTimeout       = time.Minute
	maxIncomingSnapshots = 2
	maxReasonBytes       = 1 << 10
)

// Errors of SendSnapshot.
var (
	ErrNoPeer  = errors.New("no such peer")
	ErrBusy    = errors.New("a snapshot is on its way there already")
	ErrRefused = errors.New("the receiver refused the snapshot")
)

// SendSnapshot streams a snapshot to a peer: a message, and the content, which it closes. It
// does not block; done is called once, from another goroutine, with nil when the receiver
// has said that it took the snapshot.
func (t *Transport) SendSnapshot(to uint64, message []byte, content io.ReadCloser, done func(error)) {
	p := t.peer(to)
	send := func() error {
		if p == nil {
			return fmt.Errorf("%w: node %d", ErrNoPeer, to)
		}
		if p.streaming.Swap(true) {
			return ErrBusy
		}
		defer p.streaming.Store(false)
		return p.stream(message, content)
	}
	t.done.Go(func() { done(errors.Join(send(), content.Close())) })
}

func (p *peer) stream(message []byte, content io.Reader) (err error) {
	conn, err := p.dial(p.transport.stall)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // what matters was said before
	ended := make(chan struct{})
	defer close(ended)
	p.transport.done.Go(func() {
		select {
		case <-p.ctx.Done():
			_ = conn.Close() // ends whatever waits for it
		case <-ended:
		}
	})
	sent, err := p.pour(conn, message, content)
	// A receiver that has had enough says why, and closes: its word explains the error here.
	patience := verdictTimeout
	if err != nil {
		patience = time.Second
	}
	if verdict := readVerdict(conn, patience); err == nil || errors.Is(verdict, ErrRefused) {
		err = errors.Join(verdict, err)
	}
	if err != nil {
		return err
	}
	p.transport.count.snapshotsSent.Add(1)
	p.transport.count.snapshotBytesSent.Add(sent)
	return nil
}

// pour writes the whole stream.
func (p *peer) pour(conn net.Conn, message []byte, content io.Reader) (offset uint64, err error) {
	write := func(frames []byte) error {
		if err := conn.SetWriteDeadline(time.Now().Add(p.transport.stall)); err != nil {
			return err
		}
		_, err := conn.Write(frames)
		return err
	}
	if err := write(appendFrame(p.hello(forSnapshot), message)); err != nil {
		return 0, err
	}
	began := time.Now()
	chunk := make([]byte, 8+chunkBytes)
	var frame []byte
	for {
		n, readErr := io.ReadFull(content, chunk[8:])
		if readErr != nil && readErr != io.EOF && readErr != io.ErrUnexpectedEOF {
			return offset, readErr
		}
		binary.LittleEndian.PutUint64(chunk, offset)
		if frame = appendFrame(frame[:0], chunk[:8+n]); n > 0 {
			if err := write(frame); err != nil {
				return offset, err
			}
		}
		offset += uint64(n)
		if readErr != nil {
			binary.LittleEndian.PutUint64(chunk, offset)
			return offset, write(appendFrame(frame[:0], chunk[:8]))
		}
		if rate := p.transport.config.SnapshotBytesPerSecond; rate > 0 {
			due := time.Duration(float64(offset) / float64(rate) * float64(time.Second))
			if !pause(p.ctx, due-time.Since(began)) {
				return offset, p.ctx.Err()
			}
		}
	}
}

func readVerdict(conn net.Conn, patience time.Duration) error {
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	reason, err := readFrame(io.LimitReader(conn, frameHeaderBytes+maxReasonBytes))
	switch {
	case err != nil:
		return fmt.Errorf("wait for the receiver's word: %w", err)
	case len(reason) > 0:
		return fmt.Errorf("%w: %s", ErrRefused, reason)
	}
	return nil
}

// serveSnapshot takes in one snapshot.
func (t *Transport) serveSnapshot(from uint64, conn net.Conn, in *bufio.Reader) {
	c := &chunks{conn: conn, in: in, stall: t.stall}
	err := func() error {
		message, err := c.frame()
		if err != nil {
			return err
		}
		return t.config.ReceiveSnapshot(from, message, c)
	}()
	var reason []byte
	switch {
	case err != nil:
		t.config.Logf("a snapshot from node %d is lost: %v", from, err)
		reason = []byte(err.Error())
		reason = reason[:min(len(reason), maxReasonBytes)]
	default:
		t.count.snapshotsReceived.Add(1)
		t.count.snapshotBytesReceived.Add(c.offset)
	}
	if conn.SetWriteDeadline(time.Now().Add(t.stall)) == nil {
		_, _ = conn.Write(appendFrame(nil, reason)) // a sender that is gone needs no answer
	}
	if err != nil {
		// Bytes that were not read would make the kernel reset the connection, and the reason
		// with it.
		_ = conn.SetReadDeadline(time.Now().Add(helloTimeout)) // fails only if the connection is gone
		_, _ = io.Copy(io.Discard, in)
	}
}

// chunks is the content of a snapshot as it comes in.
type chunks struct {
	conn   net.Conn
	in     *bufio.Reader
	stall  time.Duration
	offset uint64
	rest   []byte
	ended  error
}

func (c *chunks) frame() ([]byte, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(c.stall)); err != nil {
		return nil, err
	}
	frame, err := readFrame(c.in)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return frame, err
}

// Read implements io.Reader.
func (c *chunks) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		if c.ended == nil {
			c.ended = c.next()
		}
		if c.ended != nil {
			return 0, c.ended
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *chunks) next() error {
	frame, err := c.frame()
	if err != nil {
		return err
	}
	if len(frame) < 8 || binary.LittleEndian.Uint64(frame) != c.offset {
		return fmt.Errorf("%w: a chunk of a snapshot is missing at offset %d", errDamaged, c.offset)
	}
	c.rest = frame[8:]
	c.offset += uint64(len(c.rest))
	if len(c.rest) == 0 {
		return io.EOF
	}
	return nil
}
