package nemesis

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Roles that a target can name. Any other target is a list of names, joined by commas.
const (
	One      = "one"      // a node at random
	Leader   = "leader"   // who leads when the step begins
	Follower = "follower" // a node at random that does not lead
	Spare    = "spare"    // a node at random without which a majority still works, whatever else is in force
	Minority = "minority" // the largest number of nodes that is no majority, at random
	Majority = "majority" // the smallest majority, at random
	All      = "all"
	Removed  = "removed" // a node at random that a step in force has removed from the cluster
	Learner  = "learner" // a node at random that a step in force left without a vote
)

var roles = []string{One, Leader, Follower, Spare, Minority, Majority, All, Removed, Learner}

// errUnknownLeader: the target needs the leader, and nobody leads or nobody says so.
var errUnknownLeader = errors.New("no leader is known")

// errNoSpare: without any node of the majority that still works there is none.
var errNoSpare = errors.New("with what is in force no node can be spared: a majority would be lost")

// errNoneRemoved, errNoLearner: such a target takes another step, which is not in force.
var (
	errNoneRemoved = errors.New("no node is removed: let the step begin while a step of the fault remove is in force")
	errNoLearner   = errors.New("no node is a learner: let the step begin while a step of the fault demote, or add as learner, is in force")
)

// mayPass reports whether a target that means nobody now may mean somebody in a moment: an
// election may be under way, or another fault beginning or nearly over.
func mayPass(err error) bool {
	for _, passing := range []error{errUnknownLeader, errNoSpare, errNoneRemoved, errNoLearner} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// View is what a target is resolved against: the moment when a step begins.
type View struct {
	Nodes    []string
	Leader   string    // who leads; empty where nobody is known to
	Standing []Planned // what is in force
}

// resolve returns the nodes that a target means, in the order of nodes.
func resolve(target string, view View, random *rand.Rand) ([]string, error) {
	nodes := view.Nodes
	switch target {
	case Follower:
		if view.Leader == "" {
			return nil, errUnknownLeader
		}
		return view.some(without(nodes, []string{view.Leader}), min(1, len(nodes)-1), random), nil
	case Spare:
		spare := filter(nodes, func(node string) bool { return canSpare(node, view) })
		if len(spare) == 0 {
			return nil, errNoSpare
		}
		return some(spare, 1, random), nil
	case One:
		return view.some(nodes, 1, random), nil
	case Leader:
		if view.Leader == "" || view.down(view.Leader) { // it does not lead any more, though nobody has noticed
			return nil, errUnknownLeader
		}
		return []string{view.Leader}, nil
	case Minority:
		return view.some(nodes, (len(nodes)-1)/2, random), nil
	case Majority:
		return view.some(nodes, len(nodes)/2+1, random), nil
	case All:
		return slices.Clone(nodes), nil
	case Removed:
		return oneThatIs(nodes, view.Standing, func(p Planned) []string { return p.Removed }, errNoneRemoved, random)
	case Learner:
		return oneThatIs(nodes, view.Standing, func(p Planned) []string { return p.Learners }, errNoLearner, random)
	}
	named := strings.Split(target, ",")
	return filter(nodes, func(node string) bool { return slices.Contains(named, node) }), nil
}

// oneThatIs draws a node that some step in force made such, or returns the error none.
func oneThatIs(nodes []string, standing []Planned, such func(Planned) []string, none error, random *rand.Rand) ([]string, error) {
	those := filter(nodes, func(node string) bool {
		return slices.ContainsFunc(standing, func(p Planned) bool { return slices.Contains(such(p), node) })
	})
	if len(those) == 0 {
		return nil, none
	}
	return some(those, 1, random), nil
}

// down reports whether a node is killed or stands still by what is in force.
func (v View) down(node string) bool {
	return slices.ContainsFunc(v.Standing, func(p Planned) bool { return slices.Contains(p.Down, node) })
}

// some draws n nodes, and takes one that is down only where no other is left: little can be done
// to it.
func (v View) some(nodes []string, n int, random *rand.Rand) []string {
	up := filter(nodes, func(node string) bool { return !v.down(node) })
	chosen := some(up, min(n, len(up)), random)
	chosen = append(chosen, some(without(nodes, up), n-len(chosen), random)...)
	return filter(nodes, func(node string) bool { return slices.Contains(chosen, node) })
}

// some draws n nodes.
func some(nodes []string, n int, random *rand.Rand) []string {
	drawn := random.Perm(len(nodes))[:n]
	slices.Sort(drawn)
	chosen := make([]string, n)
	for i, at := range drawn {
		chosen[i] = nodes[at]
	}
	return chosen
}

func filter(nodes []string, keep func(string) bool) []string {
	var kept []string
	for _, node := range nodes {
		if keep(node) {
			kept = append(kept, node)
		}
	}
	return kept
}

// without returns the nodes that are not among those.
func without(nodes, those []string) []string {
	return filter(nodes, func(node string) bool { return !slices.Contains(those, node) })
}

// validateTarget checks a target against the nodes. An empty one means the fault's own
// default.
func validateTarget(target string, nodes []string) *ScheduleError {
	if len(nodes) == 0 {
		return &ScheduleError{Key: "target", Value: target, Allowed: "nothing: there are no nodes"}
	}
	if target == "" || slices.Contains(roles, target) {
		if (target == Minority || target == Spare) && len(nodes) < 3 {
			return &ScheduleError{Key: "target", Value: target, Allowed: fmt.Sprintf("another target: %d nodes have no minority", len(nodes))}
		}
		if target == Follower && len(nodes) < 2 {
			return &ScheduleError{Key: "target", Value: target, Allowed: "another target: a node alone follows nobody"}
		}
		return nil
	}
	seen := make(map[string]bool)
	for _, name := range strings.Split(target, ",") {
		if !slices.Contains(nodes, name) || seen[name] {
			return &ScheduleError{Key: "target", Value: target, Allowed: oneOf(roles) + ", or names of " + strings.Join(nodes, ", ") + ", each once, joined by commas"}
		}
		seen[name] = true
	}
	return nil
}
