//go:build linux

package nemesis

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"capsize/histories"
	"capsize/nemesis/agent"
)

// roundTrip is how long an echo takes over the link from one node to another.
func (f *fixture) roundTrip(from, to string) time.Duration {
	f.t.Helper()
	for _, link := range f.links[to] {
		if link.From != from {
			continue
		}
		talk := dialTest(f.t.(*testing.T), link.Listen)
		began := time.Now()
		talk.say("hello")
		if !talk.hears("hello", patience) {
			f.t.Fatalf("%s does not answer %s", to, from)
		}
		return time.Since(began)
	}
	f.t.Fatalf("no link leads from %s to %s", from, to)
	return 0
}

func TestABadNetworkIsFeltOnItsLinksAndOnNoOthers(t *testing.T) {
	f := newFixture(t, 3)
	delay := kindAnd(delayPackets, "by", "150ms")
	f.during(Step{Fault: "packet", Target: "n1", Duration: time.Minute, Params: delay}, func() {
		for _, pair := range allPairs(f.nodes) {
			took := f.roundTrip(pair.From, pair.To)
			if bad := pair.From == "n1" || pair.To == "n1"; bad && took < 300*time.Millisecond {
				t.Errorf("%s to %s and back in %s, with a delay of 150ms each way", pair.From, pair.To, took)
			} else if !bad && took >= 150*time.Millisecond {
				t.Errorf("%s to %s and back in %s: nobody asked for that", pair.From, pair.To, took)
			}
		}
	})
	eventually(t, patience, "n1 is quick again", func() bool { return f.roundTrip("n1", "n2") < 100*time.Millisecond })
	if proof := f.recorded.phase(t, 1, histories.Landed).Fault.Proof; !strings.Contains(proof[0], "delay: of ") || !strings.Contains(proof[0], " packets on 4 pairs ") {
		t.Errorf("landed with %q", proof)
	}
	if proof := f.recorded.phase(t, 1, histories.Healed).Fault.Proof; !slices.Contains(proof, "probes: 6 of 6 open pairs arrived, 0 of 0 cut pairs") {
		t.Errorf("healed with %q", proof)
	}

	f.during(Step{Fault: "packet", Duration: time.Minute, Params: map[string]string{"kind": delayPackets, "by": "200ms", "pairs": "n2>n3"}}, func() {
		if took := f.roundTrip("n2", "n3"); took < 200*time.Millisecond || took > 400*time.Millisecond {
			t.Errorf("one way is late by 200ms, and there and back takes %s", took)
		}
	})
	for _, kind := range []string{losePackets, corruptPackets, limitRate} {
		f.during(Step{Fault: "packet", Target: "n1", Duration: time.Minute, Params: map[string]string{"kind": kind, "rate": "4KiB", "share": "0.5"}}, func() {})
	}
}

func TestABadNetworkInTheKernel(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for _, family := range []string{"IPv4", "IPv6"} {
		t.Run(family, func(t *testing.T) {
			f := newKernelFixture(t, family, 3)
			f.needAbility(agent.PacketDelay)
			for _, kind := range packetKinds {
				params := map[string]string{"kind": kind.name, "rate": "4KiB", "share": "0.5"}
				f.during(Step{Fault: "packet", Target: "n1", Duration: time.Minute, Params: params}, func() {
					found, err := f.controller.Probe(t.Context(), allPairs(f.nodes), func(agent.Pair) bool { return true }, time.Second)
					if err != nil || len(found.Arrived) != 6 {
						t.Errorf("%s: probes arrived over %v (%v)", kind.name, found.Arrived, err)
					}
				})
				if proof := f.recorded.phase(t, 1, histories.Landed).Fault.Proof; !strings.HasPrefix(proof[0], kind.name+": of ") {
					t.Errorf("%s landed with %q", kind.name, proof)
				}
			}
			late := map[string]string{"kind": delayPackets, "by": "300ms", "direction": incoming}
			f.during(Step{Fault: "packet", Target: "n1", Duration: time.Minute, Params: late}, func() {
				began := time.Now()
				if _, err := f.controller.Probe(t.Context(), []agent.Pair{{From: "n2", To: "n1"}}, func(agent.Pair) bool { return true }, time.Second); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took < 300*time.Millisecond {
					t.Errorf("a packet that is held for 300ms arrived within %s", took)
				}
			})
		})
	}
}

