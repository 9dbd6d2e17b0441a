package nemesis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"capsize/nemesis/agent"
	"capsize/nemesis/agent/disk"
)

// disks is the package of the faults of storage.
const disks = "disk"

// failDisk makes the disk of processes fail while they run.
type failDisk struct{}

// Kinds of the fault, and the parameter that many of them have.
const (
	diskError  = "error"
	fsyncgate  = "fsyncgate"
	diskFull   = "full"
	tornWrite  = "torn"
	shortWrite = "short"
	flippedBit = "flip"
	slowDisk   = "slow"
	stallDisk  = "stall"

	onOperation = "on"
)

// diskEndings are the kinds at which many correct programs end: going on would be worse.
var diskEndings = []string{diskError, fsyncgate, diskFull, tornWrite, shortWrite, flippedBit}

func (failDisk) About() About {
	of := func(kind string, more ...string) map[string]string {
		params := map[string]string{"kind": kind}
		for i := 0; i < len(more); i += 2 {
			params[more[i]] = more[i+1]
		}
		return params
	}
	return About{
		Name: "disk", Package: disks,
		Meaning: "the disk on which the process keeps its data fails, or is slow. A process that ends because of it is started again when the disk is well",
		Params: []Param{
			{
				Name: "kind", Default: diskError, Allowed: []string{diskError, fsyncgate, diskFull, tornWrite, shortWrite, flippedBit, slowDisk, stallDisk},
				Meaning: "error: operations fail, and change nothing; fsyncgate: an fsync fails, and what it should have saved is never made durable though later ones succeed; " +
					"full: nothing can be written or created (ENOSPC); torn: a write leaves a prefix that ends at a sector, and fails; short: a write takes a part of its bytes, and says so, as it may; " +
					"flip: one bit of what is read is wrong; slow: operations take longer; stall: they wait until the fault is healed",
			},
			{Name: onOperation, Default: disk.OnFsync, Allowed: []string{disk.OnRead, disk.OnWrite, disk.OnFsync, disk.OnCreate}, Meaning: "of error, slow and stall: which operations"},
			{Name: "errno", Default: "EIO", Allowed: []string{"EIO", "ENOSPC", "EROFS", "EDQUOT"}, Meaning: "of error and fsyncgate: what the program is told"},
			{Name: "share", Kind: Number, Default: "1", Least: "0.001", Most: "1", Meaning: "of the operations that are met, at random"},
			{Name: "after", Kind: Count, Default: "0", Least: "0", Most: "1000000000", Meaning: "operations that pass first"},
			{Name: "count", Kind: Count, Default: "0", Least: "0", Most: "1000000000", Meaning: "how many are met; 0 is all of them, but one of fsyncgate"},
			{Name: "delay", Kind: Duration, Default: "20ms", Least: "0s", Most: "1m", Meaning: "of slow: how much longer each takes"},
			{Name: "rate", Kind: Size, Default: "0", Least: "0", Most: "1024GiB", Meaning: "of slow, of reads and writes: bytes a second that pass; 0 is no limit"},
			{Name: "files", Kind: Text, Default: "", Meaning: "names of files, or paths below the data directory, with * and ?; empty is all"},
			{Name: "patience", Kind: Duration, Default: "3s", Least: "100ms", Most: "9s", Meaning: "how long the process may take to meet it; later, with nothing else in force, the fault has missed"},
		},
		Target: always(One), Needs: always([]string{agent.Disks}),
		MayEnd: func(p Params) bool { return slices.Contains(diskEndings, p["kind"]) },
		Beyond: func(p Params) string {
			switch p["kind"] {
			case flippedBit:
				return "what is read is what was written, or an error (Raft paper, section 2: failures are not Byzantine)"
			case fsyncgate:
				return "an fsync that succeeds makes durable all that was written before it, after one that failed too: a node that reads its log again takes for durable what is not"
			}
			return ""
		},
		Cards: []Card{
			{Leader, of(diskError), 1, 3},
			{Leader, of(slowDisk, "delay", "30ms"), 2, 1},
			{Minority, of(diskFull), 3, 3},
			{Leader, of(tornWrite), 3, 3},
			{One, of(shortWrite, "share", "0.2"), 3, 3},
			{Leader, of(stallDisk), 3, 3},
			{All, of(slowDisk, "delay", "5ms"), 3, 1},
			{Minority, of(diskError, onOperation, disk.OnWrite), 3, 3},
		},
	}
}

func (failDisk) Plan(scene Scene) (Planned, error) {
	p := scene.Params
	if wrong := (disk.Setting{Rules: diskRules(0, p)}).Validate(); wrong != nil {
		return Planned{}, &ScheduleError{Key: "params", Value: p["kind"], Allowed: wrong.Error()}
	}
	what := p["kind"]
	if slices.Contains([]string{diskError, slowDisk, stallDisk}, what) {
		what += " on " + p[onOperation]
	}
	planned := Planned{Nodes: scene.Targets, Detail: what + " at " + strings.Join(scene.Targets, " ")}
	if p.Is("kind", stallDisk) || slices.Contains(diskEndings, p["kind"]) {
		planned.Down = scene.Targets
	}
	return planned, nil
}

