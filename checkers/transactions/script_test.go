package transactions

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// parse reads a history, a transaction a line:
//
//	1 fail p2 @3-7: append x 1, r x [1 2], w y 3, r y 4, r y nil
//
// A transaction is ok, of a process of its own, and concurrent with all, unless it says other.
func parse(t testing.TB, text string) []Txn {
	t.Helper()
	var txns []Txn
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		head, body, ok := strings.Cut(line, ":")
		if !ok {
			t.Fatalf("%q has no colon", line)
		}
		txn := Txn{Return: 1000}
		for i, word := range strings.Fields(head) {
			switch {
			case i == 0:
				txn.ID = number(t, word)
				txn.Process = 1000 + txn.ID
			case word == "fail":
				txn.Type = Fail
			case word == "info":
				txn.Type, txn.Return = Info, Never
			case word[0] == 'p':
				txn.Process = number(t, word[1:])
			case word[0] == '@':
				call, back, _ := strings.Cut(word[1:], "-")
				txn.Call = int64(number(t, call))
				if back != "" {
					txn.Return = int64(number(t, back))
				}
			default:
				t.Fatalf("%q in %q", word, line)
			}
		}
		for step := range strings.SplitSeq(body, ",") {
			if step = strings.TrimSpace(step); step != "" {
				txn.Micros = append(txn.Micros, parseMicro(t, step))
			}
		}
		txns = append(txns, txn)
	}
	return txns
}

func parseMicro(t testing.TB, text string) Micro {
	f, rest, _ := strings.Cut(text, " ")
	key, value, _ := strings.Cut(rest, " ")
	m := Micro{F: f, Key: key}
	switch {
	case value == "nil":
		m.Nil = true
	case strings.HasPrefix(value, "["):
		m.List = []int64{}
		for _, word := range strings.Fields(strings.Trim(value, "[]")) {
			m.List = append(m.List, int64(number(t, word)))
		}
	case value != "":
		m.Value = int64(number(t, value))
	}
	return m
}

func number(t testing.TB, word string) int {
	n, err := strconv.Atoi(word)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// write is the inverse of parse, for the messages of tests.
func script(txns []Txn) string {
	var b strings.Builder
	for _, txn := range txns {
		fmt.Fprintf(&b, "%d %s p%d @%d-%d:", txn.ID, [...]string{"ok", "fail", "info"}[txn.Type], txn.Process, txn.Call, txn.Return)
		for i, m := range txn.Micros {
			if i > 0 {
				b.WriteString(",")
			}
			fmt.Fprintf(&b, " %s %s ", m.F, m.Key)
			switch {
			case m.List != nil:
				fmt.Fprint(&b, m.List)
			case m.Nil:
				b.WriteString("nil")
			default:
				fmt.Fprint(&b, m.Value)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// kindsOf returns the kinds of anomalies found, sorted.
func kindsOf(r Result) string {
	var kinds []string
	for k := range r.Counts {
		kinds = append(kinds, string(k))
	}
	slices.Sort(kinds)
	return strings.Join(kinds, " ")
}
