package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// everyFault has a step of each fault that works in containers, one after the other, with what
// the target itself must show of it.
var everyFault = []struct {
	step string // fault, target, params
	// proof is what the proof of landing must contain.
	proof string
	// seen tells from the history whether the target felt it; nil where the proof is the
	// target's own word.
	seen func(fault) error
}{
	{`fault: partition, target: all, params: {kind: halves}`, "probes:", nil},
	{`fault: partition, target: leader, params: {kind: isolate-leader}`, "0 of 8 cut pairs", fault.anotherLeads},
	{`fault: partition, target: leader, params: {kind: leader-minority}`, "probes:", fault.anotherLeads},
	{`fault: partition, target: all, params: {kind: majorities-ring}`, "0 of 10 cut pairs", nil},
	{`fault: partition, target: one, params: {kind: bridge}`, "probes:", nil},
	{`fault: partition, target: all, params: {kind: non-transitive}`, "probes:", nil},
	{`fault: partition, target: leader, params: {kind: one-way, direction: out}`, "0 of 4 cut pairs", nil},
	{`fault: partition, target: n1, params: {kind: clients}`, "probes:", fault.answersNobody},
	{`fault: partition, target: one, params: {kind: isolate, period: 500ms}`, "probes:", nil},
	{`fault: packet, target: leader, params: {kind: delay, jitter: 50ms}`, "delay: of ", nil},
	{`fault: packet, target: all, params: {kind: loss, share: "0.1"}`, "on 20 pairs", nil},
	{`fault: packet, target: all, params: {kind: duplicate}`, "on 20 pairs", nil},
	{`fault: packet, target: all, params: {kind: reorder, by: 20ms}`, "on 20 pairs", nil},
	{`fault: packet, target: leader, params: {kind: corrupt}`, "on 8 pairs", nil},
	{`fault: packet, target: one, params: {kind: rate, direction: in}`, "on 4 pairs", nil},
	{`fault: pause, target: n2`, "in state T", fault.answersNobody},
	{`fault: kill, target: n3`, "killed by SIGKILL", fault.answersNobody},
	{`fault: term, target: n4`, "", fault.answersNobody},
	{`fault: crash-loop, target: n5`, "killed by SIGKILL", nil},
	{`fault: rolling-restart, target: "n1,n2"`, "", nil},
	{`fault: clock, target: n1, params: {kind: jump, by: 1h}`, "it says itself that it moved by +", nil},
	{`fault: clock, target: n2, params: {kind: jump, clock: both, by: 3s}`, "it says itself that it moved by +", nil},
	{`fault: clock, target: n3, params: {kind: freeze, clock: both}`, "MONOTONIC", nil},
	{`fault: clock, target: n4, params: {kind: rate, clock: both, rate: 0.2}`, "rate 0.2", nil},
	{`fault: clock, target: n5, params: {kind: strobe, by: 500ms}`, "REALTIME +500ms", nil},
	{`fault: cpu, target: n1`, "n1", nil},
	{`fault: memory, target: n2, params: {room: 1GiB}`, "n2", nil},
	{`fault: files, target: n3, params: {room: 100000}`, "n3", nil},
	{`fault: disk, target: leader, params: {kind: error}`, "its process met it", fault.anotherLeads},
	{`fault: disk, target: n1, params: {kind: full}`, "its process met it", fault.answersNobody},
	{`fault: disk, target: follower, params: {kind: slow, delay: 20ms}`, "its process met it", nil},
	{`fault: disk, target: leader, params: {kind: stall, on: write}`, "its process met it", nil},
	{`fault: power-failure, target: minority, params: {lost: pages}`, "killed by SIGKILL", fault.answersNobody},
	{`fault: kill-at, target: leader, params: {fsyncs: "3"}`, "lost", fault.anotherLeads},
	{`fault: file, target: n2, params: {kind: flip, files: "*.wal"}`, "it was started with that", fault.answersNobody},
	{`fault: amnesia, target: n5`, "data is empty", nil},
	{`fault: transfer, target: follower`, "", fault.anotherLeads},
	{`fault: demote, target: n5`, "n5 has no vote", nil},
	{`fault: promote, target: learner`, "n5 is a voter", nil},
	{`fault: remove, target: n4`, "", fault.answersNobody},
	{`fault: remove, target: n2`, "n2, member ", nil},
	{`fault: add, target: removed`, "n2 joins as a voter", nil},
	{`fault: replace, target: n3`, "", nil},
}

const (
	stepEvery = 3500 * time.Millisecond
	stepLasts = 2 * time.Second
)

// buildsOn reports whether a step takes the one before it to be in force.
func buildsOn(step string) bool {
	return strings.Contains(step, "target: learner") || strings.Contains(step, "target: removed")
}

// fault is the life of one step, as the history tells it.
type fault struct {
	nodes, landedProof, healedProof []string
	leader                          string // when it began
	phases                          []string
	during                          []event // of clients and observers, from landed to heal
	around                          []event // the same from inject on: its effect can be seen before its proof is
}

