package reports

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"capsize/checkers"
	"capsize/histories"
)

// panelOf is the panel of a run of 30 s with these operations.
func panelOf(ops []histories.Operation) *latencyPanel {
	a := axis{end: fixtureSpan, left: marginLeft, right: pictureWidth - marginRight}
	return newLatencyPanel(a, 100, latencyHeight, ops, nil)
}

func drawnOperations(t *rapid.T) []histories.Operation {
	n := rapid.SampledFrom([]int{0, 1, 100, 4000, 4001, 4300, 9000}).Draw(t, "operations")
	seed := rapid.Uint64().Draw(t, "seed")
	ops := make([]histories.Operation, n)
	for i := range ops {
		seed = seed*6364136223846793005 + 1442695040888963407
		call := time.Duration(seed>>20) % (30 * time.Second)
		ops[i] = histories.Operation{Invoked: i, Call: call, Type: histories.OK + histories.Type(seed>>60%3), Return: call + time.Duration(seed>>30)%time.Second, Returned: -1}
		if ops[i].Type == histories.Info {
			ops[i].Return = histories.Forever
		}
	}
	return ops
}

func TestThinningKeepsEveryGuiltyOperationAndCountsTheRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ops := drawnOperations(t)
		panel := panelOf(ops)
		guilty := make(map[int]bool)
		for range min(len(ops), rapid.IntRange(0, 300).Draw(t, "guilty")) {
			guilty[rapid.IntRange(0, len(ops)-1).Draw(t, "which")] = true
		}
		marks, size := marksOf(panel, ops, guilty)
		stood, accused := 0, 0
		for _, m := range marks {
			stood += 1 + m.more
			if m.kind == markGuilty {
				accused++
				if !guilty[m.op] || m.more != 0 {
					t.Fatalf("operation %d is drawn as guilty for %d others", m.op, m.more)
				}
			} else if m.kind != kindOf(ops[m.op].Type) {
				t.Fatalf("operation %d is drawn as %s", m.op, markClasses[m.kind])
			}
			if m.x < panel.left || m.x > panel.right || m.y < panel.top || m.y > panel.bottom {
				t.Fatalf("operation %d is drawn outside, at %s %s", m.op, m.x, m.y)
			}
		}
		switch {
		case stood != len(ops):
			t.Fatalf("the marks stand for %d of %d operations", stood, len(ops))
		case accused != len(guilty):
			t.Fatalf("%d of %d guilty operations are drawn", accused, len(guilty))
		case len(marks)-accused > marksMost:
			t.Fatalf("%d marks", len(marks)-accused)
		case size == 0 && len(marks) != len(ops):
			t.Fatalf("%d marks for %d operations, though each is said to have its own", len(marks), len(ops))
		}
	})
}

func TestAFewOperationsAreAllDrawnAndManyAreThinned(t *testing.T) {
	few := drawTimeline(validRun(2000), histories.Operations(validRun(2000).History), nil)
	if few.Cell != 0 || few.Drawn != few.Total {
		t.Errorf("%d marks for %d operations, cells of %s", few.Drawn, few.Total, few.Cell)
	}
	r := invalidRun(30_000)
	many := drawTimeline(r, histories.Operations(r.History), nil)
	if many.Cell == 0 || many.Drawn > marksMost+4 || many.GuiltyUnmatched != 0 || !many.HasGuilty {
		t.Errorf("%d marks for %d operations, cells of %s, %d guilty ones lost", many.Drawn, many.Total, many.Cell, many.GuiltyUnmatched)
	}
	wants(t, written(t, WriteHTML, r), fmt.Sprintf("%s marks stand for %s operations", grouped(many.Drawn), grouped(many.Total)))
}

func TestALonelyOutlierSurvivesThinning(t *testing.T) {
	ops := make([]histories.Operation, 50_000)
	for i := range ops {
		call := time.Duration(i) * 500 * time.Microsecond
		ops[i] = histories.Operation{Invoked: i, Call: call, Return: call + time.Millisecond, Type: histories.OK}
	}
	ops[33_333].Return = ops[33_333].Call + 9*time.Second
	marks, size := marksOf(panelOf(ops), ops, nil)
	if size == 0 || !slices.ContainsFunc(marks, func(m mark) bool { return m.op == 33_333 && m.more == 0 }) {
		t.Errorf("the slowest operation is not among the %d marks", len(marks))
	}
}

func TestAnOperationThatWasGivenUpStandsWhereItsClientStoppedWaiting(t *testing.T) {
	events := []histories.Event{
		{Index: 0, Time: 0, Process: 1, Type: histories.Invoke, F: "read"}, {Index: 1, Time: 0, Process: 2, Type: histories.Invoke, F: "read"},
		{Index: 2, Time: 2 * time.Second, Process: 1, Type: histories.Info, F: "read"},
	}
	ops := histories.Operations(events)
	if d, ended := waited(&ops[0], events); !ended || d != 2*time.Second {
		t.Errorf("the one that timed out: %s, %t", d, ended)
	}
	if _, ended := waited(&ops[1], events); ended {
		t.Error("the one that never ended is said to have")
	}
}

