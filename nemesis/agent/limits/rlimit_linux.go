package limits

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// rlimits are the resource limits that we set, and how we speak of them.
var rlimits = map[Resource]struct {
	number int
	name   string
}{
	// RLIMIT_AS would count what is only reserved: a Go program reserves gigabytes.
	Memory:    {unix.RLIMIT_DATA, "RLIMIT_DATA"},
	Files:     {unix.RLIMIT_NOFILE, "RLIMIT_NOFILE"},
	Processes: {unix.RLIMIT_NPROC, "RLIMIT_NPROC"},
}

// lower sets a soft resource limit of a process, so that it can add that much to what it has.
// The record of it comes before.
func lower(life Life, resource Resource, more uint64, record func(Previous) error) (string, error) {
	number := rlimits[resource].number
	var was unix.Rlimit
	if err := unix.Prlimit(life.Pid, number, nil, &was); err != nil {
		return "", fmt.Errorf("read %s of pid %d: %w", rlimits[resource].name, life.Pid, err)
	}
	has, err := held(life.Pid, resource, more)
	if err != nil {
		return "", err
	}
	if has >= was.Cur {
		return fmt.Sprintf("%s stays %d", rlimits[resource].name, was.Cur), nil // it is as tight already
	}
	previous := Previous{Life: life, Resource: number, Was: was.Cur, Ours: has}
	if err := record(previous); err != nil {
		return "", err
	}
	if !life.runs() {
		return "", fmt.Errorf("pid %d has ended: %w", life.Pid, os.ErrNotExist)
	}
	if err := unix.Prlimit(life.Pid, number, &unix.Rlimit{Cur: has, Max: was.Max}, nil); err != nil {
		return "", fmt.Errorf("set %s of pid %d to %d: %w", rlimits[resource].name, life.Pid, has, err)
	}
	return fmt.Sprintf("%s of pid %d is %s", rlimits[resource].name, life.Pid, limitOf(life.Pid, number)), nil
}

// limitOf reads a soft limit back.
func limitOf(pid, number int) string {
	var now unix.Rlimit
	if err := unix.Prlimit(pid, number, nil, &now); err != nil {
		return "not known: " + err.Error()
	}
	return strconv.FormatUint(now.Cur, 10)
}

// held returns the limit at which a process can add that much to what it has.
func held(pid int, resource Resource, more uint64) (uint64, error) {
	switch resource {
	case Memory:
		kilobytes, err := strconv.ParseUint(strings.TrimSuffix(status(pid, "VmData"), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("VmData of pid %d: %w", pid, err)
		}
		return kilobytes<<10 + more, nil
	case Files:
		open, err := descriptors(pid)
		if err != nil {
			return 0, err
		}
		// The limit is one above the highest descriptor, and there may be free ones below.
		limit, free := uint64(0), uint64(0)
		for free < more {
			if !slices.Contains(open, limit) {
				free++
			}
			limit++
		}
		return limit, nil
	default:
		tasks, err := tasksOf(pid)
		return tasks + more, err
	}
}

// descriptors lists those that a process has open.
func descriptors(pid int) ([]uint64, error) {
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		return nil, err
	}
	open := make([]uint64, 0, len(entries))
	for _, entry := range entries {
		if n, err := strconv.ParseUint(entry.Name(), 10, 64); err == nil {
			open = append(open, n)
		}
	}
	return open, nil
}

// tasksOf counts the tasks of the user that a process runs as: RLIMIT_NPROC is about all of them.
func tasksOf(pid int) (uint64, error) {
	user, _, _ := strings.Cut(status(pid, "Uid"), "\t")
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	var tasks uint64
	for _, entry := range entries {
		other, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if its, _, _ := strings.Cut(status(other, "Uid"), "\t"); its != user {
			continue
		}
		n, _ := strconv.ParseUint(status(other, "Threads"), 10, 64)
		tasks += n
	}
	return tasks, nil
}

// exempt says why RLIMIT_NPROC would not hold for a process, or nothing.
func exempt(user, capabilities string) string {
	const adminAndResource = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_RESOURCE
	has, _ := strconv.ParseUint(capabilities, 16, 64)
	if user, _, _ = strings.Cut(user, "\t"); user == "0" {
		return "RLIMIT_NPROC does not hold for root: run the system as another user, or where cgroups can be written"
	}
	if has&adminAndResource != 0 {
		return "RLIMIT_NPROC does not hold with CAP_SYS_ADMIN or CAP_SYS_RESOURCE: run the system without them, or where cgroups can be written"
	}
	return ""
}

// raise gives a program back the limits that were recorded, and to its processes that were
// forked meanwhile, and so inherited ours, those of its leader. A limit that is not ours any
// more was changed by someone else, and stays.
func raise(leader Life, all []Previous) error {
	members, err := family(leader)
	problems := []error{err}
	for _, previous := range all {
		if !slices.Contains(members, previous.Life) {
			members = append(members, previous.Life)
		}
	}
	for _, member := range members {
		for _, number := range []int{unix.RLIMIT_DATA, unix.RLIMIT_NOFILE, unix.RLIMIT_NPROC} {
			if err := restore(member, number, all); err != nil && member.runs() {
				problems = append(problems, err)
			}
		}
	}
	return errors.Join(problems...)
}

func restore(member Life, number int, all []Previous) error {
	if !member.runs() {
		return nil
	}
	var now unix.Rlimit
	if err := unix.Prlimit(member.Pid, number, nil, &now); err != nil {
		return fmt.Errorf("read a limit of pid %d: %w", member.Pid, err)
	}
	// Its own record is the best; else that of whom it inherited from.
	i := slices.IndexFunc(all, func(p Previous) bool {
		return p.Life == member && p.Resource == number && p.Ours == now.Cur
	})
	if i < 0 {
		i = slices.IndexFunc(all, func(p Previous) bool { return p.Resource == number && p.Ours == now.Cur })
	}
	if i < 0 {
		return nil
	}
	back := unix.Rlimit{Cur: min(all[i].Was, now.Max), Max: now.Max}
	if err := unix.Prlimit(member.Pid, number, &back, nil); err != nil {
		return fmt.Errorf("restore a limit of pid %d to %d: %w", member.Pid, back.Cur, err)
	}
	return nil
}
