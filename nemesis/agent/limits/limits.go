// Package limits takes resources away from one running program, a process with all that
// descend from it: CPU time, memory, file descriptors, tasks and disk throughput. It can also
// freeze it.
//
// [New] takes the process, [Limiter.Apply] sets limits and replaces those before,
// [Limiter.Seen] reads from the kernel what they did, and [Limiter.Clear] restores what was
// there before. Where the kernel lets us, the limits are those of a cgroup of our own below the
// present one, of version 1 or 2; else CPU time is limited by stopping and continuing the
// process, memory and file descriptors by resource limits. [Survey] says which.
//
// What is done can be undone by another process that knows only an [Undo], which is handed out
// before anything is done. Nothing is ever done to a process that merely has the same pid.
package limits

import (
	"fmt"
	"strings"
	"time"
)

// Limit is what a program may use. The zero value of a field means no limit of ours.
//
// Memory, Files and Processes are what it may add to what it has when the limit is applied: a
// limit below what a program holds already is one that the kernel cannot carry out.
type Limit struct {
	CPU       float64 `json:"cpu,omitempty"`       // cores: 0.1 is a tenth of one
	Memory    int64   `json:"memory,omitempty"`    // bytes
	Files     int     `json:"files,omitempty"`     // descriptors
	Processes int     `json:"processes,omitempty"` // tasks: processes and threads
	ReadRate  int64   `json:"readRate,omitempty"`  // bytes a second, from the device that holds the data
	WriteRate int64   `json:"writeRate,omitempty"`
	// Refuse makes allocations fail at the limit, by a resource limit, where a cgroup would have
	// the kernel kill the process.
	Refuse bool `json:"refuse,omitempty"`
	Frozen bool `json:"frozen,omitempty"` // it stands still
}

// of returns what a limit says of one resource.
func (l Limit) of(resource Resource) Limit {
	switch resource {
	case CPU:
		return Limit{CPU: l.CPU}
	case Memory:
		return Limit{Memory: l.Memory, Refuse: l.Refuse && l.Memory > 0}
	case Files:
		return Limit{Files: l.Files}
	case Processes:
		return Limit{Processes: l.Processes}
	case IO:
		return Limit{ReadRate: l.ReadRate, WriteRate: l.WriteRate}
	default:
		return Limit{Frozen: l.Frozen}
	}
}

// Has reports whether a resource is limited.
func (l Limit) Has(resource Resource) bool { return l.of(resource) != Limit{} }

// Outlasting returns what of a limit makes sense for the program's next life too: a new life
// holds nothing yet that it could add to, and one that is frozen would never begin.
func (l Limit) Outlasting() Limit {
	return Limit{CPU: l.CPU, ReadRate: l.ReadRate, WriteRate: l.WriteRate}
}

// Tightest returns the limit that holds where both do.
func (l Limit) Tightest(other Limit) Limit {
	return Limit{
		CPU: tightest(l.CPU, other.CPU), Memory: tightest(l.Memory, other.Memory),
		Files: tightest(l.Files, other.Files), Processes: tightest(l.Processes, other.Processes),
		ReadRate: tightest(l.ReadRate, other.ReadRate), WriteRate: tightest(l.WriteRate, other.WriteRate),
		Refuse: l.Refuse || other.Refuse, Frozen: l.Frozen || other.Frozen,
	}
}