func TestRatesAreThoseOfTheTimeThatWasThere(t *testing.T) {
	a := axis{begin: time.Second, end: 2600 * time.Millisecond}
	var ops []histories.Operation
	for _, ms := range []time.Duration{1000, 1100, 1999, 2000, 2599, 2600} {
		ops = append(ops, histories.Operation{Type: histories.OK, Return: ms * time.Millisecond})
	}
	ops = append(ops, histories.Operation{Type: histories.Fail, Return: 1200 * time.Millisecond}, histories.Operation{Type: histories.Info, Return: histories.Forever})
	if got, want := ratesOf(a, ops, time.Second), []float64{3, 5}; !reflect.DeepEqual(got, want) {
		t.Errorf("rates %v, want %v", got, want)
	}
}

func TestRateBinsAreAQuarterSecondInOrdinaryRuns(t *testing.T) {
	for span, want := range map[time.Duration]time.Duration{
		time.Second: 10 * time.Millisecond, 15 * time.Second: 250 * time.Millisecond, 30 * time.Second: 250 * time.Millisecond, time.Minute: 500 * time.Millisecond, time.Hour: 50 * time.Second,
	} {
		if got := rateBin(span); got != want {
			t.Errorf("a run of %s has parts of %s, want %s", span, got, want)
		}
	}
}

// TestNamesOfFaultsDoNotCoverEachOther lays more faults than there is room for.
func TestNamesOfFaultsDoNotCoverEachOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var faults []faultView
		for i := range rapid.IntRange(1, 60).Draw(t, "faults") {
			from := time.Duration(rapid.IntRange(0, 29_000).Draw(t, "from")) * time.Millisecond
			faults = append(faults, faultView{ID: i, Name: "partition", Target: "leader", Inject: from, Landed: from, HasLanded: true, Healed: from + time.Second, HasEnded: true})
		}
		slices.SortStableFunc(faults, func(a, b faultView) int { return int(a.Inject - b.Inject) })
		picture := &timeline{Left: marginLeft, Right: pictureWidth - marginRight, axis: axis{end: 30 * time.Second, left: marginLeft, right: pictureWidth - marginRight}}
		picture.faultBars(faults, 0)
		if len(picture.FaultBars) != 2*len(faults) {
			t.Fatalf("%d bars for %d faults", len(picture.FaultBars), len(faults))
		}
		for i, a := range picture.FaultLabels {
			if a.X+textWidth(a.Text) > picture.Right+1 {
				t.Fatalf("%q reaches beyond the picture", a.Text)
			}
			for _, b := range picture.FaultLabels[:i] {
				if a.Y == b.Y && a.X < b.X+textWidth(b.Text) && b.X < a.X+textWidth(a.Text) {
					t.Fatalf("%q and %q cover each other", a.Text, b.Text)
				}
			}
		}
	})
}

func TestOfStaysThatShareAPixelTheMostTellingIsDrawn(t *testing.T) {
	a := axis{end: time.Hour, left: 0, right: 1000} // a pixel is 3.6 s
	var events []histories.Event
	note := func(at time.Duration, status histories.Status) {
		events = append(events, histories.Event{Time: at, Node: "n1", Status: &status})
	}
	follower := histories.Status{Up: true, Role: "follower", Leader: "n2", Term: 1}
	note(0, follower)
	for i := range 100 { // half a second as a candidate and another as leader, each ten seconds
		note(time.Minute+time.Duration(i)*10*time.Second-500*time.Millisecond, histories.Status{Up: true, Role: "candidate", Term: uint64(i)})
		note(time.Minute+time.Duration(i)*10*time.Second, histories.Status{Up: true, Role: "leader", Leader: "n1", Term: uint64(i)})
		note(time.Minute+time.Duration(i)*10*time.Second+500*time.Millisecond, follower)
	}
	p := drawLanes(a, 0, []string{"n1"}, staysOf(events, a.end), nil, nil)
	leaders := 0
	for _, b := range p.Boxes {
		if b.Class == "lead" {
			leaders++
		}
	}
	if leaders != 100 {
		t.Errorf("%d of 100 leaderships are drawn", leaders)
	}
}

func TestTheDiagramKeepsTheOrderOfCallsAndReturns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		core := drawnCore(t)
		if len(core) == 0 {
			return
		}
		moments := momentsOf(core)
		names := make([]string, len(core))
		for i := range names {
			names[i] = strings.Repeat("x", rapid.IntRange(1, 60).Draw(t, "name"))
		}
		x, width := spread(core, moments, names)
		last := px(0)
		for _, m := range moments {
			at := x[m.op][1]
			if m.isCall {
				at = x[m.op][0]
			}
			if at <= last {
				t.Fatalf("a moment at %s stands at %s, not after %s", m.at, at, last)
			}
			last = at
		}
		for i, a := range core {
			if x[i][0]+textWidth(names[i]) > width {
				t.Fatalf("the name of operation %d reaches beyond the picture", i)
			}
			for j, b := range core {
				if i != j && a.Process == b.Process && x[i][0] < x[j][0]+textWidth(names[j]) && x[j][0] < x[i][0]+textWidth(names[i]) {
					t.Fatalf("the names of %d and %d cover each other", i, j)
				}
			}
		}
	})
}

