package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Each measurement is taken in a process of its own, on one processor, so that its memory is
// that of the one thing measured, and a search that has no end can be ended.
//
// Linux hands the peak of a process's memory on to what it starts. So the process that starts
// the others holds nothing: histories, too, are written by a child.

// answer is what a child says.
type answer struct {
	Operations int
	Took       time.Duration // of what is measured, without what had to be made before
	Verdict    string        // or what became of it
	Unfinished string        // which budget ended; empty: none
	Detail     string
	Grown      int64     // bytes of the heap, where that is measured
	Compared   []compare // of many histories

	Peak uint64        `json:"-"` // bytes resident, of the whole process
	CPU  time.Duration `json:"-"` // of the whole process
}

// rate is operations a second.
func (a *answer) rate() float64 { return float64(a.Operations) / a.Took.Seconds() }

// each is the time that one operation took.
func (a *answer) each() float64 { return a.Took.Seconds() / float64(a.Operations) }

type clock struct{ began time.Time }

// begin starts to measure, with no garbage left from before.
func begin() clock {
	runtime.GC()
	return clock{time.Now()}
}

func (c clock) answer(operations int, verdict string) answer {
	return answer{Operations: operations, Took: time.Since(c.began), Verdict: verdict}
}

const childLimit = 5 * time.Minute

// inChild lets a child do one of the tasks.
func inChild(ctx context.Context, task string, args ...string) (a answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, childLimit)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return a, fmt.Errorf("start a child for %s: %w", task, err)
	}
	child := exec.CommandContext(ctx, self, append([]string{"-child", task}, args...)...)
	child.Env = append(os.Environ(), "GOMAXPROCS=1")
	var complaint strings.Builder
	child.Stderr = &complaint
	said, err := child.Output()
	if err != nil {
		return a, fmt.Errorf("%s: %w: %s", task, err, complaint.String())
	}
	if err := json.Unmarshal(said, &a); err != nil {
		return a, fmt.Errorf("%s: its answer %q: %w", task, said, err)
	}
	if usage, ok := child.ProcessState.SysUsage().(*syscall.Rusage); ok {
		a.Peak = uint64(usage.Maxrss) << 10 // Linux counts KiB
	}
	a.CPU = child.ProcessState.UserTime() + child.ProcessState.SystemTime()
	return a, nil
}

var replying sync.Mutex // held to the end by whoever is first

// reply ends a child with its answer.
func reply(a answer) {
	replying.Lock()
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		fmt.Fprintln(os.Stderr, "answer:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// limit ends this child, unfinished, when a budget ends.
func limit(operations int, most time.Duration, memory uint64) {
	const look = 20 * time.Millisecond
	go func() {
		for began := time.Now(); ; time.Sleep(look) {
			a := answer{Operations: operations, Took: time.Since(began)}
			switch {
			case a.Took > most:
				a.Unfinished = most.String()
				reply(a)
			case heap() > memory:
				a.Unfinished = fmt.Sprintf("%d GiB (after %s)", memory>>30, took(a.Took))
				reply(a)
			}
		}
	}()
}

// heap returns the bytes of the heap's objects.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
