package limits

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stat is what we read of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	parent, group, session int
	start                  uint64
}

func readStat(pid int) (stat, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/stat"
	text, err := os.ReadFile(path)
	if errors.Is(err, unix.ESRCH) {
		err = fmt.Errorf("%s: %w", path, os.ErrNotExist)
	}
	if err != nil {
		return stat{}, err
	}
	return parseStat(pid, text)
}

func parseStat(pid int, text []byte) (stat, error) {
	end := bytes.LastIndexByte(text, ')') // the command, in parentheses, may itself contain any byte
	fields := strings.Fields(string(text[end+1:]))
	if end < 0 || len(fields) < 20 {
		return stat{}, fmt.Errorf("/proc/%d/stat: %.100q is no status of a process", pid, text)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return stat{}, fmt.Errorf("pid %d has ended: %w", pid, os.ErrNotExist)
	}
	var s stat
	var problems [4]error
	s.parent, problems[0] = strconv.Atoi(fields[1])
	s.group, problems[1] = strconv.Atoi(fields[2])
	s.session, problems[2] = strconv.Atoi(fields[3])
	s.start, problems[3] = strconv.ParseUint(fields[19], 10, 64)
	return s, errors.Join(problems[:]...)
}

// lifeOf returns the identity of a process that runs.
func lifeOf(pid int) (Life, error) {
	s, err := readStat(pid)
	return Life{Pid: pid, Start: s.start}, err
}

// runs reports whether it is still that process that has the pid.
func (l Life) runs() bool {
	now, err := lifeOf(l.Pid)
	return err == nil && now == l
}

// family returns a process and all that belong to it: its process group, its session if it
// leads one, and what descends from any of these.
func family(leader Life) ([]Life, error) {
	if !leader.runs() {
		return nil, nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	all := make(map[int]stat)
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			if s, err := readStat(pid); err == nil {
				all[pid] = s
			}
		}
	}
	// A process is asked whether it or an ancestor belongs; a chain of parents is not longer than
	// there are processes.
	belongs := func(pid int) bool {
		for range len(all) {
			s, known := all[pid]
			if !known {
				return false
			}
			if pid == leader.Pid || s.group == leader.Pid || s.session == leader.Pid {
				return true
			}
			pid = s.parent
		}
		return false
	}
	members := []Life{leader}
	for pid, s := range all {
		if pid != leader.Pid && belongs(pid) {
			members = append(members, Life{Pid: pid, Start: s.start})
		}
	}
	return members, nil
}

// cpuTime returns the CPU time that a process has used, by its CPU clock, whose id the kernel
// derives from the pid (clock_getcpuclockid(3)).
func cpuTime(pid int) (time.Duration, error) {
	const scheduled = 2 // CPUCLOCK_SCHED
	var now unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &now); err != nil {
		return 0, fmt.Errorf("CPU clock of pid %d: %w", pid, err)
	}
	return time.Duration(now.Nano()), nil
}

// status returns a line of /proc/PID/status, or nothing.
func status(pid int, key string) string {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, key+":"); found {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
