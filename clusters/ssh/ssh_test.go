package ssh

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// slack is what a busy machine may add to a limit.
const slack = 10 * time.Second

func TestFilesGoToAHostAndComeBack(t *testing.T) {
	_, o := newServer(t)
	c := connect(t, o)
	h := c.Host("n1")
	if c.Kind() != "ssh" || h.Name() != "n1" || h.Dir() != o.Dir || c.Listen("n1", "peer") != "127.0.0.1:7070" || c.Dial("n2", "n1", "peer") != "127.0.0.1:7070" || c.Links("n1") != nil {
		t.Errorf("the cluster describes itself as %s, %s at %s, %s", c.Kind(), h.Name(), h.Dir(), c.Listen("n1", "peer"))
	}
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // many packets, so that they go at once
	for name, text := range map[string]string{"small": "x", "empty": "", "deep/er/large": string(large)} {
		if err := h.Put(t.Context(), write(t, text), name, 0o750); err != nil {
			t.Fatal(err)
		}
		back := filepath.Join(t.TempDir(), "new", "back")
		if err := h.Get(t.Context(), name, back); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(back); err != nil || string(data) != text {
			t.Errorf("%s came back with %d of %d bytes, %v", name, len(data), len(text), err)
		}
		if info, err := os.Stat(filepath.Join(o.Dir, name)); err != nil || info.Mode() != 0o750 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
		if exists(filepath.Join(o.Dir, name) + ".new") {
			t.Errorf("%s: the unfinished file stays", name)
		}
	}
	if err := h.Get(t.Context(), "nothing", write(t, "")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that does not exist: %v", err)
	}
	if err := h.Put(t.Context(), write(t, "x"), "../beside", 0o600); err == nil || exists(filepath.Join(filepath.Dir(o.Dir), "beside")) {
		t.Errorf("a file was put beside the run's directory: %v", err)
	}
}

// A transfer that its caller gave up must not replace the file later.
func TestAPutThatWasGivenUpLeavesTheOldFile(t *testing.T) {
	_, o := newServer(t)
	h := connect(t, o).Host("n1")
	if err := h.Put(t.Context(), write(t, "old"), "f", 0o600); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Put(ended, write(t, "new"), "f", 0o600); !errors.Is(err, context.Canceled) {
		t.Errorf("a put after its context: %v", err)
	}
	if err := h.(*host).put(ended, write(t, "new"), filepath.Join(o.Dir, "f"), 0o600); !errors.Is(err, context.Canceled) {
		t.Errorf("what goes on when nobody waits for it: %v", err)
	}
	if exists(filepath.Join(o.Dir, "f.new")) {
		t.Error("the unfinished file stays")
	}
	if data, err := os.ReadFile(filepath.Join(o.Dir, "f")); string(data) != "old" {
		t.Errorf("the file is now %q, %v", data, err)
	}
}

