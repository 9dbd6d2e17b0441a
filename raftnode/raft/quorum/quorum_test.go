package quorum_test

import (
	"testing"

	"pgregory.net/rapid"

	"capsize/raftnode/raft/quorum"
)

// The naive versions look at every subset of the voters, straight from the definition: a
// majority is any subset of more than half.

func subsets(voters quorum.Majority, visit func(subset []uint64)) {
	for bits := range 1 << len(voters) {
		var subset []uint64
		for i, id := range voters {
			if bits>>i&1 == 1 {
				subset = append(subset, id)
			}
		}
		visit(subset)
	}
}

func naiveReached(voters quorum.Majority, reached map[uint64]uint64) uint64 {
	var best uint64
	subsets(voters, func(subset []uint64) {
		if 2*len(subset) <= len(voters) {
			return
		}
		lowest := ^uint64(0)
		for _, id := range subset {
			lowest = min(lowest, reached[id])
		}
		best = max(best, lowest)
	})
	return best
}

func naiveVote(voters quorum.Majority, answers map[uint64]quorum.Answer) quorum.Result {
	won, possible := false, false
	subsets(voters, func(subset []uint64) {
		if 2*len(subset) <= len(voters) {
			return
		}
		allYes, noneNo := true, true
		for _, id := range subset {
			allYes = allYes && answers[id] == quorum.Yes
			noneNo = noneNo && answers[id] != quorum.No
		}
		won, possible = won || allYes, possible || noneNo
	})
	switch {
	case won:
		return quorum.Won
	case possible:
		return quorum.Pending
	}
	return quorum.Lost
}

func drawVoters(t *rapid.T) quorum.Majority {
	return quorum.New(rapid.SliceOfNDistinct(rapid.Uint64Range(1, 20), 1, 9, rapid.ID[uint64]).Draw(t, "voters"))
}

func TestReachedIsWhatSomeMajorityHasReached(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		voters := drawVoters(t)
		reached := make(map[uint64]uint64)
		for _, id := range voters {
			reached[id] = rapid.Uint64Range(0, 6).Draw(t, "reached")
		}
		got := voters.Reached(func(id uint64) uint64 { return reached[id] })
		if want := naiveReached(voters, reached); got != want {
			t.Fatalf("voters %v reached %v: got %d, a majority is at %d", voters, reached, got, want)
		}
	})
}

func TestVoteIsWhatSomeMajorityCanDecide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		voters := drawVoters(t)
		answers := make(map[uint64]quorum.Answer)
		for _, id := range voters {
			answers[id] = rapid.SampledFrom([]quorum.Answer{quorum.Silent, quorum.Yes, quorum.No}).Draw(t, "answer")
		}
		got := voters.Vote(func(id uint64) quorum.Answer { return answers[id] })
		if want := naiveVote(voters, answers); got != want {
			t.Fatalf("voters %v answered %v: got %v, want %v", voters, answers, got, want)
		}
	})
}

func TestAnyTwoMajoritiesShareAVoter(t *testing.T) {
	for n := 1; n <= 9; n++ {
		if size := (quorum.Majority(make([]uint64, n))).Size(); 2*size <= n || 2*(size-1) > n {
			t.Errorf("a majority of %d is %d", n, size)
		}
	}
}

func TestTheEmptySetDecidesNothing(t *testing.T) {
	none := quorum.New(nil)
	if got := none.Reached(nil); got != ^uint64(0) {
		t.Errorf("reached %d", got)
	}
	if got := none.Vote(nil); got != quorum.Won {
		t.Errorf("vote is %v", got)
	}
}

func TestNewSortsAndDropsRepeats(t *testing.T) {
	voters := quorum.New([]uint64{5, 1, 5, 3})
	if len(voters) != 3 || !voters.Contains(1) || !voters.Contains(3) || !voters.Contains(5) || voters.Contains(2) {
		t.Errorf("got %v", voters)
	}
}
