package main

import (
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"capsize/harness"
	"capsize/harness/mutants"
)

func newMutants(status *harness.Status) *cobra.Command {
	var corpus string
	var budget time.Duration
	var verbose bool
	cmd := &cobra.Command{
		Use:   "mutants [NAME …]",
		Short: "Break the reference node on purpose and see whether it is found out",
		Long: `Build the reference node with each mutant of the corpus (a patch with one deliberate bug), run
tests against it until a checker finds it or the budget is spent, and print a table. The
other flags are those of run; a mutant's own header decides workload and faults.

Exit status: 0 every mutant that must be detected was, 1 one was missed, 3 the harness failed.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, names []string) error {
			plan, err := resolve(cmd)
			if err != nil {
				return err
			}
			root, err := harness.SourceRoot()
			if err != nil {
				return fmt.Errorf("mutants are built from source: %w; start checker inside the source tree", err)
			}
			if corpus == "" {
				corpus = filepath.Join(root, "ci", "mutants")
			}
			all, err := mutants.Load(corpus, names)
			if err != nil {
				return err
			}
			progress := io.Discard
			if verbose {
				progress = cmd.ErrOrStderr()
			}
			*status = harness.StatusValid
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
			defer func() { _ = table.Flush() }() // standard output: nobody to tell
			fmt.Fprintln(table, "MUTANT\tRESULT\tTIME\tRUNS\tBY\tWHAT WAS SEEN")
			for _, mutant := range all {
				hunt, err := mutant.Hunt(cmd.Context(), plan, budget, root, progress)
				if err != nil {
					return err
				}
				fmt.Fprintf(table, "%s\t%s\t%.0fs\t%d\t%s\t%s\n", mutant.Name, outcome(hunt), hunt.Took.Seconds(), hunt.Runs, hunt.By, seen(hunt))
				if err := table.Flush(); err != nil {
					return err
				}
				if !hunt.Detected && mutant.Promised() {
					*status = harness.StatusInvalid
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&corpus, "corpus", "", "directory of the mutants (default ci/mutants of the source tree)")
	cmd.Flags().DurationVar(&budget, "budget", 2*time.Minute, "time to spend on one mutant")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show the progress of every run")
	addPlanFlags(cmd)
	return cmd
}

func outcome(h mutants.Hunt) string {
	switch {
	case h.Detected:
		return "detected"
	case h.Mutant.Promised():
		return "MISSED"
	default:
		return "not detected (not promised)"
	}
}

func seen(h mutants.Hunt) string {
	if h.Detected {
		return h.Headline
	}
	return h.Mutant.Needs
}
