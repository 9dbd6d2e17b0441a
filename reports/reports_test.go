package reports

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"capsize/checkers"
	"capsize/histories"
)

const hostile = "<script>alert(1)</script>\"'&\x00\x1b[31m]]>`|\n"

// sampleRun is a run of 30 s with six faults and a violation, as the checkers leave it.
func sampleRun(operations int, violation bool) *Run {
	random := rand.New(rand.NewPCG(1, 2))
	r := &Run{
		ID: "1", Name: "raftnode-register", Started: time.Unix(1.7e9, 0), Dir: "runs/x", Command: "checker run --config runs/x/plan.yaml",
		Plan: []Field{{"seed", "7"}, {"nodes", "5"}}, System: "raftnode", Version: "devel", Nodes: []string{"n1", "n2", "n3", "n4", "n5"}, Seed: 7,
		Verdict: "valid", Headline: "Every promise was kept.",
	}
	add := func(e histories.Event) {
		e.Index = len(r.History)
		r.History = append(r.History, e)
	}
	term := uint64(1)
	for i := range operations {
		at := time.Duration(i) * 30 * time.Second / time.Duration(operations)
		if i%(operations/7+1) == 0 && i > 0 {
			node := r.Nodes[random.IntN(5)]
			fault := &histories.Fault{ID: i, Name: []string{"partition", "pause", "kill"}[random.IntN(3)], Phase: histories.Landed, Target: "leader", Nodes: []string{node}, Detail: node, Took: 3 * time.Millisecond, Proof: []string{"9 threads stopped"}}
			add(histories.Event{Time: at, Process: histories.Nemesis, Type: histories.Info, F: fault.Name, Fault: fault})
			healed := *fault
			healed.Phase = histories.Healed
			term++
			add(histories.Event{Time: at, Process: histories.Observer, Type: histories.Info, F: "status", Node: node, Status: &histories.Status{Up: true, Term: term, Role: "leader", Leader: node}})
			add(histories.Event{Time: at + time.Second, Process: histories.Nemesis, Type: histories.Info, F: fault.Name, Fault: &healed})
		}
		e := histories.Event{Time: at, Process: i % 10, Type: histories.Invoke, F: "write", Key: "k1", Value: histories.Int(int64(i)), Node: r.Nodes[i%5]}
		add(e)
		e.Type, e.Time = histories.OK, at+time.Duration(500+random.IntN(4000))*time.Microsecond
		if random.IntN(200) == 0 {
			e.Type, e.Error = histories.Fail, "no leader"
		}
		add(e)
	}
	r.Results = []checkers.Result{
		{Checker: "linearizability", Verdict: checkers.Valid, Summary: "all is well", Linearizability: &checkers.LinearizabilityEvidence{}},
		{Checker: "statistics", Verdict: checkers.Valid, Summary: "many", Statistics: &checkers.Statistics{Operations: map[string]checkers.Counts{"": {OK: 3, P50: time.Millisecond}}}},
	}
	if violation {
		r.violate()
	}
	return r
}

func (r *Run) violate() {
	core := []histories.Operation{
		{Process: 3, F: "write", Key: "k1", Node: "n2", Input: histories.Int(52), Type: histories.OK, Call: 12300 * time.Millisecond, Return: 12310 * time.Millisecond, Invoked: 8},
		{Process: 8, F: "read", Key: "k1", Node: "n3", Output: histories.Int(45), Type: histories.OK, Call: 12320 * time.Millisecond, Return: 12330 * time.Millisecond, Invoked: 10},
		{Process: 4, F: "cas", Key: "k1", Node: "n1", Input: histories.Ints(44, 45), Type: histories.Info, Call: 12290 * time.Millisecond, Return: histories.Forever, Invoked: 12},
	}
	r.Verdict, r.Headline = "invalid", "key k1: read at 12.330 s returned 45, but 52 had been written"
	r.Results[0] = checkers.Result{Checker: "linearizability", Verdict: checkers.Invalid, Summary: r.Headline, Linearizability: &checkers.LinearizabilityEvidence{
		Violations: []checkers.Violation{{Key: "k1", Explanation: r.Headline, At: 12330 * time.Millisecond, Core: core, Around: core, Picture: "porcupine-k1.html"}},
	}}
}

