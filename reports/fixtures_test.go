package reports

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"capsize/checkers"
	"capsize/histories"
)

// The runs that the tests draw: a register under six faults, as harness and checkers would
// leave it, and what may become of it.

const fixtureSpan = 30 * time.Second

// fixture makes up a run, the same one each time.
type fixture struct {
	random *rand.Rand
	events []histories.Event
	faults []histories.Fault
	from   []time.Duration // of the faults
	to     []time.Duration
}

// validRun is a run of 30 s with six faults, two of which overlap. Its clients would make so
// many operations if none was slow; since many time out, it is less than half of them.
func validRun(operations int) *Run {
	f := &fixture{random: rand.New(rand.NewPCG(1, 2))} //nolint:gosec // not for secrets
	f.fault(3*time.Second, 5*time.Second, "partition", "leader", "n1 | n2 n3 n4 n5", "n1")
	f.fault(7200*time.Millisecond, 9*time.Second, "kill", "leader", "n2", "n2")
	f.fault(11*time.Second, 14200*time.Millisecond, "pause", "n4", "n4", "n4")
	f.fault(12800*time.Millisecond, 15*time.Second, "partition", "minority", "n1 n5 | n2 n3 n4", "n1", "n5")
	f.fault(18*time.Second, 20*time.Second, "clock", "one", "n3 +5 s", "n3")
	f.fault(22*time.Second, 25*time.Second, "kill", "majority", "n1 n2 n3", "n1", "n2", "n3")
	f.statuses()
	f.clients(operations)
	return f.run()
}

func (f *fixture) add(e histories.Event) { f.events = append(f.events, e) }

func (f *fixture) fault(from, to time.Duration, name, target, detail string, nodes ...string) {
	fault := histories.Fault{ID: len(f.faults) + 1, Name: name, Target: target, Detail: detail, Nodes: nodes}
	f.faults, f.from, f.to = append(f.faults, fault), append(f.from, from), append(f.to, to)
	phase := func(at time.Duration, phase histories.Phase, took time.Duration, proof ...string) {
		now := fault
		now.Phase, now.Took, now.Proof = phase, took, proof
		f.add(histories.Event{Time: at, Process: histories.Nemesis, Type: histories.Info, F: name, Fault: &now})
	}
	phase(from, histories.Inject, 0)
	phase(from+29*time.Millisecond, histories.Landed, 5640*time.Microsecond, "probes: 12 of 12 open pairs arrived, 0 of 8 cut pairs", "held back so far: n1->n2 115, n1->n3 115")
	phase(to, histories.Heal, 0)
	phase(to+225*time.Millisecond, histories.Healed, 225106*time.Microsecond, "probes: 20 of 20 open pairs arrived")
}

// statuses records who led, as a run with these faults would go.
func (f *fixture) statuses() {
	up := func(ms int, node string, term uint64, role, leader string) {
		f.add(histories.Event{Time: time.Duration(ms) * time.Millisecond, Process: histories.Observer, Type: histories.Info, F: "status", Node: node, Status: &histories.Status{Up: true, Term: term, Role: role, Leader: leader}})
	}
	down := func(ms int, node string) {
		f.add(histories.Event{Time: time.Duration(ms) * time.Millisecond, Process: histories.Observer, Type: histories.Info, F: "status", Node: node, Status: &histories.Status{}})
	}
	follow := func(ms int, term uint64, leader string, nodes ...string) {
		up(ms, leader, term, "leader", leader)
		for _, node := range nodes {
			up(ms+20, node, term, "follower", leader)
		}
	}
	for i, node := range []string{"n1", "n2", "n3", "n4", "n5"} {
		up(120+i, node, 0, "follower", "")
	}
	follow(300, 1, "n1", "n2", "n3", "n4", "n5")
	up(3400, "n3", 2, "candidate", "")
	follow(3600, 2, "n2", "n3", "n4", "n5")
	up(5300, "n1", 2, "follower", "n2")
	down(7320, "n2")
	follow(7700, 3, "n1", "n3", "n4", "n5")
	up(9300, "n2", 3, "follower", "n1")
	down(11400, "n4")
	follow(13300, 4, "n3", "n2")
	up(14500, "n4", 4, "follower", "n3")
	up(15300, "n1", 4, "follower", "n3")
	up(15320, "n5", 4, "follower", "n3")
	for _, node := range []string{"n1", "n2", "n3"} {
		down(22400, node)
	}
	up(22600, "n4", 5, "candidate", "")
	up(22800, "n5", 6, "candidate", "")
	follow(25600, 7, "n5", "n1", "n2", "n3", "n4")
}

