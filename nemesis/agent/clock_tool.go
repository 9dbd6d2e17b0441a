package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"capsize/clusters"
	"capsize/nemesis/agent/clock"
)

// Clocks is the ability to change a process's clocks.
const Clocks = "clock"

const clockLayersMost = 64

// Clock sets what is done to the clocks of a process, which replaces what was done before: no
// layer heals. A layer that is new jumps; one that is gone takes its jump of REALTIME back,
// while MONOTONIC keeps it, since it must never step back. Rates multiply.
type Clock struct {
	Process string       `json:"process"`
	Layers  []ClockLayer `json:"layers"`
}

// ClockLayer is one change of the clocks, known by its ID.
type ClockLayer struct {
	ID        string     `json:"id"`
	Realtime  ClockShift `json:"realtime"`
	Monotonic ClockShift `json:"monotonic"`
}

// ClockShift is what happens to one class of clocks.
type ClockShift struct {
	Jump time.Duration `json:"jump,omitempty"`
	Rate float64       `json:"rate"` // relative to the kernel's; 0 freezes, 1 is as it should be
}

// ClockReply answers Clock.
type ClockReply struct {
	Pid       int        `json:"pid"`
	How       string     `json:"how,omitempty"` // empty where nothing was ever done
	Realtime  ClockShown `json:"realtime"`
	Monotonic ClockShown `json:"monotonic"`
	// Poking: the process is interrupted often, so that its sleeps notice that time runs fast.
	Poking bool `json:"poking,omitempty"`
}

// ClockShown is what a class of clocks shows to the process, read back from its memory.
type ClockShown struct {
	Before time.Duration `json:"before"` // how far it was ahead of the kernel before the request
	Offset time.Duration `json:"offset"` // how far it is ahead now
	Rate   float64       `json:"rate"`
}

func (c *Clock) validate() error {
	if err := validateName("process", c.Process); err != nil {
		return err
	}
	if len(c.Layers) > clockLayersMost {
		return fmt.Errorf("clock: %d layers, want at most %d", len(c.Layers), clockLayersMost)
	}
	seen := make(map[string]bool)
	for _, layer := range c.Layers {
		if err := validateName("layer", layer.ID); err != nil {
			return err
		}
		if seen[layer.ID] {
			return fmt.Errorf("clock: two layers are called %q", layer.ID)
		}
		seen[layer.ID] = true
	}
	return nil
}

// clockTool changes the clocks of the processes that the agent starts.
type clockTool struct {
	journal *journal

	mu        sync.Mutex // guards the map only
	processes map[string]*clocked
}

// clocked is the clock of a process by name, through all its lives.
type clocked struct {
	mu      sync.Mutex // held while the clock changes
	name    string
	pid     int
	clock   *clock.Clock          // of this life; nil until something is done to it
	applied map[string]ClockLayer // in this life
	want    []ClockLayer
}

func newClockTool(journal *journal) *clockTool {
	return &clockTool{journal: journal, processes: make(map[string]*clocked)}
}

func (t *clockTool) survey(context.Context) []Ability {
	how, err := clock.Supported()
	if err != nil {
		return []Ability{{Name: Clocks, Why: err.Error()}}
	}
	return []Ability{{Name: Clocks, How: how}}
}

func (t *clockTool) find(name string, create bool) *clocked {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.processes[name]
	if c == nil && create {
		c = &clocked{name: name}
		t.processes[name] = c
	}
	return c
}

// started takes a new life, for which the same layers hold. MONOTONIC begins anew with a
// process, as far as it can tell: only its rate is carried over.
func (t *clockTool) started(_ context.Context, spec clusters.Process, pid int) error {
	c := t.find(spec.Name, true)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clock != nil {
		_ = c.clock.Close() // of a process that has ended
	}
	c.pid, c.clock, c.applied = pid, nil, make(map[string]ClockLayer)
	if len(c.want) == 0 {
		return nil
	}
	layers := slices.Clone(c.want)
	for i := range layers {
		layers[i].Monotonic.Jump = 0
	}
	if err := t.apply(c, layers); err != nil && !errors.Is(err, clock.ErrGone) {
		return fmt.Errorf("clock of %s: %w", spec.Name, err)
	}
	return nil
}

