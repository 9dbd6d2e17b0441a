package nemesis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"capsize/nemesis/agent"
)

// partition cuts directed pairs of nodes.
type partition struct{}

const (
	halves         = "halves"
	isolate        = "isolate"
	isolateLeader  = "isolate-leader"
	majoritiesRing = "majorities-ring"
	oneWay         = "one-way"
	outgoing       = "out"
	incoming       = "in"
)

func (partition) About() About {
	return About{
		Name: "partition", Package: "partition",
		Meaning: "what some nodes send to others does not arrive: held or dropped without a word, as by a broken switch",
		Params: []Param{
			{
				Name: "kind", Default: halves, Allowed: []string{halves, isolate, isolateLeader, majoritiesRing, oneWay},
				Meaning: "halves: two sides, the target on one of them, or a minority against the rest where the target is all; " +
					"isolate: one node alone; isolate-leader: the leader alone; " +
					"majorities-ring: every node reaches a majority, no two the same one; " +
					"one-way: what the target sends, or what it is sent, is lost",
			},
			{
				Name: "direction", Default: outgoing, Allowed: []string{outgoing, incoming},
				Meaning: "of one-way: out cuts what the target sends, in what it is sent",
			},
		},
		Target: func(params Params) string {
			switch params["kind"] {
			case isolate:
				return One
			case isolateLeader, oneWay:
				return Leader
			default:
				return All
			}
		},
		Needs: always([]string{agent.Partitions}),
		Cards: []Card{
			{Leader, kindOf(isolateLeader), 1, 2},
			{Leader, wayOf(outgoing), 2, 2},
			{Leader, wayOf(incoming), 2, 2},
			{All, kindOf(halves), 2, 2},
			{All, kindOf(majoritiesRing), 2, 3},
			{One, kindOf(isolate), 3, 2},
			{Minority, kindOf(halves), 3, 3},
			{One, wayOf(outgoing), 3, 2},
		},
	}
}

func kindOf(kind string) map[string]string { return map[string]string{"kind": kind} }

func wayOf(direction string) map[string]string {
	return map[string]string{"kind": oneWay, "direction": direction}
}

func (partition) Plan(scene Scene) (Planned, error) {
	if len(scene.Nodes) < 2 {
		return Planned{}, &ScheduleError{Key: "fault", Value: "partition", Allowed: "another fault: a node alone cannot be partitioned"}
	}
	planned := Planned{Nodes: scene.Targets}
	rest := without(scene.Nodes, scene.Targets)
	kind := scene.Params["kind"]
	switch kind {
	case halves:
		side := scene.Targets
		if len(rest) == 0 {
			side = some(scene.Nodes, len(scene.Nodes)/2, scene.Random)
			rest = without(scene.Nodes, side)
		}
		planned.Pairs = append(between(side, rest), between(rest, side)...)
		planned.Detail = strings.Join(side, " ") + " | " + strings.Join(rest, " ")
	case isolate, isolateLeader:
		if kind == isolateLeader && scene.Target != Leader {
			return planned, &ScheduleError{Key: "target", Value: scene.Target, Allowed: "leader, or nothing, for " + kind}
		}
		if len(scene.Targets) != 1 {
			return planned, &ScheduleError{Key: "target", Value: strings.Join(scene.Targets, ","), Allowed: "one node for " + kind + ": " + oneOf([]string{One, Leader}) + ", or a name"}
		}
		planned.Pairs = append(between(scene.Targets, rest), between(rest, scene.Targets)...)
		planned.Detail = scene.Targets[0] + " | " + strings.Join(rest, " ")
	case majoritiesRing:
		if len(rest) > 0 || len(scene.Nodes) < 3 {
			return planned, &ScheduleError{Key: "target", Value: strings.Join(scene.Targets, ","), Allowed: "all, of at least 3 nodes, for " + kind}
		}
		planned.Pairs, planned.Detail = ring(scene)
	case oneWay:
		if len(rest) == 0 {
			return planned, &ScheduleError{Key: "target", Value: strings.Join(scene.Targets, ","), Allowed: "not all nodes for " + kind}
		}
		from, to := scene.Targets, rest
		if scene.Params["direction"] == incoming {
			from, to = rest, scene.Targets
		}
		planned.Pairs = between(from, to)
		planned.Detail = strings.Join(from, " ") + " -/-> " + strings.Join(to, " ")
	}
	sortPairs(planned.Pairs)
	return planned, nil
}

