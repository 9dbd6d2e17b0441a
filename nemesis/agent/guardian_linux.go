package agent

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"capsize/clusters"
	"capsize/nemesis/agent/limits"
)

const (
	workerLeaves = healLimit + 5*time.Second // after it was told to end
	resumeLimit  = 2 * time.Second           // for a process that is resumed to run
)

// Guard runs an agent as a child process and undoes what it leaves behind if it is killed.
// The child finds its journal, which [Serve] takes, as file descriptor 3; standard input,
// output and error are its own. Guard returns the child's exit status. When ctx ends it
// tells the child to end, which heals.
//
// Neither can outlive the other with something left to heal: the kernel tells the child
// when its guardian dies (PR_SET_PDEATHSIG), and the child heals and leaves. Both are in
// process groups of their own, so that no signal ends both at once.
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
	undos, problem := readJournal(notes) // until the child has ended
	_ = child.Wait()                     // its status says it
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
	return os.NewFile(3, "journal")
}

// revert undoes one thing. What is gone, or undone already, is no error.
func (u Undo) revert() error {
	switch {
	case u.Resume != nil:
		return u.Resume.resume()
	case u.End != nil:
		return u.End.kill()
	case u.Restart != nil:
		return restart(*u.Restart)
	case u.Clock != nil:
		return resetClock(*u.Clock)
	case u.Limits != nil:
		return limits.Revert(*u.Limits)
	}
	return nil
}

// lifeOf returns the identity of a process that runs.
func lifeOf(pid int) (Life, error) {
	start, err := startTime(pid)
	return Life{Pid: pid, Start: start}, err
}

// runs reports whether it is still that process that has the pid.
func (l Life) runs() bool {
	start, err := startTime(l.Pid)
	return err == nil && start == l.Start
}

func (l Life) kill() error {
	if !l.runs() {
		return nil
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
	for end := time.Now().Add(resumeLimit); ; time.Sleep(time.Millisecond) {
		stopped, _, err := threads(l.Pid)
		if err != nil || stopped == 0 || !l.runs() {
			return nil // what cannot be read has ended
		}
		if time.Now().After(end) {
			return fmt.Errorf("resume pid %d: %d of its threads are still stopped", l.Pid, stopped)
		}
	}
}

// restart runs a process that a killed agent had killed. Nobody waits for it: it is init's
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
