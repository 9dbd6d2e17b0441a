package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"capsize/clusters"
)

const (
	processesMost = 64
	effectLimit   = 2 * time.Second // for a kill, a stop or a continue to take effect
	stopAttempt   = 50 * time.Millisecond
	termLimit     = 30 * time.Second // for a process to end after SIGTERM; the request's own deadline is the controller's
	tailLines     = 15
	tailBytes     = 8 << 10
	tailLineMost  = 500 // bytes
)

// errGone: the process that a signal was meant for has ended.
var errGone = errors.New("it has ended")

// supervisor starts processes and is their parent: it knows for certain when one ended.
// A process is its whole process group. When its leader ends, what is left of the group
// is killed, so a program that forks into the background and leaves is not supported.
type supervisor struct {
	forker  *forker
	journal *journal
	leash   bool         // processes must not outlive the agent
	exited  func(Exited) // called when a process ended and no Signal explains it; must not block

	mu        sync.Mutex
	processes map[string]*process
	closed    bool
}

// process is one process by name, through all its lives.
type process struct {
	turn chan struct{} // capacity 1: holds a token while an operation is under way

	mu      sync.Mutex // guards the rest; held while a signal is sent, so that the pid is still ours
	spec    clusters.Process
	life    *life // nil before the first start
	stopped bool  // a Signal stopped it
	ended   bool  // a Signal was to end it, and no Start followed
}

// life is one life of a process, from start to end.
type life struct {
	command  *exec.Cmd
	pid      int
	identity Life
	logFrom  int64              // where its log begins in the file, which earlier lives wrote too
	termed   bool               // SIGTERM was sent; guarded by process.mu
	slain    bool               // SIGKILL was sent; guarded by process.mu
	ended    chan struct{}      // closed after it was reaped
	status   syscall.WaitStatus // valid once ended is closed
}

func newSupervisor(dieWithAgent bool, exited func(Exited), journal *journal) *supervisor {
	return &supervisor{
		forker: newForker(dieWithAgent), journal: journal, leash: dieWithAgent, exited: exited,
		processes: make(map[string]*process),
	}
}

// start runs a process, or runs again one that has ended, and returns its pid.
func (s *supervisor) start(ctx context.Context, spec clusters.Process) (int, error) {
	p, err := s.find(spec.Name, true)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	if err := p.acquire(ctx); err != nil {
		return 0, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	defer p.release()
	if l := p.current(); l != nil && !l.over() {
		return 0, fmt.Errorf("start %s: it runs already, as pid %d", spec.Name, l.pid)
	}
	l, err := s.launch(spec)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	p.mu.Lock()
	p.spec, p.life, p.stopped, p.ended = spec, l, false, false
	p.mu.Unlock()
	go s.reap(p, l) // ends when the process does, which may be after the agent on purpose
	if !s.leash {
		s.journal.end(processKey(spec.Name)) // it was down, and is not any more
	}
	return l.pid, nil
}

func (s *supervisor) find(name string, create bool) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, known := s.processes[name]
	switch {
	case known:
		return p, nil
	case s.closed:
		return nil, errors.New("the agent is leaving")
	case !create:
		return nil, fmt.Errorf("there is no process %q here: it was never started", name)
	case len(s.processes) >= processesMost:
		return nil, fmt.Errorf("%d processes run here already", processesMost)
	}
	p = &process{turn: make(chan struct{}, 1)}
	s.processes[name] = p
	return p, nil
}

func (s *supervisor) launch(spec clusters.Process) (*life, error) {
	command, out, err := prepare(spec)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the process has its own copy
	end, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if err := s.forker.start(command, spec.Clock); err != nil {
		return nil, err
	}
	l := &life{command: command, pid: command.Process.Pid, logFrom: end, ended: make(chan struct{})}
	l.identity, _ = lifeOf(l.pid) // nobody reaps it before reap does, so it is there
	if s.leash {
		if err := s.journal.begin(processKey(spec.Name), Undo{End: &l.identity}); err != nil {
			killGroup(l.pid)
			return nil, errors.Join(err, command.Wait())
		}
	}
	return l, nil
}

