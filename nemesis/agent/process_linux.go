package agent

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"capsize/nemesis/agent/clock"
)

// forker starts processes in sessions of their own: no hang-up of the agent's session and
// no signal to its group reaches them.
//
// Where they shall die with the agent, even when it is killed, the kernel sees to it
// (PR_SET_PDEATHSIG). It acts when the thread that forked ends (prctl(2)), so that has to
// be one thread that lives as long as the agent.
type forker struct {
	jobs chan func() // nil where processes may outlive the agent
	work sync.WaitGroup
	once sync.Once
}

func newForker(dieWithAgent bool) *forker {
	f := &forker{}
	if !dieWithAgent {
		return f
	}
	f.jobs = make(chan func())
	f.work.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		for job := range f.jobs {
			job()
		}
	})
	return f
}

// start starts a command. With hook, its clocks can be changed without a step back at the first
// change: they are hooked before its first instruction. One that cannot be hooked runs untouched;
// whoever wants to change its clocks is told why then.
func (f *forker) start(command *exec.Cmd, hook bool) (err error) {
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	begin := command.Start
	if hook {
		begin = func() error { return startHooked(command) }
	}
	if f.jobs == nil {
		return begin()
	}
	command.SysProcAttr.Pdeathsig = syscall.SIGKILL
	done := make(chan struct{})
	f.jobs <- func() {
		defer close(done)
		err = begin()
	}
	<-done
	return err
}

func startHooked(command *exec.Cmd) error {
	c, err := clock.Start(command)
	if c != nil {
		return c.Close() // the hook stays, and is found again
	}
	if command.Process == nil {
		return err
	}
	log.Print(err)
	return nil
}

// close ends the forking thread, and with it what was started to die with the agent.
func (f *forker) close() {
	if f.jobs != nil {
		f.once.Do(func() { close(f.jobs) })
		f.work.Wait()
	}
}

// awaitEnd waits until a child has ended, and leaves it to be reaped. While this process traces
// the child, which changes of its clock do, the kernel reports its stops too, asked for or not:
// those are waited out.
func awaitEnd(pid int) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err == nil && info.Code != cldExited && info.Code != cldKilled && info.Code != cldDumped:
			time.Sleep(stopPause)
		default:
			return
		}
	}
}

// Why a child is reported, of siginfo_t (sigaction(2)).
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3

	stopPause = 200 * time.Microsecond // between two looks at a child that is stopped by its tracer
)

func signalGroup(pid int, signal syscall.Signal) error {
	if err := unix.Kill(-pid, signal); err != nil {
		return fmt.Errorf("send %s to the process group of pid %d: %w", signalName(signal), pid, err)
	}
	return nil
}

func stopGroup(pid int) error   { return signalGroup(pid, unix.SIGSTOP) }
func resumeGroup(pid int) error { return signalGroup(pid, unix.SIGCONT) }

// killGroup kills what is left of a group whose leader has ended; most often nothing is.
func killGroup(pid int) { _ = unix.Kill(-pid, unix.SIGKILL) }

func signalName(signal syscall.Signal) string {
	if name := unix.SignalName(signal); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(signal))
}

// threads counts the threads of a process, and those of them that are stopped, by
// /proc/PID/task/TID/stat (proc_pid_stat(5)). Threads that have ended do not count.
func threads(pid int) (stopped, all int, err error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, 0, err
	}
	for _, entry := range entries {
		stat, err := os.ReadFile(dir + "/" + entry.Name() + "/stat")
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it ended between the two looks
		}
		if err != nil {
			return 0, 0, err
		}
		// The command, in parentheses, may itself contain any byte.
		end := bytes.LastIndexByte(stat, ')')
		if end < 0 || end+2 >= len(stat) {
			return 0, 0, fmt.Errorf("%s/%s/stat: no state in %q", dir, entry.Name(), stat)
		}
		switch stat[end+2] {
		case 'Z', 'X', 'x':
		case 'T', 't':
			stopped++
			all++
		default:
			all++
		}
	}
	return stopped, all, nil
}

// status is what /proc/PID/stat says of a process (proc_pid_stat(5)).
type status struct {
	state          byte
	group, session int
	start          uint64 // in clock ticks since boot
}

func (s status) ended() bool { return s.state == 'Z' || s.state == 'X' || s.state == 'x' }

func readStat(pid int) (status, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return status{}, err
	}
	s, err := parseStat(stat)
	if err != nil {
		return status{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	return s, nil
}

func parseStat(stat []byte) (s status, err error) {
	end := bytes.LastIndexByte(stat, ')') // the command, in parentheses, may itself contain any byte
	fields := bytes.Fields(stat[end+1:])
	const state, group, session, start = 0, 2, 3, 19 // fields 3, 5, 6 and 22 of the manual: pid and command precede
	if end < 0 || len(fields) <= start {
		return s, fmt.Errorf("no start time in %q", stat)
	}
	s.state = fields[state][0]
	var problems [3]error
	s.group, problems[0] = strconv.Atoi(string(fields[group]))
	s.session, problems[1] = strconv.Atoi(string(fields[session]))
	s.start, problems[2] = strconv.ParseUint(string(fields[start]), 10, 64)
	return s, errors.Join(problems[:]...)
}
