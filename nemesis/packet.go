package nemesis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"capsize/nemesis/agent"
	"capsize/nemesis/agent/packets"
)

// badNetwork makes the network between nodes bad: packets arrive late, not at all, twice …
type badNetwork struct{}

// Kinds of the fault.
const (
	delayPackets     = "delay"
	losePackets      = "loss"
	duplicatePackets = "duplicate"
	reorderPackets   = "reorder"
	corruptPackets   = "corrupt"
	limitRate        = "rate"
)

// packetKind is one kind: what it needs, and where its hits are counted.
type packetKind struct {
	name, meaning, needs string
	hits                 func(packets.Count) uint64
	every                bool // packet is hit, else a share of them
}

var packetKinds = []packetKind{
	{delayPackets, "packets arrive later", agent.PacketDelay, func(c packets.Count) uint64 { return c.Delayed }, true},
	{losePackets, "a share of them does not arrive", agent.PacketLoss, func(c packets.Count) uint64 { return c.Lost }, false},
	{duplicatePackets, "a share of them arrives twice", agent.PacketDuplicate, func(c packets.Count) uint64 { return c.Duplicated }, false},
	{reorderPackets, "packets arrive later, but a share of them at once, before others that were sent earlier", agent.PacketReorder, func(c packets.Count) uint64 { return c.Reordered }, false},
	{corruptPackets, "in a share of them a bit is wrong; checksums find it, so that they are lost", agent.PacketCorrupt, func(c packets.Count) uint64 { return c.Corrupted }, false},
	{limitRate, "so many bytes a second arrive; packets queue for half a second at most, and what does not fit is lost", agent.PacketRate, func(c packets.Count) uint64 { return c.Limited + c.Overflowed }, true},
}

func (badNetwork) About() About {
	var names, meanings []string
	for _, kind := range packetKinds {
		names, meanings = append(names, kind.name), append(meanings, kind.name+": "+kind.meaning)
	}
	return About{
		Name: "packet", Package: "packet",
		Meaning: "the network between the target and the other nodes is bad. Several such faults add up where they meet",
		Params: []Param{
			{Name: "kind", Default: delayPackets, Allowed: names, Meaning: strings.Join(meanings, "; ")},
			{Name: "by", Kind: Duration, Default: "100ms", Least: "1ms", Most: "5s", Meaning: "of delay and reorder: how much later"},
			{Name: "jitter", Kind: Duration, Default: "0s", Least: "0s", Most: "5s", Meaning: "of delay: give or take up to so much, at random, no more than the delay; the order stays"},
			{Name: "share", Kind: Number, Default: "0.2", Least: "0.001", Most: "0.9", Meaning: "of loss, duplicate, reorder and corrupt: the share that is hit, at random"},
			{Name: "rate", Kind: Size, Default: "64KiB", Least: "4KiB", Most: "1024GiB", Meaning: "of rate: bytes a second, on each pair and in each direction"},
			{Name: "direction", Default: bothWays, Allowed: []string{bothWays, outgoing, incoming}, Meaning: "both; or only out, what the target sends, or in, what it is sent"},
			{Name: "pairs", Kind: Text, Meaning: "these links instead of those of the target: n1>n2,n2-n3 is what n1 sends to n2, and between n2 and n3 both ways"},
		},
		Target: func(params Params) string {
			if params["pairs"] != "" {
				return All
			}
			return One
		},
		Needs: func(params Params) []string { return []string{packetKindOf(params).needs} },
		Cards: []Card{
			{Leader, kindAnd(delayPackets, "jitter", "50ms"), 1, 2},
			{All, kindAnd(losePackets, "share", "0.1"), 2, 2},
			{Leader, kindAnd(losePackets, "share", "0.4"), 3, 2},
			{Minority, map[string]string{"kind": delayPackets, "by": "250ms", "direction": outgoing}, 3, 3},
			{All, kindAnd(delayPackets, "by", "30ms"), 3, 2},
			{All, kindOf(duplicatePackets), 3, 2},
			{All, kindAnd(reorderPackets, "by", "20ms"), 3, 2},
			{Leader, kindOf(corruptPackets), 3, 2},
			{Leader, kindAnd(limitRate, "rate", "32KiB"), 3, 2},
			{One, kindAnd(losePackets, "direction", incoming), 3, 2},
		},
	}
}

// packetKindOf returns the kind that parameters name.
func packetKindOf(params Params) packetKind {
	at := slices.IndexFunc(packetKinds, func(kind packetKind) bool { return kind.name == params["kind"] })
	return packetKinds[at] // parameters have been validated
}

