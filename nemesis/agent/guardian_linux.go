package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"capsize/clusters"
	"capsize/nemesis/agent/clock"
	"capsize/nemesis/agent/disk"
	"capsize/nemesis/agent/limits"
)

const (
	workerLeaves = leaveLimit + time.Second // after it was told to end
	revertLimit  = 2 * time.Second          // for a process to run that is resumed, or to end that is killed
	silentTicks  = int(3 * time.Second / beatPeriod)
)

// Guard runs an agent as a child process and undoes what it leaves behind if it is killed.
// The child finds its journal, which [Serve] takes, as file descriptor 3; standard input,
// output and error are its own. Guard returns the child's exit status. When ctx ends it
// tells the child to end, which heals.
//
// Neither can outlive the other with something left to heal: the kernel tells the child
// when its guardian dies (PR_SET_PDEATHSIG), and the child heals and leaves. A child that is
// stopped, or cannot end, falls silent: the guardian kills it, and undoes what it did. The child
// is in a process group of its own, so that no signal to a group ends both at once. What nobody
// heals is a guardian and a child that are both killed, or stopped, within that time.
func Guard(ctx context.Context, child *exec.Cmd) (status int, err error) {
	runtime.LockOSThread() // the kernel's word is about the thread that forked
	defer runtime.UnlockOSThread()
	notes, theirs, err := os.Pipe()
	if err != nil {
		return 1, fmt.Errorf("guard the agent: %w", err)
	}
	defer func() { _ = notes.Close() }() // only read
	child.ExtraFiles = []*os.File{theirs}
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	err = child.Start()
	_ = theirs.Close() // the child has its own
	if err != nil {
		return 1, fmt.Errorf("guard the agent: %w", err)
	}
	leaving := context.AfterFunc(ctx, func() {
		_ = child.Process.Signal(syscall.SIGTERM) // it may have ended
		time.AfterFunc(workerLeaves, func() { _ = child.Process.Kill() })
	})
	defer leaving()
	undos, problem := listen(notes, func() {
		log.Print("the agent has fallen silent: it is killed")
		_ = child.Process.Kill() // it may have ended
	})
	_ = child.Wait() // its status says it
	if problem != nil {
		log.Printf("the agent's journal: %v", problem)
	}
	if len(undos) > 0 {
		log.Printf("the agent ended (%s) and left %d things to undo", child.ProcessState, len(undos))
	}
	problems := make([]error, 0, len(undos))
	for _, undo := range undos {
		problems = append(problems, undo.revert())
	}
	status = child.ProcessState.ExitCode()
	if status < 0 {
		status = 1 // by a signal
	}
	return status, errors.Join(problems...)
}

// Notes returns the journal of an agent that runs under [Guard]. Programs that the agent
// starts do not inherit it.
func Notes() *os.File {
	unix.CloseOnExec(3)
	_ = unix.SetNonblock(3, true) // so that writes have deadlines; an error of them says if it is no file
	return os.NewFile(3, "journal")
}

// listen reads a journal to its end, which comes with that of the child, and calls silent once
// where nothing was heard for too long. It counts ticks, not time: where the whole machine
// stood still, so did the guardian.
func listen(notes io.Reader, silent func()) ([]Undo, error) {
	heard := &pulse{in: notes}
	ended := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		ticker := time.NewTicker(beatPeriod)
		defer ticker.Stop()
		var before int64
		for quiet := 0; quiet < silentTicks; quiet++ {
			select {
			case <-ticker.C:
			case <-ended:
				return
			}
			if now := heard.reads.Load(); now != before {
				before, quiet = now, -1
			}
		}
		silent()
	})
	undos, err := readJournal(heard)
	close(ended)
	work.Wait()
	return undos, err
}

// pulse counts the reads from in.
type pulse struct {
	in    io.Reader
	reads atomic.Int64
}

func (p *pulse) Read(b []byte) (int, error) {
	n, err := p.in.Read(b)
	p.reads.Add(1)
	return n, err
}

// revert undoes one thing. What is gone, or undone already, is no error.
func (u Undo) revert() error {
	switch {
	case u.Resume != nil:
		return u.Resume.resume()
	case u.End != nil:
		return u.End.kill()
	case u.Restart != nil:
		return u.Restart.revert()
	case u.Clock != nil:
		return resetClock(*u.Clock)
	case u.Limits != nil:
		return limits.Revert(*u.Limits)
	case u.HostClock != nil:
		return u.HostClock.restore(kernelClock{})
	case u.Disk != nil:
		return recoverDisk(*u.Disk)
	}
	return nil
}