type event struct {
	Time     int64
	Process  any
	Type     string
	Node     string
	Error    string
	Attempts int // more than 1 where the client went to another node then
	Fault    *struct {
		ID            int
		Phase, Leader string
		Nodes, Proof  []string
	}
	Status *struct {
		Up         bool
		Role, Node string
	}
}

// answersNobody holds that no client had an answer from the target while the fault was in force,
// but for what was on its way at the beginning.
func (f fault) answersNobody() error {
	for _, e := range f.during {
		late := e.Time-f.during[0].Time > int64(500*time.Millisecond)
		if late && e.Type == "ok" && e.Attempts <= 1 && slices.Contains(f.nodes, e.Node) {
			return fmt.Errorf("%s answered a client", e.Node)
		}
	}
	return nil
}

// anotherLeads holds that another node said that it leads.
func (f fault) anotherLeads() error {
	for _, e := range f.around {
		if e.Status != nil && e.Status.Role == "leader" && e.Node != f.leader {
			return nil
		}
	}
	return fmt.Errorf("no other node than %s led", f.leader)
}

// faults reads the lives of all steps.
func faults(t *testing.T, dir string, n int) []fault {
	t.Helper()
	file, err := os.Open(filepath.Join(dir, "history.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }() // only read
	lives := make([]fault, n+1)
	open, begun := make(map[int]bool), make(map[int]bool)
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		var e event
		if json.Unmarshal(scanner.Bytes(), &e) != nil {
			continue // the header
		}
		if e.Fault == nil {
			for id := range open {
				lives[id].during = append(lives[id].during, e)
			}
			for id := range begun {
				lives[id].around = append(lives[id].around, e)
			}
			continue
		}
		life := &lives[e.Fault.ID]
		life.phases = append(life.phases, strings.TrimSpace(e.Fault.Phase+" "+e.Error))
		switch e.Fault.Phase {
		case "inject":
			begun[e.Fault.ID] = true
		case "landed":
			open[e.Fault.ID] = true
			life.nodes, life.leader, life.landedProof = e.Fault.Nodes, e.Fault.Leader, e.Fault.Proof
		case "heal":
			delete(open, e.Fault.ID)
			delete(begun, e.Fault.ID)
		case "healed":
			life.healedProof = e.Fault.Proof
		}
	}
	return lives[1:]
}

func TestEveryFaultLandsIsSeenAndHealsInContainers(t *testing.T) {
	needDocker(t)
	var schedule strings.Builder
	schedule.WriteString("outage-limit: 10s\nsteps:\n")
	for i, f := range everyFault {
		lasts := stepLasts
		if i+1 < len(everyFault) && buildsOn(everyFault[i+1].step) {
			lasts += stepEvery
		}
		fmt.Fprintf(&schedule, "  - {at: %s, duration: %s, %s}\n", time.Second+time.Duration(i)*stepEvery, lasts, f.step)
	}
	schedule.WriteString("coverage:\n  - {fault: partition, leader: minority, times: 2}\n  - {fault: clock, times: 5, in-force: 5s, operations: 1}\n")
	path := filepath.Join(t.TempDir(), "every.yaml")
	if err := os.WriteFile(path, []byte(schedule.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	limit := time.Second + time.Duration(len(everyFault))*stepEvery
	c := newChecker(t, "run", "--cluster=docker", "--schedule="+path, "--seed=7", "--time-limit="+limit.String())
	status := c.run(t)
	dir := c.runDir(t)
	for i, life := range faults(t, dir, len(everyFault)) {
		want := everyFault[i]
		if !slices.Equal(life.phases, []string{"inject", "landed", "heal", "healed"}) {
			t.Errorf("%s: went through %q", want.step, life.phases)
			continue
		}
		if len(life.landedProof) == 0 || len(life.healedProof) == 0 || !strings.Contains(strings.Join(life.landedProof, "\n"), want.proof) {
			t.Errorf("%s: proofs %q and %q, want %q", want.step, life.landedProof, life.healedProof, want.proof)
		}
		if want.seen != nil {
			if err := want.seen(life); err != nil {
				t.Errorf("%s: %v, so it did not reach its target", want.step, err)
			}
		}
	}
	if status != 0 {
		t.Errorf("exit status %d\n%s", status, c.out.String())
	}
}

func TestWhatCannotWorkIsRefusedBeforeTheSystemStarts(t *testing.T) {
	needDocker(t)
	path := filepath.Join(t.TempDir(), "freeze.yaml")
	if err := os.WriteFile(path, []byte("steps: [{at: 1s, duration: 1s, fault: freeze, target: n1}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newChecker(t, "run", "--cluster=docker", "--nodes=3", "--schedule="+path, "--time-limit=5s")
	fails(t, c, 3, "schedule step 1", "freeze", "it does not work here", "checker doctor")
	if left := containersOf(t, c.runDir(t)); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}
