// Package e2e uses the checker as a person does: the built programs, a command line, an
// exit status, a run directory.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// programs builds the three programs once and returns their directory.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "capsize-e2e-")
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "./cmd/...")
	build.Dir = filepath.Join("..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := programs(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// checker is one call of the command line.
type checker struct {
	*exec.Cmd
	out bytes.Buffer // both outputs
}

const callLimit = 4 * time.Minute

func newChecker(t *testing.T, args ...string) *checker {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	t.Cleanup(cancel)
	c := &checker{Cmd: exec.CommandContext(ctx, filepath.Join(dir, "checker"), args...)}
	c.Dir = t.TempDir()
	c.Stdout, c.Stderr = &c.out, &c.out
	return c
}

// status waits for the end and returns the exit status.
func (c *checker) status(t *testing.T) int {
	t.Helper()
	err := c.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode()
}

func (c *checker) run(t *testing.T) int {
	t.Helper()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c.status(t)
}

// runDir is the directory of the newest run.
func (c *checker) runDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(filepath.Join(c.Dir, "runs", "latest"))
	if err != nil {
		t.Fatalf("no run directory: %v\n%s", err, c.out.String())
	}
	return dir
}

type verdict struct {
	Verdict  string   `json:"verdict"`
	Status   int      `json:"status"`
	Headline string   `json:"headline"`
	Problems []string `json:"problems"`
	Results  []struct {
		Checker, Verdict, Summary string
		Faults                    *struct{ Planned, Landed, Healed int }
	} `json:"results"`
}

func readVerdict(t *testing.T, dir string) verdict {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "verdict.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v verdict
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// eventually waits until the condition holds.
func eventually(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func needDocker(t *testing.T) {
	t.Helper()
	out, err := exec.Command("docker", "image", "inspect", "--format", "{{.Id}}", "capsize-node:1").CombinedOutput()
	if err == nil {
		return
	}
	if os.Getenv("CAPSIZE_REQUIRE_DOCKER") != "" {
		t.Fatalf("no Docker engine or no node image (ci/engine, ci/base-image): %v: %s", err, out)
	}
	t.Skipf("no Docker engine or no node image: %s", out)
}

func TestTheReferenceNodeIsValidUnderFaults(t *testing.T) {
	for _, cluster := range []string{"local", "docker"} {
		t.Run(cluster, func(t *testing.T) {
			if cluster == "docker" {
				needDocker(t)
			}
			c := newChecker(t, "run", "--cluster="+cluster, "--time-limit=20s", "--seed=20")
			if status := c.run(t); status != 0 {
				t.Fatalf("exit status %d\n%s", status, c.out.String())
			}
			dir := c.runDir(t)
			for _, name := range []string{"plan.yaml", "schedule.yaml", "history.jsonl", "verdict.json", "report.html", "junit.xml", "summary.md", "run.json", "nodes/n1/trace.jsonl", "nodes/n5/db.log"} {
				if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
					t.Errorf("%s is missing or empty: %v", name, err)
				}
			}
			first := readVerdict(t, dir)
			if first.Verdict != "valid" || len(first.Results) < 5 {
				t.Errorf("verdict %+v", first)
			}
			again := newChecker(t, "check", dir, "--json")
			if status := again.run(t); status != 0 {
				t.Errorf("judged again: exit status %d\n%s", status, again.out.String())
			}
			if second := readVerdict(t, dir); second.Headline != first.Headline || second.Verdict != first.Verdict {
				t.Errorf("judged again: %q, %q before", second.Headline, first.Headline)
			}
		})
	}
}

func TestACorruptedHistoryIsFoundOut(t *testing.T) {
	c := newChecker(t, "run", "--time-limit=3s", "--nemesis=none", "--seed=3")
	if status := c.run(t); status != 0 {
		t.Fatalf("exit status %d\n%s", status, c.out.String())
	}
	dir := c.runDir(t)
	corruptOneRead(t, filepath.Join(dir, "history.jsonl"))
	again := newChecker(t, "check", dir)
	if status := again.run(t); status != 1 {
		t.Errorf("exit status %d for a read of an older value\n%s", status, again.out.String())
	}
	if v := readVerdict(t, dir); v.Verdict != "invalid" {
		t.Errorf("verdict %q", v.Verdict)
	}
}

// corruptOneRead lets one late read of a much written key return that key's first value.
func corruptOneRead(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(data), "\n")
	for i := len(lines) - 1; i > 0; i-- {
		var event struct {
			Type, F string
			Value   *int64
			Final   bool
		}
		if json.Unmarshal([]byte(lines[i]), &event) != nil || event.Type != "ok" || event.F != "read" || event.Final || event.Value == nil || *event.Value < 10 {
			continue
		}
		lines[i] = strings.Replace(lines[i], fmt.Sprintf(`"value":%d`, *event.Value), `"value":1`, 1)
		if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatal("no read to corrupt")
}

func TestCtrlCStopsHealsAndJudgesWhatThereIs(t *testing.T) {
	c := newChecker(t, "run", "--time-limit=60s", "--seed=5")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "a fault landed", func() bool { return strings.Contains(history(c.Dir), `"landed"`) })
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if status := c.status(t); status != 2 {
		t.Errorf("exit status %d: a run that was cut short is unknown\n%s", status, c.out.String())
	}
	if !strings.Contains(c.out.String(), "stopped early") {
		t.Errorf("it does not say that it stopped early:\n%s", c.out.String())
	}
	leftOver(t, c.runDir(t))
}

