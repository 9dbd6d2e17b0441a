package links

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"pgregory.net/rapid"

	"capsize/nemesis/agent/packets"
)

func (f *fixture) shape(d direction, shape packets.Shape) {
	f.proxy.ShapeStreams(func(from, to string) (packets.Shape, bool) {
		return shape, direction{from, to} == d
	})
}

func (f *fixture) heal() {
	f.proxy.ShapeStreams(func(string, string) (packets.Shape, bool) { return packets.Shape{}, false })
}

func (f *fixture) count(d direction) packets.Count {
	for _, shaped := range f.proxy.Counts() {
		if (direction{shaped.From, shaped.To}) == d {
			return shaped.Count
		}
	}
	return packets.Count{}
}

// sends writes, and returns how long it took to arrive.
func sends(t testing.TB, from, to net.Conn, data []byte) time.Duration {
	t.Helper()
	began := time.Now()
	go func() { _, _ = from.Write(data) }()
	got := make([]byte, len(data))
	_ = to.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("of %d bytes others arrived, or fewer: %v", len(data), err)
	}
	return time.Since(began)
}

func TestADirectionIsLateAndTheOtherIsNot(t *testing.T) {
	f := newFixture(t)
	client, target := f.pair(t)
	f.shape(out, packets.Shape{Delay: 200 * time.Millisecond})
	if took := sends(t, client, target, []byte("late")); took < 200*time.Millisecond {
		t.Errorf("a delay of 200ms took %s", took)
	}
	if took := sends(t, target, client, []byte("not late")); took >= 200*time.Millisecond {
		t.Errorf("the other way took %s", took)
	}
	if got := f.count(out); got != (packets.Count{Seen: 1, Delayed: 1}) || f.count(back) != (packets.Count{}) {
		t.Errorf("counted %+v, and back %+v", got, f.count(back))
	}
	f.heal()
	if took := sends(t, client, target, []byte("well")); took >= 200*time.Millisecond {
		t.Errorf("healed, it took %s", took)
	}
	if got := f.count(out); got.Seen != 1 {
		t.Errorf("healed, it counted %+v", got)
	}
}

// Data that follows closely is late by the delay, not by that of all before it too.
func TestADelayHoldsUpNothingElse(t *testing.T) {
	f := newFixture(t)
	client, target := f.pair(t)
	f.shape(out, packets.Shape{Delay: 150 * time.Millisecond})
	began := time.Now()
	go func() {
		for range 20 {
			_, _ = client.Write(make([]byte, 100))
			time.Sleep(5 * time.Millisecond)
		}
	}()
	_ = target.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(target, make([]byte, 2000)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 150*time.Millisecond || took > 10*150*time.Millisecond {
		t.Errorf("20 writes in 100ms, late by 150ms each, arrived within %s", took)
	}
}

func TestHealingLetsGoWhatIsOnItsWay(t *testing.T) {
	f := newFixture(t)
	client, target := f.pair(t)
	f.shape(out, packets.Shape{Delay: time.Minute})
	time.AfterFunc(window, f.heal)
	sends(t, client, target, []byte("held for a minute, it was said"))
}

func TestWhatIsLostOfAStreamArrivesLater(t *testing.T) {
	for name, shape := range map[string]packets.Shape{"lost": {Loss: 0.9}, "corrupt": {Corrupt: 0.9}} {
		f := newFixture(t)
		client, target := f.pair(t)
		f.shape(out, shape)
		data := bytes.Repeat([]byte("0123456789"), 10*segmentSize/10)
		if took := sends(t, client, target, data); took < resendTime {
			t.Errorf("%s: of 10 packets most are lost, and all arrived within %s", name, took)
		}
		if got := f.count(out); got.Lost+got.Corrupted < 5 || got.Delayed == 0 {
			t.Errorf("%s: counted %+v", name, got)
		}
	}
}

func TestARateIsKept(t *testing.T) {
	f := newFixture(t)
	client, target := f.pair(t)
	f.shape(out, packets.Shape{Rate: 100_000})
	if took := sends(t, client, target, make([]byte, 100_000)); took < 600*time.Millisecond { // the last chunk is not waited for
		t.Errorf("100000 bytes at 100000 a second within %s", took)
	}
}

// Whatever the shapes, and however often they change, a stream is the same at its end.
func TestAShapedStreamStaysWhole(t *testing.T) {
	f := newFixture(t)
	rapid.Check(t, func(rt *rapid.T) {
		client, target := f.pair(t)
		data := bytes.Repeat([]byte("a stream has one order; "), rapid.IntRange(1, 20_000).Draw(rt, "lines"))
		changes := rapid.IntRange(0, 5).Draw(rt, "changes")
		shapes := make([]packets.Shape, changes)
		for i := range shapes {
			shapes[i] = packets.Shape{
				Delay:  time.Duration(rapid.IntRange(0, 20).Draw(rt, "delay")) * time.Millisecond,
				Loss:   rapid.SampledFrom([]float64{0, 0, 0.01}).Draw(rt, "loss"),
				Rate:   rapid.SampledFrom([]int64{0, 0, 10 << 20}).Draw(rt, "rate"),
				Jitter: 0,
			}
			shapes[i].Jitter = shapes[i].Delay / 2
		}
		changing := make(chan struct{})
		go func() {
			defer close(changing)
			for _, shape := range shapes {
				f.shape(out, shape)
				time.Sleep(5 * time.Millisecond)
				f.block(out)
				time.Sleep(time.Millisecond)
				f.block()
			}
			f.heal()
		}()
		go func() {
			_, _ = client.Write(data)
			_ = client.CloseWrite()
		}()
		_ = target.SetReadDeadline(time.Now().Add(2 * patience))
		got, err := io.ReadAll(target)
		<-changing
		if err != nil || !bytes.Equal(got, data) {
			rt.Fatalf("%d of %d bytes arrived, or others: %v", len(got), len(data), err)
		}
	})
}

func TestAResetComesAfterWhatWasSentBeforeIt(t *testing.T) {
	f := newFixture(t)
	client, target := f.pair(t)
	f.shape(out, packets.Shape{Delay: 100 * time.Millisecond})
	if _, err := client.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(window)
	reset(client)
	_ = target.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, 10)
	if _, err := io.ReadFull(target, got); err != nil || string(got) != "last words" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := target.Read(got); err == nil || err == io.EOF {
		t.Errorf("the reset did not arrive: %v", err)
	}
}

