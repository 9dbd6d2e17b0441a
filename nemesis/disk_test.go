//go:build linux

package nemesis

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"capsize/histories"
	"capsize/nemesis/agent/disk"
)

// keepIn is the directory in which a node keeps data; it keeps none without.
const keepIn = "CAPSIZE_NEMESIS_TEST_KEEP"

const blockSize = 1024 // two sectors: it can be torn

// keeper is a node's data: a log of numbered blocks, one more every few milliseconds, each
// synced. It ends the program at the first error, unless its flags say otherwise.
type keeper struct {
	flags string
	hung  atomic.Bool
}

func newKeeper(dir, flags string) *keeper {
	k := &keeper{flags: flags}
	if dir == "" {
		return k
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		k.fail(err)
	}
	file, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		k.fail(err)
	}
	if info, err := file.Stat(); err == nil && info.Size() == 0 && strings.Contains(flags, "refuses an empty disk") {
		if _, err := os.Stat(dir + ".first"); err == nil {
			k.fail(errors.New("the disk is empty: was the log lost?"))
		}
		if err := os.WriteFile(dir+".first", nil, 0o600); err != nil {
			k.fail(err)
		}
	}
	blocks := k.recover(file)
	fmt.Println("found", blocks, "blocks")
	go k.write(file, blocks)
	return k
}

func block(number int) []byte {
	b := bytes.Repeat([]byte{byte(number%250 + 1)}, blockSize)
	binary.BigEndian.PutUint64(b, uint64(number))
	return b
}

// recover reads the log; a torn block at its end was never acknowledged.
func (k *keeper) recover(file *os.File) int {
	data, err := os.ReadFile(file.Name())
	if err != nil {
		k.fail(err)
	}
	blocks := len(data) / blockSize
	if last := data[max(0, blocks-1)*blockSize:]; len(last) >= blockSize && len(bytes.Trim(last, "\x00")) == 0 {
		blocks-- // its place was on the disk, and nothing in it
	}
	for i := range blocks {
		if !bytes.Equal(data[i*blockSize:(i+1)*blockSize], block(i+1)) {
			k.fail(fmt.Errorf("block %d of %d is damaged", i+1, blocks))
		}
	}
	if err := file.Truncate(int64(blocks * blockSize)); err != nil {
		k.fail(err)
	}
	return blocks
}

func (k *keeper) write(file *os.File, blocks int) {
	for {
		if _, err := file.WriteAt(block(blocks+1), int64(blocks*blockSize)); err != nil {
			k.fail(err)
			return
		}
		if !strings.Contains(k.flags, "never syncs") {
			if err := file.Sync(); err != nil {
				k.fail(err)
				return
			}
		}
		blocks++
		time.Sleep(3 * time.Millisecond)
	}
}

func (k *keeper) fail(err error) {
	fmt.Println("keeper:", err)
	if strings.Contains(k.flags, "hangs at errors") {
		k.hung.Store(true)
		return
	}
	os.Exit(3)
}

func (k *keeper) hangs() bool { return k.hung.Load() }

func (c *testCluster) keeps(node string) string {
	if !c.disks || c.idle[node] {
		return ""
	}
	return filepath.Join(c.dir, node, "data")
}

// found returns how many blocks each life of a node has found, in order.
func (c *testCluster) found(node string) []int {
	var found []int
	for _, match := range regexp.MustCompile(`found (\d+) blocks`).FindAllStringSubmatch(c.log(node), -1) {
		n, _ := strconv.Atoi(match[1])
		found = append(found, n)
	}
	return found
}

func keepData(c *testCluster) { c.disks = true }

func needDisks(t *testing.T) {
	t.Helper()
	if _, err := disk.Supported(); err != nil {
		t.Skip(err)
	}
}