// history returns the newest history below dir as far as it is written.
func history(dir string) string {
	data, err := os.ReadFile(filepath.Join(dir, "runs", "latest", "history.jsonl"))
	if err != nil {
		return ""
	}
	return string(data)
}

// leftOver fails if a process that belongs to the run is still there.
func leftOver(t *testing.T, dir string) {
	t.Helper()
	if processes := processesOf(dir); len(processes) > 0 {
		t.Errorf("left running: %q", processes)
	}
}

// processesOf returns the command lines that mention the run's directory.
func processesOf(dir string) []string {
	var found []string
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		if data, err := os.ReadFile(path); err == nil && bytes.Contains(data, []byte(dir)) {
			found = append(found, strings.ReplaceAll(string(data), "\x00", " "))
		}
	}
	return found
}

// twoFaults pauses one node and cuts another off for a minute.
const twoFaults = `steps:
- {at: 1s, duration: 60s, fault: pause, target: n2}
- {at: 1s, duration: 60s, fault: partition, target: n3, params: {kind: isolate}}
`

// fourFaults are also a stalled disk and a slow network.
const fourFaults = twoFaults + `- {at: 2s, duration: 60s, fault: disk, target: n4, params: {kind: stall, on: create}}
- {at: 2s, duration: 60s, fault: packet, target: n5, params: {direction: in}}
`

func TestKillingTheCheckerLeavesNoBrokenMachine(t *testing.T) {
	t.Run("local", func(t *testing.T) {
		c := startFaulty(t, "local", twoFaults, 2)
		dir := c.runDir(t)
		if len(processesOf(dir)) == 0 {
			t.Fatal("no process of the run is there before the kill")
		}
		kill(t, c)
		eventually(t, 10*time.Second, "every process of the run is gone", func() bool { return len(processesOf(dir)) == 0 })
		again := newChecker(t, "check", dir)
		if status := again.run(t); status != 3 {
			t.Errorf("a run whose checker was killed: exit status %d, want 3\n%s", status, again.out.String())
		}
	})
	t.Run("docker", func(t *testing.T) {
		c, containers := startFaultyContainers(t)
		kill(t, c)
		eventually(t, 10*time.Second, "all nodes healed by their agents", func() bool { return healthy(t, containers) })
		cleanUp(t, c)
	})
	t.Run("docker, and its agents with it", func(t *testing.T) {
		c, containers := startFaultyContainers(t)
		if err := c.Process.Signal(syscall.SIGSTOP); err != nil { // it shall not notice, and take all down
			t.Fatal(err)
		}
		for _, container := range containers {
			// The agent works for its guardian, which is its parent and has the same name.
			inContainer(t, container, `kill -9 $(pgrep -P $(pgrep -ox agent) -x agent)`)
		}
		eventually(t, 10*time.Second, "all nodes healed by the agents' guardians", func() bool { return healthy(t, containers) })
		kill(t, c)
		cleanUp(t, c)
	})
}

