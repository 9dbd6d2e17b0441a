package links

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"capsize/clusters"
)

const (
	patience = 5 * time.Second       // for what must happen
	window   = 60 * time.Millisecond // for what must not happen
)

// fixture is a link from n1 to n2 with a server behind it.
type fixture struct {
	proxy  *Proxy
	listen string
	server net.Listener
	probes chan string
}

func newFixture(t testing.TB) *fixture { return newFixtureAt(t, "127.0.0.1:0") }

func newFixtureAt(t testing.TB, address string) *fixture {
	t.Helper()
	server, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{server: server, probes: make(chan string, 16)}
	f.proxy, err = Listen([]clusters.Link{{From: "n1", To: "n2", Listen: address, Target: server.Addr().String()}}, 1,
		func(from string, payload []byte) { f.probes <- from + " " + string(payload) })
	if err != nil {
		t.Fatal(err)
	}
	f.listen = f.proxy.links[0].udp.LocalAddr().String()
	t.Cleanup(func() {
		_ = server.Close()
		if err := f.proxy.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// held is what was held back, for each sender.
func (f *fixture) held() map[string]uint64 { return bySender(f.proxy.Held()) }

func bySender(held []Held) map[string]uint64 {
	amounts := make(map[string]uint64)
	for _, h := range held {
		amounts[h.From] += h.Bytes
	}
	return amounts
}

func (f *fixture) block(pairs ...direction) map[string]uint64 {
	return bySender(f.proxy.Block(func(from, to string) bool {
		for _, p := range pairs {
			if p.from == from && p.to == to {
				return true
			}
		}
		return false
	}))
}

var (
	out  = direction{"n1", "n2"}
	back = direction{"n2", "n1"}
)

func (f *fixture) dial(t testing.TB) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", f.listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

func (f *fixture) accept(t testing.TB) *net.TCPConn {
	t.Helper()
	_ = f.server.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	c, err := f.server.Accept()
	if err != nil {
		t.Fatalf("the target was not reached: %v", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// pair is a connection through the link: the client's end and the target's.
func (f *fixture) pair(t testing.TB) (client, target *net.TCPConn) {
	t.Helper()
	client = f.dial(t)
	return client, f.accept(t)
}

func write(t testing.TB, c net.Conn, text string) {
	t.Helper()
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func expect(t testing.TB, c net.Conn, want string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q (%v), want %q", got[:n], err, want)
	}
}

func expectSilence(t testing.TB, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(window))
	n, err := c.Read(make([]byte, 100))
	var timeout net.Error
	if n != 0 || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("read %d bytes, %v: nothing must pass a closed gate", n, err)
	}
}

func expectEnd(t testing.TB, c net.Conn, want error) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if n, err := c.Read(make([]byte, 100)); n != 0 || !errors.Is(err, want) {
		t.Fatalf("read %d bytes, %v: want %v", n, err, want)
	}
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestAnOpenLinkCarriesBothDirectionsAndHalfCloses(t *testing.T) {
	f := newFixture(t)
	client, target := f.pair(t)
	write(t, client, "question")
	expect(t, target, "question")
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expectEnd(t, target, io.EOF)
	write(t, target, "answer after the end of the question")
	expect(t, client, "answer after the end of the question")
	_ = target.Close()
	expectEnd(t, client, io.EOF)
}

func TestALinkAtAnIPv6AddressIsALinkToo(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skipf("no IPv6 here: %v", err)
	} else {
		_ = l.Close() // it was there
	}
	f := newFixtureAt(t, "[::1]:0")
	client, target := f.pair(t)
	f.block(out)
	write(t, client, "held")
	expectSilence(t, target)
	f.block()
	expect(t, target, "held")
	socket, err := net.Dial("udp", f.listen)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	write(t, socket, "ping")
	if got := <-f.probes; got != "n1 ping" {
		t.Errorf("the twin got %q", got)
	}
	if err := f.proxy.Answer("n1", socket.LocalAddr().String(), []byte("pong")); err != nil {
		t.Error(err)
	}
	expect(t, socket, "pong")
}

func TestACutDirectionHoldsBytesWhileTheOtherFlows(t *testing.T) {
	for name, cut := range map[string]direction{"out": out, "back": back} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			sender, receiver := f.pair(t)
			if cut == back {
				sender, receiver = receiver, sender
			}
			write(t, sender, "before ")
			expect(t, receiver, "before ")
			if held := f.block(cut); len(held) != 0 {
				t.Errorf("held before anything was cut: %v", held)
			}
			write(t, sender, "held 1 ")
			expectSilence(t, receiver)
			write(t, sender, "held 2 ")
			write(t, receiver, "the other direction")
			expect(t, sender, "the other direction")
			expectSilence(t, receiver)
			if held := f.held(); held[cut.from] != 7 || held[cut.to] != 0 {
				t.Errorf("held %v, want the 7 bytes of the first write of %s only", held, cut.from)
			}
			held := f.block()
			if held[cut.from] != 7 {
				t.Errorf("the heal reports %v held", held)
			}
			expect(t, receiver, "held 1 held 2 ")
			write(t, sender, "after")
			expect(t, receiver, "after")
		})
	}
}

