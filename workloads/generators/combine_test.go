package generators

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"capsize/histories"
	"capsize/workloads"
)

// named yields operations of a name, and notes whose completions it is told of.
type named struct {
	name  string
	count int // after which it ends; 0: never
	given int
	told  []string
}

func (n *named) Next(workloads.Moment) workloads.Step {
	if n.count > 0 && n.given == n.count {
		return workloads.End()
	}
	n.given++
	return workloads.Perform(workloads.Op{F: n.name})
}
func (n *named) Completed(op histories.Operation) { n.told = append(n.told, op.F) }
func (n *named) Final() []workloads.Op            { return []workloads.Op{{F: "last " + n.name}} }

func counts(done []performed) map[string]int {
	list := make(map[string]int)
	for _, p := range done {
		list[p.op.F]++
	}
	return list
}

func TestAMixDrawsByWeightAndTellsEachItsOwn(t *testing.T) {
	a, b := &named{name: "a"}, &named{name: "b"}
	g := Mix(7, Share{3, a}, Share{1, b})
	done := play(t, g, 3, 2*time.Second, quick)
	got := counts(done)
	if share := float64(got["a"]) / float64(len(done)); share < 0.72 || share > 0.78 {
		t.Errorf("a has %.2f of %d operations, want 0.75", share, len(done))
	}
	for _, n := range []*named{a, b} {
		if len(n.told) < n.given-3 || slices.ContainsFunc(n.told, func(f string) bool { return f != n.name }) {
			t.Errorf("%s gave %d operations and was told of %d", n.name, n.given, len(n.told))
		}
	}
	if final := fmt.Sprint(g.Final()); final != fmt.Sprint([]workloads.Op{{F: "last a"}, {F: "last b"}}) {
		t.Error(final)
	}
	if again := play(t, Mix(7, Share{3, &named{name: "a"}}, Share{1, &named{name: "b"}}), 3, 2*time.Second, quick); fmt.Sprint(again) != fmt.Sprint(done) {
		t.Error("the same seed gives another mix")
	}
}

func TestAMixEndsWithItsLastPart(t *testing.T) {
	got := counts(play(t, Mix(7, Share{1, &named{name: "a", count: 5}}, Share{1, &named{name: "b", count: 50}}), 2, time.Second, quick))
	if got["a"] != 5 || got["b"] != 50 {
		t.Error(got)
	}
}

func TestReservedThreadsKeepToTheirGenerator(t *testing.T) {
	g := Reserve(Reserved{1, &named{name: "a"}}, Reserved{2, &named{name: "b"}}, Reserved{0, &named{name: "c"}})
	for _, p := range play(t, g, 5, 100*time.Millisecond, quick) {
		if want := []string{"a", "b", "b", "c", "c"}[p.thread]; p.op.F != want {
			t.Fatalf("thread %d performs %s, want %s", p.thread, p.op.F, want)
		}
	}
}

// A phase begins when nothing of the one before it is under way any more.
func TestPhasesDoNotOverlap(t *testing.T) {
	slow := func(p performed) time.Duration { return time.Duration(1+p.thread) * 10 * time.Millisecond }
	done := play(t, Phases(3, &named{name: "a", count: 10}, &named{name: "b", count: 10}, &named{name: "c", count: 4}), 3, time.Minute, slow)
	if got := counts(done); got["a"] != 10 || got["b"] != 10 || got["c"] != 4 {
		t.Fatal(got)
	}
	var ends time.Duration
	for i, p := range done {
		if i > 0 && p.op.F != done[i-1].op.F && p.at < ends {
			t.Errorf("%s began at %s, before %s had ended at %s", p.op.F, p.at, done[i-1].op.F, ends)
		}
		ends = max(ends, p.at+slow(p))
	}
}

func TestLimits(t *testing.T) {
	if n := len(play(t, Limit(7, &named{name: "a"}), 3, time.Second, quick)); n != 7 {
		t.Errorf("%d operations, want 7", n)
	}
	done := play(t, TimeLimit(50*time.Millisecond, &named{name: "a"}), 2, time.Second, quick)
	if last := done[len(done)-1].at; len(done) != 100 || last >= 50*time.Millisecond {
		t.Errorf("%d operations, the last one at %s", len(done), last)
	}
	if done = play(t, TimeLimit(50*time.Millisecond, Stagger(time.Hour, &named{name: "a"})), 2, time.Second, quick); len(done) != 1 {
		t.Errorf("%d operations, want the one before the wait", len(done))
	}
	done = play(t, Delay(300*time.Millisecond, &named{name: "a", count: 2}), 2, time.Second, quick)
	if len(done) != 2 || done[0].at != 300*time.Millisecond {
		t.Errorf("%v", done)
	}
	done = play(t, Phases(1, &named{name: "a", count: 1}, Delay(time.Second, TimeLimit(time.Second, &named{name: "b"}))), 1, time.Minute, func(performed) time.Duration { return 100 * time.Millisecond })
	if first, last := done[1].at, done[len(done)-1].at; first < 1100*time.Millisecond || last > 2200*time.Millisecond || len(done) < 10 {
		t.Errorf("the second phase from %s to %s, %d operations", first, last, len(done))
	}
}

func TestARampAndBursts(t *testing.T) {
	within := func(done []performed, from, to time.Duration) (n int) {
		for _, p := range done {
			if p.at >= from && p.at < to {
				n++
			}
		}
		return n
	}
	done := play(t, Ramp(100*time.Millisecond, 10*time.Millisecond, 10*time.Second, &counted{}), 20, 20*time.Second, quick)
	for _, part := range []struct {
		from, to time.Duration
		want     int
	}{{0, time.Second, 14}, {4500 * time.Millisecond, 5500 * time.Millisecond, 55}, {15 * time.Second, 16 * time.Second, 100}} {
		if n := within(done, part.from, part.to); n < part.want*8/10 || n > part.want*12/10 {
			t.Errorf("%d operations from %s to %s, want about %d", n, part.from, part.to, part.want)
		}
	}
	done = play(t, Burst(time.Second, 3*time.Second, Stagger(10*time.Millisecond, &counted{})), 4, 12*time.Second, quick)
	for second := range 12 {
		from := time.Duration(second) * time.Second
		if n, want := within(done, from, from+time.Second), second%4 == 0; (n > 90) != want || (n > 10) != want {
			t.Errorf("%d operations in second %d", n, second)
		}
	}
}

func TestAThreadRoamsToTheNextNodeWhenItIsRefused(t *testing.T) {
	g := Roam([]string{"n1", "n2", "n3"}, 2, &named{name: "a"})
	ask := func() string {
		op, _ := g.Next(workloads.Moment{Thread: 1, Process: 1}).Op()
		return op.Node
	}
	for i, step := range []struct {
		at   string
		ends histories.Operation
	}{
		{"n2", histories.Operation{Process: 1, Type: histories.Fail}},
		{"n2", histories.Operation{Process: 1, Type: histories.OK}},
		{"n2", histories.Operation{Process: 1, Type: histories.Fail}},
		{"n2", histories.Operation{Process: 1, Type: histories.Fail, Refused: true}}, // it answered
		{"n2", histories.Operation{Process: 1, Type: histories.Info}},
		{"n2", histories.Operation{Process: 1, Type: histories.Fail}},
		{"n3", histories.Operation{Process: 1, Type: histories.OK}},
	} {
		if node := ask(); node != step.at {
			t.Fatalf("step %d asks %s, want %s", i, node, step.at)
		}
		g.Completed(step.ends)
	}
}