// set carries out a request.
func (t *clockTool) set(r Clock) (*ClockReply, error) {
	c := t.find(r.Process, false)
	if c == nil {
		return nil, fmt.Errorf("clock of %s: there is no such process here: it was never started", r.Process)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.want = r.Layers
	reply := &ClockReply{Pid: c.pid, Realtime: ClockShown{Rate: 1}, Monotonic: ClockShown{Rate: 1}}
	if len(r.Layers) == 0 && c.clock == nil {
		return reply, nil // nothing was ever done to it
	}
	if err := t.open(c); err != nil {
		return nil, c.failed(err)
	}
	before, err := c.clock.Read()
	if err != nil {
		return nil, c.failed(err)
	}
	if err := t.apply(c, r.Layers); err != nil {
		return nil, c.failed(err)
	}
	after, err := c.clock.Read()
	if err != nil {
		return nil, c.failed(err)
	}
	reply.How = c.clock.How()
	reply.Realtime = ClockShown{before.Realtime.Offset(), after.Realtime.Offset(), after.Realtime.Rate}
	reply.Monotonic = ClockShown{before.Monotonic.Offset(), after.Monotonic.Offset(), after.Monotonic.Rate}
	reply.Poking, _ = c.clock.Poking() // its failure shows in the rate that sleeps have
	return reply, nil
}

// failed names the process, and tells an end of the process from a failure.
func (c *clocked) failed(err error) error {
	if errors.Is(err, clock.ErrGone) {
		return fmt.Errorf("clock of %s, pid %d: %w: %w", c.name, c.pid, errGone, err)
	}
	return fmt.Errorf("clock of %s, pid %d: %w", c.name, c.pid, err)
}

// open finds the hook of the process, or lays one. The caller holds c.mu.
func (t *clockTool) open(c *clocked) (err error) {
	if c.clock == nil {
		c.clock, err = clock.Attach(c.pid)
	}
	return err
}

// apply makes the layers so. The caller holds c.mu.
func (t *clockTool) apply(c *clocked, layers []ClockLayer) error {
	life, err := lifeOf(c.pid)
	if err != nil {
		return fmt.Errorf("%w: %w", clock.ErrGone, err)
	}
	key := "clock of " + c.name
	if err := t.journal.begin(key, Undo{Clock: &life}); err != nil {
		return err
	}
	if err := t.open(c); err != nil {
		return err
	}
	if len(layers) == 0 {
		err = c.clock.Reset()
	} else {
		err = c.clock.Set(c.change(layers))
	}
	if err != nil {
		return err
	}
	c.applied = make(map[string]ClockLayer)
	for _, layer := range layers {
		c.applied[layer.ID] = layer
	}
	if len(layers) == 0 {
		t.journal.end(key)
	}
	return nil
}

// change is what leads from the layers that are applied to those.
func (c *clocked) change(layers []ClockLayer) clock.Change {
	realtime, monotonic := 1.0, 1.0
	var change clock.Change
	gone := maps.Clone(c.applied)
	for _, layer := range layers {
		realtime *= layer.Realtime.Rate
		monotonic *= layer.Monotonic.Rate
		if _, known := gone[layer.ID]; known {
			delete(gone, layer.ID)
			continue
		}
		change.Realtime.Jump += layer.Realtime.Jump
		change.Monotonic.Jump += layer.Monotonic.Jump
	}
	for _, layer := range gone {
		change.Realtime.Jump -= layer.Realtime.Jump
	}
	change.Realtime.Rate, change.Monotonic.Rate = &realtime, &monotonic
	return change
}

func (t *clockTool) heal(context.Context) error {
	t.mu.Lock()
	processes := slices.Collect(maps.Values(t.processes))
	t.mu.Unlock()
	var problems []error
	for _, c := range processes {
		c.mu.Lock()
		if c.clock != nil {
			err := t.apply(c, nil)
			if errors.Is(err, clock.ErrGone) {
				err = nil
			}
			problems = append(problems, err, c.clock.Close())
			c.clock = nil
		}
		c.mu.Unlock()
	}
	return errors.Join(problems...)
}
