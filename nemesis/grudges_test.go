package nemesis

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"capsize/clusters"
	"capsize/nemesis/agent"
)

// drawn is a partition as planned, with its pairs for looking up.
type drawn struct {
	Planned
	nodes []string
	cut   map[agent.Pair]bool
}

func drawPartition(t rapid.TB, nodes []string, seed uint64, target string, params map[string]string) drawn {
	t.Helper()
	s := Schedule{Seed: seed, Steps: []Step{{Fault: "partition", Target: target, Params: params, Duration: 1}}}
	p, err := s.Plan(1, View{Nodes: nodes, Leader: "n2"})
	if err != nil {
		t.Fatal(err)
	}
	d := drawn{p, nodes, make(map[agent.Pair]bool)}
	for _, pair := range p.Pairs {
		if d.cut[pair] {
			t.Fatalf("%v is cut twice", pair)
		}
		d.cut[pair] = true
	}
	return d
}

// reaches reports whether what one node sends arrives at the other.
func (d drawn) reaches(from, to string) bool { return !d.cut[agent.Pair{From: from, To: to}] }

// whole reports whether two nodes reach each other both ways.
func (d drawn) whole(a, b string) bool { return d.reaches(a, b) && d.reaches(b, a) }

// view is whom a node reaches, itself included.
func (d drawn) view(from string) []string {
	return filter(d.nodes, func(to string) bool { return from == to || d.reaches(from, to) })
}

// expectCut checks that exactly the pairs of nodes are cut for which that says so.
func (d drawn) expectCut(t rapid.TB, cut func(from, to string) bool) {
	t.Helper()
	for _, pair := range allPairs(d.nodes) {
		if d.reaches(pair.From, pair.To) == cut(pair.From, pair.To) {
			t.Fatalf("%s of %v: %v is cut: %v", d, d.nodes, pair, !d.reaches(pair.From, pair.To))
		}
	}
}

// apartFrom says that one side and everybody else do not reach each other.
func apartFrom(side []string) func(from, to string) bool {
	return func(from, to string) bool { return slices.Contains(side, from) != slices.Contains(side, to) }
}

// someStep draws any partition that is possible.
func someStep(t *rapid.T, nodes []string) (target string, params map[string]string) {
	kind := rapid.SampledFrom(partitionKinds).Draw(t, "kind")
	params = kindOf(kind.name)
	switch kind.name {
	case someLinks:
		params["pairs"] = "n1>n2,n3-client"
	case halves, fromClients:
		target = rapid.SampledFrom([]string{"", "n1", Leader, Minority}).Draw(t, "target")
	case nonTransitive:
		target = rapid.SampledFrom([]string{"", "n1", Leader}).Draw(t, "target")
	}
	if kind.side {
		params["clients"] = rapid.SampledFrom([]string{"keep", "cut"}).Draw(t, "clients")
	}
	return target, params
}

func drawNodes(t *rapid.T) ([]string, uint64) {
	return names(rapid.IntRange(3, 25).Draw(t, "nodes")), rapid.Uint64().Draw(t, "seed")
}

func TestHalvesAreTheTargetAndTheRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, seed := drawNodes(t)
		d := drawPartition(t, nodes, seed, "", nil)
		if len(d.Sides[0]) != len(nodes)/2 {
			t.Fatalf("halves: %s", d.Detail)
		}
		d.expectCut(t, apartFrom(d.Sides[0]))
		d = drawPartition(t, nodes, seed, "n1,n3", nil)
		d.expectCut(t, apartFrom([]string{"n1", "n3"}))
		d = drawPartition(t, nodes, seed, "n3", kindOf(isolate))
		d.expectCut(t, apartFrom([]string{"n3"}))
		d = drawPartition(t, nodes, seed, "", kindOf(isolateLeader))
		d.expectCut(t, apartFrom([]string{"n2"}))
	})
}

// Four nodes can be split in 7 ways.
func TestEverySplitIsAsLikelyAsAnother(t *testing.T) {
	nodes := names(4)
	seen := make(map[string]int)
	const draws = 28_000
	for seed := range uint64(draws) {
		d := drawPartition(t, nodes, seed, "", kindOf(randomHalves))
		d.expectCut(t, apartFrom(d.Sides[0]))
		if len(d.Sides[0]) == 0 || len(d.Sides[1]) == 0 {
			t.Fatalf("seed %d: a side is empty: %s", seed, d)
		}
		side := d.Sides[0]
		if !slices.Contains(side, "n1") {
			side = d.Sides[1]
		}
		seen[strings.Join(side, " ")]++
	}
	for split, n := range seen {
		if n < 3700 || n > 4300 { // five standard deviations
			t.Errorf("%s comes %d times, want about %d", split, n, draws/7)
		}
	}
	if len(seen) != 7 {
		t.Errorf("%d different splits: %v", len(seen), seen)
	}
}