// lifeOf returns the identity of a process that was not reaped yet.
func lifeOf(pid int) (Life, error) {
	stat, err := readStat(pid)
	return Life{Pid: pid, Start: stat.start}, err
}

// runs reports whether it is still that process that has the pid, and has not ended.
func (l Life) runs() bool {
	stat, err := readStat(l.Pid)
	return err == nil && stat.start == l.Start && !stat.ended()
}

// groupRuns reports whether there is anything of the life's process group. Its leader may
// have ended: until the last of the group has, the pid is given to nobody else (the kernel
// keeps a number that names a group), so a process with that pid is the leader or a sign that the
// group is gone.
func (l Life) groupRuns() (bool, error) {
	if stat, err := readStat(l.Pid); err == nil {
		return stat.start == l.Start, nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return false, err
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue // not a process
		}
		stat, err := readStat(pid)
		if err == nil && stat.group == l.Pid && stat.session == l.Pid && stat.start >= l.Start && !stat.ended() {
			return true, nil
		}
	}
	return false, nil
}

func (l Life) kill() error {
	there, err := l.groupRuns()
	if err != nil || !there {
		return err
	}
	if err := signalGroup(l.Pid, unix.SIGKILL); !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

func (l Life) resume() error {
	if !l.runs() {
		return nil
	}
	if err := resumeGroup(l.Pid); err != nil {
		return err
	}
	var stopped int
	if within(revertLimit, func() bool {
		var err error
		stopped, _, err = threads(l.Pid)
		return err != nil || stopped == 0 || !l.runs() // what cannot be read has ended
	}) {
		return nil
	}
	return fmt.Errorf("resume pid %d: %d of its threads are still stopped", l.Pid, stopped)
}

// revert makes sure that the life is over, and starts the next one. An agent that is killed in
// the very moment after it did the same leaves two: of a process that is started twice the
// second fails at what the first holds, its ports and its data.
func (e Ending) revert() error {
	if err := e.Life.kill(); err != nil {
		return fmt.Errorf("start %s again: %w", e.Process.Name, err)
	}
	if !within(revertLimit, func() bool { return !e.Life.runs() }) {
		return fmt.Errorf("start %s again: pid %d still runs %s after SIGKILL", e.Process.Name, e.Life.Pid, revertLimit)
	}
	return restart(e.Process)
}

// within polls until a condition holds, and reports whether it did in time.
func within(limit time.Duration, holds func() bool) bool {
	for end := time.Now().Add(limit); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// restart runs a process that a killed agent had ended. Nobody waits for it: it is init's
// when the guardian has ended.
func restart(spec clusters.Process) error {
	command, out, err := prepare(spec)
	if err != nil {
		return fmt.Errorf("start %s again: %w", spec.Name, err)
	}
	defer func() { _ = out.Close() }() // the process has its own copy
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start %s again: %w", spec.Name, err)
	}
	return command.Process.Release()
}

// prepare makes a process's command, with its log open for it.
func prepare(spec clusters.Process) (*exec.Cmd, *os.File, error) {
	if err := os.MkdirAll(spec.Dir, 0o755); err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(filepath.Dir(spec.Log), 0o755); err != nil {
		return nil, nil, err
	}
	out, err := os.OpenFile(spec.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, nil, err
	}
	command := exec.Command(spec.Argv[0], spec.Argv[1:]...)
	command.Dir, command.Env = spec.Dir, append(os.Environ(), spec.Env...)
	command.Stdout, command.Stderr = out, out
	return command, out, nil
}

// recoverDisk detaches a layer that was killed. One that lives heals itself once its agent is
// gone, and goes when nothing uses it any more. To ask may hang, where it was stopped.
func recoverDisk(dir string) error {
	done := make(chan error, 1)
	go func() { done <- disk.Recover(dir) }() // ends with the guardian
	select {
	case err := <-done:
		return err
	case <-time.After(revertLimit):
		return fmt.Errorf("the disk layer over %s does not answer: end it, and unmount %s", dir, dir)
	}
}

// resetClock is the guardian's way to heal the clock of a process.
func resetClock(life Life) error {
	if !life.runs() {
		return nil
	}
	c, err := clock.Attach(life.Pid)
	if err == nil {
		err = errors.Join(c.Reset(), c.Close())
	}
	if errors.Is(err, clock.ErrGone) {
		return nil
	}
	return err
}
