package limits

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	prefix      = "capsize-"             // of the cgroups that we make
	cpuPeriod   = 100 * time.Millisecond // the kernel's own default
	moveRounds  = 20                     // in which processes that are just being forked are caught
	settleLimit = 2 * time.Second        // for a freeze, a thaw, or the last process to leave
)

// controllers are those that we use, and what they limit, by their names of version 2 where the
// versions differ.
var controllers = map[Resource]string{CPU: "cpu", Memory: "memory", Processes: "pids", IO: "io", Freeze: "freezer"}

// mount is where a hierarchy of cgroups is mounted.
type mount struct {
	dir  string
	root string // which part of the hierarchy is mounted: not all of it, in a container
	v2   bool
}

// hierarchies finds the hierarchy of each controller.
type hierarchies struct {
	one map[string]mount // version 1, by controller
	two *mount
}

func readHierarchies() (hierarchies, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return hierarchies{}, err
	}
	return parseHierarchies(string(text)), nil
}

// parseHierarchies reads proc_pid_mountinfo(5).
func parseHierarchies(mountinfo string) hierarchies {
	h := hierarchies{one: make(map[string]mount)}
	for line := range strings.Lines(mountinfo) {
		before, after, found := strings.Cut(line, " - ")
		fields, super := strings.Fields(before), strings.Fields(after)
		if !found || len(fields) < 5 || len(super) < 3 {
			continue
		}
		m := mount{dir: fields[4], root: fields[3], v2: super[0] == "cgroup2"}
		switch {
		case m.v2 && h.two == nil:
			h.two = &m
		case super[0] == "cgroup":
			for _, option := range strings.Split(super[2], ",") {
				if option == "blkio" {
					option = "io"
				}
				h.one[option] = m
			}
		}
	}
	return h
}

// present returns the directory of the cgroup that a process is in, for a controller.
func (h hierarchies) present(controller string, cgroups string) (dir string, m mount, err error) {
	m, v1 := h.one[controller]
	if !v1 && h.two != nil {
		m = *h.two
	} else if !v1 {
		return "", m, errors.New("no hierarchy of cgroups with that controller is mounted")
	}
	for line := range strings.Lines(cgroups) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		names := strings.Split(strings.ReplaceAll(fields[1], "blkio", "io"), ",")
		if v1 && !slices.Contains(names, controller) || !v1 && fields[0] != "0" {
			continue
		}
		inside, below := strings.CutPrefix(path.Clean(fields[2]), strings.TrimSuffix(m.root, "/"))
		if !below || strings.Contains(fields[2], "/..") {
			return "", m, fmt.Errorf("its cgroup %s lies outside of what is mounted at %s", fields[2], m.dir)
		}
		return filepath.Join(m.dir, inside), m, nil
	}
	return "", m, errors.New("the process is in no cgroup of that controller")
}

// place returns where a cgroup of our own can be made for a process: below its present one. In
// version 2 a cgroup that holds processes cannot limit its children, so it is the nearest one
// above that gives all controllers that any above gives.
func (h hierarchies) place(controller string, cgroups string) (Cgroup, error) {
	dir, m, err := h.present(controller, cgroups)
	if err != nil {
		return Cgroup{}, err
	}
	at := Cgroup{Dir: dir, Parent: dir, V2: m.v2}
	if m.v2 {
		if at.Dir, err = distributor(m.dir, dir, controller); err != nil {
			return Cgroup{}, err
		}
	}
	for _, needed := range []string{at.Dir, filepath.Join(at.Dir, "cgroup.procs")} {
		if err := unix.Access(needed, unix.W_OK); err != nil {
			return Cgroup{}, fmt.Errorf("%s cannot be written: %w", needed, err)
		}
	}
	return at, nil
}

// distributor finds the nearest cgroup, from dir up to top, that gives its children the most
// controllers.
func distributor(top, dir, controller string) (string, error) {
	best, most := dir, -1
	given := ""
	for at := dir; ; at = filepath.Dir(at) {
		text, err := os.ReadFile(filepath.Join(at, "cgroup.subtree_control"))
		if err != nil {
			return "", err
		}
		n := 0
		for _, name := range strings.Fields(string(text)) {
			if slices.Contains([]string{"cpu", "memory", "pids", "io"}, name) {
				n++
			}
		}
		if n > most {
			best, most, given = at, n, string(text)
		}
		if at == top || len(at) <= len(top) {
			break
		}
	}
	if controller != "freezer" && !slices.Contains(strings.Fields(given), controller) {
		return "", fmt.Errorf("no cgroup from %s up gives its children the controller %s (cgroup.subtree_control)", dir, controller)
	}
	return best, nil
}