func TestADiskFailsAsAskedIsMetAndIsWellAgain(t *testing.T) {
	needDisks(t)
	for _, c := range []struct {
		params map[string]string
		ends   bool   // the program does
		says   string // the program, of what it met
	}{
		{map[string]string{"kind": "error"}, true, "sync .*: input/output error"},
		{map[string]string{"kind": "error", "on": "write", "errno": "EROFS"}, true, "write .*: read-only file system"},
		{map[string]string{"kind": "fsyncgate"}, true, "sync .*: input/output error"},
		{map[string]string{"kind": "full"}, true, "no space left on device"},
		{map[string]string{"kind": "torn"}, true, "write .*: input/output error"},
		{map[string]string{"kind": "short", "share": "0.5"}, false, ""},
		{map[string]string{"kind": "slow", "delay": "30ms"}, false, ""},
		{map[string]string{"kind": "stall", "on": "write"}, false, ""},
	} {
		t.Run(c.params["kind"]+c.params["on"], func(t *testing.T) {
			f := newFixture(t, 2, keepData)
			n := f.nemesis(Step{Fault: "disk", Target: "n1", Duration: short, Params: c.params})
			if err := n.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			expectPhases(t, f.recorded, 1, landedAndHealed...)
			if proof := f.recorded.phase(t, 1, histories.Landed).Fault.Proof; !strings.Contains(proof[0], "its process met it") {
				t.Errorf("proof of landing %q", proof)
			}
			lives := len(f.found("n1"))
			if c.ends != (lives == 2) || len(f.found("n2")) != 1 {
				t.Errorf("n1 lived %d times, n2 %d; want n1 to end: %t", lives, len(f.found("n2")), c.ends)
			}
			if !regexp.MustCompile(c.says).MatchString(f.log("n1")) {
				t.Errorf("n1 said:\n%s", f.log("n1"))
			}
			if may := f.recorded.phase(t, 1, histories.Landed).Fault.MayEnd; c.ends && !may {
				t.Error("nothing says that it may end")
			}
			if err := f.serves(t.Context(), "n1"); err != nil {
				t.Error(err)
			}
			if err := n.HealAll(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAProcessThatHangsAfterItsDiskFailedIsRestarted(t *testing.T) {
	needDisks(t)
	f := newFixture(t, 1, keepData, func(c *testCluster) { c.flags = []string{"hangs at errors"} })
	n := f.nemesis(Step{Fault: "disk", Target: "n1", Duration: short})
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, landedAndHealed...)
	if proof := f.recorded.phase(t, 1, histories.Healed).Fault.Proof; !strings.Contains(strings.Join(proof, "\n"), "did not serve for 5s more, and was killed") {
		t.Errorf("proof %q", proof)
	}
}

func TestADiskFaultThatNobodyMeetsHasMissedUnlessAnotherFaultExplainsIt(t *testing.T) {
	needDisks(t)
	f := newFixture(t, 2, keepData, func(c *testCluster) { c.idle = map[string]bool{"n1": true} })
	patient := map[string]string{"patience": "100ms"}
	n := f.nemesis(Step{Fault: "disk", Target: "n1", Duration: short, Params: patient})
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, histories.Inject, histories.Missed)
	if why := f.recorded.phase(t, 1, histories.Missed).Error; !strings.Contains(why, "n1: in force, but not met within 100ms (0 operations of its kind)") {
		t.Errorf("it missed because of %q", why)
	}

	f.recorded = &recorded{}
	n = f.nemesis(
		Step{Fault: "pause", Target: "n2", Duration: time.Second},
		Step{At: short / 2, Fault: "disk", Target: "n2", Duration: time.Second, Params: patient},
	)
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, landedAndHealed...)
	if proof := f.recorded.phase(t, 2, histories.Landed).Fault.Proof; !strings.Contains(proof[0], "step 1 (pause n2) is in force too") {
		t.Errorf("proof %q", proof)
	}
	if phases := f.recorded.phases(2); !slices.Equal(phases, landedAndHealed) {
		t.Errorf("the disk's fault, met after the pause, went through %v", phases)
	}
}

func TestTheHealOfOneDiskFaultLeavesTheOthers(t *testing.T) {
	needDisks(t)
	f := newFixture(t, 1, keepData)
	n := f.nemesis(
		Step{Fault: "disk", Target: "n1", Duration: 4 * short, Params: map[string]string{"kind": "slow", "delay": "10ms"}},
		Step{At: short, Fault: "disk", Target: "n1", Duration: short, Params: map[string]string{"kind": "slow", "on": "write", "delay": "10ms"}},
	)
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for id := range 2 {
		expectPhases(t, f.recorded, id+1, landedAndHealed...)
	}
	met := func(id int) int {
		var times, of int
		proof := f.recorded.phase(t, id, histories.Healed).Fault.Proof[0]
		if _, err := fmt.Sscanf(proof, "n1: its disk is well; its process had met the fault %d times in %d operations", &times, &of); err != nil {
			t.Fatalf("%q: %v", proof, err)
		}
		return times
	}
	if long, brief := met(1), met(2); brief < 2 || long < 2*brief {
		t.Errorf("met %d and %d times", long, brief)
	}
}

func TestAPowerFailureTakesWhatWasNotSyncedAndNothingElse(t *testing.T) {
	needDisks(t)
	for _, mode := range []string{disk.PowerAll, disk.PowerPrefix, disk.PowerPages} {
		for _, careless := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s careless=%t", mode, careless), func(t *testing.T) {
				f := newFixture(t, 1, keepData, func(c *testCluster) {
					if careless {
						c.flags = []string{"never syncs"}
					}
				})
				n := f.nemesis(Step{At: short, Fault: "power-failure", Duration: short, Params: map[string]string{"lost": mode}})
				var before int64
				go func() {
					time.Sleep(short / 2)
					if info, err := os.Stat(filepath.Join(f.process("n1").Data, "log")); err == nil {
						atomic.StoreInt64(&before, info.Size()/blockSize)
					}
				}()
				if err := n.Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				// Random pages may leave holes: a program that does not sync finds damage then.
				damaged := strings.Contains(f.log("n1"), "is damaged")
				if !careless || !damaged {
					expectPhases(t, f.recorded, 1, landedAndHealed...)
				}
				found := f.found("n1")
				had := int(atomic.LoadInt64(&before))
				proof := f.recorded.phase(t, 1, histories.Landed).Fault.Proof[0]
				switch {
				case had < 5:
					t.Fatalf("only %d blocks were written", had)
				case !careless && (damaged || len(found) != 2 || found[1] < had):
					t.Errorf("had %d blocks, found %v: %s", had, found, proof)
				case careless && !strings.Contains(proof, ", lost "):
					t.Errorf("proof %q", proof)
				case careless && mode == disk.PowerAll && found[1] != 0:
					t.Errorf("had %d blocks, none synced, and found %v", had, found)
				}
			})
		}
	}
}

