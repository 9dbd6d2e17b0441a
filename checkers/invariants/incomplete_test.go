package invariants

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// What a missing line would have excused must not be called a violation: take any lines
// away from correct runs.
func TestNoMissingLineIsTakenForAViolation(t *testing.T) {
	holes := 0
	for name, script := range stories {
		events := parse(t, script)
		for from := range events {
			for _, n := range []int{1, 2, 5} {
				kept := slices.Concat(events[:from], events[min(from+n, len(events)):])
				c := New(Options{})
				for _, e := range kept {
					c.Add(e)
				}
				for _, e := range events[from:min(from+n, len(events))] {
					if e.Seq > c.node(e.Node).seq {
						c.Incomplete(e.Node, "its end is missing") // which the trace cannot tell
					}
				}
				r := c.Finish()
				if len(r.Violations) > 0 {
					t.Fatalf("%s without lines %d to %d, from %v:\n%s", name, from, from+n, events[from], explain(r))
				}
				if len(r.Incomplete) > 0 {
					holes++
				}
			}
		}
	}
	if holes < 300 {
		t.Errorf("only %d traces were found incomplete", holes)
	}
}

func TestARunWithoutANodesTraceIsUndecided(t *testing.T) {
	events := parse(t, story)
	kept := slices.DeleteFunc(slices.Clone(events), func(e Event) bool { return e.Node == "n3" })
	r := check(kept, Options{})
	if len(r.Violations) > 0 {
		t.Error(explain(r))
	}
	if says := explain(r); !strings.Contains(says, "I3 undecided 1 times: there is no trace of n3") {
		t.Error(says)
	}
}

func TestMissingLinesAreTold(t *testing.T) {
	for _, test := range []struct{ script, says string }{
		{"n1 boot conf=n1\nn1 term t=1 seq=4", "incarnation 1, lines 2 to 3 are missing"},
		{"n1 boot conf=n1\nn1 term t=1 seq=1", "incarnation 1, line 1 is out of order"},
		{"n1 term t=1 inc=2 seq=7", "the beginning of incarnation 2 is missing"},
		{"n1 boot conf=n1 inc=3", "incarnation 2 and what comes before are missing"},
		{"n1 boot conf=n1\nn1 boot conf=n1 inc=1 seq=2", "line 2 of incarnation 1 says that it begins"},
		{"n1 boot conf=n1\nn1 append t=1 h=a i=1152921504606846976", "incarnation 1, line 2 is not plausible"},
		{"n1 boot conf=n1 last=3 lastTerm=1 h=a", "incarnation 1 began with entries of which no line tells"},
		{"n1 boot conf=n1 last=3 lastTerm=1", "it does not tell what the node found on its disk"},
	} {
		r := check(parse(t, test.script), Options{})
		if r.Incomplete["n1"] != test.says || len(r.Violations) > 0 {
			t.Errorf("%s:\nsays %q, want %q\n%s", test.script, r.Incomplete["n1"], test.says, explain(r))
		}
	}
}

// A node that is killed again and again may have counted a start, and been killed before it
// could tell of it: then it did nothing.
func TestAStartThatDidNothingIsNotMissed(t *testing.T) {
	const lived = `
n1 boot conf=n1,n2,n3
n1 term t=2
n1 votePersist t=2 cand=n3
n1 append t=2 i=1 h=a
n1 persist uptoIdx=1 uptoTerm=2 t=2 vote=n3
n1 boot conf=n1,n2,n3 inc=3 `
	for again, missed := range map[string]bool{
		"t=2 vote=n3 last=1 lastTerm=2 h=a": false,
		"t=2 last=1 lastTerm=2 h=a":         false, // its vote is judged, not its trace
		"t=3 vote=n3 last=1 lastTerm=2 h=a": true,
		"t=2 vote=n2 last=1 lastTerm=2 h=a": true,
		"t=2 vote=n3 last=2 lastTerm=2 h=b": true,
	} {
		r := check(parse(t, lived+again), Options{})
		if (r.Incomplete["n1"] != "") != missed {
			t.Errorf("%s:\n%s", again, explain(r))
		}
	}
}

