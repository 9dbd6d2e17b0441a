package agent

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"capsize/clusters"
	"capsize/nemesis/agent/disk"
)

// Disks is the ability to make a process's disk fail.
const Disks = "disk"

// Disk sets the faults of the disk of a process, which replaces what was in force before: no
// rule heals. A rule that stays keeps what it has counted.
type Disk struct {
	Process string      `json:"process"`
	Rules   []disk.Rule `json:"rules"`
}

// DiskReply answers Disk.
type DiskReply struct {
	How string `json:"how"`
	// Met tells of each rule, those too that this request took away, how often it was met.
	Met map[string]disk.Met `json:"met,omitempty"`
}

// PowerFail takes back what a process wrote and did not sync: with its end before, that is what
// a power failure does. The process must not run.
type PowerFail struct {
	Process string `json:"process"`
	Mode    string `json:"mode"` // one of disk.PowerAll, PowerPrefix, PowerPages
	Seed    uint64 `json:"seed,omitempty"`
}

// PowerFailReply answers PowerFail.
type PowerFailReply struct {
	Loss disk.Loss `json:"loss"`
}

// KillAt kills a process at a moment that its disk chooses: instead of its Nth fsync, or of the
// write that reaches so many bytes, both counted from this request on. With a Mode the power
// fails then too.
type KillAt struct {
	Process string        `json:"process"`
	Fsyncs  int64         `json:"fsyncs,omitempty"`
	Bytes   int64         `json:"bytes,omitempty"`
	Mode    string        `json:"mode,omitempty"`
	Seed    uint64        `json:"seed,omitempty"`
	Limit   time.Duration `json:"limit"` // for the moment to come
}

// KillAtReply answers KillAt.
type KillAtReply struct {
	Pid   int           `json:"pid"`
	State string        `json:"state"`          // "killed by SIGKILL"
	After time.Duration `json:"after"`          // the request began
	Loss  *disk.Loss    `json:"loss,omitempty"` // by the power failure
}

const killAtLimitMost = time.Minute

func (d *Disk) validate() error {
	if err := validateName("process", d.Process); err != nil {
		return err
	}
	return disk.Setting{Rules: d.Rules}.Validate()
}

func (p *PowerFail) validate() error {
	if err := validateName("process", p.Process); err != nil {
		return err
	}
	return validateMode(p.Mode)
}

func (k *KillAt) validate() error {
	if err := validateName("process", k.Process); err != nil {
		return err
	}
	if k.Limit <= 0 || k.Limit > killAtLimitMost {
		return fmt.Errorf("kill at: limit %s, want more than 0 and at most %s", k.Limit, killAtLimitMost)
	}
	if err := (disk.Setting{Trip: &disk.Trip{Fsyncs: k.Fsyncs, Bytes: k.Bytes}}).Validate(); err != nil {
		return err
	}
	if k.Mode == "" {
		return nil
	}
	return validateMode(k.Mode)
}

func validateMode(mode string) error {
	if modes := []string{disk.PowerAll, disk.PowerPrefix, disk.PowerPages}; !slices.Contains(modes, mode) {
		return fmt.Errorf("power failure %q, want one of %v", mode, modes)
	}
	return nil
}

// diskTool puts a layer with faults under the data directories of processes that ask for it.
type diskTool struct {
	root    string // the directory of the run: nothing outside of it is covered
	journal *journal

	mu    sync.Mutex // guards the map only
	disks map[string]*covered
}

// covered is the disk of a process by name, through all its lives.
type covered struct {
	mu    sync.Mutex // held while the disk changes
	name  string
	dir   string
	layer *disk.Disk // nil while the directory lies bare
	rules []disk.Rule
	trip  *disk.Trip
	past  map[string]disk.Met // of rules in force, by layers before this one
}

func newDiskTool(root string, journal *journal) *diskTool {
	return &diskTool{root: root, journal: journal, disks: make(map[string]*covered)}
}

func (t *diskTool) survey(context.Context) []Ability {
	how, err := disk.Supported()
	if err != nil {
		return []Ability{{Name: Disks, Why: err.Error()}}
	}
	return []Ability{{Name: Disks, How: how}}
}

func (t *diskTool) started(context.Context, clusters.Process, int) error { return nil }