func TestAProcessDiesAtTheChosenFsync(t *testing.T) {
	needDisks(t)
	f := newFixture(t, 2, keepData, func(c *testCluster) { c.idle = map[string]bool{"n2": true} })
	n := f.nemesis(
		Step{Fault: "kill-at", Target: "n1", Duration: short, Params: map[string]string{"fsyncs": "7"}},
		Step{At: 2 * short, Fault: "kill-at", Target: "n1", Duration: short, Params: map[string]string{"fsyncs": "0", "bytes": "5KiB", "lost": "none"}},
		Step{At: 4 * short, Fault: "kill-at", Target: "n2", Duration: short, Params: map[string]string{"patience": "100ms"}},
	)
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectPhases(t, f.recorded, 1, landedAndHealed...)
	expectPhases(t, f.recorded, 2, landedAndHealed...)
	expectPhases(t, f.recorded, 3, histories.Inject, histories.Missed)
	if proof := f.recorded.phase(t, 1, histories.Landed).Fault.Proof[0]; !strings.Contains(proof, "killed by SIGKILL at that moment") || !strings.Contains(proof, "lost 1024 bytes in 1 files") {
		t.Errorf("proof %q", proof)
	}
	if proof := f.recorded.phase(t, 2, histories.Landed).Fault.Proof[0]; strings.Contains(proof, "lost") {
		t.Errorf("proof %q", proof)
	}
	if found := f.found("n1"); len(found) != 3 || found[0] != 0 || found[1] < 6 || found[2] < found[1]+4 {
		t.Errorf("its lives found %v blocks", found)
	}
	if found := f.found("n2"); len(found) != 0 || f.serves(t.Context(), "n2") != nil {
		t.Errorf("n2: %v", found)
	}
}

