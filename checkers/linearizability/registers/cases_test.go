package registers

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func read(value, call, ret int64) Op  { return Op{Kind: Read, Value: value, Call: call, Return: ret} }
func write(value, call, ret int64) Op { return Op{Kind: Write, Value: value, Call: call, Return: ret} }
func swap(expected, value, call, ret int64) Op {
	return Op{Kind: Swap, Expected: expected, Value: value, Call: call, Return: ret}
}
func refuse(expected, call, ret int64) Op {
	return Op{Kind: Refused, Expected: expected, Call: call, Return: ret}
}

func TestWhatIsWrongIsSaidWithTheOperationsThatShowIt(t *testing.T) {
	for sentence, c := range map[string]struct {
		reason    Reason
		core      []int
		witnesses []int
		ops       []Op
	}{
		"a read of a value that nobody wrote": {Phantom, []int{1}, []int{1}, []Op{
			write(1, 1, 2), read(2, 3, 4)}},
		"a swap of a value that nobody wrote": {Phantom, []int{1}, []int{1}, []Op{
			write(1, 1, 2), swap(2, 3, 3, 4)}},
		"a swap of unknown outcome, whose value was read, of a value that nobody wrote": {Phantom, []int{0, 1}, []int{0}, []Op{
			swap(2, 3, 3, Never), read(3, 4, 5)}},
		"a read that ended before its value was written": {Future, []int{0, 1}, []int{0, 1}, []Op{
			read(1, 1, 2), write(1, 3, 4)}},
		"a read of a value that was overwritten": {Overlap, []int{0, 1, 3}, []int{0, 1, 3}, []Op{
			write(1, 1, 2), write(2, 3, 4), read(2, 5, 6), read(1, 5, 6)}},
		"a read of the empty register after a write": {Overlap, []int{0, 1}, []int{0, 1}, []Op{
			write(1, 1, 2), read(Nothing, 3, 4)}},
		"two reads that disagree about the order of two writes": {Overlap, []int{0, 1, 2, 3, 4, 5}, []int{2, 3, 4, 5}, []Op{
			write(1, 1, 20), write(2, 1, 20), read(1, 2, 3), read(2, 4, 20), read(1, 6, 7), read(2, 1, 5)}},
		"a value that came back after a newer one was read, both writes unresolved": {Overlap, []int{0, 1, 2, 3, 4}, []int{2, 3, 4}, []Op{
			write(1, 1, Never), write(2, 1, Never), read(1, 2, 3), read(2, 4, 5), read(1, 6, 7)}},
		"two swaps of one value": {DoubleSwap, []int{0, 1, 2}, []int{1, 2}, []Op{
			write(1, 1, 2), swap(1, 2, 3, 4), swap(1, 3, 3, 4)}},
		"two swaps of the empty register, one shown by a read": {DoubleSwap, []int{0, 1, 2}, []int{0, 1}, []Op{
			swap(Nothing, 1, 1, 2), swap(Nothing, 2, 1, Never), read(2, 3, 4)}},
		"two things wrong, of which the one that takes less to show is told": {ChainOrder, []int{4, 5, 6}, []int{5, 6}, []Op{
			write(1, 1, 2), swap(1, 2, 3, 4), swap(2, 3, 5, 6), read(2, 7, 8), write(5, 9, 10), swap(5, 6, 11, 12), read(5, 13, 14)}},
		"swaps that rest on each other": {SwapCycle, []int{0, 1}, []int{0, 1}, []Op{
			swap(1, 2, 1, 2), swap(2, 1, 1, 2)}},
		"a read of a value that was swapped away": {ChainOrder, []int{0, 1, 2}, []int{1, 2}, []Op{
			write(1, 1, 2), swap(1, 2, 3, 4), read(1, 5, 6)}},
		"a refused swap of a value that was read before and after": {Held, []int{0, 1, 2}, []int{0, 1, 2}, []Op{
			write(1, 1, 2), refuse(1, 3, 4), read(1, 5, 6)}},
		"a refused swap of a value that nothing replaced": {Unreplaced, []int{1, 2}, []int{1, 2}, []Op{
			write(3, -3, -2), write(1, 1, 2), refuse(1, 3, 4), write(2, 5, 6)}},
		"a refused swap of a value that was replaced by what came later still": {Unreplaced, []int{0, 2}, []int{0, 2}, []Op{
			write(1, 1, 2), write(2, 1, 9), refuse(1, 3, 4), write(3, 5, 6), read(2, 7, 8)}},
		"a refused swap that came before what explains another": {Unreplaced, []int{0, 1}, []int{0, 1}, []Op{
			write(1, 1, 2), refuse(1, 3, 4), swap(1, 2, 5, Never), refuse(1, 6, 7)}},
		"a refused swap of nothing, in an empty register": {Unreplaced, []int{0}, []int{0}, []Op{
			refuse(Nothing, 1, 2), write(1, 3, 4)}},
	} {
		verdict := Check(c.ops)
		if verdict.Outcome != Violation || verdict.Reason != c.reason || !slices.Equal(verdict.Core, c.core) || !slices.Equal(verdict.Witnesses, c.witnesses) {
			t.Errorf("%s: %+v, should be %v by %v of %v", sentence, verdict, c.reason, c.witnesses, c.core)
		}
		if bruteAccepts(c.ops) || bruteAccepts(pick(c.ops, c.core)) {
			t.Errorf("%s: possible", sentence)
		}
		if _, ok := Order(c.ops); ok {
			t.Errorf("%s: there is an order", sentence)
		}
	}
}

