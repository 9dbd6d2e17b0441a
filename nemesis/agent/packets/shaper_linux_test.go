package packets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The tests of this file run in a network namespace of their own: the test binary calls
// itself in one. Nothing outside of it is touched.

const (
	roleVariable = "PACKETS_TEST_ROLE"
	patience     = 5 * time.Second
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "network":
		for _, line := range []string{"link set lo up", "-6 address add fd00::1/128 dev lo nodad", "-6 address add fd00::2/128 dev lo nodad"} {
			if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "prepare the network namespace: ip %s: %v: %s\n", line, err, out)
				os.Exit(1)
			}
		}
	case "agent": // shapes until it is killed
		s, err := Open("capsize_agent", netip.Addr{}, 1)
		if err == nil {
			err = s.Set(map[netip.Addr]Shape{netip.MustParseAddr("127.0.0.2"): {Delay: DelayMost}})
		}
		fmt.Println("set", err)
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// inNamespace reports whether the test runs in its own namespace; else it starts it there
// and the caller is done.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(roleVariable) == "network" {
		return true
	}
	command := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	command.Env = append(os.Environ(), roleVariable+"=network")
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := command.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("a network namespace takes root: %v", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in its own network namespace: %v\n%s", err, out)
	}
	t.Logf("%s", out)
	return false
}

var addresses = map[string]struct{ self, peer, other string }{
	"IPv4": {"127.0.0.1", "127.0.0.2", "127.0.0.3"},
	"IPv6": {"fd00::1", "fd00::2", "::1"},
}

