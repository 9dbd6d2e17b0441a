//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"capsize/nemesis/agent"
)

// promised is how long everything may take to be healed after the controller, or a part of
// the agent, is lost.
const promised = 10 * time.Second

// guarded is an agent with its guardian, as a controller sees them.
type guarded struct {
	t        *testing.T
	dir      string
	guardian *exec.Cmd
	worker   int
	in       io.WriteCloser
	replies  *bufio.Scanner
	ended    chan struct{}
	id       uint64
}

// newGuarded starts an agent and greets it. It runs in a process group of its own.
func newGuarded(t *testing.T, hello agent.Hello) *guarded {
	t.Helper()
	g := &guarded{t: t, dir: t.TempDir(), guardian: program(), ended: make(chan struct{})}
	g.guardian.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if testing.Verbose() {
		g.guardian.Stderr = os.Stderr
	}
	var err error
	if g.in, err = g.guardian.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	g.guardian.Stdout = theirs
	if err := g.guardian.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	go func() {
		defer close(g.ended)
		_ = g.guardian.Wait() // how it ended is looked at by who cares
	}()
	t.Cleanup(func() {
		_ = g.in.Close()
		_ = syscall.Kill(g.worker, syscall.SIGCONT)
		defer func() {
			_ = out.Close()
			g.killLives()
		}()
		g.awaitEnd()
	})
	g.replies = bufio.NewScanner(out)
	hello.Version, hello.Node, hello.Dir = agent.Version, "n1", g.dir
	if hello.Lease == 0 {
		hello.Lease = time.Minute
	}
	g.worker = g.must(agent.Request{Hello: &hello}).Hello.Pid
	return g
}

func (g *guarded) call(r agent.Request) agent.Reply {
	g.t.Helper()
	g.id++
	r.ID = g.id
	line, err := json.Marshal(r)
	if err != nil {
		g.t.Fatal(err)
	}
	if _, err := g.in.Write(append(line, '\n')); err != nil {
		g.t.Fatal(err)
	}
	for g.replies.Scan() {
		var reply agent.Reply
		if err := json.Unmarshal(g.replies.Bytes(), &reply); err != nil {
			g.t.Fatalf("%s: %v", g.replies.Text(), err)
		}
		if reply.ID == r.ID {
			return reply
		}
	}
	g.t.Fatalf("no reply to %s", line)
	return agent.Reply{}
}

func (g *guarded) must(r agent.Request) agent.Reply {
	g.t.Helper()
	reply := g.call(r)
	if reply.Error != "" {
		g.t.Fatal(reply.Error)
	}
	return reply
}

// start starts a shell that writes its pid, and that of a child of its, into a file at each
// start, and returns them.
func (g *guarded) start() (pid, child int) {
	g.t.Helper()
	return g.startShell("sleep 1000 & echo $$ $! >> lives; wait")
}

func (g *guarded) startShell(script string) (pid, child int) {
	g.t.Helper()
	r := agent.Request{Start: &agent.Start{}}
	r.Start.Process.Name = "db"
	r.Start.Process.Argv = []string{"/bin/sh", "-c", script}
	r.Start.Process.Dir, r.Start.Process.Log = g.dir, filepath.Join(g.dir, "log")
	before := len(g.lives())
	pid = g.must(r).Start.Pid
	g.eventually("the process has said its pid", func() bool { return len(g.lives()) > before })
	life := g.lives()[before]
	return pid, life[1]
}

// lives returns the pids of each life of the process and of its child.
func (g *guarded) lives() [][2]int {
	text, _ := os.ReadFile(filepath.Join(g.dir, "lives")) // none yet
	var lives [][2]int
	for line := range strings.Lines(string(text)) {
		var life [2]int
		if n, _ := fmt.Sscanf(line, "%d %d\n", &life[0], &life[1]); n == 2 && strings.HasSuffix(line, "\n") {
			lives = append(lives, life)
		}
	}
	return lives
}

// killLives ends what a test left running, on purpose or not.
func (g *guarded) killLives() {
	for _, life := range g.lives() {
		for _, pid := range life {
			if at, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd"); err == nil && at == g.dir { // it is ours
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
}

func (g *guarded) signal(name string) agent.Reply {
	g.t.Helper()
	return g.call(agent.Request{Signal: &agent.Signal{Process: "db", Signal: name, Limit: time.Second}})
}

func (g *guarded) mustSignal(name string) {
	g.t.Helper()
	if reply := g.signal(name); reply.Error != "" {
		g.t.Fatal(reply.Error)
	}
}

func (g *guarded) awaitEnd() {
	g.t.Helper()
	select {
	case <-g.ended:
	case <-time.After(2 * promised):
		_ = syscall.Kill(g.worker, syscall.SIGKILL)
		_ = g.guardian.Process.Kill()
		g.t.Fatal("the guardian does not end")
	}
}

func (g *guarded) eventually(what string, holds func() bool) {
	g.t.Helper()
	for end := time.Now().Add(promised); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			g.t.Fatalf("not within %s: %s", promised, what)
		}
	}
}

