package nemesis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"capsize/clusters"
	"capsize/nemesis/agent"
)

// ways returns all pairs that a proof of the network is about: those of nodes, and once
// clients have been cut, those of nodes and clients.
func (e *Effects) ways() []agent.Pair {
	ways := allPairs(e.nodes)
	if e.clients {
		ways = append(ways, apart(e.nodes, []string{clusters.Client}, bothWays)...)
	}
	sortPairs(ways)
	return ways
}

// proveNetwork probes every directed pair: what is cut must be silent, and everything
// else must get through, for a network that is broken elsewhere proves nothing. The
// caller holds e.network.
func (e *Effects) proveNetwork(ctx context.Context) ([]string, error) {
	cut, ways := e.inForce(), e.ways()
	found, err := e.controller.Probe(ctx, ways, func(pair agent.Pair) bool { return !cut[pair] }, e.slack())
	if err != nil {
		return nil, err
	}
	var arrived, silent, unprobed, leaked, missing []agent.Pair
	for _, pair := range ways {
		switch {
		case cut[pair] && found.Arrived[pair]:
			leaked = append(leaked, pair)
		case cut[pair]:
			silent = append(silent, pair)
		case found.Arrived[pair]:
			arrived = append(arrived, pair)
		case found.Unprobed[pair]:
			unprobed = append(unprobed, pair)
		default:
			missing = append(missing, pair)
		}
	}
	var problems []error
	for _, one := range []struct {
		what  string
		pairs []agent.Pair
	}{
		{"probes arrived over what is cut: ", leaked},
		{"probes did not arrive over what is open: ", missing},
		{"nothing arrived over what is cut, but the node did not count a packet either, so something else keeps clients from it (a firewall before its client ports?): ", found.Unexplained},
	} {
		if len(one.pairs) > 0 {
			problems = append(problems, errors.New(one.what+listPairs(one.pairs)))
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	lines := []string{fmt.Sprintf("probes: %d of %d open pairs arrived, 0 of %d cut pairs", len(arrived), len(arrived)+len(unprobed), len(cut))}
	if count := describeDropped(found.Dropped, silent); count != "" {
		lines = append(lines, "held back so far: "+count)
	}
	for _, one := range []struct {
		what  string
		pairs []agent.Pair
	}{{"arrived: ", arrived}, {"silent: ", silent}, {"not probed, since what they answer is cut: ", unprobed}} {
		if len(one.pairs) > 0 {
			lines = append(lines, one.what+describePairs(one.pairs))
		}
	}
	return lines, nil
}

func arrow(p agent.Pair) string { return p.From + "->" + p.To }

func listPairs(pairs []agent.Pair) string {
	arrows := make([]string, len(pairs))
	for i, pair := range pairs {
		arrows[i] = arrow(pair)
	}
	return strings.Join(arrows, ", ")
}

// describePairs lists sorted pairs, those of one sender together.
func describePairs(pairs []agent.Pair) string {
	var senders []string
	for from := 0; from < len(pairs); {
		to := from
		var receivers []string
		for ; to < len(pairs) && pairs[to].From == pairs[from].From; to++ {
			receivers = append(receivers, pairs[to].To)
		}
		senders = append(senders, pairs[from].From+"->"+strings.Join(receivers, ","))
		from = to
	}
	return strings.Join(senders, " ")
}

// describeDropped tells what was held back of each of the pairs.
func describeDropped(dropped map[agent.Pair]uint64, pairs []agent.Pair) string {
	var counts []string
	for _, pair := range slices.Compact(slices.Clone(pairs)) {
		if n := dropped[pair]; n > 0 {
			counts = append(counts, fmt.Sprintf("%s %d", arrow(pair), n))
		}
	}
	return strings.Join(counts, ", ")
}
