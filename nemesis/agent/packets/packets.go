// Package packets delays, loses, duplicates, reorders, corrupts and slows down the packets
// that a node receives from chosen addresses, so that the network between two nodes is bad
// in one direction and good in all others.
//
// A [Shaper] is given all sources with their shapes each time, and counts what it did to the
// packets of each: these counts are the proof that a shape landed. The kernel queues what
// comes from those sources on input (NFQUEUE), and the shaper gives its verdict in time. On
// input, and not in the sender's output, since TCP small queues would throttle a sender whose
// own packets are held.
//
// It guarantees: no other packet is touched, nor any of the protected address; a shaper that
// is closed, or that dies however it dies, leaves nothing in the kernel that would hold up or
// drop a packet; equal seeds give equal decisions for equal sequences of packets.
package packets

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Bounds of a shape.
const (
	DelayMost = time.Minute
	RateLeast = 1 << 10 // bytes per second
	RateMost  = 1 << 40
)

// BacklogMost is how long a packet may wait for its turn where the rate is limited. One that
// would wait for longer is lost, as at the end of a router's queue; a stream, of which nothing
// can be lost, waits at its sender.
const BacklogMost = 500 * time.Millisecond

// Shape is what happens to the packets of one source. The fractions are independent
// probabilities for each packet, from 0 to 1.
type Shape struct {
	Delay  time.Duration `json:"delay,omitempty"`  // each packet is held for so long,
	Jitter time.Duration `json:"jitter,omitempty"` // give or take up to so much, uniformly; it changes no order
	Loss   float64       `json:"loss,omitempty"`
	// Duplicate is the fraction of which a copy arrives as well.
	Duplicate float64 `json:"duplicate,omitempty"`
	// Reorder is the fraction that is not held and so overtakes what is; it takes a delay.
	Reorder float64 `json:"reorder,omitempty"`
	// Corrupt is the fraction in which one bit is flipped behind the first 8 bytes that follow
	// the IP header. The receiving kernel's checksum discards such a packet, except a
	// datagram that was sent without one: a correct program never sees the flipped bit.
	Corrupt float64 `json:"corrupt,omitempty"`
	Rate    int64   `json:"rate,omitempty"` // bytes per second, IP headers included; 0 is no limit
}

// Validate returns what is impossible about the shape.
func (s Shape) Validate() error {
	if s.Delay < 0 || s.Delay > DelayMost {
		return fmt.Errorf("delay %s, want 0 to %s", s.Delay, DelayMost)
	}
	if s.Jitter < 0 || s.Jitter > s.Delay {
		return fmt.Errorf("jitter %s, want 0 to the delay, %s", s.Jitter, s.Delay)
	}
	for _, fraction := range []struct {
		name  string
		value float64
	}{{"loss", s.Loss}, {"duplicate", s.Duplicate}, {"reorder", s.Reorder}, {"corrupt", s.Corrupt}} {
		if math.IsNaN(fraction.value) || fraction.value < 0 || fraction.value > 1 {
			return fmt.Errorf("%s %v, want a fraction from 0 to 1", fraction.name, fraction.value)
		}
	}
	if s.Reorder > 0 && s.Delay == 0 {
		return fmt.Errorf("reorder %v without a delay: there is nothing to overtake", s.Reorder)
	}
	if s.Rate != 0 && (s.Rate < RateLeast || s.Rate > RateMost) {
		return fmt.Errorf("rate %d bytes/s, want 0 (no limit) or %d to %d", s.Rate, RateLeast, RateMost)
	}
	return nil
}

// And returns what two shapes do together to the same packets.
func (s Shape) And(t Shape) Shape {
	either := func(a, b float64) float64 { return 1 - (1-a)*(1-b) }
	both := Shape{
		Delay: min(s.Delay+t.Delay, DelayMost), Jitter: s.Jitter + t.Jitter,
		Loss: either(s.Loss, t.Loss), Duplicate: either(s.Duplicate, t.Duplicate),
		Reorder: either(s.Reorder, t.Reorder), Corrupt: either(s.Corrupt, t.Corrupt),
		Rate: max(s.Rate, t.Rate),
	}
	both.Jitter = min(both.Jitter, both.Delay)
	if s.Rate > 0 && t.Rate > 0 {
		both.Rate = min(s.Rate, t.Rate)
	}
	return both
}

