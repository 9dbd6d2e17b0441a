package nemesis

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func names(n int) []string {
	nodes := make([]string, n)
	for i := range nodes {
		nodes[i] = fmt.Sprintf("n%d", i+1)
	}
	return nodes
}

func TestAScheduleIsReadWithItsUnits(t *testing.T) {
	s, err := ParseSchedule([]byte(`
steps:
  - at: 2.5s
    duration: 400ms
    fault: partition
    target: n1,n2
    params: {kind: halves}
`))
	want := Schedule{Steps: []Step{{At: 2500 * time.Millisecond, Duration: 400 * time.Millisecond, Fault: "partition", Target: "n1,n2", Params: map[string]string{"kind": "halves"}}}}
	if err != nil || !cmp.Equal(s, want) {
		t.Errorf("%v: %s", err, cmp.Diff(want, s))
	}
}

func TestAScheduleThatIsNotUnderstoodIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"steps: [{at: 5}]":        "cannot unmarshal", // of what unit?
		"steps: [{when: 5s}]":     "field when not found",
		"stepps: []":              "field stepps not found",
		"steps: [{at: 5s":         "yaml",
		"steps: []\n---\nseed: 1": "more than one document",
	} {
		if _, err := ParseSchedule([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := LoadSchedule(filepath.Join(t.TempDir(), "none.yaml")); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestASavedScheduleIsTheSame(t *testing.T) {
	want := Generate(7, Options{Faults: FaultNames(), Interval: 5 * time.Second, TimeLimit: time.Minute, Nodes: names(5)})
	path := filepath.Join(t.TempDir(), "schedule.yaml")
	if err := want.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := LoadSchedule(path)
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("%v: %s", err, cmp.Diff(want, got))
	}
	if err := want.Save(filepath.Join(t.TempDir(), "no such directory", "x")); err == nil {
		t.Error("saved into nowhere")
	}
}

func TestValidateNamesStepKeyValueAndWhatIsAllowed(t *testing.T) {
	good := Step{At: time.Second, Duration: time.Second, Fault: "pause", Target: "one"}
	for name, c := range map[string]struct {
		nodes  int
		change func(*Step)
		key    string
		want   string
	}{
		"fault":             {5, func(s *Step) { s.Fault = "flood" }, "fault", `step 2: fault: "flood" is not possible: one of partition, packet, pause, kill, term,`},
		"order":             {5, func(s *Step) { s.At = 0 }, "at", "1s or later"},
		"no duration":       {5, func(s *Step) { s.Duration = 0 }, "duration", "more than 0"},
		"too late":          {5, func(s *Step) { s.At = time.Minute }, "at", "before the time limit, 30s"},
		"too long":          {5, func(s *Step) { s.Duration = time.Minute }, "duration", "at most 29s"},
		"much too long":     {5, func(s *Step) { s.Duration = 1<<63 - 1 }, "duration", "at most 29s"},
		"unknown node":      {5, func(s *Step) { s.Target = "n1,n9" }, "target", "one of one, leader, follower, spare, minority, majority, all, removed, learner, or names of n1, n2"},
		"a node twice":      {5, func(s *Step) { s.Target = "n1,n1" }, "target", "each once"},
		"no minority":       {2, func(s *Step) { s.Target = "minority" }, "target", "2 nodes have no minority"},
		"unknown parameter": {5, func(s *Step) { s.Params = map[string]string{"kind": "x"} }, "params", "this fault has no parameters"},
		"another parameter": {5, func(s *Step) { s.Fault, s.Params = "partition", map[string]string{"side": "x"} }, "params", "one of kind, direction, clients, pairs, chain, period"},
		"parameter value":   {5, func(s *Step) { s.Fault, s.Params = "partition", kindOf("half") }, "params.kind", `"half" is not possible: one of halves, random-halves, isolate,`},
		"partition of one":  {1, func(s *Step) { s.Fault = "partition" }, "fault", "a node alone"},
		"isolate two":       {5, func(s *Step) { s.Fault, s.Target, s.Params = "partition", "n1,n2", kindOf("isolate") }, "target", "one node: one, leader, or a name, for isolate"},
		"isolate who leads": {5, func(s *Step) { s.Fault, s.Target, s.Params = "partition", "n1", kindOf("isolate-leader") }, "target", "leader, or nothing"},
		"part of a ring":    {5, func(s *Step) { s.Fault, s.Target, s.Params = "partition", "n1", kindOf("majorities-ring") }, "target", "all, of at least 3 nodes"},
		"random part":       {5, func(s *Step) { s.Fault, s.Target, s.Params = "partition", "n1", kindOf("random-halves") }, "target", "all, or nothing, for random-halves"},
		"who does not lead": {5, func(s *Step) { s.Fault, s.Target, s.Params = "partition", "n1", kindOf("leader-minority") }, "target", "leader, or nothing, for leader-minority"},
		"two bridges":       {5, func(s *Step) { s.Fault, s.Target, s.Params = "partition", "n1,n2", kindOf("bridge") }, "target", "one node: one, leader"},
		"a bridge of two":   {2, func(s *Step) { s.Fault, s.Target, s.Params = "partition", "n1", kindOf("bridge") }, "target", "of at least 3, for bridge"},
		"a chain of two":    {5, func(s *Step) { s.Fault, s.Target, s.Params = "partition", "n1,n2", kindOf("non-transitive") }, "target", "one node or at least three"},
		"a broken chain": {5, func(s *Step) {
			s.Fault, s.Target, s.Params = "partition", "", kindAnd("non-transitive", "chain", "n1-n2")
		}, "params.chain", "three groups of n1, n2"},
		"a knot": {5, func(s *Step) {
			s.Fault, s.Target, s.Params = "partition", "", kindAnd("non-transitive", "chain", "n1-n2-n1")
		}, "params.chain", "each node once"},
		"another's chain":   {5, func(s *Step) { s.Fault, s.Target, s.Params = "partition", "", kindAnd("halves", "chain", "n1-n2-n3") }, "params.chain", "nothing for halves"},
		"no links":          {5, func(s *Step) { s.Fault, s.Target, s.Params = "partition", "", kindOf("links") }, "params.pairs", "joined by commas"},
		"a link to nowhere": {5, func(s *Step) { s.Fault, s.Target, s.Params = "partition", "", kindAnd("links", "pairs", "n1>n9") }, "params.pairs", "pairs of n1, n2"},
		"a link to itself":  {5, func(s *Step) { s.Fault, s.Target, s.Params = "partition", "", kindAnd("links", "pairs", "n1-n1") }, "params.pairs", "pairs of n1, n2"},
		"no link":           {5, func(s *Step) { s.Fault, s.Target, s.Params = "partition", "", kindAnd("links", "pairs", "n1") }, "params.pairs", "n1>n2 for one way"},
		"links of some":     {5, func(s *Step) { s.Fault, s.Target, s.Params = "partition", "n1", kindAnd("links", "pairs", "n1>n2") }, "target", "all, or nothing, for links"},
		"links of direction": {5, func(s *Step) {
			s.Fault, s.Target, s.Params = "partition", "", map[string]string{"kind": "links", "pairs": "n1>n2", "direction": "in"}
		}, "params.direction", "each of the pairs says its own, for links"},
		"another's pairs": {5, func(s *Step) { s.Fault, s.Target, s.Params = "partition", "", kindAnd("isolate", "pairs", "n1>n2") }, "params.pairs", "nothing for isolate"},
		"whose clients": {5, func(s *Step) {
			s.Fault, s.Target, s.Params = "partition", "", kindAnd("majorities-ring", "clients", "cut")
		}, "params.clients", "keep for majorities-ring"},
		"much too fast":      {5, func(s *Step) { s.Fault, s.Target, s.Params = "partition", "", kindAnd("halves", "period", "10ms") }, "params.period", "0s, or from 200ms on, for halves"},
		"backwards":          {5, func(s *Step) { s.Fault, s.Target, s.Params = "partition", "", kindAnd("halves", "period", "-1s") }, "params.period", "a duration with a unit from 0s to 1h"},
		"one way out of all": {5, func(s *Step) { s.Fault, s.Target, s.Params = "partition", "all", kindOf("one-way") }, "target", "not all nodes"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := good
			c.change(&bad)
			err := Schedule{Steps: []Step{good, bad}}.Validate(names(c.nodes), 30*time.Second)
			var wrong *ScheduleError
			if !errors.As(err, &wrong) || wrong.Step != 2 || wrong.Key != c.key || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want step 2, %s, %q", err, c.key, c.want)
			}
		})
	}
	if err := (Schedule{Steps: []Step{good, good}}).Validate(names(5), 30*time.Second); err != nil {
		t.Error(err)
	}
	if err := (Schedule{Steps: make([]Step, stepsMost+1)}).Validate(names(5), 0); err == nil {
		t.Error("a schedule without bounds was accepted")
	}
}