func TestWhatMayHaveBeenIsAccepted(t *testing.T) {
	for sentence, ops := range map[string][]Op{
		"no operation":                nil,
		"a read of an empty register": {read(Nothing, 1, 2)},
		"a read at the very moment at which the next write began":         {write(1, 1, 2), read(1, 3, 5), write(2, 5, 6)},
		"a read called at the moment at which the next write ended":       {write(1, 1, 2), write(2, 3, 5), read(1, 5, 6)},
		"a read of a write of unknown outcome, long after":                {write(1, 1, Never), write(2, 2, 3), read(2, 4, 5), read(1, 6, 7)},
		"a write of unknown outcome that never happened":                  {write(1, 1, Never), write(2, 2, 3), read(2, 4, 5)},
		"a swap of unknown outcome that cannot have happened":             {swap(7, 1, 1, Never), read(Nothing, 4, 5)},
		"a read of unknown outcome of a value that nobody wrote":          {read(7, 1, Never)},
		"a swap of a value for itself":                                    {write(1, 1, 2), swap(1, 1, 3, 4), read(1, 5, 6)},
		"a stale read of a value that was overwritten":                    {write(1, 1, 2), write(2, 3, 4), read(1, Early, 6)},
		"a stale read of the empty register":                              {write(1, 1, 2), read(Nothing, Early, 6)},
		"a swap refused before its value was written":                     {refuse(1, 1, 3), write(1, 2, 4), read(1, 5, 6)},
		"a swap refused after a write of unknown outcome":                 {write(1, 1, 2), write(2, 1, Never), refuse(1, 3, 4)},
		"a swap refused after a swap of unknown outcome":                  {write(1, 1, 2), swap(1, 2, 1, Never), refuse(1, 3, 4)},
		"a swap refused as a long write came between":                     {write(1, 1, 2), write(2, 1, 9), refuse(1, 3, 4), write(3, 5, 6), read(2, 5, 8), read(3, 8, 9)},
		"a refused swap of unknown end":                                   {write(1, 1, 2), refuse(1, 3, Never)},
		"swaps of unknown outcome, of which the last one's value is read": {swap(Nothing, 1, 1, Never), swap(1, 2, 1, Never), swap(2, 3, 1, Never), read(3, 2, 3)},
	} {
		verdict := Check(ops)
		order, ok := Order(ops)
		if verdict.Outcome != Linearizable || verdict.Core != nil || !ok || !bruteAccepts(ops) {
			t.Errorf("%s: %+v, ordered: %v", sentence, verdict, ok)
		} else if err := Replay(ops, order); err != nil {
			t.Errorf("%s: %v", sentence, err)
		}
	}
}

func TestAStaleReadOfAValueNotYetWrittenIsRefused(t *testing.T) {
	if verdict := Check([]Op{read(1, Early, 2), write(1, 3, 4)}); verdict.Reason != Future {
		t.Errorf("%+v", verdict)
	}
}

func TestAValueThatIsWrittenTwiceIsNotDecided(t *testing.T) {
	for _, ops := range [][]Op{
		{write(1, 1, 2), write(1, 3, 4)},
		{write(1, 1, 2), swap(Nothing, 1, 3, Never)},
		{write(Nothing, 1, 2)},
	} {
		if verdict := Check(ops); verdict.Outcome != Ambiguous || verdict.Value != ops[len(ops)-1].Value {
			t.Errorf("%+v: %+v", ops, verdict)
		}
	}
}

