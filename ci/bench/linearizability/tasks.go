package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"capsize/checkers"
	"capsize/checkers/linearizability"
	"capsize/checkers/linearizability/registers"
	"capsize/checkers/linearizability/search"
	"capsize/histories"
)

// tasks are what a child can be told to do.
var tasks = map[string]func(args []string) (answer, error){
	"check":                func(args []string) (answer, error) { return check(usual(number(args[0]))), nil },
	"write":                func(args []string) (answer, error) { return write(usual(number(args[0])), args[1]) },
	"check-file":           func(args []string) (answer, error) { return checkFile(args[0]) },
	"live":                 func(args []string) (answer, error) { return liveRate(number(args[0]), number(args[1])), nil },
	"live-growth":          func(args []string) (answer, error) { return liveGrowth(number(args[0]), number(args[1])), nil },
	"unresolved":           func([]string) (answer, error) { return explained(), nil },
	"porcupine-unresolved": func([]string) (answer, error) { return askPorcupine(behindUnresolved().ops()), nil },
	"hold":                 func(args []string) (answer, error) { return hold(busy(args)), nil },
	"search":               func(args []string) (answer, error) { return searched(busy(args)), nil },
	"porcupine":            beside,
	"etcd":                 func(args []string) (answer, error) { return compareAll(args[0]) },
}

// work does one task and ends the process.
func work(task string, args []string) {
	do := tasks[task]
	if do == nil {
		fmt.Fprintf(os.Stderr, "no task %q\n", task)
		os.Exit(64)
	}
	a, err := do(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", task, err)
		os.Exit(1)
	}
	reply(a)
}

// number reads an argument that this program has written itself.
func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return n
}

const crashed = 0.001

// usual is the history that most lines are about.
func usual(operations int) mix {
	return mix{seed: 1, operations: operations, clients: 20, keys: 1, crashed: crashed}
}

// busy is a history of few clients that are all answered.
func busy(args []string) []registers.Op {
	return newTraffic(mix{seed: 1, operations: number(args[0]), clients: number(args[1]), keys: 1}).ops()
}

// behindUnresolved ends with a read that cannot be, behind 20 writes that are never answered.
func behindUnresolved() *traffic {
	return newTraffic(mix{seed: 1, operations: 300, clients: 5, keys: 1, unanswered: 20, wrong: true})
}

// check decides a register in memory: the first time, with everything cold.
func check(m mix) answer {
	ops := newTraffic(m).ops()
	c := begin()
	verdict := registers.Check(ops)
	return c.answer(len(ops), verdict.Outcome.String())
}

func write(m mix, path string) (a answer, err error) {
	file, err := os.Create(path)
	if err != nil {
		return a, err
	}
	defer func() {
		if closed := file.Close(); err == nil {
			err = closed
		}
	}()
	c := begin()
	out := bufio.NewWriterSize(file, 1<<20)
	w, err := histories.NewWriter(out, histories.Header{Run: "bench", Started: time.Unix(0, 0).UTC()})
	if err != nil {
		return a, err
	}
	t := newTraffic(m)
	for e := t.next(); e != nil; e = t.next() {
		if err := w.Write(e); err != nil {
			return a, err
		}
	}
	if err := w.Flush(); err != nil {
		return a, err
	}
	if err := out.Flush(); err != nil {
		return a, err
	}
	info, err := file.Stat()
	if err != nil {
		return a, err
	}
	a = c.answer(m.operations, "")
	a.Detail = mib(uint64(info.Size()))
	return a, nil
}

func checker() *linearizability.Checker {
	return &linearizability.Checker{Model: historyModel(), Object: linearizability.Register, Workers: 1}
}

func checkFile(path string) (answer, error) {
	c := begin()
	result, err := checker().CheckFile(context.Background(), &checkers.Run{}, path)
	if err != nil {
		return answer{}, err
	}
	return c.answer(result.Linearizability.Operations, string(result.Verdict)), nil
}

// liveRate feeds a history that is in memory to a live check. An alarm is its verdict.
func liveRate(operations, keys int) answer {
	m := usual(operations)
	m.keys = keys
	events := newTraffic(m).all()
	judge := checker().Live()
	alarm := ""
	c := begin()
	for i := range events {
		if a := judge.Event(&events[i]); a != nil {
			alarm = a.Why
			break
		}
	}
	return c.answer(operations, alarm+strings.Join(judge.Unjudged(), "; "))
}

// liveGrowth feeds a live check with a history that is nowhere held, and tells how much more
// heap there is at its end than after the first operations.
func liveGrowth(first, operations int) answer {
	t, judge := newTraffic(usual(operations)), checker().Live()
	alarm, before := "", int64(0)
	c := begin()
	for e := t.next(); e != nil; e = t.next() {
		if a := judge.Event(e); a != nil {
			alarm = a.Why
			break
		}
		if before == 0 && t.begun == first {
			before = settled()
		}
	}
	a := c.answer(operations, alarm+strings.Join(judge.Unjudged(), "; "))
	a.Grown = settled() - before
	runtime.KeepAlive(judge)
	runtime.KeepAlive(t)
	return a
}

// settled is what is left of the heap without garbage.
func settled() int64 {
	runtime.GC()
	return int64(heap())
}

func explained() answer {
	run := &checkers.Run{Nodes: []string{"n1"}, History: behindUnresolved().all()}
	c := begin()
	result := checker().Check(context.Background(), run)
	a := c.answer(result.Linearizability.Operations, string(result.Verdict))
	for _, violation := range result.Linearizability.Violations {
		a.Detail = violation.Explanation
	}
	return a
}

// hold takes the memory of a history, and of one that Porcupine can take, and does nothing.
func hold(ops []registers.Op) answer {
	history := forPorcupine(ops)
	a := begin().answer(len(ops), "held")
	runtime.KeepAlive(history)
	return a
}

func searched(ops []registers.Op) answer {
	history := forPorcupine(ops)
	c := begin()
	found := search.Check(context.Background(), search.Model{Model: model()}, history, search.Limits{})
	return c.answer(len(ops), found.Outcome.String())
}

// beside asks Porcupine for so many operations of so many clients, with such a share of unknown
// outcome.
func beside(args []string) (answer, error) {
	share, err := strconv.ParseFloat(args[2], 64)
	if err != nil {
		return answer{}, err
	}
	m := mix{seed: 1, operations: number(args[0]), clients: number(args[1]), keys: 1, crashed: share}
	return askPorcupine(newTraffic(m).ops()), nil
}

// historyModel is the register that the checker is given: it takes histories.Operation.
func historyModel() porcupine.Model {
	m := model()
	step := m.Step
	m.Step = func(state, input, _ any) (bool, any) {
		op := input.(histories.Operation)
		o := registers.Op{Kind: registers.Read, Value: registers.Nothing, Return: int64(op.Returned)}
		if op.Type == histories.Info {
			o.Return = registers.Never
		}
		value := op.Output
		if op.F == "write" {
			o.Kind, value = registers.Write, op.Input
		}
		if n, ok := value.Int(); ok {
			o.Value = n
		}
		return step(state, o, nil)
	}
	return m
}
