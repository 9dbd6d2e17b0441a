//go:build amd64 || arm64

package clock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Clock is the clock of one process. Its methods may be called concurrently. Where several
// Clocks are open on one process, the last change counts.
type Clock struct {
	pid     int
	machine machine
	memory  *os.File // refers to this very process: not to another of its number, nor to what it executes
	start   int64    // of the vDSO
	base    int64    // of the hook
	how     string
	foreign bool // the process is in another time namespace

	mu     sync.Mutex // guards changes, and poker
	poker  *poker
	closed bool
}

// Attach hooks a process that runs, or opens the hook that it has.
func Attach(pid int) (*Clock, error) { return attach(pid, machines[runtime.GOARCH], false) }

func attach(pid int, m machine, viaSyscall bool) (*Clock, error) {
	c, image, err := open(pid, m)
	if err != nil {
		return nil, err
	}
	err = c.adopt(image)
	if err == nil && c.base == 0 {
		err = c.hook(image, viaSyscall, func(spans []span, act func() error) error { return halted(pid, spans, act) })
	}
	if err != nil {
		_ = c.memory.Close() // only read from so far, or written through: nothing is held back
		return nil, fmt.Errorf("hook the clock of pid %d: %w", pid, err)
	}
	return c, nil
}

// Start starts a command whose clock is hooked before its first instruction, so that it
// never sees another clock. If the command does not start, its Process is nil. If it starts
// but cannot be hooked, it runs untouched: its Process is set, the Clock is nil, and the
// error says why.
//
// The calling thread is the parent of the process as far as Pdeathsig in SysProcAttr is
// concerned; a caller that sets it has to be locked to its thread.
func Start(command *exec.Cmd) (*Clock, error) {
	return start(command, machines[runtime.GOARCH], false, 0)
}

// start hooks a command, gives it a signal, where that is not 0, and lets it run.
func start(command *exec.Cmd, m machine, viaSyscall bool, signal syscall.Signal) (*Clock, error) {
	runtime.LockOSThread() // ptrace belongs to the thread
	defer runtime.UnlockOSThread()
	attributes := syscall.SysProcAttr{}
	if command.SysProcAttr != nil {
		attributes = *command.SysProcAttr
	}
	attributes.Ptrace = true
	command.SysProcAttr = &attributes
	if err := command.Start(); err != nil {
		return nil, err
	}
	pid := command.Process.Pid
	// It has executed: Start waits for that. So its stop is here or about to be.
	stop := thread{}
	if err := stop.await(pid, time.Now().Add(stopLimit)); err != nil || !stop.stopped {
		_ = command.Process.Kill() // it may be stopped for good, with us as its tracer
		return nil, errors.Join(fmt.Errorf("start %s as pid %d: it did not stop at its execve, and was killed", command.Path, pid), err)
	}
	c, image, err := open(pid, m)
	if err == nil {
		// It has one thread, stopped, which has executed nothing.
		err = c.hook(image, viaSyscall, func(_ []span, act func() error) error { return act() })
		if err != nil {
			_ = c.memory.Close()
		}
	}
	if signal != 0 {
		err = errors.Join(err, command.Process.Signal(signal))
	}
	if detachErr := unix.PtraceDetach(pid); detachErr != nil && !errors.Is(detachErr, unix.ESRCH) {
		_ = command.Process.Kill() // else it would be stopped until this thread ends
		err = errors.Join(err, fmt.Errorf("let go of pid %d, which was killed: %w", pid, detachErr))
	}
	if err != nil {
		return nil, fmt.Errorf("%s runs as pid %d, but its clock is not hooked: %w", command.Path, pid, err)
	}
	return c, nil
}