// runs reports whether a process is there and neither stopped nor a zombie.
func runs(pid int) bool {
	s := state(pid)
	return s == 'R' || s == 'S' || s == 'D'
}

func gone(pid int) bool { return state(pid) == '?' || state(pid) == 'Z' }

// losses are the ways in which an agent can lose its controller, or a part of itself.
var losses = map[string]func(g *guarded){
	"the controller is gone": func(g *guarded) { _ = g.in.Close() },
	"the worker is killed":   func(g *guarded) { _ = syscall.Kill(g.worker, syscall.SIGKILL) },
	"the worker's group is killed": func(g *guarded) {
		_ = syscall.Kill(-g.worker, syscall.SIGKILL)
	},
	"the guardian is killed": func(g *guarded) { _ = g.guardian.Process.Kill() },
	"the guardian's group is killed": func(g *guarded) {
		_ = syscall.Kill(-g.guardian.Process.Pid, syscall.SIGKILL)
	},
	"the guardian is told to end": func(g *guarded) { _ = g.guardian.Process.Signal(syscall.SIGTERM) },
	"the worker is stopped":       func(g *guarded) { _ = syscall.Kill(g.worker, syscall.SIGSTOP) },
	"the worker is stopped, then the controller is gone": func(g *guarded) {
		_ = syscall.Kill(g.worker, syscall.SIGSTOP)
		_ = g.in.Close()
	},
}

// Whatever becomes of the agent: what it did is healed in time, and nothing of it is left.
func TestWhateverIsLostEverythingIsHealedInTime(t *testing.T) {
	for loss, lose := range losses {
		for _, fault := range []string{"stop", "kill", "term"} {
			t.Run(fault+", "+loss, func(t *testing.T) {
				t.Parallel()
				g := newGuarded(t, agent.Hello{})
				pid, _ := g.start()
				g.mustSignal(fault)
				if runs(pid) {
					t.Fatalf("after %s the process is in state %c", fault, state(pid))
				}
				began := time.Now()
				lose(g)
				g.eventually("the process runs", func() bool {
					lives := g.lives()
					return runs(lives[len(lives)-1][0])
				})
				t.Logf("healed after %s", time.Since(began).Round(time.Millisecond))
				g.eventually("the worker is gone", func() bool { return gone(g.worker) })
				g.awaitEnd()
				if took := time.Since(began); took > promised {
					t.Errorf("it took %s", took)
				}
				want := 1
				if fault != "stop" {
					want = 2
				}
				if lives := g.lives(); len(lives) != want {
					t.Errorf("lives %v, want %d", lives, want)
				}
			})
		}
	}
}

// On a leash, processes end with the agent, and so does what they forked.
func TestWhateverIsLostProcessesOnALeashEnd(t *testing.T) {
	for loss, lose := range losses {
		for _, fault := range []string{"none", "stop", "kill"} {
			t.Run(fault+", "+loss, func(t *testing.T) {
				t.Parallel()
				g := newGuarded(t, agent.Hello{StopOnExpiry: true})
				pid, child := g.start()
				if fault != "none" {
					g.mustSignal(fault)
				}
				began := time.Now()
				lose(g)
				g.eventually("the process is gone, and its child", func() bool { return gone(pid) && gone(child) })
				g.awaitEnd()
				if took := time.Since(began); took > promised {
					t.Errorf("it took %s", took)
				}
				if lives := g.lives(); len(lives) != 1 {
					t.Errorf("lives %v: it was started again", lives)
				}
			})
		}
	}
}

// A controller that is silent, but holds the connection, is lost when the lease expires.
func TestTheLeaseExpires(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, agent.Hello{Lease: 100 * time.Millisecond})
	pid, _ := g.start()
	g.signal("stop") // an error if the lease is over already: then it runs anyway
	g.eventually("the process runs", func() bool { return runs(pid) })
	g.awaitEnd()
}

