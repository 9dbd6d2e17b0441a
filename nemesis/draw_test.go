package nemesis

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var minute = Circumstances{Nodes: names(5), TimeLimit: time.Minute}

func TestADrawIsTheSameFromTheSameSeedAndValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Schedule{
			Seed: rapid.Uint64().Draw(t, "seed"),
			Draw: []Draw{{
				From:     rapid.SliceOfNDistinct(rapid.SampledFrom(Packages()), 1, 3, rapid.ID).Draw(t, "from"),
				Interval: time.Duration(rapid.Int64Range(int64(time.Second), int64(20*time.Second)).Draw(t, "interval")),
				Overlap:  rapid.IntRange(0, 3).Draw(t, "overlap"), Swarm: rapid.Bool().Draw(t, "swarm"),
			}},
			Steps: []Step{{At: time.Second, Duration: time.Second, Fault: "kill"}},
		}
		c := Circumstances{Nodes: names(rapid.IntRange(3, 9).Draw(t, "nodes")), TimeLimit: time.Minute}
		if err := s.Validate(c.Nodes, c.TimeLimit); err != nil {
			t.Fatal(err)
		}
		drawn := s.Drawn(c)
		if err := drawn.Validate(c.Nodes, c.TimeLimit); err != nil {
			t.Fatal(err)
		}
		if len(drawn.Draw) != 0 || !cmp.Equal(drawn, s.Drawn(c)) {
			t.Fatal("another schedule from the same seed")
		}
		inForce := func(at time.Duration) int {
			n := 0
			for _, step := range drawn.Steps[:] {
				if step.At <= at && at < step.At+step.Duration {
					n++
				}
			}
			return n
		}
		for _, step := range drawn.Steps {
			if n := inForce(step.At); n > max(1, s.Draw[0].Overlap)+1 { // and the one written by hand
				t.Fatalf("%d faults in force at %s", n, step.At)
			}
		}
	})
}

func TestOverlappingDrawsDoOverlap(t *testing.T) {
	s := Schedule{Seed: 1, Draw: []Draw{{From: []string{"partition", "kill"}, Interval: 4 * time.Second, Overlap: 3}}}.Drawn(minute)
	most := 0
	for _, step := range s.Steps {
		n := 0
		for _, other := range s.Steps {
			if other.At <= step.At && step.At < other.At+other.Duration {
				n++
			}
		}
		most = max(most, n)
	}
	if most < 2 {
		t.Errorf("no two faults overlap: %+v", s.Steps)
	}
}

func TestADrawKeepsToItsTime(t *testing.T) {
	s := Schedule{Seed: 1, Draw: []Draw{{From: []string{"pause"}, Interval: 2 * time.Second, At: 20 * time.Second, Duration: 10 * time.Second}}}.Drawn(minute)
	if len(s.Steps) < 2 {
		t.Fatalf("steps %+v", s.Steps)
	}
	for _, step := range s.Steps {
		if step.At < 20*time.Second || step.At+step.Duration > 30*time.Second {
			t.Errorf("%+v", step)
		}
	}
}

// Swarms differ from one another in which faults they have, and all faults come up.
func TestASwarmIsAPartOfTheFaults(t *testing.T) {
	seen := make(map[string]bool)
	sets := make(map[string]bool)
	for seed := range uint64(60) {
		s := Schedule{Seed: seed, Draw: []Draw{{From: []string{"partition", "pause", "kill"}, Interval: 2 * time.Second, Swarm: true}}}.Drawn(minute)
		set := make(map[string]bool)
		for _, step := range s.Steps {
			set[step.Fault], seen[step.Fault] = true, true
		}
		if len(set) == 0 {
			t.Errorf("seed %d draws nothing", seed)
		}
		sets[strings.Join(slices.Sorted(maps.Keys(set)), " ")] = true
	}
	if len(sets) < 8 {
		t.Errorf("only %d different sets of faults", len(sets))
	}
	for _, name := range append(FaultsIn("partition"), "pause", "kill", "term", "crash-loop", "rolling-restart") {
		if !seen[name] {
			t.Errorf("%s never came up", name)
		}
	}
	if seen["amnesia"] {
		t.Error("a fault was drawn that a correct system may fail under")
	}
}

