package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fails runs the checker, which must end with the status and say all of the words.
func fails(t *testing.T, c *checker, want int, words ...string) {
	t.Helper()
	if status := c.run(t); status != want {
		t.Errorf("exit status %d, want %d", status, want)
	}
	for _, word := range words {
		if !strings.Contains(c.out.String(), word) {
			t.Errorf("the output does not mention %q", word)
		}
	}
	if t.Failed() {
		t.Log(c.out.String())
	}
}

func TestAPortInUseIsNamed(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fails(t, newChecker(t, "run", "--time-limit=5s", "--base-port="+port), 3, port, "base-port")
}

func TestWithoutAnEngineItSaysSo(t *testing.T) {
	c := newChecker(t, "run", "--cluster=docker", "--time-limit=5s")
	c.Env = append(os.Environ(), "DOCKER_HOST=unix://"+filepath.Join(t.TempDir(), "none.sock"))
	fails(t, c, 3, "Docker")
}

func TestAMissingImageIsNamedWithItsRemedy(t *testing.T) {
	needDocker(t)
	fails(t, newChecker(t, "run", "--cluster=docker", "--image=no-such-image:7", "--time-limit=5s"), 3, "no-such-image:7", "ci/base-image")
}

func TestANodeThatDiesAtItsStartShowsItsLastWords(t *testing.T) {
	program := filepath.Join(t.TempDir(), "node")
	script := "#!/bin/sh\necho cannot find my keys >&2\nexit 7\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	c := newChecker(t, "run", "--time-limit=5s", "--node-binary="+program)
	fails(t, c, 3, "cannot find my keys", "exit status 7")
	leftOver(t, c.runDir(t))
}

func TestAFullDiskEndsTheRunAndKeepsWhatWasRecorded(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=200k"); err != nil {
		t.Skipf("cannot mount a small file system here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(small, syscall.MNT_DETACH) })
	// The cluster's own files lie below the run directory too: keep them off the small disk.
	c := newChecker(t, "run", "--time-limit=20s", "--nemesis=none", "--runs="+small)
	fails(t, c, 3, "no space left")
}
