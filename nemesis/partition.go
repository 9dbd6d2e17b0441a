package nemesis

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"capsize/clusters"
	"capsize/nemesis/agent"
)

// partition cuts directed pairs of nodes, and of nodes and clients.
type partition struct{}

// Kinds of partitions.
const (
	halves         = "halves"
	randomHalves   = "random-halves"
	isolate        = "isolate"
	isolateLeader  = "isolate-leader"
	leaderMinority = "leader-minority"
	majoritiesRing = "majorities-ring"
	bridge         = "bridge"
	nonTransitive  = "non-transitive"
	oneWay         = "one-way"
	someLinks      = "links"
	fromClients    = "clients"
)

// shortestPeriod leaves time to prove each half of it.
const shortestPeriod = 200 * time.Millisecond

// partitionKind is one kind: what its target is, and whom it cuts from whom.
type partitionKind struct {
	name    string
	meaning string
	target  string // the role of a step that names none
	// side says that the target is one side, from which clients can be cut too.
	side bool
	draw func(Scene) (grudge, error)
}

var partitionKinds = []partitionKind{
	{halves, "two sides, the target and the rest, or two halves at random where the target is all", All, true, drawHalves},
	{randomHalves, "two sides, any split of the nodes being as likely as another", All, false, drawRandomHalves},
	{isolate, "one node alone", One, true, drawIsolate},
	{isolateLeader, "the leader alone", Leader, true, drawIsolate},
	{leaderMinority, "the leader with so many others that one is missing to a majority", Leader, true, drawLeaderMinority},
	{majoritiesRing, "every node reaches exactly a majority, no two the same one; of 3, 7, 11 … nodes one must reach one more", All, false, drawMajorities},
	{bridge, "two halves, and the target, one node, reaches both", One, false, drawBridge},
	{nonTransitive, "three nodes, the target in the middle if it is one, of which the first and the last do not reach each other; the rest is whole", All, false, drawChainOfThree},
	{oneWay, "as halves, with direction out where none is given", Leader, true, drawOneWay},
	{someLinks, "the pairs that the parameter pairs names", All, false, drawLinks},
	{fromClients, "clients do not reach the target, while nodes reach each other", One, false, drawFromClients},
}

func kindNamed(name string) partitionKind {
	at := slices.IndexFunc(partitionKinds, func(k partitionKind) bool { return k.name == name })
	return partitionKinds[at] // parameters have been validated
}

func (partition) About() About {
	var names, meanings []string
	for _, kind := range partitionKinds {
		names, meanings = append(names, kind.name), append(meanings, kind.name+": "+kind.meaning)
	}
	return About{
		Name: "partition", Package: "partition",
		Meaning: "what some nodes send to others does not arrive: held or dropped without a word, as by a broken switch",
		Params: []Param{
			{Name: "kind", Default: halves, Allowed: names, Meaning: strings.Join(meanings, "; ")},
			{
				Name: "direction", Default: bothWays, Allowed: []string{bothWays, outgoing, incoming},
				Meaning: "of each cut: both, or only out, what the target's side sends, or in, what it is sent; " +
					"where no side is the target's, one is drawn, and a ring is cut clockwise or anticlockwise",
			},
			{Name: "clients", Default: "keep", Allowed: []string{"keep", "cut"}, Meaning: "cut: clients are on the other side than the target; keep: they reach every node"},
			{Name: "pairs", Kind: Text, Meaning: "of links: n1>n2,n2-n3 cuts what n1 sends to n2, and n2 from n3 both ways; client is the name of all clients"},
			{Name: "chain", Kind: Text, Meaning: "of non-transitive: three nodes or groups, n1-n2-n3 or n1+n4-n2-n3; the first and the last do not reach each other; without it three nodes of the target, at random"},
			{Name: "period", Kind: Duration, Default: "0s", Least: "0s", Most: "1h", Meaning: "the partition flaps: cut for half of it, open for the other half; 0s is steady, else at least " + shortestPeriod.String()},
		},
		Target: func(params Params) string { return kindNamed(params["kind"]).target },
		Needs: func(params Params) []string {
			if params.Is("kind", fromClients) || params.Is("clients", "cut") || strings.Contains(params["pairs"], clusters.Client) {
				return []string{agent.Partitions, agent.Clients}
			}
			return []string{agent.Partitions}
		},
		Cards: partitionCards,
	}
}

