package packets

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"
)

const size = 1000

func newLane(s Shape) *lane { return &lane{shape: s, random: rand.New(rand.NewPCG(1, 2))} }

func TestAShapeSaysWhatIsImpossibleAboutIt(t *testing.T) {
	for want, s := range map[string]Shape{
		"delay":     {Delay: -1},
		"jitter":    {Delay: time.Millisecond, Jitter: time.Second},
		"loss":      {Loss: 1.1},
		"corrupt":   {Corrupt: math.NaN()},
		"duplicate": {Duplicate: -0.1},
		"overtake":  {Reorder: 0.5},
		"rate":      {Rate: 1},
	} {
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want an error about %s", s, err, want)
		}
	}
	good := Shape{Delay: time.Second, Jitter: time.Second, Loss: 1, Duplicate: 1, Reorder: 1, Corrupt: 1, Rate: RateLeast}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}

func TestFractionsHitAsOftenAsTheySay(t *testing.T) {
	l := newLane(Shape{Delay: time.Second, Loss: 0.1, Duplicate: 0.2, Reorder: 0.3, Corrupt: 0.4})
	const n = 10000
	for range n {
		l.decide(0, size)
	}
	for what, c := range map[string]struct{ got, want float64 }{
		"lost":       {float64(l.count.Lost), 0.1 * n},
		"reordered":  {float64(l.count.Reordered), 0.9 * 0.3 * n},
		"corrupted":  {float64(l.count.Corrupted), 0.9 * 0.4 * n},
		"held still": {float64(l.count.Delayed), 0.9 * 0.7 * n},
	} {
		if math.Abs(c.got-c.want) > 200 {
			t.Errorf("%s: %v of %d, want about %v", what, c.got, n, c.want)
		}
	}
}

func TestAnEmptyShapeDoesNothing(t *testing.T) {
	l := newLane(Shape{})
	for range 1000 {
		if f := l.decide(0, size); f != (fate{}) {
			t.Fatalf("%+v", f)
		}
	}
	if l.count != (Count{Seen: 1000}) {
		t.Errorf("%+v", l.count)
	}
}

func TestJitterStaysWithinItsBoundsAndKeepsTheOrder(t *testing.T) {
	l := newLane(Shape{Delay: 50 * time.Millisecond, Jitter: 20 * time.Millisecond})
	var last, least, most time.Duration
	least = time.Hour
	for i := range 1000 {
		now := time.Duration(i) * 100 * time.Millisecond
		f := l.decide(now, size)
		least, most = min(least, f.wait), max(most, f.wait)
		soon := l.decide(now, size)
		if now+f.wait < last || soon.wait < f.wait {
			t.Fatal("jitter changed the order")
		}
		last = now + soon.wait
	}
	if least < 30*time.Millisecond || least > 35*time.Millisecond || most > 70*time.Millisecond || most < 65*time.Millisecond {
		t.Errorf("waits from %s to %s", least, most)
	}
}

func TestARateSpacesPacketsAndItsQueueHasAnEnd(t *testing.T) {
	l := newLane(Shape{Rate: 100 * size}) // a packet each 10 ms
	for i := range 51 {
		if f := l.decide(0, size); f.lost || f.wait != time.Duration(i)*10*time.Millisecond {
			t.Fatalf("packet %d: %+v", i, f)
		}
	}
	if f := l.decide(0, size); !f.lost || l.count.Overflowed != 1 {
		t.Errorf("a packet that finds the queue full: %+v, %+v", f, l.count)
	}
	if f := l.decide(time.Second, size); f.wait != 0 {
		t.Errorf("a packet that finds the queue empty waits for %s", f.wait)
	}
}

func TestAFlipChangesOneBitBehindTheHeaders(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, header := range map[string]int{"\x45": 20, "\x4f": 60, "\x60": 40} {
		original := append([]byte(name), make([]byte, 199)...)
		for range 2000 {
			changed := bytes.Clone(original)
			if !flip(changed, random) {
				t.Fatal("nothing flipped")
			}
			bits := 0
			for i := range changed {
				for difference := changed[i] ^ original[i]; difference != 0; difference &= difference - 1 {
					bits++
					if i < header+8 {
						t.Fatalf("%x: byte %d of the headers was changed", name, i)
					}
				}
			}
			if bits != 1 {
				t.Fatalf("%d bits flipped", bits)
			}
		}
		if flip(original[:header+8], random) {
			t.Error("a packet without a payload was changed")
		}
	}
	if flip([]byte("\x45"), random) || flip(nil, random) || flip(bytes.Repeat([]byte("x"), 99), random) {
		t.Error("what is no packet was changed")
	}
}

// queued is the kernel's message about a packet.
func queued(id uint32, payload string) []byte {
	header := append(binary.BigEndian.AppendUint32(nil, id), 0, 0, 1)
	attributes := appendAttribute(nil, attributePacketHeader, header)
	return encode(messagePacket, 0, 7, appendAttribute(attributes, attributePayload, []byte(payload)))
}

func refused(number int32) []byte {
	b := encode(messageError, 0, 0, nil)
	binary.NativeEndian.PutUint32(b[16:], uint32(-number))
	return b
}

func TestPacketsAreReadFromTheKernelsMessages(t *testing.T) {
	both := append(queued(1, "abc"), queued(2, "defgh")...)
	packets, err := parse(both)
	if err != nil || len(packets) != 2 || packets[0].id != 1 || string(packets[1].payload) != "defgh" {
		t.Errorf("%v, %v", packets, err)
	}
	if _, err := parse(refused(int32(syscall.ENOENT))); err != syscall.ENOENT {
		t.Errorf("a refusal: %v", err)
	}
	if _, err := parse(refused(0)); err != nil {
		t.Errorf("an acknowledgement: %v", err)
	}
	packets, err = parse(both[:len(both)-5])
	if err == nil || len(packets) != 1 {
		t.Errorf("a message that is cut short: %v, %v", packets, err)
	}
	if _, err := parse(encode(messagePacket, 0, 7, nil)); err == nil {
		t.Error("a packet without a number was accepted")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(queued(1, "abc"))
	f.Add(append(queued(1, "abc"), queued(2, "")...))
	f.Add(refused(2))
	f.Add(encodeVerdict(7, 1, verdictAccept, []byte("payload")))
	f.Fuzz(func(t *testing.T, data []byte) {
		packets, _ := parse(data)
		for _, p := range packets {
			if len(p.payload) > len(data) {
				t.Fatalf("a payload of %d bytes in %d", len(p.payload), len(data))
			}
			ipHeader(p.payload)
			flip(p.payload, rand.New(rand.NewPCG(1, 2)))
		}
	})
}