// drawnCore makes operations of a few processes, one after the other in each.
func drawnCore(t *rapid.T) []histories.Operation {
	var core []histories.Operation
	event := 0
	now := time.Duration(0)
	open := make(map[int]int)
	for range rapid.IntRange(1, 40).Draw(t, "events") {
		now += time.Duration(rapid.IntRange(0, 1<<30).Draw(t, "gap"))
		process := rapid.IntRange(0, 5).Draw(t, "process")
		if at, busy := open[process]; busy {
			core[at].Return, core[at].Returned, core[at].Type = now, event, histories.OK
			delete(open, process)
		} else {
			open[process] = len(core)
			core = append(core, histories.Operation{Process: process, F: "read", Call: now, Invoked: event, Return: histories.Forever, Returned: -1, Type: histories.Info})
		}
		event++
	}
	// Only some of those that never returned, so that many proofs end.
	return slices.DeleteFunc(core, func(op histories.Operation) bool { return op.Return == histories.Forever && op.Process > 2 })
}

func TestAnOperationThatNeverReturnedIsOpenToTheRight(t *testing.T) {
	v := invalidRun(100).Results[0].Linearizability.Violations[0]
	d := drawDiagram(v.Core, v.At)
	if len(d.Bars) != 4 || len(d.Open) != 1 || len(d.End) != 1 || len(d.Lanes) != 3 {
		t.Fatalf("%d bars, %d open, %d ends, %d lanes", len(d.Bars), len(d.Open), len(d.End), len(d.Lanes))
	}
	open := d.Bars[slices.IndexFunc(d.Bars, func(b box) bool { return strings.Contains(b.Class, "open") })]
	for _, b := range d.Bars {
		if b.X+b.W > open.X+open.W {
			t.Error("a bar that ended reaches further than the open one")
		}
	}
	if drawDiagram(nil, 0) != nil {
		t.Error("a diagram of nothing")
	}
}

func TestAProofThatReachesBackIsInTheTableToo(t *testing.T) {
	v := invalidRun(100).Results[0].Linearizability.Violations[0]
	v.Around = v.Around[3:]
	rows := viewViolation(v).Rows
	var numbers []int
	for _, row := range rows {
		numbers = append(numbers, row.Number)
	}
	if !slices.Equal(numbers, []int{1, 2, 3, 4, 0}) {
		t.Errorf("the rows are numbered %v", numbers)
	}
}

func TestOperationsAreDescribedInFewWords(t *testing.T) {
	for want, op := range map[string]histories.Operation{
		"write 5":        {F: "write", Input: histories.Int(5), Output: histories.Int(5), Type: histories.OK},
		"read → 5":       {F: "read", Output: histories.Int(5), Type: histories.OK},
		"read → nothing": {F: "read", Type: histories.OK},
		"read":           {F: "read", Type: histories.Info},
		"cas 5 → 6":      {F: "cas", Input: histories.Ints(5, 6), Type: histories.Fail},
		"dequeue → 7":    {F: "dequeue", Output: histories.Int(7), Type: histories.OK},
		"read → [1,2,3]": {F: "read", Output: histories.Ints(1, 2, 3), Type: histories.OK},
	} {
		if got := describe(op); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestATimelineIsDrawnOfTheOddestHistories(t *testing.T) {
	status := histories.Event{Node: "n9", Process: histories.Observer, Status: &histories.Status{Up: true, Role: "leader", Term: 1}}
	for name, events := range map[string][]histories.Event{
		"one event at 0":            {{Process: 0, Type: histories.Invoke, F: "read"}},
		"a status only":             {status},
		"an operation of no length": {{Process: 0, Type: histories.Invoke, F: "read"}, {Index: 1, Process: 0, Type: histories.OK, F: "read"}},
		"a fault only":              {{Process: histories.Nemesis, Time: time.Second, Fault: &histories.Fault{ID: 1, Name: "kill", Phase: histories.Heal}}},
		"a stuck fault":             {{Process: histories.Nemesis, Fault: &histories.Fault{ID: 1, Phase: histories.Landed}}, {Process: histories.Nemesis, Time: time.Hour, Fault: &histories.Fault{ID: 1, Phase: histories.Stuck}}},
	} {
		page := written(t, WriteHTML, &Run{History: events, Results: []checkers.Result{{Linearizability: &checkers.LinearizabilityEvidence{Violations: []checkers.Violation{{}}}}}})
		if strings.Contains(page, "NaN") || strings.Contains(page, "Inf") {
			t.Errorf("%s: a place in the picture is not a number", name)
		}
		wants(t, page, `class="timeline"`)
	}
}