var partitionCards = []Card{
	{Leader, kindOf(isolateLeader), 1, 2},
	{Leader, wayOf(outgoing), 2, 2},
	{Leader, wayOf(incoming), 2, 2},
	{All, kindOf(halves), 2, 2},
	{All, kindOf(randomHalves), 2, 3},
	{All, kindOf(majoritiesRing), 2, 3},
	{One, kindOf(bridge), 2, 3},
	{Leader, kindOf(leaderMinority), 2, 4},
	{One, kindOf(isolate), 3, 2},
	{Minority, kindOf(halves), 3, 3},
	{One, wayOf(outgoing), 3, 2},
	{All, kindOf(nonTransitive), 3, 3},
	{Leader, kindOf(nonTransitive), 3, 3},
	{All, kindAnd(majoritiesRing, "direction", outgoing), 3, 4},
	{Leader, kindAnd(leaderMinority, "direction", outgoing), 3, 4},
	{Leader, kindAnd(isolateLeader, "clients", "cut"), 3, 2},
	{Leader, kindOf(fromClients), 3, 1},
	{Minority, kindAnd(fromClients, "direction", outgoing), 3, 3},
	{Leader, kindAnd(isolateLeader, "period", "1s"), 3, 2},
	{All, kindAnd(randomHalves, "period", "600ms"), 3, 3},
}

func kindOf(kind string) map[string]string { return map[string]string{"kind": kind} }

func kindAnd(kind, param, value string) map[string]string {
	return map[string]string{"kind": kind, param: value}
}

func wayOf(direction string) map[string]string { return kindAnd(oneWay, "direction", direction) }

func (partition) Plan(scene Scene) (Planned, error) {
	kind := kindNamed(scene.Params["kind"])
	if len(scene.Nodes) < 2 && kind.name != fromClients && kind.name != someLinks {
		return Planned{}, &ScheduleError{Key: "fault", Value: "partition", Allowed: "another fault, or kind " + fromClients + ": a node alone cannot be partitioned"}
	}
	if err := checkParams(kind, scene.Params); err != nil {
		return Planned{}, err
	}
	g, err := kind.draw(scene)
	if err != nil {
		return Planned{Nodes: scene.Targets}, err
	}
	if scene.Params.Is("clients", "cut") {
		g.pairs = append(g.pairs, apart(g.sides[0], []string{clusters.Client}, directionOf(scene))...)
		g.detail += ", clients with the rest"
	}
	if period := scene.Params.Duration("period"); period > 0 {
		g.detail += fmt.Sprintf(", flapping every %s", period)
	}
	sortPairs(g.pairs)
	return Planned{Nodes: scene.Targets, Pairs: g.pairs, Sides: g.sides, Detail: g.detail}, nil
}

// checkParams refuses parameters that the kind makes nothing of.
func checkParams(kind partitionKind, params Params) error {
	wrong := func(name, allowed string) error {
		return &ScheduleError{Key: "params." + name, Value: params[name], Allowed: allowed + " for " + kind.name}
	}
	period := params.Duration("period")
	switch {
	case params.Is("clients", "cut") && !kind.side:
		return wrong("clients", "keep")
	case params["chain"] != "" && kind.name != nonTransitive:
		return wrong("chain", "nothing")
	case params["pairs"] != "" && kind.name != someLinks:
		return wrong("pairs", "nothing")
	case kind.name == someLinks && !params.Is("direction", bothWays):
		return wrong("direction", "both, or nothing: each of the pairs says its own,")
	case period > 0 && period < shortestPeriod:
		return wrong("period", fmt.Sprintf("0s, or from %s on,", shortestPeriod))
	}
	return nil
}

