//go:build linux

package limits

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// needDocker skips where no container can be made.
func needDocker(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("docker", "version").CombinedOutput(); err != nil {
		if os.Getenv("CAPSIZE_REQUIRE_DOCKER") == "1" {
			t.Fatalf("no Docker engine: %v: %s", err, out)
		}
		t.Skip("no Docker engine")
	}
}

// image makes an image that holds this test binary alone, which has to be linked statically for
// it, and returns its name.
func image(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "test", "-c", "-o", filepath.Join(dir, "limits.test"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file := "FROM scratch\nCOPY limits.test /limits.test\nCOPY Dockerfile /tmp/there\n"
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("capsize-limits-test-%d", os.Getpid())
	docker(t, "build", "-q", "-t", name, dir)
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", name).Run() })
	return name
}

func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("docker", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// In a plain container cgroups cannot be written, and root is exempt from RLIMIT_NPROC.
func TestInAContainer(t *testing.T) {
	if os.Getenv(insideVariable) != "" {
		t.Skip("this is the run inside")
	}
	needDocker(t)
	out := docker(t, "run", "--rm", "--network", "none", "--cap-add", "NET_ADMIN", "-e", insideVariable+"=1", image(t),
		"/limits.test", "-test.v", "-test.run", "Spinner|Held|Files|MemoryIsRefused|TasksRunOut|KilledOneDid|Survey|Meanwhile|Pid", "-test.timeout=100s")
	for _, want := range []string{
		"--- PASS: TestASpinnerIsSlowedAndGoesOn/stopping_and_continuing", "--- PASS: TestFilesRunOutAndComeBack",
		"--- PASS: TestMemoryIsRefusedAndComesBack", "--- PASS: TestTasksRunOutAndComeBack", "--- PASS: TestAnotherProcessUndoesWhatAKilledOneDid/rlimit",
		"RLIMIT_NPROC does not hold for root", "the fault pause stops a process without it",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("inside there is no %q", want)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}

const insideVariable = "CAPSIZE_LIMITS_TEST_INSIDE"

// From the host as root the cgroup of a container's process has one of our own below it.
func TestAContainersMemoryIsLimitedFromTheHost(t *testing.T) {
	needDocker(t)
	if os.Getuid() != 0 {
		t.Skip("cgroups of containers are root's")
	}
	needCgroup(t, Memory)
	name := fmt.Sprintf("capsize-limits-test-%d", os.Getpid())
	command := exec.Command("docker", "run", "--rm", "-i", "--name", name, "--network", "none", "-e", roleVariable+"=program", image(t), "/limits.test")
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	command.Stdout = &out
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("docker", "rm", "-f", name).Run() // it may have ended
		_ = in.Close()
		_ = command.Wait()
	})
	pid := 0
	eventually(t, "the container runs", func() bool {
		text, _ := exec.Command("docker", "inspect", "-f", "{{.State.Pid}}", name).Output()
		pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return pid > 0
	})
	l, err := New(pid, name, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, l, Limit{Memory: 32 << 20})
	if s := seen(t, l); !strings.Contains(s.How[Memory], "33554432") {
		t.Errorf("%+v", s)
	}
	before := l.cgroups[Memory]
	if !strings.Contains(before.Dir, "docker") {
		t.Fatalf("%s is not below the container's cgroup", before.Dir)
	}
	if _, err := in.Write([]byte("map 64\n")); err != nil {
		t.Fatal(err)
	}
	kills := uint64(0)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		over := !l.leader.runs() // before the last look, and the engine takes a while to tidy up
		s, _ := l.Seen()         // of what has ended there is less to see
		if kills = max(kills, s.OOMKills, s.Refused); over {
			break
		}
	}
	if l.leader.runs() || kills == 0 {
		t.Errorf("it runs: %v, and met the limit %d times", l.leader.runs(), kills)
	}
	clearLimits(t, l)
	if _, err := os.Stat(before.Dir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", before.Dir, err)
	}
}
