package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"capsize/nemesis"
)

// doctorNodes is how many nodes are enough to see what a cluster that we make can do.
const doctorNodes = 2

// Doctor brings up the cluster of a plan with an agent on each node, asks the agents what they
// can do there, and takes everything down again. The system itself is not started.
func Doctor(ctx context.Context, plan Plan, out io.Writer) (survey nemesis.Survey, err error) {
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	plan.settle()
	if plan.Cluster != "ssh" {
		plan.Nodes = min(plan.Nodes, doctorNodes)
	}
	dir, err := os.MkdirTemp("", "capsize-doctor-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the look around: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	now := time.Now()
	r := &run{plan: plan, progress: &progress{out: out}, dir: Directory(dir), stopped: make(chan struct{})}
	r.facts = Facts{ID: newID(now), Started: now, Nodes: plan.nodeNames()}
	d := &deployment{run: r, expected: make(map[string]bool), died: make(chan string, maxNodes)}
	defer func() {
		downCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeDownLimit)
		defer cancel()
		err = errors.Join(err, d.takeDown(downCtx))
	}()
	return d.lookAround(ctx)
}

func (d *deployment) lookAround(ctx context.Context) (nemesis.Survey, error) {
	var agentPath string
	prepare, prepareCtx := errgroup.WithContext(ctx)
	prepare.Go(func() (err error) {
		agentPath, err = program(prepareCtx, agentProgram, d.run.plan.AgentBinary)
		return err
	})
	prepare.Go(func() (err error) {
		d.system, err = systemsByName[d.run.plan.System].make(prepareCtx, &d.run.plan)
		return err
	})
	err := prepare.Wait()
	if err != nil {
		return nil, err
	}
	if d.cluster, err = d.run.makeCluster(ctx, d.system.Ports(), true); err != nil {
		return nil, err
	}
	if err := d.install(ctx, agentPath); err != nil {
		return nil, err
	}
	abilities, err := d.controller.Survey(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the agents what they can do: %w", err)
	}
	survey := nemesis.Survey(abilities)
	d.addMembership(survey)
	return survey, nil
}