// startFaultyContainers starts a run in containers and waits until its faults are in force.
func startFaultyContainers(t *testing.T) (*checker, []string) {
	t.Helper()
	needDocker(t)
	c := startFaulty(t, "docker", fourFaults, 4)
	containers := containersOf(t, c.runDir(t))
	if len(containers) != 5 {
		t.Fatalf("%d containers", len(containers))
	}
	if !paused(t, containers[1]) || !cutOff(t, containers[2]) || writes(t, containers[3]) || !shaped(t, containers[4]) {
		t.Fatal("the faults are not in force before the kill")
	}
	return c, containers
}

func healthy(t *testing.T, containers []string) bool {
	return !paused(t, containers[1]) && !cutOff(t, containers[2]) && writes(t, containers[3]) && !shaped(t, containers[4])
}

func cleanUp(t *testing.T, c *checker) {
	t.Helper()
	clean := newChecker(t, "clean")
	if status := clean.run(t); status != 0 {
		t.Errorf("clean: exit status %d\n%s", status, clean.out.String())
	}
	if left := containersOf(t, c.runDir(t)); len(left) > 0 {
		t.Errorf("clean left %v", left)
	}
}

func startFaulty(t *testing.T, cluster, faults string, n int) *checker {
	t.Helper()
	schedule := filepath.Join(t.TempDir(), "faults.yaml")
	if err := os.WriteFile(schedule, []byte(faults), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newChecker(t, "run", "--cluster="+cluster, "--time-limit=90s", "--schedule="+schedule)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.out.String())
		}
	})
	eventually(t, time.Minute, "all faults landed", func() bool { return strings.Count(history(c.Dir), `"landed"`) >= n })
	return c
}

func kill(t *testing.T, c *checker) {
	t.Helper()
	if err := c.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // killed: that is what was asked for
}

// containersOf returns the names of a run's containers, in order of node.
func containersOf(t *testing.T, dir string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	var facts struct{ ID string }
	if err := json.Unmarshal(data, &facts); err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := 1; i <= 5; i++ {
		name := fmt.Sprintf("capsize-%s-n%d", facts.ID, i)
		if exec.Command("docker", "inspect", name).Run() == nil {
			names = append(names, name)
		}
	}
	return names
}

func inContainer(t *testing.T, container, script string) string {
	t.Helper()
	out, err := exec.Command("docker", "exec", container, "sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Logf("%s: %s: %v: %s", container, script, err, out)
	}
	return string(out)
}

// paused reports whether the node's process is stopped.
func paused(t *testing.T, container string) bool {
	return strings.Contains(inContainer(t, container, `grep -h ^State /proc/$(pgrep -x raftnode)/status`), "T (stopped)")
}

// cutOff reports whether the packet filter drops what some peer sends to the container.
func cutOff(t *testing.T, container string) bool {
	return strings.Contains(inContainer(t, container, "nft list ruleset | sed -n '/set peers/,/}/p'"), "elements")
}

// shaped reports whether the kernel queues packets for the agent.
func shaped(t *testing.T, container string) bool {
	return strings.Contains(inContainer(t, container, "nft list ruleset"), "_packets")
}

// writes reports whether a file can be made on the disk of the container's node.
func writes(t *testing.T, container string) bool {
	return strings.Contains(inContainer(t, container, `cd /var/lib/capsize/*/data && timeout -s KILL 2 touch probe; [ -e probe ] && rm probe && echo yes || echo no`), "yes")
}