// wrongTarget says what the target of a kind must be.
func wrongTarget(scene Scene, allowed string) error {
	value := scene.Target
	if !slices.Contains(roles, value) {
		value = strings.Join(scene.Targets, ",")
	}
	return &ScheduleError{Key: "target", Value: value, Allowed: allowed + " for " + scene.Params["kind"]}
}

// directionOf returns the direction of a cut. The kind one-way is never both ways.
func directionOf(scene Scene) string {
	if scene.Params.Is("kind", oneWay) && scene.Params.Is("direction", bothWays) {
		return outgoing
	}
	return scene.Params["direction"]
}

func drawHalves(scene Scene) (grudge, error) {
	side, rest := scene.Targets, without(scene.Nodes, scene.Targets)
	if len(rest) == 0 {
		side = some(scene.Nodes, len(scene.Nodes)/2, scene.Random)
		rest = without(scene.Nodes, side)
	}
	return twoSides(side, rest, directionOf(scene)), nil
}

func drawRandomHalves(scene Scene) (grudge, error) {
	if len(scene.Targets) < len(scene.Nodes) {
		return grudge{}, wrongTarget(scene, "all, or nothing,")
	}
	side := anySplit(scene.Nodes, scene.Random)
	return twoSides(side, without(scene.Nodes, side), directionOf(scene)), nil
}

func drawIsolate(scene Scene) (grudge, error) {
	if scene.Params.Is("kind", isolateLeader) && scene.Target != Leader {
		return grudge{}, wrongTarget(scene, "leader, or nothing,")
	}
	if len(scene.Targets) != 1 {
		return grudge{}, wrongTarget(scene, oneNode)
	}
	return twoSides(scene.Targets, without(scene.Nodes, scene.Targets), directionOf(scene)), nil
}

// oneNode is what the target of some kinds must be.
const oneNode = "one node: " + One + ", " + Leader + ", or a name,"

func drawLeaderMinority(scene Scene) (grudge, error) {
	if scene.Target != Leader {
		return grudge{}, wrongTarget(scene, "leader, or nothing,")
	}
	others := without(scene.Nodes, scene.Targets)
	rest := some(others, len(scene.Nodes)-len(scene.Nodes)/2, scene.Random)
	return twoSides(without(scene.Nodes, rest), rest, directionOf(scene)), nil
}

func drawMajorities(scene Scene) (grudge, error) {
	if len(scene.Targets) < len(scene.Nodes) || len(scene.Nodes) < 3 {
		return grudge{}, wrongTarget(scene, "all, of at least 3 nodes,")
	}
	return majoritiesGrudge(scene.Nodes, directionOf(scene), scene.Random), nil
}

func drawBridge(scene Scene) (grudge, error) {
	if len(scene.Targets) != 1 || len(scene.Nodes) < 3 {
		return grudge{}, wrongTarget(scene, oneNode+" of at least 3,")
	}
	return bridgeGrudge(scene.Nodes, scene.Targets[0], directionOf(scene), scene.Random), nil
}

func drawChainOfThree(scene Scene) (grudge, error) {
	if text := scene.Params["chain"]; text != "" {
		chain, ok := parseChain(text, scene.Nodes)
		if !ok {
			return grudge{}, &ScheduleError{Key: "params.chain", Value: text, Allowed: "three groups of " + strings.Join(scene.Nodes, ", ") + ", each node once, as n1-n2-n3 or n1+n4-n2-n3"}
		}
		return chainGrudge(scene.Nodes, chain, directionOf(scene)), nil
	}
	chain, ok := drawChain(scene.Nodes, scene.Targets, scene.Random)
	if !ok {
		return grudge{}, wrongTarget(scene, "one node or at least three, of at least 3 nodes,")
	}
	return chainGrudge(scene.Nodes, chain, directionOf(scene)), nil
}

func drawOneWay(scene Scene) (grudge, error) {
	if len(scene.Targets) == len(scene.Nodes) {
		return grudge{}, wrongTarget(scene, "not all nodes")
	}
	return drawHalves(scene)
}

