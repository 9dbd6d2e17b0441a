package checkers

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"capsize/histories"
)

// Leaders checks election safety: at most one leader in a term (Raft paper, figure 3). It
// believes the nodes' traces, and what the nodes answered when asked for their status.
type Leaders struct{}

// Name is "one-leader-a-term".
func (*Leaders) Name() string { return "one-leader-a-term" }

// Check gathers every claim to lead a term. A trace that cannot be read leaves the
// question open, unless two leaders are found even so.
func (*Leaders) Check(ctx context.Context, run *Run) Result {
	c := claims{byTerm: make(map[uint64]map[string]Leadership)}
	evidence := &LeadersEvidence{}
	var problems []string
	for _, node := range slices.Sorted(maps.Keys(run.Traces)) {
		if err := c.readTrace(ctx, run, node); err != nil {
			problems = append(problems, err.Error())
			continue
		}
		evidence.Sources = append(evidence.Sources, "trace of "+node)
	}
	if c.readStatus(run.History) {
		evidence.Sources = append(evidence.Sources, "status polls")
	}
	c.judge(evidence)
	result := Result{Leaders: evidence}
	switch {
	case len(evidence.Conflicts) > 0:
		result.Verdict, result.Summary = Invalid, describeConflict(evidence.Conflicts[0])
		if more := len(evidence.Conflicts) - 1; more > 0 {
			result.Summary += fmt.Sprintf(" (and %d more terms had more than one leader)", more)
		}
	case len(problems) > 0:
		result.Verdict, result.Summary = Unknown, "not every trace could be read: "+strings.Join(problems, "; ")
	case len(evidence.Sources) == 0:
		result.Verdict, result.Summary = Unknown, "no trace and no status: there is nothing to check"
	case len(evidence.Terms) == 0:
		result.Verdict, result.Summary = Unknown, fmt.Sprintf("no node ever led, as far as %s tell: there is nothing to check", strings.Join(evidence.Sources, ", "))
	default:
		result.Verdict = Valid
		result.Summary = fmt.Sprintf("%d terms had a leader, and none had two (%s)", len(c.byTerm), strings.Join(evidence.Sources, ", "))
	}
	return result
}

func describeConflict(c LeaderConflict) string {
	var who []string
	for _, claim := range c.Claims {
		who = append(who, fmt.Sprintf("%s (%s)", claim.Node, claim.Source))
	}
	return fmt.Sprintf("term %d had %d leaders: %s", c.Term, len(c.Claims), strings.Join(who, " and "))
}

// claims holds, by term, the first claim of each node.
type claims struct {
	byTerm map[uint64]map[string]Leadership
}

func (c claims) add(l Leadership) {
	nodes := c.byTerm[l.Term]
	if nodes == nil {
		nodes = make(map[string]Leadership)
		c.byTerm[l.Term] = nodes
	}
	if _, known := nodes[l.Node]; !known {
		nodes[l.Node] = l
	}
}

func (c claims) judge(evidence *LeadersEvidence) {
	for _, term := range slices.Sorted(maps.Keys(c.byTerm)) {
		all := slices.SortedFunc(maps.Values(c.byTerm[term]), func(a, b Leadership) int { return cmp.Compare(a.Node, b.Node) })
		evidence.Terms = append(evidence.Terms, all...)
		if len(all) > 1 {
			evidence.Conflicts = append(evidence.Conflicts, LeaderConflict{Term: term, Claims: all})
		}
	}
}

// readStatus adds what nodes said when they were asked; it reports whether any answered.
func (c claims) readStatus(events []histories.Event) (answered bool) {
	for i := range events {
		e := &events[i]
		if e.Process != histories.Observer || e.Status == nil || !e.Status.Up {
			continue
		}
		answered = true
		if e.Status.Role == "leader" {
			c.add(Leadership{Term: e.Status.Term, Node: e.Node, Source: fmt.Sprintf("its own status at %s", Clock(e.Time))})
		}
	}
	return answered
}

// readTrace adds the leaderships that a node's trace tells. The claimant is the node that
// the line names, if it is one of the run's, else the one whose trace it is.
func (c claims) readTrace(ctx context.Context, run *Run, owner string) error {
	path := run.Traces[owner]
	return readLeaderEvents(ctx, path, func(line int, event leaderEvent) {
		node := owner
		if slices.Contains(run.Nodes, event.Node) {
			node = event.Node
		}
		c.add(Leadership{Term: event.Term, Node: node, Source: fmt.Sprintf("%s/%s:%d", owner, filepath.Base(path), line)})
	})
}