// diskRules are what a step does to a disk. Their IDs begin with the step's.
func diskRules(id int, p Params) []disk.Rule {
	rule := disk.Rule{
		On: p[onOperation], Effect: disk.EffectError, Errno: p["errno"], Files: p["files"],
		Probability: p.Number("share"), After: p.Count("after"), Count: p.Count("count"),
	}
	ons := []string{rule.On}
	switch p["kind"] {
	case fsyncgate:
		ons, rule.Effect = []string{disk.OnFsync}, disk.EffectLose
		rule.Count = max(rule.Count, 1)
	case diskFull:
		ons, rule.Errno = []string{disk.OnWrite, disk.OnCreate}, "ENOSPC"
	case tornWrite:
		ons, rule.Effect = []string{disk.OnWrite}, disk.EffectTorn
	case shortWrite:
		ons, rule.Effect = []string{disk.OnWrite}, disk.EffectShort
	case flippedBit:
		ons, rule.Effect = []string{disk.OnRead}, disk.EffectFlip
	case slowDisk:
		rule.Effect, rule.Delay, rule.Rate = disk.EffectDelay, p.Duration("delay"), p.Size("rate")
	case stallDisk:
		rule.Effect = disk.EffectStall
	}
	rules := make([]disk.Rule, len(ons))
	for i, on := range ons {
		rules[i] = rule
		rules[i].On, rules[i].ID = on, fmt.Sprintf("%d/%s", id, on)
	}
	return rules
}

const diskPoll = 20 * time.Millisecond

// Inject lands when the process meets the fault. Where other faults may keep it from its disk,
// it is enough that the layer has it in force.
func (failDisk) Inject(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	return onEach(p.Nodes, func(node string) (string, error) {
		rules := diskRules(p.ID, p.Params)
		e.disks[node].mu.Lock()
		e.disks[node].put(p.ID, rules) // before the proof: what may be in force must be healed
		_, err := e.sendDisk(ctx, node)
		e.disks[node].mu.Unlock()
		for end := time.Now().Add(p.Params.Duration("patience")); err == nil; {
			var met disk.Met
			if met, err = e.metDisk(ctx, node, rules); err != nil {
				break
			}
			if met.Fired > 0 {
				return fmt.Sprintf("%s: its process met it %d times, at %s", node, met.Fired, met.Path), nil
			}
			if time.Now().After(end) || !sleep(ctx, diskPoll) {
				return e.notMetYet(node, p, met)
			}
		}
		return "", err
	})
}

// notMetYet is what is known of a fault that was not met: with another fault in force the
// process may have had no cause to use its disk.
func (e *Effects) notMetYet(node string, p Planned, met disk.Met) (string, error) {
	said := fmt.Sprintf("%s: in force, but not met within %s (%d operations of its kind)", node, p.Params["patience"], met.Matched)
	for _, other := range e.standing() {
		if other.ID != p.ID {
			return fmt.Sprintf("%s; step %d (%s) is in force too", said, other.ID, other), nil
		}
	}
	return "", errors.New(said)
}

// Sustain watches for processes that end because of their disk, and for a fault that nobody meets.
func (failDisk) Sustain(ctx context.Context, e *Effects, p Planned) ([]string, error) {
	began := time.Now()
	proof, err := onEach(p.Nodes, func(node string) (string, error) {
		for sleep(ctx, 2*diskPoll) {
			if e.noteEnd(ctx, node, p) {
				return fmt.Sprintf("%s: its process ended by itself, %s after the fault had landed", node, time.Since(began).Round(time.Millisecond)), nil
			}
		}
		uncut, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandLimit)
		defer cancel()
		met, err := e.metDisk(uncut, node, diskRules(p.ID, p.Params))
		if err == nil && met.Fired == 0 {
			err = fmt.Errorf("%s: its process never met it (%d operations of its kind)", node, met.Matched)
		}
		return "", err
	})
	return proof.Lines, err
}

func (failDisk) Heal(ctx context.Context, e *Effects, p Planned) (Proof, error) {
	proof, err := onEach(p.Nodes, func(node string) (string, error) {
		e.disks[node].mu.Lock()
		e.disks[node].drop(p.ID)
		reply, err := e.sendDisk(ctx, node)
		e.disks[node].mu.Unlock()
		if err != nil {
			return "", err
		}
		met := metOf(reply.Met, diskRules(p.ID, p.Params))
		line := fmt.Sprintf("%s: its disk is well; its process had met the fault %d times in %d operations", node, met.Fired, met.Matched)
		if met.Fired == 0 || !p.mayEnd() {
			return line, nil
		}
		said, err := e.reviveAfter(ctx, node, p)
		return line + said, err
	})
	if err != nil {
		return proof, err
	}
	back, err := e.bringBack(ctx, p)
	proof.Lines = append(proof.Lines, back.Lines...)
	return proof, err
}

// metDisk asks how often the process has met rules.
func (e *Effects) metDisk(ctx context.Context, node string, rules []disk.Rule) (disk.Met, error) {
	e.disks[node].mu.Lock()
	defer e.disks[node].mu.Unlock()
	reply, err := e.sendDisk(ctx, node)
	return metOf(reply.Met, rules), err
}

func metOf(met map[string]disk.Met, rules []disk.Rule) disk.Met {
	var sum disk.Met
	for _, rule := range rules {
		one := met[rule.ID]
		sum.Matched, sum.Fired = sum.Matched+one.Matched, sum.Fired+one.Fired
		if one.Path != "" {
			sum.Path = one.Path
		}
	}
	return sum
}

// sendDisk tells a node's agent all that is in force. The caller holds the disk's lock.
func (e *Effects) sendDisk(ctx context.Context, node string) (agent.DiskReply, error) {
	request := &agent.Disk{Process: e.processes[node].Name, Rules: []disk.Rule{}}
	for _, rules := range e.disks[node].all() {
		request.Rules = append(request.Rules, rules...)
	}
	reply, err := e.ask(ctx, node, agent.Request{Disk: request})
	if err != nil || reply.Disk == nil {
		return agent.DiskReply{}, err
	}
	return *reply.Disk, nil
}
