package agent

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"capsize/clusters"
)

// HostClock is the ability to set the clock of the whole machine.
const HostClock = "clock.host"

// The rates that adjtimex(2) allows, as parts of a second a second, and as its ticks.
const (
	hostRateLeast = 0.9
	hostRateMost  = 1.1
	tickUsual     = 10_000
	tickLeast     = 9_000
	tickMost      = 11_000
)

// HostClocks sets what is done to the machine's clock, which replaces what was done before: no
// layer heals. A layer that is new jumps, one that is gone takes its jump back. Rates multiply.
type HostClocks struct {
	Layers []HostClockLayer `json:"layers"`
}

// HostClockLayer is one change of the machine's clock, known by its ID.
type HostClockLayer struct {
	ID   string        `json:"id"`
	Jump time.Duration `json:"jump,omitempty"`
	Rate float64       `json:"rate"` // relative to what it was; 1 is as it should be
}

// HostClocksReply answers HostClocks: how far the clock was ahead of what it would show
// untouched, before and after, and its rate relative to that, all read back from the kernel.
type HostClocksReply struct {
	Before time.Duration `json:"before"`
	After  time.Duration `json:"after"`
	Rate   float64       `json:"rate"` // in steps of 1/10,000, and held to what the kernel allows
}

func (h *HostClocks) validate() error {
	if len(h.Layers) > clockLayersMost {
		return fmt.Errorf("host clock: %d layers, want at most %d", len(h.Layers), clockLayersMost)
	}
	seen := make(map[string]bool)
	for _, layer := range h.Layers {
		if err := validateName("layer", layer.ID); err != nil {
			return err
		}
		if seen[layer.ID] {
			return fmt.Errorf("host clock: two layers are called %q", layer.ID)
		}
		seen[layer.ID] = true
		if math.IsNaN(layer.Rate) || layer.Rate < hostRateLeast || layer.Rate > hostRateMost {
			return fmt.Errorf("host clock: rate %v, want %v to %v", layer.Rate, hostRateLeast, hostRateMost)
		}
	}
	return nil
}

// machineClock is the clock of a machine. Its pace is one second a second where nobody has
// changed it, and may be off by what NTP has found out.
type machineClock interface {
	// read returns the wall clock, and a clock that nobody can set or slew, both since some moment.
	read() (wall, raw time.Duration, err error)
	set(wall time.Duration) error
	pace() (HostPace, error)
	setPace(HostPace) error
}

// HostPace is how fast a machine's clock runs, in the units of adjtimex(2).
type HostPace struct {
	Tick      int64 `json:"tick"`      // microseconds that it is set forward by, a hundred times a second
	Frequency int64 `json:"frequency"` // beyond that, in parts per million shifted by 16 bits
}

// times returns a pace that is so much faster, as far as the kernel allows.
func (p HostPace) times(rate float64) HostPace {
	if rate == 1 {
		return p
	}
	tick := int64(math.Round(float64(p.Tick) * rate))
	return HostPace{Tick: min(max(tick, tickLeast), tickMost), Frequency: p.Frequency}
}

// rate is how many seconds pass on the clock in one that is true.
func (p HostPace) rate() float64 {
	return float64(p.Tick)/tickUsual + float64(p.Frequency)/(1<<16)/1e6
}

// Untouched is a machine's clock as it would run had nobody touched it: enough to put it right,
// whoever does.
type Untouched struct {
	Ahead time.Duration `json:"ahead"` // of the clock that nobody can set
	Pace  HostPace      `json:"pace"`
}

// compare reads how far a clock is ahead of what it would show untouched, and how fast it runs
// relative to that.
func (u Untouched) compare(clock machineClock) (ahead time.Duration, rate float64, err error) {
	wall, raw, err := clock.read()
	if err != nil {
		return 0, 0, fmt.Errorf("read the machine's clock: %w", err)
	}
	pace, err := clock.pace()
	if err != nil {
		return 0, 0, fmt.Errorf("read the pace of the machine's clock: %w", err)
	}
	return wall - raw - u.Ahead, pace.rate() / u.Pace.rate(), nil
}

