package transport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// node is a transport that keeps what it received.
type node struct {
	*Transport
	mu       sync.Mutex
	received []string
	logged   []string
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

func start(t *testing.T, self uint64, listener net.Listener, peers map[uint64]string) *node {
	t.Helper()
	return startWith(t, Config{Cluster: "test", Self: self, Listener: listener, Peers: peers})
}

func startWith(t *testing.T, config Config) *node {
	t.Helper()
	n := &node{}
	config.Receive = func(from uint64, payload []byte) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.received = append(n.received, fmt.Sprintf("%d:%s", from, payload))
	}
	config.Logf = func(format string, args ...any) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.logged = append(n.logged, fmt.Sprintf(format, args...))
	}
	n.Transport = Start(config)
	t.Cleanup(func() { _ = n.Close() }) // some tests close it themselves
	return n
}

func (n *node) got() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.received)
}

func (n *node) logs() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.logged, "\n")
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestMessagesArriveWholeAndInOrder(t *testing.T) {
	l1, l2 := listen(t), listen(t)
	peers := map[uint64]string{1: l1.Addr().String(), 2: l2.Addr().String()}
	a, b := start(t, 1, l1, peers), start(t, 2, l2, peers)
	eventually(t, "both connected", func() bool { return a.Stats().Dials == 1 && b.Stats().Dials == 1 })
	var want []string
	for i := range 2000 {
		payload := fmt.Sprint(i, strings.Repeat("x", i%300))
		a.Send(2, []byte(payload))
		want = append(want, "1:"+payload)
	}
	b.Send(1, nil)
	eventually(t, "all arrived", func() bool { return len(b.got()) == len(want) && len(a.got()) == 1 })
	if !slices.Equal(b.got(), want) {
		t.Error("messages were changed or reordered")
	}
	if s := a.Stats(); s.Sent != 2000 || s.Dropped+s.Lost != 0 {
		t.Errorf("counted %+v", s)
	}
}

func TestTrafficFlowsSoonAfterAPeerComesBack(t *testing.T) {
	l1, l2 := listen(t), listen(t)
	address := l2.Addr().String()
	a := start(t, 1, l1, map[uint64]string{2: address})
	b := start(t, 2, l2, map[uint64]string{1: l1.Addr().String()})
	a.Send(2, []byte("before"))
	eventually(t, "first message", func() bool { return len(b.got()) == 1 })
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loss is noticed", func() bool { return strings.Contains(a.logs(), "cannot be reached") })
	a.Send(2, []byte("lost"))
	eventually(t, "the message is dropped", func() bool { return a.Stats().Dropped+a.Stats().Lost > 0 })

	again, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	b = start(t, 2, again, map[uint64]string{1: l1.Addr().String()})
	back := time.Now()
	eventually(t, "a message after the restart", func() bool {
		a.Send(2, []byte("after"))
		return len(b.got()) > 0
	})
	if took := time.Since(back); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	if got := b.got()[0]; got != "1:after" {
		t.Errorf("the restarted peer first got %q: stale messages were kept", got)
	}
}

// A peer whose process is stopped still has a kernel that accepts connections and takes
// bytes until its buffers are full.
func TestAPeerThatReadsNothingBlocksNobodyAndIsRedialled(t *testing.T) {
	stuck := listen(t)
	defer func() { _ = stuck.Close() }()
	l1, l3 := listen(t), listen(t)
	a := start(t, 1, l1, map[uint64]string{2: stuck.Addr().String(), 3: l3.Addr().String()})
	c := start(t, 3, l3, map[uint64]string{1: l1.Addr().String()})
	payload := bytes.Repeat([]byte("z"), 64<<10)
	p := a.peer(2)
	for range 2000 { // 125 MiB: more than any socket buffer
		began := time.Now()
		a.Send(2, payload)
		if took := time.Since(began); took > time.Second {
			t.Fatalf("Send took %v", took)
		}
		p.mu.Lock()
		if p.queued > maxQueuedBytes || len(p.queue) > maxQueuedFrames {
			t.Fatalf("queue of %d frames, %d bytes", len(p.queue), p.queued)
		}
		p.mu.Unlock()
	}
	a.Send(3, []byte("hello"))
	eventually(t, "the other peer is served", func() bool { return len(c.got()) == 1 })
	eventually(t, "frames are dropped", func() bool { return a.Stats().Dropped > 0 })
	eventually(t, "the stuck connection is given up and dialled again", func() bool {
		a.Send(2, payload)
		return a.Stats().Lost > 0 && a.Stats().Dials >= 3
	})
}

func TestStrangersAreRefusedWithTheReason(t *testing.T) {
	listener := listen(t)
	n := start(t, 1, listener, map[uint64]string{1: "127.0.0.1:1", 2: "127.0.0.1:1", 7: "127.0.0.1:1"})
	n.RemovePeer(7)
	for _, c := range []struct {
		first []byte
		want  string
	}{
		{appendFrame(nil, hello{cluster: "other", from: 2, to: 1}.encode()), `cluster "other"`},
		{appendFrame(nil, hello{cluster: "test", from: 2, to: 3}.encode()), "looks for node 3"},
		{appendFrame(nil, hello{cluster: "test", from: 7, to: 1}.encode()), "node 7 was removed"},
		{appendFrame(nil, hello{cluster: "test", from: 1, to: 1}.encode()), "as this one is"},
		{appendFrame(nil, hello{kind: forSnapshot, cluster: "test", from: 2, to: 1}.encode()), "sends a snapshot"},
		{appendFrame(nil, hello{kind: kinds, cluster: "test", from: 2, to: 1}.encode()), "malformed"},
		{appendFrame(nil, []byte("GET / HTTP/1.1")), "no hello"},
		{[]byte("\x05\x00\x00\x00....hello"), "crc mismatch"},
	} {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(append(c.first, appendFrame(nil, []byte("payload"))...)); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second)) // a failure shows in the read
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: not closed", c.want)
		}
		eventually(t, c.want, func() bool { return strings.Contains(n.logs(), c.want) })
		_ = conn.Close()
	}
	if got := n.got(); len(got) != 0 {
		t.Errorf("strangers delivered %q", got)
	}
	good, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = good.Close() }()
	hi := appendFrame(nil, hello{cluster: "test", from: 2, to: 1}.encode())
	if _, err := good.Write(appendFrame(hi, []byte("payload"))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a true peer is accepted", func() bool { return len(n.got()) == 1 })
}

func FuzzReadFrame(f *testing.F) {
	f.Add(appendFrame(nil, []byte("payload")))
	f.Add(appendFrame(appendFrame(nil, nil), []byte{1}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bytes.NewReader(data)
		var again []byte
		for {
			payload, err := readFrame(in)
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, errDamaged) {
					t.Fatal(err)
				}
				break
			}
			again = appendFrame(again, payload)
		}
		if !bytes.HasPrefix(data, again) {
			t.Fatal("frames were accepted that encode differently")
		}
	})
}

func FuzzDecodeHello(f *testing.F) {
	f.Add(hello{cluster: "test", from: 1, to: 2}.encode())
	f.Add([]byte(helloMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := decodeHello(data)
		if err == nil && !bytes.Equal(h.encode(), data) {
			t.Fatalf("%+v encodes differently", h)
		}
	})
}