func FuzzParseSchedule(f *testing.F) {
	example, err := Generate(1, Options{Faults: FaultNames(), Interval: 5 * time.Second, TimeLimit: time.Minute, Nodes: names(5)}).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	f.Add([]byte("steps: [{at: 1s, duration: 1s, fault: kill, target: all}]"))
	f.Add([]byte("seed: 18446744073709551615"))
	f.Add([]byte("steps: [{params: {kind: }}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseSchedule(data)
		if err != nil {
			return
		}
		_ = s.Validate(names(5), time.Minute) // must not panic, whatever it finds
		again, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseSchedule(again)
		if err != nil || !cmp.Equal(s, back, cmpopts.EquateEmpty()) {
			t.Fatalf("%v: %s", err, cmp.Diff(s, back))
		}
	})
}

func TestTheDefaultRunIsVariedAndHitsTheLeader(t *testing.T) {
	usual := slices.Concat(FaultsIn("partition"), FaultsIn("pause"), FaultsIn("kill"))
	for seed := range uint64(200) {
		s := Generate(seed, Options{Faults: usual, Interval: 5 * time.Second, TimeLimit: 30 * time.Second, Nodes: names(5)})
		if n := len(s.Steps); n < 4 || n > 6 {
			t.Errorf("seed %d: %d faults", seed, n)
		}
		has := func(what string, is func(Step) bool) {
			if !slices.ContainsFunc(s.Steps, is) {
				t.Errorf("seed %d has no %s: %+v", seed, what, s.Steps)
			}
		}
		has("isolated leader", func(s Step) bool { return s.Params["kind"] == isolateLeader })
		has("pause of the leader", func(s Step) bool { return s.Fault == "pause" && s.Target == Leader })
		has("kill of a leader or a minority", func(s Step) bool { return s.Fault == "kill" && (s.Target == Leader || s.Target == Minority) })
		if len(s.Steps) >= 5 {
			has("one-way partition", func(s Step) bool { return s.Params["kind"] == oneWay })
		}
		if s.Steps[0].At != 3*time.Second {
			t.Errorf("seed %d: the first fault comes at %s", seed, s.Steps[0].At)
		}
		for _, step := range s.Steps {
			if step.Duration > 5*time.Second || step.Duration < 2500*time.Millisecond {
				t.Errorf("seed %d: %+v", seed, step)
			}
		}
	}
}

