// Package clock gives one running process clocks of its own, by a hook in its copy of the
// vDSO, the page of kernel code through which programs read the time. No privilege over the
// machine's clock is needed, only the right to trace the process (ptrace(2)): a child of
// the same user always grants it where Yama is off or restricts tracing to descendants.
//
// [Start] starts a program whose clock is hooked before its first instruction; [Attach]
// hooks one that runs, or finds the hook that it has. [Clock.Set] then jumps, slows, hastens
// or freezes the REALTIME class of clocks (REALTIME, its coarse twin, TAI), the MONOTONIC
// class (MONOTONIC, RAW, COARSE, BOOTTIME), or both, at one instant. Clocks of CPU time
// stay true. [Clock.Settle] heals: both classes run at the kernel's rate again and keep
// their offsets, since taking an offset back is one more jump.
//
// A change is in force for all threads when Set returns, whole: no thread sees half of it.
// Only a jump backward makes a clock step back, with one exception: after Attach, threads
// that were reading the clock when it was hooked may see one step at the first change.
//
// A forked child inherits the hook with its parameters, and has them apart from then on. A
// program that calls execve(2) loses it. Not reached: programs that make the system call
// without the vDSO, that read the CPU's counter, or that sleep in the kernel until an
// absolute time (pthread_cond_timedwait(3), timerfd). Relative waits, which are Go's, follow
// a rate only where they are interrupted; while MONOTONIC runs fast and the program handles
// SIGURG, as every Go program does, the clock interrupts all threads every 5 ms.
package clock

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"time"
)

// Refusals. Errors wrap them with the process and the reason.
var (
	ErrArchitecture  = errors.New("no clock hook for this architecture")
	Err32Bit         = errors.New("the program is a 32-bit one: only 64-bit programs can be hooked")
	ErrNotAllowed    = errors.New("no right to trace the process")
	ErrNoRoom        = errors.New("no room for the hook in the vDSO")
	ErrNoVDSO        = errors.New("the process has no usable vDSO")
	ErrTimeNamespace = errors.New("the process is in another time namespace, where MONOTONIC can jump, but not run at another rate")
	ErrGone          = errors.New("the process has ended or executed another program: attach again")
	ErrBusy          = errors.New("the threads of the process could not be stopped at a safe point: try again")
	ErrRange         = errors.New("outside the range of a clock")
	ErrForeign       = errors.New("the process carries the hook of another build: restart it")
)

const (
	rateMost = 100.0
	jumpMost = 366 * 24 * time.Hour
	one      = uint64(1) << 32 // the rate of the kernel, in 32.32 fixed point
)

// Adjust changes one class of clocks: it adds Jump, and from then on the class runs at Rate,
// where it is not nil, relative to the kernel. A rate of zero freezes it. The zero Adjust
// changes nothing.
type Adjust struct {
	Jump time.Duration
	Rate *float64
}

// Change is what happens to both classes at one instant.
type Change struct{ Realtime, Monotonic Adjust }

// Shown is what one class of clocks shows at one moment: since 1970 for REALTIME, since an
// arbitrary moment, most often the boot, for MONOTONIC.
type Shown struct {
	Kernel time.Duration // what the kernel says
	Target time.Duration // what the process reads
	Rate   float64
}

// Offset is by how much the process is ahead.
func (s Shown) Offset() time.Duration { return s.Target - s.Kernel }

// Reading is what the memory of a process says of its clocks.
type Reading struct{ Realtime, Monotonic Shown }

// line maps the kernel's clock to the one that is shown, in nanoseconds:
// shown = fake + (kernel-real)*rate. It is what the hook computes.
type line struct {
	real, fake int64
	rate       uint64 // 32.32 fixed point
}

var identity = line{rate: one}

func (l line) at(kernel int64) int64 {
	return l.fake + scale(kernel-l.real, l.rate)
}

// scale is delta*rate>>32 on 128 bits, rounded down as the hook's arithmetic shift does.
func scale(delta int64, rate uint64) int64 {
	high, low := bits.Mul64(uint64(delta), rate)
	if delta < 0 {
		high -= rate // two's complement: delta was read as delta + 2^64
	}
	return int64(high<<32 | low>>32)
}

func (l line) shown(kernel int64) Shown {
	return Shown{
		Kernel: time.Duration(kernel), Target: time.Duration(l.at(kernel)),
		Rate: float64(l.rate) / float64(one),
	}
}

// adjusted returns the line after a change at the moment when the kernel's clock shows
// kernel. A line of rate one and without offset is the identity, to the nanosecond.
func (l line) adjusted(change Adjust, kernel int64) (line, error) {
	if change.Jump > jumpMost || change.Jump < -jumpMost {
		return l, fmt.Errorf("jump by %v: %w: at most %v either way", change.Jump, ErrRange, jumpMost)
	}
	next := line{real: kernel, fake: l.at(kernel) + int64(change.Jump), rate: l.rate}
	if change.Rate != nil {
		rate := *change.Rate
		if math.IsNaN(rate) || rate < 0 || rate > rateMost {
			return l, fmt.Errorf("rate %v: %w: from 0 to %v", rate, ErrRange, rateMost)
		}
		next.rate = uint64(math.Round(rate * float64(one)))
	}
	// Below zero, programs misread a clock; above 2^62 ns (the year 2116), sums overflow.
	if next.fake < 0 || next.fake > 1<<62 {
		return l, fmt.Errorf("jump by %v from %v: %w: the clock would show %v", change.Jump, time.Duration(l.at(kernel)), ErrRange, time.Duration(next.fake))
	}
	return next, nil
}
