package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pretendClock is a machine's clock that no machine has: time passes on it when it is told.
type pretendClock struct {
	wall, untouchable time.Duration
	at                HostPace
	broken            bool
}

var usualPace = HostPace{Tick: 10_000, Frequency: 1 << 16}

func newPretendClock() *pretendClock {
	return &pretendClock{wall: 1_000_000 * time.Hour, untouchable: time.Hour, at: usualPace}
}

func (c *pretendClock) pass(d time.Duration) {
	c.untouchable += d
	c.wall += time.Duration(float64(d) * float64(c.at.Tick) / 10_000)
}

func (c *pretendClock) read() (wall, raw time.Duration, err error) { return c.wall, c.untouchable, nil }
func (c *pretendClock) pace() (HostPace, error)                    { return c.at, nil }
func (c *pretendClock) set(wall time.Duration) error {
	if c.broken {
		return errors.New("not permitted")
	}
	c.wall = wall
	return nil
}

func (c *pretendClock) setPace(p HostPace) error {
	c.at = p
	return nil
}

func (c *pretendClock) ahead() time.Duration { return c.wall - c.untouchable - 999_999*time.Hour }

func TestTheMachinesClockIsSetInLayersAndPutRight(t *testing.T) {
	c := newPretendClock()
	var notes bytes.Buffer
	tool := &hostClockTool{clock: c, journal: newJournal(&notes), applied: make(map[string]HostClockLayer)}
	do := func(want time.Duration, layers ...HostClockLayer) *HostClocksReply {
		t.Helper()
		reply, err := tool.set(HostClocks{Layers: layers})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.ahead().Round(time.Millisecond); got != want || reply.After.Round(time.Millisecond) != want {
			t.Errorf("%v: the clock is ahead by %s, the reply says %s, want %s", layers, got, reply.After, want)
		}
		return reply
	}
	hour, fast, back := HostClockLayer{"1", time.Hour, 1}, HostClockLayer{"2", 0, 1.1}, HostClockLayer{"3", -time.Minute, 1}
	do(0)
	if notes.Len() > 0 {
		t.Errorf("nothing was done, and noted: %s", &notes)
	}
	do(time.Hour, hour)
	do(time.Hour, hour) // the same again jumps no further
	do(time.Hour, hour, fast)
	c.pass(10 * time.Second)
	reply := do(time.Hour+time.Second-time.Minute, hour, fast, back)
	if reply.Before.Round(time.Millisecond) != time.Hour+time.Second || math.Abs(reply.Rate-1.1) > 1e-5 {
		t.Errorf("%+v", reply)
	}
	if reply := do(time.Second-time.Minute, fast, back, HostClockLayer{"4", 0, 1.1}); reply.Rate > 1.1 || c.at.Tick != 11_000 {
		t.Errorf("two that are fast make it run at %v, %+v; the kernel allows 1.1", reply.Rate, c.at)
	}
	do(time.Second-time.Minute, fast, back)
	do(time.Second, fast)
	do(0)
	if c.at != usualPace {
		t.Errorf("the pace is %+v", c.at)
	}
	undos, err := readJournal(&notes)
	if err != nil || len(undos) != 0 {
		t.Errorf("all is healed, and noted as to be undone: %+v, %v", undos, err)
	}
}

// deafClock does not follow when its pace is set.
type deafClock struct{ *pretendClock }

func (deafClock) setPace(HostPace) error { return nil }

func TestARateIsReadBackAndNotBelieved(t *testing.T) {
	tool := &hostClockTool{clock: deafClock{newPretendClock()}, journal: newJournal(io.Discard), applied: make(map[string]HostClockLayer)}
	if reply, err := tool.set(HostClocks{Layers: []HostClockLayer{{"1", 0, 1.05}}}); err != nil || reply.Rate != 1 {
		t.Errorf("%+v, %v", reply, err)
	}
}

func TestAGuardianPutsTheMachinesClockRight(t *testing.T) {
	c := newPretendClock()
	var notes bytes.Buffer
	tool := &hostClockTool{clock: c, journal: newJournal(&notes), applied: make(map[string]HostClockLayer)}
	if _, err := tool.set(HostClocks{Layers: []HostClockLayer{{"1", -time.Hour, 0.9}}}); err != nil {
		t.Fatal(err)
	}
	c.pass(time.Minute) // then the agent is killed
	undos, err := readJournal(&notes)
	if err != nil || len(undos) != 1 || undos[0].HostClock == nil {
		t.Fatalf("%+v, %v", undos, err)
	}
	if err := undos[0].HostClock.restore(c); err != nil || c.ahead() != 0 || c.at != usualPace {
		t.Errorf("it is ahead by %s, at %+v, %v", c.ahead(), c.at, err)
	}
	c.broken = true
	if err := undos[0].HostClock.restore(c); err == nil || !strings.Contains(err.Error(), "put the machine's clock right") {
		t.Errorf("%v", err)
	}
}

