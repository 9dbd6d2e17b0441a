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
	Timestamp string     `xml:"timestamp,attr"`
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
}

// WriteJUnit writes one test suite with a test case for each checker. Invalid is a
// failure; unknown, and a failure of the harness, are errors.
func WriteJUnit(w io.Writer, r *Run) error {
	suite := testsuite{Name: xmlText(r.Name), Timestamp: r.Started.UTC().Format("2006-01-02T15:04:05")}
	var took time.Duration
	for _, result := range r.Results {
		c := testcase{Class: xmlText(r.Name), Name: xmlText(result.Checker), Time: seconds(result.Took)}
		what := &trouble{xmlText(result.Summary), string(result.Verdict)}
		switch result.Verdict {
		case checkers.Invalid:
			c.Failure = what
			suite.Failures++
		case checkers.Unknown:
			c.Error = what
			suite.Errors++
		}
		suite.Cases = append(suite.Cases, c)
		took += result.Took
	}
	if len(r.Harness) > 0 {
		suite.Cases = append(suite.Cases, testcase{
			Class: xmlText(r.Name), Name: "harness", Time: "0",
			Error: &trouble{xmlText(strings.Join(r.Harness, "; ")), "harness failed"},
		})
		suite.Errors++
	}
	suite.Tests, suite.Time = len(suite.Cases), seconds(took)
	suite.Out = xmlText(fmt.Sprintf("%s: %s\nseed %d\nagain: %s\n", r.Verdict, r.Headline, r.Seed, r.Command))
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

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

// xmlText leaves out what XML 1.0 cannot hold, escaped or not.
func xmlText(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' || r >= ' ' && r <= 0xd7ff || r >= 0xe000 && r <= 0xfffd || r >= 0x10000 {
			return r
		}
		return -1
	}, s)
}