func TestASenderWaitsWhereMuchIsOnItsWay(t *testing.T) {
	f := newFixture(t)
	client, _ := f.pair(t)
	f.shape(out, packets.Shape{Delay: time.Minute})
	_ = client.SetWriteDeadline(time.Now().Add(2 * time.Second))
	sent, err := client.Write(make([]byte, 64<<20))
	if err == nil {
		t.Errorf("%d bytes were taken, though none may arrive for a minute", sent)
	}
}

func TestDatagramsAreLateOrLost(t *testing.T) {
	f := newFixture(t)
	send := func(text string) {
		t.Helper()
		c, err := net.Dial("udp", f.listen)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	f.shape(out, packets.Shape{Delay: 100 * time.Millisecond})
	began := time.Now()
	send("late")
	select {
	case <-f.probes:
		if took := time.Since(began); took < 100*time.Millisecond {
			t.Errorf("late by %s", took)
		}
	case <-time.After(patience):
		t.Error("it never arrived")
	}
	f.shape(out, packets.Shape{Loss: 1})
	send("lost")
	select {
	case got := <-f.probes:
		t.Errorf("%q arrived, though all are lost", got)
	case <-time.After(2 * window):
	}
	if got := f.count(out); got.Lost != 1 {
		t.Errorf("counted %+v", got)
	}
}

// What a stream has in its queue must not keep a probe from arriving: a link of that rate is
// slow, not cut.
func TestAFullSlowLinkCarriesADatagramSoon(t *testing.T) {
	f := newFixture(t)
	client, _ := f.pair(t)
	f.shape(out, packets.Shape{Rate: 64 << 10})
	go func() { _, _ = client.Write(make([]byte, 4<<20)) }()
	eventually(t, "the stream fills the link", func() bool { return f.count(out).Seen > 3 })
	time.Sleep(window)
	f.proxy.mu.Lock()
	l := f.proxy.lanes[f.proxy.directions[out]].Load()
	f.proxy.mu.Unlock()
	if wait, _ := l.judge(time.Now(), 64); wait > time.Second {
		t.Errorf("a datagram waits for %s behind a stream", wait)
	}
}
