package reports

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"

	"capsize/checkers"
)

type testsuite struct {
	XMLName   xml.Name   `xml:"testsuite"`
	Name      string     `xml:"name,attr"`
	Tests     int        `xml:"tests,attr"`
	Failures  int        `xml:"failures,attr"`
	Errors    int        `xml:"errors,attr"`
	Time      string     `xml:"time,attr"`
	Timestamp string     `xml:"timestamp,attr,omitempty"`
	Cases     []testcase `xml:"testcase"`
	Out       string     `xml:"system-out"`
}

type testcase struct {
	Class   string   `xml:"classname,attr"`
	Name    string   `xml:"name,attr"`
	Time    string   `xml:"time,attr"`
	Failure *trouble `xml:"failure"`
	Error   *trouble `xml:"error"`
}

type trouble struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",chardata"`
}

// WriteJUnit writes one test suite with a test case for each checker. Invalid is a
// failure; unknown, and a failure of the harness, are errors. A run that is not valid never
// makes a suite that passes, whatever its results say.
func WriteJUnit(w io.Writer, r *Run) error {
	suite := testsuite{Name: xmlText(r.Name)}
	if !r.Started.IsZero() {
		suite.Timestamp = r.Started.UTC().Format("2006-01-02T15:04:05")
	}
	var took time.Duration
	for _, result := range r.Results {
		suite.add(r, result.Checker, result.Took, result.Verdict, result.Summary)
		took += result.Took
	}
	if len(r.Harness) > 0 {
		suite.add(r, "harness", 0, harnessFailed, strings.Join(r.Harness, "\n"))
	}
	if r.Verdict != string(checkers.Valid) && suite.Failures+suite.Errors == 0 {
		suite.add(r, "verdict", 0, checkers.Verdict(r.Verdict), r.Headline)
	}
	suite.Tests, suite.Time = len(suite.Cases), xmlSeconds(took)
	var out strings.Builder
	if err := WriteText(&out, r, false); err != nil {
		return err
	}
	suite.Out = xmlText(out.String())
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	encoder := xml.NewEncoder(w)
	encoder.Indent("", "  ")
	if err := encoder.Encode(suite); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (s *testsuite) add(r *Run, name string, took time.Duration, verdict checkers.Verdict, summary string) {
	c := testcase{Class: xmlText(r.Name), Name: xmlText(name), Time: xmlSeconds(took)}
	what := &trouble{xmlText(oneLine(summary)), xmlText(string(verdict)), xmlText(summary)}
	switch verdict {
	case checkers.Valid:
	case checkers.Invalid:
		c.Failure = what
		s.Failures++
	default:
		c.Error = what
		s.Errors++
	}
	s.Cases = append(s.Cases, c)
}

func xmlSeconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

// xmlText leaves out what XML 1.0 cannot hold, escaped or not (§2.2, Char).
func xmlText(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' || r >= ' ' && r <= 0xd7ff || r >= 0xe000 && r <= 0xfffd || r >= 0x10000 {
			return r
		}
		return -1
	}, s)
}