// Supported tries the hook on a program of its own, which is killed before its first
// instruction. It says how clocks are changed, or why they cannot be.
func Supported() (how string, err error) {
	command := exec.Command("/proc/self/exe")
	command.Env = []string{}
	c, err := start(command, machines[runtime.GOARCH], false, syscall.SIGKILL)
	if command.Process != nil {
		defer func() { _ = command.Wait() }() // killed, as it should be
	}
	if err != nil {
		return "", err
	}
	return c.how, c.Close()
}

// How names the mechanism, for a reader.
func (c *Clock) How() string { return c.how }

// open reads the vDSO of a process.
func open(pid int, m machine) (*Clock, []byte, error) {
	if m.hook == nil {
		return nil, nil, ErrArchitecture
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, nil, fmt.Errorf("read the mappings of pid %d: %w", pid, refusal(err))
	}
	if len(maps) == 0 {
		return nil, nil, fmt.Errorf("pid %d has no memory: %w", pid, ErrGone)
	}
	from, to, err := findVDSO(string(maps))
	if err != nil {
		return nil, nil, fmt.Errorf("pid %d: %w", pid, err)
	}
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open the memory of pid %d: %w", pid, refusal(err))
	}
	c := &Clock{pid: pid, machine: m, memory: memory, start: int64(from)}
	image := make([]byte, to-from)
	if _, err := memory.ReadAt(image, c.start); err != nil {
		_ = memory.Close()
		return nil, nil, fmt.Errorf("read the vDSO of pid %d: %w", pid, refusal(err))
	}
	ours, err1 := os.Readlink("/proc/self/ns/time")
	theirs, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/time", pid))
	c.foreign = err1 == nil && err2 == nil && ours != theirs // neither exists where the kernel has none
	return c, image, nil
}

// refusal names the reason of an error of the kernel.
func refusal(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: be root or its user, its parent where kernel.yama.ptrace_scope is 1, or have CAP_SYS_PTRACE: %w", ErrNotAllowed, err)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ESRCH), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %w", ErrGone, err)
	case errors.Is(err, unix.EIO):
		return fmt.Errorf("%w: the kernel refuses the access (proc_mem.force_override, mseal): %w", ErrNotAllowed, err)
	}
	return err
}

// adopt takes the hook that an image has, if it has one.
func (c *Clock) adopt(image []byte) error {
	at, how, err := c.machine.find(image)
	if err == nil && at >= 0 {
		c.base, c.how = c.start+at, how
	}
	return err
}

// hook writes a hook, with its name last: what was written in part is never taken for a
// whole, and shows the kernel's time.
func (c *Clock) hook(image []byte, viaSyscall bool, while func([]span, func() error) error) error {
	p, err := c.machine.plan(image, viaSyscall)
	if err != nil {
		return err
	}
	var spans []span
	for _, entry := range p.entries {
		at := uint64(c.start) + entry.at
		spans = append(spans, span{at + 1, at + entry.whole}) // at the first byte, either code is whole
	}
	base := c.start + int64(p.at)
	return while(spans, func() error {
		if err := c.write(p.hook[len(magic):], base+int64(len(magic))); err != nil {
			return err
		}
		for i, entry := range p.entries {
			if err := c.write(entry.bytes, c.start+int64(entry.at)); err != nil {
				for _, done := range p.entries[:i] {
					err = errors.Join(err, c.write(done.was, c.start+int64(done.at)))
				}
				return err
			}
		}
		if err := c.write([]byte(magic), base); err != nil {
			return err
		}
		c.base, c.how = base, p.how
		return nil
	})
}

func (c *Clock) write(b []byte, at int64) error {
	if _, err := c.memory.WriteAt(b, at); err != nil {
		return fmt.Errorf("write to the vDSO of pid %d: %w", c.pid, refusal(err))
	}
	return nil
}