func written(t *testing.T, write func(io.Writer, *Run) error, r *Run) string {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTheFirstThingThatAReportSaysIsTheVerdict(t *testing.T) {
	r := sampleRun(500, true)
	text := written(t, func(w io.Writer, r *Run) error { return WriteText(w, r, false) }, r)
	if !strings.HasPrefix(strings.TrimSpace(text), "INVALID  key k1: read at") {
		t.Errorf("the text begins with %.80q", text)
	}
	page := written(t, WriteHTML, r)
	for _, want := range []string{"INVALID", r.Headline, "porcupine-k1.html", "cas 44 → 45", "never returned", r.Command} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(page, "http://") || strings.Contains(page, "https://") {
		t.Error("the page refers to the network")
	}
}

func TestNothingThatASystemSaysBecomesMarkup(t *testing.T) {
	r := sampleRun(200, true)
	r.Name, r.Headline, r.Notes, r.Harness = hostile, hostile, []string{hostile}, []string{hostile}
	r.Plan = []Field{{hostile, hostile}}
	r.Nodes = append(r.Nodes, hostile)
	violation := &r.Results[0].Linearizability.Violations[0]
	violation.Key, violation.Explanation, violation.Picture = hostile, hostile, "javascript:alert(1)"
	violation.Core[0].Node, violation.Core[0].Error, violation.Core[1].F = hostile, hostile, hostile
	r.Results[1].Statistics.Errors = map[string]int{hostile: 3}
	r.History[0].Node, r.History[1].Error = hostile, hostile
	for i := range r.History {
		if r.History[i].Fault != nil {
			r.History[i].Fault.Name, r.History[i].Fault.Nodes, r.History[i].Fault.Proof = hostile, []string{hostile}, []string{hostile}
		}
	}
	page := written(t, WriteHTML, r)
	if strings.Contains(page, "<script") || strings.Contains(page, `"javascript:`) {
		t.Error("the page holds markup from the run")
	}
	if summary := written(t, WriteSummary, r); strings.Contains(summary, "<script") {
		t.Error("the summary holds markup from the run")
	}
	text := written(t, func(w io.Writer, r *Run) error { return WriteText(w, r, true) }, r)
	if strings.Contains(text, "\x1b[31m") || strings.Contains(text, "\x00") {
		t.Error("the text lets the run drive the terminal")
	}
}

func TestJUnitCountsInvalidAsFailureAndTheRestAsErrors(t *testing.T) {
	r := sampleRun(100, true)
	r.Name, r.Harness = hostile, []string{hostile}
	r.Results[1].Verdict = checkers.Unknown
	var suite testsuite
	if err := xml.Unmarshal([]byte(written(t, WriteJUnit, r)), &suite); err != nil {
		t.Fatal(err)
	}
	if suite.Tests != 3 || suite.Failures != 1 || suite.Errors != 2 {
		t.Errorf("%d tests, %d failures, %d errors", suite.Tests, suite.Failures, suite.Errors)
	}
	if suite := (testsuite{}); xml.Unmarshal([]byte(written(t, WriteJUnit, sampleRun(100, false))), &suite) != nil || suite.Failures+suite.Errors != 0 {
		t.Errorf("a valid run: %+v", suite)
	}
}

func TestAnEmptyRunHasAReportToo(t *testing.T) {
	r := &Run{Verdict: "harness failed", Headline: "no engine", Harness: []string{"no engine"}}
	if page := written(t, WriteHTML, r); !strings.Contains(page, "no engine") {
		t.Error("the page does not say why")
	}
}

func TestThePageStaysSmallHoweverLongTheRun(t *testing.T) {
	if size := len(written(t, WriteHTML, sampleRun(200_000, true))); size > 3<<20 {
		t.Errorf("200,000 operations make a page of %d bytes", size)
	}
}

func BenchmarkWriteHTML(b *testing.B) {
	for _, operations := range []int{20_000, 1_000_000} {
		r := sampleRun(operations, true)
		b.Run(fmt.Sprint(operations), func(b *testing.B) {
			for b.Loop() {
				if err := WriteHTML(io.Discard, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
