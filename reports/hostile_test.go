package reports

import (
	"encoding/xml"
	"io"
	"regexp"
	"strings"
	"testing"

	"capsize/checkers"
	"capsize/histories"
)

const hostile = "</script></title><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x00\x1b[31m]]>`|\u202e\r\n## x\xff"

// hostileRun says the text wherever a run can say something.
func hostileRun(text string) *Run {
	r := invalidRun(200)
	r.Name, r.ID, r.Headline, r.System, r.Version, r.Dir, r.Command = text, text, text, text, text, text, text
	r.Notes, r.Harness, r.Plan = []string{text}, []string{text}, []Field{{text, text}}
	r.Nodes = append([]string{text}, r.Nodes...)
	for i := range r.History {
		e := &r.History[i]
		e.Node, e.Error, e.Key = text, text, text
		switch {
		case e.Fault != nil:
			fault := *e.Fault
			fault.Name, fault.Target, fault.Detail, fault.Nodes, fault.Proof = text, text, text, []string{text}, []string{text}
			e.Fault, e.F = &fault, text
		case e.Status != nil:
			status := *e.Status
			status.Leader, status.Role = text, text
			e.Status = &status
		default:
			e.F = text
		}
	}
	r.History = append(r.History, histories.Event{Index: len(r.History), Time: fixtureSpan, Process: histories.Observer, Type: histories.Info, F: "exit", Node: text, Error: text})
	for i := range r.Results {
		r.Results[i].Checker, r.Results[i].Summary = text, text
	}
	v := &r.Results[0].Linearizability.Violations[0]
	v.Key, v.Explanation, v.Picture = text, text, text
	v.Core[0].Node, v.Core[0].Error, v.Core[1].F, v.Around[0].Error = text, text, text, text
	r.Results[0].Linearizability.Undecided = []checkers.Undecided{{Key: text, Reason: text}}
	r.Results[1].Verdict = checkers.Invalid
	r.Results[1].Leaders.Conflicts = []checkers.LeaderConflict{{Term: 2, Claims: []checkers.Leadership{{Term: 2, Node: text, Source: text}}}}
	r.Results[1].Leaders.Sources, r.Results[1].Leaders.Terms[0].Source = []string{text}, text
	r.Results[3].Liveness.Silent, r.Results[3].Liveness.Answered[text] = []string{text}, 1
	r.Results[4].Faults.ByName[text], r.Results[4].Faults.Problems = 1, []string{text}
	r.Results[5].Statistics.Errors[text] = 3
	r.Results[5].Statistics.Operations[text] = checkers.Counts{OK: 1}
	r.Results[5].Statistics.Phases[0].Name = text
	return r
}

func plainText(w io.Writer, r *Run) error    { return WriteText(w, r, false) }
func colouredText(w io.Writer, r *Run) error { return WriteText(w, r, true) }

// tags counts the elements of a page by name.
func tags(page string) map[string]int {
	counts := make(map[string]int)
	for _, tag := range regexp.MustCompile(`<([a-zA-Z]+)`).FindAllStringSubmatch(page, -1) {
		counts[strings.ToLower(tag[1])]++
	}
	return counts
}

func TestNothingThatARunSaysBecomesMarkup(t *testing.T) {
	page := written(t, WriteHTML, hostileRun(hostile))
	harmless := written(t, WriteHTML, hostileRun("harmless"))
	got, want := tags(page), tags(harmless)
	// Pictures leave out names that have no room, and lines split: these may differ.
	for _, tag := range []string{"script", "img", "style", "iframe", "link", "meta", "object", "form", "a", "title"} {
		if tag == "title" {
			continue
		}
		if got[tag] > want[tag] {
			t.Errorf("the page has %d <%s>, %d with harmless text", got[tag], tag, want[tag])
		}
	}
	if want["script"] != 2 || got["img"] != 0 {
		t.Errorf("the page has %d scripts and %d images, want its own 2 and 0", want["script"], got["img"])
	}
	if strings.Contains(page, "onerror=alert(2)>") {
		t.Error("an attribute of the run's got into the page")
	}
	if strings.Contains(page, "\u202e") {
		t.Error("the run turns the direction of the page's text")
	}
}

func TestAMarkedUpNameIsSeenByTheTestAbove(t *testing.T) {
	if tags("<p>" + hostile)["img"] != 1 {
		t.Error("the count of elements does not see an element")
	}
}

func TestThePageRefersToNothingButThePictureBesideIt(t *testing.T) {
	refers := regexp.MustCompile(`(?i)(?:href|src|action|data)="([^"]*)"|url\(([^)]*)\)|https?://[^\s"<]*`)
	for _, reference := range refers.FindAllString(written(t, WriteHTML, invalidRun(500)), -1) {
		switch reference {
		case `href="porcupine-k17.html"`, `src="porcupine-k17.html"`, "url(#plot)", "url(#hatch)", "url(#dots)":
		default:
			t.Errorf("the page refers to %s", reference)
		}
	}
}

