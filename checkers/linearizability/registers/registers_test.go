package registers

import (
	"fmt"
	"slices"
	"testing"

	"capsize/checkers/internal/soak"
)

func show(ops []Op) string {
	text := ""
	for i, op := range ops {
		text += fmt.Sprintf("%d %+v\n", i, op)
	}
	return text
}

// judge holds a verdict against the truth, and against what the verdict itself promises.
func judge(ops []Op, verdict Verdict, legal bool) error {
	order, ordered := Order(ops)
	if ordered != (verdict.Outcome == Linearizable) {
		return fmt.Errorf("verdict %v, an order was found: %v", verdict, ordered)
	}
	switch verdict.Outcome {
	case Linearizable:
		if !legal {
			return fmt.Errorf("called linearizable, is not")
		}
		return Replay(ops, order)
	case Violation:
		if legal {
			return fmt.Errorf("called a violation (%v), is none", verdict.Reason)
		}
		return judgeCore(ops, verdict)
	case Undecided:
		if !slices.ContainsFunc(ops, func(op Op) bool { return op.Kind == Refused }) {
			return fmt.Errorf("undecided, though without refused swaps")
		}
		return nil
	default:
		return fmt.Errorf("outcome %v", verdict.Outcome)
	}
}

func judgeCore(ops []Op, verdict Verdict) error {
	core := pick(ops, verdict.Core)
	if !slices.IsSorted(verdict.Core) || porcupineAccepts(core) {
		return fmt.Errorf("core %v (%v) is possible by itself", verdict.Core, verdict.Reason)
	}
	swaps, pending := 0, 0
	for i := range core {
		if core[i].kind() == Swap {
			swaps++
			if core[i].Return == Never {
				pending++
			}
		}
	}
	if len(core) > 6+swaps || swaps == 0 && len(core) > 6 {
		return fmt.Errorf("core %v (%v) is long", verdict.Core, verdict.Reason)
	}
	if verdict.Reason != Phantom {
		written := map[int64]bool{Nothing: true}
		for i := range core {
			if kind := core[i].kind(); kind == Write || kind == Swap {
				written[core[i].Value] = true
			}
		}
		for i := range core {
			kind := core[i].kind()
			if kind == Read && !written[core[i].Value] || kind == Swap && !written[core[i].Expected] {
				return fmt.Errorf("core %v (%v) does not say where a value of it comes from", verdict.Core, verdict.Reason)
			}
		}
	}
	if n := len(verdict.Witnesses); n == 0 || verdict.Reason != SwapCycle && n > 4 {
		return fmt.Errorf("%d witnesses of a core %v (%v)", n, verdict.Core, verdict.Reason)
	}
	for _, w := range verdict.Witnesses {
		if !slices.Contains(verdict.Core, w) {
			return fmt.Errorf("witness %d is not in the core %v", w, verdict.Core)
		}
	}
	return nil
}

func TestEachVerdictOnRandomHistoriesAgreesWithPorcupine(t *testing.T) {
	outcomes, reasons, longest := map[Outcome]int{}, map[Reason]int{}, 0
	n := soak.Count(t, 100_000)
	for seed := range n {
		ops := randomHistory(seeded(uint64(seed)), 11)
		verdict := Check(ops)
		if err := judge(ops, verdict, porcupineAccepts(ops)); err != nil {
			t.Fatalf("history %d: %v\n%s", seed, err, show(ops))
		}
		outcomes[verdict.Outcome]++
		reasons[verdict.Reason]++
		longest = max(longest, len(verdict.Core))
	}
	t.Logf("%v %v, longest core %d", outcomes, reasons, longest)
	for _, o := range []Outcome{Linearizable, Violation} {
		if outcomes[o] < n/4 {
			t.Errorf("only %d histories of %d are %v", outcomes[o], n, o)
		}
	}
	if outcomes[Undecided] > n/5000 {
		t.Errorf("%d of %d histories undecided", outcomes[Undecided], n)
	}
	for reason := Phantom; reason <= Unreplaced; reason++ {
		if reasons[reason] < n/2000 {
			t.Errorf("only %d violations of %d are %v", reasons[reason], n, reason)
		}
	}
}

func TestEachVerdictOnTheSmallestHistoriesAgreesWithAllOrders(t *testing.T) {
	for seed := range soak.Count(t, 50_000) {
		ops := randomHistory(seeded(uint64(seed)+1<<40), 6)
		legal := bruteAccepts(ops)
		if accepted := porcupineAccepts(ops); accepted != legal {
			t.Fatalf("history %d: Porcupine says %v, all orders say %v\n%s", seed, accepted, legal, show(ops))
		}
		if err := judge(ops, Check(ops), legal); err != nil {
			t.Fatalf("history %d: %v\n%s", seed, err, show(ops))
		}
	}
}

// The argument of findUnreplaced must hold for any refused swap, not only for those that are
// stuck.
func TestNoRefusedSwapOfALegalHistoryIsHeldAgainstIt(t *testing.T) {
	n, looked, held := soak.Count(t, 100_000), 0, 0
	for seed := range n {
		ops := randomHistory(seeded(uint64(seed)+1<<45), 10)
		h, verdict := analyse(ops)
		if verdict.Outcome != Linearizable || len(h.refused) == 0 {
			continue
		}
		looked++
		if h.findUnreplaced(h.refused); len(h.found) > 0 {
			if held++; porcupineAccepts(ops) {
				t.Fatalf("history %d: %+v\n%s", seed, h.found, show(ops))
			}
		}
	}
	t.Logf("%d histories with refused swaps, %d violations", looked, held)
	if looked < n/10 || held < n/200 {
		t.Errorf("only %d histories with refused swaps, %d violations", looked, held)
	}
}
