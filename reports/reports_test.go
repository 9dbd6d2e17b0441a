package reports

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capsize/checkers"
	"capsize/histories"
)

func written(t testing.TB, write func(io.Writer, *Run) error, r *Run) string {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func wants(t *testing.T, text string, all ...string) {
	t.Helper()
	for _, want := range all {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q", want)
		}
	}
}

func lacks(t *testing.T, text string, all ...string) {
	t.Helper()
	for _, unwanted := range all {
		if strings.Contains(text, unwanted) {
			t.Errorf("it holds %q", unwanted)
		}
	}
}

// To look at the pages: REPORT_PAGES=DIR go test ./reports -run Drawn
func TestRunsOfEveryVerdictAreDrawn(t *testing.T) {
	dir := os.Getenv("REPORT_PAGES")
	for name, r := range map[string]*Run{
		"valid": validRun(45_000), "invalid": invalidRun(45_000), "small": invalidRun(900), "unknown": unknownRun(20_000),
		"failed": failedRun(), "empty": {}, "hostile": hostileRun(hostile), "many": manyViolations(120),
	} {
		page := written(t, WriteHTML, r)
		if dir == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name+".html"), []byte(page), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// manyViolations is a run in which so many keys have no legal order.
func manyViolations(n int) *Run {
	r := invalidRun(900)
	violations := r.Results[0].Linearizability.Violations
	for i := 1; i < n; i++ {
		v := violations[0]
		v.Key = fmt.Sprintf("other%d", i)
		violations = append(violations, v)
	}
	r.violate(violations...)
	return r
}

func TestAValidPageSaysWhatWasTestedAndAccusesNobody(t *testing.T) {
	page := written(t, WriteHTML, validRun(2000))
	wants(t, page, "VALID: raftnode-register", "Every promise was kept", "checker run --config", "6 planned, 6 landed, 6 healed, 3 hit the leader",
		"1 partition leader n1", "leader, term 4", "no answer: pause", "probes: 12 of 12 open pairs", "all healed", "last reads", "half within")
	lacks(t, page, "INVALID", "Why:", "What was not checked", "part of the proof</li>", `class="guilty" d="M`)
}

func TestAnInvalidPageExplainsTheViolation(t *testing.T) {
	page := written(t, WriteHTML, invalidRun(2000))
	wants(t, page, "INVALID: raftnode-register", "Why: key <code>k17</code> has no legal order", "a stale read", "These 4 operations alone",
		"2  cas 100045 → 100052 on n1, never returned", "4  read → 100045 on n1", "✗ impossible from here", "✗ key k17 impossible from 13.330 s",
		"fail: no leader", `class="guilty" d="M`)
}

func TestAnUnknownPageSaysWhatWasNotCheckedAndWhy(t *testing.T) {
	page := written(t, WriteHTML, unknownRun(2000))
	wants(t, page, "UNKNOWN: raftnode-register", "What was not checked, and why", "key k3, 512 operations: the time limit", "did not land: set the clock of n3", `class="missed"`)
	lacks(t, page, "Why:")
}

func TestAPageOfAFailedHarnessSaysWhatFailed(t *testing.T) {
	page := written(t, WriteHTML, failedRun())
	wants(t, page, "HARNESS FAILED", "says nothing of the system", "no space left on device", "Nothing was recorded.", "No checker ran.")
}

func TestTwoLeadersOfATermAreShown(t *testing.T) {
	r := validRun(200)
	r.Results[1].Verdict, r.Results[1].Summary = checkers.Invalid, "term 2 had 2 leaders"
	r.Results[1].Leaders.Conflicts = []checkers.LeaderConflict{{Term: 2, Claims: []checkers.Leadership{{Term: 2, Node: "n2", Source: "n2/trace.jsonl:3783"}, {Term: 2, Node: "n4", Source: "n4/trace.jsonl:99"}}}}
	r.Verdict = "invalid"
	wants(t, written(t, WriteHTML, r), "Why: one-leader-a-term", "Term 2 had 2 leaders", "n4/trace.jsonl:99")
}

func TestANodeThatEndedByItselfIsMarkedInItsLane(t *testing.T) {
	r := validRun(200)
	r.History = append(r.History, histories.Event{Index: len(r.History), Time: fixtureSpan, Process: histories.Observer, Type: histories.Info, F: "exit", Node: "n3", Error: "panic: index out of range"})
	wants(t, written(t, WriteHTML, r), `class="ended"`, "process ended by itself: panic: index out of range")
}

func TestManyViolationsAreListedAndTheRestCounted(t *testing.T) {
	page := written(t, WriteHTML, manyViolations(120))
	wants(t, page, "Further violations", ">other100<", "15 more keys not listed here")
	if n := strings.Count(page, `class="diagram"`); n != violationsDrawn {
		t.Errorf("%d violations are drawn, want %d", n, violationsDrawn)
	}
}

func TestTheHeadlineIsTheWorstThingThatIsKnown(t *testing.T) {
	results := []checkers.Result{
		{Verdict: checkers.Valid, Summary: "9 operations are linearizable", Linearizability: &checkers.LinearizabilityEvidence{}},
		{Verdict: checkers.Unknown, Summary: "a fault\nmissed"}, {Verdict: checkers.Invalid, Summary: "two leaders"},
	}
	for verdict, want := range map[string]string{
		"valid": "Every promise was kept: 9 operations are linearizable.", "unknown": "a fault missed", "invalid": "two leaders",
		harnessFailed: "The harness failed, so this run says nothing of the system.",
	} {
		if got := Headline(verdict, results); got != want {
			t.Errorf("the headline of %s is %q, want %q", verdict, got, want)
		}
	}
	if got := Headline("unknown", nil); strings.Contains(got, "kept") {
		t.Errorf("a run that nothing checked is praised: %q", got)
	}
}

func TestTheTextSaysTheVerdictFirst(t *testing.T) {
	text := written(t, plainText, invalidRun(500))
	if !strings.HasPrefix(text, "INVALID  key k17: read at 13.320 s") {
		t.Errorf("the text begins with %.80q", text)
	}
	wants(t, text, "✗ invalid  linearizability", "✓ valid    faults", "all 6 faults landed", "these operations together have no legal order (key k17)",
		"2      12.296 s – never         process 9002 n1     cas 100045 → 100052", "report   runs/raftnode-register/20261123T073537Z/report.html", "again    checker run --config", "seed     5")
	lacks(t, text, "\x1b")
	wants(t, written(t, colouredText, invalidRun(500)), red+"INVALID"+plainColour)
}

func parsed(t *testing.T, r *Run) (suite testsuite) {
	t.Helper()
	if err := xml.Unmarshal([]byte(written(t, WriteJUnit, r)), &suite); err != nil {
		t.Fatal(err)
	}
	return suite
}

func TestJUnitCountsInvalidAsFailureAndTheRestAsErrors(t *testing.T) {
	for name, c := range map[string]struct {
		run                     *Run
		tests, failures, errors int
	}{
		"valid":          {validRun(100), 6, 0, 0},
		"invalid":        {invalidRun(100), 6, 1, 0},
		"unknown":        {unknownRun(100), 6, 0, 2},
		"harness failed": {failedRun(), 1, 0, 1},
		"nothing known":  {&Run{Verdict: "unknown"}, 1, 0, 1},
		"hostile":        {hostileRun(hostile), 7, 2, 1},
	} {
		suite := parsed(t, c.run)
		if suite.Tests != c.tests || suite.Failures != c.failures || suite.Errors != c.errors || len(suite.Cases) != c.tests {
			t.Errorf("%s: %d tests, %d failures, %d errors, want %d, %d, %d", name, suite.Tests, suite.Failures, suite.Errors, c.tests, c.failures, c.errors)
		}
	}
	suite := parsed(t, invalidRun(100))
	first := suite.Cases[0]
	if first.Name != "linearizability" || first.Failure == nil || !strings.Contains(first.Failure.Message, "a stale read") || first.Failure.Type != "invalid" {
		t.Errorf("the failed case is %+v", first)
	}
	wants(t, suite.Out, "INVALID  key k17", "again    checker run")
}

func TestWhatXMLCannotHoldIsLeftOut(t *testing.T) {
	if got := xmlText("a\x00\x1b\r\u0085b\ufffe\uffffc\t\n"); got != "a\u0085bc\t\n" {
		t.Errorf("%q is left", got)
	}
}

func TestThePageStaysSmallHoweverLongTheRun(t *testing.T) {
	r := validRun(2000)
	noLeader := strings.Repeat("no leader is known; ", 10)
	for i := range 200_000 { // in the worst case for drawing: spread evenly over time and latency
		call := time.Duration(i) * 150 * time.Microsecond
		e := histories.Event{Index: len(r.History), Time: call, Process: 1000 + i%10, Type: histories.Invoke, F: "write", Key: "k1", Value: histories.Int(int64(i)), Node: "n1"}
		r.History = append(r.History, e)
		e.Index, e.Time, e.Type, e.Error = e.Index+1, call+time.Microsecond<<(i%24), histories.OK+histories.Type(i%3), noLeader
		r.History = append(r.History, e)
	}
	if size := len(written(t, WriteHTML, r)); size > 3<<20 {
		t.Errorf("a page of %d bytes", size)
	}
}

func TestTheSameRunGivesTheSamePage(t *testing.T) {
	first, again := written(t, WriteHTML, invalidRun(12_000)), written(t, WriteHTML, invalidRun(12_000))
	if first != again {
		t.Error("two pages of one run differ")
	}
}

func TestDurationsAreHuman(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ns", 999: "999 ns", 12 * time.Microsecond: "12 µs", 999_499: "999 µs", 999_600: "1.0 ms", 3_200_000: "3.2 ms", 99_949_999: "99.9 ms", 99_960_000: "100 ms",
		999_499_999: "999 ms", 999_600_000: "1.00 s", 12_410_000_000: "12.41 s", 125 * time.Second: "2 min 5 s", 65 * time.Minute: "1 h 5 min", -3_200_000: "−3.2 ms",
	} {
		if got := duration(d); got != want {
			t.Errorf("duration(%d ns) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%d) = %q, want %q", n, got, want)
		}
	}
}

func BenchmarkWriteHTML(b *testing.B) {
	for _, operations := range []int{45_000, 2_800_000} {
		r := invalidRun(operations)
		b.Run(fmt.Sprint(len(r.History)/2), func(b *testing.B) {
			var page bytes.Buffer
			for b.Loop() {
				page.Reset()
				if err := WriteHTML(&page, r); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(page.Len())/(1<<20), "MiB")
		})
	}
}