// Whose files a fault emptied or changed comes back with less than it had. That is no
// violation, nor a hole in its trace; what it does then may be one.
func TestANodeWhoseFilesAFaultTookMayForget(t *testing.T) {
	const lived = `
n1 boot conf=n1,n2,n3
n1 term t=2
n1 votePersist t=2 cand=n3
n1 voteSend t=2 to=n3 granted
n1 append t=2 i=1 h=a
n1 persist uptoIdx=1 uptoTerm=2 t=2 vote=n3
n1 ackSend to=n3 t=2 i=1
`
	for name, then := range map[string]string{
		"emptied, and given back": "n1 boot conf=n1,n2,n3 inc=1\nn1 term t=2 inc=1\nn1 boot conf=n1,n2,n3 inc=2 t=2 vote=n3 last=1 lastTerm=2 h=a",
		"an older state":          "n1 boot conf=n1,n2,n3 inc=2 t=2",
		"an older term":           "n1 boot conf=n1,n2,n3 inc=2 t=1",
	} {
		events := parse(t, lived+then)
		r := check(events, Options{})
		if len(r.Violations) == 0 && len(r.Incomplete) == 0 {
			t.Errorf("%s, and by no fault: nothing was found", name)
		}
		c := New(Options{})
		c.Unkept("n1", "n1 was emptied")
		for _, e := range events {
			c.Add(e)
		}
		r = c.Finish()
		if len(r.Violations)+len(r.Incomplete) > 0 || !strings.Contains(explain(r), "n1 was emptied") {
			t.Errorf("%s:\n%s", name, explain(r))
		}
		c = New(Options{})
		c.Unkept("n1", "n1 was emptied")
		for _, e := range parse(t, lived+"n1 boot conf=n1,n2,n3 inc=1\nn1 term t=2 inc=1\nn1 votePersist t=2 cand=n2 inc=1") {
			c.Add(e)
		}
		if r = c.Finish(); len(r.Violations) != 1 || r.Violations[0].Invariant != OneVote {
			t.Errorf("a second vote:\n%s", explain(r))
		}
	}
}

func TestACommitOfWhichTooLittleIsToldIsUndecided(t *testing.T) {
	for _, test := range []struct{ old, new, says string }{
		{"n1 leader t=1 conf=n1,n2,n3 voters=n1,n3\n", "", "I9 undecided 1 times: no line tells that n1 leads the term in which it commits"},
		{"n1 leader t=1 conf=n1,n2,n3 voters=n1,n3\n", "n1 leader t=1 conf= voters=n1,n3\n", "I9 undecided 1 times: the configuration in which n1 leads is not told"},
		{"n1 leader t=1 conf=n1,n2,n3 voters=n1,n3\n", "n1 leader t=1 conf= voters=n1,n3\n", "I3 undecided 1 times: the configuration in which n1 was elected is not told"},
	} {
		script := mutate(t, succession, test.old, test.new, "n1 boot conf=n1,n2,n3\n", "n1 boot\n")
		events := parse(t, script)
		for i := range events {
			if e := &events[i]; e.Conf != nil && e.Conf.Voters[0] == "" {
				e.Conf = nil
			}
		}
		if r := check(events, Options{}); len(r.Violations) > 0 || !strings.Contains(explain(r), test.says) {
			t.Errorf("%s:\n%s", test.says, explain(r))
		}
	}
}

func TestAHostThatLostPowerLeavesChecksUndecided(t *testing.T) {
	script := mutate(t, story, "n3 ackSend to=n2 t=2 i=2\nn2 progress t=2 peer=n3 match=2 next=3\n", "", "n1 ackSend to=n2 t=2 i=2\nn2 progress t=2 peer=n1 match=2 next=3\n", "")
	c := New(Options{})
	for _, e := range parse(t, script) {
		c.Add(e)
	}
	c.Incomplete("n3", "its host lost power")
	r := c.Finish()
	if len(r.Violations) > 0 || !strings.Contains(explain(r), "I9 undecided 1 times: the trace of n3 is incomplete: its host lost power") {
		t.Error(explain(r))
	}
}

