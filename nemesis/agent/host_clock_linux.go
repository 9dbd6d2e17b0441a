package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// capSysTime is the capability to set the clock (capabilities(7)).
const capSysTime = 25

// openMachineClock returns this machine's clock, or why it is not ours to set.
func openMachineClock() (machineClock, error) {
	if sign := containerSign(os.ReadFile, os.Readlink); sign != "" {
		return nil, fmt.Errorf("this is a container (%s), and its clock is that of the machine it runs on: the fault clock changes it for one process", sign)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, err
	}
	if !mayUse(status, capSysTime) {
		return nil, errors.New("the agent has no right to set the clock: it takes root (CAP_SYS_TIME)")
	}
	var now unix.Timex
	if _, err := unix.Adjtimex(&now); err != nil {
		return nil, fmt.Errorf("read the pace of the machine's clock: %w", err)
	}
	if now.Status&unix.STA_UNSYNC == 0 {
		return nil, errors.New("NTP keeps this machine's clock right, and would undo what is done to it: stop that for the test (timedatectl set-ntp false, or stop chronyd or ntpd)")
	}
	return kernelClock{}, nil
}

// firstNamespaces are those that a machine starts with: their numbers are fixed in the kernel
// (enum init_ns_ino in linux/nsfs.h). None of them is left by who logs in to a host.
var firstNamespaces = map[string]string{
	"cgroup": "cgroup:[4026531835]", "pid": "pid:[4026531836]", "time": "time:[4026531834]", "user": "user:[4026531837]",
}

// containerSign returns what shows that this process runs in a container, or nothing. Files are
// those by which container engines and service managers tell (systemd's CONTAINER_INTERFACE). A
// pod has none of them, and sees of its cgroup only "0::/": it shows by its namespaces.
func containerSign(read func(path string) ([]byte, error), readLink func(path string) (string, error)) string {
	for _, path := range []string{"/.dockerenv", "/run/.containerenv", "/run/systemd/container"} {
		if _, err := read(path); !errors.Is(err, fs.ErrNotExist) {
			return path
		}
	}
	if environ, err := read("/proc/1/environ"); err == nil {
		for variable := range bytes.SplitSeq(environ, []byte{0}) {
			if bytes.HasPrefix(variable, []byte("container=")) {
				return "/proc/1/environ has " + string(variable)
			}
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(firstNamespaces)) {
		// A kernel may know no such kind. What cannot be told is not the first.
		if link, err := readLink("/proc/self/ns/" + kind); !errors.Is(err, fs.ErrNotExist) && link != firstNamespaces[kind] {
			return "its " + kind + " namespace is not the machine's"
		}
	}
	if groups, err := read("/proc/1/cgroup"); err == nil {
		for _, engine := range []string{"/docker/", "/docker-", "/kubepods", "/lxc/", "/libpod", "/garden/"} {
			if bytes.Contains(groups, []byte(engine)) {
				return "/proc/1/cgroup has " + engine
			}
		}
	}
	return ""
}

// mayUse reads a capability from /proc/PID/status (proc_pid_status(5), CapEff).
func mayUse(status []byte, capability int) bool {
	for line := range bytes.Lines(status) {
		if value, found := bytes.CutPrefix(line, []byte("CapEff:")); found {
			effective, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
			return err == nil && effective&(1<<capability) != 0
		}
	}
	return false
}

// kernelClock is the clock of the machine that this process runs on.
type kernelClock struct{}

func (kernelClock) read() (wall, raw time.Duration, err error) {
	var real, untouchable unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &real); err != nil {
		return 0, 0, err
	}
	// MONOTONIC and BOOTTIME follow the pace that adjtimex sets; this one does not.
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &untouchable); err != nil {
		return 0, 0, err
	}
	return time.Duration(real.Nano()), time.Duration(untouchable.Nano()), nil
}

func (kernelClock) set(wall time.Duration) error {
	to := unix.NsecToTimespec(int64(wall))
	return unix.ClockSettime(unix.CLOCK_REALTIME, &to)
}

func (kernelClock) pace() (HostPace, error) {
	var now unix.Timex
	_, err := unix.Adjtimex(&now)
	return HostPace{Tick: int64(now.Tick), Frequency: int64(now.Freq)}, err
}

func (kernelClock) setPace(p HostPace) error {
	change := unix.Timex{Modes: unix.ADJ_TICK | unix.ADJ_FREQUENCY}
	setField(&change.Tick, p.Tick)
	setField(&change.Freq, p.Frequency)
	_, err := unix.Adjtimex(&change)
	return err
}

// setField sets a field that is as wide as the machine's words.
func setField[N int32 | int64](field *N, value int64) { *field = N(value) }