// clients records the operations of ten processes, slower and failing while faults are in
// force. A process that saw an unknown outcome gets a new number.
func (f *fixture) clients(operations int) {
	const threads = 10
	var process [threads]int
	for i := range process {
		process[i] = i
	}
	next := threads
	for thread := range threads {
		at := 350*time.Millisecond + time.Duration(thread)*time.Millisecond
		step := (fixtureSpan - at) * threads / time.Duration(max(operations, 1))
		for i := thread; i < operations; i += threads {
			call := at + time.Duration(f.random.Float64()*0.3*float64(step))
			e := f.invocation(process[thread], i, call)
			f.add(e)
			took, kind, text := f.fate(call, step)
			if kind != histories.Invoke { // else the recording ends before it
				e.Time, e.Type, e.Error = call+took, kind, text
				if e.F == "read" && kind == histories.OK {
					e.Value = histories.Int(int64(i))
				}
				f.add(e)
			}
			if kind == histories.Info || kind == histories.Invoke {
				process[thread] = next
				next++
			}
			at = max(at+step, call+took+time.Microsecond)
			if at >= fixtureSpan || kind == histories.Invoke {
				break
			}
		}
	}
}

func (f *fixture) invocation(process, i int, call time.Duration) histories.Event {
	e := histories.Event{Time: call, Process: process, Type: histories.Invoke, Key: fmt.Sprintf("k%d", i%40), Node: fmt.Sprintf("n%d", 1+f.random.IntN(5)), Final: call > 28*time.Second}
	switch f.random.IntN(5) {
	case 0, 1:
		e.F, e.Value = "write", histories.Int(int64(i))
	case 2:
		e.F, e.Value = "cas", histories.Ints(int64(i)-40, int64(i))
	default:
		e.F = "read"
	}
	return e
}

// fate says how an operation ends that begins now.
func (f *fixture) fate(call, step time.Duration) (took time.Duration, kind histories.Type, text string) {
	usual := min(float64(4*time.Millisecond), float64(step)/3)
	took = time.Duration(usual * math.Exp(f.random.NormFloat64()*0.6))
	for i := range f.faults {
		if call < f.from[i] || call > f.to[i]+200*time.Millisecond {
			continue
		}
		odds := 0.05
		if call < f.from[i]+600*time.Millisecond || f.faults[i].Target == "majority" {
			odds = 0.6
		}
		if f.random.Float64() > odds {
			took = time.Duration(float64(took) * (1 + 3*f.random.Float64()))
			continue
		}
		if f.random.IntN(3) > 0 {
			return 30*time.Millisecond + time.Duration(f.random.IntN(40))*time.Millisecond, histories.Fail, "503 Service Unavailable: no leader is known: try again, or another node"
		}
		return 2*time.Second + time.Duration(f.random.IntN(3000))*time.Microsecond, histories.Info, "no answer within 2 s"
	}
	if call+took > fixtureSpan-8*time.Millisecond {
		return took, histories.Invoke, ""
	}
	return took, histories.OK, ""
}

