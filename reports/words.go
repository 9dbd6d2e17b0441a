package reports

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"capsize/histories"
)

// clock says a moment of the run, as the checkers' explanations do.
func clock(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }

// duration says how long something took, in as many digits as a person reads: 12.41 s,
// 3.2 ms, 312 µs.
func duration(d time.Duration) string {
	switch {
	case d < 0:
		return "−" + duration(-d)
	case d >= time.Hour:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	case d >= 2*time.Minute:
		d = d.Round(time.Second)
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	case d >= 999500*time.Microsecond:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= 99950*time.Microsecond:
		return fmt.Sprintf("%.0f ms", float64(d)/1e6)
	case d >= 999500*time.Nanosecond:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	case d >= time.Microsecond:
		return fmt.Sprintf("%.0f µs", float64(d)/1e3)
	default:
		return fmt.Sprintf("%d ns", d.Nanoseconds())
	}
}

// grouped writes a count with its thousands apart: 1,204,331.
func grouped(n int) string {
	digits := strconv.Itoa(n)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(digits) - 3; i > start; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// plural says a count with its noun: 1 fault, 2 faults.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return grouped(n) + " " + noun + "s"
}

// describe says in few words what an operation did: "write 5", "read → 5", "cas 5 → 6".
func describe(op histories.Operation) string {
	text := op.F
	pair, isList := op.Input.Ints()
	switch {
	case op.F == "cas" && isList && len(pair) == 2:
		text += fmt.Sprintf(" %d → %d", pair[0], pair[1])
	case !op.Input.IsNil():
		text += " " + op.Input.String()
	}
	if op.Type == histories.OK && !op.Output.Equal(op.Input) && !op.Output.IsNil() {
		text += " → " + op.Output.String()
	} else if op.Type == histories.OK && op.F == "read" && op.Output.IsNil() {
		text += " → nothing"
	}
	return short(text, 80)
}

// outcome says how an operation ended. Readers of a report need not know that info is the
// field's word for an unknown outcome.
func outcome(t histories.Type) string {
	if t == histories.OK || t == histories.Fail {
		return t.String()
	}
	return "unknown"
}

// returned says when an operation returned, "never" where its outcome is unknown.
func returned(op histories.Operation) string {
	if op.Return == histories.Forever {
		return "never"
	}
	return clock(op.Return)
}

// took says how long an operation took.
func took(op histories.Operation) string {
	if op.Return == histories.Forever {
		return "–"
	}
	return duration(op.Return - op.Call)
}

// short cuts a text after so many characters.
func short(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}

// oneLine puts a text of several lines on one.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// printable keeps a text from driving the terminal, or from showing itself in another order
// than it has: control characters and those that turn the direction of writing become
// question marks. Line ends stay.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || !unicode.IsControl(r) && !unicode.Is(unicode.Bidi_Control, r) && r != utf8.RuneError {
			return r
		}
		if r == '\t' {
			return ' '
		}
		return '?'
	}, s)
}
