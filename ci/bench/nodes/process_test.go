package main

import (
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestAProcessIsAliveUntilItIsKilled(t *testing.T) {
	p, err := start([]string{"/bin/sleep", "600"}, filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.alive(); err != nil {
		t.Error(err)
	}
	p.kill()
	if err := syscall.Kill(p.cmd.Process.Pid, 0); err != syscall.ESRCH {
		t.Errorf("after kill: %v, want %v", err, syscall.ESRCH)
	}
	if p.alive() == nil {
		t.Error("killed, and alive")
	}
	p.kill() // again: nothing to do
}

func TestAProcessThatEndsByItselfShowsTheEndOfItsLog(t *testing.T) {
	p, err := start([]string{"/bin/sh", "-c", "echo no such disk >&2; exit 3"}, filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	<-p.ended
	if err := p.alive(); err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such disk") {
		t.Errorf("got %v", err)
	}
}

func TestAProgramThatIsMissingDoesNotStart(t *testing.T) {
	dir := t.TempDir()
	if _, err := start([]string{filepath.Join(dir, "nothing")}, filepath.Join(dir, "log")); err == nil {
		t.Error("it started")
	}
}

func TestServersDoNotSeeWhatEtcdTakesForFlags(t *testing.T) {
	t.Setenv("ETCD_SNAPSHOT_COUNT", "5")
	t.Setenv("NOT_ETCD_NAME", "kept")
	got := environment()
	if slices.Contains(got, "ETCD_SNAPSHOT_COUNT=5") || !slices.Contains(got, "NOT_ETCD_NAME=kept") {
		t.Errorf("got %v", got)
	}
}
