//go:build linux

package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"capsize/clusters"
	"capsize/histories"
)

// changeable is a system whose members change when it is asked: all nodes list the same.
type changeable struct {
	process func(string) clusters.Process
	ignored string // the operation that it acknowledges and does not do

	mu   sync.Mutex
	list []Member
	last uint64   // ID that was given out
	done []string // the changes, in order
}

func (c *changeable) List(context.Context, string) ([]Member, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.list), nil
}

func (c *changeable) Change(_ context.Context, changes ...MemberChange) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, change := range changes {
		c.done = append(c.done, change.Op+" "+change.Node)
		if change.Op == c.ignored {
			continue
		}
		at := slices.IndexFunc(c.list, func(m Member) bool { return m.Node == change.Node })
		if joins := change.Op == addVoter || change.Op == addLearner; joins == (at >= 0) {
			return fmt.Errorf("%s %s: the members are %s", change.Op, change.Node, describeMembers(c.list))
		}
		switch change.Op {
		case addVoter, addLearner:
			c.last++
			c.list = append(c.list, Member{Node: change.Node, ID: c.last, Voter: change.Op == addVoter})
		case promoteVoter, demoteVoter:
			c.list[at].Voter = change.Op == promoteVoter
		case removeMember:
			c.list = slices.Delete(c.list, at, at+1)
		}
	}
	return nil
}

func (*changeable) Transfer(context.Context, string) error { return nil }

func (c *changeable) Joining(node, _ string) clusters.Process { return c.process(node) }

func (c *changeable) changes() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.done)
}

// changing makes a Nemesis of a system whose members are all nodes at first.
func (f *fixture) changing(steps ...Step) (*Nemesis, *changeable) {
	system := &changeable{process: f.process, list: members(f.nodes...), last: uint64(len(f.nodes))}
	n := f.nemesis(steps...)
	n.effects.members = system
	return n, system
}

func step(fault, target string, at, duration time.Duration, params map[string]string) Step {
	return Step{Fault: fault, Target: target, At: at, Duration: duration, Params: params}
}

