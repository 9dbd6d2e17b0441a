package transport

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

func noise(size int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// taker is what a receiver does with a snapshot.
type taker func(message []byte, content io.Reader) error

// pair starts two transports, of which the second takes snapshots so. What the first sends
// goes through a proxy, if there is one.
func pair(t *testing.T, take taker, through func(address string) string) (sender, receiver *node) {
	t.Helper()
	return pairAtRate(t, take, through, 0)
}

func pairAtRate(t *testing.T, take taker, through func(address string) string, rate int64) (sender, receiver *node) {
	t.Helper()
	l1, l2 := listen(t), listen(t)
	to := l2.Addr().String()
	if through != nil {
		to = through(to)
	}
	sender = startWith(t, Config{
		Cluster: "test", Self: 1, Listener: l1, Peers: map[uint64]string{2: to}, SnapshotBytesPerSecond: rate,
	})
	receiver = startWith(t, Config{
		Cluster: "test", Self: 2, Listener: l2, Peers: map[uint64]string{1: l1.Addr().String()},
		ReceiveSnapshot: func(from uint64, message []byte, content io.Reader) error {
			if from != 1 {
				return fmt.Errorf("from %d", from)
			}
			return take(message, content)
		},
	})
	return sender, receiver
}

// closing is content that tells when it is closed.
type closing struct {
	io.Reader
	closed chan struct{}
}

func (c closing) Close() error { close(c.closed); return nil }

// send streams content and waits for what comes of it.
func send(t *testing.T, n *node, content io.Reader) error {
	t.Helper()
	c := closing{content, make(chan struct{})}
	result := make(chan error, 2)
	n.SendSnapshot(2, []byte("message"), c, func(err error) { result <- err })
	select {
	case err := <-result:
		select {
		case <-c.closed:
		default:
			t.Error("the content was not closed")
		}
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("no word of the snapshot")
		return nil
	}
}

func TestASnapshotArrivesWholeWhileMessagesFlow(t *testing.T) {
	t.Parallel()
	want := noise(5<<20 + 17)
	var got []byte
	sender, receiver := pair(t, func(message []byte, content io.Reader) (err error) {
		if string(message) != "message" {
			return fmt.Errorf("message %q", message)
		}
		got, err = io.ReadAll(content)
		return err
	}, nil)
	stop := make(chan struct{})
	var talking sync.WaitGroup
	talking.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				sender.Send(2, []byte("between"))
				time.Sleep(time.Millisecond)
			}
		}
	})
	if err := send(t, sender, bytes.NewReader(want)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrived of %d", len(got), len(want))
	}
	if err := send(t, sender, bytes.NewReader(nil)); err != nil || len(got) != 0 {
		t.Errorf("an empty one: %d bytes, %v", len(got), err)
	}
	eventually(t, "messages arrived meanwhile", func() bool { return len(receiver.got()) > 0 })
	close(stop)
	talking.Wait()
	s, r := sender.Stats(), receiver.Stats()
	if s.SnapshotsSent != 2 || s.SnapshotBytesSent != uint64(len(want)) || r.SnapshotsReceived != 2 || r.SnapshotBytesReceived != uint64(len(want)) {
		t.Errorf("counted %+v and %+v", s, r)
	}
}

func TestTheSenderHearsWhyItsSnapshotIsRefused(t *testing.T) {
	sender, _ := pair(t, func(_ []byte, content io.Reader) error {
		_, _ = io.CopyN(io.Discard, content, 100) // it has seen enough
		return errors.New("the disk is full")
	}, nil)
	if err := send(t, sender, bytes.NewReader(noise(8<<20))); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("got %v", err)
	}
	broken := errors.New("cannot read it")
	if err := send(t, sender, io.MultiReader(bytes.NewReader(noise(1<<20)), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("content that fails: %v", err)
	}
	c := closing{bytes.NewReader(nil), make(chan struct{})}
	result := make(chan error, 1)
	sender.SendSnapshot(9, nil, c, func(err error) { result <- err })
	if err := <-result; !errors.Is(err, ErrNoPeer) {
		t.Errorf("to nobody: %v", err)
	}
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

// tamper is a proxy that changes what a connection for a snapshot carries.
func tamper(t *testing.T, change func(total int, b []byte) (out []byte, cut bool)) func(string) string {
	return func(address string) string {
		listener := listen(t)
		t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				in, err := listener.Accept()
				if err != nil {
					return
				}
				out, err := net.Dial("tcp", address)
				if err != nil {
					_ = in.Close()
					continue
				}
				go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
				go func() {
					defer func() { _ = out.Close() }()
					total, b := 0, make([]byte, 32<<10)
					for {
						n, err := in.Read(b)
						if err != nil {
							return
						}
						changed, cut := change(total, b[:n])
						total += n
						if _, err := out.Write(changed); err != nil || cut {
							_ = in.Close()
							return
						}
					}
				}()
			}
		}()
		return listener.Addr().String()
	}
}

