package agent

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"capsize/clusters"
)

// sleeper is a process in a session of its own, as the agent starts them, that is reaped when
// it ends.
func sleeper(t *testing.T, script string) (Life, <-chan struct{}) {
	t.Helper()
	command := exec.Command("/bin/sh", "-c", script)
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	life, err := lifeOf(command.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	reaped := make(chan struct{})
	go func() {
		defer close(reaped)
		_ = command.Wait() // that it ended is the point
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-life.Pid, syscall.SIGKILL)
		<-reaped
	})
	return life, reaped
}

// The kernel gives a pid to another process one day. That one is left alone.
func TestAnotherProcessWithThePidIsLeftAlone(t *testing.T) {
	life, _ := sleeper(t, "exec sleep 1000")
	if err := stopGroup(life.Pid); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "it is stopped", func() bool { return state(life.Pid) == 'T' })
	other := Life{Pid: life.Pid, Start: life.Start - 1}
	for _, undo := range []Undo{{Resume: &other}, {End: &other}} {
		if err := undo.revert(); err != nil {
			t.Error(err)
		}
	}
	if s := state(life.Pid); s != 'T' {
		t.Fatalf("a process that is not meant is in state %c", s)
	}
	if err := (Undo{Resume: &life}).revert(); err != nil || state(life.Pid) == 'T' {
		t.Errorf("resume: %v, state %c", err, state(life.Pid))
	}
	if err := (Undo{End: &life}).revert(); err != nil {
		t.Error(err)
	}
	eventually(t, patience, "it is gone", func() bool { return gone(life.Pid) })
}

// The kernel ends only the leader of a group with the agent that is killed.
func TestAGroupWithoutItsLeaderIsEnded(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	life, reaped := sleeper(t, "sleep 1000 & echo $! > "+pidFile)
	<-reaped
	child := 0
	text, err := os.ReadFile(pidFile)
	if err == nil {
		_, err = fmt.Sscan(string(text), &child)
	}
	if err != nil || gone(child) {
		t.Fatalf("child %q: %v, state %c", text, err, state(child))
	}
	if err := (Undo{End: &Life{Pid: life.Pid, Start: life.Start + 1_000_000}}).revert(); err != nil || gone(child) {
		t.Fatalf("a group older than the life was ended (%v)", err)
	}
	if err := (Undo{End: &life}).revert(); err != nil {
		t.Error(err)
	}
	eventually(t, patience, "the child is gone", func() bool { return gone(child) })
	if err := (Undo{End: &life}).revert(); err != nil {
		t.Errorf("done twice: %v", err)
	}
}

// An agent may be killed after it noted that it ends a process, and before it does: two of it
// must not run.
func TestWhatWasToEndEndsBeforeItIsStartedAgain(t *testing.T) {
	dir := t.TempDir()
	life, reaped := sleeper(t, "exec sleep 1000")
	spec := clusters.Process{Name: "db", Argv: []string{"/bin/sh", "-c", "echo $$; exec sleep 1000"}, Dir: dir, Log: filepath.Join(dir, "log")}
	if err := (Undo{Restart: &Ending{Process: spec, Life: life}}).revert(); err != nil {
		t.Fatal(err)
	}
	<-reaped
	next := 0
	eventually(t, patience, "the next life has begun", func() bool {
		text, _ := os.ReadFile(spec.Log)
		n, _ := fmt.Sscan(string(text), &next)
		return n == 1 && strings.HasSuffix(string(text), "\n")
	})
	killLater(t, next)
	if gone(next) {
		t.Errorf("pid %d does not run", next)
	}
	spec.Log = dir // cannot be opened
	if err := (Ending{Process: spec, Life: life}).revert(); err == nil || !strings.Contains(err.Error(), "start db again") {
		t.Errorf("a process that cannot be started: %v", err)
	}
}

// An agent whose guardian is gone heals and leaves, though its controller is there.
func TestAnAgentWithoutAGuardianLeaves(t *testing.T) {
	notes, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = theirs.Close() }()
	_ = notes.Close()
	in, _ := io.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(context.Background(), in, io.Discard, theirs) }()
	select {
	case err := <-served:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the agent does not leave")
	}
}

func TestParseStat(t *testing.T) {
	whole := "42 (a) b) S 1 40 39 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0"
	s, err := parseStat([]byte(whole))
	if want := (status{'S', 40, 39, 12345}); err != nil || s != want {
		t.Errorf("%+v, %v", s, err)
	}
	for _, text := range []string{"", "42 (a", "42 (a) S 1 2", strings.Replace(whole, "12345", "-1", 1), strings.Replace(whole, "40", "x", 1)} {
		if s, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q: %+v", text, s)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (a) b) S 1 40 39 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0"))
	f.Add([]byte("42 (a"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := parseStat(text); err == nil && s.state == 0 {
			t.Fatalf("%q has no state", text)
		}
	})
}