// run puts the events in order and judges them as valid.
func (f *fixture) run() *Run {
	slices.SortStableFunc(f.events, func(a, b histories.Event) int { return int(a.Time - b.Time) })
	for i := range f.events {
		f.events[i].Index = i
	}
	ops := histories.Operations(f.events)
	counts := checkers.Counts{P50: 4100 * time.Microsecond, P90: 9200 * time.Microsecond, P99: 31547 * time.Microsecond, Max: 1943 * time.Millisecond}
	for _, op := range ops {
		switch op.Type {
		case histories.OK:
			counts.OK++
		case histories.Fail:
			counts.Fail++
		default:
			counts.Info++
		}
	}
	r := &Run{
		ID: "1123-073537-1de4c7", Name: "raftnode-register", Started: time.Date(2026, 11, 23, 7, 35, 37, 0, time.UTC), Dir: "runs/raftnode-register/20261123T073537Z",
		Command: "checker run --config runs/raftnode-register/20261123T073537Z/plan.yaml",
		System:  "raftnode", Version: "v0.1.0", Nodes: []string{"n1", "n2", "n3", "n4", "n5"}, Seed: 5,
		Verdict: "valid", History: f.events,
	}
	for _, line := range strings.Split("name raftnode-register,seed 5,time-limit 30s,cluster local,nodes 5,image capsize-node:1,hosts,system raftnode,ready-limit 20s,workload register,concurrency 10,rate 1000,keys 40,ops-per-key 120,op-timeout 2s,nemesis partition;pause;kill;clock,nemesis-interval 5s,schedule,recovery-limit 10s,min-ok 100,check-timeout 1m0s,check-memory 2GiB", ",") {
		key, value, _ := strings.Cut(line, " ")
		r.Plan = append(r.Plan, Field{key, value})
	}
	r.Results = []checkers.Result{
		{Checker: "linearizability", Verdict: checkers.Valid, Summary: fmt.Sprintf("%d operations on 40 keys are linearizable", counts.OK), Took: 21759837, Linearizability: &checkers.LinearizabilityEvidence{Methods: map[string]int{"unique values": 40}, Keys: 40, Operations: counts.OK}},
		{Checker: "one-leader-a-term", Verdict: checkers.Valid, Summary: "6 terms had a leader, and none had two (trace of n1, trace of n2, status polls)", Took: 38149859, Leaders: &checkers.LeadersEvidence{
			Sources: []string{"trace of n1", "trace of n2", "status polls"}, Terms: []checkers.Leadership{{Term: 1, Node: "n1", Source: "n1/trace.jsonl:6"}, {Term: 2, Node: "n2", Source: "n2/trace.jsonl:3783"}},
		}},
		{Checker: "exits", Verdict: checkers.Valid, Summary: "no node's process ended by itself", Took: 2100},
		{Checker: "liveness", Verdict: checkers.Valid, Summary: "every node answered within 1.1 s of the last heal", Took: 165595, Liveness: &checkers.LivenessEvidence{
			HealedAt: 25225 * time.Millisecond, Bound: 10 * time.Second, Answered: map[string]time.Duration{"n1": 1116 * time.Millisecond, "n2": 1112 * time.Millisecond, "n3": 312 * time.Millisecond, "n4": 3200 * time.Microsecond, "n5": time.Second},
		}},
		{Checker: "faults", Verdict: checkers.Valid, Summary: "all 6 faults landed and were healed, 3 of them hit the leader", Took: 50796, Faults: &checkers.FaultsEvidence{Planned: 6, Landed: 6, Healed: 6, OnLeader: 3, ByName: map[string]int{"kill": 2, "partition": 2, "pause": 1, "clock": 1}}},
		{Checker: "statistics", Verdict: checkers.Valid, Summary: fmt.Sprintf("%d operations: %d ok, %d fail, %d info; latency of ok: half within 4.1ms, 99 %% within 31.55ms", len(ops), counts.OK, counts.Fail, counts.Info), Took: 11329134, Statistics: &checkers.Statistics{
			Operations: map[string]checkers.Counts{"": counts, "read": counts, "write": {OK: 3077, Fail: 31, P50: 8215896, P90: 16378720, P99: 36610958, Max: 1940610437}, "cas": {Info: 3}}, MinimumOK: 100,
			Phases: []checkers.PhaseRate{{Name: "before faults", From: 350 * time.Millisecond, To: 3 * time.Second, OK: 1780, PerSec: 672}, {Name: "during faults", From: 3 * time.Second, To: 25225 * time.Millisecond, OK: 8113, PerSec: 573.6}, {Name: "after faults", From: 25225 * time.Millisecond, To: 30 * time.Second, OK: 3300, PerSec: 691}},
			Errors: map[string]int{"503 Service Unavailable: no leader is known: try again, or another node": counts.Fail, "no answer within 2 s": counts.Info},
		}},
	}
	r.Headline = Headline(r.Verdict, r.Results)
	return r
}

