package main

import (
	"context"
	"time"
)

// idleness is what a node costs that nobody talks to.
type idleness struct {
	system string
	memory memory  // of the largest of the nodes
	cpu    float64 // share of one core that a node uses, on average
}

// measureIdle leaves fresh clusters alone for a while, so that what their start left behind
// can be collected, and then looks at them.
func measureIdle(ctx context.Context, clusters []*cluster, wait time.Duration) ([]idleness, error) {
	before := make([]time.Duration, len(clusters))
	for i, c := range clusters {
		var err error
		if before[i], err = c.cpu(); err != nil {
			return nil, err
		}
	}
	begin := time.Now()
	if err := waitUntil(ctx, begin.Add(wait)); err != nil {
		return nil, err
	}
	passed := time.Since(begin)
	var all []idleness
	for i, c := range clusters {
		after, err := c.cpu()
		if err != nil {
			return nil, err
		}
		found := idleness{system: c.name(), cpu: float64(after-before[i]) / float64(passed) / nodes}
		for _, p := range c.processes {
			m, err := memoryOf(p.cmd.Process.Pid)
			if err != nil {
				return nil, err
			}
			if m.residentBytes > found.memory.residentBytes {
				found.memory = m
			}
		}
		all = append(all, found)
	}
	return all, nil
}

// cpu returns the CPU time that all nodes have used.
func (c *cluster) cpu() (sum time.Duration, err error) {
	for _, p := range c.processes {
		t, err := cpuTime(p.cmd.Process.Pid)
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}
