package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"capsize/checkers"
	"capsize/histories"
	"capsize/nemesis"
	"capsize/reports"
	"capsize/workloads"
)

// Status is how a run ends, as the exit status of the command line.
type Status int

const (
	StatusValid   Status = 0  // every checker said valid
	StatusInvalid Status = 1  // a property was broken
	StatusUnknown Status = 2  // a checker could not decide, or the planned faults did not land
	StatusFailed  Status = 3  // the harness failed
	StatusUsage   Status = 64 // wrong usage
)

// String returns the word for people.
func (s Status) String() string {
	switch s {
	case StatusValid:
		return string(checkers.Valid)
	case StatusInvalid:
		return string(checkers.Invalid)
	case StatusUnknown:
		return string(checkers.Unknown)
	case StatusFailed:
		return "harness failed"
	default:
		return fmt.Sprintf("status %d", int(s))
	}
}

// Judgement is what verdict.json holds.
type Judgement struct {
	Verdict  string            `json:"verdict"` // a Status in words
	Status   Status            `json:"status"`
	Headline string            `json:"headline"`
	Problems []string          `json:"problems,omitempty"` // of the harness
	Notes    []string          `json:"notes,omitempty"`
	Results  []checkers.Result `json:"results"`
}

// Judge reads a run directory, runs every checker, and writes verdict.json and the
// reports anew. It needs no cluster and gives the same verdict each time.
func Judge(ctx context.Context, dir Directory) (*Judgement, *reports.Run, error) {
	run, err := loadRun(dir)
	if err != nil {
		return nil, nil, err
	}
	judgement := run.judge(ctx)
	data, err := json.MarshalIndent(judgement, "", "  ")
	if err != nil {
		return nil, nil, fmt.Errorf("write %s: %w", dir.Verdict(), err)
	}
	if err := writeFile(dir.Verdict(), append(data, '\n')); err != nil {
		return nil, nil, err
	}
	report := run.report(judgement)
	return judgement, report, writeReports(dir, report)
}

// Redraw writes the reports of a run directory anew from its verdict.json, without
// running any checker.
func Redraw(dir Directory) (*Judgement, *reports.Run, error) {
	run, err := loadRun(dir)
	if err != nil {
		return nil, nil, err
	}
	data, err := os.ReadFile(dir.Verdict())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s has no verdict.json yet: judge it first with checker check %s", dir, dir)
	}
	if err != nil {
		return nil, nil, err
	}
	judgement := new(Judgement)
	if err := json.Unmarshal(data, judgement); err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", dir.Verdict(), err)
	}
	report := run.report(judgement)
	return judgement, report, writeReports(dir, report)
}

// recorded is a run directory, read back.
type recorded struct {
	dir      Directory
	plan     Plan
	facts    Facts
	history  *histories.History
	traces   map[string]string
	logs     map[string]string
	workload workloads.Workload
	demands  []checkers.Demand
}

func loadRun(dir Directory) (*recorded, error) {
	r := &recorded{dir: dir, traces: make(map[string]string), logs: make(map[string]string)}
	var err error
	if r.facts, err = LoadFacts(dir); err != nil {
		return nil, err
	}
	if r.plan, err = LoadPlan(dir.Plan()); err != nil {
		return nil, err
	}
	makeWorkload, ok := workloadsByName[r.plan.Workload]
	if !ok {
		return nil, fmt.Errorf("%s: workload %q is not known to this version of Capsize", dir.Plan(), r.plan.Workload)
	}
	if r.workload, err = makeWorkload(&r.plan); err != nil {
		return nil, err
	}
	if r.history, err = histories.ReadFile(dir.History()); err != nil {
		return nil, err
	}
	if r.demands, err = demandsOf(dir); err != nil {
		return nil, err
	}
	for _, node := range r.facts.Nodes {
		trace := dir.Node(node) + "/trace.jsonl"
		if _, err := os.Stat(trace); err == nil {
			r.traces[node] = trace
		}
		if logs, err := filepath.Glob(filepath.Join(dir.Node(node), "*.log")); err == nil && len(logs) > 0 {
			r.logs[node] = logs[0]
		}
	}
	return r, nil
}

// demandsOf reads what the run's schedule demanded of it. A run that ended before it had a
// schedule demanded nothing yet.
func demandsOf(dir Directory) ([]checkers.Demand, error) {
	schedule, err := nemesis.LoadSchedule(dir.Schedule())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var demands []checkers.Demand
	for _, d := range schedule.Coverage {
		demand := checkers.Demand{
			What: d.String(), Params: d.Params, Leader: d.Leader, Times: d.Times, InForce: d.InForce, Operations: d.Operations,
		}
		if d.Fault != "" {
			demand.Faults = nemesis.FaultsIn(d.Fault)
		}
		demands = append(demands, demand)
	}
	return demands, nil
}