func TestAGeneratedScheduleIsValidQuietAtTheEndAndTheSameAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Options{
			Faults:    rapid.SliceOfNDistinct(rapid.SampledFrom(FaultNames()), 1, 3, rapid.ID).Draw(t, "faults"),
			Interval:  time.Duration(rapid.Int64Range(1, int64(time.Minute)).Draw(t, "interval")),
			TimeLimit: time.Duration(rapid.Int64Range(int64(5*time.Second), int64(time.Hour)).Draw(t, "limit")),
			Nodes:     names(rapid.IntRange(1, 9).Draw(t, "nodes")),
		}
		seed := rapid.Uint64().Draw(t, "seed")
		s := Generate(seed, o)
		if err := s.Validate(o.Nodes, o.TimeLimit); err != nil {
			t.Fatal(err)
		}
		if !cmp.Equal(s, Generate(seed, o)) {
			t.Fatal("another schedule from the same seed")
		}
		possible := make(map[string]bool) // packages
		for _, c := range cards(o) {
			possible[c.pack] = true
		}
		var end time.Duration
		for _, step := range s.Steps {
			if step.At < end {
				t.Fatalf("faults overlap: %+v", s.Steps)
			}
			end = step.At + step.Duration
		}
		if end > o.TimeLimit-o.TimeLimit/10 {
			t.Fatalf("no quiet tail: the last fault ends at %s of %s", end, o.TimeLimit)
		}
		window := o.TimeLimit - o.TimeLimit/5
		if room := time.Duration(len(possible)+1) * 3 * leastInterval / 2; o.Interval < leastInterval || window < room {
			return // no time for every fault
		}
		for pack := range possible {
			if !slices.ContainsFunc(s.Steps, func(step Step) bool { return slices.Contains(FaultsIn(pack), step.Fault) }) {
				t.Fatalf("no %s in %+v", pack, s.Steps)
			}
		}
	})
}