// reap waits for the end of a life and reports it where nobody asked for it.
func (s *supervisor) reap(p *process, l *life) {
	awaitEnd(l.pid)
	p.mu.Lock()
	// It is a zombie now: the pid, and with it the group's id, cannot be another's yet.
	killGroup(l.pid)
	_ = l.command.Wait() // the status says more than the error
	if state, ok := l.command.ProcessState.Sys().(syscall.WaitStatus); ok {
		l.status = state
	}
	explained := l.explained()
	spec := p.spec
	close(l.ended)
	p.mu.Unlock()
	if !explained {
		s.exited(Exited{Process: spec.Name, Pid: l.pid, Status: describe(l.status), Tail: tail(spec.Log, l.logFrom)})
	}
}

// explained reports whether the signal that was asked for accounts for the end. A process
// may have ended by itself just before a SIGKILL was sent; its status tells.
func (l *life) explained() bool {
	return l.termed || l.slain && l.status.Signaled() && l.status.Signal() == syscall.SIGKILL
}

func (l *life) over() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

// pid returns the process that runs under a name, 0 for none.
func (s *supervisor) pid(name string) int {
	p, err := s.find(name, false)
	if err != nil {
		return 0
	}
	if l := p.current(); l != nil && !l.over() {
		return l.pid
	}
	return 0
}

// whileDown does something while a process does not run and cannot be started.
func (s *supervisor) whileDown(ctx context.Context, name string, do func() error) error {
	p, err := s.find(name, false)
	if err != nil {
		return err
	}
	if err := p.acquire(ctx); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer p.release()
	if l := p.current(); l != nil && !l.over() {
		return fmt.Errorf("%s runs, as pid %d: it must be down for that", name, l.pid)
	}
	return do()
}

// signal sends a signal and waits for its effect.
func (s *supervisor) signal(ctx context.Context, r Signal) (SignalReply, error) {
	reply, err := s.deliver(ctx, r)
	if err != nil {
		return reply, fmt.Errorf("%s %s: %w", r.Signal, r.Process, err)
	}
	return reply, nil
}

func (s *supervisor) deliver(ctx context.Context, r Signal) (SignalReply, error) {
	p, err := s.find(r.Process, false)
	if err != nil {
		return SignalReply{}, err
	}
	if err := p.acquire(ctx); err != nil {
		return SignalReply{}, err
	}
	defer p.release()
	switch r.Signal {
	case "kill":
		return s.end(ctx, p, syscall.SIGKILL, effectLimit)
	case "term":
		limit := termLimit
		if r.Limit > 0 {
			limit = min(limit, r.Limit)
		}
		return s.end(ctx, p, syscall.SIGTERM, limit)
	case "stop":
		if err := s.noteStop(p); err != nil {
			return SignalReply{}, err
		}
		return p.pause(ctx, true)
	case "cont":
		reply, err := p.pause(ctx, false)
		if err == nil && !s.leash {
			s.journal.end(processKey(r.Process))
		}
		return reply, err
	}
	return SignalReply{}, fmt.Errorf("signal %q is not possible: one of kill, term, stop, cont", r.Signal)
}

// end ends a process, and notes before that it has to be started again.
func (s *supervisor) end(ctx context.Context, p *process, deadly syscall.Signal, limit time.Duration) (SignalReply, error) {
	if err := s.noteEnd(p); err != nil {
		return SignalReply{}, err
	}
	reply, err := p.end(ctx, deadly, limit)
	if errors.Is(err, errGone) && !s.leash {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.ended {
			s.journal.end(processKey(p.spec.Name)) // it ended by itself: it is not ours to start again
		}
	}
	return reply, err
}

// noteEnd and noteStop tell the guardian what to undo. A process on a leash ends with the
// agent: there is nothing to undo then. Nor is there for one that does not run: the signal
// itself fails, with the reason, and what was noted before stands.
func (s *supervisor) noteEnd(p *process) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.leash || p.life == nil || p.life.over() {
		return nil
	}
	return s.journal.begin(processKey(p.spec.Name), Undo{Restart: &Ending{Process: p.spec, Life: p.life.identity}})
}

