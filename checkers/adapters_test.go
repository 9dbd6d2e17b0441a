package checkers

import (
	"context"
	"strings"
	"testing"

	"capsize/histories"
)

// done appends an operation of a process that ended, one after the other.
func done(events []histories.Event, process int, op histories.Event) []histories.Event {
	op.Process = process
	invoke := op
	invoke.Index, invoke.Type, invoke.Revision = len(events), histories.Invoke, 0
	op.Index, op.Type = len(events)+1, histories.OK
	return append(events, invoke, op)
}

func TestSessionsThatGoBackAreFound(t *testing.T) {
	read := func(value, revision int64) histories.Event {
		return histories.Event{F: "read", Key: "x", Value: histories.Int(value), Revision: revision}
	}
	for name, c := range map[string]struct {
		ops     []histories.Event
		verdict Verdict
		says    string
	}{
		"forward":       {[]histories.Event{read(1, 4), read(2, 5), {F: "write", Key: "x", Value: histories.Int(3), Revision: 6}}, Valid, "every session saw its own writes"},
		"back":          {[]histories.Event{read(2, 5), read(1, 4)}, Invalid, "monotonic-reads is broken"},
		"own write":     {[]histories.Event{{F: "write", Key: "x", Value: histories.Int(3), Revision: 6}, read(2, 5)}, Invalid, "read-your-writes is broken"},
		"nothing there": {[]histories.Event{read(2, 5), {F: "read", Key: "x"}}, Invalid, "monotonic-reads is broken"},
		"stale":         {[]histories.Event{read(2, 5), {F: "read", Key: "x", Value: histories.Int(1), Revision: 4, Stale: true}, read(2, 5)}, Valid, "every session"},
		"no revisions":  {[]histories.Event{read(2, 0), read(1, 0)}, Valid, "not checked"},
		"one alone":     {[]histories.Event{read(2, 5)}, Unknown, "nothing was put to the test"},
	} {
		var events []histories.Event
		for _, op := range c.ops {
			events = done(events, 1, op)
		}
		if r := (&Sessions{}).Check(context.Background(), &Run{History: events}); r.Verdict != c.verdict || !strings.Contains(r.Summary, c.says) {
			t.Errorf("%s: %s: %s", name, r.Verdict, r.Summary)
		}
	}
}

func TestTransactionsAreReadFromAHistory(t *testing.T) {
	txn := func(micros ...histories.Micro) histories.Event {
		return histories.Event{F: Txn, Value: histories.Micros(micros...)}
	}
	r := func(key string, list ...int64) histories.Micro {
		return histories.Micro{F: "r", Key: key, Value: histories.Ints(list...)}
	}
	add := func(key string, n int64) histories.Micro {
		return histories.Micro{F: "append", Key: key, Value: histories.Int(n)}
	}
	for name, c := range map[string]struct {
		txns    []histories.Event
		verdict Verdict
		says    string
	}{
		"in order":     {[]histories.Event{txn(add("x", 1)), txn(r("x", 1), add("x", 2)), txn(r("x", 1, 2))}, Valid, "3 transactions"},
		"a stale read": {[]histories.Event{txn(add("x", 1)), txn(r("x"))}, Invalid, "not strict-serializable"},
		"a phantom":    {[]histories.Event{txn(add("x", 1)), txn(r("x", 1, 7))}, Invalid, "phantom"},
		"nonsense":     {[]histories.Event{{F: Txn, Value: histories.Int(3)}}, Unknown, "cannot be understood"},
		"a wrong step": {[]histories.Event{txn(histories.Micro{F: "pop", Key: "x", Value: histories.Int(3)})}, Unknown, "cannot be understood"},
		"none":         {nil, Unknown, "nothing was put to the test"},
	} {
		var events []histories.Event
		for i, op := range c.txns {
			events = done(events, i, op)
		}
		result := (&Transactions{}).Check(context.Background(), &Run{History: events})
		if result.Verdict != c.verdict || !strings.Contains(result.Summary, c.says) {
			t.Errorf("%s: %s: %s", name, result.Verdict, result.Summary)
		}
	}
}
