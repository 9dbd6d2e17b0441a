package harness

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"capsize/checkers"
	"capsize/histories"
	"capsize/histories/jepsen"
	"capsize/reports"
)

// JudgeFile judges a history that stands in a file by itself: Jepsen's history.edn, or ours. What
// the clients did is told by the name of a workload; without one it is guessed from the
// names of the operations. Nothing is written.
func JudgeFile(ctx context.Context, path, workload string) (*Judgement, *reports.Run, error) {
	events, err := readHistory(path)
	if err != nil {
		return nil, nil, err
	}
	if workload == "" {
		if workload, err = guess(events); err != nil {
			return nil, nil, err
		}
	}
	if err := oneOf("workload", workload, Workloads()); err != nil {
		return nil, nil, err
	}
	markFinal(events)
	plan := DefaultPlan()
	w, err := workloadsByName[workload](&plan)
	if err != nil {
		return nil, nil, err
	}
	limits := checkers.Limits{Timeout: plan.CheckTimeout, Memory: uint64(plan.CheckMemory)}
	run := &checkers.Run{History: events}
	results := checkers.JudgeAll(ctx, run, append(w.Checkers(limits), &checkers.Stats{MinimumOK: 1}))
	j := &Judgement{Results: results, Status: statusOf(checkers.Overall(results), false)}
	j.Verdict = j.Status.String()
	j.Headline = reports.Headline(j.Verdict, results)
	j.Notes = []string{fmt.Sprintf("judged as a history of the workload %s: nodes, faults and traces are not known", workload)}
	return j, &reports.Run{
		Name: filepath.Base(path), Command: fmt.Sprintf("checker check %s --workload %s", path, workload),
		Verdict: j.Verdict, Headline: j.Headline, Notes: j.Notes, Results: results, History: events,
	}, nil
}

// readHistory reads a file of either format: lines of ours are JSON objects, {"…
func readHistory(path string) ([]histories.Event, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read a history: %w", err)
	}
	defer func() { _ = file.Close() }() // only read
	const enough = 4096
	source := bufio.NewReaderSize(file, enough)
	head, err := source.Peek(enough)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	head = bytes.TrimLeft(head, " \t\r\n")
	if bytes.HasPrefix(head, []byte("{")) && bytes.HasPrefix(bytes.TrimLeft(head[1:], " \t"), []byte(`"`)) {
		history, err := histories.ReadFile(path)
		if err != nil {
			return nil, err
		}
		return history.Events, nil
	}
	events, err := jepsen.Read(source)
	if err != nil {
		return nil, &UsageError{"FILE", path, fmt.Sprintf("Jepsen's history.edn, or a history.jsonl of a run (%v)", err)}
	}
	return events, nil
}

// markFinal marks the reads at the end where the history does not say which those are: all that
// were called when nothing else happened any more.
func markFinal(events []histories.Event) {
	last := 0
	for i := range events {
		e := &events[i]
		if e.Final {
			return
		}
		if e.Process >= 0 && e.F != "read" {
			last = i
		}
	}
	began := make(map[int]bool) // processes
	for i := last + 1; i < len(events); i++ {
		e := &events[i]
		if e.Process >= 0 && (e.Type == histories.Invoke || began[e.Process]) {
			e.Final, began[e.Process] = true, true
		}
	}
}

// guess tells the workload from what the clients called, where that is clear.
func guess(events []histories.Event) (string, error) {
	called := make(map[string]bool)
	for i := range events {
		if events[i].Process >= 0 {
			called[events[i].F] = true
		}
	}
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return called[name] })
	}
	switch {
	case has("txn"):
		for i := range events {
			micros, _ := events[i].Value.Micros()
			for _, m := range micros {
				if m.F == "append" {
					return "list-transactions", nil
				}
			}
		}
		return "register-transactions", nil
	case has("write", "cas"):
		return "register", nil
	case has("append"):
		return "list-append", nil
	case has("enqueue", "dequeue"):
		return "queue", nil
	case has("transfer"):
		return "bank", nil
	case has("add-and-get"):
		return "counter", nil
	case has("add"):
		return "", &UsageError{"workload", "", "--workload set or --workload counter: the history adds, and does not say to what"}
	}
	var names []string
	for name := range called {
		names = append(names, name)
	}
	slices.Sort(names)
	return "", &UsageError{"workload", "", fmt.Sprintf("--workload with one of %s: the operations of the history (%s) do not tell", strings.Join(Workloads(), ", "), strings.Join(names, ", "))}
}

// Export writes the history of a run in Jepsen's format.
func Export(dir Directory, to string) (err error) {
	history, err := histories.ReadFile(dir.History())
	if err != nil {
		return err
	}
	file, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("export %s: %w", dir.History(), err)
	}
	return errors.Join(jepsen.Write(file, history.Events), file.Close())
}
