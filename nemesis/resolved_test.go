package nemesis

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What a role meant once is hit again, whoever leads then.
func TestAResolvedScheduleHitsTheSameNodesWhoeverLeads(t *testing.T) {
	s := Schedule{Seed: 5}
	for _, target := range roles {
		if target == Removed || target == Learner {
			continue // they mean nobody without another step
		}
		s.Steps = append(s.Steps, Step{Duration: time.Second, Fault: "pause", Target: target})
	}
	for _, kind := range (partition{}).About().Params[0].Allowed {
		if kind != someLinks {
			s.Steps = append(s.Steps, Step{Duration: time.Second, Fault: "partition", Params: kindOf(kind)})
		}
	}
	n := &Nemesis{config: Config{Schedule: s}, began: make(map[int]Planned)}
	for id := range s.Steps {
		planned, err := s.Plan(id+1, View{Nodes: names(5), Leader: "n2"})
		if err != nil {
			t.Fatal(err)
		}
		n.began[id+1] = planned
	}
	resolved := n.Resolved()
	if err := resolved.Validate(names(5), 0); err != nil {
		t.Fatal(err)
	}
	for id, step := range resolved.Steps {
		again, err := resolved.Plan(id+1, View{Nodes: names(5), Leader: "n4"})
		if err != nil {
			t.Fatalf("step %d, %+v: %v", id+1, step, err)
		}
		if was := n.began[id+1]; len(was.Pairs) > 0 && !cmp.Equal(again.Pairs, was.Pairs) || len(was.Pairs) == 0 && !cmp.Equal(again.Nodes, was.Nodes) {
			t.Errorf("step %d, %+v: %v %v, was %v %v", id+1, s.Steps[id], again.Nodes, again.Pairs, was.Nodes, was.Pairs)
		}
	}
}
