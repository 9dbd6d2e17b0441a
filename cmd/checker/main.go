// The checker is Capsize's command line: it runs a consistency test against a Raft
// cluster and judges it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"

	"capsize/harness"
)

func main() {
	os.Exit(int(execute(os.Args[1:])))
}

// execute runs the command line and returns the exit status.
func execute(args []string) harness.Status {
	ctx, stop := interruptible()
	defer stop()
	status := harness.StatusValid
	root := newRoot(&status)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return status
	}
	fmt.Fprintln(os.Stderr, "checker:", err)
	var wrong *harness.UsageError
	if errors.As(err, &wrong) || errors.As(err, new(commandLineError)) {
		return harness.StatusUsage
	}
	return harness.StatusFailed
}

func newRoot(status *harness.Status) *cobra.Command {
	root := &cobra.Command{
		Use:   "checker",
		Short: "Capsize tries to capsize a Raft cluster",
		Long: `Capsize deploys a Raft cluster, drives it with concurrent clients, breaks it on purpose,
records everything that the clients saw, and decides whether the cluster kept its promises.

  checker run                     five nodes on this machine, 30 seconds, no root, no Docker
  checker run --cluster docker    the same in five containers
  checker check runs/latest       judge a run again from its directory

Exit status: 0 valid, 1 invalid, 2 unknown (a checker could not decide, or the planned
faults did not land), 3 the harness failed, 64 wrong usage.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return commandLineError{fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
	})
	root.AddCommand(newRun(status), newCheck(status), newReport(status), newConfig(), newFaults(), newDoctor(status), newClean(), newExport(), newMutants(status))
	for _, cmd := range root.Commands() {
		cmd.Args = usageArgs(cmd.Args)
	}
	root.Args = usageArgs(cobra.NoArgs)
	return root
}

// commandLineError is a mistake in the command line itself: an unknown flag or command,
// too many arguments.
type commandLineError struct{ error }

func (e commandLineError) Unwrap() error { return e.error }

func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return commandLineError{fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
		}
		return nil
	}
}

// interruptible returns a context that the first Ctrl-C (or SIGTERM) ends: the run stops,
// heals and judges what it has. The second ends the program at once; the agents heal by
// themselves then.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	var count atomic.Int32
	go func() {
		for range signals {
			if count.Add(1) > 1 {
				fmt.Fprintln(os.Stderr, "\nStopped at once. The agents heal everything by themselves within seconds; `checker clean` removes what is left.")
				os.Exit(int(harness.StatusFailed))
			}
			fmt.Fprintln(os.Stderr, "\nStopping: healing, then judging what was recorded. Ctrl-C again stops at once.")
			cancel()
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel()
	}
}