func TestLivenessAfterHealing(t *testing.T) {
	script := boots(three, "n1", "n2") + at("", elects(1, three, "n1", "0/0", "n2", "0/0")) + `
n1 append i=1 t=1 h=a
n1 persist uptoIdx=1 uptoTerm=1 t=1 vote=n1
n2 append i=1 t=1 h=a
n2 persist uptoIdx=1 uptoTerm=1 t=1 vote=n1
n2 ackSend to=n1 t=1 i=1
n1 commit i=1 role=leader t=1
n1 apply i=1 t=1 h=a digest=A
`
	events := parse(t, script)
	led := events[slices.IndexFunc(events, func(e Event) bool { return e.Kind == Leader })]
	for _, test := range []struct {
		what      string
		heal      time.Duration // after the election
		bound     time.Duration
		end       time.Duration // when the last line is
		want      []Invariant
		says      string
		hole      bool // in the trace of n3
		undecided bool
	}{
		{what: "a leader that was there commits", heal: time.Millisecond, bound: time.Second, end: time.Hour},
		{what: "a leader comes and commits", heal: -time.Millisecond, bound: time.Second, end: time.Hour},
		{what: "it commits too late", heal: -time.Millisecond, bound: 3 * time.Millisecond, end: time.Hour, want: []Invariant{Liveness}, says: "no leader committed anything"},
		{what: "nobody leads", heal: time.Minute, bound: time.Second, end: time.Hour, want: []Invariant{Liveness}, says: "there was no leader"},
		{what: "the run ends before", heal: time.Minute, bound: time.Second, end: time.Minute, undecided: true},
		{what: "a trace is incomplete", heal: time.Minute, bound: time.Second, end: time.Hour, hole: true, undecided: true},
		{what: "nobody asked", heal: time.Minute, end: time.Hour},
	} {
		t.Run(test.what, func(t *testing.T) {
			c := New(Options{LivenessBound: test.bound})
			c.Healed(time.Unix(0, led.Time).Add(test.heal))
			if test.hole {
				c.Incomplete("n3", "its host lost power")
			}
			for i, e := range events {
				if i == len(events)-1 {
					e.Time = led.Time + int64(test.end)
				}
				c.Add(e)
			}
			r := c.Finish()
			if !slices.Equal(broken(r), test.want) || !strings.Contains(explain(r), test.says) || len(r.Undecided) > 0 != test.undecided {
				t.Error(explain(r))
			}
			if _, checked := r.Checks[Liveness]; checked != (test.bound > 0 && !test.undecided) {
				t.Error("checked:", checked)
			}
		})
	}
}

func TestViolationsAreBounded(t *testing.T) {
	script := "n1 boot conf=n1\n" + strings.Repeat("n1 apply i=5 t=1 h=a\n", 100)
	r := check(parse(t, script), Options{})
	if len(r.Violations) != violationsMost || r.More != 100-violationsMost {
		t.Errorf("%d violations and %d more", len(r.Violations), r.More)
	}
}

func TestAReportOfNothingSaysThatNothingWasChecked(t *testing.T) {
	if r := check(nil, Options{}); len(r.Checks) != 0 || len(r.Violations) != 0 {
		t.Error(r)
	}
}

// Whatever comes in, no check may panic.
func FuzzAdd(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed, uint16(300))
	}
	var all []Event
	for _, name := range slices.Sorted(maps.Keys(stories)) {
		all = append(all, parse(f, stories[name])...)
	}
	f.Fuzz(func(_ *testing.T, seed uint64, count uint16) {
		rng := rand.New(rand.NewPCG(seed, 5))
		c := New(Options{OneClock: true, LivenessBound: time.Second})
		c.Healed(time.Unix(0, 0))
		sequence := map[string]uint64{}
		for range count {
			e := all[rng.IntN(len(all))]
			sequence[e.Node]++
			e.Seq = sequence[e.Node]
			for _, number := range []*uint64{&e.Incarnation, &e.Term, &e.Index, &e.From, &e.Last, &e.LastTerm, &e.SnapIndex, &e.UpTo, &e.UpToTerm, &e.Commit, &e.Applied, &e.Match, &e.Next} {
				switch rng.IntN(8) {
				case 0:
					*number = rng.Uint64N(4)
				case 1:
					*number = rng.Uint64() >> rng.IntN(64)
				}
			}
			if rng.IntN(8) == 0 {
				e.Kind = Kind(rng.IntN(len(kindNames)))
			}
			e.Incarnation = 1
			if e.Kind == Boot || rng.IntN(50) == 0 {
				e.Incarnation, e.Seq = 1+rng.Uint64N(3), 1
			}
			if rng.IntN(10) == 0 {
				e.Conf, e.Old, e.New, e.Hash, e.Voters = nil, nil, nil, 0, nil
			}
			c.Add(e)
		}
		for _, v := range c.Finish().Violations {
			if v.Explanation == "" || strings.Contains(v.Explanation, "%!") {
				panic(v.Explanation)
			}
		}
	})
}
