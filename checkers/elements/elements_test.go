package elements

import (
	"context"
	"strings"
	"testing"

	"capsize/checkers"
	"capsize/histories"
)

// script makes a history of operations one after the other: a process, a function, a value, and how
// it ended. A read at the end has a dot behind it.
func script(t *testing.T, lines ...string) []histories.Event {
	t.Helper()
	var events []histories.Event
	for process, line := range lines {
		words := strings.Fields(line)
		var value histories.Value
		if err := value.UnmarshalJSON([]byte(words[1])); err != nil {
			t.Fatal(err)
		}
		f, final := strings.CutSuffix(words[0], ".")
		kind, err := histories.ParseType(words[2])
		if err != nil {
			t.Fatal(err)
		}
		invoke := histories.Event{Index: len(events), Process: process, F: f, Key: "k", Node: "n1", Final: final}
		done := invoke
		done.Index, done.Type, done.Value = len(events)+1, kind, value
		if f == "add" {
			invoke.Value = value
		}
		events = append(events, invoke, done)
	}
	return events
}

func TestWhatBecameOfElements(t *testing.T) {
	for name, c := range map[string]struct {
		lines   []string
		verdict checkers.Verdict
		says    string
	}{
		"all there":          {[]string{"add 1 ok", "add 2 ok", "read. [2,1] ok"}, checkers.Valid, "2 acknowledged elements"},
		"lost":               {[]string{"add 1 ok", "add 2 ok", "read. [1] ok"}, checkers.Invalid, "element 2 was put into k and acknowledged"},
		"lost from one read": {[]string{"add 1 ok", "read. [1] ok", "read. [] ok"}, checkers.Invalid, "element 1 was put into k"},
		"never known":        {[]string{"add 1 ok", "add 2 info", "read. [1] ok"}, checkers.Valid, "1 acknowledged elements"},
		"turned up":          {[]string{"add 1 ok", "add 2 info", "read. [1,2] ok"}, checkers.Valid, "1 of unknown outcome that turned up"},
		"failed and there":   {[]string{"add 1 ok", "add 2 fail", "read. [1,2] ok"}, checkers.Invalid, "was not put into k and never will be"},
		"from nowhere":       {[]string{"add 1 ok", "read [1,9] ok", "read. [1] ok"}, checkers.Invalid, "put in by nobody"},
		"twice":              {[]string{"add 1 ok", "read [1,1] ok", "read. [1] ok"}, checkers.Invalid, "returned element 1 twice"},
		"before its time":    {[]string{"read [1] ok", "add 1 ok", "read. [1] ok"}, checkers.Invalid, "which was put in only later"},
		"taken":              {[]string{"add 1 ok", "take 1 ok", "read. [] ok"}, checkers.Valid, "1 taken"},
		"taken and there":    {[]string{"add 1 ok", "take 1 ok", "read. [1] ok"}, checkers.Invalid, "a later read on n1 still shows it"},
		"perhaps taken":      {[]string{"add 1 ok", "take null info", "read. [] ok"}, checkers.Valid, "1 acknowledged"},
		"two, one taken":     {[]string{"add 1 ok", "add 2 ok", "take null info", "read. [] ok"}, checkers.Invalid, "2 acknowledged elements of k are missing"},
		"never read":         {[]string{"add 1 ok", "take 1 ok"}, checkers.Unknown, "nothing was put to the test"},
		"no list":            {[]string{"add 1 ok", "read. 7 ok"}, checkers.Invalid, "no list of elements"},
	} {
		run := &checkers.Run{History: script(t, c.lines...)}
		r := (&Checker{Add: "add", Take: "take", Read: "read"}).Check(context.Background(), run)
		if r.Verdict != c.verdict || !strings.Contains(r.Summary, c.says) {
			t.Errorf("%s: %s: %s", name, r.Verdict, r.Summary)
		}
	}
}