func TestTheLeadersMinorityLacksOneOfAMajority(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, seed := drawNodes(t)
		d := drawPartition(t, nodes, seed, "", kindOf(leaderMinority))
		if !slices.Contains(d.Sides[0], "n2") || len(d.Sides[0])+1 != len(nodes)/2+1 {
			t.Fatalf("of %d nodes the leader, n2, is with %v", len(nodes), d.Sides[0])
		}
		d.expectCut(t, apartFrom(d.Sides[0]))
	})
}

func TestInARingEveryNodeReachesExactlyAMajorityAndNoTwoTheSame(t *testing.T) {
	for n := 3; n <= 25; n++ {
		nodes := names(n)
		for pair := range drawPartition(t, nodes, 1, "", kindOf(majoritiesRing)).cut {
			back := agent.Pair{From: pair.To, To: pair.From}
			if out := drawPartition(t, nodes, 1, "", kindAnd(majoritiesRing, "direction", outgoing)); out.cut[pair] == out.cut[back] {
				t.Fatalf("of %d nodes, clockwise: %v is cut: %v, and so is %v", n, pair, out.cut[pair], back)
			}
		}
		majority := n/2 + 1
		// The ends of all connections, n for each of n/2 others, come in twos.
		exact := n*(n/2)%2 == 0
		if exact == (n%4 == 3) {
			t.Errorf("of %d nodes: exact %v", n, exact)
		}
		for seed := range uint64(20) {
			d := drawPartition(t, nodes, seed, "", kindOf(majoritiesRing))
			views := make(map[string]string)
			more := 0
			for _, node := range nodes {
				view := d.view(node)
				switch len(view) {
				case majority:
				case majority + 1:
					more++
				default:
					t.Fatalf("%s of %d: %s reaches %v", d, n, node, view)
				}
				key := strings.Join(view, " ")
				if views[key] != "" {
					t.Fatalf("%s of %d: %s and %s reach the same majority %s", d, n, node, views[key], key)
				}
				views[key] = node
				for _, other := range nodes {
					if d.reaches(node, other) != d.reaches(other, node) {
						t.Fatalf("%s: %s and %s reach each other one way only", d, node, other)
					}
				}
			}
			if exact && more != 0 || !exact && more != 1 {
				t.Fatalf("%s of %d: %d nodes reach more than a majority", d, n, more)
			}
		}
	}
}

func TestABridgeReachesBothHalves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, seed := drawNodes(t)
		d := drawPartition(t, nodes, seed, "n3", kindOf(bridge))
		one, other := without(d.Sides[0], []string{"n3"}), without(d.Sides[1], []string{"n3"})
		if difference := len(other) - len(one); difference < 0 || difference > 1 || len(one)+len(other) != len(nodes)-1 {
			t.Fatalf("halves %v and %v", one, other)
		}
		d.expectCut(t, func(from, to string) bool {
			return slices.Contains(one, from) && slices.Contains(other, to) || slices.Contains(other, from) && slices.Contains(one, to)
		})
	})
}

func TestOfAChainOnlyTheEndsDoNotReachEachOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, seed := drawNodes(t)
		d := drawPartition(t, nodes, seed, "n3", kindOf(nonTransitive))
		if len(d.Pairs) != 2 || d.Pairs[0].From == "n3" || d.Pairs[0].To == "n3" || d.Pairs[1] != (agent.Pair{From: d.Pairs[0].To, To: d.Pairs[0].From}) {
			t.Fatalf("with n3 in the middle: %v", d.Pairs)
		}
		if d = drawPartition(t, nodes, seed, "n1,n2,n3", kindOf(nonTransitive)); len(d.Pairs) != 2 || !slices.Contains([]string{"n1", "n2", "n3"}, d.Pairs[0].From) {
			t.Fatalf("of n1, n2, n3: %v", d.Pairs)
		}
	})
	d := drawPartition(t, names(6), 1, "", kindAnd(nonTransitive, "chain", "n1+n4 - n2 - n3+n6"))
	first, last := []string{"n1", "n4"}, []string{"n3", "n6"}
	d.expectCut(t, func(from, to string) bool {
		return slices.Contains(first, from) && slices.Contains(last, to) || slices.Contains(last, from) && slices.Contains(first, to)
	})
}