func TestABadNetworkThatNobodyMakesHasMissed(t *testing.T) {
	f := newFixture(t, 3, func(c *testCluster) { c.roles["n2"] = "deaf agent" })
	n := f.nemesis(Step{Fault: "packet", Duration: short, Params: map[string]string{"pairs": "n1>n2"}})
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, histories.Inject, histories.Missed)
	if why := f.recorded.phase(t, 1, histories.Missed).Error; !strings.Contains(why, "none of those on n1->n2") {
		t.Errorf("it missed because of %q", why)
	}
}

func TestFaultsOfTheNetworkOverlapWithoutAlarm(t *testing.T) {
	f := newFixture(t, 3)
	n := f.nemesis(
		Step{Fault: "packet", Target: "all", Duration: 10 * short, Params: kindAnd(losePackets, "share", "0.7")},
		Step{At: short, Fault: "packet", Target: "n1", Duration: 8 * short, Params: kindAnd(delayPackets, "by", "200ms")},
		Step{At: 2 * short, Fault: "partition", Target: "n1", Duration: 2 * short, Params: kindOf(isolate)},
		Step{At: 6 * short, Fault: "packet", Target: "n1", Duration: short, Params: kindAnd(limitRate, "rate", "8KiB")},
	)
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for id := range 4 {
		expectPhases(t, f.recorded, id+1, landedAndHealed...)
	}
	if err := n.HealAll(t.Context()); err != nil {
		t.Error(err)
	}
	if took := f.roundTrip("n1", "n2"); took > 150*time.Millisecond {
		t.Errorf("all is healed, and there and back takes %s", took)
	}
}

func TestWhatABadNetworkIsAbout(t *testing.T) {
	plan := func(target string, params map[string]string) (Planned, error) {
		s := Schedule{Seed: 3, Steps: []Step{{Duration: time.Second, Fault: "packet", Target: target, Params: params}}}
		return s.Plan(1, View{Nodes: names(3), Leader: "n2"})
	}
	for _, c := range []struct {
		target string
		params map[string]string
		want   string
		pairs  int
	}{
		{Leader, nil, "delay by 100ms, to and from n2", 4},
		{Leader, kindAnd(losePackets, "direction", outgoing), "loss of 20 %, of what n2 sends", 2},
		{"n1,n3", kindAnd(limitRate, "direction", incoming), "rate 64KiB a second, of what n1 n3 is sent", 4},
		{"", kindAnd(delayPackets, "pairs", "n1>n3,n2-n3"), "delay by 100ms, n1->n3 n2->n3 n3->n2", 3},
		{All, kindAnd(delayPackets, "jitter", "20ms"), "delay by 100ms ± 20ms, between all nodes", 6},
	} {
		planned, err := plan(c.target, c.params)
		if err != nil || planned.Detail != c.want || len(planned.Pairs) > 0 || len(planned.Shaped) != c.pairs {
			t.Errorf("%s %v: %q, %v; want %q", c.target, c.params, planned.Detail, err, c.want)
			continue
		}
		again := Schedule{Seed: 9, Steps: []Step{planned.pinned(Step{Duration: time.Second, Fault: "packet", Target: c.target, Params: c.params})}}
		same, err := again.Plan(1, View{Nodes: names(3), Leader: "n1"})
		if err != nil || !cmp.Equal(same.Shaped, planned.Shaped) || shapeOf(same.Params) != shapeOf(planned.Params) {
			t.Errorf("%+v again: %+v, %v", planned, same, err)
		}
	}
	for _, c := range []struct{ key, value string }{
		{"pairs", "n1>n9"}, {"pairs", "n1-client"}, {"jitter", "200ms"}, {"share", "1"}, {"rate", "1"}, {"kind", "slow"},
	} {
		err := Schedule{Steps: []Step{{Duration: time.Second, Fault: "packet", Params: map[string]string{c.key: c.value}}}}.Validate(names(3), 0)
		var wrong *ScheduleError
		if !errors.As(err, &wrong) || wrong.Key != "params."+c.key || wrong.Value != c.value {
			t.Errorf("%s=%s: %v", c.key, c.value, err)
		}
	}
}

// What another step delays is no proof that a rate is limited.
func TestALimitedRateIsNotProvenByTheDelayOfAnotherStep(t *testing.T) {
	f := newFixture(t, 2)
	n := f.nemesis(
		Step{Fault: "packet", Duration: shapeProof + 4*short, Params: kindAnd(delayPackets, "pairs", "n1>n2")},
		Step{At: 2 * short, Fault: "packet", Duration: short, Params: map[string]string{"kind": limitRate, "rate": "1024GiB", "pairs": "n1>n2"}},
	)
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, landedAndHealed...)
	expectPhases(t, f.recorded, 2, histories.Inject, histories.Missed)
}
