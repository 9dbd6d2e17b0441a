package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"capsize/checkers/linearizability/registers"
	"capsize/checkers/linearizability/search"
)

// compare is one history, by the best of some tries.
type compare struct {
	Name                        string
	Search, Register, Porcupine time.Duration
	Legal                       bool
}

const etcdHistories = 102

func etcd(ctx context.Context, b *bench) error {
	const promised = 20
	dir, err := etcdDir(ctx)
	if err != nil {
		return err
	}
	a, err := inChild(ctx, "etcd", dir)
	if err != nil {
		return err
	}
	var sum compare
	slower := ""
	for _, c := range a.Compared {
		sum.Search, sum.Register, sum.Porcupine = sum.Search+c.Search, sum.Register+c.Register, sum.Porcupine+c.Porcupine
		if c.Search > c.Porcupine {
			slower += fmt.Sprintf("; %s: %s, Porcupine %s", c.Name, c.Search, c.Porcupine)
		}
	}
	closest := slices.MinFunc(a.Compared, func(x, y compare) int { return cmp.Compare(x.times(), y.times()) })
	all := len(a.Compared) == etcdHistories
	b.add(row{
		what: fmt.Sprintf("any model, %d histories of etcd", len(a.Compared)), ours: took(sum.Search), porcupine: took(sum.Porcupine),
		ratio:   fmt.Sprintf("%.0f in all, %.2f at least (%s)", sum.Porcupine.Seconds()/sum.Search.Seconds(), closest.times(), closest.Name),
		promise: "never slower", kept: all && slower == "",
	})
	if slower != "" {
		fmt.Println("   slower:", strings.TrimPrefix(slower, "; "))
	}
	times := sum.Porcupine.Seconds() / sum.Register.Seconds()
	b.add(row{
		what: fmt.Sprintf("register search, %d histories of etcd", len(a.Compared)), ours: took(sum.Register), porcupine: took(sum.Porcupine),
		ratio: fmt.Sprintf("%.0f", times), promise: fmt.Sprintf(">= %d times faster", promised), kept: all && times >= promised,
	})
	return nil
}

// times is how many times faster than Porcupine the search with a model is.
func (c compare) times() float64 { return c.Porcupine.Seconds() / c.Search.Seconds() }

// etcdDir is where Porcupine's module has the histories.
func etcdDir(ctx context.Context) (string, error) {
	where, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/anishathalye/porcupine").Output()
	if err != nil {
		return "", fmt.Errorf("find Porcupine (run this in the repository): %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(where)), "test_data", "jepsen"), nil
}

// eachHistory reads each history of a directory, but those whose cluster did not come up.
func eachHistory(dir string, do func(name string, ops []registers.Op) error) error {
	paths, err := filepath.Glob(filepath.Join(dir, "etcd_*.log"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		ops, err := readEtcd(path)
		if err != nil {
			return err
		}
		if len(ops) == 0 {
			continue
		}
		if err := do(strings.TrimSuffix(filepath.Base(path), ".log"), ops); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// compareAll decides each history of a directory by each of the methods.
func compareAll(dir string) (answer, error) {
	clock := begin()
	operations := 0
	var list []compare
	err := eachHistory(dir, func(name string, ops []registers.Op) error {
		c, err := compareOne(ops)
		c.Name = name
		operations += len(ops)
		list = append(list, c)
		return err
	})
	if err != nil {
		return answer{}, err
	}
	a := clock.answer(operations, "")
	a.Compared = list
	return a, nil
}

func compareOne(ops []registers.Op) (c compare, err error) {
	model, history := model(), forPorcupine(ops)
	ctx := context.Background()
	var bySearch, byRegister search.Outcome
	ways := []struct {
		took *time.Duration
		run  func()
	}{
		{&c.Search, func() {
			bySearch = search.Check(ctx, search.Model{Model: model}, history, search.Limits{}).Outcome
		}},
		{&c.Porcupine, func() { c.Legal = porcupine.CheckOperations(model, history) }},
		{&c.Register, func() { byRegister = search.CheckRegister(ctx, ops, search.Limits{}).Outcome }},
	}
	// The least time is the one that the rest of the machine disturbed least.
	const tries, enough = 5, 200 * time.Millisecond
	for try, began := 0, time.Now(); try < tries && (try == 0 || time.Since(began) < enough); try++ {
		for _, way := range ways {
			if took := each(way.run); try == 0 || took < *way.took {
				*way.took = took
			}
		}
	}
	want := search.Illegal
	if c.Legal {
		want = search.Linearizable
	}
	if bySearch != want || byRegister != want {
		return c, fmt.Errorf("the verdicts differ: Porcupine says %s, the search %s, the register search %s", want, bySearch, byRegister)
	}
	return c, nil
}

// each runs something until it has taken a while, and returns how long it takes on average.
func each(run func()) time.Duration {
	const while = 2 * time.Millisecond
	began := time.Now()
	for n := time.Duration(1); ; n++ {
		run()
		if took := time.Since(began); took > while {
			return took / n
		}
	}
}

var etcdLine = regexp.MustCompile(`^INFO\s+jepsen\.util\s+-\s+(\d+)\s+:(\w+)\s+:(read|write|cas)\s+(?:(nil|:timed-out)|(\d+)|\[(\d+) (\d+)\])$`)

// readEtcd reads a log of Jepsen. Lines that tell of no operation are left out.
func readEtcd(path string) ([]registers.Op, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read
	var ops []registers.Op
	open := make(map[string]int)
	lines := bufio.NewScanner(file)
	for time := int64(0); lines.Scan(); time++ {
		part := etcdLine.FindStringSubmatch(lines.Text())
		if part == nil {
			continue
		}
		if process := part[1]; part[2] == "invoke" {
			open[process] = len(ops)
			ops = append(ops, etcdCall(part, time))
		} else if at, ok := open[process]; ok {
			delete(open, process)
			etcdReturn(&ops[at], part, time)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return ops, nil
}

func etcdCall(part []string, time int64) registers.Op {
	op := registers.Op{Call: time, Return: registers.Never}
	switch part[3] {
	case "write":
		op.Kind, op.Value = registers.Write, value(part[5])
	case "cas":
		op.Kind, op.Expected, op.Value = registers.Swap, value(part[6]), value(part[7])
	}
	return op
}

func etcdReturn(op *registers.Op, part []string, time int64) {
	switch result := part[2]; {
	case result == "info" || part[4] == ":timed-out":
		return // it may have happened
	case result == "fail" && op.Kind == registers.Swap:
		op.Kind = registers.Refused
	case op.Kind == registers.Read:
		op.Value = value(part[5])
	}
	op.Return = time
}

// value is what a register holds; no digits stand for nothing.
func value(digits string) int64 {
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return registers.Nothing
	}
	return n
}