func TestLinksAreCutAsTheyAreNamed(t *testing.T) {
	d := drawPartition(t, names(4), 1, "", kindAnd(someLinks, "pairs", "n1>n2, n2 - n3,n3>n2,client>n4,n1-client"))
	if got := describePairs(d.Pairs); got != "client->n1,n4 n1->client,n2 n2->n3 n3->n2" {
		t.Errorf("cut %s", got)
	}
}

func TestClientsAreCutFromTheTargetAndNodesReachEachOther(t *testing.T) {
	d := drawPartition(t, names(4), 1, "n2,n4", kindOf(fromClients))
	if got := describePairs(d.Pairs); got != "client->n2,n4 n2->client n4->client" {
		t.Errorf("cut %s", got)
	}
	if d = drawPartition(t, names(1), 1, "n1", kindOf(fromClients)); len(d.Pairs) != 2 {
		t.Errorf("of a node alone: cut %v", d.Pairs)
	}
	d = drawPartition(t, names(3), 1, "n2", map[string]string{"kind": isolate, "clients": "cut", "direction": incoming})
	if got := describePairs(d.Pairs); got != "client->n2 n1->n2 n3->n2" {
		t.Errorf("an isolated node that hears nothing, not even of clients: cut %s", got)
	}
}

// Out and in are the two halves of both, for every kind, with the same seed.
func TestDirectionsAreTheHalvesOfACut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, seed := drawNodes(t)
		target, params := someStep(t, nodes)
		if params["kind"] == someLinks {
			return // they say their own
		}
		cuts := make(map[string]drawn)
		for _, direction := range []string{bothWays, outgoing, incoming} {
			params["direction"] = direction
			cuts[direction] = drawPartition(t, nodes, seed, target, params)
		}
		both, out, in := cuts[bothWays], cuts[outgoing], cuts[incoming]
		for pair := range out.cut {
			if !in.cut[agent.Pair{From: pair.To, To: pair.From}] || in.cut[pair] {
				t.Fatalf("out cuts %v, in %v", out.Pairs, in.Pairs)
			}
		}
		want := len(out.cut) + len(in.cut)
		if params["kind"] == oneWay {
			want = len(out.cut)
		}
		if len(out.cut) != len(in.cut) || len(both.cut) != want {
			t.Fatalf("%d are cut both ways, %d out, %d in", len(both.cut), len(out.cut), len(in.cut))
		}
		for pair := range out.cut {
			if !both.cut[pair] {
				t.Fatalf("out cuts %v, both does not", pair)
			}
		}
		for pair := range out.cut {
			if len(out.Sides) > 0 && pair.From != clusters.Client && (!slices.Contains(out.Sides[0], pair.From) || slices.Contains(out.Sides[0], pair.To)) {
				t.Fatalf("out cuts %v, which does not leave the target's side %v", pair, out.Sides[0])
			}
		}
	})
}

// Who is on one side with whom: groups that are whole, and to which nobody can be added.
func TestSidesAreGroupsThatAreWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, seed := drawNodes(t)
		target, params := someStep(t, nodes)
		params["direction"] = bothWays
		d := drawPartition(t, nodes, seed, target, params)
		covered := make(map[string]bool)
		for _, side := range d.Sides {
			for _, node := range nodes {
				strangers := filter(side, func(member string) bool { return member != node && !d.whole(member, node) })
				inside := slices.Contains(side, node)
				if inside && len(strangers) > 0 || !inside && len(strangers) == 0 {
					t.Fatalf("%s: side %v, %s of it: %v, does not reach %v", d, side, node, inside, strangers)
				}
				covered[node] = covered[node] || inside
			}
		}
		if none := params["kind"] == majoritiesRing || params["kind"] == someLinks; none != (len(d.Sides) == 0) || !none && len(covered) != len(nodes) {
			t.Fatalf("%s has the sides %v", d, d.Sides)
		}
		if slices.ContainsFunc(d.Pairs, ofClients) != slices.Contains(partition{}.About().needs(d.Params), agent.Clients) {
			t.Fatalf("%s needs %v", d, partition{}.About().needs(d.Params))
		}
	})
}

func TestASplitIsAlwaysFound(t *testing.T) {
	if side := anySplit(names(3), rand.New(allOnes{})); fmt.Sprint(side) != "[n1]" {
		t.Errorf("of a source that says the same always: %v", side)
	}
	if slices.Contains(names(25), clusters.Client) {
		t.Error("a node is called like the clients")
	}
}

type allOnes struct{}

func (allOnes) Uint64() uint64 { return ^uint64(0) }