func (badNetwork) Plan(scene Scene) (Planned, error) {
	p := scene.Params
	if p["pairs"] == "" && len(scene.Nodes) < 2 {
		return Planned{}, &ScheduleError{Key: "fault", Value: "packet", Allowed: "another fault: a node alone has no network"}
	}
	pairs := shapedPairs(scene)
	if p["pairs"] != "" {
		var ok bool
		pairs, ok = parsePairs(p.Names("pairs"), scene.Nodes)
		if !ok || slices.ContainsFunc(pairs, ofClients) {
			return Planned{}, &ScheduleError{Key: "params.pairs", Value: p["pairs"], Allowed: "pairs of " + strings.Join(scene.Nodes, ", ") + ", joined by commas: n1>n2 for one way, n1-n2 for both"}
		}
	}
	if p.Duration("jitter") > p.Duration("by") {
		return Planned{}, &ScheduleError{Key: "params.jitter", Value: p["jitter"], Allowed: "no more than the delay, " + p["by"]}
	}
	sortPairs(pairs)
	detail := p["kind"]
	switch p["kind"] {
	case delayPackets:
		detail += " by " + p["by"]
		if p.Duration("jitter") > 0 {
			detail += " ± " + p["jitter"]
		}
	case limitRate:
		detail += " " + p["rate"] + " a second"
	default:
		detail += fmt.Sprintf(" of %.3g %%", 100*p.Number("share"))
	}
	return Planned{Nodes: scene.Targets, Shaped: pairs, Detail: detail + ", " + describeShaped(scene, pairs)}, nil
}

func describeShaped(scene Scene, pairs []agent.Pair) string {
	target := strings.Join(scene.Targets, " ")
	switch {
	case scene.Params["pairs"] != "":
		return describePairs(pairs)
	case len(scene.Targets) == len(scene.Nodes):
		return "between all nodes"
	case scene.Params.Is("direction", outgoing):
		return "of what " + target + " sends"
	case scene.Params.Is("direction", incoming):
		return "of what " + target + " is sent"
	default:
		return "to and from " + target
	}
}

// shapedPairs are the links of the target: to and from the other nodes, and among its own.
func shapedPairs(scene Scene) []agent.Pair {
	return slices.DeleteFunc(allPairs(scene.Nodes), func(pair agent.Pair) bool {
		sends, receives := slices.Contains(scene.Targets, pair.From), slices.Contains(scene.Targets, pair.To)
		switch scene.Params["direction"] {
		case outgoing:
			return !sends
		case incoming:
			return !receives
		default:
			return !sends && !receives
		}
	})
}

// shapeOf is what a step does to the packets of each of its pairs.
func shapeOf(p Params) packets.Shape {
	share := p.Number("share")
	switch p["kind"] {
	case delayPackets:
		return packets.Shape{Delay: p.Duration("by"), Jitter: p.Duration("jitter")}
	case losePackets:
		return packets.Shape{Loss: share}
	case duplicatePackets:
		return packets.Shape{Duplicate: share}
	case reorderPackets:
		return packets.Shape{Delay: p.Duration("by"), Reorder: share}
	case corruptPackets:
		return packets.Shape{Corrupt: share}
	default:
		return packets.Shape{Rate: p.Size("rate")}
	}
}

// shaping is what a step in force does to packets.
type shaping struct {
	pairs []agent.Pair
	shape packets.Shape
	since map[agent.Pair]packets.Count // what had been counted when it landed
}

// shaped returns what all steps in force do together. The caller holds e.network.
func (e *Effects) shaped() map[agent.Pair]packets.Shape {
	all := make(map[agent.Pair]packets.Shape)
	for _, id := range slices.Sorted(maps.Keys(e.shapings)) {
		for _, pair := range e.shapings[id].pairs {
			all[pair] = all[pair].And(e.shapings[id].shape)
		}
	}
	return all
}

// shape tells all agents what is in force, and returns what they have counted. The caller holds
// e.network.
func (e *Effects) shape(ctx context.Context) (map[agent.Pair]packets.Count, error) {
	var all []agent.ShapedPair
	for pair, shape := range e.shaped() {
		all = append(all, agent.ShapedPair{Pair: pair, Shape: shape})
	}
	return e.controller.Shape(ctx, all)
}