// Content that ends early must never look whole.
func TestADamagedOrCutStreamIsAnErrorOnBothSides(t *testing.T) {
	const at = 600 << 10
	for what, change := range map[string]func(int, []byte) ([]byte, bool){
		"cut": func(total int, b []byte) ([]byte, bool) { return b, total > at },
		"damaged": func(total int, b []byte) ([]byte, bool) {
			if total <= at && at < total+len(b) {
				b[at-total] ^= 1
			}
			return b, false
		},
	} {
		t.Run(what, func(t *testing.T) {
			received := make(chan error, 1)
			sender, _ := pair(t, func(_ []byte, content io.Reader) error {
				_, err := io.ReadAll(content)
				received <- err
				return err
			}, tamper(t, change))
			sent := send(t, sender, bytes.NewReader(noise(2<<20)))
			got := <-received
			if sent == nil || got == nil {
				t.Errorf("sent: %v, received: %v", sent, got)
			}
		})
	}
}

func TestAReceiverThatStallsIsGivenUpAndASlowOneIsNot(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	slow := true
	sender, _ := pair(t, func(_ []byte, content io.Reader) error {
		if !slow {
			<-release
			return errors.New("woken up")
		}
		b := make([]byte, 1<<20)
		for {
			if _, err := io.ReadFull(content, b); err != nil {
				return nil
			}
			time.Sleep(50 * time.Millisecond) // a slow disk, on purpose
		}
	}, nil)
	sender.stall = 300 * time.Millisecond
	if err := send(t, sender, bytes.NewReader(noise(16<<20))); err != nil {
		t.Errorf("slow: %v", err)
	}
	slow = false
	defer close(release)
	began := time.Now()
	if err := send(t, sender, bytes.NewReader(noise(32<<20))); err == nil || time.Since(began) > 10*time.Second {
		t.Errorf("stalled: %v after %v", err, time.Since(began))
	}
}