// starting covers the data of a process before it is started, if its disk shall be able to fail.
func (t *diskTool) starting(ctx context.Context, spec clusters.Process) error {
	if !spec.Disk {
		return nil
	}
	if name, err := filepath.Rel(t.root, spec.Data); err != nil || !filepath.IsLocal(name) || name == "." {
		return fmt.Errorf("cover %q, the data of %s: it does not lie in %s, the directory of this run", spec.Data, spec.Name, t.root)
	}
	t.mu.Lock()
	c := t.disks[spec.Name]
	if c == nil {
		c = &covered{name: spec.Name, dir: spec.Data, past: make(map[string]disk.Met)}
		t.disks[spec.Name] = c
	}
	t.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dir != spec.Data {
		return fmt.Errorf("cover %s: %s kept its data in %s before", spec.Data, spec.Name, c.dir)
	}
	return t.cover(ctx, c)
}

// cover lays the layer over a bare directory. The caller holds c.mu.
func (t *diskTool) cover(ctx context.Context, c *covered) error {
	if c.layer != nil {
		return nil
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the agent's own program: %w", err)
	}
	if err := t.journal.begin(diskKey(c.name), Undo{Disk: &c.dir}); err != nil {
		return err
	}
	c.layer, err = disk.Mount(ctx, []string{program, DiskCommand, c.dir}, c.dir)
	if err != nil {
		return err
	}
	return c.apply(ctx)
}

// DiskCommand is the argument with which the agent's program is the layer over the directory
// that follows it: see [ServeDisk].
const DiskCommand = "disk"

// ServeDisk is the whole of a process that the agent starts for each disk that it covers. It
// returns when nothing uses the directory any more.
func ServeDisk(dir string) error {
	return disk.Serve(context.Background(), os.Stdin, os.Stdout, disk.Options{Mountpoint: dir, Backing: dir})
}

func diskKey(process string) string { return "disk of " + process }

// apply puts in force what is wanted. The caller holds c.mu.
func (c *covered) apply(ctx context.Context) error {
	return c.layer.Set(ctx, disk.Setting{Rules: c.rules, Trip: c.trip})
}

// met returns what all rules in force have met. The caller holds c.mu.
func (c *covered) met(ctx context.Context) (map[string]disk.Met, error) {
	all := maps.Clone(c.past)
	if c.layer == nil {
		return all, nil
	}
	stats, err := c.layer.Stats(ctx)
	if err != nil {
		return nil, err
	}
	for id, met := range stats.Rules {
		before := all[id]
		if met.Path == "" {
			met.Path = before.Path
		}
		all[id] = disk.Met{Matched: before.Matched + met.Matched, Fired: before.Fired + met.Fired, Path: met.Path}
	}
	return all, nil
}

func (t *diskTool) find(process string) (*covered, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.disks[process]
	if c == nil {
		return nil, fmt.Errorf("the disk of %s is not covered: it was not started for that", process)
	}
	return c, nil
}

// set carries out a request.
func (t *diskTool) set(ctx context.Context, r Disk) (*DiskReply, error) {
	c, err := t.find(r.Process)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	met, err := c.met(ctx)
	if err != nil {
		return nil, err
	}
	c.rules = r.Rules
	for id := range c.past {
		if !slices.ContainsFunc(c.rules, func(rule disk.Rule) bool { return rule.ID == id }) {
			delete(c.past, id)
		}
	}
	if c.layer != nil {
		err = c.apply(ctx)
	}
	return &DiskReply{How: "FUSE", Met: met}, err
}

// powerFail takes back what was not synced. The process must be known not to run.
func (t *diskTool) powerFail(ctx context.Context, r PowerFail) (*PowerFailReply, error) {
	c, err := t.find(r.Process)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.layer == nil { // bared while the process is down: nobody has written to it since
		return &PowerFailReply{}, nil
	}
	loss, err := c.layer.PowerFail(ctx, r.Mode, r.Seed)
	return &PowerFailReply{loss}, err
}

