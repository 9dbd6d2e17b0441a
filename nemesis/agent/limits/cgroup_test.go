//go:build linux

package limits

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree makes a directory tree that looks like cgroups of version 2, as far as files can: nothing
// in it acts.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	top := t.TempDir()
	for name, text := range files {
		path := filepath.Join(top, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return top
}

func TestInVersion2TheNearestThatGivesControllersIsChosen(t *testing.T) {
	top := tree(t, map[string]string{
		"cgroup.subtree_control":                                "cpu memory pids",
		"cgroup.procs":                                          "",
		"user.slice/cgroup.subtree_control":                     "cpu memory pids",
		"user.slice/cgroup.procs":                               "",
		"user.slice/session-1.scope/cgroup.procs":               "7",
		"user.slice/session-1.scope/cgroup.subtree_control":     "",
		"user.slice/session-1.scope/own/cgroup.procs":           "",
		"user.slice/session-1.scope/own/cgroup.subtree_control": "",
	})
	h := hierarchies{two: &mount{dir: top, root: "/", v2: true}}
	cgroups := "0::/user.slice/session-1.scope\n"
	for _, controller := range []string{"cpu", "memory", "pids", "freezer"} {
		at, err := h.place(controller, cgroups)
		if err != nil || at.Dir != filepath.Join(top, "user.slice") || at.Parent != filepath.Join(top, "user.slice/session-1.scope") || !at.V2 {
			t.Errorf("%s: %+v, %v", controller, at, err)
		}
	}
	if _, err := h.place("io", cgroups); err == nil || !strings.Contains(err.Error(), "gives its children the controller io") {
		t.Errorf("io: %v", err)
	}
}

func TestInVersion2EachFileIsWrittenAndReadBack(t *testing.T) {
	dir := tree(t, map[string]string{
		"cpu.max": "max 100000", "memory.max": "max", "memory.swap.max": "max", "pids.max": "max", "pids.current": "12",
		"cgroup.freeze": "0", "cgroup.events": "populated 1\nfrozen 1\n", "io.max": "",
		"cpu.stat": "usage_usec 9\nnr_throttled 4\n", "memory.events": "low 0\nmax 3\noom_kill 1\n", "pids.events": "max 5\n",
		"io.stat": "8:0 rbytes=100 wbytes=20 rios=1\n8:16 rbytes=3 wbytes=0\n",
	})
	c := Cgroup{Dir: dir, V2: true}
	for _, step := range []struct {
		resource Resource
		limit    Limit
		file     string
		want     string
	}{
		{CPU, Limit{CPU: 0.25}, "cpu.max", "25000 100000"},
		{CPU, Limit{}, "cpu.max", "max 100000"},
		{Memory, Limit{Memory: 1 << 20}, "memory.max", "1048576"},
		{Memory, Limit{Memory: 1 << 20}, "memory.swap.max", "0"},
		{Memory, Limit{}, "memory.swap.max", "max"},
		{Processes, Limit{Processes: 8}, "pids.max", "20"},
		{Processes, Limit{}, "pids.max", "max"},
		{Freeze, Limit{Frozen: true}, "cgroup.freeze", "1"},
	} {
		how, err := c.set(step.resource, step.limit, "")
		if got := c.read(step.file); err != nil || got != step.want || how == "" {
			t.Errorf("%s %+v: %s is %q, want %q (%s, %v)", step.resource, step.limit, step.file, got, step.want, how, err)
		}
	}
	var s Seen
	for _, resource := range Resources {
		c.look(resource, &s)
	}
	if s.Throttled != 4 || s.Refused != 3 || s.OOMKills != 1 || s.ForksFail != 5 || s.IOBytes != 123 || !s.Frozen {
		t.Errorf("%+v", s)
	}
	if device, err := deviceOf("/"); err == nil {
		if _, err := c.set(IO, Limit{WriteRate: 5}, "/"); err != nil || c.read("io.max") != device+" rbps=max wbps=5" {
			t.Errorf("%q, %v", c.read("io.max"), err)
		}
	}
}

func TestHierarchiesAreFoundInBothVersionsAndInContainers(t *testing.T) {
	h := parseHierarchies(strings.Join([]string{
		"30 20 0:1 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory",
		"31 20 0:2 / /sys/fs/cgroup/blkio rw shared:3 - cgroup cgroup rw,blkio",
		"32 20 0:3 / /sys/fs/cgroup/unified rw - cgroup2 none rw",
		"33 20 0:4 / /tmp rw - tmpfs tmpfs rw",
	}, "\n"))
	cgroups := "4:memory:/docker/abc/db\n5:blkio:/\n0::/x\n"
	for controller, want := range map[string]string{
		"memory": "/sys/fs/cgroup/memory/db", "io": "/sys/fs/cgroup/blkio", "cpu": "/sys/fs/cgroup/unified/x",
	} {
		if dir, _, err := h.present(controller, cgroups); err != nil || dir != want {
			t.Errorf("%s: %q, %v, want %q", controller, dir, err, want)
		}
	}
	if _, _, err := h.present("memory", "4:memory:/elsewhere\n"); err == nil || !strings.Contains(err.Error(), "outside") {
		t.Errorf("a cgroup that is not mounted: %v", err)
	}
}

func FuzzParseHierarchies(f *testing.F) {
	f.Add("30 20 0:1 /d /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory", "4:memory:/d/db\n0::/x")
	f.Add("1 2 - cgroup2 a b", "::")
	f.Fuzz(func(t *testing.T, mountinfo, cgroups string) {
		h := parseHierarchies(mountinfo)
		for _, controller := range controllers {
			if dir, _, err := h.present(controller, cgroups); err != nil && dir != "" {
				t.Errorf("%q and %v", dir, err)
			}
		}
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("7 (a b) ) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 0 0 1 0 4242 0"))
	f.Add([]byte(")"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, text []byte) { _, _ = parseStat(1, text) })
}
