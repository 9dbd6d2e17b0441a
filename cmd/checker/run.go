package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"capsize/harness"
	"capsize/reports"
)

func newRun(status *harness.Status) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a test: deploy, drive, break, heal, judge",
		Long: `Run a test: bring a cluster up, start the system on it, drive it with clients, inject faults,
heal everything, collect histories and traces, and judge. Every flag can also be given as a
CAPSIZE_* environment variable (CAPSIZE_TIME_LIMIT=1m) or as a key in capsize.yaml.

Exit status: 0 valid, 1 invalid, 2 unknown, 3 the harness failed, 64 wrong usage.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			plan, err := resolve(cmd)
			if err != nil {
				return err
			}
			// With --json standard output carries the verdict alone.
			progress := cmd.OutOrStdout()
			if asJSON {
				progress = cmd.ErrOrStderr()
			}
			judgement, report, err := harness.Run(cmd.Context(), plan, progress, isTerminal(progress))
			if err != nil {
				return err
			}
			*status = judgement.Status
			return show(cmd.OutOrStdout(), judgement, report, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the verdict as JSON")
	addPlanFlags(cmd)
	return cmd
}

func newCheck(status *harness.Status) *cobra.Command {
	return overDirectory(status, "check DIR", "Judge a run again from its directory",
		"Judge a run again from its directory, with no cluster: every checker reads what was recorded, and verdict.json and\nthe reports are written anew.",
		func(cmd *cobra.Command, dir harness.Directory) (*harness.Judgement, *reports.Run, error) {
			return harness.Judge(cmd.Context(), dir)
		})
}

func newReport(status *harness.Status) *cobra.Command {
	return overDirectory(status, "report DIR", "Draw the reports of a run anew",
		"Draw report.html, junit.xml and summary.md anew from a run's verdict.json, without judging again.",
		func(_ *cobra.Command, dir harness.Directory) (*harness.Judgement, *reports.Run, error) {
			return harness.Redraw(dir)
		})
}

func overDirectory(status *harness.Status, use, short, long string, do func(*cobra.Command, harness.Directory) (*harness.Judgement, *reports.Run, error)) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if info, err := os.Stat(args[0]); err != nil || !info.IsDir() {
				return &harness.UsageError{Key: "DIR", Value: args[0], Allowed: "the directory of a run, such as runs/latest"}
			}
			judgement, report, err := do(cmd, harness.Directory(args[0]))
			if err != nil {
				return err
			}
			*status = judgement.Status
			return show(cmd.OutOrStdout(), judgement, report, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the verdict as JSON")
	return cmd
}

func show(out io.Writer, judgement *harness.Judgement, report *reports.Run, asJSON bool) error {
	if !asJSON {
		return reports.WriteText(out, report, isTerminal(out))
	}
	data, err := json.MarshalIndent(judgement, "", "  ")
	if err != nil {
		return fmt.Errorf("print the verdict: %w", err)
	}
	_, err = out.Write(append(data, '\n'))
	return err
}

func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
