package nemesis

import (
	"context"
	"slices"
	"time"

	"capsize/nemesis/agent"
)

// majorityWorks reports whether, with that in force, some majority of the nodes can work
// together: a node that is up and exchanges messages, both ways, with so many others that
// are up that with itself they are a majority. It could lead them.
func majorityWorks(nodes []string, standing []Planned) bool {
	down := make(map[string]bool)
	cut := make(map[agent.Pair]bool)
	for _, planned := range standing {
		for _, node := range planned.Down {
			down[node] = true
		}
		for _, pair := range planned.Pairs {
			cut[pair] = true
		}
	}
	return slices.ContainsFunc(nodes, func(node string) bool {
		return !down[node] && len(reached(node, nodes, cut, down)) > len(nodes)/2
	})
}

// reached returns the nodes that are up and exchange messages with a node, itself included.
func reached(node string, nodes []string, cut map[agent.Pair]bool, down map[string]bool) []string {
	return filter(nodes, func(other string) bool {
		return other == node || !down[other] && !cut[agent.Pair{From: node, To: other}] && !cut[agent.Pair{From: other, To: node}]
	})
}

// canSpare reports whether a majority still works when a node goes too.
func canSpare(node string, view View) bool {
	return !view.down(node) && majorityWorks(view.Nodes, append(slices.Clone(view.Standing), Planned{Down: []string{node}}))
}

// Sides of a partition, as a leader may find itself on.
const (
	InMinority = "minority" // it exchanges messages with fewer nodes than a majority
	InMajority = "majority"
)

// side says on which side of a partition the leader is; nothing where there is no partition
// or no leader.
func (p Planned) side(nodes []string) string {
	if len(p.Pairs) == 0 || !slices.Contains(nodes, p.Leader) {
		return ""
	}
	cut := make(map[agent.Pair]bool)
	for _, pair := range p.Pairs {
		cut[pair] = true
	}
	if len(reached(p.Leader, nodes, cut, nil)) > len(nodes)/2 {
		return InMajority
	}
	return InMinority
}

// outage keeps the schedule's limit on the time without a majority.
type outage struct {
	limit time.Duration
	nodes []string
	since time.Time // when the majority was lost; zero while one works
	timer *time.Timer
}

// note takes what is in force now. When the majority has been lost for the limit it calls
// expired.
func (o *outage) note(standing []Planned, expired func()) {
	if o.limit <= 0 {
		return
	}
	works := majorityWorks(o.nodes, standing)
	switch {
	case works && o.timer != nil:
		o.timer.Stop()
		o.timer, o.since = nil, time.Time{}
	case !works && o.timer == nil:
		o.since = time.Now()
		o.timer = time.AfterFunc(o.limit, expired)
	}
}

// standingStep is a fault in force, and how to end its time early.
type standingStep struct {
	planned Planned
	landed  time.Time
	cut     context.CancelCauseFunc
}

// restoreMajority ends faults early, the latest first, until a majority can work again. It
// returns those that it ended.
func restoreMajority(nodes []string, standing []standingStep) []Planned {
	slices.SortFunc(standing, func(a, b standingStep) int { return b.landed.Compare(a.landed) })
	var ended []Planned
	for i, step := range standing {
		var left []Planned
		for _, other := range standing[i:] {
			left = append(left, other.planned)
		}
		if majorityWorks(nodes, left) {
			break
		}
		if step.cut == nil || len(step.planned.Down) == 0 && len(step.planned.Pairs) == 0 {
			continue // it is being healed already, or takes nobody away
		}
		step.cut(errOutage)
		ended = append(ended, step.planned)
	}
	return ended
}