func newShaper(t *testing.T) *Shaper {
	t.Helper()
	s, err := Open("capsize_test", netip.Addr{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func set(t *testing.T, s *Shaper, source string, shape Shape) {
	t.Helper()
	if err := s.Set(map[netip.Addr]Shape{netip.MustParseAddr(source): shape}); err != nil {
		t.Fatal(err)
	}
}

// arrival is a datagram that arrived.
type arrival struct {
	number uint32
	took   time.Duration
}

// send sends n numbered datagrams, and returns what arrives until nothing does for silence.
func send(t *testing.T, from, to string, n int, silence time.Duration) []arrival {
	t.Helper()
	receiver, err := net.ListenPacket("udp", net.JoinHostPort(to, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = receiver.Close() }()
	_ = receiver.(*net.UDPConn).SetReadBuffer(4 << 20)
	sender, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, receiver.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sender.Close() }()
	began := make([]time.Time, n)
	for i := range n {
		began[i] = time.Now()
		if _, err := sender.Write(binary.BigEndian.AppendUint32(make([]byte, 96, 100), uint32(i))); err != nil {
			t.Fatal(err)
		}
	}
	var arrived []arrival
	for buffer := make([]byte, 1000); ; {
		_ = receiver.SetReadDeadline(time.Now().Add(silence))
		size, _, err := receiver.ReadFrom(buffer)
		if err != nil {
			return arrived
		}
		number := binary.BigEndian.Uint32(buffer[size-4:])
		arrived = append(arrived, arrival{number, time.Since(began[number])})
	}
}

func about(got uint64, want, n float64) bool {
	return float64(got) > want*n-0.05*n && float64(got) < want*n+0.05*n
}

func TestEachEffectIsSeenByTheReceiverAndOnlyThere(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	const n, silence = 1000, 150 * time.Millisecond
	for name, a := range addresses {
		for _, effect := range []struct {
			name  string
			shape Shape
			check func(arrived []arrival, c Count) bool
		}{
			{"nothing", Shape{}, func(arrived []arrival, c Count) bool {
				return len(arrived) == n && c == Count{Seen: n}
			}},
			{"delay", Shape{Delay: 50 * time.Millisecond}, func(arrived []arrival, c Count) bool {
				soonest := slices.MinFunc(arrived, func(a, b arrival) int { return int(a.took - b.took) }).took
				return len(arrived) == n && c.Delayed == n && soonest >= 50*time.Millisecond
			}},
			{"loss", Shape{Loss: 0.3}, func(arrived []arrival, c Count) bool {
				return about(c.Lost, 0.3, n) && uint64(len(arrived)) == n-c.Lost
			}},
			{"duplicate", Shape{Duplicate: 0.3}, func(arrived []arrival, c Count) bool {
				return about(c.Duplicated, 0.3, n) && uint64(len(arrived)) == n+c.Duplicated
			}},
			{"reorder", Shape{Delay: 50 * time.Millisecond, Reorder: 0.3}, func(arrived []arrival, c Count) bool {
				return len(arrived) == n && c.Reordered > n/5 &&
					!slices.IsSortedFunc(arrived, func(a, b arrival) int { return int(a.number) - int(b.number) })
			}},
			{"corrupt", Shape{Corrupt: 0.3}, func(arrived []arrival, c Count) bool {
				return about(c.Corrupted, 0.3, n) && uint64(len(arrived)) == n-c.Corrupted
			}},
			{"rate", Shape{Rate: 1 << 20}, func(arrived []arrival, c Count) bool { // 1000 packets of 128 bytes or more
				return len(arrived) == n && arrived[n-1].took > 60*time.Millisecond && c.Limited > n/2
			}},
		} {
			t.Run(name+" "+effect.name, func(t *testing.T) {
				s := newShaper(t)
				set(t, s, a.peer, effect.shape)
				arrived := send(t, a.peer, a.self, n, silence)
				count := s.Counts()[netip.MustParseAddr(a.peer)]
				if len(arrived) == 0 || count.Seen != n || !effect.check(arrived, count) {
					t.Errorf("%d arrived of %d by %s: %+v", len(arrived), n, s.How(), count)
				}
				if other := send(t, a.other, a.self, 100, silence); len(other) != 100 || len(s.Counts()) != 1 {
					t.Errorf("%d of 100 arrived from an address that is not shaped", len(other))
				}
				if err := s.Set(nil); err != nil {
					t.Fatal(err)
				}
				healed := send(t, a.peer, a.self, 100, silence)
				if len(healed) != 100 || s.Counts()[netip.MustParseAddr(a.peer)] != count {
					t.Errorf("%d of 100 arrive after the heal, %+v", len(healed), s.Counts())
				}
			})
		}
	}
}

func TestAHealLetsGoAtOnceWhatIsHeld(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	s := newShaper(t)
	set(t, s, "127.0.0.2", Shape{Delay: DelayMost})
	healed := make(chan error, 1)
	go func() {
		for end := time.Now().Add(patience); s.Counts()[netip.MustParseAddr("127.0.0.2")].Delayed < 10 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		healed <- s.Set(nil)
	}()
	if arrived := send(t, "127.0.0.2", "127.0.0.1", 10, time.Second); len(arrived) != 10 {
		t.Errorf("%d of 10 arrived", len(arrived))
	}
	if err := <-healed; err != nil {
		t.Error(err)
	}
}

func TestAnAgentThatIsKilledLeavesNothingBehind(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	agent := exec.Command(os.Args[0])
	agent.Env = append(os.Environ(), roleVariable+"=agent")
	in, err := agent.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 100)
	if n, err := out.Read(said); err != nil || string(said[:n]) != "set <nil>\n" {
		t.Errorf("the agent says %q, %v", said[:n], err)
	}
	if arrived := send(t, "127.0.0.2", "127.0.0.1", 5, 100*time.Millisecond); len(arrived) != 0 {
		t.Errorf("%d datagrams arrived within 100 ms", len(arrived))
	}
	_ = agent.Process.Kill()
	_ = agent.Wait()
	if arrived := send(t, "127.0.0.2", "127.0.0.1", 5, 500*time.Millisecond); len(arrived) != 5 {
		t.Errorf("%d of 5 datagrams arrive after the agent was killed", len(arrived))
	}
}

func TestTheProtectedAddressIsNeverShaped(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	s, err := Open("capsize_test", netip.MustParseAddr("127.0.0.2"), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	err = s.Set(map[netip.Addr]Shape{netip.MustParseAddr("::ffff:127.0.0.2"): {Loss: 1}})
	if err == nil || !strings.Contains(err.Error(), "controller's session") {
		t.Errorf("got %v", err)
	}
}

func TestADelayIsOverWhenAnotherShapeOfItsSourceStays(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	s := newShaper(t)
	set(t, s, "127.0.0.2", Shape{Delay: 3 * time.Second, Loss: 0.01})
	if arrived := send(t, "127.0.0.2", "127.0.0.1", 20, 100*time.Millisecond); len(arrived) > 0 {
		t.Fatalf("%d arrived, though all are held", len(arrived))
	}
	set(t, s, "127.0.0.2", Shape{Loss: 0.01})
	arrived := send(t, "127.0.0.2", "127.0.0.1", 20, time.Second)
	if len(arrived) < 15 {
		t.Errorf("%d of 20 arrived within a second after the delay was over", len(arrived))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.held) > 0 {
		t.Errorf("%d are held, and there is no delay any more", len(s.held))
	}
}
