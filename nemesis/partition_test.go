//go:build linux

package nemesis

import (
	"bufio"
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"capsize/clusters"
	"capsize/histories"
	"capsize/nemesis/agent"
)

// talk is a connection to a test node.
type talk struct {
	net.Conn
	lines *bufio.Reader
}

func dialTest(t *testing.T, address string) *talk {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &talk{c, bufio.NewReader(c)}
}

func (c *talk) say(text string) { _, _ = io.WriteString(c, text+"\n") }

func (c *talk) hears(text string, within time.Duration) bool {
	_ = c.SetReadDeadline(time.Now().Add(within))
	line, err := c.lines.ReadString('\n')
	return err == nil && line == text+"\n"
}

// during carries out one step, and calls do while it is in force.
func (f *fixture) during(step Step, do func()) {
	f.t.Helper()
	f.recorded.events = nil
	n := f.nemesis(step)
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- n.Run(ctx) }()
	defer func() {
		stop()
		if err := <-over; err != nil {
			f.t.Error(err)
		}
		expectPhases(f.t, f.recorded, 1, landedAndHealed...)
	}()
	eventually(f.t, patience, step.Fault+" is in force", func() bool {
		if phases := f.recorded.phases(1); slices.Contains(phases, histories.Missed) {
			f.t.Fatalf("missed: %s", f.recorded.phase(f.t, 1, histories.Missed).Error)
		}
		return slices.Contains(f.recorded.phases(1), histories.Landed)
	})
	do()
}

// Clients are cut for what a connection carries, there and back, and nodes are not.
func TestClientsAreCutFromANodeWhileNodesReachEachOther(t *testing.T) {
	f := newFixture(t, 3)
	for _, c := range []struct {
		direction string
		arrives   bool
		silent    string
	}{
		{bothWays, false, "silent: client->n2 n2->client"},
		{outgoing, true, "silent: n2->client"},
		{incoming, false, "silent: client->n2"},
	} {
		t.Run(c.direction, func(t *testing.T) {
			client, node := dialTest(t, f.Dial(clusters.Client, "n2", "client")), dialTest(t, f.Dial("n1", "n2", "peer"))
			other := dialTest(t, f.Dial(clusters.Client, "n3", "client"))
			ask := func(text string) {
				for _, each := range []*talk{client, node, other} {
					each.say(text + " " + c.direction)
				}
			}
			ask("open")
			if text := "open " + c.direction; !client.hears(text, patience) || !node.hears(text, patience) || !other.hears(text, patience) {
				t.Fatal("an open link does not answer")
			}
			before := strings.Count(f.log("n2"), "cut "+c.direction)
			f.during(Step{Fault: "partition", Target: "n2", Duration: time.Minute, Params: kindAnd(fromClients, "direction", c.direction)}, func() {
				ask("cut")
				if text := "cut " + c.direction; !node.hears(text, patience) || !other.hears(text, patience) {
					t.Error("more is cut than one node from clients")
				}
				want := 1 // of the other node
				if c.arrives {
					want = 2
					eventually(t, patience, "what the client sends arrives", func() bool { return strings.Count(f.log("n2"), "cut "+c.direction) == before+want })
				}
				if client.hears("cut "+c.direction, window) {
					t.Error("a client was answered")
				}
				if got := strings.Count(f.log("n2"), "cut "+c.direction) - before; got != want {
					t.Errorf("n2 received %d of the 2 lines, want %d", got, want)
				}
			})
			if !client.hears("cut "+c.direction, patience) {
				t.Error("what was held did not come after the heal")
			}
			proof := f.recorded.phase(t, 1, histories.Landed).Fault.Proof
			if last := proof[len(proof)-1]; last != c.silent {
				t.Errorf("landed with the proof %q, want %q", proof, c.silent)
			}
			if !strings.Contains(strings.Join(f.recorded.phase(t, 1, histories.Healed).Fault.Proof, "; "), "12 of 12 open pairs arrived") {
				t.Errorf("healed with the proof %q", f.recorded.phase(t, 1, histories.Healed).Fault.Proof)
			}
		})
	}
}

func TestAnIsolatedNodeLosesItsClientsWhereThatIsAsked(t *testing.T) {
	f := newFixture(t, 3)
	client, other := dialTest(t, f.Dial(clusters.Client, "n1", "client")), dialTest(t, f.Dial(clusters.Client, "n2", "client"))
	f.during(Step{Fault: "partition", Duration: time.Minute, Params: kindAnd(isolateLeader, "clients", "cut")}, func() {
		client.say("x")
		other.say("x")
		if !other.hears("x", patience) || client.hears("x", window) {
			t.Error("not just the clients of n1 are cut")
		}
	})
	if proof := f.recorded.phase(t, 1, histories.Landed).Fault; proof.Detail != "n1 | n2 n3, clients with the rest" || !slices.Contains(proof.Proof, "silent: client->n1 n1->client,n2,n3 n2->n1 n3->n1") {
		t.Errorf("%+v", proof)
	}
}

