//go:build amd64 || arm64

package clock

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	pokeEvery   = 5 * time.Millisecond
	handleEvery = 20 // pokes between two looks at whether the process handles the signal
)

// poker interrupts the threads of a process, so that those that sleep in the kernel look at
// their clock again: the kernel's own clock has not the rate that theirs has.
type poker struct {
	pid     int
	tasks   *os.File // /proc/PID/task of this very process
	handled atomic.Bool
	over    chan struct{}
	work    sync.WaitGroup
}

// poke begins or ends to interrupt threads. The caller holds mu.
func (c *Clock) poke(on bool) error {
	switch {
	case !on && c.poker != nil:
		close(c.poker.over)
		c.poker.work.Wait()
		c.poker = nil
	case on && c.poker == nil:
		tasks, err := os.Open(fmt.Sprintf("/proc/%d/task", c.pid))
		if err != nil {
			return fmt.Errorf("list the threads of pid %d: %w", c.pid, refusal(err))
		}
		p := &poker{pid: c.pid, tasks: tasks, over: make(chan struct{})}
		p.handled.Store(handlesUrgent(p.pid))
		p.work.Go(p.run)
		c.poker = p
	}
	return nil
}

// Poking reports whether the process's sleeping threads are interrupted so that they follow
// a fast MONOTONIC clock; where they should be but cannot, the error says why.
func (c *Clock) Poking() (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.poker == nil {
		return false, nil
	}
	if !c.poker.handled.Load() {
		return false, fmt.Errorf("pid %d does not handle SIGURG, so its sleeps last as long as the kernel says", c.pid)
	}
	return true, nil
}

func (p *poker) run() {
	defer func() { _ = p.tasks.Close() }()
	ticker := time.NewTicker(pokeEvery)
	defer ticker.Stop()
	for round := 1; ; round++ {
		select {
		case <-p.over:
			return
		case <-ticker.C:
		}
		if round%handleEvery == 0 {
			p.handled.Store(handlesUrgent(p.pid))
		}
		if !p.handled.Load() {
			continue
		}
		if _, err := p.tasks.Seek(0, 0); err != nil {
			return
		}
		names, err := p.tasks.Readdirnames(threadsMost)
		if err != nil {
			return // the process has ended
		}
		for _, name := range names {
			if tid, err := strconv.Atoi(name); err == nil {
				_ = unix.Tgkill(p.pid, tid, unix.SIGURG) // a thread may end meanwhile
			}
		}
	}
}

// handlesUrgent reports whether a process handles SIGURG (proc_pid_status(5), SigCgt). Where
// it does not, the kernel drops the signal, which interrupts nothing.
func handlesUrgent(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	caught, err := strconv.ParseUint(statusField(status, "SigCgt"), 16, 64)
	return err == nil && caught&(1<<(unix.SIGURG-1)) != 0
}