func TestOnlyWhatWorksIsDrawn(t *testing.T) {
	c := minute
	c.Works = func(fault Fault, params Params) bool { return fault.About().Name == "pause" }
	s := Schedule{Seed: 1, Draw: []Draw{{From: []string{AllPackages}, Interval: 3 * time.Second}}}.Drawn(c)
	if len(s.Steps) == 0 || slices.ContainsFunc(s.Steps, func(step Step) bool { return step.Fault != "pause" }) {
		t.Errorf("steps %+v", s.Steps)
	}
	c.Works = func(Fault, Params) bool { return false }
	if s := (Schedule{Draw: []Draw{{From: []string{AllPackages}, Interval: time.Second, Swarm: true}}}).Drawn(c); len(s.Steps) != 0 {
		t.Errorf("drawn though nothing works: %+v", s.Steps)
	}
}

func TestABadDrawOrDemandIsNamed(t *testing.T) {
	for want, s := range map[string]Schedule{
		`draw 1: from: "flood"`:                         {Draw: []Draw{{From: []string{"flood"}, Interval: time.Second}}},
		`draw 2: from: ""`:                              {Draw: []Draw{{From: []string{"kill"}, Interval: time.Second}, {Interval: time.Second}}},
		`a correct system may fail under it: write`:     {Draw: []Draw{{From: []string{"amnesia"}, Interval: time.Second}}},
		`draw 1: interval: "0s"`:                        {Draw: []Draw{{From: []string{"kill"}}}},
		`draw 1: overlap: "99"`:                         {Draw: []Draw{{From: []string{"kill"}, Interval: time.Second, Overlap: 99}}},
		`coverage 1: fault: "flood"`:                    {Coverage: []Demand{{Fault: "flood"}}},
		`coverage 1: leader: "left"`:                    {Coverage: []Demand{{Fault: "kill", Leader: "left"}}},
		`coverage 1: params.kind: "half"`:               {Coverage: []Demand{{Fault: "partition", Params: kindOf("half")}}},
		`outage-limit: "-1s" is not possible: 0 for no`: {OutageLimit: -time.Second},
	} {
		if err := s.Validate(names(5), 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestAMajorityWorksAsLongAsSomebodyCouldLeadIt(t *testing.T) {
	nodes := names(5)
	plan := func(kind, target string) Planned {
		p, err := Schedule{Steps: []Step{{Fault: "partition", Target: target, Params: kindOf(kind)}}}.Plan(1, View{Nodes: nodes, Leader: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	ring := plan(majoritiesRing, All)
	for name, c := range map[string]struct {
		standing []Planned
		want     bool
	}{
		"nothing":                        {nil, true},
		"two are down":                   {[]Planned{{Down: []string{"n1", "n2"}}}, true},
		"three are down":                 {[]Planned{{Down: []string{"n1", "n2"}}, {Down: []string{"n3"}}}, false},
		"halves":                         {[]Planned{plan(halves, "n1,n2")}, true},
		"halves, and one of the larger":  {[]Planned{plan(halves, "n1,n2"), {Down: []string{"n4"}}}, false},
		"halves, and one of the smaller": {[]Planned{plan(halves, "n1,n2"), {Down: []string{"n1"}}}, true},
		"a ring":                         {[]Planned{ring}, true},
		"a ring, and two opposite nodes": {[]Planned{ring, {Down: []string{ring.Pairs[0].From, ring.Pairs[0].To}}}, false},
	} {
		if got := majorityWorks(nodes, c.standing); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	leaderless := plan(isolate, "n1")
	if leaderless.side(nodes) != InMinority || plan(isolate, "n2").side(nodes) != InMajority || (Planned{Leader: "n1"}).side(nodes) != "" {
		t.Error("the leader's side is told wrongly")
	}
}

func TestASpareIsNeverTheOneTooMany(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	view := View{Nodes: names(5), Standing: []Planned{{Down: []string{"n4"}}}}
	for range 50 {
		if got, err := resolve(Spare, view, random); err != nil || len(got) != 1 || got[0] == "n4" {
			t.Fatal(got, err)
		}
	}
	view.Standing = append(view.Standing, Planned{Down: []string{"n5"}})
	if got, err := resolve(Spare, view, random); err != errNoSpare {
		t.Error(got, err)
	}
	view = View{Nodes: names(5), Leader: "n2"}
	for range 50 {
		if got, err := resolve(Follower, view, random); err != nil || len(got) != 1 || got[0] == "n2" {
			t.Fatal(got, err)
		}
	}
}
