package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tmpfsMagic is what statfs(2) calls a file system in memory (linux/magic.h).
const tmpfsMagic = 0x01021994

// probeDisk returns the median time of appending 512 bytes to a file in dir and syncing
// it, which bounds from below what one put alone can take. It is an error if dir is kept
// in memory, where a sync costs nothing and the comparison would be of something else.
func probeDisk(dir string) (time.Duration, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("look at the file system of %s: %w", dir, err)
	}
	if fs.Type == tmpfsMagic {
		return 0, fmt.Errorf("%s is kept in memory, where fsync costs nothing: give a directory on a disk with -dir", dir)
	}
	file, err := os.Create(filepath.Join(dir, "probe"))
	if err != nil {
		return 0, fmt.Errorf("probe the disk: %w", err)
	}
	defer func() { _ = file.Close() }() // its content is of no use
	block := bytes.Repeat([]byte("x"), 512)
	var took []time.Duration
	for range 50 {
		begin := time.Now()
		_, err := file.Write(block)
		if err := errors.Join(err, file.Sync()); err != nil {
			return 0, fmt.Errorf("probe the disk: %w", err)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	return percentile(took, 50), nil
}

// clockTick is the unit of times in /proc, 1/USER_HZ, which Linux fixes at 100 a second.
const clockTick = 10 * time.Millisecond

// cpuTime returns the CPU time, user and system, that a process has used. Its resolution
// is 10 ms.
func cpuTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(string(data))
}

// parseStat reads utime and stime, the 14th and 15th field of proc_pid_stat(5). The second
// field, the program's name in parentheses, may itself hold spaces and parentheses.
func parseStat(stat string) (time.Duration, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("%q: want the fields of proc_pid_stat(5)", stat)
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("CPU time %q: want a number of clock ticks", field)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// ownCPUTime returns the CPU time that this program, and so the clients, has used.
func ownCPUTime() (time.Duration, error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0, fmt.Errorf("getrusage: %w", err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}

// memory is what a process occupies. Resident is all of it; anonymous leaves out pages of
// files, such as the program itself, which the kernel may drop and processes share.
type memory struct {
	residentBytes, anonymousBytes int64
}

func memoryOf(pid int) (memory, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return memory{}, err
	}
	return parseStatus(string(data))
}

// parseStatus reads VmRSS and RssAnon of proc_pid_status(5), which are in KiB.
func parseStatus(status string) (memory, error) {
	var m memory
	for field, into := range map[string]*int64{"VmRSS:": &m.residentBytes, "RssAnon:": &m.anonymousBytes} {
		_, rest, found := strings.Cut(status, "\n"+field)
		line, _, _ := strings.Cut(rest, "\n")
		number, isKiB := strings.CutSuffix(strings.TrimSpace(line), " kB")
		kib, err := strconv.ParseInt(number, 10, 64)
		if !found || !isKiB || err != nil || kib < 0 {
			return memory{}, fmt.Errorf("%s %q: want a number of kB", field, line)
		}
		*into = kib << 10
	}
	return m, nil
}

// loadAverage is what else the machine does, as /proc/loadavg has it: over 1, 5 and 15
// minutes.
func loadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(data))[:3], " ")
}
