package disk

import (
	"context"
	"math/rand/v2"
	"path"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// rules is what is in force, and what was met of it.
type rules struct {
	healthy atomic.Bool // no rule and no trip: the way past the lock

	mu      sync.Mutex
	random  *rand.Rand
	active  []*active
	changed chan struct{} // closed when the setting is replaced: ends every stall
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

// verdict is what befalls one operation.
type verdict struct {
	errno syscall.Errno
	lose  bool
	torn  bool
	short bool
	flip  bool
	delay time.Duration
	stall bool
	cut   float64 // random, from 0 to 1: where a write is torn, which bit flips
}

func newRules(notify func()) *rules {
	r := &rules{notify: notify}
	r.replace(Setting{})
	return r
}

// replace puts another setting in force. A rule that is the same keeps what it has counted.
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
	r.trip, r.tripped, r.fsyncs, r.bytes = s.Trip, false, 0, 0
	if r.changed != nil {
		close(r.changed)
	}
	r.changed = make(chan struct{})
	r.healthy.Store(len(r.active) == 0 && r.trip == nil)
}

// meet decides what befalls an operation, and waits as long as that says. It returns EINTR
// where the caller's program was interrupted or killed meanwhile.
func (r *rules) meet(ctx context.Context, on, file string, size int) verdict {
	if r.healthy.Load() {
		return verdict{}
	}
	for {
		v, changed, tripped, notify := r.decide(on, file, int64(size))
		if notify {
			r.notify()
		}
		if tripped || v.stall {
			select {
			case <-changed:
				continue // judged anew under the setting that ended the stall
			case <-ctx.Done():
				return verdict{errno: syscall.EINTR}
			}
		}
		if v.delay > 0 {
			timer := time.NewTimer(v.delay)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-changed:
			case <-ctx.Done():
				return verdict{errno: syscall.EINTR}
			}
		}
		return v
	}
}

func (r *rules) decide(on, file string, size int64) (v verdict, changed chan struct{}, tripped, notify bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed = r.changed
	if r.trip != nil && on != OnRead {
		before := r.tripped
		if !before && on == OnFsync {
			r.fsyncs++
		}
		if !before && on == OnWrite {
			r.bytes += size
		}
		r.tripped = before || r.trip.Fsyncs > 0 && r.fsyncs >= r.trip.Fsyncs || r.trip.Bytes > 0 && r.bytes >= r.trip.Bytes
		if r.tripped {
			return v, changed, true, !before
		}
	}
	v.cut = r.random.Float64()
	for _, a := range r.active {
		if a.fires(on, file, size, r.random) {
			a.apply(&v, size)
		}
	}
	return v, changed, false, false
}

func (a *active) fires(on, file string, size int64, random *rand.Rand) bool {
	if a.On != on || !a.matches(file) {
		return false
	}
	a.met.Matched++
	a.bytes += size
	if a.met.Matched <= a.After || a.AfterBytes > 0 && a.bytes <= a.AfterBytes || a.Count > 0 && a.met.Fired >= a.Count {
		return false
	}
	if a.Probability > 0 && a.Probability < 1 && random.Float64() >= a.Probability {
		return false
	}
	a.met.Fired++
	a.met.Path = file
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

func (a *active) apply(v *verdict, size int64) {
	switch a.Effect {
	case EffectError:
		v.errno = errnos[a.Errno]
	case EffectLose:
		v.errno, v.lose = errnos[a.Errno], true
	case EffectTorn:
		v.torn = true
	case EffectShort:
		v.short = true
	case EffectFlip:
		v.flip = true
	case EffectStall:
		v.stall = true
	case EffectDelay:
		v.delay += a.Delay
		if a.Rate > 0 {
			now := time.Now()
			if a.free.Before(now) {
				a.free = now
			}
			a.free = a.free.Add(time.Duration(float64(size) / float64(a.Rate) * float64(time.Second)))
			v.delay += min(a.free.Sub(now), delayMost)
		}
	}
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

var errnos = map[string]syscall.Errno{
	"": syscall.EIO, "EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC, "EROFS": syscall.EROFS, "EDQUOT": syscall.EDQUOT,
}
