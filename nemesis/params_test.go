package nemesis

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAParameterTakesWhatItSays(t *testing.T) {
	for _, c := range []struct {
		param     Param
		good, bad []string
	}{
		{Param{Kind: Choice, Allowed: []string{"a", "b"}}, []string{"a", "b"}, []string{"", "A", "a,b"}},
		{Param{Kind: Duration, Least: "-1s", Most: "1h"}, []string{"0", "-1s", "1h", "1.5s"}, []string{"", "1", "-1001ms", "61m", "1 s", "NaN"}},
		{Param{Kind: Duration}, []string{"-1000h", "1ns"}, []string{"soon"}},
		{Param{Kind: Number, Least: "0", Most: "1"}, []string{"0", "1", "0.5", "1e-3"}, []string{"", "-0.1", "1.1", "NaN", "Inf", "half"}},
		{Param{Kind: Number}, []string{"-7"}, []string{"NaN", "Inf", "-Inf", "infinity", "1e999"}},
		{Param{Kind: Count, Least: "1", Most: "10"}, []string{"1", "10"}, []string{"", "0", "11", "1.5", "99999999999999999999"}},
		{Param{Kind: Size, Least: "1", Most: "1GiB"}, []string{"1", "1B", "64KiB", "1 MiB", "1GiB"},
			[]string{"", "0", "-1", "KiB", "2GiB", "64kB", "1.5MiB", "9223372036854775807GiB"}},
		{Param{Kind: Text}, []string{"", "anything, at all"}, nil},
	} {
		for _, value := range c.good {
			if !c.param.accepts(value) {
				t.Errorf("%s is refused: %s", value, c.param.Values())
			}
		}
		for _, value := range c.bad {
			if c.param.accepts(value) {
				t.Errorf("%q is accepted: %s", value, c.param.Values())
			}
		}
	}
}

// Bounds of whole numbers are exact: a float would take 2^53+1 for 2^53.
func TestBoundsOfWholeNumbersAreExact(t *testing.T) {
	for _, kind := range []Kind{Count, Size} {
		p := Param{Kind: kind, Least: "0", Most: "9007199254740992"}
		if !p.accepts("9007199254740992") || p.accepts("9007199254740993") {
			t.Errorf("kind %d: the bound is not exact", kind)
		}
	}
}

func TestParametersAreReadAsTheyAreWritten(t *testing.T) {
	p := Params{"d": "-250ms", "n": "0.25", "c": "-3", "s": "64KiB", "l": "a,b", "none": ""}
	if p.Duration("d") != -250*time.Millisecond || p.Number("n") != 0.25 || p.Count("c") != -3 || p.Size("s") != 64<<10 {
		t.Errorf("%s %g %d %d", p.Duration("d"), p.Number("n"), p.Count("c"), p.Size("s"))
	}
	if !slices.Equal(p.Names("l"), []string{"a", "b"}) || p.Names("none") != nil || !p.Is("n", "0.25") {
		t.Errorf("names %q, %q", p.Names("l"), p.Names("none"))
	}
}

func TestAWrongParameterIsNamedWithWhatIsAllowed(t *testing.T) {
	params := []Param{{Name: "up", Kind: Duration, Default: "1s", Least: "10ms", Most: "10m"}}
	for name, c := range map[string]struct {
		params []Param
		given  map[string]string
		want   ScheduleError
	}{
		"a value": {params, map[string]string{"up": "1h"}, ScheduleError{Key: "params.up", Value: "1h", Allowed: "a duration with a unit from 10ms to 10m"}},
		"a name":  {params, map[string]string{"down": "1s"}, ScheduleError{Key: "params", Value: "down", Allowed: oneOf([]string{"up"})}},
		"no name": {nil, map[string]string{"up": "1s"}, ScheduleError{Key: "params", Value: "up", Allowed: "this fault has no parameters"}},
	} {
		if got := validateParams(c.params, c.given); got == nil || *got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	if got := validateParams(params, map[string]string{"up": "10ms"}); got != nil {
		t.Errorf("%+v", got)
	}
	if all := withDefaults(params, nil); !all.Is("up", "1s") {
		t.Errorf("defaults %v", all)
	}
}

// What a fault says of itself holds: its defaults and its cards are values that it takes.
func TestFaultsTakeTheirOwnDefaultsAndCards(t *testing.T) {
	for _, fault := range Faults() {
		about := fault.About()
		for _, p := range about.Params {
			if p.Name == "" || p.Meaning == "" || (p.Least == "") != (p.Most == "") {
				t.Errorf("%s: parameter %+v is not described", about.Name, p)
			}
			if p.Default != "" && !p.accepts(p.Default) {
				t.Errorf("%s: %s does not take its default %q: %s", about.Name, p.Name, p.Default, p.Values())
			}
			for _, bound := range []string{p.Least, p.Most} {
				if bound != "" && !p.accepts(bound) {
					t.Errorf("%s: %s does not take its own bound %q", about.Name, p.Name, bound)
				}
			}
		}
		for _, card := range about.Cards {
			if problem := validateParams(about.Params, card.Params); problem != nil {
				t.Errorf("%s: card %+v: %v", about.Name, card, problem)
			}
			if promise := about.beyond(withDefaults(about.Params, card.Params)); promise != "" {
				t.Errorf("%s: card %+v breaks a promise that Raft builds on: %s", about.Name, card, promise)
			}
		}
	}
}

// Who is started again must be able to reach the others, whichever fault ended it.
func TestTheNetworkIsHealedFirstAndProcessesAreStartedLast(t *testing.T) {
	ranks := map[string]int{}
	for _, fault := range Faults() {
		about := fault.About()
		ranks[about.Name] = Planned{Fault: about.Name}.healsLate()
	}
	for _, ended := range []string{"kill", "term", "crash-loop", "rolling-restart", "amnesia"} {
		if ranks[ended] <= ranks["partition"] || ranks[ended] <= ranks["pause"] {
			t.Errorf("%s is healed before what it needs: %v", ended, ranks)
		}
	}
	if ranks["remove"] <= ranks["kill"] {
		t.Errorf("members change before a majority serves: %v", ranks)
	}
}

func FuzzParseSize(f *testing.F) {
	for _, text := range []string{"64KiB", "1 MiB", "-1", "9223372036854775807", "GiB", "+5B"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := parseSize(text)
		if err == nil && (n < 0 || n > math.MaxInt64/2+1 || !strings.ContainsAny(text, "0123456789")) {
			t.Fatalf("%q is %d", text, n)
		}
	})
}
