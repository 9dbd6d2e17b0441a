//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"capsize/nemesis/agent"
)

const roleVariable = "CAPSIZE_AGENT_MAIN_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != "" {
		main()
	}
	os.Exit(m.Run())
}

func program(args ...string) *exec.Cmd {
	command := exec.Command(os.Args[0], args...)
	command.Env = append(os.Environ(), roleVariable+"=1", "GORACE=atexit_sleep_ms=0")
	return command
}

func TestItRefusesATerminalAndArguments(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminal to be had: %v", err)
	}
	defer func() { _ = terminal.Close() }()
	byHand := program()
	byHand.Stdin = terminal
	for name, c := range map[string]struct {
		command *exec.Cmd
		status  int
		says    string
	}{
		"a terminal": {byHand, exitUsage, "standard input is a terminal"},
		"a flag":     {program("--node", "n1"), exitUsage, `unknown argument "--node"`},
		"--help":     {program("--help"), 0, "not run by hand"},
		"--version":  {program("--version"), 0, fmt.Sprintf("protocol version %d", agent.Version)},
	} {
		out, _ := c.command.CombinedOutput() // the status says it
		if c.command.ProcessState.ExitCode() != c.status || !strings.Contains(string(out), c.says) {
			t.Errorf("%s: status %d, %q", name, c.command.ProcessState.ExitCode(), out)
		}
	}
}

// The signals that an end of the session brings, and a reader that is gone, make the agent
// heal before it ends.
func TestItHealsWhenItIsToldToEnd(t *testing.T) {
	for name, end := range map[string]func(*exec.Cmd, io.Writer, io.Closer){
		"SIGHUP":  func(c *exec.Cmd, _ io.Writer, _ io.Closer) { _ = c.Process.Signal(syscall.SIGHUP) },
		"SIGTERM": func(c *exec.Cmd, _ io.Writer, _ io.Closer) { _ = c.Process.Signal(syscall.SIGTERM) },
		"broken pipe": func(_ *exec.Cmd, in io.Writer, out io.Closer) {
			_ = out.Close()
			_, _ = io.WriteString(in, "{\"id\":9,\"ping\":{}}\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			command := program()
			in, err := command.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := command.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			replies := bufio.NewScanner(out)
			var pid int
			for _, request := range []string{
				fmt.Sprintf(`{"id":1,"hello":{"version":%d,"node":"n1","lease":60000000000}}`, agent.Version),
				fmt.Sprintf(`{"id":2,"start":{"process":{"name":"db","argv":["/bin/sleep","1000"],"dir":%q,"log":%q}}}`, dir, filepath.Join(dir, "log")),
				`{"id":3,"signal":{"process":"db","signal":"stop"}}`,
			} {
				if _, err := io.WriteString(in, request+"\n"); err != nil {
					t.Fatal(err)
				}
				var reply agent.Reply
				if !replies.Scan() || json.Unmarshal(replies.Bytes(), &reply) != nil || reply.Error != "" {
					t.Fatalf("%s: %s", request, replies.Text())
				}
				if reply.Signal != nil {
					pid = reply.Signal.Pid
				}
			}
			defer func() { _ = syscall.Kill(pid, syscall.SIGKILL) }()
			if state(pid) != 'T' {
				t.Fatalf("the process is in state %c", state(pid))
			}
			end(command, in, out)
			ended := make(chan error, 1)
			go func() { ended <- command.Wait() }()
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				_ = command.Process.Kill()
				t.Fatal("the agent does not end")
			}
			if s := state(pid); s != 'S' && s != 'R' {
				t.Errorf("the process was left in state %c", s)
			}
		})
	}
}

// A link proxy that writes to a killed node raises SIGPIPE: that is no order to end.
func TestABrokenPipeElsewhereDoesNotEndIt(t *testing.T) {
	command := program()
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = in.Close() // it ends with its input
		_ = command.Wait()
	}()
	replies := bufio.NewScanner(out)
	for i, request := range []string{
		fmt.Sprintf(`{"id":1,"hello":{"version":%d,"node":"n1","lease":60000000000}}`, agent.Version),
		`{"id":2,"ping":{}}`, `{"id":3,"ping":{}}`, `{"id":4,"ping":{}}`,
	} {
		if _, err := io.WriteString(in, request+"\n"); err != nil {
			t.Fatal(err)
		}
		if !replies.Scan() {
			t.Fatalf("request %d gets no answer", i+1)
		}
		if err := command.Process.Signal(syscall.SIGPIPE); err != nil {
			t.Fatal(err)
		}
	}
}

func state(pid int) byte {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return '?'
	}
	return stat[strings.LastIndexByte(string(stat), ')')+2]
}