func TestWithoutFaultsOrTimeNothingIsGenerated(t *testing.T) {
	for _, o := range []Options{
		{Interval: time.Second, TimeLimit: time.Minute, Nodes: names(5)},
		{Faults: []string{"flood"}, Interval: time.Second, TimeLimit: time.Minute, Nodes: names(5)},
		{Faults: FaultNames(), TimeLimit: time.Minute, Nodes: names(5)},
		{Faults: FaultNames(), Interval: time.Second, Nodes: names(5)},
	} {
		if s := Generate(1, o); len(s.Steps) != 0 {
			t.Errorf("%+v gives %+v", o, s)
		}
	}
}

func TestTargetsMeanWhatTheySay(t *testing.T) {
	nodes := names(5)
	random := rand.New(rand.NewPCG(1, 1))
	for target, want := range map[string]int{One: 1, Leader: 1, Minority: 2, Majority: 3, All: 5, "n2,n4": 2} {
		seen := make(map[string]bool)
		for range 200 {
			got, err := resolve(target, View{Nodes: nodes, Leader: "n3"}, random)
			if err != nil || len(got) != want || !slices.IsSorted(got) {
				t.Fatalf("%s: %v, %v", target, got, err)
			}
			seen[strings.Join(got, " ")] = true
		}
		if choices := map[string]int{One: 5, Minority: 10, Majority: 10}[target]; len(seen) != max(choices, 1) {
			t.Errorf("%s met %d different sets of nodes, want %d", target, len(seen), max(choices, 1))
		}
	}
	if got, err := resolve("n4,n2", View{Nodes: nodes}, random); err != nil || !slices.Equal(got, []string{"n2", "n4"}) {
		t.Errorf("names: %v, %v", got, err)
	}
	if _, err := resolve(Leader, View{Nodes: nodes}, random); !errors.Is(err, errUnknownLeader) {
		t.Errorf("nobody leads: %v", err)
	}
}

// A step draws from a source of its own: what others do does not depend on it.
func TestAStepDoesNotChangeWhatOthersDo(t *testing.T) {
	s := Generate(3, Options{Faults: FaultNames(), Interval: time.Second, TimeLimit: time.Minute, Nodes: names(5)})
	before, err := s.Plan(2, View{Nodes: names(5), Leader: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	s.Steps[0] = Step{Fault: "pause", Target: All, Duration: time.Second}
	if after, err := s.Plan(2, View{Nodes: names(5), Leader: "n1"}); err != nil || !cmp.Equal(before, after) {
		t.Errorf("%v: %s", err, cmp.Diff(before, after))
	}
	if _, err := s.Plan(0, View{Nodes: names(5)}); err == nil {
		t.Error("there is no step 0")
	}
}

func TestEveryFaultDescribesItself(t *testing.T) {
	for _, f := range Faults() {
		about := f.About()
		if about.Name == "" || about.Meaning == "" || about.Package == "" || about.Target == nil {
			t.Errorf("%T says too little of itself: %+v", f, about)
		}
		for _, p := range about.Params {
			if p.Name == "" || p.Meaning == "" || !p.accepts(p.Default) {
				t.Errorf("%s: parameter %+v", about.Name, p)
			}
		}
		for _, card := range about.Cards {
			if wrong := validateParams(about.Params, card.Params); wrong != nil || card.Round < 1 || card.Round > 3 || card.Least < 1 {
				t.Errorf("%s: card %+v: %v", about.Name, card, wrong)
			}
			if beyond := about.beyond(withDefaults(about.Params, card.Params)); beyond != "" {
				t.Errorf("%s: card %+v is drawn, but a correct system may fail under it: %s", about.Name, card, beyond)
			}
		}
	}
}