// killAt arms the trip, waits for it, and has the process killed while all of its writes wait.
func (t *diskTool) killAt(ctx context.Context, r KillAt, kill func() (SignalReply, error)) (reply *KillAtReply, err error) {
	c, err := t.find(r.Process)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	tripped, err := c.arm(ctx, &disk.Trip{Fsyncs: r.Fsyncs, Bytes: r.Bytes})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.disarm(context.WithoutCancel(ctx))) }()
	timer := time.NewTimer(r.Limit)
	defer timer.Stop()
	select {
	case <-tripped:
	case <-timer.C:
		return nil, fmt.Errorf("kill %s: its disk did not reach that moment within %s", r.Process, r.Limit)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	signalled, err := kill()
	if err != nil {
		return nil, err
	}
	reply = &KillAtReply{Pid: signalled.Pid, State: signalled.State, After: time.Since(began)}
	if r.Mode != "" {
		failed, err := t.powerFail(ctx, PowerFail{Process: r.Process, Mode: r.Mode, Seed: r.Seed})
		if err != nil {
			return nil, err
		}
		reply.Loss = &failed.Loss
	}
	return reply, nil
}

func (c *covered) arm(ctx context.Context, trip *disk.Trip) (tripped <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.layer == nil:
		return nil, fmt.Errorf("the disk of %s is not covered at this moment", c.name)
	case c.trip != nil:
		return nil, fmt.Errorf("%s is to be killed at a moment of its disk already", c.name)
	}
	select {
	case <-c.layer.Tripped(): // the notice of an earlier trip that was not waited for
	default:
	}
	c.trip = trip
	return c.layer.Tripped(), c.apply(ctx)
}

func (c *covered) disarm(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trip = nil
	if c.layer == nil {
		return nil
	}
	return c.apply(ctx)
}

// bared does something to the data of a process while no layer covers it. The process must be
// known not to run; its next start covers the data again.
func (t *diskTool) bared(ctx context.Context, process string, do func() error) error {
	t.mu.Lock()
	c := t.disks[process]
	t.mu.Unlock()
	if c == nil {
		return do()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	met, err := c.met(ctx)
	if err != nil {
		return err
	}
	if err := t.uncover(ctx, c); err != nil {
		return err
	}
	maps.DeleteFunc(met, func(id string, _ disk.Met) bool {
		return !slices.ContainsFunc(c.rules, func(rule disk.Rule) bool { return rule.ID == id })
	})
	c.past = met
	return do()
}

// uncover takes the layer away. The caller holds c.mu.
func (t *diskTool) uncover(ctx context.Context, c *covered) error {
	if c.layer == nil {
		return nil
	}
	if err := c.layer.Close(ctx); err != nil {
		return fmt.Errorf("uncover the data of %s: %w", c.name, err)
	}
	c.layer = nil
	t.journal.end(diskKey(c.name))
	return nil
}

// heal makes all disks healthy, and uncovers those that no process uses: see leave for the others.
func (t *diskTool) heal(ctx context.Context) error {
	return t.each(func(c *covered) error {
		c.rules, c.trip = nil, nil
		if c.layer == nil {
			return nil
		}
		if err := t.uncover(ctx, c); !errors.Is(err, disk.ErrBusy) {
			return err
		}
		return nil // it is healed, and stays covered
	})
}

const uncoverPoll = 20 * time.Millisecond

// leave uncovers what processes used that have ended since, and leaves the rest to the layers
// themselves: each goes when nothing uses it any more.
func (t *diskTool) leave(ctx context.Context, ended bool) error {
	return t.each(func(c *covered) error {
		for {
			err := t.uncover(ctx, c)
			if !errors.Is(err, disk.ErrBusy) {
				return err
			}
			if !ended {
				log.Printf("%s keeps its layer, which is healthy, as long as %s uses it", c.dir, c.name)
				return nil
			}
			select {
			case <-time.After(uncoverPoll):
			case <-ctx.Done():
				return fmt.Errorf("%w: %w", context.Cause(ctx), err)
			}
		}
	})
}

func (t *diskTool) each(do func(*covered) error) error {
	t.mu.Lock()
	disks := slices.Collect(maps.Values(t.disks))
	t.mu.Unlock()
	problems := make([]error, len(disks))
	var work sync.WaitGroup
	for i, c := range disks {
		work.Go(func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			problems[i] = do(c)
		})
	}
	work.Wait()
	return errors.Join(problems...)
}
