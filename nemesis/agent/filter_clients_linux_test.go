package agent

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"capsize/clusters"
)

// echo answers lines at an address, and returns its port.
func echo(t *testing.T, address string) int {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c) // until either side is gone
				_ = c.Close()
			}()
		}
	}()
	return listener.Addr().(*net.TCPAddr).Port
}

func dialFrom(from, to string, port int, limit time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: limit, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	return dialer.Dial("tcp", net.JoinHostPort(to, strconv.Itoa(port)))
}

// echoes reports whether a line comes back, if need be after others that were held.
func echoes(c net.Conn, text string, within time.Duration) bool {
	_ = c.SetDeadline(time.Now().Add(within))
	_, _ = io.WriteString(c, text+"\n")
	for lines := bufio.NewScanner(c); lines.Scan(); {
		if lines.Text() == text {
			return true
		}
	}
	return false
}

// Clients come from where the controller's session comes from: only the ports tell them
// apart.
func TestClientsAreCutAtTheirPortsAndTheSessionLivesOn(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	request, answer := Pair{clusters.Client, "n1"}, Pair{"n1", clusters.Client}
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			system, sshd := echo(t, a.self), echo(t, a.self)
			t.Setenv("SSH_CONNECTION", fmt.Sprintf("%s 55555 %s %d", a.peer, a.self, sshd))
			hello := helloWith(a.self, a.other)
			hello.ClientPorts = []int{7, system}
			f, err := newFilter("r", hello)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.close() }()
			session, err := dialFrom(a.peer, a.self, sshd, patience)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = session.Close() }()
			for _, cut := range [][]Pair{{request}, {answer}, {request, answer}} {
				held, err := dialFrom(a.peer, a.self, system, patience)
				if err != nil {
					t.Fatalf("before %v is cut: %v", cut, err)
				}
				if _, err := f.block(cut); err != nil {
					t.Fatal(err)
				}
				if c, err := dialFrom(a.peer, a.self, system, 150*time.Millisecond); err == nil {
					_ = c.Close()
					t.Errorf("%v is cut, and a client connects", cut)
				}
				if echoes(held, "cut", 50*time.Millisecond) {
					t.Errorf("%v is cut, and an open connection answers", cut)
				}
				if !echoes(session, "session", patience) {
					t.Errorf("%v is cut, and with it the session", cut)
				}
				if c, err := dialFrom(a.other, a.self, system, patience); err != nil {
					t.Errorf("%v is cut, and another machine cannot connect: %v", cut, err)
				} else {
					_ = c.Close()
				}
				dropped, err := f.dropped()
				if err != nil || amount(dropped, cut[0].From, cut[0].To) == 0 || len(dropped) > len(cut) {
					t.Errorf("%v is cut: dropped %v, %v", cut, dropped, err)
				}
				if _, err := f.block(nil); err != nil {
					t.Fatal(err)
				}
				if !echoes(held, "healed", patience) {
					t.Errorf("%v is healed, and the connection stays silent", cut)
				}
				_ = held.Close()
			}
		})
	}
}

