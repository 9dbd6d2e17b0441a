package quorum

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func drawVoters(t *rapid.T, name string) Majority {
	return New(rapid.SliceOfN(rapid.Uint64Range(1, 7), 0, 7).Draw(t, name))
}

// enough reports whether the nodes that say yes are a majority of each half that has
// voters: the definition, word for word.
func enough(j Joint, yes func(id uint64) bool) bool {
	for _, half := range j {
		n := 0
		for _, id := range half {
			if yes(id) {
				n++
			}
		}
		if len(half) > 0 && 2*n <= len(half) {
			return false
		}
	}
	return true
}

func TestAJointQuorumReachesWhatBothMajoritiesHaveReached(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := Joint{drawVoters(t, "incoming"), drawVoters(t, "outgoing")}
		if len(j[0])+len(j[1]) == 0 {
			t.Skip("nobody votes")
		}
		at := make(map[uint64]uint64)
		for _, id := range j.Voters() {
			at[id] = rapid.Uint64Range(0, 9).Draw(t, "reached")
		}
		want := uint64(0)
		for index := uint64(0); index <= 9; index++ {
			if enough(j, func(id uint64) bool { return at[id] >= index }) {
				want = index
			}
		}
		if got := j.Reached(func(id uint64) uint64 { return at[id] }); got != want {
			t.Fatalf("%v with %v reached %d, not %d", j, at, got, want)
		}
	})
}

func TestAJointElectionIsWonWithBothMajoritiesAndLostWithEither(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := Joint{drawVoters(t, "incoming"), drawVoters(t, "outgoing")}
		answers := make(map[uint64]Answer)
		for _, id := range j.Voters() {
			answers[id] = Answer(rapid.IntRange(int(Silent), int(No)).Draw(t, "answer"))
		}
		won := enough(j, func(id uint64) bool { return answers[id] == Yes })
		possible := enough(j, func(id uint64) bool { return answers[id] != No })
		want := Pending
		switch {
		case won:
			want = Won
		case !possible:
			want = Lost
		}
		if got := j.Vote(func(id uint64) Answer { return answers[id] }); got != want {
			t.Fatalf("%v with %v is %v, not %v", j, answers, got, want)
		}
	})
}

func TestTheVotersOfBothHalvesAreCountedOnce(t *testing.T) {
	j := Joint{New([]uint64{3, 1, 2}), New([]uint64{2, 5})}
	if got := j.Voters(); !slices.Equal(got, []uint64{1, 2, 3, 5}) || !j.Contains(5) || j.Contains(4) {
		t.Errorf("voters are %v", got)
	}
}