func (s *supervisor) noteStop(p *process) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.leash || p.life == nil || p.life.over() || p.ended { // one that is to end is started again: that resumes it
		return nil
	}
	return s.journal.begin(processKey(p.spec.Name), Undo{Resume: &p.life.identity})
}

// acquire takes the turn to operate on the process.
func (p *process) acquire(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("another request for it is under way: %w", context.Cause(ctx))
	}
}

func (p *process) release() { <-p.turn }

func (p *process) current() *life {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.life
}

// alive returns the present life, or why there is none. The caller holds p.mu.
func (p *process) alive() (*life, error) {
	if p.life == nil {
		return nil, errors.New("it was never started")
	}
	if p.life.over() {
		return nil, fmt.Errorf("%w before: %s", errGone, describe(p.life.status))
	}
	return p.life, nil
}

// end sends a deadly signal and waits until the process was reaped.
func (p *process) end(ctx context.Context, deadly syscall.Signal, limit time.Duration) (SignalReply, error) {
	p.mu.Lock()
	l, err := p.alive()
	if err == nil {
		kill := deadly == syscall.SIGKILL
		l.termed, l.slain, p.ended = l.termed || !kill, l.slain || kill, true
		err = signalGroup(l.pid, deadly)
		if deadly == syscall.SIGTERM && p.stopped {
			err = errors.Join(err, resumeGroup(l.pid)) // a stopped process does not see SIGTERM
		}
	}
	p.mu.Unlock()
	if err != nil {
		return SignalReply{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("pid %d still runs %s after %s", l.pid, limit, signalName(deadly)))
	defer cancel()
	select {
	case <-l.ended:
	case <-ctx.Done():
		return SignalReply{Pid: l.pid}, context.Cause(ctx)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = false
	if !l.explained() {
		p.ended = false
		return SignalReply{Pid: l.pid}, fmt.Errorf("%w by itself (%s) before %s reached it", errGone, describe(l.status), signalName(deadly))
	}
	return SignalReply{Pid: l.pid, State: describe(l.status)}, nil
}

// pause stops or continues the process and waits until the threads show it.
func (p *process) pause(ctx context.Context, stop bool) (SignalReply, error) {
	p.mu.Lock()
	l, err := p.alive()
	if err == nil && stop {
		p.stopped = true // before the proof: what may be stopped must be continued in the end
		err = stopGroup(l.pid)
	} else if err == nil {
		err = resumeGroup(l.pid)
	}
	p.mu.Unlock()
	if err != nil {
		return SignalReply{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, effectLimit)
	defer cancel()
	reply, err := p.awaitPause(ctx, l, stop)
	if err == nil && !stop {
		p.mu.Lock()
		p.stopped = false
		p.mu.Unlock()
	}
	return reply, err
}

// awaitPause waits until a stop or a continue has taken effect. A stop may catch a process in
// vfork(2), which every program that starts another passes through: it waits, and cannot be
// stopped, for a child that was stopped before it could exec. So the group is let go on for
// a moment, a longer one each time, and stopped anew.
func (p *process) awaitPause(ctx context.Context, l *life, stop bool) (SignalReply, error) {
	for moment := time.Millisecond; stop; moment += time.Millisecond {
		attempt, cancel := context.WithTimeout(ctx, stopAttempt)
		reply, err := l.awaitThreads(attempt, stop)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return reply, err
		}
		if err := p.signalGroup(l, resumeGroup); err != nil {
			return reply, err
		}
		select {
		case <-l.ended:
		case <-time.After(moment):
		}
		if err := p.signalGroup(l, stopGroup); err != nil {
			return reply, err
		}
	}
	return l.awaitThreads(ctx, stop)
}

// signalGroup sends a signal to a life's group unless it is over.
func (p *process) signalGroup(l *life, send func(pid int) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.over() {
		return nil // who waits for the effect says so
	}
	return send(l.pid)
}

// awaitThreads polls until all threads are stopped, or none is. The first looks come
// quickly: a stop takes effect within microseconds on an idle machine.
func (l *life) awaitThreads(ctx context.Context, stop bool) (SignalReply, error) {
	for wait := 50 * time.Microsecond; ; wait = min(2*wait, 5*time.Millisecond) {
		stopped, all, err := threads(l.pid)
		if l.over() {
			return SignalReply{Pid: l.pid}, fmt.Errorf("%w meanwhile: %s", errGone, describe(l.status))
		}
		switch {
		case err != nil && !errors.Is(err, os.ErrNotExist):
			return SignalReply{Pid: l.pid}, err
		case err == nil && all > 0 && stop && stopped == all:
			return SignalReply{Pid: l.pid, State: fmt.Sprintf("stopped, %d threads in state T", all)}, nil
		case err == nil && all > 0 && !stop && stopped == 0:
			return SignalReply{Pid: l.pid, State: fmt.Sprintf("running, none of %d threads in state T", all)}, nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return SignalReply{Pid: l.pid}, fmt.Errorf("%d of %d threads of pid %d are stopped: %w", stopped, all, l.pid, context.Cause(ctx))
		}
	}
}

// heal undoes what Signals did: what was stopped goes on, what was ended runs again. With
// end it kills everything instead. Nothing is started afterwards.
func (s *supervisor) heal(ctx context.Context, end bool) error {
	s.mu.Lock()
	s.closed = true
	names := slices.Sorted(maps.Keys(s.processes))
	s.mu.Unlock()
	problems := make([]error, len(names))
	var work sync.WaitGroup
	for i, name := range names {
		work.Go(func() { problems[i] = s.healOne(ctx, name, end) })
	}
	work.Wait()
	s.forker.close()
	return errors.Join(problems...)
}

func (s *supervisor) healOne(ctx context.Context, name string, end bool) error {
	p, err := s.find(name, false)
	if err != nil {
		return err
	}
	p.mu.Lock()
	spec, stopped, ended := p.spec, p.stopped, p.ended
	running := p.life != nil && !p.life.over()
	p.mu.Unlock()
	// A process that was to end and has not, since it hangs or takes its time, is killed: it may
	// end at any moment.
	if running && (end || ended) {
		if err = s.finish(ctx, p); err != nil {
			return fmt.Errorf("kill %s: %w", name, err)
		}
	}
	switch {
	case end:
		s.journal.end(processKey(name))
	case ended:
		log.Printf("healing: %s was ended: start it again", name)
		_, err = s.start(ctx, spec)
	case stopped && running:
		log.Printf("healing: %s is stopped: let it go on", name)
		_, err = s.signal(ctx, Signal{Process: name, Signal: "cont"})
	}
	return err
}

// finish kills a process for the last time: there is nothing to note.
func (s *supervisor) finish(ctx context.Context, p *process) error {
	if err := p.acquire(ctx); err != nil {
		return err
	}
	defer p.release()
	if _, err := p.end(ctx, syscall.SIGKILL, effectLimit); err != nil && !errors.Is(err, errGone) {
		return err
	}
	return nil
}

// describe tells how a process ended.
func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		text := "killed by " + signalName(status.Signal())
		if status.CoreDump() {
			text += " (core dumped)"
		}
		return text
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}

// tail returns the last lines of a log, not further back than from.
func tail(path string, from int64) []string {
	file, err := os.Open(path)
	if err != nil {
		return []string{"(its log cannot be read: " + err.Error() + ")"}
	}
	defer func() { _ = file.Close() }() // read only
	info, err := file.Stat()
	if err != nil {
		return []string{"(its log cannot be read: " + err.Error() + ")"}
	}
	start := max(from, info.Size()-tailBytes)
	data, err := io.ReadAll(io.NewSectionReader(file, start, max(0, info.Size()-start)))
	if err != nil {
		return []string{"(its log cannot be read: " + err.Error() + ")"}
	}
	text := strings.TrimRight(strings.ToValidUTF8(string(data), "\uFFFD"), "\n")
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	lines = lines[max(0, len(lines)-tailLines):]
	for i, line := range lines {
		if len(line) > tailLineMost {
			cut := tailLineMost
			for !utf8.RuneStart(line[cut]) {
				cut--
			}
			lines[i] = line[:cut] + "…"
		}
	}
	return lines
}