func TestAnUnknownKindIsNotDecided(t *testing.T) {
	ops := []Op{{Kind: 9, Call: 1, Return: 2}}
	if verdict := Check(ops); verdict.Outcome != Undecided {
		t.Errorf("%+v", verdict)
	}
	if Replay(ops, []int{0}) == nil {
		t.Error("replayed")
	}
}

func TestReplayAcceptsOnlyALegalOrderOfEverything(t *testing.T) {
	ops := []Op{write(1, 1, 2), swap(1, 2, 3, 4), read(2, 3, 6), write(3, 5, Never), refuse(1, 7, 8), write(4, 7, Never)}
	if err := Replay(ops, []int{0, 1, 2, 3, 4}); err != nil {
		t.Fatal(err)
	}
	for why, order := range map[string][]int{
		"missing from the order":             {0, 1, 2, 3},
		"named before":                       {0, 1, 2, 2, 4},
		"unknown":                            {0, 1, 2, 3, 4, 6},
		"names operation -1":                 {-1},
		"does not fit its place":             {0, 2, 1, 4},
		"operation 4 at position 2 (":        {0, 1, 4, 2, 5},
		"operation 2 at position 4 returned": {0, 1, 3, 4, 2},
		"operation 1 at position 0 (":        {1, 0, 2, 4},
	} {
		err := Replay(ops, order)
		if why == "operation 4 at position 2 (" { // legal for the register, not for time
			why = "returned at 6, before a preceding one was called at 7"
		}
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%v: %v, should say %q", order, err, why)
		}
	}
	if Replay([]Op{write(1, 1, 2), refuse(1, 3, 4)}, []int{0, 1}) == nil {
		t.Error("a refused swap stands where it would have succeeded")
	}
}

// Histories of this kind take Porcupine all subsets of the unresolved writes.
func TestAViolationBehindTwentyUnresolvedWritesIsFoundAtOnce(t *testing.T) {
	for _, seen := range []bool{false, true} {
		var ops []Op
		for i := range int64(20) {
			ops = append(ops, write(100+i, i, Never))
			if seen {
				ops = append(ops, read(100+i, 100+10*i, 105+10*i))
			}
		}
		for i := range int64(1000) {
			ops = append(ops, write(1000+i, 1000+10*i, 1005+10*i), read(1000+i, 1006+10*i, 1009+10*i))
		}
		ops = append(ops, read(1500, 20_000, 20_001))
		start := time.Now()
		verdict := Check(ops)
		took := time.Since(start)
		if verdict.Outcome != Violation || len(verdict.Core) > 6 || porcupineAccepts(pick(ops, verdict.Core)) {
			t.Errorf("%+v", verdict)
		}
		if took > time.Second {
			t.Errorf("took %v", took)
		}
	}
}

// The core of a chain is as long as the chain up to where it breaks, and no longer.
func TestTheCoreOfALongChainOfSwapsIsItsShortestImpossibleBeginning(t *testing.T) {
	const length, broken = 50_000, 300
	ops := []Op{write(0, 0, 1)}
	for i := range int64(length) {
		ops = append(ops, swap(i, i+1, 10*i+10, 10*i+15))
	}
	ops = append(ops, read(broken, 10*(broken+2), 10*(broken+2)+1))
	start := time.Now()
	verdict := Check(ops)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	// The producers up to the value that was read, the swap of it, and the read.
	if verdict.Reason != ChainOrder || len(verdict.Core) != broken+3 || len(verdict.Witnesses) != 2 {
		t.Errorf("%v, core of %d, witnesses %v", verdict.Reason, len(verdict.Core), verdict.Witnesses)
	}
}

func TestTheCoreOfAnOverlapTakesNoMoreOfALongChainThanItMust(t *testing.T) {
	for _, deep := range []int64{0, 200} {
		ops := []Op{write(1, 0, 1), write(1000, 2, 3)}
		for i := range int64(1000) {
			call, ret := 10*i+10, 10*i+15
			if i < deep { // only what comes later proves that this was done
				call, ret = 0, Never
			}
			ops = append(ops, swap(1000+i, 1001+i, call, ret))
		}
		if deep > 0 {
			ops[1].Call, ops[1].Return = 0, Never
		}
		ops = append(ops, read(1, 100_000, 100_001))
		verdict := Check(ops)
		want := 3
		if deep > 0 { // both writes, the swaps up to the first that was answered, and the read
			want = int(deep) + 4
		}
		if verdict.Reason != Overlap || len(verdict.Core) != want {
			t.Errorf("%d deep: %v, core of %d, want %d", deep, verdict.Reason, len(verdict.Core), want)
		}
	}
}