func drawLinks(scene Scene) (grudge, error) {
	if len(scene.Targets) < len(scene.Nodes) {
		return grudge{}, wrongTarget(scene, "all, or nothing,")
	}
	pairs, ok := parsePairs(scene.Params.Names("pairs"), scene.Nodes)
	if !ok {
		return grudge{}, &ScheduleError{
			Key: "params.pairs", Value: scene.Params["pairs"],
			Allowed: fmt.Sprintf("pairs of %s, %s, joined by commas: n1>n2 for one way, n1-n2 for both", strings.Join(scene.Nodes, ", "), clusters.Client),
		}
	}
	return grudge{pairs: pairs, detail: "links " + describePairs(pairs)}, nil
}

func drawFromClients(scene Scene) (grudge, error) {
	g := twoSides(scene.Targets, []string{clusters.Client}, directionOf(scene))
	g.sides = [][]string{scene.Nodes}
	return g, nil
}

func (partition) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	e.network.Lock()
	defer e.network.Unlock()
	e.clients = e.clients || slices.ContainsFunc(p.Pairs, ofClients)
	e.cuts[p.ID] = p.Pairs
	took, _, err := e.cut(ctx)
	if err != nil {
		return Proof{}, err
	}
	lines, err := e.proveNetwork(ctx)
	return Proof{Took: took, Lines: lines}, err
}

// Sustain lets the partition flap: it is cut already.
func (partition) Sustain(ctx context.Context, e *Effects, p Planned) ([]string, error) {
	period := p.Params.Duration("period")
	if period == 0 {
		return nil, nil
	}
	began, opened, closed := time.Now(), 0, 0
	for next := began.Add(period / 2); sleep(ctx, time.Until(next)); {
		open := opened == closed
		if err := e.flap(ctx, p, open); err != nil {
			return nil, err
		}
		if open {
			opened++
		} else {
			closed++
		}
		if next = next.Add(period / 2); next.Before(time.Now()) {
			next = time.Now() // the proof took longer: what is next is not dropped
		}
	}
	return []string{fmt.Sprintf("flapped every %s: opened %d times and cut again %d times, each proven by probes", period, opened, closed)}, nil
}

// flap opens a partition that is in force, or cuts it again, and proves it. It is finished
// when ctx ends in the middle.
func (e *Effects) flap(ctx context.Context, p Planned, open bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandLimit)
	defer cancel()
	e.network.Lock()
	defer e.network.Unlock()
	delete(e.cuts, p.ID)
	if !open {
		e.cuts[p.ID] = p.Pairs
	}
	_, _, err := e.cut(ctx)
	if err == nil {
		_, err = e.proveNetwork(ctx)
	}
	if err != nil && open {
		return fmt.Errorf("open it for a while: %w", err)
	}
	if err != nil {
		return fmt.Errorf("cut it again: %w", err)
	}
	return nil
}

func (partition) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	e.network.Lock()
	defer e.network.Unlock()
	delete(e.cuts, p.ID)
	took, _, err := e.cut(ctx)
	if err != nil {
		return Proof{}, err
	}
	lines, err := e.proveNetwork(ctx)
	if err != nil {
		return Proof{}, err
	}
	if count := describeDropped(e.held[p.ID], p.Pairs); count != "" {
		lines = append([]string{"held back while in force: " + count}, lines...)
	}
	delete(e.held, p.ID)
	return Proof{Took: took, Lines: lines}, nil
}

// cut makes the union of all partitions in force so, and notes for each step what was held
// back until then. The caller holds e.network.
func (e *Effects) cut(ctx context.Context) (time.Duration, map[agent.Pair]uint64, error) {
	union := slices.Collect(maps.Keys(e.inForce()))
	sortPairs(union)
	began := time.Now()
	dropped, err := e.controller.Block(ctx, union)
	took := time.Since(began)
	for id, pairs := range e.blocked {
		if e.held[id] == nil {
			e.held[id] = make(map[agent.Pair]uint64)
		}
		for _, pair := range pairs {
			e.held[id][pair] += dropped[pair]
		}
	}
	e.blocked = maps.Clone(e.cuts)
	return took, dropped, err
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
