package checkers

import (
	"context"
	"strings"
	"testing"
)

// fixed is a checker that answers always the same, or panics.
type fixed struct {
	verdict Verdict
	panics  any
}

func (f fixed) Name() string { return "fixed" }
func (f fixed) Check(context.Context, *Run) Result {
	if f.panics != nil {
		panic(f.panics)
	}
	return Result{Verdict: f.verdict, Summary: "as told"}
}

func TestACheckerThatPanicsIsUnknownAndTheOthersStillJudge(t *testing.T) {
	results := JudgeAll(context.Background(), &Run{}, []Checker{fixed{verdict: Valid}, fixed{panics: "index out of range"}, fixed{verdict: Valid}})
	if len(results) != 3 || results[0].Verdict != Valid || results[2].Verdict != Valid {
		t.Fatalf("%+v", results)
	}
	broken := results[1]
	if broken.Verdict != Unknown || broken.Checker != "fixed" || !strings.Contains(broken.Summary, "index out of range") || !strings.Contains(broken.Summary, "judge_test.go") {
		t.Errorf("%+v", broken)
	}
	if lines := strings.Count(broken.Summary, "\n"); lines > stackLinesMost {
		t.Errorf("a summary of %d lines", lines)
	}
}

func TestTheOverallVerdictIsTheWorst(t *testing.T) {
	for _, test := range []struct {
		verdicts []Verdict
		want     Verdict
	}{
		{nil, Unknown}, {[]Verdict{Valid, Valid}, Valid}, {[]Verdict{Valid, Unknown, Valid}, Unknown},
		{[]Verdict{Invalid, Unknown, Valid}, Invalid}, {[]Verdict{Unknown, Invalid}, Invalid},
	} {
		var results []Result
		for _, v := range test.verdicts {
			results = append(results, Result{Verdict: v})
		}
		if got := Overall(results); got != test.want {
			t.Errorf("%v: %s, want %s", test.verdicts, got, test.want)
		}
	}
}