func tightest[N int | int64 | float64](a, b N) N {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// Bounds of what can be asked.
const (
	cpuLeast  = 0.01
	cpuMost   = 1024
	bytesMost = 1 << 50
	countMost = 1 << 30
)

// Validate reports what of a limit is impossible.
func (l Limit) Validate() error {
	switch {
	case l.CPU != 0 && !(l.CPU >= cpuLeast && l.CPU <= cpuMost):
		return fmt.Errorf("limit: cpu %g cores: want 0 or %g to %d", l.CPU, cpuLeast, cpuMost)
	case l.Memory < 0 || l.Memory > bytesMost:
		return fmt.Errorf("limit: memory %d: want 0 to %d bytes", l.Memory, int64(bytesMost))
	case l.Files < 0 || l.Files > countMost || l.Processes < 0 || l.Processes > countMost:
		return fmt.Errorf("limit: %d files, %d processes: want 0 to %d", l.Files, l.Processes, countMost)
	case l.ReadRate < 0 || l.ReadRate > bytesMost || l.WriteRate < 0 || l.WriteRate > bytesMost:
		return fmt.Errorf("limit: rates %d and %d: want 0 to %d bytes a second", l.ReadRate, l.WriteRate, int64(bytesMost))
	}
	return nil
}

// Resource names one of the things that can be limited.
type Resource string

// The resources.
const (
	CPU       Resource = "cpu"
	Memory    Resource = "memory"
	Files     Resource = "files"
	Processes Resource = "processes"
	IO        Resource = "io"
	Freeze    Resource = "freeze"
)

// Resources are all of them, in the order in which they are shown.
var Resources = []Resource{CPU, Memory, Files, Processes, IO, Freeze}

// Ability is how a resource can be limited here, or why it cannot.
type Ability struct {
	Resource Resource
	How      string // empty where there is no way
	Why      string // there is none, and what to do about it
}

// Life is one process: the kernel gives its pid to another one day, but not with the same start
// time (proc_pid_stat(5), field 22, in clock ticks since boot).
type Life struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// Undo is all that it takes to undo limits: see [Revert].
type Undo struct {
	Leader  Life       `json:"leader"`
	Cgroups []Cgroup   `json:"cgroups,omitempty"`
	Rlimits []Previous `json:"rlimits,omitempty"`
	Stopped bool       `json:"stopped,omitempty"` // it may have been stopped, to limit its CPU time
}

// Cgroup is a cgroup that we made.
type Cgroup struct {
	Dir    string `json:"dir"`
	Parent string `json:"parent"` // where its processes came from
	V2     bool   `json:"v2,omitempty"`
}

// Previous is a soft resource limit that we changed. Hard limits we leave alone: nobody may raise
// them again without privilege.
type Previous struct {
	Life     Life   `json:"life"`
	Resource int    `json:"resource"` // as of getrlimit(2)
	Was      uint64 `json:"was"`
	Ours     uint64 `json:"ours"`
}

// Seen is what the kernel says of a program and its limits. Where a counter has no source it is
// zero.
type Seen struct {
	How       map[Resource]string `json:"how,omitempty"` // the mechanism of each limit in force, with its value as read back
	CPUTime   time.Duration       `json:"cpuTime"`       // that the process has used in its life
	Throttled uint64              `json:"throttled"`     // periods in which it was held back, or times it was stopped
	Refused   uint64              `json:"refused"`       // allocations of memory that met the limit
	OOMKills  uint64              `json:"oomKills"`
	ForksFail uint64              `json:"forksFail"` // tasks that were not made
	IOBytes   uint64              `json:"ioBytes"`   // through the throttle
	OpenFiles int                 `json:"openFiles"`
	Frozen    bool                `json:"frozen"`
}

// Lines tells it to people.
func (s Seen) Lines() []string {
	var lines []string
	for _, resource := range Resources {
		if how := s.How[resource]; how != "" {
			lines = append(lines, string(resource)+": "+how)
		}
	}
	var counts []string
	for _, count := range []struct {
		n    uint64
		what string
	}{
		{s.Throttled, "times held back"}, {s.Refused, "allocations at the limit"}, {s.OOMKills, "killed for memory"},
		{s.ForksFail, "forks refused"}, {s.IOBytes, "bytes through the throttle"},
	} {
		if count.n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", count.n, count.what))
		}
	}
	counts = append(counts, fmt.Sprintf("%s of CPU time used", s.CPUTime.Round(time.Millisecond)))
	return append(lines, strings.Join(counts, ", "))
}
