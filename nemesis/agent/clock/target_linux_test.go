//go:build amd64 || arm64

package clock

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const targetEnv = "CAPSIZE_CLOCK_TARGET"

func TestMain(m *testing.M) {
	if os.Getenv(targetEnv) != "" {
		serveTarget()
		return
	}
	os.Exit(m.Run())
}

// serveTarget is the Go program whose clocks are changed: a line in, a line out.
func serveTarget() {
	start, startKernel := time.Now(), kernel(unix.CLOCK_MONOTONIC)
	var back atomic.Int64
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		verb, argument, _ := strings.Cut(lines.Text(), " ")
		before := kernel(unix.CLOCK_MONOTONIC)
		switch verb {
		case "read": // how far REALTIME and MONOTONIC are ahead of the kernel
			now := time.Now()
			fmt.Println(now.UnixNano()-kernel(unix.CLOCK_REALTIME),
				int64(now.Sub(start))-(kernel(unix.CLOCK_MONOTONIC)-startKernel))
		case "sleep": // how long a timer takes by the kernel's clock
			d, _ := time.ParseDuration(argument)
			<-time.After(d)
			fmt.Println(kernel(unix.CLOCK_MONOTONIC)-before, 0)
		case "spin":
			for range 3 {
				go func() {
					for last := time.Now(); ; {
						now := time.Now()
						if now.Before(last) {
							back.Add(1)
						}
						last = now
					}
				}()
			}
			fmt.Println(0, 0)
		case "back":
			fmt.Println(back.Load(), 0)
		case "child": // what a program that it executes reads
			child := exec.Command("/proc/self/exe")
			child.Stdin, child.Stdout = strings.NewReader("read\n"), os.Stdout
			if child.Run() != nil {
				fmt.Println(-1, -1)
			}
		}
	}
}

// program is a target under test.
type program struct {
	*exec.Cmd
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Reader
}

func newProgram(t *testing.T, name string, args ...string) *program {
	t.Helper()
	p := &program{Cmd: exec.Command(name, args...), t: t}
	p.Env = append(os.Environ(), targetEnv+"=1")
	p.Stderr = os.Stderr
	var err error
	if p.in, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	return p
}

func goProgram(t *testing.T) *program { t.Helper(); return newProgram(t, "/proc/self/exe") }

// run starts the program with a hooked clock.
func (p *program) run(m machine, viaSyscall bool) *Clock {
	p.t.Helper()
	c, err := start(p.Cmd, m, viaSyscall, 0)
	p.endWithTest()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (p *program) endWithTest() {
	p.t.Cleanup(func() {
		if p.Process != nil {
			_ = p.Process.Kill()
			_ = p.Wait()
		}
	})
}

func (p *program) runUnhooked() {
	p.t.Helper()
	if err := p.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.endWithTest()
	p.ask("read")
}

// ask sends a line and reads two numbers of nanoseconds.
func (p *program) ask(line string) (a, b time.Duration) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		p.t.Fatal(err)
	}
	if _, err := fmt.Fscan(p.out, &a, &b); err != nil {
		p.t.Fatalf("the target does not answer %q: %v", line, err)
	}
	return a, b
}

const readSlack = 50 * time.Millisecond // between two readings, on a loaded machine

// reads checks how far ahead the target reads its clocks.
func (p *program) reads(realtime, monotonic time.Duration) {
	p.t.Helper()
	a, b := p.ask("read")
	if (a-realtime).Abs() > readSlack || (b-monotonic).Abs() > readSlack {
		p.t.Fatalf("the target's REALTIME is ahead by %v, MONOTONIC by %v; want %v and %v", a, b, realtime, monotonic)
	}
}

func native() machine { return machines[runtime.GOARCH] }

const programC = `
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long long own(int id) { struct timespec t; clock_gettime(id, &t); return t.tv_sec * 1000000000LL + t.tv_nsec; }
static long long kern(int id) { struct timespec t; syscall(SYS_clock_gettime, id, &t); return t.tv_sec * 1000000000LL + t.tv_nsec; }
static atomic_int spinning;
static void *spin(void *p) {
	long long last = own(1);
	spinning++;
	for (;;) {
		long long now = own(1);
		if (now < last) abort();
		last = now;
	}
}
int main(int argc, char **argv) {
	char line[64];
	struct timeval tv;
	for (int i = 1; i < argc; i++) { pthread_t t; pthread_create(&t, 0, spin, 0); }
	while (spinning < argc - 1) usleep(100); // who has not read yet would see no step
	while (fgets(line, sizeof line, stdin)) {
		int a = 0, b = 1;
		if (!strncmp(line, "old", 3)) {
			long long now = kern(0);
			gettimeofday(&tv, 0);
			printf("%lld %lld\n", tv.tv_sec * 1000000000LL + tv.tv_usec * 1000 - now, time(0) * 1000000000LL - now / 1000000000 * 1000000000);
		} else {
			sscanf(line, "read %d %d", &a, &b);
			printf("%lld %lld\n", own(a) - kern(a), own(b) - kern(b));
		}
		fflush(stdout);
	}
}`

func compileC(t *testing.T) string {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no C compiler")
	}
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "target.c"), filepath.Join(dir, "target")
	if err := os.WriteFile(source, []byte(programC), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(gcc, "-O1", "-pthread", "-o", binary, source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary
}

const programPython = `
import os, sys, time
for line in sys.stdin:
    pid = os.fork() if line.startswith("fork") else -1
    if pid <= 0:
        print(time.time_ns(), time.monotonic_ns(), flush=True)
    if pid == 0: os._exit(0)
    if pid > 0: os.waitpid(pid, 0)
`