func TestTheMachinesClockIsNotTouchedWhereOthersUseIt(t *testing.T) {
	tool := newHostClockTool(&Hello{}, nil)
	if a := tool.survey(t.Context()); a[0].How != "" || !strings.Contains(a[0].Why, "--cluster ssh only") {
		t.Errorf("%+v", a)
	}
	if _, err := tool.set(HostClocks{Layers: []HostClockLayer{{"1", time.Hour, 1}}}); err == nil {
		t.Error("it was set")
	}
	if err := tool.heal(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestContainersAreKnown(t *testing.T) {
	host := map[string]string{"/proc/1/environ": "HOME=/\x00TERM=linux\x00", "/proc/1/cgroup": "0::/init.scope\n", "/proc/self/ns/pid": "pid:[4026531836]"}
	sign := func(path, content string) string {
		readLink := func(asked string) (string, error) {
			if asked == path {
				return content, nil
			}
			if content, there := host[asked]; there {
				return content, nil
			}
			return "", fs.ErrNotExist
		}
		return containerSign(func(asked string) ([]byte, error) {
			content, err := readLink(asked)
			return []byte(content), err
		}, readLink)
	}
	if sign := sign("", ""); sign != "" {
		t.Errorf("a host is taken for a container: %s", sign)
	}
	for path, content := range map[string]string{
		"/.dockerenv": "", "/run/.containerenv": "", "/run/systemd/container": "lxc",
		"/proc/1/environ": "PATH=/bin\x00container=podman\x00", "/proc/1/cgroup": "12:pids:/docker/0123\n",
		"/proc/self/ns/pid": "pid:[4026532180]", "/proc/self/ns/user": "user:[4026532181]", "/proc/self/ns/cgroup": "cgroup:[4026532182]", "/proc/self/ns/time": "time:[4026532183]",
	} {
		if sign(path, content) == "" {
			t.Errorf("%s with %q is taken for a host", path, content)
		}
	}
	if containerSign(func(string) ([]byte, error) { return nil, fs.ErrNotExist }, func(string) (string, error) { return "", fs.ErrPermission }) == "" {
		t.Error("where nothing can be told it is taken for a host")
	}
	if !mayUse([]byte("Name:\tx\nCapEff:\t0000000002000000\n"), capSysTime) || mayUse([]byte("CapEff:\t00000000fdffffff\n"), capSysTime) || mayUse(nil, capSysTime) {
		t.Error("the capability is not read right")
	}
}

// surveyContained says what an agent that may set its host's clock finds out in a container, and
// what it goes by where no file tells. It sets nothing.
func surveyContained() {
	found := newHostClockTool(&Hello{HostClock: true}, nil).survey(context.Background())[0]
	fmt.Printf("how: %s\nwhy: %s\n", found.How, found.Why)
	nothing := func(string) ([]byte, error) { return nil, fs.ErrNotExist }
	fmt.Printf("no file tells: %s\n", containerSign(nothing, os.Readlink))
}

func TestNoContainerSetsTheClockOfItsMachine(t *testing.T) {
	if out, err := exec.Command("docker", "version").CombinedOutput(); err != nil {
		if os.Getenv("CAPSIZE_REQUIRE_DOCKER") == "1" {
			t.Fatalf("no Docker engine: %v: %s", err, out)
		}
		t.Skip("no Docker engine")
	}
	run := func(name string, args ...string) string {
		t.Helper()
		command := exec.Command(name, args...)
		command.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
		return string(out)
	}
	dir, image := t.TempDir(), fmt.Sprintf("capsize-host-clock-test-%d", os.Getpid())
	run("go", "test", "-c", "-o", filepath.Join(dir, "agent.test"), ".")
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY agent.test /agent.test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run("docker", "build", "-q", "-t", image, dir)
	t.Cleanup(func() { run("docker", "rmi", "-f", image) })
	// With the right to set the clock, so that nothing but the container is in its way.
	out := run("docker", "run", "--rm", "--network", "none", "--cap-add", "SYS_TIME", "-e", roleVariable+"=contained", image, "/agent.test")
	for _, want := range []string{"how: \n", "why: this is a container (/.dockerenv)", "the fault clock changes it for one process", "no file tells: its pid namespace is not the machine's"} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %q in %q", want, out)
		}
	}
}
