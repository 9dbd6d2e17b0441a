package invariants

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Traces in these tests are scripts: a line is a node, an event and its fields.
//
//	n1 persist uptoIdx=1 uptoTerm=1 t=1 vote=n1
//	n2 voteSend t=1 to=n1 granted candLast=1/1
//
// A hash is any word; a position is term/index; a list has commas; the halves of a joint
// configuration have a bar between them, and learners a plus before them. Sequence and
// incarnation count themselves; seq= leaves a gap. Time is the number of the line, in
// milliseconds, unless at= sets it. Empty lines and what follows # mean nothing.

// parse makes events of a script, through the decoder.
func parse(t testing.TB, script string) []Event {
	t.Helper()
	var events []Event
	sequence, incarnation := map[string]int{}, map[string]int{}
	for number, line := range strings.Split(script, "\n") {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		node := words[0]
		if words[1] == "boot" {
			incarnation[node]++
			sequence[node] = 0
		}
		sequence[node]++
		fields := map[string]any{
			"node": node, "ev": words[1], "seq": sequence[node], "inc": incarnation[node], "time": (number + 1) * 1e6,
		}
		for _, word := range words[2:] {
			name, value, _ := strings.Cut(word, "=")
			fields[name] = field(t, name, value)
		}
		sequence[node] = fields["seq"].(int)
		data, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		e, err := Decode(data)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		events = append(events, e)
	}
	return events
}

func field(t testing.TB, name, value string) any {
	t.Helper()
	switch name {
	case "vote", "to", "cand", "peer", "role":
		return value
	case "granted":
		return true
	case "h", "digest":
		return fmt.Sprintf("%016x", word(value))
	case "voters":
		return strings.Split(value, ",")
	case "conf", "old", "new":
		value, learners, _ := strings.Cut(value, "+")
		voters, outgoing, _ := strings.Cut(value, "|")
		conf := map[string]any{"voters": strings.Split(voters, ",")}
		if outgoing != "" {
			conf["outgoing"] = strings.Split(outgoing, ",")
		}
		if learners != "" {
			conf["learners"] = strings.Split(learners, ",")
		}
		return conf
	case "candLast":
		term, index, _ := strings.Cut(value, "/")
		return map[string]any{"t": field(t, "t", term), "i": field(t, "i", index)}
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		t.Fatalf("%s=%s is no number", name, value)
	}
	return n
}

func word(w string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(w)) // never fails
	return h.Sum64()
}

func check(events []Event, options Options, heals ...int) Report {
	c := New(options)
	for _, ms := range heals {
		c.Healed(milliseconds(ms))
	}
	for _, e := range events {
		c.Add(e)
	}
	return c.Finish()
}

// mutate replaces lines of a script: each second string takes the place of the one before
// it. Each must be found.
func mutate(t testing.TB, script string, edits ...string) string {
	t.Helper()
	for i := 0; i < len(edits); i += 2 {
		if times := strings.Count(script, edits[i]); times != 1 {
			t.Fatalf("%q is in the script %d times", edits[i], times)
		}
		script = strings.Replace(script, edits[i], edits[i+1], 1)
	}
	return script
}

// broken lists the invariants that a report says were broken.
func broken(r Report) []Invariant {
	var list []Invariant
	for _, v := range r.Violations {
		list = append(list, v.Invariant)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// explain is what a failing test prints.
func explain(r Report) string {
	var b strings.Builder
	for _, v := range r.Violations {
		fmt.Fprintf(&b, "%v %s: %s\n", v.Invariant, v.Name, v.Explanation)
		for _, e := range v.Events {
			fmt.Fprintf(&b, "\t%v\n", e)
		}
	}
	for _, u := range r.Undecided {
		fmt.Fprintf(&b, "%v undecided %d times: %s\n", u.Invariant, u.Times, u.Reason)
	}
	return b.String()
}

// interleave merges the nodes' traces anew, keeping each node's order.
func interleave(events []Event, rng *rand.Rand) []Event {
	queues := map[string][]Event{}
	var names []string
	for _, e := range events {
		if queues[e.Node] == nil {
			names = append(names, e.Node)
		}
		queues[e.Node] = append(queues[e.Node], e)
	}
	slices.Sort(names)
	var merged []Event
	for len(names) > 0 {
		i := rng.IntN(len(names))
		node := names[i]
		run := min(1+rng.IntN(1+rng.IntN(12)), len(queues[node]))
		merged = append(merged, queues[node][:run]...)
		if queues[node] = queues[node][run:]; len(queues[node]) == 0 {
			names = slices.Delete(names, i, i+1)
		}
	}
	return merged
}
