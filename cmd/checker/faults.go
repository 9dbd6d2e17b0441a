package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"capsize/harness"
	"capsize/nemesis"
)

func newFaults() *cobra.Command {
	var markdown bool
	cmd := &cobra.Command{
		Use:   "faults [NAME …]",
		Short: "List the faults, with their parameters",
		Long: `List the faults that a schedule can name, or all of a package, with their parameters. Which of
them work on a cluster, and how: checker doctor.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, names []string) error {
			if markdown {
				_, err := io.WriteString(cmd.OutOrStdout(), nemesis.Reference())
				return err
			}
			var wanted []string
			for _, name := range names {
				in := nemesis.FaultsIn(name)
				if len(in) == 0 {
					return &harness.UsageError{Key: "NAME", Value: name, Allowed: "packages (" + strings.Join(nemesis.Packages(), ", ") + ") or faults (" + strings.Join(nemesis.FaultNames(), ", ") + ")"}
				}
				wanted = append(wanted, in...)
			}
			for _, fault := range nemesis.Faults() {
				if about := fault.About(); len(names) == 0 || slices.Contains(wanted, about.Name) {
					writeFault(cmd.OutOrStdout(), about)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&markdown, "markdown", false, "print docs/faults.md")
	return cmd
}

// writeFault explains one fault.
func writeFault(out io.Writer, about nemesis.About) {
	drawn := ""
	if len(about.Cards) == 0 {
		drawn = ", never drawn"
	}
	fmt.Fprintf(out, "%s  (package %s%s)\n    %s\n", about.Name, about.Package, drawn, about.Meaning)
	for _, p := range about.Params {
		fmt.Fprintf(out, "    %s=%s  %s: %s\n", p.Name, p.Default, p.Values(), p.Meaning)
	}
	fmt.Fprintln(out)
}

func newDoctor(status *harness.Status) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Tell which faults work on the cluster at hand, and how",
		Long: `Bring the cluster up with an agent on each node (two nodes of a local or docker cluster, all hosts of
an ssh one), ask the agents what they can do there, and take it down again. The flags are those
of run. Exit status: 0 every fault works, 2 some do not, 3 the cluster could not be looked at.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			plan, err := resolve(cmd)
			if err != nil {
				return err
			}
			survey, err := harness.Doctor(cmd.Context(), plan, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			ways := survey.Ways()
			if slices.ContainsFunc(ways, func(w nemesis.FaultWay) bool { return !w.Works }) {
				*status = harness.StatusUnknown
			}
			if asJSON {
				data, err := json.MarshalIndent(ways, "", "  ")
				if err != nil {
					return fmt.Errorf("print what works: %w", err)
				}
				_, err = cmd.OutOrStdout().Write(append(data, '\n'))
				return err
			}
			return writeWays(cmd.OutOrStdout(), plan.Cluster, ways)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	addPlanFlags(cmd)
	return cmd
}

func writeWays(out io.Writer, cluster string, ways []nemesis.FaultWay) error {
	working := 0
	table := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(table, "FAULT\tWITH\tWORKS\tHOW, OR WHY NOT")
	for _, w := range ways {
		works, how := "yes", w.How
		if how == "" {
			how = "signals of the parent"
		}
		if !w.Works {
			works, how = "no", w.Why
		} else {
			working++
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", w.Fault, w.With, works, how)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%d of %d work on this %s cluster\n", working, len(ways), cluster)
	return err
}
