package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"
)

// CleanOptions say what Clean removes.
type CleanOptions struct {
	Force bool // also what belongs to runs that are still going on
}

// Clean removes the containers and networks of runs whose checker is no longer alive, and
// returns their names. What does not carry our label is never looked at. A run that was
// started on another machine is left alone: whether it goes on cannot be seen from here.
func Clean(ctx context.Context, options CleanOptions) ([]string, error) {
	engine, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = engine.Close() }() // connections only
	runs, err := foundRuns(ctx, engine)
	if err != nil {
		return nil, err
	}
	var removed []string
	var problems []error
	for run, checker := range runs {
		if !options.Force && mayBeAlive(checker) {
			continue
		}
		names, err := removeRun(ctx, engine, run)
		removed = append(removed, names...)
		problems = append(problems, err)
	}
	slices.Sort(removed)
	return removed, errors.Join(problems...)
}

// foundRuns returns the runs that have left anything, each with the owner it names.
func foundRuns(ctx context.Context, engine *client.Client) (map[string]string, error) {
	ours := filters.NewArgs(filters.Arg("label", labelOurs+"=true"))
	containers, err := engine.ContainerList(ctx, container.ListOptions{All: true, Filters: ours})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	networks, err := engine.NetworkList(ctx, network.ListOptions{Filters: ours})
	if err != nil {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	runs := make(map[string]string)
	note := func(labels map[string]string) {
		if run := labels[labelRun]; run != "" {
			runs[run] = labels[labelChecker]
		}
	}
	for _, c := range containers {
		note(c.Labels)
	}
	for _, n := range networks {
		note(n.Labels)
	}
	return runs, nil
}

// removeRun removes the containers, and then the network, of one run.
func removeRun(ctx context.Context, engine *client.Client, run string) ([]string, error) {
	ofRun := filters.NewArgs(filters.Arg("label", labelOurs+"=true"), filters.Arg("label", labelRun+"="+run))
	containers, err := engine.ContainerList(ctx, container.ListOptions{All: true, Filters: ofRun})
	if err != nil {
		return nil, fmt.Errorf("list the containers of run %s: %w", run, err)
	}
	var mu sync.Mutex
	var removed []string
	done := func(name string) {
		mu.Lock()
		defer mu.Unlock()
		removed = append(removed, name)
	}
	var group errgroup.Group
	for _, c := range containers {
		group.Go(func() error {
			name := strings.TrimPrefix(strings.Join(c.Names, ","), "/")
			err := engine.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
			if err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("remove container %s: %w", name, err)
			}
			done(name)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return removed, err
	}
	networks, err := engine.NetworkList(ctx, network.ListOptions{Filters: ofRun})
	if err != nil {
		return removed, fmt.Errorf("list the networks of run %s: %w", run, err)
	}
	for _, n := range networks {
		if err := engine.NetworkRemove(ctx, n.ID); err != nil && !errdefs.IsNotFound(err) {
			return removed, fmt.Errorf("remove network %s: %w", n.Name, err)
		}
		done(n.Name)
	}
	return removed, nil
}

// owner names this process so that another can tell whether it is still alive: machine,
// process id, and when the process started, since ids are used again.
func owner() string {
	host, _ := os.Hostname()
	return fmt.Sprintf("%s/%d/%s", host, os.Getpid(), startOf(os.Getpid()))
}

// mayBeAlive reports whether the process that owner described may still run.
func mayBeAlive(owner string) bool {
	parts := strings.Split(owner, "/")
	if len(parts) != 3 {
		return false
	}
	host, _ := os.Hostname()
	pid, err := strconv.Atoi(parts[1])
	if parts[0] != host || err != nil {
		return true // of another machine
	}
	return parts[2] != "" && startOf(pid) == parts[2]
}

// startOf returns when a process started, in the kernel's ticks since boot; empty if it
// does not run (proc(5), field 22 of stat).
func startOf(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The second field, the program's name, may hold anything: count from its end.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const start = 22 - 3 // the first field here is the third
	if len(fields) <= start {
		return ""
	}
	return string(fields[start])
}