func TestDamagedFilesAreFoundAndGivenBackToWhomCannotRunWithThem(t *testing.T) {
	for _, covered := range []bool{false, true} {
		if covered {
			needDisks(t)
		}
		f := newFixture(t, 1, keepData, func(c *testCluster) {
			if !covered {
				c.bare = true
			}
		})
		n := f.nemesis(
			Step{At: short, Fault: "file", Target: "n1", Duration: short},
			Step{At: 10 * short, Fault: "file", Target: "n1", Duration: short, Params: map[string]string{"kind": "truncate", "bytes": "5120"}},
			Step{At: 20 * short, Fault: "file", Target: "n1", Duration: short, Params: map[string]string{"kind": "swap", "age": "300ms", "files": "lo?"}},
			Step{At: 32 * short, Fault: "file", Target: "n1", Duration: short, Params: map[string]string{"files": "no such"}},
		)
		if err := n.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		for id := range 3 {
			expectPhases(t, f.recorded, id+1, landedAndHealed...)
		}
		expectPhases(t, f.recorded, 4, histories.Inject, histories.Missed)
		if proof := f.recorded.phase(t, 1, histories.Landed).Fault.Proof[0]; !regexp.MustCompile(`bit \d of byte \d+ of log is [01] now`).MatchString(proof) {
			t.Errorf("proof %q", proof)
		}
		healed := strings.Join(f.recorded.phase(t, 1, histories.Healed).Fault.Proof, "\n")
		if !strings.Contains(f.log("n1"), "is damaged") || !strings.Contains(healed, "its process has ended") || !strings.Contains(healed, "of data.original-1 are in data") {
			t.Errorf("a flipped bit: %q; n1 said\n%s", healed, f.log("n1"))
		}
		for id := 2; id <= 3; id++ {
			if proof := f.recorded.phase(t, id, histories.Healed).Fault.Proof[0]; !strings.Contains(proof, "n1: goes on; its process serves") {
				t.Errorf("step %d: %q", id, proof)
			}
		}
		found := f.found("n1") // by the lives: first, after the flip was undone, truncated, swapped, after the miss
		if len(found) != 5 || found[1] < 10 {
			t.Errorf("covered %t: found %v", covered, found)
		}
	}
}

func TestALayerHealsItselfWhenItsAgentIsKilled(t *testing.T) {
	needDisks(t)
	f := newFixture(t, 1, keepData, func(c *testCluster) { c.roles["n1"] = "guarded agent" })
	n := f.nemesis(Step{Fault: "disk", Target: "n1", Duration: time.Minute, Params: map[string]string{"kind": "stall"}})
	ctx, cut := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- n.Run(ctx) }()
	eventually(t, patience, "the stall lands", func() bool { return slices.Contains(f.recorded.phases(1), histories.Landed) })
	data := f.process("n1").Data
	if !mounted(data) {
		t.Fatal("no layer covers the data")
	}
	f.killWorker("n1")
	eventually(t, patience, "the data lies bare", func() bool { return !mounted(data) })
	if log, err := os.ReadFile(filepath.Join(data, "log")); err != nil || len(log) < blockSize {
		t.Errorf("the data is lost: %d bytes, %v", len(log), err)
	}
	<-f.lost
	cut()
	if err := <-over; err != nil {
		t.Error(err)
	}
}

// mounted reports whether something is mounted on a directory.
func mounted(dir string) bool {
	mounts, err := os.ReadFile("/proc/self/mounts")
	return err == nil && strings.Contains(string(mounts), " "+dir+" ")
}

func TestAProcessThatAnotherStepEndsOrStopsWhileItRecoversFromItsDiskIsLeftToThatStep(t *testing.T) {
	needDisks(t)
	for _, other := range []string{"kill", "pause"} {
		t.Run(other, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, 1, keepData, func(c *testCluster) { c.flags = []string{"hangs at errors"} })
			n := f.nemesis(
				Step{Fault: "disk", Target: "n1", Duration: short},
				Step{At: short + 2*endingTime, Fault: other, Target: "n1", Duration: revivalTime + 2*endingTime},
			)
			n.effects.readyLimit = patience
			if err := n.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			expectPhases(t, f.recorded, 1, landedAndHealed...)
			expectPhases(t, f.recorded, 2, landedAndHealed...)
			if proof := f.recorded.phase(t, 2, histories.Healed).Fault.Proof; strings.Contains(strings.Join(proof, "\n"), "killed meanwhile") {
				t.Errorf("the disk's healing has ended the other step: %q", proof)
			}
		})
	}
}
