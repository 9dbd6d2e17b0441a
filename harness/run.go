package harness

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"capsize/histories"
	"capsize/nemesis"
	"capsize/reports"
	"capsize/workloads"
)

// Run carries out one plan: bring up, drive, break, heal, collect, judge. When ctx ends
// in the middle, the run stops early, heals, and judges what it has. The error is for
// what keeps a run from being recorded at all; everything else, the harness's own
// failures included, is in the judgement and in the run directory.
func Run(ctx context.Context, plan Plan, out io.Writer, terminal bool) (*Judgement, *reports.Run, error) {
	if err := plan.Validate(); err != nil {
		return nil, nil, err
	}
	plan.settle()
	r := &run{plan: plan, progress: &progress{out: out, terminal: terminal}, stopped: make(chan struct{})}
	if err := r.open(); err != nil {
		return nil, nil, err
	}
	err := r.carryOut(ctx)
	if ctx.Err() != nil {
		r.note("stopped early, after %.1f s: only what was recorded until then is judged", r.recorder.Elapsed().Seconds())
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		r.problem(err)
	}
	if err := r.close(); err != nil {
		return nil, nil, err
	}
	// The verdict on what was recorded is owed even when the run was stopped.
	return Judge(context.WithoutCancel(ctx), r.dir)
}

// settle fills in what depends on the moment.
func (p *Plan) settle() {
	if p.Seed == 0 {
		var b [4]byte // short enough to be read aloud
		_, _ = rand.Read(b[:])
		p.Seed = max(1, uint64(binary.LittleEndian.Uint32(b[:])))
	}
	if p.Name == "" {
		p.Name = p.System + "-" + p.Workload
	}
}

// run is one run while it goes on.
type run struct {
	plan     Plan
	dir      Directory
	progress *progress
	recorder *histories.Recorder
	workload workloads.Workload

	mu    sync.Mutex // guards facts
	facts Facts

	stopped  chan struct{} // closed when the system failed in a way that ends the run
	stopOnce sync.Once
}

// open makes the run directory and begins the history.
func (r *run) open() error {
	now := time.Now()
	dir, err := NewDirectory(r.plan.Runs, r.plan.Name, now)
	if err != nil {
		return err
	}
	r.dir = dir
	r.facts = Facts{ID: newID(now), Started: now, Version: version(), Nodes: r.plan.nodeNames()}
	if r.workload, err = workloadsByName[r.plan.Workload](&r.plan); err != nil {
		return err
	}
	saved := r.plan
	if saved.Schedule != "" {
		saved.Schedule = filepath.Base(dir.Schedule()) // the copy beside it: the run directory is the whole truth
	}
	if err := saved.Save(dir.Plan()); err != nil {
		return err
	}
	if err := r.facts.Save(dir); err != nil {
		return err
	}
	r.recorder, err = histories.Create(dir.History(), histories.Header{Run: r.facts.ID, Started: now})
	return err
}

// carryOut does everything between the opened and the closed run directory.
func (r *run) carryOut(ctx context.Context) (err error) {
	planned, err := r.plan.faults()
	if err != nil {
		return err
	}
	r.progress.Say("run %s  seed %d  %s", r.facts.ID, r.plan.Seed, r.dir)
	d, err := r.deploy(ctx, planned)
	if d != nil {
		defer func() {
			// Whatever happened, the cluster is taken down; that has a time bound of its own.
			downCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeDownLimit)
			defer cancel()
			err = errors.Join(err, d.takeDown(downCtx))
		}()
	}
	if err != nil {
		return err
	}
	return r.test(ctx, d)
}

// draw makes the concrete schedule for what the agents can do, and saves it.
func (r *run) draw(planned nemesis.Schedule, survey nemesis.Survey) (nemesis.Schedule, error) {
	for _, missing := range survey.Missing(planned) {
		r.note("not drawn, since it does not work here: %s", missing)
	}
	schedule := planned.Drawn(nemesis.Circumstances{Nodes: r.plan.nodeNames(), TimeLimit: r.plan.TimeLimit, Works: survey.Works})
	if err := survey.Check(schedule); err != nil {
		return schedule, err
	}
	r.mu.Lock()
	r.facts.Planned = len(schedule.Steps)
	r.mu.Unlock()
	r.progress.Say("%d faults planned", len(schedule.Steps))
	return schedule, schedule.Save(r.dir.Schedule())
}

// faults returns the faults of a plan: steps, and what to draw.
func (p *Plan) faults() (nemesis.Schedule, error) {
	schedule := nemesis.Schedule{Seed: p.Seed, OutageLimit: p.OutageLimit}
	switch {
	case p.Schedule != "":
		loaded, err := nemesis.LoadSchedule(p.Schedule)
		if err != nil {
			return schedule, &UsageError{"schedule", p.Schedule, err.Error()}
		}
		schedule = loaded
		if schedule.Seed == 0 {
			schedule.Seed = p.Seed
		}
		if schedule.OutageLimit == 0 {
			schedule.OutageLimit = p.OutageLimit
		}
	case !p.Faultless():
		schedule.Draw = []nemesis.Draw{{From: p.Nemesis, Interval: p.NemesisInterval, Overlap: p.NemesisOverlap, Swarm: p.Swarm}}
	}
	if err := schedule.Validate(p.nodeNames(), p.TimeLimit); err != nil {
		if p.Schedule == "" {
			return schedule, &UsageError{"nemesis", strings.Join(p.Nemesis, ","), err.Error()}
		}
		return schedule, &UsageError{"schedule", p.Schedule, err.Error()}
	}
	return schedule, nil
}

// close ends the history and says in run.json that the run ended.
func (r *run) close() error {
	if err := r.recorder.Close(); err != nil {
		r.problem(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.facts.Ended = time.Now()
	return r.facts.Save(r.dir)
}

// problem notes a failure of the harness itself.
func (r *run) problem(err error) {
	r.progress.Say("harness: %v", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.facts.Problems = append(r.facts.Problems, err.Error())
}

// note keeps something that the reader of the report should know.
func (r *run) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.progress.Say("%s", text)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.facts.Notes = append(r.facts.Notes, text)
}

// newID makes a short name that is unique enough for containers: the time of day and a
// few random letters.
func newID(now time.Time) string {
	var b [3]byte
	_, _ = rand.Read(b[:])
	return now.UTC().Format("0102-150405-") + hex.EncodeToString(b[:])
}

// version names the Capsize that made a run.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision, dirty := "", ""
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision":
			revision = setting.Value
		case setting.Key == "vcs.modified" && setting.Value == "true":
			dirty = " with changes"
		}
	}
	if len(revision) >= 12 {
		return revision[:12] + dirty
	}
	return info.Main.Version
}
