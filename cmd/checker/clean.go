package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"capsize/clusters/docker"
)

func newClean() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "clean",
		Short: "Remove the containers and networks that killed runs left",
		Long: `Remove the containers and networks that killed runs left. Only what carries Capsize's label is
looked at, and a run whose checker is still alive is left alone unless --force is given.
Local runs leave nothing to clean: their agents stop the nodes when the checker dies.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			removed, err := docker.Clean(cmd.Context(), docker.CleanOptions{Force: force})
			for _, name := range removed {
				fmt.Fprintln(cmd.OutOrStdout(), "removed", name)
			}
			if err == nil && len(removed) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "nothing to remove")
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also remove what belongs to runs that are still going on")
	return cmd
}
