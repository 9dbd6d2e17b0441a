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
	"syscall"

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
	ctx, cancel := context.WithTimeout(ctx, removeLimit)
	defer cancel()
	return removeLabelled(ctx, engine, labelOurs+"=true", options.chooses)
}

// chooses reports whether what has these labels is to be removed.
func (o CleanOptions) chooses(labels map[string]string) bool {
	return o.Force || !mayBeAlive(labels[labelChecker])
}

func everything(map[string]string) bool { return true }

// removeLabelled removes the containers, and then the networks, that have a label and that
// chosen chooses. It returns the names of those that it removed, in order.
func removeLabelled(ctx context.Context, engine *client.Client, label string, chosen func(labels map[string]string) bool) ([]string, error) {
	labelled := filters.NewArgs(filters.Arg("label", label))
	var mu sync.Mutex
	var removed []string
	var problems []error
	note := func(what, name string, err error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			removed = append(removed, name)
		case !errdefs.IsNotFound(err):
			problems = append(problems, fmt.Errorf("remove %s %s: %w", what, name, err))
		}
	}
	containers, err := engine.ContainerList(ctx, container.ListOptions{All: true, Filters: labelled})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var group errgroup.Group
	group.SetLimit(removeAtOnce)
	for _, c := range containers {
		if !chosen(c.Labels) {
			continue
		}
		group.Go(func() error {
			err := engine.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
			note("container", strings.TrimPrefix(strings.Join(c.Names, ","), "/"), err)
			return nil
		})
	}
	_ = group.Wait() // problems has what went wrong
	networks, err := engine.NetworkList(ctx, network.ListOptions{Filters: labelled})
	if err != nil {
		problems = append(problems, fmt.Errorf("list networks: %w", err))
	}
	for _, n := range networks {
		if chosen(n.Labels) {
			note("network", n.Name, engine.NetworkRemove(ctx, n.ID))
		}
	}
	slices.Sort(removed)
	return removed, errors.Join(problems...)
}

// removeAtOnce bounds how many containers the engine is asked to remove at the same time.
const removeAtOnce = 16

// owner names this process so that another can tell whether it is still alive: machine,
// process id, and when the process started, since ids are used again.
func owner() string {
	started, _ := startOf(os.Getpid())
	return fmt.Sprintf("%s/%d/%s", hostname(), os.Getpid(), started)
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// mayBeAlive reports whether the process that owner described may still run. In doubt it
// may: what cannot be read, or tells of another machine, is not ours to remove.
func mayBeAlive(owner string) bool {
	parts := strings.Split(owner, "/")
	if len(parts) != 3 || parts[0] != hostname() {
		return true
	}
	pid, err := strconv.Atoi(parts[1])
	if err != nil || pid < 1 {
		return true
	}
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) { // signal 0 only asks (kill(2))
		return false
	}
	started, running := startOf(pid)
	if !running {
		return false
	}
	return started == parts[2] || started == "" || parts[2] == ""
}

// startOf returns when a process started, in the kernel's ticks since boot (proc(5), field
// 22 of stat), and whether it still runs: one that has ended may keep its id until it is
// waited for. Where there is no such file, the start is empty and it is taken to run.
func startOf(pid int) (ticks string, running bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", true
	}
	// The second field, the program's name, may hold anything: count from its end.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const state, start = 0, 22 - 3 // the first field here is the third
	if len(fields) <= start {
		return "", true
	}
	return string(fields[start]), fields[state][0] != 'Z' && fields[state][0] != 'X'
}
