// The agent is the part of the nemesis that runs on a node. The checker copies it there,
// starts it, and speaks to it on its standard input and output.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"capsize/nemesis/agent"
)

const help = `The capsize agent makes and undoes faults on one node of a cluster under test.

It is not run by hand: the checker copies it to each node, starts it, and speaks to it
on its standard input and output, one JSON line a request, one a reply. When the checker
goes silent the agent undoes everything that it did, and ends. The work is done by a child
process; its parent, the guardian, undoes what the child leaves behind if it is killed. A
further process of this program, "agent disk DIR", is the file system over the data of a
system whose disk shall fail.

  --help     print this text
  --version  print the version of the protocol
`

// exitUsage is the status for wrong usage, as of the checker.
const exitUsage = 64

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	log.SetPrefix("capsize agent: ")
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	if len(args) == 1 && args[0] == "--help" {
		fmt.Print(help)
		return 0
	}
	if len(args) == 1 && args[0] == "--version" {
		fmt.Printf("capsize agent, protocol version %d\n", agent.Version)
		return 0
	}
	if len(args) == 2 && args[0] == agent.DiskCommand {
		if err := agent.ServeDisk(args[1]); err != nil {
			log.Print(err)
			return 1
		}
		return 0
	}
	if len(args) > 0 {
		fmt.Fprintf(os.Stderr, "capsize agent: unknown argument %q\n\n%s", args[0], help)
		return exitUsage
	}
	if term.IsTerminal(int(os.Stdin.Fd())) {
		fmt.Fprintf(os.Stderr, "capsize agent: standard input is a terminal, but only the checker can speak to it\n\n%s", help)
		return exitUsage
	}
	// A broken pipe must not end the agent before it has healed what it did: caught, it is an
	// error of the write, and Serve ends with that. It is no reason to end by itself: a link
	// proxy's write to a node that was killed raises the same signal. Ignored, it would stay
	// ignored in the processes that the agent starts; so it is caught and left unread.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if os.Getenv(workerVariable) == "" {
		return guard(ctx)
	}
	_ = os.Unsetenv(workerVariable) // it is not for the processes that the agent starts
	if err := agent.Serve(ctx, os.Stdin, os.Stdout, agent.Notes()); err != nil {
		log.Print(err)
		return 1
	}
	return 0
}

// workerVariable tells the child that it is the one that works.
const workerVariable = "CAPSIZE_AGENT_WORKER"

// guard runs this program again, as the worker.
func guard(ctx context.Context) int {
	path, err := os.Executable()
	if err != nil {
		log.Printf("find the agent's own program: %v", err)
		return 1
	}
	worker := exec.Command(path)
	worker.Args[0] = os.Args[0]
	worker.Env = append(os.Environ(), workerVariable+"=1")
	status, err := agent.Guard(ctx, worker)
	if err != nil {
		log.Printf("healing after the agent's end: %v", err)
		return max(status, 1)
	}
	return status
}