// writing reports whether the only connection is just writing to its target.
func (f *fixture) writing() bool {
	f.proxy.mu.Lock()
	defer f.proxy.mu.Unlock()
	for c := range f.proxy.conns {
		c.mu.Lock()
		running := c.target != nil
		c.mu.Unlock()
		if !running || c.forward.writing.TryLock() {
			if running {
				c.forward.writing.Unlock()
			}
			return false
		}
	}
	return len(f.proxy.conns) == 1
}

func TestNoBytePassesOnceBlockHasReturned(t *testing.T) {
	f := newFixture(t)
	client, target := f.pair(t)
	var writing sync.WaitGroup
	sent := 0
	_ = client.SetWriteDeadline(time.Now().Add(patience))
	writing.Go(func() {
		chunk := make([]byte, 64<<10)
		for {
			n, err := client.Write(chunk)
			sent += n
			if err != nil {
				return
			}
		}
	})
	// The target reads nothing, so the relay is stuck in a write when the cut comes.
	eventually(t, "a write that waits for its reader", f.writing)
	began := time.Now()
	f.block(out)
	if took := time.Since(began); took > time.Second {
		t.Errorf("Block waited %s for a reader", took)
	}
	if f.writing() {
		t.Error("Block returned while bytes were on their way through the gate")
	}
	drained := 0
	buffer := make([]byte, 1<<20)
	for {
		_ = target.SetReadDeadline(time.Now().Add(window))
		n, err := target.Read(buffer)
		drained += n
		if err != nil {
			break
		}
	}
	expectSilence(t, target)
	if held := f.held()["n1"]; held == 0 {
		t.Error("nothing counted as held, though a sender went on")
	}
	f.block()
	_ = client.SetWriteDeadline(longAgo)
	writing.Wait()
	_ = client.CloseWrite()
	_ = target.SetReadDeadline(time.Now().Add(patience))
	rest, err := io.Copy(io.Discard, target)
	if err != nil || int(rest)+drained != sent {
		t.Errorf("%d bytes sent, %d arrived before the cut and %d after the heal (%v)", sent, drained, rest, err)
	}
}

func TestAConnectionOpenedDuringACutWaitsForTheHeal(t *testing.T) {
	for name, cut := range map[string]direction{"out": out, "back": back} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.block(cut)
			client := f.dial(t)
			write(t, client, "hello")
			_ = f.server.(*net.TCPListener).SetDeadline(time.Now().Add(window))
			if c, err := f.server.Accept(); err == nil {
				_ = c.Close()
				t.Fatal("the target was reached though the handshake cannot complete")
			}
			if f.held()[cut.from] == 0 {
				t.Errorf("held %v: the handshake was not counted", f.held())
			}
			f.block()
			expect(t, f.accept(t), "hello")
		})
	}
}

func TestAClientThatGaveUpDuringACutIsNeverHeardOf(t *testing.T) {
	f := newFixture(t)
	f.block(out)
	client := f.dial(t)
	write(t, client, "stale")
	eventually(t, "the connection waits", func() bool { return f.held()["n1"] > 0 })
	_ = client.Close()
	eventually(t, "the waiting connection is dropped", func() bool { return f.proxy.links[0].live.Load() == 0 })
	f.block()
	fresh := f.dial(t)
	write(t, fresh, "fresh")
	expect(t, f.accept(t), "fresh")
}

func TestAResetIsPassedOnAndHeldWhileCut(t *testing.T) {
	f := newFixture(t)
	client, target := f.pair(t)
	reset(client)
	expectEnd(t, target, syscall.ECONNRESET)

	client, target = f.pair(t)
	f.block(back)
	reset(target)
	expectSilence(t, client)
	f.block()
	expectEnd(t, client, syscall.ECONNRESET)
}

