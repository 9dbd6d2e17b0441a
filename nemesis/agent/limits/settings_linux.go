package limits

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const cpuQuotaLeast = 1000 // microseconds a period, by the kernel

// set puts a limit in force in the cgroup and returns it as the kernel says it back. Zero values
// mean none.
func (c Cgroup) set(resource Resource, l Limit, data string) (string, error) {
	switch resource {
	case CPU:
		return c.setCPU(l.CPU)
	case Memory:
		return c.setMemory(l.Memory)
	case Processes:
		return c.setProcesses(l.Processes)
	case IO:
		return c.setIO(l.ReadRate, l.WriteRate, data)
	case Freeze:
		if err := c.freeze(l.Frozen); err != nil {
			return "", err
		}
		return c.readBack("freezer.state", "cgroup.freeze"), nil
	}
	return "", fmt.Errorf("no cgroup limits %s", resource)
}

// readBack says what one of two files holds, by the cgroup's version.
func (c Cgroup) readBack(one, two string) string {
	name := one
	if c.V2 {
		name = two
	}
	return name + " " + strings.ReplaceAll(c.read(name), "\n", "; ")
}

func (c Cgroup) setCPU(cores float64) (string, error) {
	period := cpuPeriod.Microseconds()
	quota := max(int64(cores*float64(period)), cpuQuotaLeast)
	if c.V2 {
		value := fmt.Sprintf("%d %d", quota, period)
		if cores == 0 {
			value = fmt.Sprintf("max %d", period)
		}
		err := c.write("cpu.max", value)
		return c.readBack("", "cpu.max"), err
	}
	if cores == 0 {
		quota = -1
	}
	err := errors.Join(c.write("cpu.cfs_period_us", strconv.FormatInt(period, 10)), c.write("cpu.cfs_quota_us", strconv.FormatInt(quota, 10)))
	return c.readBack("cpu.cfs_quota_us", "") + fmt.Sprintf(" of %d", period), err
}

func (c Cgroup) setMemory(bytes int64) (string, error) {
	if c.V2 {
		value := "max"
		if bytes > 0 {
			value = strconv.FormatInt(bytes, 10)
		}
		err := c.write("memory.max", value)
		// Swap would take what the limit refuses. Where there is none the file is not there.
		if swap := c.write("memory.swap.max", map[bool]string{true: "0", false: "max"}[bytes > 0]); !errors.Is(swap, fs.ErrNotExist) {
			err = errors.Join(err, swap)
		}
		return c.readBack("", "memory.max"), err
	}
	value := strconv.FormatInt(bytes, 10)
	if bytes == 0 {
		value = "-1"
	}
	// Memory with swap cannot be limited below memory alone: whatever the order is now, one of
	// lifting first and setting last is right.
	if err := c.write("memory.memsw.limit_in_bytes", "-1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	err := c.write("memory.limit_in_bytes", value)
	if swap := c.write("memory.memsw.limit_in_bytes", value); !errors.Is(swap, fs.ErrNotExist) {
		err = errors.Join(err, swap)
	}
	return c.readBack("memory.limit_in_bytes", ""), err
}

func (c Cgroup) setProcesses(more int) (string, error) {
	value := "max"
	if more > 0 {
		value = strconv.FormatUint(c.count("pids.current", "")+uint64(more), 10)
	}
	err := c.write("pids.max", value)
	return c.readBack("pids.max", "pids.max"), err
}

func (c Cgroup) setIO(read, write int64, data string) (string, error) {
	device, err := deviceOf(data)
	if err != nil {
		return "", err
	}
	if c.V2 {
		rate := func(n int64) string {
			if n == 0 {
				return "max"
			}
			return strconv.FormatInt(n, 10)
		}
		err := c.write("io.max", fmt.Sprintf("%s rbps=%s wbps=%s", device, rate(read), rate(write)))
		return c.readBack("", "io.max"), err
	}
	err = errors.Join(
		c.write("blkio.throttle.read_bps_device", fmt.Sprintf("%s %d", device, read)),
		c.write("blkio.throttle.write_bps_device", fmt.Sprintf("%s %d", device, write)),
	)
	return c.readBack("blkio.throttle.read_bps_device", "") + ", " + c.readBack("blkio.throttle.write_bps_device", ""), err
}

// deviceOf returns the number of the disk that holds a path, or what of the path exists. A
// partition has no throttle of its own: it is that of its disk.
func deviceOf(path string) (string, error) {
	if path == "" {
		return "", errors.New("it is not known where the data lies")
	}
	var info unix.Stat_t
	for at := path; ; at = filepath.Dir(at) {
		err := unix.Stat(at, &info)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.ENOENT) || at == filepath.Dir(at) {
			return "", fmt.Errorf("disk of %s: %w", path, err)
		}
	}
	number := fmt.Sprintf("%d:%d", unix.Major(info.Dev), unix.Minor(info.Dev))
	block, err := filepath.EvalSymlinks("/sys/dev/block/" + number)
	if err != nil {
		return "", fmt.Errorf("%s lies on no disk (device %s): slow it by the disk faults", path, number)
	}
	if _, err := os.Stat(filepath.Join(block, "partition")); err == nil {
		whole, err := os.ReadFile(filepath.Join(filepath.Dir(block), "dev"))
		if err != nil {
			return "", fmt.Errorf("disk of %s: %w", path, err)
		}
		number = strings.TrimSpace(string(whole))
	}
	return number, nil
}

// look adds what the cgroup counts to what was seen.
func (c Cgroup) look(resource Resource, seen *Seen) {
	switch {
	case resource == CPU:
		seen.Throttled += c.count("cpu.stat", "nr_throttled")
	case resource == Memory && c.V2:
		seen.Refused += c.count("memory.events", "max")
		seen.OOMKills += c.count("memory.events", "oom_kill")
	case resource == Memory:
		seen.Refused += c.count("memory.failcnt", "")
		seen.OOMKills += c.count("memory.oom_control", "oom_kill")
	case resource == Processes:
		seen.ForksFail += c.count("pids.events", "max")
	case resource == IO && c.V2:
		seen.IOBytes += ioBytes(c.read("io.stat"))
	case resource == IO:
		seen.IOBytes += c.count("blkio.throttle.io_service_bytes", "Total")
	case resource == Freeze:
		seen.Frozen = c.frozen()
	}
}

// ioBytes adds up what io.stat says was read and written.
func ioBytes(text string) (bytes uint64) {
	for _, field := range strings.Fields(text) {
		key, value, _ := strings.Cut(field, "=")
		if key == "rbytes" || key == "wbytes" {
			n, _ := strconv.ParseUint(value, 10, 64)
			bytes += n
		}
	}
	return bytes
}