func (c *Clock) lines() (index uint32, realtime, monotonic line, err error) {
	b := make([]byte, atSlots+2*slotSize)
	if _, err := c.memory.ReadAt(b, c.base); err != nil {
		return 0, line{}, line{}, fmt.Errorf("read the clock of pid %d: %w", c.pid, refusal(err))
	}
	if string(b[:len(magic)]) != magic {
		return 0, line{}, line{}, fmt.Errorf("read the clock of pid %d: the hook is gone: %w", c.pid, ErrGone)
	}
	index = binary.LittleEndian.Uint32(b[atIndex:])
	slot := b[atSlots+int(index&1)*slotSize:]
	return index, readLine(slot), readLine(slot[slotSize/2:]), nil
}

// Read returns what the process's own memory makes its clocks show.
func (c *Clock) Read() (Reading, error) {
	_, realtime, monotonic, err := c.lines()
	if err != nil {
		return Reading{}, err
	}
	return Reading{
		Realtime: realtime.shown(kernel(unix.CLOCK_REALTIME)), Monotonic: monotonic.shown(kernel(unix.CLOCK_MONOTONIC)),
	}, nil
}

// Set makes a change, at one instant for all threads.
func (c *Clock) Set(change Change) error {
	return c.change(func(realtime, monotonic line) (line, line, error) {
		if rate := change.Monotonic.Rate; c.foreign && rate != nil && *rate != 1 {
			return realtime, monotonic, ErrTimeNamespace
		}
		realtime, err := realtime.adjusted(change.Realtime, kernel(unix.CLOCK_REALTIME))
		if err != nil {
			return realtime, monotonic, fmt.Errorf("REALTIME: %w", err)
		}
		monotonic, err = monotonic.adjusted(change.Monotonic, kernel(unix.CLOCK_MONOTONIC))
		if err != nil {
			return realtime, monotonic, fmt.Errorf("MONOTONIC: %w", err)
		}
		return realtime, monotonic, nil
	})
}

// Settle lets both classes run as the kernel's do, with the offsets that they have.
func (c *Clock) Settle() error {
	return c.Set(Change{Realtime: Adjust{Rate: new(1.0)}, Monotonic: Adjust{Rate: new(1.0)}})
}

// Reset makes REALTIME the kernel's again. MONOTONIC, which must never step back, is settled.
func (c *Clock) Reset() error {
	return c.change(func(_, monotonic line) (line, line, error) {
		monotonic, err := monotonic.adjusted(Adjust{Rate: new(1.0)}, kernel(unix.CLOCK_MONOTONIC))
		return identity, monotonic, err
	})
}

func (c *Clock) change(next func(realtime, monotonic line) (line, line, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fmt.Errorf("change the clock of pid %d: %w", c.pid, os.ErrClosed)
	}
	if _, _, _, err := c.lines(); err != nil {
		return err // without it, a process that executed another program would be stopped in vain
	}
	// The slot that is not in use may still be read by a thread that looked at the index
	// before the last change: it is written when no thread is in that code.
	to := c.machine.offsets()
	late := span{uint64(c.base) + to.late, uint64(c.base) + to.end}
	var fast bool
	err := halted(c.pid, []span{late}, func() error {
		index, realtime, monotonic, err := c.lines()
		if err != nil {
			return err
		}
		realtime, monotonic, err = next(realtime, monotonic)
		if err != nil {
			return err
		}
		fast = monotonic.rate > one
		index++
		slot := monotonic.append(realtime.append(nil))
		if err := c.write(slot, c.base+atSlots+int64(index&1)*slotSize); err != nil {
			return err
		}
		return c.write(binary.LittleEndian.AppendUint32(nil, index), c.base+atIndex)
	})
	if err != nil {
		return fmt.Errorf("change the clock of pid %d: %w", c.pid, err)
	}
	return c.poke(fast)
}

// Close ends the work on the clock, which stays as it is. The hook remains.
func (c *Clock) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	return errors.Join(c.poke(false), c.memory.Close())
}

// kernel reads a clock of the kernel, by the system call: this process may be hooked itself.
func kernel(id int32) int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(id, &now) // cannot fail for these clocks
	return now.Nano()
}