func TestOnlyAPageBesideTheReportIsLinkedTo(t *testing.T) {
	for name, want := range map[string]bool{
		"porcupine-k17.html": true, "a_b.c.html": true,
		"": false, "../x.html": false, "/etc/x.html": false, "javascript:alert(1)//.html": false, "//host/x.html": false, ".html": false,
		"..html": false, "x.html\n": false, "a b.html": false, "x.svg": false, "x%2f.html": false, `x\y.html`: false, hostile: false,
	} {
		if got := safePicture(name) != ""; got != want {
			t.Errorf("safePicture(%q) allows it: %t, want %t", name, got, want)
		}
	}
}

func TestThePolicyLetsThePagesOwnScriptRunAndNoOther(t *testing.T) {
	page := written(t, WriteHTML, invalidRun(500))
	_, rest, _ := strings.Cut(page, "<script>")
	script, _, _ := strings.Cut(rest, "</script>")
	if !strings.Contains(policy(script), "script-src 'sha256-") || policy(script) != policy(pageScript) {
		t.Error("the script in the page is not the one that the policy names")
	}
	if escaped := strings.ReplaceAll(policy(script), "'", "&#39;"); !strings.Contains(page, strings.ReplaceAll(escaped, "+", "&#43;")) {
		t.Error("the page does not carry the policy")
	}
}

func TestHostileTextDoesNotDriveTheTerminal(t *testing.T) {
	allowed := strings.NewReplacer(plainColour, "", dim, "", red, "", green, "", yellow, "")
	for _, r := range allowed.Replace(written(t, colouredText, hostileRun(hostile))) {
		if r < ' ' && r != '\n' || r == 0x7f || r == '\u202e' || r == '\ufffd' {
			t.Fatalf("the text holds %U", r)
		}
	}
	if first, _, _ := strings.Cut(written(t, plainText, hostileRun("a\nVALID  b")), "\n"); first != "INVALID  a VALID b" {
		t.Errorf("the first line is %q", first)
	}
}

// outsideCode leaves out the code span at the end, in which markup has no meaning.
func outsideCode(summary string) string {
	return summary[:strings.LastIndex(summary, "Do it again: ")]
}

func TestHostileTextStaysInItsPlaceInMarkdown(t *testing.T) {
	summary := written(t, WriteSummary, hostileRun(hostile))
	if strings.ContainsAny(outsideCode(summary), "<\x00\x1b\u202e") || strings.Contains(summary, "\n## x") {
		t.Errorf("the summary holds markup of the run's:\n%s", summary)
	}
	rows := 0
	for line := range strings.Lines(summary) {
		if strings.HasPrefix(line, "| ") {
			rows++
			if cells := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|"); cells != 4 {
				t.Errorf("a line of the table has %d bars: %s", cells, line)
			}
		}
	}
	if rows != 7 { // the head and six checkers
		t.Errorf("the table has %d lines", rows)
	}
}

func TestACommandWithBackticksIsOneCodeSpan(t *testing.T) {
	for command, want := range map[string]string{"a b": "` a b `", "a `b`": "`` a `b` ``", "``": "``` `` ```", "": "–"} {
		if got := codeSpan(command); got != want {
			t.Errorf("codeSpan(%q) = %q, want %q", command, got, want)
		}
	}
}

func FuzzAnyTextGivesReportsThatParse(f *testing.F) {
	for _, seed := range []string{"", hostile, "{{.}}", "<!--", "<![CDATA[", "\u2028", "&#0;", "a\tb", strings.Repeat("`", 20)} {
		f.Add(seed)
	}
	harmless := invalidRun(20)
	want := tags(written(f, WriteHTML, harmless))
	f.Fuzz(func(t *testing.T, text string) {
		r := *harmless
		r.Name, r.Headline, r.Command, r.Plan, r.Version = text, text, text, []Field{{text, text}}, text
		got := tags(written(t, WriteHTML, &r))
		if got["script"] != want["script"] || got["style"] != want["style"] || got["li"] != want["li"] {
			t.Errorf("%q changed the page's structure", text)
		}
		var suite testsuite
		if err := xml.Unmarshal([]byte(written(t, WriteJUnit, &r)), &suite); err != nil {
			t.Errorf("%q makes XML that does not parse: %v", text, err)
		}
		if summary := outsideCode(written(t, WriteSummary, &r)); strings.Contains(summary, "<") {
			t.Errorf("%q became markup in Markdown", text)
		}
	})
}
