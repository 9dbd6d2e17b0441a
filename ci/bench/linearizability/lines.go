package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// line is a promise, or a few that belong together.
type line struct {
	name, about string
	measure     func(ctx context.Context, b *bench) error
}

var lines = []line{
	{"memory", "a register with unique values, its operations in memory: one key, 20 clients, 0.1 % of unknown outcome", memory},
	{"disk", "the same from a file, decoding included", disk},
	{"disk-large", "the same, ten times longer", diskLarge},
	{"live", "the same while the run goes on", live},
	{"unresolved", "a violation behind 20 writes of unknown outcome", unresolved},
	{"any-model", "100,000 operations of five busy clients under a Porcupine model, all answered", anyModel},
	{"etcd", "the 102 histories of etcd that come with Porcupine", etcd},
	{"invariants", "Raft's invariants over traces", invariants},
}

func names() []string {
	var list []string
	for _, line := range lines {
		list = append(list, line.name)
	}
	return list
}

const million = 1_000_000

// askedForRegister asks Porcupine, once in a run, for a hundredth of a register's history: more
// would only take longer not to finish.
func (b *bench) askedForRegister(ctx context.Context) (answer, error) {
	if b.register != nil {
		return *b.register, nil
	}
	a, err := inChild(ctx, "porcupine", strconv.Itoa(million/100), "20", "0.001")
	if err == nil {
		b.register = &a
	}
	return a, err
}

// best is the fastest of three children: the one that the rest of the machine disturbed least.
func best(ctx context.Context, task string, args ...string) (fastest answer, err error) {
	for i := range 3 {
		a, err := inChild(ctx, task, args...)
		if err != nil {
			return a, err
		}
		if i == 0 || a.Took < fastest.Took {
			fastest = a
		}
	}
	return fastest, nil
}

func memory(ctx context.Context, b *bench) error {
	const promised = 150 * time.Millisecond
	ours, err := best(ctx, "check", strconv.Itoa(million))
	if err != nil {
		return err
	}
	porcupine, err := b.askedForRegister(ctx)
	if err != nil {
		return err
	}
	b.add(row{
		what: "register, 1,000,000 in memory", ours: took(ours.Took), porcupine: told(porcupine), ratio: faster(ours, porcupine),
		promise: "< " + took(promised), kept: ours.Verdict == "linearizable" && ours.Took < promised,
	})
	return nil
}

func disk(ctx context.Context, b *bench) error {
	return fromDisk(ctx, b, million, 1500*time.Millisecond, 300<<20)
}

func diskLarge(ctx context.Context, b *bench) error {
	return fromDisk(ctx, b, 10*million, 15*time.Second, 1<<30)
}

func fromDisk(ctx context.Context, b *bench, operations int, promised time.Duration, memory uint64) error {
	path := filepath.Join(b.dir, "history.jsonl")
	defer func() { _ = os.Remove(path) }() // the whole directory is removed later
	made, err := inChild(ctx, "write", strconv.Itoa(operations), path)
	if err != nil {
		return err
	}
	fmt.Printf("   %s written in %s, %s\n", made.Detail, took(made.Took), mib(made.Peak))
	ours, err := inChild(ctx, "check-file", path)
	if err != nil {
		return err
	}
	porcupine, err := b.askedForRegister(ctx)
	if err != nil {
		return err
	}
	b.add(row{
		what: fmt.Sprintf("register, %d,000,000 from disk", operations/million), ours: took(ours.Took) + ", " + mib(ours.Peak), porcupine: told(porcupine),
		ratio: faster(ours, porcupine), promise: "< " + took(promised) + ", " + mib(memory),
		kept: ours.Verdict == "valid" && ours.Operations > operations*99/100 && ours.Took < promised && ours.Peak < memory,
	})
	return nil
}

func live(ctx context.Context, b *bench) error {
	const promised, growth = 5 * million, 1 << 20
	for _, keys := range []int{1, 100} {
		ours, err := best(ctx, "live", strconv.Itoa(million), strconv.Itoa(keys))
		if err != nil {
			return err
		}
		b.add(row{
			what: fmt.Sprintf("live, %d keys", keys), ours: fmt.Sprintf("%.1f M ops/s", ours.rate()/million), porcupine: nothing, ratio: nothing,
			promise: fmt.Sprintf("> %d M ops/s", promised/million), kept: ours.Verdict == "" && ours.rate() > promised,
		})
	}
	grown, err := inChild(ctx, "live-growth", strconv.Itoa(million), strconv.Itoa(6*million))
	if err != nil {
		return err
	}
	b.add(row{
		what: "live, heap from 1 M to 6 M operations", ours: fmt.Sprintf("%+d KiB", grown.Grown>>10), porcupine: nothing, ratio: nothing,
		promise: fmt.Sprintf("< %d KiB", growth>>10), kept: grown.Verdict == "" && grown.Grown < growth,
	})
	return nil
}

func unresolved(ctx context.Context, b *bench) error {
	const promised = time.Second
	ours, err := best(ctx, "unresolved")
	if err != nil {
		return err
	}
	fmt.Printf("   %s\n", ours.Detail)
	porcupine, err := inChild(ctx, "porcupine-unresolved")
	if err != nil {
		return err
	}
	b.add(row{
		what: "violation behind 20 unresolved writes", ours: ours.Verdict + " in " + took(ours.Took), porcupine: told(porcupine),
		ratio: faster(ours, porcupine), promise: "invalid, explained, < " + took(promised),
		kept: ours.Verdict == "invalid" && ours.Detail != "" && ours.Took < promised,
	})
	return nil
}

func anyModel(ctx context.Context, b *bench) error {
	const promised, less = 20, 30
	const operations, clients = "100000", "5"
	empty, err := inChild(ctx, "hold", operations, clients)
	if err != nil {
		return err
	}
	ours, err := best(ctx, "search", operations, clients)
	if err != nil {
		return err
	}
	porcupine, err := inChild(ctx, "porcupine", operations, clients, "0")
	if err != nil {
		return err
	}
	times := porcupine.each() / ours.each()
	room := float64(porcupine.Peak-empty.Peak) / float64(ours.Peak-empty.Peak)
	b.add(row{
		what: "any model, 100,000, time", ours: took(ours.Took), porcupine: told(porcupine), ratio: faster(ours, porcupine),
		promise: fmt.Sprintf(">= %d times faster", promised), kept: ours.Verdict == "linearizable" && times >= promised,
	})
	b.add(row{
		what: "any model, 100,000, memory beyond the history's " + mib(empty.Peak), ours: mib(ours.Peak - empty.Peak),
		porcupine: mib(porcupine.Peak - empty.Peak), ratio: fmt.Sprintf("%.0f", room),
		promise: fmt.Sprintf(">= %d times less", less), kept: ours.Verdict == "linearizable" && room >= less,
	})
	return nil
}

func invariants(ctx context.Context, b *bench) error {
	const promised = million
	test := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^Benchmark(Add|Decode)$", "-cpu", "1", "./checkers/invariants")
	said, err := test.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w (run this in the repository): %s", err, said)
	}
	found := regexp.MustCompile(`([\d.]+) events/s`).FindSubmatch(said)
	if found == nil {
		return fmt.Errorf("the benchmark of checkers/invariants prints no events/s: %s", said)
	}
	rate, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		return fmt.Errorf("the benchmark of checkers/invariants: %w", err)
	}
	b.add(row{
		what: "trace invariants", ours: fmt.Sprintf("%.1f M events/s", rate/million), porcupine: nothing, ratio: nothing,
		promise: fmt.Sprintf("> %d M events/s", promised/million), kept: rate > promised,
	})
	return nil
}
