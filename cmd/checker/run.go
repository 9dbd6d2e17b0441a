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
	var workload string
	cmd := overDirectory(status, "check DIR|FILE", "Judge a run again from its directory, or a history in a file",
		"Judge a run again from its directory, with no cluster: every checker reads what was recorded, and verdict.json and\nthe reports are written anew.\n\nOr judge a history that stands by itself in a file: Jepsen's history.edn, or a history.jsonl. Nothing is written then.",
		func(cmd *cobra.Command, path string) (*harness.Judgement, *reports.Run, error) {
			if info, err := os.Stat(path); err == nil && !info.IsDir() {
				return harness.JudgeFile(cmd.Context(), path, workload)
			}
			if workload != "" {
				return nil, nil, &harness.UsageError{Key: "workload", Value: workload, Allowed: "with a FILE only: the plan of a run says what its workload was"}
			}
			return harness.Judge(cmd.Context(), harness.Directory(path))
		}, true)
	cmd.Flags().StringVar(&workload, "workload", "", "what the clients of a history in a FILE did, where its operations do not tell")
	return cmd
}

func newExport() *cobra.Command {
	return &cobra.Command{
		Use: "export DIR FILE", Short: "Write the history of a run as Jepsen's history.edn",
		Long: "Write the history of a run as Jepsen's history.edn, so that Jepsen's checkers, Elle or Knossos can judge it.\nFILE must not be there yet.",
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			if info, err := os.Stat(args[0]); err != nil || !info.IsDir() {
				return &harness.UsageError{Key: "DIR", Value: args[0], Allowed: "the directory of a run, such as runs/latest"}
			}
			return harness.Export(harness.Directory(args[0]), args[1])
		},
	}
}

func newReport(status *harness.Status) *cobra.Command {
	return overDirectory(status, "report DIR", "Draw the reports of a run anew",
		"Draw report.html, junit.xml and summary.md anew from a run's verdict.json, without judging again.",
		func(_ *cobra.Command, dir string) (*harness.Judgement, *reports.Run, error) {
			return harness.Redraw(harness.Directory(dir))
		}, false)
}

func overDirectory(status *harness.Status, use, short, long string, do func(cmd *cobra.Command, path string) (*harness.Judgement, *reports.Run, error), files bool) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if info, err := os.Stat(args[0]); err != nil || !info.IsDir() && !files {
				allowed := "the directory of a run, such as runs/latest"
				if files {
					allowed += ", or a file with a history"
				}
				return &harness.UsageError{Key: "DIR", Value: args[0], Allowed: allowed}
			}
			judgement, report, err := do(cmd, args[0])
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