// Only a probe from where clients are can tell.
func TestACutOfClientsThatDoesNotLandIsMissed(t *testing.T) {
	f := newFixture(t, 2, func(c *testCluster) { c.roles["n2"] = "deaf agent" })
	n := f.nemesis(Step{Duration: short, Fault: "partition", Target: "n2", Params: kindOf(fromClients)})
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, histories.Inject, histories.Missed)
	if why := f.recorded.phase(t, 1, histories.Missed).Error; why != "probes arrived over what is cut: client->n2, n2->client" {
		t.Errorf("missed: %s", why)
	}
	if err := n.HealAll(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAPartitionThatFlapsOpensAndIsCutAgain(t *testing.T) {
	f := newFixture(t, 2)
	link := dialTest(t, f.Dial("n1", "n2", "peer"))
	f.during(Step{Fault: "partition", Duration: time.Minute, Params: kindAnd(halves, "period", "1s")}, func() {
		for _, text := range []string{"first", "second"} {
			link.say(text)
			began := time.Now()
			if !link.hears(text, patience) {
				t.Fatal("it does not open")
			}
			t.Logf("%s: open after %s", text, time.Since(began))
			eventually(t, patience, "it is cut again", func() bool {
				link.say("again")
				return !link.hears("again", window)
			})
			if !link.hears("again", patience) {
				t.Fatal("it does not open again")
			}
		}
	})
	healed := f.recorded.phase(t, 1, histories.Healed).Fault.Proof
	if !strings.HasPrefix(healed[0], "flapped every 1s: opened ") || strings.Contains(healed[0], "cut again 0 times") || !strings.HasPrefix(healed[1], "held back while in force: n1->n2 ") {
		t.Errorf("healed with the proof %q", healed)
	}
}

func TestAFlapThatDoesNotHappenIsToldAndHealed(t *testing.T) {
	f := newFixture(t, 2, func(c *testCluster) { c.roles["n2"] = "forgetful agent" })
	n := f.nemesis(Step{Fault: "partition", Duration: time.Second, Params: kindAnd(halves, "period", "200ms")})
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, histories.Inject, histories.Landed, histories.Missed, histories.Heal, histories.Healed)
	if why := f.recorded.phase(t, 1, histories.Missed).Error; !strings.Contains(why, "did not go on: cut it again: probes arrived over what is cut: n1->n2") {
		t.Errorf("missed: %s", why)
	}
}

// The counters begin anew whenever any partition changes.
func TestWhatAStepHeldBackIsCountedThroughOthers(t *testing.T) {
	f := newFixture(t, 3)
	n := f.nemesis()
	inject := func(id int, pairs ...agent.Pair) Planned {
		p := Planned{ID: id, Fault: "partition", Pairs: pairs}
		if _, err := (partition{}).Inject(t.Context(), n.effects, p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	link := dialTest(t, f.Dial("n1", "n2", "peer"))
	first := inject(1, agent.Pair{From: "n1", To: "n2"})
	link.say(strings.Repeat("x", 1000))
	eventually(t, patience, "it is held", func() bool {
		found, err := f.controller.Probe(t.Context(), nil, nil, 0)
		return err == nil && found.Dropped[first.Pairs[0]] > 1000
	})
	inject(2, agent.Pair{From: "n2", To: "n3"}) // the counters begin anew
	held := n.effects.held[1][first.Pairs[0]]
	if held <= 1000 || n.effects.held[2] != nil {
		t.Errorf("held %v", n.effects.held)
	}
	proof, err := partition{}.Heal(t.Context(), n.effects, first)
	if err != nil || !strings.HasPrefix(proof.Lines[0], "held back while in force: n1->n2 ") || n.effects.held[1] != nil || n.effects.held[2] == nil {
		t.Errorf("%q, %v; held %v", proof.Lines, err, n.effects.held)
	}
}

func TestASurveyTellsWhetherClientsCanBeCut(t *testing.T) {
	f := newFixture(t, 1)
	abilities, err := f.controller.Survey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(abilities["n1"], func(a agent.Ability) bool { return a.Name == agent.Clients && a.How == "proxy" && a.Why == "" }) {
		t.Errorf("%+v", abilities)
	}
}