func TestARemovedNodeIsAddedAndALearnerPromotedAndBothAreUndone(t *testing.T) {
	f := newFixture(t, 5)
	learner := map[string]string{"as": asLearner}
	for _, c := range []struct {
		what   string
		steps  []Step
		want   []string // the changes
		landed map[int]string
		healed map[int]string
	}{
		{
			"added as a voter, and out again until the removal ends",
			[]Step{step("remove", "n5", 0, 6*short, nil), step("add", Removed, 0, 3*short, nil)},
			[]string{"remove n5", "add n5", "remove n5", "add-learner n5", "promote n5"},
			map[int]string{2: "n5 joins as a voter, member 6: a majority of the voters lists n1 (1), n2 (2), n3 (3), n4 (4), n5 (6)"},
			map[int]string{1: "n5 is a voter, member 7, and answers", 2: "n5, member 6, removed: a majority of the voters lists n1 (1), n2 (2), n3 (3), n4 (4); n5: pid"},
		},
		{
			"the removal ends first: it stays",
			[]Step{step("remove", "n5", 0, 3*short, nil), step("add", "n5", 0, 6*short, nil)},
			[]string{"remove n5", "add n5"},
			nil,
			map[int]string{1: "n5 is a voter, member 6, and answers", 2: "n5 stays as it is, since the step that this one built on is over"},
		},
		{
			"a learner has a vote for a while",
			[]Step{step("demote", "n5", 0, 6*short, nil), step("promote", Learner, 0, 3*short, nil)},
			[]string{"demote n5", "promote n5", "demote n5", "promote n5"},
			map[int]string{2: "n5 is a voter, member 5, and answers"},
			map[int]string{1: "n5 is a voter", 2: "n5 has no vote: a majority of the voters lists n1 (1), n2 (2), n3 (3), n4 (4), n5 (5) learner"},
		},
		{
			"the demotion ends first: it keeps the vote",
			[]Step{step("demote", "n5", 0, 3*short, nil), step("promote", "n5", 0, 6*short, nil)},
			[]string{"demote n5", "promote n5"},
			nil,
			map[int]string{2: "n5 stays as it is"},
		},
		{
			"added as a learner, promoted, and all the way back",
			[]Step{step("remove", "n5", 0, 9*short, nil), step("add", Removed, 0, 6*short, learner), step("promote", Learner, 0, 3*short, nil)},
			[]string{"remove n5", "add-learner n5", "promote n5", "demote n5", "remove n5", "add-learner n5", "promote n5"},
			map[int]string{2: "n5 joins as a learner, member 6", 3: "n5 is a voter, member 6"},
			map[int]string{3: "n5 has no vote", 2: "n5, member 6, removed"},
		},
	} {
		t.Run(c.what, func(t *testing.T) {
			f.recorded.events = nil
			n, system := f.changing(c.steps...)
			if err := n.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i := range c.steps {
				expectPhases(t, f.recorded, i+1, landedAndHealed...)
			}
			for phase, want := range map[histories.Phase]map[int]string{histories.Landed: c.landed, histories.Healed: c.healed} {
				for id, line := range want {
					if proof := f.recorded.phase(t, id, phase).Fault.Proof; len(proof) != 1 || !strings.HasPrefix(proof[0], line) {
						t.Errorf("step %d %s with the proof %q, want %q", id, phase, proof, line)
					}
				}
			}
			if got := system.changes(); !slices.Equal(got, c.want) {
				t.Errorf("the changes were %q, want %q", got, c.want)
			}
			if list, _ := system.List(t.Context(), ""); votersIn(list) != len(f.nodes) {
				t.Errorf("in the end the members are %s", describeMembers(list))
			}
			if err := n.HealAll(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWhoIsAMemberIsNotAddedAndWhoHasAVoteIsNotPromoted(t *testing.T) {
	f := newFixture(t, 5)
	n, system := f.changing(
		step("remove", "n5", 0, 6*short, nil), step("demote", "n4", 0, 6*short, nil),
		step("add", "n3", 0, short, nil), step("promote", "n3", 0, short, nil), // nobody removed or demoted n3
		step("add", "n5", short, 2*short, nil), step("promote", "n4", short, 2*short, nil),
		step("add", "n5", 2*short, short, nil), step("promote", "n4", 2*short, short, nil), // twice
	)
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for id, why := range map[int]string{3: "add n3: it is a member: no node is removed", 4: "promote n3: no node is a learner", 7: "step 5 has added it already", 8: "step 6 has promoted it already"} {
		expectPhases(t, f.recorded, id, histories.Inject, histories.Missed)
		if got := f.recorded.phase(t, id, histories.Missed).Error; !strings.Contains(got, why) {
			t.Errorf("step %d missed: %q, want %q", id, got, why)
		}
	}
	for _, id := range []int{1, 2, 5, 6} {
		expectPhases(t, f.recorded, id, landedAndHealed...)
	}
	if list, _ := system.List(t.Context(), ""); votersIn(list) != len(f.nodes) {
		t.Errorf("in the end the members are %s, after %q", describeMembers(list), system.changes())
	}
}

// What the system says it did is not what it did: only the list is believed.
func TestAChangeThatTheMembersDoNotShowHasMissed(t *testing.T) {
	f := newFixture(t, 5)
	for _, c := range []struct {
		before  Fault
		fault   Fault
		ignored string
	}{
		{remove{}, addMember{}, addVoter},
		{demote{}, promote{}, promoteVoter},
	} {
		for _, lies := range []bool{true, false} {
			n, system := f.changing()
			e := n.effects
			planned := func(id int, fault Fault) Planned {
				return Planned{ID: id, Nodes: f.nodes[4:], Params: withDefaults(fault.About().Params, nil)}
			}
			if _, err := c.before.Inject(t.Context(), e, planned(1, c.before)); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := t.Context(), context.CancelFunc(func() {})
			if lies {
				system.ignored = c.ignored
				ctx, cancel = context.WithTimeout(ctx, 2*short)
			}
			_, err := c.fault.Inject(ctx, e, planned(2, c.fault))
			cancel()
			system.ignored = ""
			if name := c.fault.About().Name; (err != nil) != lies || lies && !strings.Contains(err.Error(), "no majority of the voters lists n5") {
				t.Errorf("%s, lies %v: %v", name, lies, err)
			}
			for i, fault := range []Fault{c.fault, c.before} {
				if _, err := fault.Heal(t.Context(), e, planned(2-i, fault)); err != nil {
					t.Errorf("heal of %s, lies %v: %v", fault.About().Name, lies, err)
				}
			}
			list, _ := system.List(t.Context(), "")
			if state := e.states["n5"]; votersIn(list) != len(f.nodes) || state.outBy+state.addedBy+state.learnerBy+state.promotedBy != 0 {
				t.Errorf("%s, lies %v: in the end the members are %s", c.fault.About().Name, lies, describeMembers(list))
			}
		}
	}
}

func TestWhoIsRemovedOrALearnerIsKnownFromWhatIsInForce(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for fault, role := range map[string]string{"remove": Removed, "demote": Learner} {
		other := map[string]string{Removed: Learner, Learner: Removed}[role]
		planned, err := (Schedule{Steps: []Step{{Fault: fault, Target: "n2,n4"}}}).Plan(1, View{Nodes: fiveNodes})
		if err != nil {
			t.Fatal(err)
		}
		view := View{Nodes: fiveNodes, Standing: []Planned{{Down: []string{"n1"}}, planned}}
		seen := map[string]bool{}
		for range 50 {
			got, err := resolve(role, view, random)
			if err != nil || len(got) != 1 {
				t.Fatal(got, err)
			}
			seen[got[0]] = true
		}
		if len(seen) != 2 || !seen["n2"] || !seen["n4"] {
			t.Errorf("%s: %v", role, seen)
		}
		if got, err := resolve(other, view, random); !mayPass(err) {
			t.Errorf("%s after %s: %v, %v", other, fault, got, err)
		}
	}
}
