//go:build linux

package nemesis

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"capsize/histories"
)

func TestAnOrderlyRestartEndsTheProcessBySIGTERM(t *testing.T) {
	f := newFixture(t, 3)
	before := f.pid("n2")
	n := f.nemesis(Step{Fault: "term", Target: "n2", Duration: short})
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, landedAndHealed...)
	if proof := f.recorded.phase(t, 1, histories.Landed).Fault.Proof[0]; !strings.Contains(proof, "SIGTERM") {
		t.Errorf("proof %q", proof)
	}
	if !gone(before) || f.pid("n2") == before {
		t.Error("the process was not ended and started again")
	}
}

func TestAProcessThatIgnoresSIGTERMIsAMissedFaultAndRunsInTheEnd(t *testing.T) {
	f := newFixture(t, 1, func(c *testCluster) { c.flags = []string{"deaf to SIGTERM"} })
	n := f.nemesis(Step{Fault: "term", Target: "n1", Duration: short, Params: map[string]string{"patience": "200ms"}})
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, histories.Inject, histories.Missed)
	if err := f.serves(t.Context(), "n1"); err != nil {
		t.Error(err)
	}
}

func TestACrashLoopKillsAgainAndAgain(t *testing.T) {
	f := newFixture(t, 3)
	n := f.nemesis(Step{Fault: "crash-loop", Target: "n1,n3", Duration: 4 * short, Params: map[string]string{"up": "60ms", "down": "20ms"}})
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, landedAndHealed...)
	proof := f.recorded.phase(t, 1, histories.Healed).Fault.Proof
	if len(proof) != 4 || !strings.Contains(proof[0], "n1: killed ") || strings.Contains(proof[0], "killed 1 times") || proof[3] != "n3: runs again and answers" {
		t.Errorf("proof %q", proof)
	}
	for _, node := range f.nodes {
		if err := f.serves(t.Context(), node); err != nil {
			t.Error(err)
		}
	}
}

func TestARollingRestartTakesOneNodeAtATime(t *testing.T) {
	f := newFixture(t, 3)
	pids := map[string]int{}
	for _, node := range f.nodes {
		pids[node] = f.pid(node)
	}
	n := f.nemesis(Step{Fault: "rolling-restart", Duration: 6 * short, Params: map[string]string{"down": "20ms"}})
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, landedAndHealed...)
	if proof := f.recorded.phase(t, 1, histories.Healed).Fault.Proof[0]; !strings.HasSuffix(proof, "restarts, one after the other") || proof[0] < '3' && proof[1] == ' ' {
		t.Errorf("proof %q", proof)
	}
	for node, before := range pids {
		if f.pid(node) == before {
			t.Errorf("%s was never restarted", node)
		}
	}
}

func TestAmnesiaStartsWithNothingAndLosesNothing(t *testing.T) {
	f := newFixture(t, 2)
	data := f.process("n1").Data
	if err := os.MkdirAll(filepath.Join(data, "log"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "log", "1"), []byte("what it knew"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := f.nemesis(
		Step{Fault: "amnesia", Target: "n1", Duration: short},
		Step{Fault: "amnesia", Target: "n2", Duration: short}, // it has stored nothing: there is nothing to forget
	)
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, landedAndHealed...)
	expectPhases(t, f.recorded, 2, histories.Inject, histories.Missed)
	if left, err := os.ReadDir(data); err != nil || len(left) != 0 {
		t.Errorf("the data is still there: %v, %v", left, err)
	}
	if kept, err := os.ReadFile(data + ".original-1/log/1"); err != nil || string(kept) != "what it knew" {
		t.Errorf("the data is lost: %q, %v", kept, err)
	}
	landed := f.recorded.phase(t, 1, histories.Landed).Fault
	if !strings.Contains(landed.Beyond, "remembers its votes") || !landed.MayEnd {
		t.Errorf("nothing says that a correct system may fail, and end: %+v", landed)
	}
}

func TestWhoRefusesToRunWithAnEmptyDiskGetsItBack(t *testing.T) {
	f := newFixture(t, 1, keepData, func(c *testCluster) { c.bare, c.flags = true, []string{"refuses an empty disk"} })
	eventually(t, patience, "something is stored", func() bool {
		info, err := os.Stat(filepath.Join(f.process("n1").Data, "log"))
		return err == nil && info.Size() >= 10*blockSize
	})
	n := f.nemesis(Step{Fault: "amnesia", Duration: 2 * short})
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, landedAndHealed...)
	if found := f.found("n1"); len(found) != 2 || found[1] < 10 {
		t.Errorf("its lives found %v blocks", found)
	}
}

func TestAnOutageIsCutShortByItsLimit(t *testing.T) {
	f := newFixture(t, 3)
	n := f.nemesis(
		Step{Fault: "pause", Target: "n1", Duration: time.Minute},
		Step{Fault: "kill", Target: "n2", Duration: time.Minute},
		Step{Fault: "pause", Target: "n3", Duration: time.Minute},
	)
	n.outage.limit = short
	ctx := t.Context()
	over := make(chan error, 1)
	go func() { over <- n.Run(ctx) }()
	eventually(t, patience, "a majority works again", func() bool {
		return len(f.recorded.phases(1))+len(f.recorded.phases(2))+len(f.recorded.phases(3)) == 10
	})
	healed := 0
	for id := 1; id <= 3; id++ {
		if slices.Contains(f.recorded.phases(id), histories.Healed) {
			healed++
			if proof := f.recorded.phase(t, id, histories.Healed).Fault.Proof; proof[0] != "healed early: no majority could work for 250ms" {
				t.Errorf("proof %q", proof)
			}
		}
	}
	if healed != 2 {
		t.Errorf("%d faults were healed, want 2 of 3: one alone leaves a majority", healed)
	}
}