func TestOneSnapshotAtATimeGoesToAPeer(t *testing.T) {
	release := make(chan struct{})
	begun := make(chan struct{}, 1)
	sender, _ := pair(t, func(_ []byte, content io.Reader) error {
		begun <- struct{}{}
		<-release
		_, err := io.Copy(io.Discard, content)
		return err
	}, nil)
	first := make(chan error, 1)
	sender.SendSnapshot(2, nil, io.NopCloser(bytes.NewReader(noise(1<<20))), func(err error) { first <- err })
	<-begun
	if err := send(t, sender, bytes.NewReader(nil)); !errors.Is(err, ErrBusy) {
		t.Errorf("the second: %v", err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Errorf("the first: %v", err)
	}
}

func TestClosingOrRemovingEndsAStream(t *testing.T) {
	for what, end := range map[string]func(sender, receiver *node){
		"the sender closes":         func(s, _ *node) { _ = s.Close() },
		"the receiver closes":       func(_, r *node) { _ = r.Close() },
		"the receiver is removed":   func(s, _ *node) { s.RemovePeer(2) },
		"the sender is not trusted": func(_, r *node) { r.RemovePeer(1) },
	} {
		t.Run(what, func(t *testing.T) {
			begun := make(chan struct{}, 1)
			sender, receiver := pair(t, func(_ []byte, content io.Reader) error {
				begun <- struct{}{}
				_, err := io.Copy(io.Discard, content)
				return err
			}, nil)
			result := make(chan error, 1)
			sender.SendSnapshot(2, nil, io.NopCloser(endless{}), func(err error) { result <- err })
			<-begun
			end(sender, receiver)
			select {
			case err := <-result:
				if err == nil {
					t.Error("an endless stream arrived")
				}
			case <-time.After(15 * time.Second):
				t.Error("the stream goes on")
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestTheStreamOfASnapshotKeepsToItsRate(t *testing.T) {
	sender, _ := pairAtRate(t, func(_ []byte, content io.Reader) error {
		_, err := io.Copy(io.Discard, content)
		return err
	}, nil, 1<<20)
	began := time.Now()
	if err := send(t, sender, bytes.NewReader(noise(300<<10))); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("300 KiB at 1 MiB/s took %v", took)
	}
}

func TestPeersComeGoAndMove(t *testing.T) {
	l1, l2, l3 := listen(t), listen(t), listen(t)
	a := start(t, 1, l1, nil)
	a.Send(2, []byte("nobody yet"))
	b := start(t, 2, l2, map[uint64]string{1: l1.Addr().String()})
	a.AddPeer(2, l2.Addr().String())
	a.AddPeer(2, l2.Addr().String()) // the same again changes nothing
	eventually(t, "the new peer hears", func() bool { a.Send(2, []byte("hello")); return len(b.got()) > 0 })
	if a.Stats().Dials != 1 {
		t.Errorf("%d dials", a.Stats().Dials)
	}
	moved := start(t, 2, l3, map[uint64]string{1: l1.Addr().String()})
	a.AddPeer(2, l3.Addr().String())
	eventually(t, "it hears at its new address", func() bool { a.Send(2, []byte("hello")); return len(moved.got()) > 0 })
	a.RemovePeer(2)
	dropped := a.Stats().Dropped
	a.Send(2, []byte("gone"))
	if a.Stats().Dropped != dropped+1 {
		t.Error("a message to a removed peer is not dropped")
	}
	eventually(t, "a removed peer is refused", func() bool { return strings.Contains(a.logs(), "node 2 was removed") })
	a.AddPeer(2, l3.Addr().String())
	heard := len(moved.got())
	eventually(t, "it is a peer again", func() bool { a.Send(2, []byte("back")); return len(moved.got()) > heard })
	eventually(t, "and is heard", func() bool { moved.Send(1, []byte("thanks")); return len(a.got()) > 0 })
}

// A node that was just added knows nobody: whoever speaks to it is believed, and answered at
// the address that it gives.
func TestANewcomerAnswersWhoeverSpeaksToIt(t *testing.T) {
	l1, l2 := listen(t), listen(t)
	leader := startWith(t, Config{
		Cluster: "test", Self: 1, Listener: l1, Peers: map[uint64]string{2: l2.Addr().String()}, Advertise: l1.Addr().String(),
	})
	newcomer := start(t, 2, l2, nil)
	leader.Send(2, []byte("welcome"))
	eventually(t, "the newcomer hears", func() bool { leader.Send(2, []byte("welcome")); return len(newcomer.got()) > 0 })
	eventually(t, "the leader hears the answer", func() bool { newcomer.Send(1, []byte("thanks")); return len(leader.got()) > 0 })
}

func FuzzChunks(f *testing.F) {
	chunk := func(offset byte, data string) []byte {
		return appendFrame(nil, append([]byte{offset, 0, 0, 0, 0, 0, 0, 0}, data...))
	}
	f.Add(bytes.Join([][]byte{chunk(0, "abc"), chunk(3, "de"), chunk(5, "")}, nil))
	f.Add(chunk(1, "abc"))
	f.Add([]byte{3, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs := net.Pipe()
		defer func() { _ = ours.Close(); _ = theirs.Close() }()
		c := &chunks{conn: ours, in: bufio.NewReader(bytes.NewReader(data)), stall: time.Minute}
		content, err := io.ReadAll(c)
		if err != nil {
			return // an early end too is an error, never io.EOF
		}
		if uint64(len(content)) != c.offset || len(data) < len(content)+2*frameHeaderBytes {
			t.Fatalf("%d bytes of content out of %d", len(content), len(data))
		}
	})
}