func (badNetwork) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	e.network.Lock()
	defer e.network.Unlock()
	e.shapings[p.ID] = shaping{pairs: p.Shaped, shape: shapeOf(p.Params)}
	began := time.Now()
	before, err := e.shape(ctx)
	if err != nil {
		return Proof{}, err
	}
	took := time.Since(began)
	e.shapings[p.ID] = shaping{p.Shaped, shapeOf(p.Params), before}
	line, err := e.proveShaped(ctx, p, before)
	return Proof{Took: took, Lines: []string{line}}, err
}

const (
	shapeProof = 4 * time.Second // for every pair to show it
	// fewHits are so few, expected of the packets that were seen, that none may be chance.
	fewHits = 14
)

// proveShaped sends probes until every pair has counted a hit, or as many packets that none would
// be no chance any more. What a partition cuts shows nothing.
func (e *Effects) proveShaped(ctx context.Context, p Planned, before map[agent.Pair]packets.Count) (string, error) {
	kind, cut := packetKindOf(p.Params), e.inForce()
	pairs := slices.DeleteFunc(slices.Clone(p.Shaped), func(pair agent.Pair) bool { return cut[pair] })
	for end := time.Now().Add(shapeProof); ; {
		if _, err := e.controller.Probe(ctx, pairs, func(agent.Pair) bool { return false }, 0); err != nil {
			return "", err
		}
		counts, err := e.shape(ctx)
		if err != nil {
			return "", err
		}
		var seen, hits uint64
		var missing []agent.Pair
		silent := 0
		for _, pair := range pairs {
			saw, hit := counts[pair].Seen-before[pair].Seen, kind.hits(counts[pair])-kind.hits(before[pair])
			seen, hits = seen+saw, hits+hit
			if hit == 0 {
				missing = append(missing, pair)
			}
			if hit == 0 && (saw == 0 || kind.every || float64(saw)*p.Params.Number("share") >= fewHits) {
				silent++
			}
		}
		said := fmt.Sprintf("%s: of %d packets on %d pairs %d were hit", kind.name, seen, len(pairs), hits)
		switch {
		case len(missing) == 0:
			if left := len(p.Shaped) - len(pairs); left > 0 {
				said += fmt.Sprintf("; %d more pairs are cut by a partition", left)
			}
			return said, nil
		case time.Now().Before(end):
			continue
		case silent == 0 && hits > 0:
			return said + "; by chance none yet on " + listPairs(missing), nil
		}
		return "", errors.New(said + ", none of those on " + listPairs(missing))
	}
}

func (badNetwork) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	e.network.Lock()
	defer e.network.Unlock()
	mine := e.shapings[p.ID]
	delete(e.shapings, p.ID)
	began := time.Now()
	counts, err := e.shape(ctx)
	if err != nil {
		e.shapings[p.ID] = mine
		return Proof{}, err
	}
	took := time.Since(began)
	lines, err := e.proveNetwork(ctx)
	if err != nil {
		return Proof{}, err
	}
	after, err := e.shape(ctx)
	if err != nil {
		return Proof{}, err
	}
	kind, still := packetKindOf(p.Params), e.shaped()
	var seen, hits uint64
	for _, pair := range p.Shaped {
		if _, shaped := still[pair]; !shaped && after[pair].Seen != counts[pair].Seen {
			return Proof{}, fmt.Errorf("packets that %s sends to %s are still shaped: %d since it was healed", pair.From, pair.To, after[pair].Seen-counts[pair].Seen)
		}
		if mine.since != nil {
			seen += counts[pair].Seen - mine.since[pair].Seen
			hits += kind.hits(counts[pair]) - kind.hits(mine.since[pair])
		}
	}
	line := fmt.Sprintf("%s: of %d packets %d were hit while it was in force", kind.name, seen, hits)
	return Proof{Took: took, Lines: append([]string{line}, lines...)}, nil
}

// slack is how much longer than usual probes may take to arrive over what is shaped.
// The caller holds e.network.
func (e *Effects) slack() time.Duration {
	var slack time.Duration
	for _, shape := range e.shaped() {
		mine := 2 * (shape.Delay + shape.Jitter)
		if lost := 1 - (1-shape.Loss)*(1-shape.Corrupt); lost > 0 {
			// So many rounds that no round gets through only once in a thousand million times.
			rounds := math.Log(1e-9) / (agent.ProbeCopies * math.Log(lost))
			mine += time.Duration(math.Ceil(rounds)) * probeAgain
		}
		if shape.Rate > 0 {
			mine += slowLink
		}
		slack = max(slack, mine)
	}
	return slack
}

// slowLink is the time for probes to get through a link that is full.
const slowLink = 3 * time.Second