func (r *recorded) judge(ctx context.Context) *Judgement {
	results := checkers.JudgeAll(ctx, &checkers.Run{
		Nodes: r.facts.Nodes, History: r.history.Events, Traces: r.traces, Logs: r.logs,
	}, r.checkers())
	j := &Judgement{Problems: r.facts.Problems, Notes: r.facts.Notes, Results: results}
	if r.facts.Ended.IsZero() {
		j.Problems = append(j.Problems, "the checker was killed before this run ended: only what was recorded until then is judged")
	}
	if r.history.Truncated != "" {
		j.Notes = append(j.Notes, "history.jsonl ends in the middle of a line, which was left out: "+r.history.Truncated)
	}
	for _, result := range results {
		if result.Coverage != nil {
			for _, beyond := range result.Coverage.Beyond {
				j.Notes = append(j.Notes, "a correct system may fail under this run's faults: "+beyond)
			}
		}
	}
	if alarm := r.facts.Alarm; alarm != nil && !confirmed(results, alarm) {
		j.Problems = append(j.Problems, fmt.Sprintf("the live check of %s raised an alarm that its check of the finished run does not confirm, a defect of the checker: %s", alarm.Checker, alarm.Why))
	}
	j.Status = statusOf(checkers.Overall(results), len(j.Problems) > 0)
	j.Verdict = j.Status.String()
	j.Headline = reports.Headline(j.Verdict, results)
	if j.Status == StatusFailed {
		j.Headline = "The harness failed, so this run says nothing of the system: " + j.Problems[0]
	}
	return j
}

// confirmed reports whether the checker that raised an alarm has found a violation.
func confirmed(results []checkers.Result, alarm *checkers.Alarm) bool {
	return slices.ContainsFunc(results, func(r checkers.Result) bool {
		return r.Checker == alarm.Checker && r.Verdict == checkers.Invalid
	})
}

// statusOf combines the checkers' verdict with whether the harness failed: a violation
// that was seen counts even then; nothing else does.
func statusOf(verdict checkers.Verdict, harnessFailed bool) Status {
	switch {
	case verdict == checkers.Invalid:
		return StatusInvalid
	case harnessFailed:
		return StatusFailed
	case verdict == checkers.Unknown:
		return StatusUnknown
	default:
		return StatusValid
	}
}

func limitsOf(plan *Plan, dir Directory) checkers.Limits {
	return checkers.Limits{Timeout: plan.CheckTimeout, Memory: uint64(plan.CheckMemory), Dir: string(dir)}
}

func (r *recorded) checkers() []checkers.Checker {
	return append(r.workload.Checkers(limitsOf(&r.plan, r.dir)), []checkers.Checker{
		&checkers.Leaders{},
		&checkers.Invariants{},
		&checkers.Exits{},
		&checkers.Logs{Pattern: expression(r.plan.LogPattern), Ignore: expression(r.plan.LogIgnore)},
		&checkers.Liveness{Bound: r.plan.RecoveryLimit},
		&checkers.Availability{},
		&checkers.Faults{Planned: r.facts.Planned},
		&checkers.Coverage{Demands: r.demands},
		&checkers.Stats{MinimumOK: r.plan.MinOK},
	}...)
}

// expression compiles what a plan says; nil for nothing. Validate has tried it.
func expression(text string) *regexp.Regexp {
	if text == "" {
		return nil
	}
	compiled, err := regexp.Compile(text)
	if err != nil {
		return nil
	}
	return compiled
}

func (r *recorded) report(j *Judgement) *reports.Run {
	return &reports.Run{
		ID: r.facts.ID, Name: r.plan.Name, Started: r.facts.Started, Dir: string(r.dir),
		Command: "checker run --config " + r.dir.Plan(),
		Plan:    r.plan.fields(), System: r.plan.System, Version: r.facts.Version,
		Nodes: r.facts.Nodes, Seed: r.plan.Seed,
		Verdict: j.Verdict, Headline: j.Headline, Harness: j.Problems, Notes: j.Notes,
		Results: j.Results, History: r.history.Events,
	}
}

func writeReports(dir Directory, report *reports.Run) error {
	for _, file := range []struct {
		path  string
		write func(*reports.Run) ([]byte, error)
	}{
		{dir.Report(), render(reports.WriteHTML)},
		{dir.JUnit(), render(reports.WriteJUnit)},
		{dir.Summary(), render(reports.WriteSummary)},
	} {
		data, err := file.write(report)
		if err != nil {
			return fmt.Errorf("write %s: %w", file.path, err)
		}
		if err := writeFile(file.path, data); err != nil {
			return err
		}
	}
	return nil
}

// render adapts a writer of reports.
func render(write func(io.Writer, *reports.Run) error) func(*reports.Run) ([]byte, error) {
	return func(r *reports.Run) ([]byte, error) {
		var b bytes.Buffer
		err := write(&b, r)
		return b.Bytes(), err
	}
}
