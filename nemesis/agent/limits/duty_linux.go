package limits

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dutyTick = 2 * time.Millisecond
	// dutyBurst is how much of its share a program that was idle can use at once, and how much a
	// stopped one gets together before it goes on.
	dutyBurst = 50 * time.Millisecond
)

// duty limits the CPU time of a process group without any privilege: what has used up its share
// is stopped until it has a share again. One that is idle is never stopped.
type duty struct {
	leader Life
	cores  float64
	end    chan struct{}
	work   sync.WaitGroup

	mu      sync.Mutex // guards what is below; held while a signal is sent
	held    bool       // someone else decides whether the process runs
	stopped bool
	stops   uint64
}

func newDuty(leader Life, cores float64, held bool) *duty {
	d := &duty{leader: leader, cores: cores, held: held, end: make(chan struct{})}
	d.work.Go(d.run)
	return d
}

// run goes on until close, or until the process has ended.
func (d *duty) run() {
	ticker := time.NewTicker(dutyTick)
	defer ticker.Stop()
	burst := time.Duration(d.cores * float64(dutyBurst))
	credit := burst
	used, err := cpuTime(d.leader.Pid)
	for at := time.Now(); err == nil && d.leader.runs(); {
		select {
		case <-d.end:
			return
		case <-ticker.C:
		}
		now, usedBefore := time.Now(), used
		if used, err = cpuTime(d.leader.Pid); err != nil {
			return
		}
		credit = min(burst, credit+time.Duration(d.cores*float64(now.Sub(at)))-(used-usedBefore))
		at = now
		d.steer(credit, burst)
	}
}

// steer stops what has no share left, and continues what has a good one.
func (d *duty) steer(credit, burst time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.held || !d.leader.runs():
	case !d.stopped && credit <= 0:
		d.stopped = unix.Kill(-d.leader.Pid, unix.SIGSTOP) == nil
		d.stops++
	case d.stopped && credit >= burst/2:
		d.stopped = unix.Kill(-d.leader.Pid, unix.SIGCONT) != nil
	}
}

// hold leaves the process as it is: whoever holds it stops and continues it now.
func (d *duty) hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = true
}

// unhold takes the process for running.
func (d *duty) unhold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held, d.stopped = false, false
}

// close ends the stopping, and lets the process go on unless it is held.
func (d *duty) close() error {
	close(d.end)
	d.work.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.stopped || d.held {
		return nil
	}
	return resume(d.leader)
}

// resume lets a process group go on.
func resume(leader Life) error {
	if !leader.runs() {
		return nil
	}
	if err := unix.Kill(-leader.Pid, unix.SIGCONT); err != nil && err != unix.ESRCH {
		return err
	}
	return nil
}
