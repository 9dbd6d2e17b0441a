package disk

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// dyingEvery is how often a waiting caller that was interrupted is looked at.
const dyingEvery = 50 * time.Millisecond

// rules is what is in force, and what was met of it.
type rules struct {
	healthy atomic.Bool // no rule and no trip: the way past the lock

	mu      sync.Mutex
	random  *rand.Rand
	active  []*active
	changed chan struct{} // closed when the setting is replaced
	trip    *Trip
	tripped bool
	fsyncs  int64 // since the trip was set
	bytes   int64
	notify  func() // called once at the trip, not under the lock
}

type active struct {
	Rule
	met   Met
	bytes int64
	free  time.Time // when the throttle lets the next byte pass
}

// operation is what rules are asked about.
type operation struct {
	on, file string
	off      int64
	size     int64 // bytes that it moves
	data     bool  // they are the program's, and could be torn or flipped
}

// verdict is what befalls one operation.
type verdict struct {
	errno  syscall.Errno
	lose   bool
	torn   bool
	keep   int64 // bytes of a write to write; zero is all
	flip   bool
	cut    float64 // random, from 0 to 1: which bit flips
	biter  *active // the rule of torn, keep and flip
	stalls []*active
	slows  []*active
	delay  time.Duration
}

func newRules(notify func()) *rules {
	r := &rules{notify: notify}
	r.replace(Setting{})
	return r
}

// replace puts another setting in force. A rule that is the same, and a trip, keeps what it
// has counted, and those that wait for it.
func (r *rules) replace(s Setting) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.active
	r.active = nil
	for _, rule := range s.Rules {
		next := &active{Rule: rule}
		for _, old := range before {
			if old.Rule == rule {
				next = old
			}
		}
		r.active = append(r.active, next)
	}
	r.random = rand.New(rand.NewPCG(s.Seed, 0x6469736b))
	if s.Trip == nil || r.trip == nil || *s.Trip != *r.trip {
		r.trip, r.tripped, r.fsyncs, r.bytes = s.Trip, false, 0, 0
	}
	if r.changed != nil {
		close(r.changed)
	}
	r.changed = make(chan struct{})
	r.healthy.Store(len(r.active) == 0 && r.trip == nil)
}

// meet decides what befalls an operation, once, and waits as long as that says. It returns
// EINTR where the caller is being killed meanwhile.
func (r *rules) meet(ctx context.Context, o operation) verdict {
	if r.healthy.Load() {
		return verdict{}
	}
	for r.trips(o) {
		if !r.wait(ctx, nil, func() bool { return r.tripped }) {
			return verdict{errno: syscall.EINTR}
		}
	}
	v := r.judge(o)
	if len(v.stalls) > 0 && !r.wait(ctx, nil, func() bool { return r.inForce(v.stalls) }) {
		return verdict{errno: syscall.EINTR}
	}
	if v.delay > 0 {
		timer := time.NewTimer(v.delay)
		defer timer.Stop()
		if !r.wait(ctx, timer.C, func() bool { return r.inForce(v.slows) }) {
			return verdict{errno: syscall.EINTR}
		}
	}
	return v
}

// trips says whether the disk stops an operation.
func (r *rules) trips(o operation) bool {
	r.mu.Lock()
	if r.trip == nil || o.on == OnRead {
		r.mu.Unlock()
		return false
	}
	before := r.tripped
	if !before {
		if o.on == OnFsync {
			r.fsyncs++
		}
		if o.on == OnWrite && o.data {
			r.bytes += o.size
		}
		r.tripped = r.trip.Fsyncs > 0 && r.fsyncs >= r.trip.Fsyncs || r.trip.Bytes > 0 && r.bytes >= r.trip.Bytes
	}
	after := r.tripped
	r.mu.Unlock()
	if after && !before {
		r.notify()
	}
	return after
}

// wait waits while held, which is asked under the lock, until a time. It returns false where
// the caller is being killed. Any other signal interrupts the call as well, and must not end
// it: programs in Go get SIGURG all the time, and no disk returns EINTR.
func (r *rules) wait(ctx context.Context, until <-chan time.Time, held func() bool) bool {
	interrupted := ctx.Done()
	var look <-chan time.Time
	for {
		r.mu.Lock()
		changed, on := r.changed, held()
		r.mu.Unlock()
		if !on {
			return true
		}
		select {
		case <-until:
			return true
		case <-changed:
			continue
		case <-interrupted:
			interrupted = nil // the kernel tells of the first signal only
			ticker := time.NewTicker(dyingEvery)
			defer ticker.Stop()
			look = ticker.C
		case <-look:
		}
		if dying(ctx) {
			return false
		}
	}
}