func TestAProgramSpeaksAndLeavesWhenItsInputEnds(t *testing.T) {
	_, o := newServer(t)
	h := connect(t, o).Host("n1")
	stream, err := h.Attach(t.Context(), []string{"sh", "-c", `read line; echo "got $line, $1, in $PWD"; cat >/dev/null; echo left > left`, "sh", "it's $HOME"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(stream, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := bufio.NewReader(stream).ReadString('\n'); got != "got hello, it's $HOME, in "+o.Dir+"\n" {
		t.Errorf("it says %q, %v", got, err)
	}
	for range 2 { // the second time, it is closed already
		if err := stream.Close(); err != nil {
			t.Error(err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(o.Dir, "left")); string(data) != "left\n" {
		t.Errorf("it had not left: %q, %v", data, err)
	}
}

func TestTheErrorOfAProgramThatFailsQuotesTheEndOfWhatItSaid(t *testing.T) {
	_, o := newServer(t)
	h := connect(t, o).Host("n1")
	stream, err := h.Attach(t.Context(), []string{"sh", "-c", `echo early >&2; seq 1 2000 >&2; echo "panic: no disk" >&2; exit 2`})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	_, err = io.ReadAll(stream)
	mentions(t, "a program that failed", err, "panic: no disk")
	if strings.Contains(err.Error(), "early") || len(err.Error()) > tailMost+100 {
		t.Errorf("%d bytes are quoted", len(err.Error()))
	}
}

func TestAProgramThatDoesNotLeaveIsKilledWhenTheClusterIsClosed(t *testing.T) {
	t.Parallel()
	_, o := newServer(t)
	c := connect(t, o)
	stream, err := c.Host("n1").Attach(t.Context(), []string{"sh", "-c", `echo $$; echo stubborn >&2; exec sleep 30`})
	if err != nil {
		t.Fatal(err)
	}
	pid, err := bufio.NewReader(stream).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err = c.Close(t.Context())
	mentions(t, "closing", err, "did not leave", "n1", "stubborn")
	if took := time.Since(began); took > leaveLimit+slack {
		t.Errorf("closing took %s", took)
	}
	if exists("/proc/" + strings.TrimSpace(pid)) {
		t.Error("the program lives on")
	}
	if exists(o.Dir) {
		t.Error("the run's directory stays")
	}
}

func TestCloseRemovesTheRunsDirectoryUnlessItIsToBeKeptAndNoOther(t *testing.T) {
	_, o := newServer(t)
	if err := connect(t, o).Close(t.Context()); err != nil || exists(o.Dir) {
		t.Errorf("after closing, the directory is there: %v; %v", exists(o.Dir), err)
	}
	keep := o
	keep.Keep = true
	if err := connect(t, keep).Close(t.Context()); err != nil || !exists(o.Dir) {
		t.Errorf("the directory that was to be kept is there: %v; %v", exists(o.Dir), err)
	}
	_, err := New(t.Context(), o)
	mentions(t, "a directory of another run", err, o.Dir, "exists already")
	if !exists(o.Dir) {
		t.Error("another run's directory was removed")
	}
}

func TestAHostWithAnotherKeyIsRefused(t *testing.T) {
	client, private := newSigner(t, ssh.KeyAlgoED25519)
	shown, _ := newSigner(t, ssh.KeyAlgoED25519)
	expected, _ := newSigner(t, ssh.KeyAlgoED25519)
	s := serve(t, client.PublicKey(), shown)
	o := Options{Run: "test", Hosts: []string{s.host()}, Dir: filepath.Join(t.TempDir(), "d", "test")}
	connectWith := func(lines ...string) error {
		f := userFiles(t, private, lines...)
		o.Key, o.KnownHosts = f.key, f.knownHosts
		c, err := New(t.Context(), o)
		if err == nil {
			return c.Close(t.Context())
		}
		return err
	}
	if err := connectWith(line(s, shown.PublicKey())); err != nil {
		t.Fatalf("with the right key: %v", err)
	}
	err := connectWith(line(s, expected.PublicKey()))
	mentions(t, "a changed key", err, "n1", "127.0.0.1", fingerprint(shown), fingerprint(expected), "known_hosts line 1", "replace")
	err = connectWith()
	mentions(t, "an unknown host", err, fingerprint(shown), "ssh-keyscan")
	o.KnownHosts = ""
	_, err = New(t.Context(), o)
	mentions(t, "no known_hosts file", err, "--ssh-known-hosts", "always checked")
	err = Pinned(expected.PublicKey())("", nil, shown.PublicKey())
	if err == nil || Pinned(shown.PublicKey())("", nil, shown.PublicKey()) != nil {
		t.Errorf("a pinned key: %v", err)
	}
}

// Patience is for machines that start, not for ones that are somebody else.
func TestAWrongKeyEndsPatienceAtOnce(t *testing.T) {
	client, _ := newSigner(t, ssh.KeyAlgoED25519)
	shown, _ := newSigner(t, ssh.KeyAlgoED25519)
	s := serve(t, client.PublicKey(), shown)
	began := time.Now()
	_, err := Connect(t.Context(), ConnectOptions{
		Run: "test", Kind: "ssh", Key: client, Patience: time.Minute, Machines: []Machine{machineAt(t, s.listener.Addr().String(), Pinned(client.PublicKey()))},
	})
	mentions(t, "a wrong key", err, fingerprint(shown), fingerprint(client))
	if took := time.Since(began); took > slack {
		t.Errorf("it took %s", took)
	}
}

func machineAt(t *testing.T, address string, key ssh.HostKeyCallback) Machine {
	t.Helper()
	m, err := parseHost(address)
	if err != nil {
		t.Fatal(err)
	}
	m.Node, m.HostKey = "n1", key
	return m
}

// A host has keys of several kinds and shows the one that the client prefers: that must be
// the one that the known_hosts file has.
func TestAHostWithSeveralKeysIsKnownByAnyOfThem(t *testing.T) {
	client, private := newSigner(t, ssh.KeyAlgoED25519)
	keys := map[string]ssh.Signer{}
	for _, algorithm := range []string{ssh.KeyAlgoED25519, ssh.KeyAlgoRSA} {
		keys[algorithm], _ = newSigner(t, algorithm)
	}
	s := serve(t, client.PublicKey(), keys[ssh.KeyAlgoED25519], keys[ssh.KeyAlgoRSA])
	refusedOtherwise := 0
	for algorithm, key := range keys {
		f := userFiles(t, private, line(s, key.PublicKey()))
		c, err := New(t.Context(), Options{Run: "test", Hosts: []string{s.host()}, Key: f.key, KnownHosts: f.knownHosts, Dir: filepath.Join(t.TempDir(), "d", "test")})
		if err != nil {
			t.Fatalf("known by its %s key: %v", algorithm, err)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		known, err := readKnownHosts(f.knownHosts)
		if err != nil {
			t.Fatal(err)
		}
		if client, err := dial(t.Context(), machineAt(t, s.listener.Addr().String(), known), client); err != nil {
			refusedOtherwise++
		} else if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
	if refusedOtherwise != 1 {
		t.Errorf("without choosing the algorithm, %d of the two are refused: this test proves nothing", refusedOtherwise)
	}
}

func TestAMachineThatIsStillStartingIsWaitedForAndOthersAreNot(t *testing.T) {
	client, _ := newSigner(t, ssh.KeyAlgoED25519)
	hostKey, _ := newSigner(t, ssh.KeyAlgoED25519)
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := ConnectOptions{
		Run: "test", Kind: "ssh", Key: client, Dir: filepath.Join(t.TempDir(), "d", "test"),
		Machines: []Machine{machineAt(t, nobody.Addr().String(), Pinned(hostKey.PublicKey()))},
	}
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Connect(t.Context(), o)
	mentions(t, "nobody answers", err, "n1", nobody.Addr().String())

	o.Patience = 10 * time.Second
	connected := make(chan error, 1)
	go func() {
		c, err := Connect(t.Context(), o)
		if err == nil {
			err = c.Close(context.Background())
		}
		connected <- err
	}()
	late := serve(t, client.PublicKey(), hostKey)
	forward(t, nobody.Addr().String(), late.listener.Addr().String())
	if err := <-connected; err != nil {
		t.Errorf("a machine that came late: %v", err)
	}
}

// forward makes one address reach another, for one connection.
func forward(t *testing.T, from, to string) {
	t.Helper()
	l, err := net.Listen("tcp", from)
	if err != nil {
		t.Skipf("somebody took %s meanwhile: %v", from, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		in, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = in.Close() }()
		out, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer func() { _ = out.Close() }()
		back := make(chan struct{})
		go func() { defer close(back); _, _ = io.Copy(in, out) }()
		_, _ = io.Copy(out, in)
		_ = out.Close()
		<-back
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
}

func TestAHostThatAcceptsAndSaysNothingIsGivenUp(t *testing.T) {
	t.Parallel()
	s, o := newServer(t)
	s.freeze()
	began := time.Now()
	_, err := New(t.Context(), o)
	mentions(t, "a frozen host", err, "n1", "frozen")
	if took := time.Since(began); took < dialLimit || took > dialLimit+slack {
		t.Errorf("it was given up after %s", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began = time.Now()
	if _, err = New(ctx, o); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > dialLimit {
		t.Errorf("with a context of 100 ms: after %s, %v", time.Since(began), err)
	}
}

func TestNoCallHangsOnAHostThatFreezes(t *testing.T) {
	t.Parallel()
	const patience = keepaliveEvery + keepaliveLimit + slack
	calls := map[string]func(*Cluster, io.ReadWriteCloser) error{
		"put": func(c *Cluster, _ io.ReadWriteCloser) error {
			return c.Host("n1").Put(t.Context(), write(t, "x"), "f", 0o600)
		},
		"get": func(c *Cluster, _ io.ReadWriteCloser) error { return c.Host("n1").Get(t.Context(), "f", write(t, "")) },
		"attach": func(c *Cluster, _ io.ReadWriteCloser) error {
			_, err := c.Host("n1").Attach(t.Context(), []string{"true"})
			return err
		},
		"read":    func(_ *Cluster, s io.ReadWriteCloser) error { _, err := s.Read(make([]byte, 1)); return err },
		"leave":   func(_ *Cluster, s io.ReadWriteCloser) error { return s.Close() },
		"close":   func(c *Cluster, _ io.ReadWriteCloser) error { return c.Close(t.Context()) },
		"write":   writeMuch,
		"limited": limited,
	}
	var all sync.WaitGroup
	for name, call := range calls {
		s, o := newServer(t)
		c := connect(t, o)
		stream, err := c.Host("n1").Attach(context.Background(), []string{"cat"})
		if err != nil {
			t.Fatal(err)
		}
		s.freeze()
		all.Go(func() { // not parallel subtests: those wait for processors, of which this needs none
			began := time.Now()
			err := call(c, stream)
			if err == nil {
				t.Errorf("%s succeeds on a frozen host", name)
			}
			if took := time.Since(began); took > patience {
				t.Errorf("%s took %s", name, took)
			}
			if name == "put" {
				mentions(t, name, err, "put f on n1", "silent for 5s")
			}
			if err := c.Close(context.Background()); err == nil && name != "close" {
				t.Errorf("after %s, closing succeeds, though the directory could not be removed", name)
			}
			if took := time.Since(began); took > 2*patience {
				t.Errorf("%s with closing took %s", name, took)
			}
		})
	}
	all.Wait()
}

// Nothing is to be done on the host, so nothing waits for it.
func TestAFrozenHostThatIsToBeKeptIsLeftAtOnce(t *testing.T) {
	t.Parallel()
	s, o := newServer(t)
	o.Keep = true
	c := connect(t, o)
	s.freeze()
	closed := make(chan error, 1)
	go func() { closed <- c.Close(context.Background()) }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(slack):
		t.Fatal("closing hangs")
	}
}

func writeMuch(_ *Cluster, s io.ReadWriteCloser) error {
	for {
		if _, err := s.Write(make([]byte, 1<<20)); err != nil {
			return err
		}
	}
}

func limited(c *Cluster, _ io.ReadWriteCloser) error {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := c.Host("n1").Get(ctx, "f", "/dev/null")
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > keepaliveLimit {
		return nil
	}
	return err
}

func TestAHostThatAnswersSlowlyIsNotTakenForDead(t *testing.T) {
	t.Parallel()
	s, o := newServer(t)
	h := connect(t, o).Host("n1").(*host)
	s.dribble.Store(true)
	began := time.Now()
	if !h.checkAlive() {
		t.Errorf("it was taken for dead after %s", time.Since(began))
	}
	if took := time.Since(began); took < keepaliveLimit {
		t.Errorf("it answered within %s: this test proves nothing", took)
	}
	s.dribble.Store(false)
	if err := h.Put(t.Context(), write(t, "x"), "f", 0o600); err != nil {
		t.Errorf("when it is fast again: %v", err)
	}
}

// The library sometimes forgets a session that is asked for while the connection breaks,
// rarely enough that here a host that does not answer stands for it.
func TestASessionThatTheLibraryForgetsIsGivenUpWhenTheConnectionHasEnded(t *testing.T) {
	client, _ := newSigner(t, ssh.KeyAlgoED25519)
	hostKey, _ := newSigner(t, ssh.KeyAlgoED25519)
	s := serve(t, client.PublicKey(), hostKey)
	h := newHost(machineAt(t, s.listener.Addr().String(), Pinned(hostKey.PublicKey())), "/d/d")
	var err error
	if h.client, err = dial(t.Context(), h.machine, client); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.client.Close() }()
	s.freeze()
	close(h.gone)
	asked := make(chan error, 1)
	go func() { _, err := h.newSession(); asked <- err }()
	select {
	case err := <-asked:
		if !errors.Is(err, errLost) {
			t.Errorf("it fails with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it is waited for all the same")
	}
}

func TestASessionThatIsAskedForWhileTheConnectionBreaksHangsNothing(t *testing.T) {
	s, o := newServer(t)
	for range 40 {
		c, err := New(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		var calls sync.WaitGroup
		for range 4 {
			calls.Go(func() {
				for {
					stream, err := c.Host("n1").Attach(t.Context(), []string{"cat"})
					if err != nil {
						return
					}
					_ = stream.Close()
				}
			})
		}
		s.drop()
		calls.Wait()
		_ = c.Close(t.Context()) // an error says that the directory stays
		if took := time.Since(began); took > slack {
			t.Fatalf("it took %s", took)
		}
		if err := os.RemoveAll(o.Dir); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhenOneHostFailsTheOthersAreLeftAsTheyWere(t *testing.T) {
	t.Parallel()
	client, _ := newSigner(t, ssh.KeyAlgoED25519)
	late := serve(t, client.PublicKey(), client)
	late.freeze() // so that the others are ready when it fails
	for what, host := range map[string]string{"one host of two is frozen": late.host(), "one host of two is unknown": serve(t, client.PublicKey(), client).host()} {
		good, o := newServer(t)
		o.Hosts = []string{good.host(), host}
		_, err := New(t.Context(), o)
		mentions(t, what, err, "n2", strings.TrimPrefix(host, "root@"))
		if strings.Contains(err.Error(), "n1") {
			t.Errorf("%s: the other is blamed too: %v", what, err)
		}
		if exists(o.Dir) {
			t.Errorf("%s: the run's directory stays on the other", what)
		}
	}
}

func TestHostsAreReadAsSSHUsersWriteThem(t *testing.T) {
	for text, want := range map[string]Machine{
		"db1":                 {User: "root", Address: "db1", Port: 22},
		"admin@db1":           {User: "admin", Address: "db1", Port: 22},
		"db1:2222":            {User: "root", Address: "db1", Port: 2222},
		"me@10.0.0.1:2222":    {User: "me", Address: "10.0.0.1", Port: 2222},
		"me@[fe80::1]:2222":   {User: "me", Address: "fe80::1", Port: 2222},
		"fe80::1":             {User: "root", Address: "fe80::1", Port: 22},
		"first@domain@db1:23": {User: "first@domain", Address: "db1", Port: 23},
	} {
		got, err := parseHost(text)
		if err != nil || got.User != want.User || got.Address != want.Address || got.Port != want.Port {
			t.Errorf("%s is read as %s at %s port %d, %v", text, got.User, got.Address, got.Port, err)
		}
	}
	for _, wrong := range []string{"", "@db1", "me@", "db1:", "db1:x", "db1:0", "db1:65536", "db 1", "a:b:c", "db1/x"} {
		if m, err := parseHost(wrong); err == nil {
			t.Errorf("%q is read as %+v", wrong, m)
		}
	}
}

func FuzzParseHost(f *testing.F) {
	for _, seed := range []string{"db1", "me@10.0.0.1:2222", "[fe80::1]:22", "fe80::1", "a@b@c:1", ":", "@", "[", "x:99999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseHost(text)
		if err != nil {
			return
		}
		again, err := parseHost(m.User + "@" + m.endpoint())
		if err != nil || again.User != m.User || again.Address != m.Address || again.Port != m.Port {
			t.Errorf("%q is %s at %s port %d, which is read as %+v, %v", text, m.User, m.Address, m.Port, again, err)
		}
	})
}

func TestOptionsThatCannotWorkAreRefusedBeforeAnythingIsDone(t *testing.T) {
	_, o := newServer(t)
	twice, relative, shallow, none := o, o, o, o
	twice.Hosts = slices.Repeat(o.Hosts, 2)
	relative.Dir = "runs/test"
	shallow.Dir = "/" + strconv.Itoa(os.Getpid())
	none.Hosts = nil
	for what, c := range map[string]struct {
		options Options
		says    string
	}{
		"the same host twice":        {twice, "the same host"},
		"a relative directory":       {relative, "absolute"},
		"a directory below the root": {shallow, "two levels"},
		"no hosts":                   {none, "--hosts"},
	} {
		_, err := New(t.Context(), c.options)
		mentions(t, what, err, c.says)
	}
}
