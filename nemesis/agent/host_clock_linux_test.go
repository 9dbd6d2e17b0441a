package agent

import (
	"bytes"
	"errors"
	"io/fs"
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
	if reply.Before.Round(time.Millisecond) != time.Hour+time.Second || reply.Rate != 1.1 {
		t.Errorf("%+v", reply)
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
	host := map[string]string{"/proc/1/environ": "HOME=/\x00TERM=linux\x00", "/proc/self/uid_map": "         0          0 4294967295\n", "/proc/1/cgroup": "0::/init.scope\n"}
	with := func(path, content string) func(string) ([]byte, error) {
		return func(asked string) ([]byte, error) {
			if asked == path {
				return []byte(content), nil
			}
			if content, there := host[asked]; there {
				return []byte(content), nil
			}
			return nil, fs.ErrNotExist
		}
	}
	if sign := containerSign(with("", "")); sign != "" {
		t.Errorf("a host is taken for a container: %s", sign)
	}
	for path, content := range map[string]string{
		"/.dockerenv": "", "/run/.containerenv": "", "/run/systemd/container": "lxc",
		"/proc/1/environ": "PATH=/bin\x00container=podman\x00", "/proc/self/uid_map": "0 100000 65536\n", "/proc/1/cgroup": "12:pids:/docker/0123\n",
	} {
		if containerSign(with(path, content)) == "" {
			t.Errorf("%s with %q is taken for a host", path, content)
		}
	}
	if !mayUse([]byte("Name:\tx\nCapEff:\t0000000002000000\n"), capSysTime) || mayUse([]byte("CapEff:\t00000000fdffffff\n"), capSysTime) || mayUse(nil, capSysTime) {
		t.Error("the capability is not read right")
	}
}
