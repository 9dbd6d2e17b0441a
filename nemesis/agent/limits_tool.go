package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"capsize/clusters"
	"capsize/nemesis/agent/limits"
)

// Names of the abilities to limit a process.
const (
	LimitCPU       = "limit.cpu"
	LimitMemory    = "limit.memory"
	LimitFiles     = "limit.files"
	LimitProcesses = "limit.processes"
	LimitIO        = "limit.io"
	Freezing       = "freeze"
)

var limitAbilities = map[limits.Resource]string{
	limits.CPU: LimitCPU, limits.Memory: LimitMemory, limits.Files: LimitFiles,
	limits.Processes: LimitProcesses, limits.IO: LimitIO, limits.Freeze: Freezing,
}

// Limits sets all limits of a process, which replaces those before: the zero Limit heals. What
// of them makes sense for its next lives holds for those too: see [limits.Limit.Outlasting].
type Limits struct {
	Process string       `json:"process"`
	Limit   limits.Limit `json:"limit"`
}

// LimitsReply answers Limits.
type LimitsReply struct {
	Pid int `json:"pid"`
	// Before is what the limits that were replaced have done, and Seen what there is now.
	Before limits.Seen `json:"before"`
	Seen   limits.Seen `json:"seen"`
}

// limitTool limits the processes that the agent starts.
type limitTool struct {
	hello   *Hello
	journal *journal

	mu       sync.Mutex // guards the map only
	programs map[string]*limited
}

// limited is a process by name, through all its lives.
type limited struct {
	mu      sync.Mutex // held while limits change
	name    string
	pid     int
	want    limits.Limit
	limiter *limits.Limiter // of this life
}

func newLimitTool(hello *Hello, journal *journal) *limitTool {
	return &limitTool{hello: hello, journal: journal, programs: make(map[string]*limited)}
}

func (l *limitTool) survey(context.Context) []Ability {
	var abilities []Ability
	for _, a := range limits.Survey(l.hello.Dir) {
		abilities = append(abilities, Ability{Name: limitAbilities[a.Resource], How: a.How, Why: a.Why})
	}
	return abilities
}

// started takes a new life. What is wanted by name holds for it too.
func (l *limitTool) started(_ context.Context, spec clusters.Process, pid int) error {
	l.mu.Lock()
	p := l.programs[spec.Name]
	if p == nil {
		p = &limited{name: spec.Name}
		l.programs[spec.Name] = p
	}
	l.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := l.end(p); err != nil {
		return fmt.Errorf("limits of %s: its life before: %w", spec.Name, err)
	}
	limiter, err := limits.New(pid, l.groupName(spec.Name, pid), spec.Data, func(undo limits.Undo) error {
		return l.journal.begin(journalKey(spec.Name), Undo{Limits: &undo})
	})
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrNotExist) {
		return nil // nothing can be limited on this system, or the process has ended already
	}
	if err != nil {
		return err
	}
	p.pid, p.limiter, p.want = pid, limiter, p.want.Outlasting()
	return limiter.Apply(p.want)
}

// groupName is unique on the machine: the pid makes it so.
func (l *limitTool) groupName(process string, pid int) string {
	return strings.ReplaceAll(fmt.Sprintf("%s-%s-%s-%d", l.hello.Run, l.hello.Node, process, pid), "/", "-")
}

func journalKey(process string) string { return "limits of " + process }

// end lets go of a life. The caller holds p.mu.
func (l *limitTool) end(p *limited) error {
	if p.limiter == nil {
		return nil
	}
	if err := p.limiter.Clear(); err != nil {
		return err
	}
	p.limiter = nil
	l.journal.end(journalKey(p.name))
	return nil
}

func (l *limitTool) find(process string) *limited {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.programs[process]
}

// set carries out a request.
func (l *limitTool) set(r Limits) (*LimitsReply, error) {
	p := l.find(r.Process)
	if p == nil {
		return nil, fmt.Errorf("limit %s: there is no such process here: it was never started", r.Process)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.want = r.Limit
	if p.limiter == nil {
		return nil, fmt.Errorf("limit %s: pid %d: %w", r.Process, p.pid, errGone)
	}
	reply := &LimitsReply{Pid: p.pid}
	reply.Before, _ = p.limiter.Seen() // of a process that has ended there is less to see
	err := p.limiter.Apply(r.Limit)
	if r.Limit == (limits.Limit{}) {
		if err = p.limiter.Clear(); err == nil { // also what an Apply that failed has left
			l.journal.end(journalKey(r.Process))
		}
	}
	if err == nil {
		reply.Seen, err = p.limiter.Seen()
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("limit %s: %w: %w", r.Process, errGone, err)
	}
	return reply, err
}

// aroundSignal makes way for a signal: nothing else stops and continues the process meanwhile,
// nor as long as it is to be stopped, and one that is frozen is thawed to be killed: a frozen
// process of cgroups of version 1 does not die.
func (l *limitTool) aroundSignal(r Signal, send func() (SignalReply, error)) (SignalReply, error) {
	p := l.find(r.Process)
	if p == nil {
		return send()
	}
	p.mu.Lock()
	limiter := p.limiter
	deadly := r.Signal == "kill" || r.Signal == "term"
	if limiter != nil && deadly && p.want.Frozen {
		p.want.Frozen = false
		if err := limiter.Apply(p.want); err != nil && !errors.Is(err, fs.ErrNotExist) {
			p.mu.Unlock()
			return SignalReply{}, fmt.Errorf("%s %s: thaw it first: %w", r.Signal, r.Process, err)
		}
	}
	p.mu.Unlock()
	if limiter == nil {
		return send()
	}
	if !deadly { // the CPU limit goes on while a process takes its time to end
		limiter.Hold()
	}
	reply, err := send()
	if r.Signal == "cont" && err == nil {
		limiter.Unhold()
	}
	return reply, err
}

func (l *limitTool) heal(context.Context) error {
	l.mu.Lock()
	programs := slices.Collect(maps.Values(l.programs))
	l.mu.Unlock()
	var problems []error
	for _, p := range programs {
		p.mu.Lock()
		problems = append(problems, l.end(p))
		p.mu.Unlock()
	}
	return errors.Join(problems...)
}

func (l *Limits) validate() error {
	if err := validateName("process", l.Process); err != nil {
		return err
	}
	return l.Limit.Validate()
}