// Systems whose clients send datagrams are cut too, in each direction.
func TestDatagramsOfClientsAreCut(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			system, err := net.ListenPacket("udp", net.JoinHostPort(a.self, "0"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = system.Close() }()
			client, err := net.ListenPacket("udp", net.JoinHostPort(a.peer, "0"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = client.Close() }()
			t.Setenv("SSH_CONNECTION", fmt.Sprintf("%s 55555 %s 22", a.peer, a.self))
			hello := helloWith(a.self, a.other)
			hello.ClientPorts = []int{system.LocalAddr().(*net.UDPAddr).Port}
			f, err := newFilter("r", hello)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.close() }()
			passes := func(from, to net.PacketConn, want bool) bool {
				within := 50 * time.Millisecond
				if want {
					within = patience
				}
				_, _ = from.WriteTo([]byte("x"), to.LocalAddr()) // refused at once where the way out is cut
				_ = to.SetReadDeadline(time.Now().Add(within))
				_, _, err := to.ReadFrom(make([]byte, 10))
				return err == nil
			}
			for _, c := range []struct {
				cut           []Pair
				asked, answer bool
			}{
				{nil, true, true},
				{[]Pair{{clusters.Client, "n1"}}, false, true},
				{[]Pair{{"n1", clusters.Client}}, true, false},
				{[]Pair{{clusters.Client, "n1"}, {"n1", clusters.Client}}, false, false},
			} {
				if _, err := f.block(c.cut); err != nil {
					t.Fatal(err)
				}
				if asked, answered := passes(client, system, c.asked), passes(system, client, c.answer); asked != c.asked || answered != c.answer {
					t.Errorf("%v is cut: requests pass %v, answers %v", c.cut, asked, answered)
				}
			}
		})
	}
}

func TestClientsWhoseTrafficCannotBeToldApartAreNotCut(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for want, c := range map[string]struct {
		session string
		ports   []int
	}{
		"no port for clients":      {"127.0.0.2 55555 127.0.0.1 22", nil},
		"SSH_CONNECTION":           {"", []int{7080}},
		"port 22, which is also":   {"127.0.0.2 55555 127.0.0.1 22", []int{7080, 22}},
		"sshd sets, does not tell": {"somewhere 55555 127.0.0.1 22", []int{7080}},
	} {
		t.Setenv("SSH_CONNECTION", c.session)
		hello := helloWith("127.0.0.1", "127.0.0.3")
		hello.ClientPorts = c.ports
		f, err := newFilter("r", hello)
		if err != nil {
			t.Fatal(err)
		}
		for _, pair := range []Pair{{clusters.Client, "n1"}, {"n1", clusters.Client}} {
			if _, err := f.block([]Pair{pair}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, want %q", c, err, want)
			}
		}
		if f.clients() == nil {
			t.Errorf("%+v: clients can be cut, it says", c)
		}
		if _, err := f.block([]Pair{{clusters.Client, "n2"}}); err != nil {
			t.Errorf("what is cut on another node: %v", err)
		}
		if err := f.close(); err != nil {
			t.Error(err)
		}
	}
}

// Without neighbour discovery a cut of one direction would soon be one of both.
func TestNeighbourDiscoveryOfACutPeerPasses(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	a := families["IPv6"]
	f, err := newFilter("r", helloWith(a.self, a.peer))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.close() }()
	arrives := func(kind byte, want bool) bool {
		receiver, err := net.ListenIP("ip6:ipv6-icmp", &net.IPAddr{IP: net.ParseIP(a.self)})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = receiver.Close() }()
		sender, err := net.DialIP("ip6:ipv6-icmp", &net.IPAddr{IP: net.ParseIP(a.peer)}, &net.IPAddr{IP: net.ParseIP(a.self)})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = sender.Close() }()
		if _, err := sender.Write(append([]byte{kind, 0, 0, 0}, make([]byte, 20)...)); err != nil {
			t.Fatal(err)
		}
		within := 50 * time.Millisecond
		if want {
			within = patience
		}
		_ = receiver.SetReadDeadline(time.Now().Add(within))
		for buffer := make([]byte, 100); ; {
			n, from, err := receiver.ReadFromIP(buffer)
			if err != nil {
				return false
			}
			if n > 0 && buffer[0] == kind && from.IP.Equal(net.ParseIP(a.peer)) {
				return true
			}
		}
	}
	if _, err := f.block([]Pair{{"n2", "n1"}}); err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[byte]bool{128: false, 132: false, 133: true, 135: true, 136: true, 137: true, 138: false} {
		if arrives(kind, want) != want {
			t.Errorf("ICMPv6 type %d of a cut peer arrives: %v, want %v", kind, !want, want)
		}
	}
}
