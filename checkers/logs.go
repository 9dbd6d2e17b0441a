package checkers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Logs looks in what the nodes printed for words that no correct program prints: a panic, a
// data race, a failed assertion. A node at which programs may end ([histories.Fault].MayEnd)
// may panic: that is how some of them end. It may not race.
type Logs struct {
	Pattern *regexp.Regexp // what is wrong besides; nil: nothing
	Ignore  *regexp.Regexp // lines that are right, whatever they say; nil: none
}

// LogsEvidence is what was found in the nodes' logs.
type LogsEvidence struct {
	Nodes []string  `json:"nodes"` // whose logs were read
	Lines int       `json:"lines"`
	Found []LogLine `json:"found,omitempty"`
	More  int       `json:"more,omitempty"` // that are counted only
}

// LogLine is a line of a log that says that something is wrong.
type LogLine struct {
	Node    string   `json:"node"`
	Number  int      `json:"number"` // from 1
	Text    string   `json:"text"`
	Kind    string   `json:"kind"`
	After   []string `json:"after,omitempty"`   // the lines that follow
	Excused string   `json:"excused,omitempty"` // why it may be right
}

// Name is "logs".
func (*Logs) Name() string { return "logs" }

// The patterns are of lines as programs write them, so that a value or a key that holds such
// words does not count: Go's runtime and its race detector, C's assert, sanitizers, Rust's and Java's
// last words, and structured logs.
var wrongLines = []struct {
	kind    string
	pattern *regexp.Regexp
	ends    bool // it is how a program ends
}{
	{"data race", regexp.MustCompile(`^WARNING: DATA RACE`), false},
	{"panic", regexp.MustCompile(`^(panic: |thread '[^']*' panicked at |\s*goroutine \d+ \[running\]:)|"level":"d?panic"`), true},
	{"fatal error", regexp.MustCompile(`^(fatal error: |unexpected fault address |Exception in thread )|"level":"fatal"|\[signal SIG(SEGV|BUS|ABRT)`), true},
	{"failed assertion", regexp.MustCompile("\\b[Aa]ssertion ([`'\"].*['\"] )?failed\\b|^==\\d+==ERROR: \\w+Sanitizer"), true},
}

const (
	logLinesMost  = 20
	logLinesAfter = 5
	logLineBytes  = 4 << 10
)

// Check reads the logs. A run without any is valid, and the summary says so.
func (l *Logs) Check(ctx context.Context, run *Run) Result {
	e := &LogsEvidence{Nodes: slices.Sorted(maps.Keys(run.Logs))}
	if len(e.Nodes) == 0 {
		return Result{Verdict: Valid, Logs: e, Summary: "not checked: no node's log was kept"}
	}
	excuses := make(map[string]string)
	for i := range run.History {
		if f := run.History[i].Fault; f != nil && f.MayEnd {
			for _, node := range f.Nodes {
				excuses[node] = f.Name
			}
		}
	}
	for _, node := range e.Nodes {
		if err := l.read(ctx, e, node, run.Logs[node], excuses[node]); err != nil {
			return Result{Verdict: Unknown, Logs: e, Summary: fmt.Sprintf("the log of %s could not be read: %v", node, err)}
		}
	}
	return l.judge(e)
}

func (l *Logs) read(ctx context.Context, e *LogsEvidence, node, path, excuse string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // only read
	lines := bufio.NewReaderSize(file, logLineBytes)
	var last *LogLine // to which the lines that follow belong
	for number := 1; ; number++ {
		line, cut, err := lines.ReadLine()
		text := strings.ToValidUTF8(string(line), "\uFFFD")
		for cut && err == nil {
			_, cut, err = lines.ReadLine()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if number%4096 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		e.Lines++
		if last != nil && number-last.Number <= logLinesAfter {
			last.After = append(last.After, text)
			continue // a panic's own lines are not further ones
		}
		kind, ends := l.wrong(text)
		if kind == "" {
			continue
		}
		found := LogLine{Node: node, Number: number, Text: text, Kind: kind}
		if ends && excuse != "" {
			found.Excused = "under " + excuse + " a process may end"
		}
		if len(e.Found) >= logLinesMost {
			e.More++
			continue
		}
		e.Found = append(e.Found, found)
		last = &e.Found[len(e.Found)-1]
	}
}

// wrong says what is wrong with a line; "" if nothing is.
func (l *Logs) wrong(line string) (kind string, ends bool) {
	if l.Ignore != nil && l.Ignore.MatchString(line) {
		return "", false
	}
	for _, w := range wrongLines {
		if w.pattern.MatchString(line) {
			return w.kind, w.ends
		}
	}
	if l.Pattern != nil && l.Pattern.MatchString(line) {
		return "line that the plan forbids", false
	}
	return "", false
}

func (l *Logs) judge(e *LogsEvidence) Result {
	result := Result{Verdict: Valid, Logs: e}
	excused := 0
	for _, found := range e.Found {
		switch {
		case found.Excused != "":
			excused++
		case result.Verdict == Valid:
			result.Verdict = Invalid
			result.Summary = fmt.Sprintf("the log of %s says, in line %d: %s", found.Node, found.Number, found.Text)
		}
	}
	if result.Verdict == Invalid {
		if more := len(e.Found) + e.More - excused - 1; more > 0 {
			result.Summary += fmt.Sprintf(" (and %d more lines)", more)
		}
		return result
	}
	result.Summary = fmt.Sprintf("%d lines of %d logs, and no panic, data race or failed assertion", e.Lines, len(e.Nodes))
	if excused > 0 {
		result.Summary += fmt.Sprintf(" but %d of a process that may end under its fault", excused)
	}
	return result
}
