//go:build amd64 || arm64

package clock

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	stopLimit   = 2 * time.Second // for all threads to stop, and again for a safe moment
	stopPause   = 20 * time.Microsecond
	unsafePause = time.Millisecond // to let a thread leave code that must not be touched
	threadsMost = 32768
)

// span is a range of addresses, its end not included.
type span struct{ from, to uint64 }

// halted runs act while all threads of a process are stopped and none is inside one of the
// spans. It tries for a bounded time.
//
// ptrace(2) belongs to a thread. A thread that could not be detached from, because it never
// stopped, is let go by the kernel when its tracer ends: so the tracer is a thread of its
// own, which ends with its goroutine unless all were detached.
func halted(pid int, spans []span, act func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		clean, err := haltedHere(pid, spans, act)
		if clean {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

func haltedHere(pid int, spans []span, act func() error) (clean bool, err error) {
	for deadline := time.Now().Add(stopLimit); ; {
		stopped, err := stopAll(pid)
		if err == nil {
			if err = outside(stopped, spans); err == nil {
				err = act()
			}
		}
		if !release(stopped) {
			return false, err
		}
		if !errors.Is(err, errInside) {
			return true, err
		}
		if time.Now().After(deadline) {
			return true, fmt.Errorf("pid %d: %w: %w", pid, ErrBusy, err)
		}
		time.Sleep(unsafePause)
	}
}

var errInside = errors.New("a thread is in the code of the clock")

func outside(threads map[int]*thread, spans []span) error {
	for tid, t := range threads {
		if !t.stopped {
			continue // it ended
		}
		pc, err := programCounter(tid)
		if errors.Is(err, unix.ESRCH) {
			continue // killed while it was stopped
		}
		if err != nil {
			return fmt.Errorf("read the registers of thread %d: %w", tid, err)
		}
		for _, s := range spans {
			if pc >= s.from && pc < s.to {
				return errInside
			}
		}
	}
	return nil
}

type thread struct {
	stopped bool
	signal  int // taken from the thread by its stop, to be given back
}

// stopAll seizes and stops all threads, also those that are made meanwhile. What it has
// seized is returned with an error too.
//
// It interrupts all that it finds before it waits for any: a thread stops when it gets a
// processor, and those that run would keep it from the others.
func stopAll(pid int) (map[int]*thread, error) {
	threads := make(map[int]*thread)
	deadline := time.Now().Add(stopLimit)
	for {
		fresh, err := seizeAll(pid, threads)
		if err != nil {
			return threads, err
		}
		if len(fresh) == 0 {
			break
		}
		for _, tid := range fresh {
			if err := threads[tid].await(tid, deadline); err != nil {
				return threads, err
			}
		}
	}
	if len(threads) == 0 {
		return threads, fmt.Errorf("pid %d: %w", pid, ErrGone)
	}
	return threads, nil
}

// seizeAll seizes and interrupts the threads that are not among the given yet, and adds them.
func seizeAll(pid int, threads map[int]*thread) (fresh []int, err error) {
	tids, err := tasks(pid)
	if err != nil {
		return nil, err
	}
	for _, tid := range tids {
		if threads[tid] != nil {
			continue
		}
		seized, err := seize(pid, tid)
		if seized {
			threads[tid] = &thread{}
			fresh = append(fresh, tid)
		}
		if err != nil {
			return nil, err
		}
	}
	return fresh, nil
}

// seize reports false where the thread has ended.
func seize(pid, tid int) (bool, error) {
	err := unix.PtraceSeize(tid)
	if err == nil {
		if err = unix.PtraceInterrupt(tid); errors.Is(err, unix.ESRCH) {
			err = nil // it ended: await sees that
		}
		return true, err
	}
	status, statusErr := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/status", pid, tid))
	if errors.Is(err, unix.ESRCH) || statusErr != nil || bytes.Contains(status, []byte("\nState:\tZ")) || bytes.Contains(status, []byte("\nState:\tX")) {
		return false, nil
	}
	if tracer := statusField(status, "TracerPid"); tracer != "" && tracer != "0" {
		return false, fmt.Errorf("trace pid %d: %w: pid %s traces it already", pid, ErrNotAllowed, tracer)
	}
	return false, fmt.Errorf("trace pid %d: %w (%w): be root or its user, its parent where kernel.yama.ptrace_scope is 1, or have CAP_SYS_PTRACE", pid, ErrNotAllowed, err)
}

// await waits for a seized thread to stop. It never takes note of an end: were the thread
// the last of a child of this process, its exit status would be lost to those who wait for it.
func (t *thread) await(tid int, deadline time.Time) error {
	for {
		var info struct { // siginfo_t of a SIGCHLD (waitid(2))
			signo, _, _, _ int32
			pid, uid       int32
			status         int32
			_              [100]byte
		}
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_PID, uintptr(tid), uintptr(unsafe.Pointer(&info)),
			unix.WSTOPPED|unix.WALL|unix.WNOHANG, 0, 0)
		switch {
		case errno == unix.ECHILD:
			return nil // it ended
		case errno != 0 && errno != unix.EINTR:
			return fmt.Errorf("wait for thread %d to stop: %w", tid, errno)
		case errno == 0 && info.pid != 0:
			t.stopped = true
			if info.status>>8 == 0 { // stopped by a signal that it is about to get, not by us
				t.signal = int(info.status)
			}
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("thread %d did not stop within %v: %w", tid, stopLimit, ErrBusy)
		}
		time.Sleep(stopPause)
	}
}

// release lets go of threads. It reports whether it could let go of all.
func release(threads map[int]*thread) bool {
	clean := true
	for tid, t := range threads {
		_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(tid), 0, uintptr(t.signal), 0, 0)
		if errno != 0 && t.stopped && errno != unix.ESRCH || !t.stopped && errno != 0 {
			clean = false
		}
	}
	return clean
}

func tasks(pid int) ([]int, error) {
	dir, err := os.Open(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, fmt.Errorf("pid %d: %w: %w", pid, ErrGone, err)
	}
	defer func() { _ = dir.Close() }()
	names, err := dir.Readdirnames(threadsMost)
	if err != nil {
		return nil, fmt.Errorf("pid %d: %w: %w", pid, ErrGone, err)
	}
	tids := make([]int, 0, len(names))
	for _, name := range names {
		if tid, err := strconv.Atoi(name); err == nil {
			tids = append(tids, tid)
		}
	}
	return tids, nil
}

// statusField returns a field of /proc/PID/status, or nothing.
func statusField(status []byte, name string) string {
	_, rest, found := bytes.Cut(status, []byte("\n"+name+":"))
	if !found {
		return ""
	}
	text, _, _ := bytes.Cut(rest, []byte("\n"))
	return string(bytes.TrimSpace(text))
}
