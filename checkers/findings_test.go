package checkers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"capsize/histories"
)

func TestFindingsTellTheFirstAndCountTheRest(t *testing.T) {
	run := &Run{History: []histories.Event{
		{Time: time.Second, Process: histories.Nemesis, Fault: &histories.Fault{ID: 1, Name: "kill", Phase: histories.Landed, Nodes: []string{"n2"}}},
	}}
	f := NewFindings(run, "elements")
	if r := f.Result(); r.Verdict != Unknown || r.Summary != "nothing was put to the test: 0 elements" {
		t.Errorf("%s: %s", r.Verdict, r.Summary)
	}
	f.Count("elements", 50)
	f.Count("found", 3)
	if r := f.Result(); r.Verdict != Valid || r.Summary != "50 elements, 3 found" {
		t.Errorf("%s: %s", r.Verdict, r.Summary)
	}
	for i := range 25 {
		at := time.Duration(30-i) * time.Second
		f.Add("lost element", []histories.Operation{{Key: "k", Call: time.Second, Return: at}}, "element %d is lost", i)
	}
	r := f.Result()
	v := r.Findings.Violations[0]
	if r.Verdict != Invalid || r.Summary != "element 24 is lost (and 24 more violations)" || v.Key != "k" || len(r.Findings.Violations) != 20 || r.Findings.More != 5 || r.Findings.Counts["lost element"] != 25 {
		t.Errorf("%s: %s: %+v", r.Verdict, r.Summary, v)
	}
	if !strings.Contains(fmt.Sprint(v.Situation.Faults), "kill of n2") {
		t.Errorf("%+v", v.Situation)
	}
}