// read returns a file of the cgroup, or nothing.
func (c Cgroup) read(name string) string {
	text, _ := os.ReadFile(filepath.Join(c.Dir, name))
	return strings.TrimSpace(string(text))
}

// count returns a number of a file of the cgroup: the whole, or that behind a key.
func (c Cgroup) count(name, key string) uint64 {
	for line := range strings.Lines(c.read(name)) {
		value := strings.TrimSpace(line)
		if key != "" {
			var found bool
			if value, found = strings.CutPrefix(value, key+" "); !found {
				continue
			}
		}
		n, _ := strconv.ParseUint(value, 10, 64)
		return n
	}
	return 0
}

func (c Cgroup) write(name, value string) error {
	file, err := os.OpenFile(filepath.Join(c.Dir, name), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	if _, err = file.WriteString(value); err != nil {
		err = fmt.Errorf("write %s: %w", value, err)
	}
	return errors.Join(err, file.Close())
}

// fill makes the cgroup and moves a program into it, all of it: also what is just being forked.
func (c Cgroup) fill(leader Life) error {
	if err := os.Mkdir(c.Dir, 0o755); err != nil {
		return err
	}
	for range moveRounds {
		members, err := family(leader)
		if err != nil {
			return err
		}
		inside := strings.Fields(c.read("cgroup.procs"))
		moved := 0
		for _, member := range members {
			if slices.Contains(inside, strconv.Itoa(member.Pid)) || !member.runs() {
				continue
			}
			moved++
			if err := c.write("cgroup.procs", strconv.Itoa(member.Pid)); err != nil && member.runs() {
				return fmt.Errorf("move pid %d: %w", member.Pid, err)
			}
		}
		if moved == 0 {
			return nil
		}
	}
	return fmt.Errorf("%s: after %d rounds there were still processes of pid %d to move", c.Dir, moveRounds, leader.Pid)
}

// remove moves all processes back to where they came from and removes the cgroup. One that is
// gone is no error.
func (c Cgroup) remove() error {
	if !strings.HasPrefix(filepath.Base(c.Dir), prefix) {
		return fmt.Errorf("%s is no cgroup of ours", c.Dir)
	}
	if _, err := os.Stat(c.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := c.freeze(false); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // what is frozen cannot leave
	}
	parent := Cgroup{Dir: c.Parent}
	var problem error
	for end := time.Now().Add(settleLimit); ; time.Sleep(time.Millisecond) {
		for _, pid := range strings.Fields(c.read("cgroup.procs")) {
			if err := parent.write("cgroup.procs", pid); err != nil && !errors.Is(err, unix.ESRCH) {
				problem = fmt.Errorf("move pid %s back to %s: %w", pid, c.Parent, err)
			}
		}
		err := unix.Rmdir(c.Dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if time.Now().After(end) {
			return errors.Join(fmt.Errorf("remove cgroup %s: %w", c.Dir, err), problem)
		}
	}
}

// freeze freezes or thaws, where the cgroup can, and waits until the kernel says that all of it
// is. It returns an error that is fs.ErrNotExist where the cgroup has no freezer.
func (c Cgroup) freeze(freeze bool) error {
	name, value := "freezer.state", map[bool]string{true: "FROZEN", false: "THAWED"}[freeze]
	if c.V2 {
		name, value = "cgroup.freeze", map[bool]string{true: "1", false: "0"}[freeze]
	}
	if _, err := os.Stat(filepath.Join(c.Dir, name)); err != nil {
		return err
	}
	for end := time.Now().Add(settleLimit); ; time.Sleep(time.Millisecond) {
		// Version 1 stops trying where a task would not freeze at once: it is told again.
		if err := c.write(name, value); err != nil {
			return fmt.Errorf("%s of %s: %w", name, c.Dir, err)
		}
		if c.frozen() == freeze {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s of %s is not %s after %s", name, c.Dir, value, settleLimit)
		}
	}
}

func (c Cgroup) frozen() bool {
	if c.V2 {
		return c.count("cgroup.events", "frozen") == 1
	}
	return c.read("freezer.state") == "FROZEN"
}