// invalidRun has a stale read: after 100052 was read, an earlier value was read again.
func invalidRun(operations int) *Run {
	r := validRun(operations)
	ms := func(at float64) time.Duration { return time.Duration(at * float64(time.Millisecond)) }
	story := []histories.Operation{
		{Process: 9001, F: "write", Node: "n2", Input: histories.Int(100045), Output: histories.Int(100045), Type: histories.OK, Call: ms(12290.2), Return: ms(12294.9)},
		{Process: 9002, F: "cas", Node: "n1", Input: histories.Ints(100045, 100052), Type: histories.Info, Call: ms(12296.1), Return: histories.Forever},
		{Process: 9003, F: "read", Node: "n3", Output: histories.Int(100052), Type: histories.OK, Call: ms(13301.5), Return: ms(13304.2)},
		{Process: 9001, F: "read", Node: "n1", Output: histories.Int(100045), Type: histories.OK, Call: ms(13320.0), Return: ms(13330.4)},
		{Process: 9004, F: "write", Node: "n4", Input: histories.Int(100060), Type: histories.Fail, Call: ms(13325), Return: ms(13329), Error: "no leader"},
	}
	for i := range story {
		story[i].Key = "k17"
	}
	r.insert(story)
	core := story[:4]
	r.violate(checkers.Violation{
		Key: "k17", At: ms(13330.4), Core: core, Around: story, Picture: "porcupine-k17.html",
		Explanation: "key k17: read at 13.320 s by process 9001 on n1 returned 100045, but the read of 100052 (process 9003 on n3, 13.302–13.304 s) had ended before it began, and 100045 was replaced by 100052: a stale read",
	})
	return r
}

// insert puts operations into the history and notes where.
func (r *Run) insert(operations []histories.Operation) {
	for i, op := range operations {
		e := histories.Event{Time: op.Call, Process: op.Process, Type: histories.Invoke, F: op.F, Key: op.Key, Node: op.Node, Value: op.Input, Index: -1 - i}
		r.History = append(r.History, e)
		if op.Return != histories.Forever {
			e.Time, e.Type, e.Value, e.Error, e.Index = op.Return, op.Type, op.Output, op.Error, -1000-i
			r.History = append(r.History, e)
		}
	}
	slices.SortStableFunc(r.History, func(a, b histories.Event) int { return int(a.Time - b.Time) })
	for i := range r.History {
		switch index := r.History[i].Index; {
		case index <= -1000:
			operations[-1000-index].Returned = i
		case index < 0:
			operations[-1-index].Invoked, operations[-1-index].Returned = i, -1
		}
		r.History[i].Index = i
	}
}

func (r *Run) violate(violations ...checkers.Violation) {
	r.Results[0].Verdict, r.Results[0].Summary = checkers.Invalid, violations[0].Explanation
	r.Results[0].Linearizability.Violations = violations
	r.Verdict = "invalid"
	r.Headline = Headline(r.Verdict, r.Results)
}

// unknownRun has a fault that did not land, and a key that could not be decided.
func unknownRun(operations int) *Run {
	r := validRun(operations)
	r.History = slices.DeleteFunc(r.History, func(e histories.Event) bool {
		return e.Fault != nil && e.Fault.ID == 5 && (e.Fault.Phase == histories.Heal || e.Fault.Phase == histories.Healed)
	})
	for i := range r.History {
		if fault := r.History[i].Fault; fault != nil && fault.ID == 5 && fault.Phase == histories.Landed {
			missed := *fault
			missed.Phase, missed.Proof = histories.Missed, nil
			r.History[i].Fault, r.History[i].Error = &missed, "set the clock of n3: operation not permitted: the agent needs CAP_SYS_TIME"
		}
		r.History[i].Index = i
	}
	r.Results[0].Verdict, r.Results[0].Summary = checkers.Unknown, "key k3 could not be decided within 1m0s; 39 other keys are linearizable"
	r.Results[0].Linearizability.Undecided = []checkers.Undecided{{Key: "k3", Operations: 512, Reason: "the time limit of 1m0s ended"}}
	r.Results[4].Verdict, r.Results[4].Summary = checkers.Unknown, "of 6 planned faults 5 landed and 5 were healed: fault 5 (clock of one, n3): it missed: operation not permitted"
	r.Results[4].Faults = &checkers.FaultsEvidence{Planned: 6, Landed: 5, Healed: 5, OnLeader: 3, ByName: map[string]int{"kill": 2}, Problems: []string{"fault 5 (clock of one, n3): it missed: operation not permitted"}}
	r.Verdict = "unknown"
	r.Headline = Headline(r.Verdict, r.Results)
	return r
}

// failedRun is one whose harness failed before any client began.
func failedRun() *Run {
	r := validRun(0)
	r.History = r.History[:0]
	r.Results = nil
	r.Verdict = harnessFailed
	r.Harness = []string{"start n3: copy the agent: write /opt/capsize/agent: no space left on device", "n3: last lines of its log:\nwal: open wal/00012.wal: no space left on device\nexit status 1"}
	r.Headline = "The harness failed, so this run says nothing of the system: " + r.Harness[0]
	return r
}