// What was asked for after a kill must not make the guardian forget it.
func TestAKillIsRememberedWhateverIsAskedAfterIt(t *testing.T) {
	for _, after := range []string{"kill", "stop", "cont", "term"} {
		t.Run(after, func(t *testing.T) {
			t.Parallel()
			g := newGuarded(t, agent.Hello{})
			g.start()
			g.mustSignal("kill")
			if reply := g.signal(after); !reply.Gone {
				t.Errorf("%s after a kill: %+v", after, reply)
			}
			_ = syscall.Kill(g.worker, syscall.SIGKILL)
			g.eventually("the process runs again", func() bool {
				lives := g.lives()
				return len(lives) == 2 && runs(lives[1][0])
			})
			g.awaitEnd()
		})
	}
}

// What ended by itself is not started again: that it ended is the finding.
func TestWhatEndedByItselfStaysDown(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, agent.Hello{})
	pid, _ := g.start()
	_ = syscall.Kill(pid, syscall.SIGKILL)
	g.eventually("it is gone", func() bool { return gone(pid) })
	for _, signal := range []string{"kill", "stop"} {
		if reply := g.signal(signal); !reply.Gone {
			t.Fatalf("%s: %+v", signal, reply)
		}
	}
	_ = syscall.Kill(g.worker, syscall.SIGKILL)
	g.awaitEnd()
	if lives := g.lives(); len(lives) != 1 {
		t.Errorf("lives %v", lives)
	}
}

// A process that could not be started is nothing to heal.
func TestWhatNeverRanIsNothingToUndo(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, agent.Hello{})
	r := agent.Request{Start: &agent.Start{}}
	r.Start.Process.Name, r.Start.Process.Argv = "db", []string{filepath.Join(g.dir, "no such program")}
	r.Start.Process.Dir, r.Start.Process.Log = g.dir, filepath.Join(g.dir, "log")
	if reply := g.call(r); reply.Error == "" {
		t.Fatal("it was started")
	}
	if reply := g.signal("kill"); !strings.Contains(reply.Error, "never started") {
		t.Fatalf("kill: %+v", reply)
	}
	_ = g.in.Close()
	g.awaitEnd()
	if !g.guardian.ProcessState.Success() {
		t.Errorf("the guardian ended with %s", g.guardian.ProcessState)
	}
}

// A process that does not end when it is asked to is not left to end at any later moment.
func TestADeafProcessIsStartedAgain(t *testing.T) {
	for name, lose := range map[string]func(*guarded){
		"the controller is gone": losses["the controller is gone"], "the worker is killed": losses["the worker is killed"],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGuarded(t, agent.Hello{})
			first, _ := g.startShell("trap '' TERM; sleep 1000 & echo $$ $! >> lives; while :; do wait; done")
			if reply := g.signal("term"); !strings.Contains(reply.Error, "still runs") {
				t.Fatalf("term: %+v", reply)
			}
			lose(g)
			g.eventually("it runs again", func() bool {
				lives := g.lives()
				return len(lives) == 2 && runs(lives[1][0]) && gone(first)
			})
			g.awaitEnd()
		})
	}
}

// A request that hangs, here in opening a log that nobody reads, does not keep the agent from
// healing.
func TestARequestThatHangsDoesNotDelayHealing(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, agent.Hello{})
	pid, _ := g.start()
	g.mustSignal("stop")
	fifo := filepath.Join(g.dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	hanging := fmt.Sprintf(`{"id":99,"start":{"process":{"name":"other","argv":["/bin/true"],"dir":%q,"log":%q}}}`, g.dir, fifo)
	if _, err := io.WriteString(g.in, hanging+"\n"); err != nil {
		t.Fatal(err)
	}
	g.must(agent.Request{Ping: &struct{}{}}) // so the other has begun
	began := time.Now()
	_ = g.in.Close()
	g.eventually("the process runs", func() bool { return runs(pid) })
	g.awaitEnd()
	if took := time.Since(began); took > promised {
		t.Errorf("it took %s", took)
	}
}

// An agent that has nothing to do is not taken for silent.
func TestAnIdleAgentLives(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, agent.Hello{})
	const longer = 4 * time.Second // than the guardian's patience, 3 s
	select {
	case <-g.ended:
		t.Fatalf("the agent has ended: %s", g.guardian.ProcessState)
	case <-time.After(longer):
	}
	g.must(agent.Request{Ping: &struct{}{}})
}

// The guardian leaves no zombie: who looks for the agent afterwards finds nothing.
func TestNoZombieIsLeft(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, agent.Hello{StopOnExpiry: true})
	g.start()
	_ = syscall.Kill(g.worker, syscall.SIGKILL)
	g.awaitEnd()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		stat, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if parent, _ := strconv.Atoi(fields[1]); fields[0] == "Z" && (parent == g.worker || parent == g.guardian.Process.Pid) {
			t.Errorf("%s is left", stat)
		}
	}
	if state(g.worker) != '?' {
		t.Errorf("the worker is left in state %c", state(g.worker))
	}
}
