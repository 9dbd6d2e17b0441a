package docker

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// deadProcess returns the id of a process that has ended and was waited for.
func deadProcess(t *testing.T) int {
	t.Helper()
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	return gone.Process.Pid
}

func TestACheckerIsTakenForAliveUnlessItIsKnownToBeGone(t *testing.T) {
	unwaited := exec.Command("sh", "-c", "read line")
	in, err := unwaited.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := unwaited.Start(); err != nil {
		t.Fatal(err)
	}
	owned := func(pid int, started string) string { return fmt.Sprintf("%s/%d/%s", hostname(), pid, started) }
	started, _ := startOf(unwaited.Process.Pid)
	zombie := owned(unwaited.Process.Pid, started)
	if !mayBeAlive(zombie) {
		t.Error("a checker that waits is taken for dead")
	}
	if err := unwaited.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/self/stat"); err == nil {
		waitUntil(t, "a killed checker that nobody waited for is dead", func() bool { return !mayBeAlive(zombie) })
	}
	_ = in.Close()
	_ = unwaited.Wait()

	started, _ = startOf(os.Getpid())
	for what, c := range map[string]struct {
		owner string
		alive bool
	}{
		"this process":                          {owner(), true},
		"one that has ended":                    {owned(deadProcess(t), "1"), false},
		"an earlier process with this one's id": {owned(os.Getpid(), started+"0"), false},
		"this one, its start not known":         {owned(os.Getpid(), ""), true},
		"one of another machine":                {fmt.Sprintf("elsewhere/%d/1", deadProcess(t)), true},
		"what nobody can read":                  {"nonsense", true},
		"no process":                            {owned(0, "1"), true},
		"nothing":                               {"", true},
	} {
		if mayBeAlive(c.owner) != c.alive {
			t.Errorf("%s, %q: alive is %v", what, c.owner, !c.alive)
		}
	}
}

func TestCleanRemovesADeadRunAndLeavesALiveOneAndForeignOnes(t *testing.T) {
	engine := needEngine(t)
	c := start(t, 1)
	live := c.options.Run
	dead, elsewhere, lookalike := newRun(), newRun(), newRun()
	labels := func(run, checker string) []string {
		return []string{"--label", "capsize=true", "--label", "capsize.run=" + run, "--label", "capsize.checker=" + checker}
	}
	create := func(run string, labels []string) {
		docker(t, slices.Concat([]string{"network", "create", "--internal"}, labels, []string{"capsize-" + run})...)
		t.Cleanup(func() { _ = exec.Command("docker", "network", "rm", "capsize-"+run).Run() }) // gone already where Clean works
		docker(t, slices.Concat([]string{"run", "-d", "--network", "capsize-" + run, "--name", "capsize-" + run + "-n1"}, labels, []string{image, "sleep", "1000"})...)
		t.Cleanup(func() { _ = exec.Command("docker", "rm", "-f", "capsize-"+run+"-n1").Run() })
	}
	create(dead, labels(dead, fmt.Sprintf("%s/%d/1", hostname(), deadProcess(t))))
	create(elsewhere, labels(elsewhere, fmt.Sprintf("elsewhere/%d/1", deadProcess(t))))
	create(lookalike, nil) // in name only

	removed, err := Clean(t.Context(), CleanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"capsize-" + dead, "capsize-" + dead + "-n1"} {
		if !slices.Contains(removed, name) {
			t.Errorf("it removed %v, not %s", removed, name)
		}
	}
	if left := remains(t, engine, dead); len(left) > 0 {
		t.Errorf("of the dead run %v is left", left)
	}
	for _, run := range []string{live, elsewhere, lookalike} {
		if slices.ContainsFunc(removed, func(name string) bool { return strings.Contains(name, run) }) {
			t.Errorf("it removed %v, where %s was not to be touched", removed, run)
		}
		docker(t, "inspect", "capsize-"+run+"-n1")
		docker(t, "network", "inspect", "capsize-"+run)
	}
	if got := say(t, c.Host("n1"), "echo", "here"); got != "here" {
		t.Errorf("the live run's host says %q", got)
	}
}

// Force would reach the clusters of other runs on this machine, so that it is asked only
// what it would choose.
func TestOnlyForceRemovesARunThatGoesOn(t *testing.T) {
	alive := map[string]string{labelChecker: owner()}
	if (CleanOptions{}).chooses(alive) || !(CleanOptions{Force: true}).chooses(alive) {
		t.Error("a run that goes on is chosen without force, or not with it")
	}
}

func waitUntil(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