// dying says that the thread that waits for an operation is being killed, or cannot be seen.
func dying(ctx context.Context) bool {
	caller, ok := fuse.FromContext(ctx)
	if !ok || caller.Pid == 0 { // it is in another world of processes
		return true
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", caller.Pid))
	return err != nil || killPending(status)
}

// killPending reads /proc/PID/status (proc_pid_status(5)): a kill hangs over the thread, or
// over its process.
func killPending(status []byte) bool {
	for line := range bytes.Lines(status) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if string(name) != "SigPnd" && string(name) != "ShdPnd" {
			continue
		}
		pending, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
		if err == nil && pending&(1<<(syscall.SIGKILL-1)) != 0 {
			return true
		}
	}
	return false
}

// inForce says that one of rules still is. Called under the lock.
func (r *rules) inForce(rules []*active) bool {
	return slices.ContainsFunc(rules, func(a *active) bool { return slices.Contains(r.active, a) })
}

// judge asks every rule. What waits comes first, then an error; where there is none, what
// spoils data, if this operation has some that it can spoil.
func (r *rules) judge(o operation) verdict {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := verdict{cut: r.random.Float64()}
	var met []*active
	for _, a := range r.active {
		if a.meets(o) {
			met = append(met, a)
		}
	}
	for _, a := range met {
		switch {
		case a.Effect == EffectStall && a.fires(o, r.random):
			v.stalls = append(v.stalls, a)
		case a.Effect == EffectDelay && a.fires(o, r.random):
			v.slows = append(v.slows, a)
			v.delay += a.delay(o.size)
		}
	}
	for _, a := range met {
		if (a.Effect == EffectError || a.Effect == EffectLose) && a.fires(o, r.random) {
			v.errno, v.lose = errnos[a.Errno], a.Effect == EffectLose
			return v
		}
	}
	for _, a := range met {
		if v.biter == nil && o.bitten(a.Effect) && a.fires(o, r.random) {
			a.bite(&v, o, r.random)
		}
	}
	return v
}

// meets counts an operation that a rule is on.
func (a *active) meets(o operation) bool {
	if a.On != o.on || !a.matches(o.file) {
		return false
	}
	a.met.Matched++
	a.bytes += o.size
	return true
}

func (a *active) fires(o operation, random *rand.Rand) bool {
	if a.met.Matched <= a.After || a.AfterBytes > 0 && a.bytes <= a.AfterBytes || a.Count > 0 && a.met.Fired >= a.Count {
		return false
	}
	if a.Probability > 0 && a.Probability < 1 && random.Float64() >= a.Probability {
		return false
	}
	a.met.Fired++
	a.met.Path = o.file
	return true
}

func (a *active) matches(file string) bool {
	if a.Files == "" {
		return true
	}
	whole, _ := path.Match(a.Files, file) // the pattern was validated
	name, _ := path.Match(a.Files, path.Base(file))
	return whole || name
}

// delay is how long an operation on so many bytes takes longer.
func (a *active) delay(size int64) time.Duration {
	d := a.Delay
	if a.Rate > 0 {
		now := time.Now()
		if a.free.Before(now) {
			a.free = now
		}
		a.free = a.free.Add(time.Duration(float64(size) / float64(a.Rate) * float64(time.Second)))
		d += min(a.free.Sub(now), delayMost)
	}
	return d
}

// bitten says whether an operation has what an effect spoils: a sector is written whole or
// not at all, one byte cannot be written in part, and in none is no bit to flip.
func (o operation) bitten(effect string) bool {
	switch effect {
	case EffectTorn:
		return o.data && sectorsIn(o.off, o.size) > 0
	case EffectShort:
		return o.data && o.size > 1
	case EffectFlip:
		return o.data && o.size > 0
	default:
		return false
	}
}

func (a *active) bite(v *verdict, o operation, random *rand.Rand) {
	v.biter = a
	switch a.Effect {
	case EffectTorn:
		v.torn = true
		v.keep = (o.off/sectorSize+1+random.Int64N(sectorsIn(o.off, o.size)))*sectorSize - o.off
	case EffectShort:
		v.keep = 1 + random.Int64N(o.size-1)
	case EffectFlip:
		v.flip = true
	}
}

// missed takes back that a rule has spoilt data: the operation failed for another reason.
func (r *rules) missed(v verdict) {
	if v.biter == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	v.biter.met.Fired--
}

// count adds what was met to the stats.
func (r *rules) count(s *Stats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Tripped = r.tripped
	s.Rules = map[string]Met{}
	for _, a := range r.active {
		s.Rules[a.ID] = a.met
	}
}

// sectorsIn counts the ends of sectors inside a range: where a write of it can be torn.
func sectorsIn(off, n int64) int64 {
	return max(0, (off+n-1)/sectorSize-off/sectorSize)
}