// Add adds what was done elsewhere.
func (c Count) Add(d Count) Count {
	return Count{
		Seen: c.Seen + d.Seen, Delayed: c.Delayed + d.Delayed, Limited: c.Limited + d.Limited, Lost: c.Lost + d.Lost, Duplicated: c.Duplicated + d.Duplicated,
		Reordered: c.Reordered + d.Reordered, Corrupted: c.Corrupted + d.Corrupted, Overflowed: c.Overflowed + d.Overflowed,
	}
}

// Count is what was done to the packets of one source since it was first shaped.
type Count struct {
	Seen       uint64 `json:"seen"`
	Delayed    uint64 `json:"delayed,omitempty"` // held for a delay
	Limited    uint64 `json:"limited,omitempty"` // held for their turn at the limited rate
	Lost       uint64 `json:"lost,omitempty"`
	Duplicated uint64 `json:"duplicated,omitempty"`
	Reordered  uint64 `json:"reordered,omitempty"` // sent ahead of one that was held
	Corrupted  uint64 `json:"corrupted,omitempty"`
	Overflowed uint64 `json:"overflowed,omitempty"` // lost since the rate's queue was full
}

// fate is what is decided about a packet.
type fate struct {
	lost      bool
	duplicate bool
	corrupt   bool
	wait      time.Duration
}

// lane is the state of one source.
type lane struct {
	shape  Shape
	count  Count
	random *rand.Rand
	last   time.Duration // when the packet that leaves last leaves
	free   time.Duration // when the limited rate has carried all packets so far
}

// decide settles the fate of a packet of so many bytes that is seen at now, and counts it.
// Times are measured from any fixed moment. All draws are made for each packet, whatever the
// shape: so a change of one fraction does not change what the others hit.
func (l *lane) decide(now time.Duration, size int) fate {
	s := l.shape
	lost, duplicate := l.random.Float64() < s.Loss, l.random.Float64() < s.Duplicate
	overtakes, corrupt := l.random.Float64() < s.Reorder, l.random.Float64() < s.Corrupt
	jitter := time.Duration((2*l.random.Float64() - 1) * float64(s.Jitter))

	l.count.Seen++
	if lost {
		l.count.Lost++
		return fate{lost: true}
	}
	at := now
	if s.Rate > 0 {
		l.free = max(l.free, now)
		if l.free-now > BacklogMost {
			l.count.Overflowed++
			return fate{lost: true}
		}
		if l.free > now {
			l.count.Limited++
		}
		at = l.free
		l.free += time.Duration(float64(size) / float64(s.Rate) * float64(time.Second))
	}
	if overtakes {
		if l.last > at {
			l.count.Reordered++
		}
	} else {
		turn := at
		at = max(at+s.Delay+jitter, l.last)
		l.last = at
		if at > turn {
			l.count.Delayed++
		}
	}
	if corrupt {
		l.count.Corrupted++
	}
	return fate{duplicate: duplicate, corrupt: corrupt, wait: at - now}
}

// flip flips one bit of a packet behind the first 8 bytes that follow the IP header, and
// reports whether there was one. Nearer to the IP header lies the checksum of UDP, of which
// zero means that there is none.
func flip(packet []byte, random *rand.Rand) bool {
	from := ipHeader(packet) + 8
	if from == 8 || from >= len(packet) {
		return false
	}
	packet[from+random.IntN(len(packet)-from)] ^= 1 << random.IntN(8)
	return true
}

// ipHeader returns the length of the IP header, without IPv6's extensions; 0 where the packet
// is none of IP.
func ipHeader(packet []byte) int {
	if len(packet) >= 20 && packet[0]>>4 == 4 {
		if n := int(packet[0]&15) * 4; n >= 20 && n <= len(packet) {
			return n
		}
	}
	if len(packet) >= 40 && packet[0]>>4 == 6 {
		return 40
	}
	return 0
}
