package transactions

import (
	"math/rand/v2"
	"slices"
	"testing"

	"capsize/checkers/internal/soak"
)

func randomPlan(rng *rand.Rand) plan {
	return plan{
		discipline: discipline(rng.IntN(int(chaos) + 1)), registers: rng.IntN(2) == 0, txns: 1 + rng.IntN(40), clients: 1 + rng.IntN(6),
		keys: 1 + rng.IntN(4), microsMost: 1 + rng.IntN(4), infos: float64(rng.IntN(3)) * 0.1, fails: float64(rng.IntN(3)) * 0.1, final: rng.IntN(2) == 0,
	}
}

func TestAStoreThatKeepsItsPromiseIsNeverAccused(t *testing.T) {
	accused := make(map[discipline]map[Model]int)
	for seed := range soak.Count(t, 20000) {
		rng := rand.New(rand.NewPCG(1, uint64(seed)))
		p := randomPlan(rng)
		txns := simulate(p, rng)
		result := Check(txns, Options{})
		if result.Verdict == Unknown {
			t.Fatalf("seed %d: %s\n%s", seed, result.Reason, script(txns))
		}
		for _, m := range result.Violated {
			if accused[p.discipline] == nil {
				accused[p.discipline] = make(map[Model]int)
			}
			accused[p.discipline][m]++
			if m <= promises[p.discipline] {
				t.Fatalf("seed %d: a store of %v is accused of %v: %+v\n%s", seed, promises[p.discipline], m, result.Anomalies, script(txns))
			}
		}
	}
	// What it does not promise it breaks, and is seen to.
	for d, m := range promises {
		if m < StrictSerializable && accused[d][m+1] == 0 {
			t.Errorf("no store of %v was ever seen to break %v", m, m+1)
		}
	}
	if accused[chaos][ReadUncommitted] == 0 {
		t.Error("no store without any rule was seen to break read-uncommitted")
	}
	t.Log(accused)
}

// small makes a history of few transactions: of a simulated store, and most often with
// something in it changed.
func small(rng *rand.Rand, registers, final bool) []Txn {
	p := randomPlan(rng)
	p.registers, p.final, p.txns, p.microsMost, p.keys = registers, final, 1+rng.IntN(6), 1+rng.IntN(3), 1+rng.IntN(3)
	txns := simulate(p, rng)
	for range rng.IntN(3) {
		corrupt(rng, txns[:len(txns)-1])
	}
	separate(txns)
	return txns
}

// separate gives transactions that overlap another of their process a process of their own.
func separate(txns []Txn) {
	for i := range txns {
		for j := range txns[:i] {
			a, b := &txns[i], &txns[j]
			if a.Process == b.Process && !sessionOrder(a, b) && !sessionOrder(b, a) {
				a.Process = 100 + i
			}
		}
	}
}

// corrupt changes something in a history: what was read, when, by whom, or with what outcome.
func corrupt(rng *rand.Rand, txns []Txn) {
	if len(txns) == 0 {
		return
	}
	txn := &txns[rng.IntN(len(txns))]
	switch rng.IntN(6) {
	case 0, 1, 2:
		m := &txn.Micros[rng.IntN(len(txn.Micros))]
		if m.F != "r" || txn.Type != OK {
			return
		}
		if m.List == nil {
			m.Nil, m.Value = rng.IntN(4) == 0, rng.Int64N(8)
			if m.Nil {
				m.Value = 0
			}
			return
		}
		switch n := len(m.List); {
		case rng.IntN(2) == 0 && n > 0:
			m.List = m.List[:rng.IntN(n)]
		case n > 1:
			i := rng.IntN(n - 1)
			m.List = slices.Clone(m.List)
			m.List[i], m.List[i+1] = m.List[i+1], m.List[i]
		default:
			m.List = append(slices.Clone(m.List), rng.Int64N(8))
		}
	case 3:
		length := rng.Int64N(6)
		txn.Call = rng.Int64N(30)
		if txn.Type == OK {
			txn.Return = txn.Call + length
		}
	case 4:
		txn.Process = rng.IntN(3)
	case 5:
		if txn.Type == OK {
			txn.Type, txn.Return = Info, Never
		}
	}
}

// truth decides by brute force which models hold.
func truth(txns []Txn) map[Model]bool {
	holds := map[Model]bool{StrictSerializable: serial(txns, realtimeOrder)}
	holds[StrongSessionSerializable] = holds[StrictSerializable] || serial(txns, sessionOrder)
	holds[Serializable] = holds[StrongSessionSerializable] || serial(txns, anyOrder)
	holds[SnapshotIsolation] = holds[Serializable] || len(txns) <= 5 && snapshots(txns)
	return holds
}

func TestWhatIsRuledOutIsSoByBruteForce(t *testing.T) {
	for _, registers := range []bool{false, true} {
		ruledOut, missed := make(map[Model]int), make(map[Model]int)
		for seed := range soak.Count(t, 60000) {
			rng := rand.New(rand.NewPCG(2, uint64(seed)))
			txns := small(rng, registers, rng.IntN(2) == 0)
			compareWithTruth(t, txns, ruledOut, missed)
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		t.Logf("registers %v: ruled out %v, not seen though not so %v", registers, ruledOut, missed)
	}
}

func compareWithTruth(t *testing.T, txns []Txn, ruledOut, missed map[Model]int) {
	t.Helper()
	result := Check(txns, Options{})
	if result.Verdict == Unknown {
		return
	}
	holds := truth(txns)
	for m := SnapshotIsolation; m <= StrictSerializable; m++ {
		if m == SnapshotIsolation && len(txns) > 5 {
			continue
		}
		accused := slices.Contains(result.Violated, m)
		switch {
		case accused && holds[m]:
			t.Errorf("%v is ruled out, but an order that explains all exists: %+v\n%s", m, result.Anomalies, script(txns))
		case accused:
			ruledOut[m]++
		case !holds[m]:
			missed[m]++
		}
	}
}

// allRead reports whether the history is one where nothing may be missed: all that was
// appended and may have happened stands in some read.
func allRead(txns []Txn) bool {
	read := make(map[version]bool)
	keys := make(map[string]int32)
	key := func(name string) int32 {
		if _, known := keys[name]; !known {
			keys[name] = int32(len(keys))
		}
		return keys[name]
	}
	for i := range txns {
		for _, m := range txns[i].Micros {
			for _, value := range m.List {
				read[version{key(m.Key), value}] = true
			}
		}
	}
	for i := range txns {
		for _, m := range txns[i].Micros {
			if m.F == "append" && txns[i].Type == OK && !read[version{key(m.Key), m.Value}] {
				return false
			}
		}
	}
	return true
}

func TestNothingIsMissedInListsThatAreReadAtLast(t *testing.T) {
	ruledOut, missed := make(map[Model]int), make(map[Model]int)
	looked := 0
	for seed := range soak.Count(t, 40000) {
		rng := rand.New(rand.NewPCG(3, uint64(seed)))
		txns := small(rng, false, true)
		if !allRead(txns) {
			continue
		}
		looked++
		compareWithTruth(t, txns, ruledOut, missed)
		if len(missed) > 0 {
			t.Errorf("missed %v\n%s", missed, script(txns))
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	for m := SnapshotIsolation; m <= StrictSerializable; m++ {
		if ruledOut[m] < looked/100 {
			t.Errorf("of %d histories only %d rule out %v: too few to tell", looked, ruledOut[m], m)
		}
	}
	t.Logf("%d histories, ruled out %v", looked, ruledOut)
}
