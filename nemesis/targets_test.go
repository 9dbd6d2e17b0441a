package nemesis

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestRolesMeanNodesToWhichSomethingCanBeDone(t *testing.T) {
	view := View{Nodes: names(5), Leader: "n2", Standing: []Planned{{Down: []string{"n1", "n2"}}}}
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		for role, n := range map[string]int{One: 1, Follower: 1, Minority: 2, Majority: 3} {
			chosen, err := resolve(role, view, random)
			if err != nil || len(chosen) != n || slices.Contains(chosen, "n1") || slices.Contains(chosen, "n2") || !slices.IsSorted(chosen) {
				t.Fatalf("%s with n1 and n2 down: %v, %v", role, chosen, err)
			}
		}
		view := View{Nodes: names(5), Leader: "n2", Standing: []Planned{{Down: []string{"n1", "n3", "n4"}}}}
		if chosen, err := resolve(Majority, view, random); err != nil || len(chosen) != 3 || !slices.Contains(chosen, "n2") || !slices.Contains(chosen, "n5") {
			t.Fatalf("a majority where only n2 and n5 are up: %v, %v", chosen, err)
		}
	}
	if chosen, err := resolve(Leader, view, nil); !errors.Is(err, errUnknownLeader) {
		t.Errorf("n2 leads no more, since it is down: %v, %v", chosen, err)
	}
}
