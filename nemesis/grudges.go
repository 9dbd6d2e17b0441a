package nemesis

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"

	"capsize/clusters"
	"capsize/nemesis/agent"
)

// A grudge is who no longer hears whom. Everything in this file is a pure function of
// nodes, parameters and a source of chance.
type grudge struct {
	pairs  []agent.Pair
	sides  [][]string // see Planned.Sides
	detail string
}

// Directions in which a cut works, as seen from the target's side.
const (
	bothWays = "both"
	outgoing = "out"
	incoming = "in"
)

// apart cuts what one side sends to the other, what it is sent, or both.
func apart(side, rest []string, direction string) []agent.Pair {
	switch direction {
	case outgoing:
		return between(side, rest)
	case incoming:
		return between(rest, side)
	default:
		return append(between(side, rest), between(rest, side)...)
	}
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

// twoSides parts one side from the rest.
func twoSides(side, rest []string, direction string) grudge {
	divider := map[string]string{bothWays: " | ", outgoing: " -/-> ", incoming: " <-/- "}[direction]
	return grudge{
		pairs:  apart(side, rest, direction),
		sides:  [][]string{side, rest},
		detail: strings.Join(side, " ") + divider + strings.Join(rest, " "),
	}
}

// splitsMost bounds the draws of anySplit; that many fail once in 2^64 runs of two nodes.
const splitsMost = 64

// anySplit draws a side that is neither empty nor all: each split of the nodes in two is as
// likely as any other, so most are uneven.
func anySplit(nodes []string, random *rand.Rand) (side []string) {
	for range splitsMost {
		side = filter(nodes, func(string) bool { return random.IntN(2) == 0 })
		if len(side) > 0 && len(side) < len(nodes) {
			return side
		}
	}
	return nodes[:1]
}

// majoritiesGrudge lets every node reach exactly a majority, itself counted, and no two the
// same one, both ways: so each can win an election, and any two majorities meet in other
// nodes.
//
// The nodes lie on a ring in random order. A majority of n is itself and n/2 others. Where
// n/2 is even these are the nearest on either side, as many on each. Where it is odd one is
// missing, and the node across the ring is it, if there is one: n is even. Else, for 3, 7,
// 11 … nodes, it is impossible: the ends of all connections would be n times n/2, which is
// odd. There one node, and it alone, reaches one more: the nodes half a ring apart form a
// cycle through all, since n/2 and n have no common divisor; every other connection of it
// gives each node one more, and one that is left over closes it.
//
// Jepsen has this exactly for 5 nodes; for more it draws connections until all have a
// majority, some have more, and two may have the same.
func majoritiesGrudge(nodes []string, direction string, random *rand.Rand) grudge {
	n := len(nodes)
	order := slices.Clone(nodes)
	random.Shuffle(n, func(i, j int) { order[i], order[j] = order[j], order[i] })
	g := grudge{detail: "ring " + strings.Join(order, " ")}
	if n == 3 {
		g.detail = fmt.Sprintf("line %s %s %s", order[1], order[0], order[2])
	}
	for i := range n {
		for j := range n {
			// Half of the cut pairs lead clockwise, and their opposites do not.
			clockwise := 2*((j-i+n)%n) < n || 2*((j-i+n)%n) == n && i < j
			if ringReaches(n, i, j) || direction == outgoing && !clockwise || direction == incoming && clockwise {
				continue
			}
			g.pairs = append(g.pairs, agent.Pair{From: order[i], To: order[j]})
		}
	}
	if direction != bothWays {
		g.detail += ", " + map[string]string{outgoing: "cut clockwise only", incoming: "cut anticlockwise only"}[direction]
	}
	return g
}

// ringReaches reports whether places i and j on a ring of n reach each other.
func ringReaches(n, i, j int) bool {
	distance := min((i-j+n)%n, (j-i+n)%n)
	others := n / 2
	switch {
	case distance <= others/2:
		return true
	case others%2 == 0:
		return false
	case n%2 == 0:
		return distance == n/2
	case distance != n/2:
		return false
	}
	// Place k steps of n/2 from 0 is k(n-1)/2; since that times -2 is k, -2i counts i's steps.
	a, b := (n-i)*2%n, (n-j)*2%n
	a, b = min(a, b), max(a, b)
	return b == a+1 && a%2 == 0 || a == 0 && b == n-1
}

// bridgeGrudge parts all but one node in halves; that one reaches both.
func bridgeGrudge(nodes []string, bridge string, direction string, random *rand.Rand) grudge {
	others := without(nodes, []string{bridge})
	one := some(others, len(others)/2, random)
	other := without(others, one)
	g := twoSides(one, other, direction)
	g.detail = fmt.Sprintf("%s, %s reaches both", g.detail, bridge)
	g.sides = [][]string{without(nodes, other), without(nodes, one)}
	return g
}

// chainGrudge cuts the ends of a chain of three groups from each other: both reach the
// middle, and everybody else.
func chainGrudge(nodes []string, chain [3][]string, direction string) grudge {
	first, middle, last := chain[0], chain[1], chain[2]
	g := twoSides(first, last, direction)
	g.detail = fmt.Sprintf("%s, both reach %s", g.detail, strings.Join(middle, " "))
	g.sides = [][]string{without(nodes, last), without(nodes, first)}
	return g
}

// drawChain draws three nodes of those. A single one becomes the middle of a chain.
func drawChain(nodes, targets []string, random *rand.Rand) (chain [3][]string, ok bool) {
	from, middle := targets, ""
	if len(targets) == 1 {
		from, middle = without(nodes, targets), targets[0]
	}
	drawn := slices.Clone(from)
	random.Shuffle(len(drawn), func(i, j int) { drawn[i], drawn[j] = drawn[j], drawn[i] })
	if middle != "" && len(drawn) >= 2 {
		drawn = []string{drawn[0], middle, drawn[1]}
	}
	if len(drawn) < 3 {
		return chain, false
	}
	for i := range chain {
		chain[i] = drawn[i : i+1]
	}
	return chain, true
}

// parseChain reads three groups of nodes: n1-n2+n4-n3.
func parseChain(text string, nodes []string) (chain [3][]string, ok bool) {
	groups := strings.Split(text, "-")
	if len(groups) != len(chain) {
		return chain, false
	}
	seen := make(map[string]bool)
	for i, group := range groups {
		for _, name := range strings.Split(group, "+") {
			name = strings.TrimSpace(name)
			if seen[name] || !slices.Contains(nodes, name) {
				return chain, false
			}
			seen[name] = true
			chain[i] = append(chain[i], name)
		}
	}
	return chain, true
}

// parsePairs reads pairs of nodes, or of a node and clients: n1>n2 is one way, n1-n2 both.
// Each comes once, in order.
func parsePairs(texts []string, nodes []string) (pairs []agent.Pair, ok bool) {
	for _, text := range texts {
		one, other, oneWay := strings.Cut(text, ">")
		if !oneWay {
			one, other, ok = strings.Cut(text, "-")
			if !ok {
				return nil, false
			}
		}
		one, other = strings.TrimSpace(one), strings.TrimSpace(other)
		for _, name := range []string{one, other} {
			if name != clusters.Client && !slices.Contains(nodes, name) {
				return nil, false
			}
		}
		if one == other {
			return nil, false
		}
		pairs = append(pairs, agent.Pair{From: one, To: other})
		if !oneWay {
			pairs = append(pairs, agent.Pair{From: other, To: one})
		}
	}
	sortPairs(pairs)
	return slices.Compact(pairs), len(pairs) > 0
}
