package ssh

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"capsize/clusters"
)

// TestMain lets all parallel tests run at once: they wait for limits, not for processors.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// server speaks SSH on loopback as sshd does, with this machine's shell and files behind
// it, and can freeze as a paused machine does: the kernel goes on to accept connections
// and bytes, and nobody answers.
type server struct {
	config   *ssh.ServerConfig
	listener net.Listener
	work     sync.WaitGroup
	dribble  atomic.Bool // it answers slowly, a byte at a time

	mu       sync.Mutex
	thawed   chan struct{} // closed while it is not frozen
	conns    []net.Conn
	programs []*exec.Cmd
}

func newSigner(t testing.TB, algorithm string) (signer ssh.Signer, private any) {
	t.Helper()
	var err error
	if algorithm == ssh.KeyAlgoRSA {
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		_, private, err = ed25519.GenerateKey(rand.Reader)
	}
	if err == nil {
		signer, err = ssh.NewSignerFromKey(private)
	}
	if err != nil {
		t.Fatal(err)
	}
	return signer, private
}

func serve(t *testing.T, client ssh.PublicKey, hostKeys ...ssh.Signer) *server {
	t.Helper()
	s := &server{thawed: make(chan struct{})}
	close(s.thawed)
	s.config = &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) != string(client.Marshal()) {
			return nil, errors.New("not the client's key")
		}
		return nil, nil
	}}
	for _, key := range hostKeys {
		s.config.AddHostKey(key)
	}
	var err error
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	s.work.Go(s.accept)
	t.Cleanup(s.close)
	return s
}

func (s *server) host() string { return "root@" + s.listener.Addr().String() }

func (s *server) freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.thawed = make(chan struct{})
}

// drop breaks the connections that there are.
func (s *server) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.conns {
		_ = conn.Close()
	}
}

func (s *server) close() {
	_ = s.listener.Close()
	s.drop()
	s.mu.Lock()
	for _, program := range s.programs { // as in sshd, they outlive their session
		_ = syscall.Kill(-program.Process.Pid, syscall.SIGKILL)
	}
	select {
	case <-s.thawed:
	default:
		close(s.thawed)
	}
	s.mu.Unlock()
	s.work.Wait()
}

func (s *server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns = append(s.conns, conn)
		s.mu.Unlock()
		s.work.Go(func() { s.talk(freezing{conn, s}) })
	}
}

// freezing is a connection that stands still while its server is frozen.
type freezing struct {
	net.Conn
	server *server
}

func (c freezing) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.pass()
	return n, err
}

func (c freezing) Write(b []byte) (int, error) {
	c.pass()
	sent := 0
	for ; c.server.dribble.Load() && sent < len(b); sent++ {
		if _, err := c.Conn.Write(b[sent : sent+1]); err != nil {
			return sent, err
		}
		time.Sleep(keepaliveLimit / 20) // an answer has some 40 bytes
	}
	n, err := c.Conn.Write(b[sent:])
	return sent + n, err
}

func (c freezing) pass() {
	c.server.mu.Lock()
	thawed := c.server.thawed
	c.server.mu.Unlock()
	<-thawed
}

func (s *server) talk(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	_, channels, requests, err := ssh.NewServerConn(conn, s.config)
	if err != nil {
		return
	}
	s.work.Go(func() { ssh.DiscardRequests(requests) }) // a refusal answers a keepalive too
	for offered := range channels {
		channel, requests, err := offered.Accept()
		if err != nil {
			return
		}
		s.work.Go(func() { s.session(channel, requests) })
	}
}

func (s *server) session(channel ssh.Channel, requests <-chan *ssh.Request) {
	var program *exec.Cmd
	for request := range requests {
		var text struct{ Value string }
		_ = ssh.Unmarshal(request.Payload, &text)
		ok := true
		switch {
		case request.Type == "subsystem" && text.Value == "sftp":
			s.work.Go(func() {
				if files, err := sftp.NewServer(channel); err == nil {
					_ = files.Serve()
				}
				_ = channel.Close()
			})
		case request.Type == "exec":
			program = exec.Command("/bin/sh", "-c", text.Value)
			program.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			program.Stdout, program.Stderr = channel, channel.Stderr()
			in, err := program.StdinPipe()
			if ok = err == nil && program.Start() == nil; ok {
				s.note(program)
				s.work.Go(func() { _, _ = io.Copy(in, channel); _ = in.Close() })
				s.work.Go(func() { s.finish(program, channel) })
			}
		default:
			ok = false
		}
		if request.WantReply {
			_ = request.Reply(ok, nil)
		}
	}
}

func (s *server) note(program *exec.Cmd) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.programs = append(s.programs, program)
}

func (s *server) forget(program *exec.Cmd) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.programs = slices.DeleteFunc(s.programs, func(p *exec.Cmd) bool { return p == program })
}

func (s *server) finish(program *exec.Cmd, channel ssh.Channel) {
	_ = program.Wait()
	s.forget(program)
	status := struct{ Status uint32 }{uint32(max(0, program.ProcessState.ExitCode()))}
	_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(status))
	_ = channel.Close()
}

// files are what a user of the ssh cluster brings.
type files struct{ key, knownHosts string }

// userFiles writes the client's private key and a known_hosts file.
func userFiles(t *testing.T, client any, lines ...string) files {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(client, "")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	f := files{key: filepath.Join(dir, "id"), knownHosts: filepath.Join(dir, "known_hosts")}
	if err := os.WriteFile(f.key, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.knownHosts, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

func line(s *server, key ssh.PublicKey) string {
	return knownhosts.Line([]string{knownhosts.Normalize(s.listener.Addr().String())}, key)
}

// newServer starts a server, and returns the options that reach it.
func newServer(t *testing.T) (*server, Options) {
	t.Helper()
	client, private := newSigner(t, ssh.KeyAlgoED25519)
	hostKey, _ := newSigner(t, ssh.KeyAlgoED25519)
	s := serve(t, client.PublicKey(), hostKey)
	f := userFiles(t, private, line(s, hostKey.PublicKey()))
	return s, Options{
		Run: "test", Hosts: []string{s.host()}, Key: f.key, KnownHosts: f.knownHosts, Dir: filepath.Join(t.TempDir(), "runs", "test"),
		Ports: []clusters.Port{{Name: "peer", Number: 7070, Peer: true}},
	}
}

func connect(t *testing.T, o Options) *Cluster {
	t.Helper()
	c, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func fingerprint(key ssh.Signer) string { return ssh.FingerprintSHA256(key.PublicKey()) }

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func mentions(t *testing.T, what string, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(fmt.Sprint(err), part) {
			t.Errorf("%s: the error does not tell %q: %v", what, part, err)
		}
	}
}