// ring lays the nodes on a ring in random order and lets each see so many neighbours on
// either side that, with itself, they are a majority. For 5 nodes that is one on either
// side, so each sees exactly a majority; for 3 the ring is cut open, since with both
// neighbours a node would see all.
func ring(scene Scene) ([]agent.Pair, string) {
	n := len(scene.Nodes)
	order := some(scene.Nodes, n, scene.Random)
	scene.Random.Shuffle(n, func(i, j int) { order[i], order[j] = order[j], order[i] })
	reach := (n/2 + 1) / 2
	var pairs []agent.Pair
	for i := range n {
		for j := range n {
			distance := min((i-j+n)%n, (j-i+n)%n)
			if n == 3 {
				distance = max(i-j, j-i)
			}
			if distance > reach {
				pairs = append(pairs, agent.Pair{From: order[i], To: order[j]})
			}
		}
	}
	detail := "ring " + strings.Join(order, " ")
	if n == 3 {
		detail = "line " + strings.Join(order, " ")
	}
	return pairs, detail
}

// between returns all pairs from one side to the other.
func between(from, to []string) []agent.Pair {
	var pairs []agent.Pair
	for _, f := range from {
		for _, t := range to {
			pairs = append(pairs, agent.Pair{From: f, To: t})
		}
	}
	return pairs
}

// allPairs returns all directed pairs of different nodes.
func allPairs(nodes []string) []agent.Pair {
	return slices.DeleteFunc(between(nodes, nodes), func(p agent.Pair) bool { return p.From == p.To })
}

func sortPairs(pairs []agent.Pair) {
	sort.Slice(pairs, func(i, j int) bool {
		if pairs[i].From != pairs[j].From {
			return pairs[i].From < pairs[j].From
		}
		return pairs[i].To < pairs[j].To
	})
}

func (partition) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	e.network.Lock()
	defer e.network.Unlock()
	e.cuts[p.ID] = p.Pairs
	took, _, err := e.cut(ctx)
	if err != nil {
		return Proof{}, err
	}
	lines, err := e.proveNetwork(ctx)
	return Proof{Took: took, Lines: lines}, err
}

func (partition) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	e.network.Lock()
	defer e.network.Unlock()
	delete(e.cuts, p.ID)
	took, dropped, err := e.cut(ctx)
	if err != nil {
		return Proof{}, err
	}
	lines, err := e.proveNetwork(ctx)
	if count := describeDropped(dropped, p.Pairs); count != "" {
		lines = append([]string{"held back while in force: " + count}, lines...)
	}
	return Proof{Took: took, Lines: lines}, err
}

// cut makes the union of all partitions in force so. The caller holds e.network.
func (e *Effects) cut(ctx context.Context) (time.Duration, map[string]map[string]uint64, error) {
	var union []agent.Pair
	for pair := range e.inForce() {
		union = append(union, pair)
	}
	sortPairs(union)
	began := time.Now()
	dropped, err := e.controller.Block(ctx, union)
	return time.Since(began), dropped, err
}

func (e *Effects) inForce() map[agent.Pair]bool {
	cut := make(map[agent.Pair]bool)
	for _, pairs := range e.cuts {
		for _, pair := range pairs {
			cut[pair] = true
		}
	}
	return cut
}

// proveNetwork probes every directed pair: what is cut must be silent, and everything
// else must get through, for a network that is broken elsewhere proves nothing. The
// caller holds e.network.
func (e *Effects) proveNetwork(ctx context.Context) ([]string, error) {
	cut := e.inForce()
	found, err := e.controller.Probe(ctx, func(pair agent.Pair) bool { return !cut[pair] })
	if err != nil {
		return nil, err
	}
	var leaked, missing []string
	for _, pair := range allPairs(e.nodes) {
		switch {
		case cut[pair] && found.Arrived[pair]:
			leaked = append(leaked, arrow(pair))
		case !cut[pair] && !found.Arrived[pair]:
			missing = append(missing, arrow(pair))
		}
	}
	var problems []error
	if len(leaked) > 0 {
		problems = append(problems, fmt.Errorf("probes arrived over what is cut: %s", strings.Join(leaked, ", ")))
	}
	if len(missing) > 0 {
		problems = append(problems, fmt.Errorf("probes did not arrive over what is open: %s", strings.Join(missing, ", ")))
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	open := len(allPairs(e.nodes)) - len(cut)
	lines := []string{fmt.Sprintf("probes: %d of %d open pairs arrived, 0 of %d cut pairs", open, open, len(cut))}
	var pairs []agent.Pair
	for pair := range cut {
		pairs = append(pairs, pair)
	}
	sortPairs(pairs)
	if count := describeDropped(found.Dropped, pairs); count != "" {
		lines = append(lines, "held back so far: "+count)
	}
	return lines, nil
}

func arrow(p agent.Pair) string { return p.From + "->" + p.To }

// describeDropped tells what was held back of each of the pairs. A receiver with links also
// counts its own replies, by sender; those belong to the pair that leads away from it.
func describeDropped(dropped map[string]map[string]uint64, pairs []agent.Pair) string {
	var counts []string
	for _, pair := range pairs {
		if n := dropped[pair.To][pair.From]; n > 0 {
			counts = append(counts, fmt.Sprintf("%s %d", arrow(pair), n))
		}
	}
	return strings.Join(counts, ", ")
}