// restore puts a clock right.
func (u Untouched) restore(clock machineClock) error {
	if err := clock.setPace(u.Pace); err != nil {
		return fmt.Errorf("put the pace of the machine's clock right: %w", err)
	}
	_, raw, err := clock.read()
	if err == nil {
		err = clock.set(raw + u.Ahead)
	}
	if err != nil {
		return fmt.Errorf("put the machine's clock right: %w", err)
	}
	return nil
}

// hostClockTool sets the clock of a machine that is a host of its own.
type hostClockTool struct {
	clock   machineClock
	why     error // there is none to set
	journal *journal

	mu        sync.Mutex // held while the clock changes
	untouched *Untouched // nil while nothing is done to it
	applied   map[string]HostClockLayer
}

var errHostClockElsewhere = errors.New("the machine's clock is set on hosts of --cluster ssh only, since others use it too: the fault clock changes it for one process")

func newHostClockTool(h *Hello, journal *journal) *hostClockTool {
	t := &hostClockTool{journal: journal, why: errHostClockElsewhere, applied: make(map[string]HostClockLayer)}
	if h.HostClock {
		t.clock, t.why = openMachineClock()
	}
	return t
}

func (t *hostClockTool) survey(context.Context) []Ability {
	if t.why != nil {
		return []Ability{{Name: HostClock, Why: t.why.Error()}}
	}
	return []Ability{{Name: HostClock, How: "clock_settime and adjtimex"}}
}

func (t *hostClockTool) started(context.Context, clusters.Process, int) error { return nil }

// set carries out a request.
func (t *hostClockTool) set(r HostClocks) (*HostClocksReply, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.why != nil {
		return nil, fmt.Errorf("set the machine's clock: %w", t.why)
	}
	if t.untouched == nil {
		if len(r.Layers) == 0 {
			return &HostClocksReply{Rate: 1}, nil // nothing was ever done to it
		}
		if err := t.begin(); err != nil {
			return nil, err
		}
	}
	untouched := *t.untouched // restore forgets it
	before, _, err := untouched.compare(t.clock)
	if err != nil {
		return nil, err
	}
	if len(r.Layers) == 0 {
		err = t.restore()
	} else {
		err = t.apply(r.Layers)
	}
	if err != nil {
		return nil, err
	}
	after, rate, err := untouched.compare(t.clock)
	return &HostClocksReply{Before: before, After: after, Rate: rate}, err
}

// begin notes what the clock is like untouched, before it is touched.
func (t *hostClockTool) begin() error {
	wall, raw, err := t.clock.read()
	if err != nil {
		return fmt.Errorf("read the machine's clock: %w", err)
	}
	pace, err := t.clock.pace()
	if err != nil {
		return fmt.Errorf("read the pace of the machine's clock: %w", err)
	}
	untouched := Untouched{Ahead: wall - raw, Pace: pace}
	if err := t.journal.begin(hostClockKey, Undo{HostClock: &untouched}); err != nil {
		return err
	}
	t.untouched = &untouched
	return nil
}

const hostClockKey = "clock of the machine"

// apply makes the layers so. The caller holds t.mu.
func (t *hostClockTool) apply(layers []HostClockLayer) error {
	rate, jump := 1.0, time.Duration(0)
	next := make(map[string]HostClockLayer)
	for _, layer := range layers {
		rate *= layer.Rate
		if _, known := t.applied[layer.ID]; !known {
			jump += layer.Jump
		}
		next[layer.ID] = layer
	}
	for id, layer := range t.applied {
		if _, stays := next[id]; !stays {
			jump -= layer.Jump
		}
	}
	if err := t.clock.setPace(t.untouched.Pace.times(rate)); err != nil {
		return fmt.Errorf("change the pace of the machine's clock: %w", err)
	}
	if jump != 0 {
		wall, _, err := t.clock.read()
		if err == nil {
			err = t.clock.set(wall + jump)
		}
		if err != nil {
			return fmt.Errorf("set the machine's clock: %w", err)
		}
	}
	t.applied = next
	return nil
}

// restore puts the clock right. The caller holds t.mu.
func (t *hostClockTool) restore() error {
	if t.untouched == nil {
		return nil
	}
	if err := t.untouched.restore(t.clock); err != nil {
		return err
	}
	t.untouched, t.applied = nil, make(map[string]HostClockLayer)
	t.journal.end(hostClockKey)
	return nil
}

func (t *hostClockTool) heal(context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.restore()
}
