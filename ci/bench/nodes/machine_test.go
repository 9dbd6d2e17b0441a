package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

const stat = "4242 (a (b) c) S 1 4242 4242 0 -1 4194560 900 0 0 0 125 75 0 0 20 0 9 0 1000 1 2 3"

func TestCPUTimeIsUserAndSystem(t *testing.T) {
	got, err := parseStat(stat)
	if err != nil || got != 2*time.Second {
		t.Errorf("got %s, %v, want 2s", got, err)
	}
	for _, wrong := range []string{"", "1 (x) S 1 2", strings.Replace(stat, "125", "-5", 1), strings.Replace(stat, "75", "many", 1)} {
		if got, err := parseStat(wrong); err == nil {
			t.Errorf("%q gives %s", wrong, got)
		}
	}
}

func TestMemoryIsResidentAndAnonymous(t *testing.T) {
	const status = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t 1024 kB\nRssFile:\t1024 kB\n"
	got, err := parseStatus(status)
	if want := (memory{residentBytes: 2 << 20, anonymousBytes: 1 << 20}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, wrong := range []string{"", strings.ReplaceAll(status, " kB", ""), strings.ReplaceAll(status, "RssAnon", "Other"), strings.ReplaceAll(status, "2048", "-1")} {
		if got, err := parseStatus(wrong); err == nil {
			t.Errorf("%q gives %+v", wrong, got)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add(stat)
	f.Add(")")
	f.Fuzz(func(t *testing.T, text string) { _, _ = parseStat(text) }) // must not panic
}

func FuzzParseStatus(f *testing.F) {
	f.Add("\nVmRSS: 1 kB\nRssAnon: 2 kB")
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := parseStatus(text); err == nil && (m.residentBytes < 0 || m.anonymousBytes < 0) {
			t.Errorf("%q gives %+v", text, m)
		}
	})
}

func TestThisProcessHasMemoryAndUsesCPU(t *testing.T) {
	if m, err := memoryOf(os.Getpid()); err != nil || m.residentBytes <= 0 || m.anonymousBytes > m.residentBytes {
		t.Errorf("memory: %+v, %v", m, err)
	}
	if _, err := memoryOf(0); err == nil {
		t.Error("process 0 has memory")
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		proc, err := cpuTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		own, err := ownCPUTime()
		if err != nil {
			t.Fatal(err)
		}
		if proc >= 5*clockTick {
			if difference := (own - proc).Abs(); difference > own/2 {
				t.Errorf("/proc says %s, getrusage %s", proc, own)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("busy for 10 s, and used %s", proc)
		}
	}
}

func TestADiskIsProbedAndMemoryIsRefused(t *testing.T) {
	const inMemory = "/dev/shm"
	var fs syscall.Statfs_t
	if err := syscall.Statfs(inMemory, &fs); err != nil || fs.Type != tmpfsMagic {
		t.Skipf("%s is no tmpfs here", inMemory)
	}
	dir, err := os.MkdirTemp(inMemory, "capsize-bench-test-")
	if err != nil {
		t.Skipf("no room in %s: %v", inMemory, err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // it is empty
	if _, err := probeDisk(dir); err == nil || !strings.Contains(err.Error(), "-dir") {
		t.Errorf("%s: %v", dir, err)
	}

	disk := t.TempDir()
	if err := syscall.Statfs(disk, &fs); err != nil || fs.Type == tmpfsMagic {
		t.Skipf("%s is on no disk", disk)
	}
	if took, err := probeDisk(disk); err != nil || took <= 0 {
		t.Errorf("%s: %s, %v", disk, took, err)
	}
}
