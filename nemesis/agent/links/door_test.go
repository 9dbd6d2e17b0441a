package links

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"capsize/clusters"
)

var (
	request = direction{clusters.Client, "n1"}
	answer  = direction{"n1", clusters.Client}
)

// newDoor is a link of clients to n1, without a server behind it.
func newDoor(t *testing.T) *fixture {
	t.Helper()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = server.Close() // only the port was wanted
	f := &fixture{server: server, probes: make(chan string, 16)}
	f.proxy, err = Listen([]clusters.Link{{From: clusters.Client, To: "n1", Listen: "127.0.0.1:0", Target: server.Addr().String()}}, 1,
		func(from string, payload []byte) { f.probes <- from + " " + string(payload) })
	if err != nil {
		t.Fatal(err)
	}
	f.listen = f.proxy.links[0].udp.LocalAddr().String()
	t.Cleanup(func() {
		if err := f.proxy.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// serve starts the server behind the link, which answers nothing.
func (f *fixture) serve(t *testing.T) (kill func()) {
	t.Helper()
	server, err := net.Listen("tcp", f.server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var accepted []net.Conn
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			accepted = append(accepted, c)
		}
	}()
	return func() {
		_ = server.Close()
		<-over
		for _, c := range accepted {
			_ = c.Close()
		}
	}
}

func (f *fixture) refuses() bool {
	c, err := net.DialTimeout("tcp", f.listen, patience)
	if err == nil {
		_ = c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// A request to a node that is down was certainly not sent, and its client must be able to
// know that.
func TestALinkOfClientsRefusesWhileItsTargetIsDown(t *testing.T) {
	f := newDoor(t)
	eventually(t, "it refuses before the target is there", f.refuses)
	for range 3 {
		kill := f.serve(t)
		eventually(t, "it takes connections once the target is there", func() bool { return !f.refuses() })
		held := f.dial(t)
		kill()
		eventually(t, "it refuses again when the target is gone", f.refuses)
		_ = held.SetReadDeadline(time.Now().Add(patience))
		if _, err := held.Read(make([]byte, 1)); errors.Is(err, net.ErrClosed) || err == nil {
			t.Errorf("the connection that was open: %v", err)
		}
	}
}

func TestACutLinkOfClientsIsSilentEvenWhileItsTargetIsDown(t *testing.T) {
	for _, cut := range []direction{request, answer} {
		t.Run(cut.from, func(t *testing.T) {
			f := newDoor(t)
			eventually(t, "it refuses", f.refuses)
			f.block(cut)
			eventually(t, "it is silent instead", func() bool { return !f.refuses() })
			c := f.dial(t)
			expectSilence(t, c)
			f.block()
			expectEnd(t, c, syscall.ECONNRESET)
			eventually(t, "it refuses after the heal", f.refuses)
		})
	}
}

func TestAnAnswerPassesOnlyAnOpenGate(t *testing.T) {
	f := newDoor(t)
	socket, err := net.Dial("udp", f.listen)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	hears := func(within time.Duration) bool {
		_ = socket.SetReadDeadline(time.Now().Add(within))
		n, err := socket.Read(make([]byte, 10))
		return err == nil && n == 4
	}
	send := func() {
		if err := f.proxy.Answer(clusters.Client, socket.LocalAddr().String(), []byte("ping")); err != nil {
			t.Fatal(err)
		}
	}
	if send(); !hears(patience) {
		t.Error("nothing came through the open gate")
	}
	f.block(request) // the other direction does not concern it
	if send(); !hears(patience) {
		t.Error("the other direction's gate held it")
	}
	f.block(answer)
	if send(); hears(window) {
		t.Error("it came through a closed gate")
	}
	if held := f.held(); held["n1"] != 4 || held[clusters.Client] != 0 {
		t.Errorf("held %v", held)
	}
	if err := f.proxy.Answer("n9", socket.LocalAddr().String(), nil); err == nil {
		t.Error("an answer to who has no link")
	}
}
