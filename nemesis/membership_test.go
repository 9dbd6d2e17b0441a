package nemesis

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"capsize/clusters"
	"capsize/nemesis/agent"
)

var fiveNodes = []string{"n1", "n2", "n3", "n4", "n5"}

// views are what each node lists; nothing can be changed.
type views map[string][]Member

func (v views) List(_ context.Context, node string) ([]Member, error) {
	if list, up := v[node]; up {
		return list, nil
	}
	return nil, errors.New("down")
}
func (views) Change(context.Context, ...MemberChange) error {
	return errors.New("nothing can be changed")
}
func (views) Transfer(context.Context, string) error  { return errors.New("nobody can lead") }
func (views) Joining(string, string) clusters.Process { return clusters.Process{} }

func members(names ...string) []Member {
	var list []Member
	for _, name := range names {
		list = append(list, Member{Node: name, ID: uint64(name[1] - '0'), Voter: true})
	}
	return list
}

func TestOnlyAMajorityOfTheVotersProvesAMembership(t *testing.T) {
	four, five := members("n1", "n2", "n3", "n4"), members(fiveNodes...)
	learners := slices.Clone(four)
	learners[2].Voter = false
	for _, c := range []struct {
		what  string
		views views
		want  bool
	}{
		{"three of four have applied it", views{"n1": four, "n2": four, "n3": four, "n4": five, "n5": five}, true},
		{"two of four are half", views{"n1": four, "n2": four, "n3": five, "n4": five, "n5": five}, false},
		{"the removed one does not count", views{"n1": four, "n2": four, "n5": four}, false},
		{"a learner does not count", views{"n1": learners, "n3": learners}, false},
		{"two of three voters", views{"n1": learners, "n2": learners}, true},
		{"nobody tells", views{}, false},
	} {
		e := newEffects(Config{Nodes: fiveNodes, Members: c.views})
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		_, err := e.awaitMembers(ctx, "no n5", func(list []Member) bool { _, present := memberOf(list, "n5"); return !present })
		cancel()
		if (err == nil) != c.want {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

func TestAQuorumIsNotRemoved(t *testing.T) {
	for _, c := range []struct {
		fault, target string
		params        map[string]string
		want          bool
	}{
		{"remove", "n1,n2", nil, true},
		{"remove", "n1,n2,n3", nil, false},
		{"remove", "n1,n2,n3", map[string]string{"voters": "2"}, true},
		{"demote", All, map[string]string{"voters": "1"}, false},
		{"replace", Minority, nil, true},
		{"churn", All, map[string]string{"voters": "5"}, false},
		{"churn", All, nil, true},
		{"transfer", Minority, nil, false},
		{"transfer", Follower, nil, true},
	} {
		s := Schedule{Seed: 1, Steps: []Step{{Duration: time.Second, Fault: c.fault, Target: c.target, Params: c.params}}}
		_, err := s.Plan(1, View{Nodes: fiveNodes, Leader: "n1"})
		var wrong *ScheduleError
		if (err == nil) != c.want || err != nil && (!errors.As(err, &wrong) || wrong.Step != 1) {
			t.Errorf("%s of %s %v: %v", c.fault, c.target, c.params, err)
		}
	}
	// What the nodes are is not what the schedule knows: members may have been removed before.
	three := members("n1", "n2", "n3")
	e := newEffects(Config{Nodes: fiveNodes, Members: views{"n1": three, "n2": three, "n3": three}})
	if _, err := e.expel(t.Context(), "n1", 1, 3); err == nil || !strings.Contains(err.Error(), "2 voters would be left") {
		t.Errorf("got %v", err)
	}
}

func TestWithoutAnInterfaceMembersAreNeitherDrawnNorChanged(t *testing.T) {
	for _, works := range []bool{false, true} {
		ability := agent.Ability{Name: Membership, Why: "no interface"}
		if works {
			ability.How = "its own interface"
		}
		survey := Survey{"n1": {ability}}
		step := Step{Duration: time.Second, Fault: "remove"}
		if err := survey.Check(Schedule{Steps: []Step{step}}); (err == nil) != works {
			t.Errorf("works %v: a step gives %v", works, err)
		}
		drawn := Schedule{Draw: []Draw{{From: []string{"membership"}, Interval: time.Second}}}.
			Drawn(Circumstances{Nodes: fiveNodes, TimeLimit: 20 * time.Second, Works: survey.Works})
		if (len(drawn.Steps) > 0) != works {
			t.Errorf("works %v: %d steps are drawn", works, len(drawn.Steps))
		}
	}
	e := newEffects(Config{Nodes: fiveNodes})
	for _, name := range FaultsIn("membership") {
		fault, _ := faultByName(name)
		planned := Planned{Nodes: fiveNodes[:1], Params: withDefaults(fault.About().Params, nil)}
		if _, err := fault.Inject(t.Context(), e, planned); !errors.Is(err, errNoMembers) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := fault.Heal(t.Context(), e, planned); err != nil {
			t.Errorf("%s: its heal: %v", name, err)
		}
	}
}