func TestAnEndOfStreamIsHeldWhileCut(t *testing.T) {
	f := newFixture(t)
	client, target := f.pair(t)
	f.block(out)
	_ = client.CloseWrite()
	expectSilence(t, target)
	f.block()
	expectEnd(t, target, io.EOF)
}

func TestARefusedTargetResetsTheClient(t *testing.T) {
	f := newFixture(t)
	_ = f.server.Close()
	c, err := net.Dial("tcp", f.listen)
	if errors.Is(err, syscall.ECONNRESET) {
		return // the reset was there before connect(2) returned
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	expectEnd(t, c, syscall.ECONNRESET)
}

func TestADatagramPassesOnlyAnOpenGate(t *testing.T) {
	f := newFixture(t)
	c, err := net.Dial("udp", f.listen)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	f.block(out)
	write(t, c, "lost")
	eventually(t, "the datagram is counted", func() bool { return f.held()["n1"] == 4 })
	f.block(back) // the other direction does not concern it
	write(t, c, "passes")
	select {
	case got := <-f.probes:
		if got != "n1 passes" {
			t.Errorf("got %q", got)
		}
	case <-time.After(patience):
		t.Error("the datagram did not pass an open gate")
	}
}

func TestTheProxyKnowsWhatItServes(t *testing.T) {
	p := newFixture(t).proxy
	if !p.Serves("n1", "n2") || !p.Serves("n2", "n1") || p.Serves("n1", "n3") {
		t.Error("a link serves its two directions and no other")
	}
}

func TestAnAddressInUseIsAnErrorThatNamesTheLink(t *testing.T) {
	f := newFixture(t)
	_, err := Listen([]clusters.Link{{From: "n3", To: "n2", Listen: f.listen}}, 1, nil)
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v", err)
	}
}

func TestCloseLeavesNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("with live, cut and waiting connections", func(t *testing.T) {
		f := newFixture(t)
		client, _ := f.pair(t)
		f.block(out)
		write(t, client, "held")
		write(t, f.dial(t), "waiting")
	})
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}

// Whatever is cut and healed while bytes flow, all of them arrive, once and in order.
func TestNothingIsLostOrReorderedByCutsAndHeals(t *testing.T) {
	f := newFixture(t)
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		cuts := rapid.SliceOfN(rapid.SampledFrom([][]direction{{}, {out}, {back}, {out, back}}), 1, 6).Draw(rt, "cuts")
		client, target := f.pair(t)
		sum := func(label uint64) []byte {
			data := make([]byte, 200<<10)
			r := rand.New(rand.NewPCG(seed, label))
			for i := range data {
				data[i] = byte(r.Uint32())
			}
			return data
		}
		forth, back := sum(1), sum(2)
		var work sync.WaitGroup
		send := func(c *net.TCPConn, data []byte) {
			for r := rand.New(rand.NewPCG(seed, 3)); len(data) > 0; {
				n := min(len(data), 1+r.IntN(20<<10))
				if _, err := c.Write(data[:n]); err != nil {
					rt.Errorf("write: %v", err)
					return
				}
				data = data[n:]
			}
			_ = c.CloseWrite()
		}
		receive := func(c *net.TCPConn, want []byte) {
			_ = c.SetReadDeadline(time.Now().Add(patience))
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, want) {
				rt.Errorf("%d bytes arrived of %d, equal %v, %v", len(got), len(want), bytes.Equal(got, want), err)
			}
		}
		work.Go(func() { send(client, forth) })
		work.Go(func() { send(target, back) })
		work.Go(func() { receive(target, forth) })
		work.Go(func() { receive(client, back) })
		for _, cut := range cuts {
			f.block(cut...)
			runtime.Gosched()
		}
		f.block()
		work.Wait()
		_ = client.Close()
		_ = target.Close()
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	f := newFixture(b)
	for _, through := range []string{"direct", "link"} {
		b.Run(through, func(b *testing.B) {
			address := f.listen
			if through == "direct" {
				address = f.server.Addr().String()
			}
			client, err := net.Dial("tcp", address)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = client.Close() }()
			target := f.accept(b)
			go func() { _, _ = io.Copy(target, target) }()
			message := make([]byte, 100)
			for b.Loop() {
				if _, err := client.Write(message); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(client, message); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
